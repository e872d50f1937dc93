"""Batcher: reads a journal from a cursor and makes the batches that a sink gets. A batch is fixed before it is tried, so that a retry is the same."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from asynctrack.backends.base import Backend, Outcome, Update
from asynctrack.backends.files.line_records import LINE_BATCH_BYTES
from asynctrack.delivery.catching_up import catch_up
from asynctrack.delivery.gathering import (
    NEVER_S,
    BatchLimits,
    DeliveryBatch,
    Gathering,
    Records,
    is_ready,
    wanted_updates,
)
from asynctrack.delivery.line_batches import line_batches
from asynctrack.delivery.writer_updates import WriterUpdates
from asynctrack.delivery.writer_views import Piece, view_of
from asynctrack.errors import AsynctrackError
from asynctrack.journal import host_list
from asynctrack.journal.batch_records import BatchDecoder
from asynctrack.journal.cursor import Cursor
from asynctrack.journal.frames import Frame
from asynctrack.journal.frames import FrameBatch as JournalBatch
from asynctrack.journal.layout import Position
from asynctrack.journal.manifest import UNREADABLE, Manifest, load, read_note, start_time_ns
from asynctrack.journal.reader import Reader
from asynctrack.journal.registers import Stamps, admit
from asynctrack.journal.run_end import ended_at
from asynctrack.queue.layout import NOTE, RECORD, START
from asynctrack.records.codec import Decoder, Record, decode_as

_log = logging.getLogger("asynctrack.delivery")

# How long `gather` reads on at once: others share the loop.
_GATHER_S: Final = 0.002
_CAUGHT_UP: Final = object()
# What downsampling reads of a batch at once, in bytes of frames: a fraction of a millisecond to decode.
_PIECE_BYTES: Final = 16 * 1024
# Notes of a merged run that say how the clocks of its hosts differ, and whose ring is whose.
_ON_CLOCKS: Final = ("host_joined", "host_ring", "host_clock")


def has_more(run: Path, cursor: Cursor, backend: Backend) -> bool:
    """Return whether the journal goes on behind a cursor."""
    batcher = Batcher(run, cursor, backend)
    more = not batcher.at_end()
    batcher.close()
    return more


def lacks(run: Path, cursor: Cursor) -> bool:
    """Return whether the journal has a record or a change behind a cursor; that the run has ended is neither."""
    batcher = Batcher(run, cursor, Backend())
    try:
        while (found := batcher.next()) is not None:
            if found.batch.records or found.batch.updates or found.skipped:
                return True
        return False
    finally:
        batcher.close()


class _Place(NamedTuple):
    """The reading position: a batch of the journal, and the byte of its frames that comes next."""

    batch: JournalBatch
    inner: int


class Batcher:
    """Cuts the batches of one backend.

    Args:
        run: the run's directory.
        cursor: where to begin.
        backend: its limits.
    """

    def __init__(self, run: Path, cursor: Cursor, backend: Backend) -> None:
        self._run = run
        self._backend = backend
        self._limits = BatchLimits.of(backend)
        self._wanted = wanted_updates(backend)
        self._decoder = Decoder(run)
        lines = line_batches(backend, run, self._decoder, cursor.writers)
        self._batches = lines or BatchDecoder(self._decoder, cursor.writers)
        if lines is not None:
            self._limits = self._limits._replace(bytes=max(self._limits.bytes, LINE_BATCH_BYTES))
        # What has been gathered reaches to here; what comes next is at `_place`, once that has been read.
        self._position = cursor.position
        self._ends = dict(cursor.ends)
        self._begun = bool(cursor.ends)
        self._view = view_of(backend, cursor.means)
        self._catching_up = catch_up(run / "journal", cursor, self._view, self._decoder)
        self._reader = Reader(os.path.join(run, "journal"), cursor.position._replace(inner=0), dict(cursor.ends))
        self._place = self._find(cursor.position) if cursor.position.inner else None
        self._gathering: Gathering | None = None
        self._outcome: Outcome | Literal["unknown"] | None = "unknown"
        said = _said_of(run) if cursor.writers.several else None
        self._stamps: Stamps = {} if said is None else said.stamps
        self._hosts = [] if said is None else said.hosts
        self._writer_updates = WriterUpdates(run, cursor.writers) if backend.takes_writers else None

    def close(self) -> None:
        """Close the journal."""
        self._reader.close()
        if self._writer_updates is not None:
            self._writer_updates.close()
        self._catching_up.close()

    def at_end(self) -> bool:
        """Return whether the journal has nothing more now."""
        if self._place is None and (batch := self._reader.next()) is not None:
            self._place = _Place(batch, 0)
        return self._place is None

    def gather(self) -> bool:
        """Read on for about 2 ms.

        Returns:
            True where there is more for the next batch.
        """
        until = time.monotonic() + _GATHER_S
        while (now := time.monotonic()) < until:
            if next(self._catching_up, _CAUGHT_UP) is None:
                continue
            if (self._gathering is not None and self._gathering.full) or self.at_end():
                return False
            if self._gathering is None:
                self._gathering = Gathering(self._limits, now)
            elif self._at_a_start():
                return False
            self._gather(self._gathering)
        return True

    def take(self, *, expedite: bool) -> DeliveryBatch | None:
        """Cut the batch that is gathered.

        Args:
            expedite: whether somebody waits: then it need not be full, nor old.

        Returns:
            None where there is nothing, or too little that has not waited for long enough.
        """
        gathering, ended = self._gathering, self._outcome not in (None, "unknown")
        if gathering is None or not is_ready(
            gathering, time.monotonic(), cut_here=self._at_a_start(), expedite=expedite, ended=ended
        ):
            return None
        self._gathering = None
        means = None if self._view is None else self._view.state()
        # A step that is still open may have media that were met before.
        media, self._decoder.met_media = self._decoder.met_media, self._decoder.met_media and means is not None
        return DeliveryBatch(
            gathering.batch(),
            gathering.skipped(),
            self._position,
            dict(self._ends),
            media,
            self._batches.writers,
            means,
        )

    def next(self) -> DeliveryBatch | None:
        """Cut a batch of what comes next in the journal as it is; None at its end."""
        while self.gather():
            pass
        return self.take(expedite=True)

    def outcome(self) -> Outcome | None:
        """Return how the run ended, where that is the last that the journal tells; asked for at its end."""
        if self._outcome == "unknown":
            # Right before where this begins: who came that far may not have got to the end.
            self._outcome = ended_at(self._reader.directory, self._position)
        return self._outcome

    def due_in(self) -> float:
        """Compute the seconds until what is gathered has waited for long enough; infinite where there is nothing."""
        return NEVER_S if self._gathering is None else self._gathering.due_in(time.monotonic())

    def _find(self, position: Position) -> _Place | None:
        """Go to a place within a batch; to the next batch, where the journal has lost that one."""
        batch = self._reader.next()
        if batch is None:
            return None
        return _Place(batch, position.inner if batch[:2] == position[:2] else 0)

    def _at_a_start(self) -> bool:
        """Return whether a run may be opened again in what comes next: who wants to know of that gets it first in a batch.

        An update has no place among the records of its batch but its time, so a subscriber could not tell which of them came before.
        """
        place = self._place
        return self._backend.milestones and place is not None and not (place.inner or place.batch.header.start)

    def _gather(self, into: Gathering) -> None:
        """Take the next piece of the journal's batch."""
        assert self._place is not None
        batch, before = self._place
        take = self._take if self._limits.stretch_ns is None else self._downsample
        records, others, inner = take(self._place, into)
        if records or self._outcome == "unknown":
            self._outcome = None
        if self._view is not None:
            assert isinstance(records, list)
            at = Position(batch.segment, batch.offset)
            records = self._viewed(Piece(at, batch.header.ring, records, others, self._batches.writers), into)
        into.add(records, inner - before)
        for frame in others:
            try:
                self._take_other(frame, batch.header.ring, into)
                if self._writer_updates is not None:
                    into.updates.extend(self._writer_updates.of(frame, batch.header.ring))
            except UNREADABLE as error:
                _log.warning("%s: a change of kind %d cannot be read and is left out: %s", self._run, frame.kind, error)
        if inner < len(batch.data):
            self._place, self._position = _Place(batch, inner), Position(batch.segment, batch.offset, inner)
        else:
            self._place, self._position = None, batch.after
            if self._writer_updates is not None:
                self._writer_updates.count(batch)
            self._ends[batch.header.ring] = batch.header.end

    def _viewed(self, piece: Piece, into: Gathering) -> list[Record]:
        """Turn records into what the backend gets of their writer."""
        assert self._view is not None
        records, left_out = self._view.take(piece)
        into.leave_out(left_out)
        return records

    def _take(self, place: _Place, into: Gathering) -> tuple[Records, list[Frame], int]:
        """Take frames until the batch is full.

        Returns:
            The records, the other frames, and the byte behind them.
        """
        found = self._batches.take(place.batch, place.inner, into.room_bytes, into.room_records)
        into.unreadable += len(found.unreadable)
        return found.records, found.others, found.inner

    def _decode(self, frame: Frame, ring: int, writer: str | None, into: Gathering) -> Record | None:
        """Decode a record; None, and counted, where that cannot be done."""
        try:
            return self._decoder.record(frame.payload, frame.number, ring, writer)
        except UNREADABLE:
            into.unreadable += 1
            return None

    def _downsample(self, place: _Place, into: Gathering) -> tuple[Records, list[Frame], int]:
        """Take frames until the stretch of time is over, as `_take` does."""
        batch, begin = place
        ring, writer = batch.header.ring, self._batches.label_of(batch)
        records: list[Record] = []
        others: list[Frame] = []
        for frame in batch.frames(begin):
            over = False
            if frame.kind != RECORD:
                others.append(frame)
            elif (record := self._decode(frame, ring, writer, into)) is not None:
                records.append(record)
                over = into.ends_stretch(records[0].time_ns, record.time_ns)
            if over or frame.end - begin >= _PIECE_BYTES:
                return records, others, frame.end
        return records, others, len(batch.data)

    def _take_other(self, frame: Frame, ring: int, into: Gathering) -> None:
        """Take an update, or how the run ended."""
        if (kind := self._wanted.get(frame.kind)) is not None:
            into.updates.extend(self._admitted(Update(kind, *self._decoder.update(frame.payload)), ring))
        elif frame.kind == START:
            self._outcome = None  # also where the rest of it cannot be read
            self._take_start(decode_as(frame.payload, Manifest), into)
        elif frame.kind == NOTE:
            self._take_note(read_note(frame))

    def _take_note(self, note: dict[str, Any]) -> None:
        """Take how the run ended, or what is known of its hosts."""
        if note["note"] in ("run_ended", "run_reopened"):
            self._outcome = note["status"] if note["note"] == "run_ended" else None
        elif note["note"] in _ON_CLOCKS:
            self._hosts = host_list.learn(self._hosts, note)

    def _admitted(self, update: Update, ring: int) -> list[Update]:
        """Return what of an update counts: another process may have changed a key later, and its word have come before."""
        if update.kind not in ("config", "summary"):
            return [update]
        fresh, removed = admit(
            self._stamps, update.kind, (update.time_ns, f"{ring:016x}"), update.data, update.removed, self._hosts
        )  # fmt: skip
        counts = fresh or removed or not (update.data or update.removed)
        return [update._replace(data=fresh, removed=removed)] if counts else []

    def _take_start(self, start: Manifest, into: Gathering) -> None:
        """Take a start of the run, the first or a later one."""
        self._stamps = {}
        if self._backend.milestones:
            into.updates.append(Update("start", start_time_ns(start), start.config))
        elif self._begun and start.config:  # what a resumed run is given goes over what it had
            into.updates.append(Update("config", start_time_ns(start), start.config))
        self._begun = True


def _said_of(run: Path) -> Manifest | None:
    """Read `run.json`. It knows when config and summary were changed last: of what comes next, that has the last word already."""
    try:
        return load(run)
    except AsynctrackError:
        return None
