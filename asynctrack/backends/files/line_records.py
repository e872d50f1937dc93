"""Line records: records of a batch that the native core has made lines of at once, and their decoding where somebody looks at one. Runs where the delivery does.

To make a record of Python's objects takes longer than all else that a file of lines needs of it. So a delivery to such a file gets these in place of a list.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, overload

import msgspec

from asynctrack._system.native import is_native
from asynctrack.backends.files.reserved import WRITER
from asynctrack.journal.batch_records import PIECE_BYTES, BatchDecoder
from asynctrack.journal.frames import Frame, FrameBatch
from asynctrack.journal.manifest import UNREADABLE
from asynctrack.journal.writers import Writers
from asynctrack.queue.layout import RECORD
from asynctrack.records.codec import Decoder, Record

if TYPE_CHECKING or is_native:
    from asynctrack import _native

# A batch is cut at this many bytes of frames: about 5,000 records, 2 ms of the worker's loop, in pieces of a quarter of that. What each batch costs, however small
# it is, is a third of what 1,200 records cost: the call of a thread, above all.
LINE_BATCH_BYTES: Final = 512 * 1024
# The end of that name, also with more underscores.
_WRITER_NAME: Final = f'{WRITER}"'.encode()
_NO_LIMIT: Final = 1 << 40

# What the core has left of a batch: the place of its line, the end and number of its frame, records lost, the begin of its payload, and the byte behind.
Left = tuple[int, int, int, int, int, int]

# Makes lines of records, each as if it were alone.
Encode = Callable[[list[Record]], bytes]


class _Piece(NamedTuple):
    """Lines of a piece of a batch.

    Attributes:
        batch: of the journal.
        writers: the labels of the rings there.
        begin: byte of its frames where the piece begins,
        end: and ends.
        lines: that the core has made.
        odd: the records that it has left, each with the byte of `lines` where its own line belongs.
    """

    batch: FrameBatch
    writers: Writers
    begin: int
    end: int
    lines: bytes
    odd: list[tuple[int, Record]]


class LineRecords(Sequence[Record]):
    """Holds records as lines. It decodes them when they are looked at, which those who write lines do not.

    Args:
        encode: makes the lines of odd records, once these are wanted: that of a medium depends on whether its file is there.
        decoder: of batches.
    """

    def __init__(self, encode: Encode, decoder: BatchDecoder) -> None:
        self._encode = encode
        self._decoder = decoder
        self._pieces: list[_Piece] = []
        self._decoded: list[Record] | None = None
        self._count = 0
        self._last_number = -1

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        return self._records()[index]

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records())

    def __repr__(self) -> str:
        return f"<LineRecords, {self._count} in {len(self._pieces)} pieces>"

    @property
    def last_number(self) -> int:
        """Return the number of the last record; -1 where there is none."""
        return self._last_number

    def lines(self) -> bytes:
        """Return the lines of all of them."""
        return b"".join(part for piece in self._pieces for part in self._parts(piece))

    def add(self, piece: _Piece, count: int, last_number: int) -> None:
        """Take a piece of so many records."""
        if count:
            self._pieces.append(piece)
            self._count += count
            self._last_number = last_number
            self._decoded = None

    def extend(self, more: LineRecords) -> None:
        """Take the records of others behind these."""
        self._pieces += more._pieces
        self._count += more._count
        if more:
            self._last_number = more._last_number
        self._decoded = None

    def _parts(self, piece: _Piece) -> Iterator[bytes]:
        """Yield the lines of the core, and those of odd records between them."""
        if not piece.lines:
            yield self._encode([record for _, record in piece.odd])
            return
        at = 0
        for place, record in piece.odd:
            yield piece.lines[at:place]
            yield self._encode([record])
            at = place
        yield piece.lines[at:] if at else piece.lines

    def _records(self) -> list[Record]:
        if self._decoded is None:
            self._decoded = [record for piece in self._pieces for record in self._decode(piece)]
        return self._decoded

    def _decode(self, piece: _Piece) -> list[Record]:
        self._decoder.writers = piece.writers
        return self._decoder.take(piece.batch, piece.begin, piece.end - piece.begin, _NO_LIMIT).records


class TakenLines(NamedTuple):
    """The frames of a piece of a batch, as `Taken` has them, and their records as lines."""

    records: LineRecords
    others: list[Frame]
    unreadable: list[Frame]
    inner: int


class LineBatches:
    """Makes lines of the batches of a run, for one thread at a time: in place of a `BatchDecoder`.

    Args:
        run: the run's directory.
        decoder: of what the core leaves.
        encode: makes lines of that.
        gaps: whether floats that are not finite become null.
    """

    def __init__(self, run: Path | None, decoder: BatchDecoder, encode: Encode, *, gaps: bool) -> None:
        self._decoder = decoder
        self._encode = encode
        # Of its own: who looks at records that were taken does not tell the delivery of media in them.
        self._later = BatchDecoder(Decoder(run))
        self._native = _native.LineEncoder(int.from_bytes(os.urandom(8), "little"), gaps)

    @property
    def writers(self) -> Writers:
        """Return the labels of the rings, as far as it has come."""
        return self._decoder.writers

    def label_of(self, batch: FrameBatch) -> str | None:
        """Return the label of a batch's records, as `BatchDecoder.label_of` does."""
        return self._decoder.label_of(batch)

    def take(self, batch: FrameBatch, inner: int, max_bytes: int, max_records: int) -> TakenLines:
        """Take frames as `BatchDecoder.take` does."""
        writer = self.label_of(batch)
        # A cursor may come from anyone, and point anywhere.
        if inner % 8 or inner > len(batch.data):
            return self._take_singly(batch, inner, max_bytes, max_records)
        data, ring, begin = batch.data, batch.header.ring, inner
        lines, count, number, left, others, inner = self._native.take(data, batch.whole, inner, max_bytes, max_records)
        if writer is not None:
            if _WRITER_NAME in lines:  # a key of that name has to give way
                return self._take_singly(batch, begin, max_bytes, max_records)
            lines, left = _with_writer(lines, left, writer)
        odd: list[tuple[int, Record]] = []
        unreadable: list[Frame] = []
        for place, end, odd_number, lost, first, behind in left:
            payload = data[first:behind]
            try:
                odd.append((place, self._decoder.record(payload, odd_number, ring, writer)))
            except UNREADABLE:
                unreadable.append(Frame(end, RECORD, odd_number, lost, payload))
        if odd and odd[-1][0] == len(lines):
            number = odd[-1][1].number
        records = self._records(_Piece(batch, self.writers, begin, inner, lines, odd), count + len(odd), number)
        frames = [Frame(end, kind, told, lost, data[first:behind]) for end, kind, told, lost, first, behind in others]
        return TakenLines(records, frames, unreadable, inner)

    def _take_singly(self, batch: FrameBatch, inner: int, max_bytes: int, max_records: int) -> TakenLines:
        found = self._decoder.take(batch, inner, max_bytes, max_records)
        piece = _Piece(batch, self.writers, inner, found.inner, b"", [(0, record) for record in found.records])
        records = self._records(piece, len(found.records), last_number(found.records))
        return TakenLines(records, found.others, found.unreadable, found.inner)

    def _records(self, piece: _Piece, count: int, number: int) -> LineRecords:
        records = LineRecords(self._encode, self._later)
        records.add(piece, count, number)
        return records

    def pieces(self, batch: FrameBatch) -> Iterator[TakenLines]:
        """Yield all unharmed frames of a batch, as `BatchDecoder.pieces` does."""
        inner = 0
        while inner < len(batch.data):
            found = self.take(batch, inner, PIECE_BYTES, _NO_LIMIT)
            inner = found.inner
            yield found


def _with_writer(lines: bytes, left: list[Left], writer: str) -> tuple[bytes, list[Left]]:
    """Put the label of a writer at the end of each line; the places of what was left move with them."""
    label = b',"%b":%b' % (WRITER.encode(), msgspec.json.encode(writer))
    moved: list[Left] = []
    at = before = 0
    for place, end, number, lost, first, behind in left:
        before += lines.count(b"\n", at, place)
        at = place
        moved.append((place + before * len(label), end, number, lost, first, behind))
    return lines.replace(b"}\n", label + b"}\n"), moved  # JSON has no line end but that of a line


def last_number(records: Sequence[Record]) -> int:
    """Return the number of the last of some records, which are not decoded for that; -1 where there are none."""
    if isinstance(records, LineRecords):
        return records.last_number
    return records[-1].number if records else -1
