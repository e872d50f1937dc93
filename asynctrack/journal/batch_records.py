"""Batch records: decodes the records of a batch together: by the native core, or one by one. Runs anywhere.

The core hands back each record that it does not know, and that is decoded as it is without the core. So both give the same records.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from asynctrack._system.native import is_native
from asynctrack.journal.frames import Frame, FrameBatch
from asynctrack.journal.manifest import UNREADABLE
from asynctrack.journal.writers import Writers
from asynctrack.queue.layout import RECORD
from asynctrack.records.codec import Decoder, Record

if TYPE_CHECKING or is_native:
    from asynctrack import _native

# Of a batch that are decoded at once: records of these take a fraction of a millisecond, and 1 MB of memory.
PIECE_BYTES: Final = 128 * 1024
_NO_LIMIT: Final = 1 << 40


class Taken(NamedTuple):
    """The frames of a piece of a batch.

    Attributes:
        records: in their order.
        others: the frames of other kinds.
        unreadable: frames of records that cannot be decoded.
        inner: the byte behind them all.
        odd: True where a record may hold what the core does not know, such as keys that are no texts.
    """

    records: list[Record]
    others: list[Frame]
    unreadable: list[Frame]
    inner: int
    odd: bool


class BatchDecoder:
    """Decodes the batches of a run, for one thread at a time.

    Attributes:
        writers: the labels of the rings, as far as it has come.

    Args:
        decoder: of single records.
        writers: the labels at the place where it begins.
    """

    def __init__(self, decoder: Decoder, writers: Writers | None = None) -> None:
        self.writers: Writers = Writers() if writers is None else writers
        self._decoder = decoder
        self._native = _native.FrameDecoder(Record) if is_native else None

    def take(self, batch: FrameBatch, inner: int, max_bytes: int, max_records: int) -> Taken:
        """Take the unharmed frames from byte `inner` on, at least one, about `max_bytes`, at most so many records."""
        writer = self.label_of(batch)
        # A cursor may come from anyone, and point anywhere.
        if self._native is None or inner % 8 or inner > len(batch.data):
            return self._take_singly(batch, inner, max_bytes, max_records, writer)
        data, ring = batch.data, batch.header.ring
        records, odd, others, inner = self._native.take(data, batch.whole, inner, max_bytes, max_records, ring, writer)
        unreadable: list[Frame] = []
        for index, end, number, lost, begin, behind in odd:
            payload = data[begin:behind]
            try:
                records[index] = self._decoder.record(payload, number, ring, writer)
            except UNREADABLE:
                unreadable.append(Frame(end, RECORD, number, lost, payload))
        if unreadable:
            records = [record for record in records if record is not None]
        frames = [
            Frame(end, kind, number, lost, data[begin:behind]) for end, kind, number, lost, begin, behind in others
        ]
        return Taken(records, frames, unreadable, inner, bool(odd))

    def record(self, payload: memoryview, number: int, ring: int, writer: str | None) -> Record:
        """Decode a single record, as `Decoder.record` does."""
        return self._decoder.record(payload, number, ring, writer)

    def label_of(self, batch: FrameBatch) -> str | None:
        """Return the label of a batch's records, which come next; None where the run has one writer alone."""
        self.writers = self.writers.learn(batch)
        return self.writers.label_of(batch.header.ring)

    def pieces(self, batch: FrameBatch) -> Iterator[Taken]:
        """Yield all unharmed frames of a batch, some at a time."""
        inner = 0
        while inner < len(batch.data):
            found = self.take(batch, inner, PIECE_BYTES, _NO_LIMIT)
            inner = found.inner
            yield found

    def _take_singly(
        self, batch: FrameBatch, inner: int, max_bytes: int, max_records: int, writer: str | None
    ) -> Taken:
        payloads, others, inner = batch.take(inner, max_bytes, max_records)
        ring, decode = batch.header.ring, self._decoder.record
        try:
            return Taken(
                [decode(payload, number, ring, writer) for number, payload in payloads], others, [], inner, True
            )
        except UNREADABLE:
            records: list[Record] = []
            unreadable: list[Frame] = []
            for number, payload in payloads:
                try:
                    records.append(decode(payload, number, ring, writer))
                except UNREADABLE:
                    unreadable.append(Frame(inner, RECORD, number, 0, payload))
            return Taken(records, others, unreadable, inner, True)
