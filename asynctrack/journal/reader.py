"""Reads a journal from a position, while it is being written, after a crash, and around damage. Runs anywhere.

What is damaged is reported and stepped over: a block that fails its checksum costs the frames in it, not its batch.
Imports the standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from asynctrack.errors import UnsupportedVersion
from asynctrack.journal.layout import (
    BATCH_MAGIC,
    BLOCK_BYTES,
    HEADER_BYTES,
    VERSION,
    BatchHeader,
    Position,
    bad_blocks,
    salt_of,
    segment_name,
    segment_number,
    unpack_batch_header,
    unpack_segment_header,
)
from asynctrack.queue.layout import FRAME_HEADER_BYTES, KIND_SHIFT, LENGTH_MASK, NUMBER_MASK, PAD, RECORD, frame_size


class Frame(NamedTuple):
    """One frame of a batch. `end` is the byte after it, in the batch's frames."""

    end: int
    kind: int
    number: int
    lost: int
    payload: memoryview


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch whose frames can be read; `whole` lists the stretches of its frames that are unharmed."""

    segment: int
    offset: int
    header: BatchHeader
    data: memoryview
    whole: list[tuple[int, int]]

    @property
    def after(self) -> Position:
        return Position(self.segment, self.offset + self.header.size)

    def frames(self, inner: int = 0, *, skip_records: bool = False) -> Iterator[Frame]:
        """The unharmed frames from byte `inner` on, without those that only fill the ring's end."""
        for start, end in self.whole:
            yield from walk(self.data, max(start, inner), end, skip_records=skip_records)


@dataclass(frozen=True, slots=True)
class Damage:
    """A stretch of a segment that cannot be read."""

    path: str
    offset: int
    length: int
    found: str

    def __str__(self) -> str:
        return f"{self.path}: {self.length} bytes from byte {self.offset} on cannot be read: {self.found}"


@dataclass(slots=True)
class Reader:
    """Walks a journal's batches in order; at the end it can be asked again later.

    Args:
        directory: the journal's.
        position: where to start: the start of a batch (its `inner` is for the caller).
        ends: for each ring the end of the last batch read, to tell repeats; updated in place.
        bodies: False reads the headers of batches only, and their `data` is empty.
    """

    directory: Path
    position: Position = Position()
    ends: dict[int, int] = field(default_factory=dict)
    damage: list[Damage] = field(default_factory=list)
    bodies: bool = True
    _fd: int = -1
    _salt: int = 0

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __iter__(self) -> Iterator[Batch]:
        """The batches there are now."""
        while (batch := self.next()) is not None:
            yield batch

    def next(self) -> Batch | None:
        """The next batch, or None when there is none yet. What is passed over on the way goes to `damage`."""
        while True:
            if self._fd < 0 and not self._open():
                return None
            following = self._following()  # before the look at the end: a segment with a successor is complete
            batch = self._read(last=following is None)
            if batch is None:
                if following is None:
                    return None
                self._move_to(following)
            elif batch.header.end > self.ends.get(batch.header.ring, -1):
                self.ends[batch.header.ring] = batch.header.end
                return batch

    def _open(self) -> bool:
        numbers = segments(self.directory)
        wanted = [number for number in numbers if number >= self.position.segment]
        if not wanted:
            return False
        if wanted[0] != self.position.segment:
            if self.position.segment:
                self._report(0, 0, "the segment is missing")
            self.position = Position(wanted[0], HEADER_BYTES)
        self.position = self.position._replace(offset=max(self.position.offset, HEADER_BYTES))
        self._fd = os.open(self._path(), os.O_RDONLY | os.O_CLOEXEC)
        return True

    def _following(self) -> int | None:
        return next((number for number in segments(self.directory) if number > self.position.segment), None)

    def _move_to(self, segment: int) -> None:
        self.close()
        missing = range(self.position.segment + 1, segment)
        for number in missing:
            self.position = Position(number, HEADER_BYTES)
            self._report(0, 0, "the segment is missing")
        self.position = Position(segment, HEADER_BYTES)
        self._salt = 0

    def _read(self, *, last: bool) -> Batch | None:
        """The batch at the position, or the next that can be read in this segment; the position moves behind it."""
        size = os.fstat(self._fd).st_size
        if not self._salt and not self._read_segment_header(size, last):
            return None
        while self.position.offset < size:
            segment, offset, _ = self.position
            found = unpack_batch_header(os.pread(self._fd, HEADER_BYTES, offset), self._salt)
            if found is None or (offset + found[0].size > size and not last):
                if not self._skip_damage(size, last):
                    return None
                continue
            header, table_crc = found
            if offset + header.size > size:
                return None  # being written, or torn: recovery will tell
            if not self.bodies:
                self.position = Position(segment, offset + header.size)
                return Batch(segment, offset, header, memoryview(b""), [])
            body = memoryview(os.pread(self._fd, header.size - HEADER_BYTES, offset + HEADER_BYTES))
            if len(body) < header.size - HEADER_BYTES:
                return None
            self.position = Position(segment, offset + header.size)
            return self._check(segment, offset, header, table_crc, body)
        return None

    def _read_segment_header(self, size: int, last: bool) -> bool:
        found = unpack_segment_header(os.pread(self._fd, HEADER_BYTES, 0))
        if found is None:
            if not last:
                self._report(0, size, "the segment has no header")
            return False
        version, _, journal_id = found
        if version > VERSION:
            raise UnsupportedVersion(self._path(), version, VERSION)
        self._salt = salt_of(journal_id)
        return True

    def _skip_damage(self, size: int, last: bool) -> bool:
        """Move to the next batch header behind damage; False when the segment has none."""
        start = self.position.offset
        rest = os.pread(self._fd, size - start, start)
        at = rest.find(BATCH_MAGIC, 1)
        while at >= 0:
            if unpack_batch_header(rest[at : at + HEADER_BYTES], self._salt) is not None:
                self._report(start, at, "no batch begins there")
                self.position = self.position._replace(offset=start + at)
                return True
            at = rest.find(BATCH_MAGIC, at + 1)
        if not last:
            self._report(start, size - start, "the segment ends in a torn batch")
            self.position = self.position._replace(offset=size)
        return False

    def _check(self, segment: int, offset: int, header: BatchHeader, table_crc: int, body: memoryview) -> Batch:
        table, frames = body[: header.table_bytes], body[header.table_bytes :]
        bad = bad_blocks(bytes(table), table_crc, frames, self._salt)
        whole = [(0, header.length)]
        if bad:
            whole = _unharmed(frames, bad)
            at = offset + HEADER_BYTES + header.table_bytes
            for block in bad:
                length = min(BLOCK_BYTES, header.length - block * BLOCK_BYTES)
                self._report(at + block * BLOCK_BYTES, length, "a block fails its checksum")
        return Batch(segment, offset, header, frames, whole)

    def _path(self) -> str:
        return str(self.directory / segment_name(self.position.segment))

    def _report(self, offset: int, length: int, found: str) -> None:
        damage = Damage(self._path(), offset, length, found)
        if damage not in self.damage:
            self.damage.append(damage)


def segments(directory: Path) -> list[int]:
    """Numbers of the segments in a journal's directory, in order; none where it does not exist."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    return sorted(number for name in names if (number := segment_number(name)) is not None)


def walk(frames: memoryview, start: int, end: int, *, skip_records: bool = False) -> Iterator[Frame]:
    """The frames between two bytes, both on frame boundaries, without those of kind `PAD`."""
    words = frames[: len(frames) & -8].cast("Q")
    skipped = (PAD, RECORD) if skip_records else (PAD,)
    at = start
    while at < end:
        first, second = words[at >> 3], words[(at >> 3) + 1]
        length = first & LENGTH_MASK
        begin = at + FRAME_HEADER_BYTES
        at += (length + 23) & -8  # frame_size(length), without the call
        kind = second >> KIND_SHIFT
        if kind not in skipped:
            yield Frame(at, kind, second & NUMBER_MASK, first >> 32, frames[begin : begin + length])


def _unharmed(frames: memoryview, bad: list[int]) -> list[tuple[int, int]]:
    """The stretches of whole frames outside the bad blocks.

    Behind a bad block the next boundary is not known: it is the first place from which a chain of frames with growing
    numbers leads exactly to the batch's end or into the next bad block.
    """
    bounds = [-1, *bad, -(-len(frames) // BLOCK_BYTES)]
    stretches = []
    for before, after in zip(bounds, bounds[1:], strict=False):
        start, end = (before + 1) * BLOCK_BYTES, min(after * BLOCK_BYTES, len(frames))
        if start >= end:
            continue
        exact = end == len(frames)
        candidates = [0] if before < 0 else range(start, end, 8)
        for candidate in candidates:
            stop = _chain(frames, candidate, end, exact)
            if stop is not None and stop > candidate:
                stretches.append((candidate, stop))
                break
    return stretches


def _chain(frames: memoryview, start: int, end: int, exact: bool) -> int | None:
    """The end of the last whole frame of a chain from `start`, or None if there is no such chain."""
    words = frames[: len(frames) & -8].cast("Q")
    at, number = start, -1
    while at + FRAME_HEADER_BYTES <= end:
        second = words[(at >> 3) + 1]
        size = frame_size(words[at >> 3] & LENGTH_MASK)
        if not number <= second & NUMBER_MASK < (1 << 48) or at + size > len(frames):
            return None
        number = second & NUMBER_MASK
        if at + size > end:
            return at if at > start else None
        at += size
    return at if at == end or not exact else None
