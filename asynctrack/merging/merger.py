"""Merger: appends what carriers bring of the hosts' journals to one run's, each batch once and in its ring's order. Runs in a collector.

It appends, syncs, and only then acknowledges: what `place_of` says survives a power cut. What comes again is recognised by its position. A batch with a
gap before it is not appended; it comes again once what is missing has come. For one thread.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from asynctrack._system import locks, permissions
from asynctrack.carriers.message import BatchMessage, Damaged, Garbage, Place, batches_in, unpack
from asynctrack.errors import MergedElsewhere, NotAMergedRun, PartIncomplete, PartRefused
from asynctrack.journal import host_list
from asynctrack.journal.frames import Frame, FrameBatch
from asynctrack.journal.layout import NOTES_RING
from asynctrack.journal.manifest import read_note
from asynctrack.journal.writer import Writer
from asynctrack.merging.batch_appends import BatchAppends
from asynctrack.merging.batch_rules import judge, judge_notes
from asynctrack.merging.host_places import load_end, load_places, save_places
from asynctrack.merging.host_watch import HostWatch
from asynctrack.merging.joined_start import Opening, as_join, opening_in, owns_by_join
from asynctrack.merging.merged_manifest import MergedManifest
from asynctrack.merging.merged_state import MergedState
from asynctrack.merging.unsynced_tail import cut_damaged
from asynctrack.queue.layout import NOTE
from asynctrack.settings import project_directory
from asynctrack.worker.notes import Notes
from asynctrack.worker.rewind import rewind_cursors
from asynctrack.worker.run_claim import LOCK_NAME

LOST_AFTER_S: Final = 300.0
# Notes of a host that are notes of the host in the merged run.
_OF_THE_HOST: Final = {"run_ended": "host_ended", "run_reopened": "host_reopened"}

Backends = dict[str, dict[str, Any]]

# The runs that this process merges: the system lets a process take its own lock again, and closing it would give both back.
_merged_here: Final[set[str]] = set()


class Merger:
    """The one that writes a merged run.

    Attributes:
        run: the run's directory.
        watch: signs of life of the hosts, and how each stands.

    Args:
        run: its directory, `OUT/PROJECT/RUN`; made where it is missing.
        backends: makes those of the merged run of those that the host names which opens it, each as `run.json` has it; None to leave them.
        may_write: says, right before each write, whether there may be one: another machine may merge the run by now. None where only the run's lock decides.
        most_rings: that the run may have, one for each process that has written to it; None for any number.

    Raises:
        MergedElsewhere: another process writes to it.
        NotAMergedRun: a run that nobody merged is there, or a link.
        OSError: the directory cannot be made or written.
    """

    def __init__(
        self,
        run: Path,
        *,
        backends: Callable[[Backends], Backends] | None = None,
        may_write: Callable[[], bool] | None = None,
        most_rings: int | None = None,
    ) -> None:
        self.run = run
        self._most_rings = most_rings
        self._may_write = may_write
        self._backends = backends
        self._real = os.path.realpath(run)
        if os.path.islink(run):
            raise NotAMergedRun(run, "it is a link, which may lead anywhere")
        permissions.make_directories(run)
        self._lock_fd = _lock(run, self._real)
        try:
            saved = load_end(run)
            if saved is not None:
                cut_damaged(run / "journal", saved)
            self._writer = Writer(run / "journal")
            rewind_cursors(str(run), self._writer.found)
            self._state = MergedState.read(run / "journal")
            if self._state.is_strange:
                raise NotAMergedRun(run, "a run that was not merged lies there")
            self._appends = BatchAppends(self._writer, self._state.ends, self._check_may_write)
            self._notes = Notes(self._writer)
            self._manifest = MergedManifest(run)
        except BaseException:
            self._let_go()
            raise
        known = {one.host for one in self._state.hosts}  # else the journal has lost what the places tell of
        places = load_places(run, self._writer.found)
        self._acknowledged = {host: place for host, place in places.items() if host in known}
        self._taken = dict(self._acknowledged)
        self.watch = HostWatch(run, self._state.hosts)
        self._owner_is_lost = False
        self._written_ns: dict[str, int] = {}
        # What was saved last; else a merger was killed before it could, or somebody has harmed it.
        self._changed = saved != self._writer.found or not self._manifest.is_saved

    def __repr__(self) -> str:
        return f"<Merger of {self.run}, {len(self._state.hosts)} hosts, {len(self._state.ends)} rings>"

    def __enter__(self) -> Merger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def hosts(self) -> host_list.HostList:
        """Return the hosts that have a part of the run."""
        return list(self._state.hosts)

    @property
    def has_ended(self) -> bool:
        """Return whether all hosts have ended or are lost, and the run's journal says so."""
        return self._state.end is not None

    def place_of(self, host: str, journal: bytes) -> Place:
        """Return up to where a host's journal is merged, and safe from a power cut.

        Raises:
            PartRefused: the host's part belongs to another journal, or the journal to another host.
        """
        self._check_owner(host, journal)
        return self._acknowledged.get(host, Place())

    def taken_of(self, host: str) -> tuple[Place, int]:
        """Return up to where a host's journal is appended, and when the last batch of what came was written, by the host's clock; 0 where none has come."""
        return self._taken.get(host, Place()), self._written_ns.get(host, 0)

    def hear(self, host: str, silent_s: float = 0.0, *, offset_ns: int | None = None) -> None:
        """Take note that a host gives a sign of life: see `HostWatch.hear`."""
        self.watch.hear(host, silent_s, offset_ns=offset_ns)

    def take(self, host: str, after: Place, upto: Place, message: bytes | memoryview) -> None:
        """Append what a message brings of a host's journal. It is acknowledged by the next `sync`.

        Args:
            host: its name.
            after: the place before the first batch; nothing before it may be missing.
            upto: the place behind the last.
            message: whole batches of its journal, in their order.

        Raises:
            PartIncomplete: something is missing before a batch, or a batch is damaged; what comes before it is appended.
            PartRefused: it is garbage, or another's.
            MergedElsewhere: another may write by now.
            OSError: it cannot be written; a part of it may be appended.
        """
        try:
            content = unpack(message)
            self._check_owner(host, content.journal)
            if after > self._taken.get(host, Place()):  # a ring that begins behind it would not show what is missing
                raise PartIncomplete(
                    self.run, host, f"what its journal has before {after.segment}:{after.offset} has not come yet"
                )
            try:
                for batch, bad in batches_in(content):
                    self._take(host, content, batch, bad)
                    self._written_ns[host] = batch.header.time_ns
            finally:
                self._appends.write()
        except Damaged as error:
            raise PartIncomplete(self.run, host, str(error)) from error
        except Garbage as error:
            raise PartRefused(self.run, host, str(error)) from error
        if host_list.find(self._state.hosts, host) is None:  # it brought nothing: a stranger may make up names
            return
        before = self._taken.get(host, Place())
        if upto > before or (upto.segment == before.segment and upto.made_ns != before.made_ns):  # else it came before
            self._taken[host], self._changed = upto, True
        self.hear(host)

    def name_lost(self, lost_after_s: float = LOST_AFTER_S) -> list[str]:
        """Note which hosts have been silent for so long that they count as lost; returns them."""
        lost = self.watch.lost_notes(self._state.hosts, lost_after_s)
        for note in lost:
            self._note(note)
        if self._state.awaits_owner and self.watch.silent_s() > lost_after_s:
            self._owner_is_lost = True
        return [note["host"] for note in lost]

    def sync(self, *, is_on_disk: bool = False) -> bool:
        """Note the run's end where all hosts have ended, make what is merged survive a power cut, and acknowledge it; returns whether it does.

        Args:
            is_on_disk: that the whole file system was synced since `tell` was called, and nothing was taken: so nothing is noted, and no file synced.

        Raises:
            MergedElsewhere: another may write by now.
            OSError: the end cannot be written, or `run.json`.
        """
        self._check_may_write()
        if not is_on_disk:
            self.tell()
        if not self._changed:
            return True
        taken = dict(self._taken)
        if not self._writer.sync(_leave if is_on_disk else None):
            return False
        self._acknowledged = taken
        self._manifest.catch_up()
        save_places(self.run, self._writer.synced_until, taken)
        self._changed = False
        return True

    def tell(self) -> None:
        """Note what is known by now beside what hosts bring: their clocks, and the run's end where all of them have ended.

        Raises:
            MergedElsewhere: another may write by now.
            OSError: it cannot be written.
        """
        self._check_may_write()
        self.watch.save()
        for note in self.watch.clock_notes(self._state.hosts) if self._state.end is None else ():
            self._note(note)
        end = host_list.end_of(self._state.hosts)
        is_awaited = self._state.awaits_owner and not self._owner_is_lost
        if end is not None and self._state.config is not None and not is_awaited and self._is_news(end):
            self._note({"note": "run_ended", **end})

    def close(self) -> None:
        """Sync what can be synced, and give the run's lock back."""
        try:
            with contextlib.suppress(OSError, MergedElsewhere):
                self.sync()
            with contextlib.suppress(MergedElsewhere):
                self._check_may_write()
                self.watch.save(at_once=True)
        finally:
            self._manifest.close()
            self._writer.close()
            self._let_go()

    def _check_may_write(self) -> None:
        if self._may_write is not None and not self._may_write():
            raise MergedElsewhere(self.run, None)

    def _is_news(self, end: dict[str, Any]) -> bool:
        said = self._state.end
        return said is None or any(said.get(name) != value for name, value in end.items())

    def _check_owner(self, host: str, journal: bytes) -> None:
        """See that a host's part belongs to this journal, and the journal to this host."""
        for one in self._state.hosts:
            if one.host == host and one.journal != journal.hex():
                why = f"its part of the run belongs to journal {one.journal}, and this is {journal.hex()}"
                raise PartRefused(self.run, host, f"{why}: {_another_name(self.run.name)}")
            if one.host != host and one.journal == journal.hex():
                raise PartRefused(self.run, host, f"its journal is that of host {one.host}: this is a copy of it")

    def _welcome(self, host: str, journal: bytes) -> None:
        self.watch.welcome(host)
        self._note({"note": "host_joined", "host": host, "journal": journal.hex(), "time_ns": time.time_ns()})

    def _take(self, host: str, message: BatchMessage, batch: FrameBatch, bad: list[int]) -> None:
        header = batch.header
        is_notes = header.ring == NOTES_RING
        seen = self._state.notes.get(host, 0) if is_notes else self._appends.end_of(header.ring)
        if not is_notes:
            self._check_ring(host, header.ring)
        verdict = (judge_notes if is_notes else judge)(header.start, header.end, seen)
        if verdict == "repeat":
            return
        if verdict == "overlap":
            raise PartRefused(
                self.run, host, f"a batch of ring {header.ring:016x} begins before what is merged of it ends"
            )
        if verdict == "gap" and not message.settled:
            why = f"bytes {seen} to {header.start} of ring {header.ring:016x} have not come yet"
            raise PartIncomplete(self.run, host, why, header.ring, seen)
        opening = opening_in(batch)
        if opening is not None:
            self._check_run(host, opening)
        known = host_list.find(self._state.hosts, host)
        if known is None:
            self._welcome(host, message.journal)
        elif not is_notes:
            self._reopen(known)
        if verdict == "gap":
            self._note_gap(host, batch, seen)
        if is_notes:
            self._note_again(host, batch)
        else:
            self._append(host, batch, opening, bad)

    def _check_ring(self, host: str, ring: int) -> None:
        owners, most = self._state.owners, self._most_rings
        if owners.get(ring, host) != host:
            raise PartRefused(self.run, host, f"ring {ring:016x} is that of host {owners[ring]}")
        if most is not None and ring not in owners and len(owners) >= most:
            told = f"the run has the rings of {most} processes, and may have no more (--max-rings of the collector)"
            raise PartRefused(self.run, host, told)

    def _check_run(self, host: str, opening: Opening) -> None:
        start = opening.start
        if (start.id, project_directory(start.project)) != (self.run.name, self.run.parent.name):
            raise PartRefused(self.run, host, f"it is of run {start.id!r} of project {start.project!r}")

    def _note_gap(self, host: str, batch: FrameBatch, seen: int) -> None:
        """Note what a host's journal has lost for good."""
        ring, start = f"{batch.header.ring:016x}", batch.header.start
        self._note(
            {"note": "host_gap", "host": host, "ring": ring, "seen": seen, "at": start, "time_ns": time.time_ns()}
        )

    def _append(self, host: str, batch: FrameBatch, opening: Opening | None, bad: list[int]) -> None:
        header, frames = batch.header, batch.data
        if opening is not None:
            if self._state.config is None:
                named = opening.start.backends_when_merged
                backends = named if self._backends is None else self._backends(named)
                self._note({"note": "host_opened", "host": host, "backends": backends})
            if not self._opens(host):
                frames = memoryview(as_join(batch, opening, host, self._state.config or ()))
        if (opening is not None and opening.owns) or owns_by_join(batch):
            self._note({"note": "host_owns", "host": host})
        if header.ring not in self._state.owners:
            self._note({"note": "host_ring", "host": host, "ring": f"{header.ring:016x}"})
        self._appends.add(header, frames, bad)
        if opening is not None and self._state.config is None:
            self._appends.write()
            self._state.open(opening.start)
        self._changed = True

    def _opens(self, host: str) -> bool:
        found = host_list.find(self._state.hosts, host)
        return found is not None and found.opens

    def _reopen(self, known: host_list.HostStats) -> None:
        """Note that a host goes on, and so the run, where they were said to have ended."""
        if known.status != "running":
            self._note({"note": "host_reopened", "host": known.host})
        elif self._state.has_ended:
            self._write({"note": "run_reopened", "time_ns": time.time_ns()})

    def _note_again(self, host: str, batch: FrameBatch) -> None:
        """Note what a host's worker has noted, with its origin. The notes of several hosts have the same positions."""
        for frame in batch.frames():
            at = batch.header.start + frame.end
            if at > self._state.notes.get(host, 0):
                self._note({**_noted(frame, host), "origin": host, "at": at})
        if batch.header.end > self._state.notes.get(host, 0):  # its last frames are damaged
            self._note({"note": "host_note_lost", "origin": host, "at": batch.header.end})

    def _note(self, content: dict[str, Any]) -> None:
        """Note something; where a host comes or goes on behind the run's end, that the run goes on."""
        if content["note"] in ("host_joined", "host_reopened") and self._state.has_ended:
            self._write({"note": "run_reopened", "time_ns": time.time_ns()})
        self._write(content)

    def _write(self, content: dict[str, Any]) -> None:
        self._appends.write()  # what was taken before
        self._notes.write(content)
        self._state.learn(content)
        self._changed = True

    def _let_go(self) -> None:
        _merged_here.discard(self._real)
        os.close(self._lock_fd)


def _noted(frame: Frame, host: str) -> dict[str, Any]:
    """Return a note of a host's worker as it is noted in the merged run."""
    note = read_note(frame) if frame.kind == NOTE else {"note": ""}
    if note["note"] in _OF_THE_HOST:
        return {**note, "note": _OF_THE_HOST[note["note"]], "host": host}
    if note["note"].startswith("host_"):
        return {"note": ""}  # only a merger says such things
    return note


def _leave(_: int) -> None:
    """Leave a file alone, which is on the disk."""


def _another_name(run: str) -> str:
    """Return what to do where a host has the name of another, or has lost its disk."""
    return f"give each host a name of its own by ASYNCTRACK_HOST, and rename the part of this one to {run}@NAME when its processes have ended"


def _lock(run: Path, real: str) -> int:
    """Take a run's lock.

    Raises:
        MergedElsewhere: another process has it, or this one.
    """
    if real in _merged_here:
        raise MergedElsewhere(run, os.getpid())
    fd = locks.take(run / LOCK_NAME)
    if fd is None:
        raise MergedElsewhere(run, locks.holder(run / LOCK_NAME))
    _merged_here.add(real)
    return fd
