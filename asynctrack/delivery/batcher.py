"""Batcher: reads a journal from a cursor and makes the batches that a sink gets. A batch is fixed before it is tried, so that a retry is the same."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Final, Literal, NamedTuple

from asynctrack.backends.base import Backend, Outcome, Update
from asynctrack.delivery.gathering import NEVER_S, BatchLimits, DeliveryBatch, Gathering, is_ready, wanted_updates
from asynctrack.journal.backwards import backwards
from asynctrack.journal.cursor import Cursor
from asynctrack.journal.frames import Frame
from asynctrack.journal.frames import FrameBatch as JournalBatch
from asynctrack.journal.layout import Position
from asynctrack.journal.manifest import UNREADABLE, Manifest, read_note, start_time_ns
from asynctrack.journal.reader import Reader
from asynctrack.queue.layout import NOTE, RECORD, START
from asynctrack.records.codec import Decoder, Record, decode_as

_log = logging.getLogger("asynctrack.delivery")

# How long `gather` reads on at once: others share the loop.
_GATHER_S: Final = 0.002
# What downsampling reads of a batch at once, in bytes of frames: a fraction of a millisecond to decode.
_PIECE_BYTES: Final = 16 * 1024


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
        # What has been gathered reaches to here; what comes next is at `_place`, once that has been read.
        self._position = cursor.position
        self._ends = dict(cursor.ends)
        self._begun = bool(cursor.ends)
        self._reader = Reader(os.path.join(run, "journal"), cursor.position._replace(inner=0), dict(cursor.ends))
        self._place = self._find(cursor.position) if cursor.position.inner else None
        self._gathering: Gathering | None = None
        self._outcome: Outcome | Literal["unknown"] | None = "unknown"

    def close(self) -> None:
        """Close the journal."""
        self._reader.close()

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
        media, self._decoder.met_media = self._decoder.met_media, False
        return DeliveryBatch(gathering.batch(), gathering.skipped(), self._position, dict(self._ends), media)

    def next(self) -> DeliveryBatch | None:
        """Cut a batch of what comes next in the journal as it is; None at its end."""
        while self.gather():
            pass
        return self.take(expedite=True)

    def outcome(self) -> Outcome | None:
        """Return how the run ended, where that is the last that the journal tells; asked for at its end."""
        if self._outcome == "unknown":
            self._outcome = self._read_back()
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
        into.add(records, inner - before)
        for frame in others:
            try:
                self._take_other(frame, into)
            except UNREADABLE as error:
                _log.warning("%s: a change of kind %d cannot be read and is left out: %s", self._run, frame.kind, error)
        if inner < len(batch.data):
            self._place, self._position = _Place(batch, inner), Position(batch.segment, batch.offset, inner)
        else:
            self._place, self._position = None, batch.after
            self._ends[batch.header.ring] = batch.header.end

    def _take(self, place: _Place, into: Gathering) -> tuple[list[Record], list[Frame], int]:
        """Take frames until the batch is full.

        Returns:
            The records, the other frames, and the byte behind them.
        """
        payloads, others, inner = place.batch.take(place.inner, into.room_bytes, into.room_records)
        ring, decode = place.batch.header.ring, self._decoder.record
        try:
            records = [decode(payload, number, ring) for number, payload in payloads]
        except UNREADABLE:
            found = [self._decode(payload, number, ring, into) for number, payload in payloads]
            records = [record for record in found if record is not None]
        return records, others, inner

    def _decode(self, payload: memoryview, number: int, ring: int, into: Gathering) -> Record | None:
        """Decode a record; None, and counted, where that cannot be done."""
        try:
            return self._decoder.record(payload, number, ring)
        except UNREADABLE:
            into.unreadable += 1
            return None

    def _downsample(self, place: _Place, into: Gathering) -> tuple[list[Record], list[Frame], int]:
        """Take frames until the stretch of time is over, as `_take` does."""
        batch, begin = place
        records: list[Record] = []
        others: list[Frame] = []
        for frame in batch.frames(begin):
            over = False
            if frame.kind != RECORD:
                others.append(frame)
            elif (record := self._decode(frame.payload, frame.number, batch.header.ring, into)) is not None:
                records.append(record)
                over = into.ends_stretch(records[0].time_ns, record.time_ns)
            if over or frame.end - begin >= _PIECE_BYTES:
                return records, others, frame.end
        return records, others, len(batch.data)

    def _take_other(self, frame: Frame, into: Gathering) -> None:
        """Take an update, or how the run ended."""
        if (kind := self._wanted.get(frame.kind)) is not None:
            into.updates.append(Update(kind, *self._decoder.update(frame.payload)))
        elif frame.kind == START:
            self._outcome = None  # also where the rest of it cannot be read
            self._take_start(decode_as(frame.payload, Manifest), into)
        elif frame.kind == NOTE and (note := read_note(frame))["note"] == "run_ended":
            self._outcome = note["status"]

    def _take_start(self, start: Manifest, into: Gathering) -> None:
        """Take a start of the run, the first or a later one."""
        if self._backend.milestones:
            into.updates.append(Update("start", start_time_ns(start), start.config))
        elif self._begun and start.config:  # what a resumed run is given goes over what it had
            into.updates.append(Update("config", start_time_ns(start), start.config))
        self._begun = True

    def _read_back(self) -> Outcome | None:
        """Read how the run ended, if that lies right before where this begins: who came that far may not have got to the end."""
        last = next(backwards(self._reader.directory, notes=True), None)
        frames = list(last.frames()) if last is not None and last.after == self._position else []
        if frames and frames[-1].kind == NOTE and (note := read_note(frames[-1]))["note"] == "run_ended":
            outcome: Outcome = note["status"]
            return outcome
        return None
