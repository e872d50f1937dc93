"""Batcher: reads a journal from a cursor and makes the batches that a sink gets. A batch is fixed before it is tried, so that a retry is the same."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Final, NamedTuple

from asynctrack.backends.base import BATCH_BYTES, Backend, Batch, Outcome, Update
from asynctrack.delivery.downsample import Downsampler
from asynctrack.journal.backwards import backwards
from asynctrack.journal.cursor import Cursor
from asynctrack.journal.frames import Frame
from asynctrack.journal.frames import FrameBatch as JournalBatch
from asynctrack.journal.layout import Position
from asynctrack.journal.manifest import UNREADABLE, Manifest, read_note, start_time_ns
from asynctrack.journal.reader import Reader
from asynctrack.queue.layout import CHECKPOINT, CONFIG, LABELS, NOTE, RECORD, START, SUMMARY
from asynctrack.records.codec import Decoder, Record, decode_as

_log = logging.getLogger("asynctrack.delivery")

# How long `gather` reads on at once: others share the loop.
_GATHER_S: Final = 0.002
# What downsampling reads of a batch at once, in bytes of frames: a fraction of a millisecond to decode.
_PIECE_BYTES: Final = 16 * 1024


class DeliveryBatch(NamedTuple):
    """What a sink gets at once.

    Attributes:
        batch: the records and updates.
        skipped: records that no sink gets, by reason: "downsampled" were left out for a display's sake, "unreadable" cannot be decoded.
        position: of the journal behind them.
        ends: for each ring, up to where they reach.
        media: whether some of the batch are to be stored.
    """

    batch: Batch
    skipped: dict[str, int]
    position: Position
    ends: dict[int, int]
    media: bool


def has_more(run: Path, cursor: Cursor, backend: Backend) -> bool:
    """Whether the journal goes on behind a cursor."""
    batcher = Batcher(run, cursor, backend)
    more = not batcher.at_end()
    batcher.close()
    return more


def lacks(run: Path, cursor: Cursor) -> bool:
    """Whether the journal has a record or a change behind a cursor; that the run has ended is neither."""
    batcher = Batcher(run, cursor, Backend())
    try:
        while (found := batcher.next()) is not None:
            if found.batch.records or found.batch.updates or found.skipped:
                return True
        return False
    finally:
        batcher.close()


class _Gathering:
    """A batch in the making."""

    def __init__(self, *, downsample: bool) -> None:
        self.records: list[Record] = []
        self.downsampler = Downsampler() if downsample else None
        self.updates: list[Update] = []
        self.unreadable = 0
        self.bytes = 0
        self.began_at = time.monotonic()
        self.first_ns: int | None = None
        self.whole = False

    def add(self, records: list[Record]) -> None:
        if records and self.first_ns is None:
            self.first_ns = records[0].time_ns
        if self.downsampler is None:
            self.records += records
        else:
            self.downsampler.add(records)

    def batch(self) -> Batch:
        return Batch(self.records if self.downsampler is None else self.downsampler.kept(), self.updates)

    def skipped(self) -> dict[str, int]:
        downsampled = 0 if self.downsampler is None else len(self.downsampler) - len(self.downsampler.kept())
        counts = {"downsampled": downsampled, "unreadable": self.unreadable}
        return {reason: count for reason, count in counts.items() if count}


class Batcher:
    """Cuts the batches of one backend.

    Args:
        run: the run's directory.
        cursor: where to begin.
        backend: its limits.
    """

    def __init__(self, run: Path, cursor: Cursor, backend: Backend) -> None:
        position = cursor.position
        self._run = run
        self._backend = backend
        self._decoder = Decoder(run)
        self._records = max(1, min(backend.batch_records, int(backend.max_records_s or backend.batch_records)))
        self._reader = Reader(os.path.join(run, "journal"), position._replace(inner=0), dict(cursor.ends))
        self._position = position
        self._begun = bool(cursor.ends)
        self._ends = dict(cursor.ends)
        self._batch: JournalBatch | None = None
        self._inner = 0
        self._gathering: _Gathering | None = None
        self._outcome: Outcome | None = None
        self._looked = False
        if position.inner:
            self._batch = self._reader.next()
            same = self._batch is not None and self._batch[:2] == position[:2]
            self._inner = position.inner if same else 0

    def close(self) -> None:
        self._reader.close()

    def at_end(self) -> bool:
        """Whether the journal has nothing more now."""
        if self._batch is None:
            self._batch, self._inner = self._reader.next(), 0
        return self._batch is None

    def gather(self) -> bool:
        """Read on for about 2 ms; whether there is more for the next batch then."""
        until = time.monotonic() + _GATHER_S
        while time.monotonic() < until:
            if (self._gathering is not None and self._gathering.whole) or self.at_end():
                return False
            if self._gathering is None:
                self._gathering = _Gathering(downsample=self._backend.downsample_interval_s is not None)
            elif self._at_a_start():
                self._gathering.whole = True
                return False
            self._gather(self._gathering)
        return True

    def take(self, *, expedite: bool) -> DeliveryBatch | None:
        """What is gathered; None where that is nothing, or too little that has not waited for long enough.

        Args:
            expedite: whether somebody waits: then it need not be full, nor old.
        """
        gathering = self._gathering
        if gathering is None or not (gathering.whole or expedite or self._outcome or self.due_in() <= 0):
            return None
        self._gathering = None
        media, self._decoder.met_media = self._decoder.met_media, False
        return DeliveryBatch(gathering.batch(), gathering.skipped(), self._position, dict(self._ends), media)

    def next(self) -> DeliveryBatch | None:
        """What comes next in the journal as it is; None at its end."""
        while self.gather():
            pass
        return self.take(expedite=True)

    def outcome(self) -> Outcome | None:
        """How the run ended, where that is the last that the journal tells; asked for at its end."""
        if not self._looked:
            self._looked = True
            self._outcome = self._read_back()
        return self._outcome

    def due_in(self) -> float:
        """Seconds until what is gathered has waited for long enough; infinite where there is nothing."""
        if self._gathering is None:
            return float("inf")
        patience = max(self._backend.batch_age_s, self._backend.downsample_interval_s or 0.0)
        return self._gathering.began_at + patience - time.monotonic()

    def _at_a_start(self) -> bool:
        """Whether a run may be opened again in what comes next: who wants to know of that gets it first in a batch."""
        batch = self._batch
        return self._backend.milestones and batch is not None and not (self._inner or batch.header.start)

    def _gather(self, into: _Gathering) -> None:
        """Take the next piece of the journal's batch."""
        batch = self._batch
        assert batch is not None
        before, self._looked = self._inner, True
        records, others = self._take(batch, into) if into.downsampler is None else self._downsample(batch, into)
        if records:
            self._outcome = None
        into.add(records)
        into.bytes += self._inner - before
        for frame in others:
            try:
                self._take_other(frame, into)
            except UNREADABLE as error:
                _log.warning("%s: a change of kind %d cannot be read and is left out: %s", self._run, frame.kind, error)
        self._position = Position(batch.segment, batch.offset, self._inner)
        if self._inner >= len(batch.data):
            self._position, self._batch = batch.after, None
            self._ends[batch.header.ring] = batch.header.end
        if into.downsampler is None and (into.bytes >= self._backend.batch_bytes or self._room(into) <= 0):
            into.whole = True

    def _room(self, into: _Gathering) -> int:
        return self._records - len(into.records)

    def _take(self, batch: JournalBatch, into: _Gathering) -> tuple[list[Record], list[Frame]]:
        """Take frames until the batch is full."""
        most_bytes = min(self._backend.batch_bytes - into.bytes, BATCH_BYTES)
        payloads, others, inner = batch.take(self._inner, most_bytes, self._room(into))
        ring, decode = batch.header.ring, self._decoder.record
        try:
            records = [decode(payload, number, ring) for number, payload in payloads]
        except UNREADABLE:
            found = [self._decode(payload, number, ring, into) for number, payload in payloads]
            records = [record for record in found if record is not None]
        self._inner = inner
        return records, others

    def _decode(self, payload: memoryview, number: int, ring: int, into: _Gathering) -> Record | None:
        """A record; None, and counted, where it cannot be decoded."""
        try:
            return self._decoder.record(payload, number, ring)
        except UNREADABLE:
            into.unreadable += 1
            return None

    def _downsample(self, batch: JournalBatch, into: _Gathering) -> tuple[list[Record], list[Frame]]:
        """Take frames until the stretch of time is over."""
        stretch_ns = int((self._backend.downsample_interval_s or 0.0) * 1e9)
        records: list[Record] = []
        others, begin, inner = [], self._inner, len(batch.data)
        for frame in batch.frames(begin):
            if frame.kind == RECORD:
                record = self._decode(frame.payload, frame.number, batch.header.ring, into)
                if record is not None:
                    records.append(record)
                    first_ns = records[0].time_ns if into.first_ns is None else into.first_ns
                    into.whole = record.time_ns - first_ns >= stretch_ns
            else:
                others.append(frame)
            if into.whole or frame.end - begin >= _PIECE_BYTES:
                inner = frame.end
                break
        self._inner = inner
        return records, others

    def _take_other(self, frame: Frame, into: _Gathering) -> None:
        """An update, or how the run ended."""
        if frame.kind in (CONFIG, SUMMARY):
            into.updates.append(
                Update("config" if frame.kind == CONFIG else "summary", *self._decoder.update(frame.payload))
            )
        elif frame.kind == START:
            self._outcome = None
            start = decode_as(frame.payload, Manifest)
            if self._backend.milestones:
                into.updates.append(Update("start", start_time_ns(start), start.config))
            elif self._begun and start.config:  # what a resumed run is given goes over what it had
                into.updates.append(Update("config", start_time_ns(start), start.config))
            self._begun = True
        elif frame.kind == LABELS and self._backend.takes_labels:
            into.updates.append(Update("labels", *self._decoder.update(frame.payload)))
        elif frame.kind == CHECKPOINT and self._backend.milestones:
            into.updates.append(Update("checkpoint", *self._decoder.update(frame.payload)))
        elif frame.kind == NOTE and (note := read_note(frame))["note"] == "run_ended":
            self._outcome = note["status"]

    def _read_back(self) -> Outcome | None:
        """How the run ended, if that lies right before where this begins: who came that far may not have got to the end."""
        last = next(backwards(self._reader.directory, notes=True), None)
        frames = list(last.frames()) if last is not None and last.after == self._position else []
        if frames and frames[-1].kind == NOTE and (note := read_note(frames[-1]))["note"] == "run_ended":
            outcome: Outcome = note["status"]
            return outcome
        return None
