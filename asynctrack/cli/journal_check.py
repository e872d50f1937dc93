"""Journal check: checks that a run's journal is whole, and that run.json and the cursors agree with it. Reads every byte once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import msgspec

from asynctrack._system.wording import counted
from asynctrack.cli.output import ProgressLine
from asynctrack.client.run_state import activity_of
from asynctrack.errors import ManifestUnreadable, NotARun
from asynctrack.journal import manifest as manifests
from asynctrack.journal import safe_read
from asynctrack.journal.cursor import CURSORS, Cursor, decode_cursor
from asynctrack.journal.frames import Frame, FrameBatch
from asynctrack.journal.layout import (
    HEADER_BYTES,
    NOTES_RING,
    Position,
    salt_of,
    segment_name,
    segment_number,
    unpack_batch_header,
)
from asynctrack.journal.manifest import Manifest, find_start
from asynctrack.journal.reader import Reader, journal_id_of, segments
from asynctrack.queue.layout import LENGTH_MASK, RECORD
from asynctrack.records.codec import to_json

# What both run.json and the journal say.
_IN_BOTH: Final = (
    "id",
    "project",
    "created_at",
    "status",
    "error",
    "ended_at",
    "config",
    "summary",
    "checkpoint",
    "dropped",
)


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong with a run.

    Attributes:
        file: in the run's directory.
        byte: the position in it; None where the problem is with all of it.
        what: the problem.
    """

    file: str
    byte: int | None = None
    what: str


class Findings(msgspec.Struct, kw_only=True):
    """The result of a check.

    Attributes:
        path: the run's directory.
        segments: how many the journal has.
        bytes: the size of all segments.
        batches: how many can be read.
        records: how many can be read.
        missing: records that were journaled and cannot be read, as far as the rest shows.
        dropped: records that `log()` did not accept, by reason.
        unfinished_bytes: of a batch at the end that is being written, or was when its writer died. Not a problem: its records are
            still in the queue.
        backends: for each cursor the records up to it.
        problems: all that is wrong.
    """

    path: str
    segments: int = 0
    bytes: int = 0
    batches: int = 0
    records: int = 0
    missing: int = 0
    dropped: dict[str, int] = {}
    unfinished_bytes: int = 0
    backends: dict[str, int] = {}
    problems: list[Problem] = []


class JournalCheck:
    """Checks one run, also while it is live: run.json and the cursors are read before the journal, and so are never ahead of it."""

    def __init__(self, run: Path) -> None:
        self.findings = Findings(path=str(run), problems=[], backends={})
        self._run = run
        self._journal = run / "journal"
        self._live = activity_of(run).is_active
        self._unreadable = False
        self._cursors = dict(self._read_cursors())
        self._waiting = dict(self._cursors)  # those whose place in the journal has not come
        self._manifest = self._read_manifest()
        self._rebuilt: Manifest | None = None  # by the journal alone
        self._has_ended = False  # once, or more often
        self._early: list[tuple[FrameBatch, Frame]] = []  # frames before the one that names the run: notes of drops
        self._rings: dict[int, _Ring] = {}
        self._whole = True  # so far

    def take(self) -> Findings:
        """Read everything, and return the findings."""
        found = self.findings
        strange = self._strange_names()
        sizes = {number: (self._journal / segment_name(number)).stat().st_size for number in self._segments()}
        found.segments, found.bytes = len(sizes), sum(sizes.values())
        with (
            closing(Reader(self._journal)) as reader,
            ProgressLine(f"checking {self._run.name}", found.bytes) as progress,
        ):
            done = 0
            for batch in reader:
                self._whole = self._whole and not reader.damage
                self._take(batch)
                done += batch.header.size
                progress.at(done)
            for path, offset, length, what in reader.damage:
                self._problem(path, offset, f"{length} bytes cannot be read: {what}" if length else what)
            self._whole = not reader.damage
            self._check_end(reader.position)
        for name in strange:
            self._problem(f"journal/{name}", None, "is not a file")
        self._check_cursors(reader.position)
        self._check_manifest(reader.position)
        found.problems.sort(key=lambda problem: (problem.file, problem.byte or 0))
        return found

    def _take(self, batch: FrameBatch) -> None:
        found = self.findings
        self._check_places(batch)
        found.batches += 1
        if batch.header.ring != NOTES_RING:
            ring = self._rings.setdefault(batch.header.ring, _Ring())
            missing = ring.take(batch)
            found.records += ring.records
            if missing:
                found.missing += missing
                self._problem(
                    batch.segment,
                    batch.offset,
                    f"{counted(missing, 'record that was journaled before is missing', 'records that were journaled before are missing')}",
                )
        self._account(batch)

    def _account(self, batch: FrameBatch) -> None:
        """Apply a batch's changes to the state that the journal tells alone, and to that of run.json where this does not have them yet."""
        others = list(batch.frames(skip_records=True))
        if not others:
            return
        self._early += [(batch, frame) for frame in others]
        self._rebuilt = self._rebuilt or find_start(batch)
        if self._rebuilt is not None:
            for at, frame in self._early:
                if not self._rebuilt.apply(frame, at.header.ring):
                    self._problem(at.segment, at.offset, f"a frame of kind {frame.kind} cannot be read")
                self._has_ended = self._has_ended or self._rebuilt.status != "running"
            self._early.clear()
        for frame in others:
            if self._manifest is not None and (batch.segment, batch.offset) >= self._manifest.position[:2]:
                self._manifest.apply(frame, batch.header.ring)
        if self._rebuilt is not None:
            self.findings.dropped = self._rebuilt.dropped

    def _check_places(self, batch: FrameBatch) -> None:
        """Check that the cursors that point before the batch's end count the records before them."""
        for name, cursor in list(self._waiting.items()):
            at = cursor.position
            if at[:2] <= (batch.segment, batch.offset):
                inside = at.inner if at[:2] == (batch.segment, batch.offset) else 0
                self._compare(
                    name, cursor, sum(frame.kind == RECORD and frame.end <= inside for frame in batch.frames())
                )
            elif at < batch.after:
                del self._waiting[name]
                self._problem(f"{CURSORS}/{name}.json", None, f"points into the middle of a batch: {_place(at)}")

    def _compare(self, name: str, cursor: Cursor, more: int = 0) -> None:
        """Compare a cursor with the records counted so far, and `more`."""
        del self._waiting[name]
        had = cursor.delivered + cursor.rejected + sum(cursor.skipped.values())
        count = self.findings.records + more
        self.findings.backends[name] = had
        if had != count and self._whole:
            self._problem(
                f"{CURSORS}/{name}.json",
                None,
                f"counts {counted(had, 'record')} up to {_place(cursor.position)}; the journal has {count}",
            )

    def _check_cursors(self, end: Position) -> None:
        for name, cursor in list(self._waiting.items()):
            if cursor.position[:2] <= end[:2]:
                self._compare(name, cursor)
            else:
                what = (
                    f"points past the journal's end: {_place(cursor.position)}, and the journal ends at {_place(end)}"
                )
                self._problem(f"{CURSORS}/{name}.json", None, what)
        # A run that was resumed has an end, and goes on; a backend that has not followed yet is still behind that.
        if self._whole and self._rebuilt is not None and not self._has_ended:
            for name, cursor in self._cursors.items():
                if cursor.closed:
                    self._problem(
                        f"{CURSORS}/{name}.json", None, "says that the run has ended, and the journal does not"
                    )

    def _check_end(self, end: Position) -> None:
        """Check the bytes after the last batch that can be read."""
        numbers = self._segments()
        path = self._journal / segment_name(end.segment)
        if not numbers or end.segment != numbers[-1]:
            return
        left = path.stat().st_size - end.offset
        if left <= 0:
            return
        with open(path, "rb") as file:
            file.seek(end.offset)
            header = file.read(HEADER_BYTES)
        salt = salt_of(journal_id_of(os.fspath(self._journal)) or b"")
        begun = len(header) < HEADER_BYTES or unpack_batch_header(header, salt) is not None
        ended = self._rebuilt is not None and self._rebuilt.status != "running"
        if begun and (self._live or not ended):
            self.findings.unfinished_bytes = left
        else:
            self._problem(end.segment, end.offset, f"{left} bytes at the end are no batch")

    def _check_manifest(self, end: Position) -> None:
        said, told, file = self._manifest, self._rebuilt, manifests.FILE_NAME
        if told is None:
            announced = said is not None and said.position == Position()  # by its caller, before anything was journaled
            begun = (
                self.findings.batches
                or not self._whole
                or self._cursors
                or self._unreadable
                or (said is not None and not announced)
            )
            if begun and not self._live:  # else all that there is of it is still in its queue
                self._problem("journal", None, "does not say which run it is: its first frame is missing")
        elif said is None:
            if not self._unreadable and not self._live and told.status != "running":
                self._problem(file, None, "is missing")
        elif said.position[:2] > end[:2]:
            what = f"has read the journal up to {_place(said.position)}, and the journal ends at {_place(end)}"
            self._problem(file, None, what)
        elif self._whole:
            for name in _IN_BOTH:
                here, there = _as_saved(getattr(said, name)), _as_saved(getattr(told, name))
                if here != there:
                    self._problem(file, None, f"has the {name} {here!r:.60}, and the journal has {there!r:.60}")

    def _read_manifest(self) -> Manifest | None:
        try:
            return manifests.load(self._run)
        except ManifestUnreadable as error:
            self._unreadable = True
            self._problem(manifests.FILE_NAME, None, f"cannot be read: {error.found}")
            return None
        except NotARun:
            return None

    def _read_cursors(self) -> Iterator[tuple[str, Cursor]]:
        for path in sorted((self._run / CURSORS).glob("*.json")):
            try:
                yield path.stem, decode_cursor(safe_read.read(path))
            except (ValueError, RecursionError, OSError) as error:
                self._problem(f"{CURSORS}/{path.name}", None, f"cannot be read: {error}")

    def _strange_names(self) -> list[str]:
        """Return links and the like that have names of segments. Call it before the segments are listed: a live run begins others."""
        names = [] if self._journal.is_symlink() or not self._journal.is_dir() else os.listdir(self._journal)
        known = set(self._segments())
        return [name for name in names if (number := segment_number(name)) is not None and number not in known]

    def _segments(self) -> list[int]:
        return segments(os.fspath(self._journal))

    def _problem(self, file: str | int, byte: int | None, what: str) -> None:
        """Note a problem of a file, or of a segment."""
        name = f"journal/{segment_name(file)}" if isinstance(file, int) else file.removeprefix(f"{self._run}{os.sep}")
        self.findings.problems.append(Problem(file=name, byte=byte, what=what))


class _Ring:
    """Counts the records of one ring by their numbers."""

    def __init__(self) -> None:
        self.records = 0  # of the last batch
        self._first: int | None = None  # number of the ring's first record, modulo 2**32
        self._put = 0  # records so far, those that are missing too

    def take(self, batch: FrameBatch) -> int:
        """Count a batch's records, and return how many are missing before or among them."""
        self.records = missing = 0
        for frame in batch.frames():
            number = frame.number - frame.lost
            if self._first is None:
                self._first = number - batch.header.record_offset if batch.whole[0][0] == 0 else number - self._put
            gap = (number - self._first - self._put) & LENGTH_MASK
            missing += gap
            self._put += gap + (frame.kind == RECORD)
            self.records += frame.kind == RECORD
        return missing


def _place(position: Position) -> str:
    return f"byte {position.offset} of {segment_name(position.segment)}"


def _as_saved(value: Any) -> Any:
    """Convert a value to its form in `run.json`, where it is one level deep."""
    return msgspec.json.decode(msgspec.json.encode(to_json(value, 1)))
