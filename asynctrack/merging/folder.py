"""Folder: the carrier of a folder that all hosts share. Each host writes its own directory; one collector reads them all, and merges.

It needs what every network file system can do: files that one machine appends to and others read. No lock and no name is shared between machines.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from asynctrack.carriers.cutter import bytes_behind
from asynctrack.carriers.message import Place
from asynctrack.carriers.parts import Part
from asynctrack.carriers.publisher import SETTLED_AFTER_S, JournalPublisher
from asynctrack.errors import AsynctrackError, PartIncomplete
from asynctrack.journal import manifest as manifests
from asynctrack.journal.layout import segment_name
from asynctrack.journal.reader import segments
from asynctrack.merging.brought_files import BroughtFiles, NotCopiedYet
from asynctrack.merging.host_places import FILE_NAME as PLACES_NAME
from asynctrack.merging.host_reports import FILE_NAME as REPORTS_NAME
from asynctrack.merging.merger import LOST_AFTER_S, Merger
from asynctrack.worker.pulse import FILE_NAME as ALIVE_NAME
from asynctrack.worker.run_claim import LOCK_NAME

# A part that cannot be merged now is tried again after so long. Arbitrary: what is missing on a network file system comes within a minute.
_AGAIN_S: Final = 1.0
# The same while a host has a file to copy, which takes it a second or so; for so long it is worth waiting for. Arbitrary.
_FILE_AGAIN_S: Final = 0.2
_FILE_WAIT_S: Final = 10.0
# What a merger makes where it has merged nothing.
_OWN_FILES: Final = {LOCK_NAME, "journal", PLACES_NAME, REPORTS_NAME}
# What one host may bring before it is the others' turn, in messages. Arbitrary: some 16 MiB.
_TURN: Final = 32


class IntoMerger:
    """The way from a journal that can be read here to a merger in this process.

    Args:
        merger: of the run.
        host: whose journal it is.
        files: that its records name by path; None where they are not looked for.
    """

    def __init__(self, merger: Merger, host: str, files: BroughtFiles | None = None) -> None:
        self._merger = merger
        self._host = host
        self._files = files

    def locate(self, journal: bytes) -> Place:
        """Ask the merger."""
        if self._files is not None:
            self._files.forget()
        return self._merger.place_of(self._host, journal)

    def send(self, after: Place, upto: Place, message: bytes) -> None:
        """Give it to the merger, with the files that it names before it."""
        if self._files is not None:
            self._files.bring(message)
        try:
            self._merger.take(self._host, after, upto, message)
        except OSError as error:
            raise OSError(f"{self._merger.run} cannot be written: {error}") from error  # and not the part


class PartReader:
    """Reads one host's part.

    Attributes:
        part: the same.
        problem: why it is not merged now; None where it is.
        is_waiting: whether what is missing may still come by itself.
        has_caught_up: whether all that was there at some moment has been brought, or cannot be.
        behind_bytes: of its journal, that are not merged.
        awaits_file: whether its host copies a file, which will soon be there.

    Args:
        part: to read.
        merger: of the run.
        settled_after_s: see `JournalPublisher`.
    """

    def __init__(self, part: Part, merger: Merger, settled_after_s: float) -> None:
        self.part = part
        self.problem: str | None = None
        self.is_waiting = False
        self.has_caught_up = False
        self.behind_bytes = 0
        self.awaits_file = False
        self._merger = merger
        files = BroughtFiles(merger.run, part, settled_after_s, self._silent_s)
        self._publisher = JournalPublisher(
            part.path / "journal", IntoMerger(merger, part.host, files), settled_after_s=settled_after_s
        )
        self._file_since: float | None = None
        self._sent = 0
        self._again_at = 0.0
        self._signs: tuple[int, ...] = ()
        self._end: JournalEnd | None = None
        self._heard_at: float | None = None

    def turn(self) -> bool:
        """Bring what there is, up to a limit; returns whether there was anything. What goes wrong is told by `problem`."""
        if time.monotonic() < self._again_at:
            return False
        before = self._sent
        try:
            self._bring()
            self.problem = None
            self._await_file(None)
        except (AsynctrackError, OSError) as error:
            told = str(error) if isinstance(error, AsynctrackError) else f"{self.part.path} is not merged now: {error}"
            self.problem, self.is_waiting = told, isinstance(error, PartIncomplete | OSError)
            self._await_file(error)
            self._again_at = time.monotonic() + (_FILE_AGAIN_S if self.awaits_file else _AGAIN_S)
            self.has_caught_up = not self.awaits_file
        self._listen()
        self._tell()
        return self._sent > before

    def _bring(self) -> None:
        """Bring messages. What is missing is looked for once; in a journal that has not grown for long it is known by then to be lost."""
        until, missing = self._sent + _TURN, 0
        while self._sent < until:
            try:
                if self._publisher.advance() is None:
                    self.has_caught_up = True
                    break
                self._sent, missing = self._sent + 1, 0
            except PartIncomplete:
                missing += 1
                if missing > 1:
                    raise

    def _await_file(self, error: Exception | None) -> None:
        """Note since when a file is awaited."""
        now = time.monotonic()
        self._file_since = (self._file_since or now) if isinstance(error, NotCopiedYet) else None
        self.awaits_file = self._file_since is not None and now - self._file_since < _FILE_WAIT_S

    def close(self) -> None:
        """Close its journal."""
        self._publisher.close()

    def _silent_s(self) -> float:
        """Return for how long nothing was heard of the host."""
        if self._heard_at is not None:
            return time.monotonic() - self._heard_at
        return max(0.0, time.time() - max(signs_of_life(self.part.path, end_of(self.part.path)), default=0) / 1e9)

    def _listen(self) -> None:
        """Look for signs of life: the journal has grown, or the host's worker has said that it lives. The first look goes by the clocks of both machines."""
        end, before = end_of(self.part.path), self._end
        signs, now = signs_of_life(self.part.path, end), time.monotonic()
        if self._heard_at is None:
            self._heard_at = now - self._silent_s()
        elif signs != self._signs:
            self._heard_at = now
        self._signs, self._end = signs, end
        silent_s = now - self._heard_at if self.has_caught_up else 0.0
        self._merger.hear(self.part.host, silent_s, offset_ns=self._offset_ns(before, end))

    def _offset_ns(self, before: JournalEnd | None, end: JournalEnd | None) -> int | None:
        """Measure the host's clock against that of the disk, with which all hosts are compared: what was just written bears both times.

        Only where it was seen to grow: a copy has been written when it was copied.
        """
        place, written_ns = self._merger.taken_of(self.part.host)
        if before is None or end is None or not written_ns or before[:2] == end[:2]:
            return None
        return end.mtime_ns - written_ns if (place.segment, place.offset) == end[:2] else None

    def _tell(self) -> None:
        """Say how the host stands."""
        if self.problem is not None and not self.is_waiting:
            self.behind_bytes = 0
            self._merger.watch.report(self.part.host, refused=self.problem)
            return
        self.behind_bytes, behind_s = self._behind()
        self._merger.watch.report(
            self.part.host, behind_bytes=self.behind_bytes, behind_s=behind_s, waiting=self.problem
        )

    def _behind(self) -> tuple[int, float]:
        """Return how much of the journal is not merged: bytes, and the seconds between the last of it and the last that is merged."""
        place, written_ns = self._merger.taken_of(self.part.host)
        if self._end is None or (place.segment, place.offset) == self._end[:2]:
            return 0, 0.0
        more = bytes_behind(self.part.path / "journal", place)
        return more, max(0.0, (self._end.mtime_ns - written_ns) / 1e9) if more and written_ns else 0.0


class RunCollector:
    """Merges the parts of one run.

    Attributes:
        merger: of the run.
        readers: of its parts.
        trouble: why the merged run cannot be written; None where it can.

    Args:
        run: the merged run's directory.
        parts: of the run.
        lost_after_s: a host that has been silent for so long counts as lost.
        settled_after_s: see `JournalPublisher`.

    Raises:
        MergedElsewhere: another process merges it.
        NotAMergedRun: something else lies there.
        OSError: it cannot be written.
    """

    def __init__(
        self,
        run: Path,
        parts: Sequence[Part],
        *,
        lost_after_s: float = LOST_AFTER_S,
        settled_after_s: float = SETTLED_AFTER_S,
    ) -> None:
        self.merger = Merger(run)
        self._inode = os.stat(run).st_ino
        self.readers: list[PartReader] = []
        self.trouble: str | None = None
        self._lost_after_s = lost_after_s
        self._settled_after_s = settled_after_s
        for part in sorted(parts, key=_who_opens):
            self.add(part)

    @property
    def is_there(self) -> bool:
        """Return whether the merged run is where it was; False where somebody has removed or replaced it."""
        try:
            return os.stat(self.merger.run).st_ino == self._inode
        except OSError as error:
            return error.errno not in (errno.ENOENT, errno.ENOTDIR)  # a disk that fails now may be back

    def add(self, part: Part) -> None:
        """Merge one more part."""
        self.readers.append(PartReader(part, self.merger, self._settled_after_s))

    def turn(self) -> bool:
        """Give each host a turn, and make it safe; returns whether any had something. `trouble` says what keeps the merged run from being written."""
        moved = [reader.turn() for reader in self.readers]
        try:
            self.merger.name_lost(self._lost_after_s)
            self.trouble = None if self.merger.sync() else f"{self.merger.run} cannot be synced to its disk"
        except OSError as error:
            self.trouble = f"{self.merger.run} cannot be written: {error}"
        return any(moved)

    def close(self) -> None:
        """Close the run, and give its lock back. Nothing is left of one of which nothing could be merged."""
        for reader in self.readers:
            reader.close()
        if not self.merger.hosts:
            with contextlib.suppress(AsynctrackError, OSError):
                _remove_empty(self.merger.run)  # while its lock is ours
        self.merger.close()


def _remove_empty(run: Path) -> None:
    """Remove the directory of a merged run that has nothing."""
    if not segments(os.fspath(run / "journal")) and set(os.listdir(run)) <= _OWN_FILES:
        shutil.rmtree(run)


class JournalEnd(NamedTuple):
    """The end of a part's journal.

    Attributes:
        segment: the number of its last segment.
        size: of that, in bytes.
        mtime_ns: when that was written last, by the clock of the disk.
    """

    segment: int
    size: int
    mtime_ns: int


def end_of(part: Path) -> JournalEnd | None:
    """Return the end of a part's journal; None where it has not begun, or cannot be read."""
    journal = os.fspath(part / "journal")
    with contextlib.suppress(AsynctrackError, OSError):
        for number in segments(journal)[-1:]:
            found = os.stat(os.path.join(journal, segment_name(number)), follow_symlinks=False)
            return JournalEnd(number, found.st_size, found.st_mtime_ns)
    return None


def signs_of_life(part: Path, end: JournalEnd | None) -> tuple[int, ...]:
    """Return when the end of a part's journal was written, and when its worker said that it lives; nanoseconds since the epoch."""
    found = [] if end is None else [end.mtime_ns]
    with contextlib.suppress(OSError):
        found.append(os.stat(part / ALIVE_NAME, follow_symlinks=False).st_mtime_ns)
    return tuple(found)


def _who_opens(part: Part) -> tuple[bool, str, str]:
    """Order parts: first that of the process whose end is the run's, then by age. It counts where several are found at once; else who comes first opens the run."""
    with contextlib.suppress(AsynctrackError, OSError):
        said = manifests.load(part.path)
        return said.environment.get("rank") != 0, said.created_at, part.host
    return True, "~", part.host
