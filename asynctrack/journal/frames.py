"""Frames of a batch: walking over them, taking some of them, and finding those that damage has left whole.

Imports the standard library only.
"""

from __future__ import annotations

import itertools
from collections import namedtuple

from asynctrack._system.native import is_native
from asynctrack.journal.layout import BLOCK_BYTES, Position
from asynctrack.queue.layout import (
    FRAME_HEADER_BYTES,
    KIND_SHIFT,
    LENGTH_MASK,
    LOST_SHIFT,
    NUMBER_MASK,
    PAD,
    RECORD,
    frame_size,
)

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    from collections.abc import Iterator

    from asynctrack.journal.layout import BatchHeader

if TYPE_CHECKING or is_native:
    from asynctrack._native import other_frames

_FIRST_OTHER = 1 << KIND_SHIFT  # a record's second word is its number alone
_FIRST_PAD = PAD << KIND_SHIFT


if TYPE_CHECKING:  # which has the types of the fields
    from typing import NamedTuple

    class _Frame(NamedTuple):
        end: int
        kind: int
        number: int
        lost: int
        payload: memoryview

    class _FrameBatch(NamedTuple):
        segment: int
        offset: int
        header: BatchHeader
        data: memoryview
        whole: list[tuple[int, int]]

else:
    _Frame = namedtuple("Frame", "end kind number lost payload")
    _FrameBatch = namedtuple("FrameBatch", "segment offset header data whole")


class Frame(_Frame):
    """One frame of a batch. `end` is the byte after it, in the batch's frames; `payload` a memoryview."""

    __slots__ = ()


class FrameBatch(_FrameBatch):
    """A batch whose frames can be read; `whole` lists the stretches of its frames that are unharmed."""

    __slots__ = ()

    @property
    def after(self) -> Position:
        """Return the position behind it."""
        return Position(self.segment, self.offset + self.header.size)

    def frames(self, inner: int = 0, *, skip_records: bool = False) -> Iterator[Frame]:
        """Iterate over the unharmed frames from byte `inner` on, without those that only fill the ring's end."""
        for start, end in self.whole:
            yield from walk(self.data, max(start, inner), end, skip_records=skip_records)

    def count_records(self) -> int:
        """Count its unharmed records: in a tenth of the time that `frames` takes."""
        words, found = self.data[: len(self.data) & -8].cast("Q"), 0
        for start, end in self.whole:
            at, last = start, end - FRAME_HEADER_BYTES
            while at <= last:
                length, second = words[at >> 3] & LENGTH_MASK, words[(at >> 3) + 1]
                at += (length + 23) & -8  # frame_size(length), without the call
                found += at <= end and second < _FIRST_OTHER  # as in `walk`
        return found

    def take(
        self, inner: int, max_bytes: int, max_records: int
    ) -> tuple[list[tuple[int, memoryview]], list[Frame], int]:
        """Take the unharmed frames from byte `inner` on, at least one, about `max_bytes`, at most so many records: the way of a delivery.

        Returns:
            Number and payload of the records, the other frames, and the byte behind them all.
        """
        data, words = self.data, self.data[: len(self.data) & -8].cast("Q")
        records: list[tuple[int, memoryview]] = []
        others: list[Frame] = []
        stop = inner + max_bytes
        at = inner
        for start, end in self.whole:
            at, last = max(start, at), end - FRAME_HEADER_BYTES
            while at <= last and at < stop and len(records) < max_records:
                first, second = words[at >> 3], words[(at >> 3) + 1]
                length = first & LENGTH_MASK
                begin = at + FRAME_HEADER_BYTES
                at += (length + 23) & -8  # frame_size(length), without the call
                if at > end:  # as in `walk`
                    at = end
                    break
                if second < _FIRST_OTHER:
                    records.append((second, data[begin : begin + length]))
                elif second < _FIRST_PAD:
                    others.append(
                        Frame(at, second >> KIND_SHIFT, second & NUMBER_MASK, first >> 32, data[begin : begin + length])
                    )
            if at <= last:
                return records, others, at
        return records, others, len(data)


def walk(frames: memoryview, start: int, end: int, *, skip_records: bool = False) -> Iterator[Frame]:
    """Iterate over the frames between two bytes, both on frame boundaries, without those of kind `PAD`."""
    if skip_records and is_native and not start % 8:  # a cursor may come from anyone, and point anywhere
        for after, kind, number, lost, begin, behind in other_frames(frames, start, end):
            yield Frame(after, kind, number, lost, frames[begin:behind])
        return
    words = frames[: len(frames) & -8].cast("Q")
    skipped = (PAD, RECORD) if skip_records else (PAD,)
    at = start
    while at + FRAME_HEADER_BYTES <= end:
        first, second = words[at >> 3], words[(at >> 3) + 1]
        length = first & LENGTH_MASK
        begin = at + FRAME_HEADER_BYTES
        at += (length + 23) & -8  # frame_size(length), without the call
        if at > end:  # the caller's process wrote over its own ring: the checksum is of that
            return
        kind = second >> KIND_SHIFT
        if kind not in skipped:
            yield Frame(at, kind, second & NUMBER_MASK, first >> LOST_SHIFT, frames[begin : begin + length])


def unharmed(frames: memoryview, bad: list[int]) -> list[tuple[int, int]]:
    """Find the stretches of whole frames outside the bad blocks.

    Behind a bad block the next boundary is not known: it is the first place from which a chain of frames, each counting
    on from the one before, leads exactly to the batch's end or into the next bad block.
    """
    bounds = [-1, *bad, -(-len(frames) // BLOCK_BYTES)]
    words, dead = frames[: len(frames) & -8].cast("Q"), bytearray((len(frames) >> 3) + 1)
    stretches = []
    for before, after in itertools.pairwise(bounds):
        start, end = (before + 1) * BLOCK_BYTES, min(after * BLOCK_BYTES, len(frames))
        if start >= end:
            continue
        exact = end == len(frames)
        candidates = [0] if before < 0 else range(start, end, 8)
        for candidate in candidates:
            stop = _chain(words, dead, candidate, end, exact)
            if stop is not None and stop > candidate:
                stretches.append((candidate, stop))
                break
    return stretches


def _chain(words: memoryview, dead: bytearray, start: int, end: int, exact: bool) -> int | None:
    """Find the end of the last whole frame of a chain from `start`, or None if there is no such chain.

    What a failed chain has passed is marked in `dead`: another that gets there fails as it did. So bytes that are made to lead
    nowhere take no more time than others.
    """
    at, wanted, size = start, None, 8 * len(words)
    passed: list[int] = []
    while at + FRAME_HEADER_BYTES <= end:
        first, second = words[at >> 3], words[(at >> 3) + 1]
        length = frame_size(first & LENGTH_MASK)
        number, is_record = second & NUMBER_MASK, second >> KIND_SHIFT == RECORD
        records = (number - (first >> LOST_SHIFT)) & LENGTH_MASK  # put before this frame, modulo 2**32
        empty = is_record and length == FRAME_HEADER_BYTES  # none is: such are the zeros of an array in a payload
        if dead[at >> 3] or wanted not in (None, records) or number >> 48 or empty or at + length > size:
            break
        wanted = (records + is_record) & LENGTH_MASK
        if at + length > end:
            return at if at > start else None
        passed.append(at >> 3)
        at += length
    else:
        if at == end or not exact:
            return at
    for index in passed:
        dead[index] = 1
    return None
