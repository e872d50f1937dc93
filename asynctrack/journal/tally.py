"""Tally: counts what is in a journal by its headers alone, a run of days in milliseconds. Runs anywhere. Standard library only."""

from __future__ import annotations

from pathlib import Path

from asynctrack.journal.backwards import backwards, last_records
from asynctrack.journal.frames import Frame, FrameBatch
from asynctrack.journal.layout import NOTES_RING, BatchHeader, Position
from asynctrack.journal.reader import Damage, Reader
from asynctrack.queue.layout import RECORD


class _RingTally:
    __slots__ = ("first", "header", "in_last", "position")

    def __init__(self, first: int, header: BatchHeader, position: Position) -> None:
        self.first, self.header, self.position = first, header, position
        self.in_last: int | None = None


class Tally:
    """Records in a journal, ring by ring. `update` goes on from where the last one stopped.

    A batch's header says how many records its ring had put before, so all batches of a ring but the last count
    themselves; only the last is read.

    Args:
        directory: the journal's.
        start: the start of a batch; what lies before it is not counted.
        ends: for each ring up to where it was journaled there, notes included; kept up to date.
    """

    __slots__ = ("_reader", "_rings", "directory", "ends", "notes", "start")

    def __init__(self, directory: Path, start: Position | None = None, ends: dict[int, int] | None = None) -> None:
        self.directory = directory
        self.start = Position() if start is None else start
        self.ends = {} if ends is None else ends
        self.notes: list[Frame] = []
        self._rings: dict[int, _RingTally] = {}
        self._reader: Reader | None = None

    def update(self) -> None:
        """Read the headers that were written since."""
        if self._reader is None:
            self._reader = Reader(self.directory, self.start, self.ends, bodies=False)
        for batch in self._reader:
            if batch.header.ring == NOTES_RING:
                self.notes.extend(self._read(Position(batch.segment, batch.offset)) or [])
            else:
                self.take(batch)

    def take(self, batch: FrameBatch) -> None:
        """Count a batch of a ring that the caller has read."""
        known = self._rings.get(batch.header.ring)
        first = batch.header.record_offset if known is None else known.first
        self._rings[batch.header.ring] = _RingTally(first, batch.header, Position(batch.segment, batch.offset))

    def records(self) -> int:
        """Return the number of records in the journal."""
        return sum(ring.header.record_offset - ring.first + self._in_last(ring) for ring in self._rings.values())

    def last_batch(self) -> FrameBatch | None:
        """Read the last batch of a ring, and count it on the way; None where there is none."""
        last = max(self._rings.values(), key=lambda ring: ring.position, default=None)
        batch = None if last is None else self._batch_at(last.position)
        if last is not None and batch is not None:
            last.in_last = batch.count_records()
        return batch

    def rings(self) -> list[int]:
        """List the rings that have something in the journal."""
        return list(self._rings)

    def put_by(self, ring: int) -> int:
        """Return how many records a ring has put into the journal, from its beginning on; 0 where nothing of it was counted."""
        found = self._rings.get(ring)
        return 0 if found is None else found.header.record_offset + self._in_last(found)

    def last_record(self, ring: int) -> Frame | None:
        """Find the last record of a ring; None where it has none that can be read."""
        if not self.put_by(ring):
            return None
        in_last = reversed(self._read(self._rings[ring].position) or [])
        return next((frame for frame in in_last if frame.kind == RECORD), None) or self._last_before(ring)

    def next_number(self) -> int:
        """Return the number that a record of a resumed run gets."""
        return max((self._last_number(ring) + 1 for ring in self._rings.values()), default=0)

    def end(self, ring: int) -> int:
        """Return the position up to which a ring is journaled."""
        return self._rings[ring].header.end if ring in self._rings else 0

    def damage(self) -> list[Damage]:
        """Return what is damaged among the headers."""
        return [] if self._reader is None else self._reader.damage

    def rest(self) -> None:
        """Close the segment until the next update."""
        if self._reader is not None:
            self._reader.close()

    def close(self) -> None:
        """Close the journal."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _in_last(self, ring: _RingTally) -> int:
        if ring.in_last is None and (batch := self._batch_at(ring.position)) is not None:
            ring.in_last = batch.count_records()
        return ring.in_last or 0

    def _last_number(self, ring: _RingTally) -> int:
        frames = self._read(ring.position) or self._last_whole(ring.header.ring)
        return frames[-1].number - (frames[-1].kind != RECORD) if frames else -1

    def _last_before(self, ring: int) -> Frame | None:
        """Find the last record of a ring whose last batch has none."""
        batches = (batch for batch in backwards(self.directory) if batch.header.ring == ring)
        return next((frame for batch in batches for frame in last_records(batch, 1)), None)

    def _last_whole(self, ring: int) -> list[Frame]:
        """Return the frames of the last batch of a ring that has some."""
        batches = (list(batch.frames()) for batch in backwards(self.directory) if batch.header.ring == ring)
        return next(filter(None, batches), [])

    def _read(self, position: Position) -> list[Frame] | None:
        """Read the frames of the batch there."""
        batch = self._batch_at(position)
        return None if batch is None else list(batch.frames())

    def _batch_at(self, position: Position) -> FrameBatch | None:
        """Read the batch there; None while the journal is not there: somebody removes or moves it."""
        reader = Reader(self.directory, position)
        try:
            return reader.next()
        except FileNotFoundError:
            return None
        finally:
            reader.close()
