"""Collector: merges all runs whose parts lie in a folder, again and again. Runs in `asynctrack collect`."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Final

import msgspec

from asynctrack.carriers.parts import Part, parts_under
from asynctrack.carriers.publisher import SETTLED_AFTER_S
from asynctrack.errors import AsynctrackError
from asynctrack.journal import manifest as manifests
from asynctrack.journal.reader import journal_id_of
from asynctrack.merging.folder import RunCollector, end_of
from asynctrack.merging.merger import LOST_AFTER_S

# A run whose directory cannot be written is tried again after so long. Arbitrary.
_AGAIN_S: Final = 1.0
# A run that has ended is looked at so often: a folder may have thousands. Arbitrary.
_REST_S: Final = 2.0


class MergedRun(msgspec.Struct, frozen=True, kw_only=True):
    """Tells of a run that is merged.

    Attributes:
        path: its directory.
        status: of the run; None where nothing of it is merged.
        hosts: how the part of each host has ended; "running" as long as it goes on.
        behind: by host, bytes of its journal that are not merged yet; only those that have some.
        waiting: by host, what is missing of it, and may still come.
        refused: by host, why it is not merged.
        trouble: why the merged run cannot be written.
    """

    path: str
    status: str | None = None
    hosts: dict[str, str] = {}
    behind: dict[str, int] = {}
    waiting: dict[str, str] = {}
    refused: dict[str, str] = {}
    trouble: str | None = None

    @property
    def is_whole(self) -> bool:
        """Return whether all there is is merged."""
        return not (self.waiting or self.refused or self.trouble)


class FolderCollector:
    """Merges the runs of a folder.

    Args:
        directory: with the parts, as `PROJECT/RUN@HOST`.
        out: for the merged runs, as `PROJECT/RUN`.
        lost_after_s: a host that has been silent for so long counts as lost.
        settled_after_s: what has been missing for so long counts as lost.
    """

    def __init__(
        self,
        directory: Path,
        out: Path,
        *,
        lost_after_s: float = LOST_AFTER_S,
        settled_after_s: float = SETTLED_AFTER_S,
    ) -> None:
        self._directory = directory
        self._out = out
        self._limits = {"lost_after_s": lost_after_s, "settled_after_s": settled_after_s}
        self._open: dict[Path, RunCollector] = {}
        self._closed: dict[Path, tuple[object, ...]] = {}  # with what their hosts had then
        self._failing: dict[Path, float] = {}  # until when they are left alone
        self._resting: dict[Path, float] = {}  # the same of runs that have ended
        self._report: dict[Path, MergedRun] = {}

    def __enter__(self) -> FolderCollector:
        return self

    def __exit__(self, *_: object) -> None:
        for path in list(self._open):
            self._close(path)

    @property
    def report(self) -> list[MergedRun]:
        """Return what has become of each run."""
        return [self._report[path] for path in sorted(self._report)]

    @property
    def has_ended(self) -> bool:
        """Return whether all runs have ended, as far as they are known, or cannot be merged from here; False while there is none."""
        return bool(self._report) and not self._open and not self._failing

    @property
    def has_caught_up(self) -> bool:
        """Return whether all that was there at some moment is merged, or cannot be: hosts may write on all the time."""
        return all(reader.has_caught_up for collector in self._open.values() for reader in collector.readers)

    @property
    def awaits_files(self) -> bool:
        """Return whether hosts copy files that will soon be there."""
        return any(reader.awaits_file for collector in self._open.values() for reader in collector.readers)

    def turn(self) -> bool:
        """Look for parts, and give each run a turn; returns whether anything was merged.

        Raises:
            OSError: the folder cannot be listed.
        """
        runs: dict[Path, list[Part]] = {}
        for part in parts_under(self._directory):
            runs.setdefault(self._out / part.project / part.run, []).append(part)
        moved = [self._turn(path, parts) for path, parts in runs.items()]  # each of them, whatever the others had
        return any(moved)

    def _turn(self, path: Path, parts: list[Part]) -> bool:
        now = time.monotonic()
        if now < max(self._failing.get(path, 0.0), self._resting.get(path, 0.0)):
            return False
        extents = tuple((part.host, (end_of(part.path) or ())[:2]) for part in parts)
        if self._closed.get(path) == extents:
            self._resting[path] = now + _REST_S
            return False
        if path in self._open and not self._open[path].is_there:
            self._close(path)  # somebody has removed it, or replaced it: it is merged again from its beginning
        if path not in self._open and not any(_has_begun(part) for part in parts):
            return False
        try:
            collector = self._open.get(path) or self._begin(path, parts)
            self._failing.pop(path, None)
        except (AsynctrackError, OSError) as error:
            told = str(error) if isinstance(error, AsynctrackError) else f"{path} cannot be written: {error}"
            self._report[path] = MergedRun(path=os.fspath(path), trouble=told)
            if isinstance(error, AsynctrackError):
                self._closed[path] = extents  # another's, as long as nothing comes
            else:
                self._failing[path] = now + _AGAIN_S
            return False
        known = {reader.part.host for reader in collector.readers}
        for part in parts:
            if part.host not in known:
                collector.add(part)
        moved = collector.turn()
        found = self._report[path] = _report_of(collector)
        if not moved and collector.merger.has_ended and not (found.waiting or found.trouble):
            self._close(path)
            self._closed[path] = extents
        return moved

    def _begin(self, path: Path, parts: list[Part]) -> RunCollector:
        collector = self._open[path] = RunCollector(path, parts, **self._limits)
        return collector

    def _close(self, path: Path) -> None:
        collector = self._open.pop(path)
        collector.close()
        self._report[path] = _report_of(collector)


def _has_begun(part: Part) -> bool:
    try:
        return journal_id_of(os.fspath(part.path / "journal")) is not None
    except (AsynctrackError, OSError):
        return True  # what is wrong is told of it


def _report_of(collector: RunCollector) -> MergedRun:
    merger, troubled = collector.merger, [reader for reader in collector.readers if reader.problem]
    status = None
    with contextlib.suppress(AsynctrackError, OSError):
        status = manifests.load(merger.run).status
    return MergedRun(
        path=os.fspath(merger.run),
        status=status,
        hosts={one.host: one.status for one in merger.hosts},
        behind={reader.part.host: reader.behind_bytes for reader in collector.readers if reader.behind_bytes},
        waiting={reader.part.host: str(reader.problem) for reader in troubled if reader.is_waiting},
        refused={reader.part.host: str(reader.problem) for reader in troubled if not reader.is_waiting},
        trouble=collector.trouble,
    )
