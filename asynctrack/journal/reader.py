"""Reads a journal from a position, while it is being written, after a crash, and around damage. Runs anywhere.

What is damaged is reported and stepped over: a block that fails its checksum costs the frames in it, not its batch.
Imports the standard library only.
"""

from __future__ import annotations

import itertools
import os
from collections import namedtuple

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


_FIRST_OTHER = 1 << KIND_SHIFT  # a record's second word is its number alone
_FIRST_PAD = PAD << KIND_SHIFT


class Frame(namedtuple("Frame", "end kind number lost payload")):
    """One frame of a batch. `end` is the byte after it, in the batch's frames; `payload` a memoryview."""

    __slots__ = ()


class Batch(namedtuple("Batch", "segment offset header data whole")):
    """A batch whose frames can be read; `whole` lists the stretches of its frames that are unharmed."""

    __slots__ = ()

    @property
    def after(self) -> Position:
        return Position(self.segment, self.offset + self.header.size)

    def frames(self, inner: int = 0, *, skip_records: bool = False) -> Iterator[Frame]:
        """The unharmed frames from byte `inner` on, without those that only fill the ring's end."""
        for start, end in self.whole:
            yield from walk(self.data, max(start, inner), end, skip_records=skip_records)

    def cut(self, inner: int, max_bytes: int) -> tuple[list[tuple[int, memoryview]], list[Frame], int]:
        """The unharmed frames from byte `inner` on, at least one and about `max_bytes`: the way of a delivery.

        Returns:
            Number and payload of the records, the other frames, and the byte behind them all.
        """
        data, words = self.data, self.data[: len(self.data) & -8].cast("Q")
        records: list[tuple[int, memoryview]] = []
        others: list[Frame] = []
        stop = inner + max_bytes
        at = inner
        for start, end in self.whole:
            at = max(start, at)
            while at < end and at < stop:
                first, second = words[at >> 3], words[(at >> 3) + 1]
                length = first & LENGTH_MASK
                begin = at + FRAME_HEADER_BYTES
                at += (length + 23) & -8  # frame_size(length), without the call
                if second < _FIRST_OTHER:
                    records.append((second, data[begin : begin + length]))
                elif second < _FIRST_PAD:
                    others.append(
                        Frame(at, second >> KIND_SHIFT, second & NUMBER_MASK, first >> 32, data[begin : begin + length])
                    )
            if at < end:
                return records, others, at
        return records, others, len(data)


class Damage(namedtuple("Damage", "path offset length found")):
    """A stretch of a segment that cannot be read."""

    __slots__ = ()

    def __str__(self) -> str:
        return f"{self.path}: {self.length} bytes from byte {self.offset} on cannot be read: {self.found}"


class Reader:
    """Walks a journal's batches in order; at the end it can be asked again later.

    Args:
        directory: the journal's.
        position: where to start: the start of a batch (its `inner` is for the caller).
        ends: for each ring the end of the last batch read, to tell repeats; updated in place.
        bodies: False reads the headers of batches only, and their `data` is empty.
    """

    __slots__ = ("_entered", "_fd", "_journal_id", "_salt", "bodies", "damage", "directory", "ends", "position")

    def __init__(
        self,
        directory: str | os.PathLike[str],
        position: Position = Position(),  # noqa: B008  # immutable
        ends: dict[int, int] | None = None,
        *,
        bodies: bool = True,
    ) -> None:
        self.directory = os.fspath(directory)
        self.position = position
        self.ends = ends if ends is not None else {}
        self.bodies = bodies
        self.damage: list[Damage] = []
        self._fd = -1
        self._entered = False  # whether the segment's header has been looked at
        self._journal_id: bytes | None = None
        self._salt = 0

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
        wanted = [number for number in begun(self.directory) if number >= self.position.segment]
        if not wanted:
            return False
        if wanted[0] != self.position.segment:
            self._step_over(max(self.position.segment, 1), wanted[0])
        self.position = self.position._replace(offset=max(self.position.offset, HEADER_BYTES))
        self._fd = os.open(self._path(), os.O_RDONLY | os.O_CLOEXEC)
        return True

    def _following(self) -> int | None:
        return next((number for number in begun(self.directory) if number > self.position.segment), None)

    def _move_to(self, segment: int) -> None:
        self.close()
        self._step_over(self.position.segment + 1, segment)

    def _step_over(self, missing: int, segment: int) -> None:
        """Move to the start of a segment; those from `missing` up to it are not there."""
        if missing < segment:
            self.position = Position(missing, HEADER_BYTES)
            more = segment - missing - 1
            self._report(0, 0, f"the segment and {more} after it are missing" if more else "the segment is missing")
        self.position = Position(segment, HEADER_BYTES)
        self._entered = False

    def _read(self, *, last: bool) -> Batch | None:
        """The batch at the position, or the next that can be read in this segment; the position moves behind it."""
        size = os.fstat(self._fd).st_size
        if not self._entered and not self._enter(size):
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

    def _enter(self, size: int) -> bool:
        """Look at the segment's header; False when nothing behind it can be told to be of this journal."""
        if self._journal_id is None:
            self._journal_id = journal_id_of(self.directory)
            self._salt = salt_of(self._journal_id or b"")
        found = unpack_segment_header(os.pread(self._fd, HEADER_BYTES, 0))
        if found is not None and found[0] > VERSION:
            raise UnsupportedVersion(self._path(), found[0], VERSION)
        if found is None and self._journal_id is not None:
            self._report(0, min(size, HEADER_BYTES), "the segment's header is damaged")
        elif found is None or found[2] != self._journal_id:
            self._report(0, size, "the segment has no header" if found is None else "the segment is another journal's")
            self.position = self.position._replace(offset=size)
            return False
        self._entered = True
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
        return os.path.join(self.directory, segment_name(self.position.segment))

    def _report(self, offset: int, length: int, found: str) -> None:
        damage = Damage(self._path(), offset, length, found)
        if damage not in self.damage:
            self.damage.append(damage)


def segments(directory: str) -> list[int]:
    """Numbers of the segments in a journal's directory, in order; none where it does not exist."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    return sorted(number for name in names if (number := segment_number(name)) is not None)


def begun(directory: str) -> list[int]:
    """Numbers of the segments that can be read: the last may have been torn, or given up, before its header was whole."""
    numbers = segments(directory)
    if numbers and _size(os.path.join(directory, segment_name(numbers[-1]))) < HEADER_BYTES:
        numbers.pop()
    return numbers


def journal_id_of(directory: str) -> bytes | None:
    """The id of a journal: the one in the first segment with an unharmed header, None if there is none."""
    for number in segments(directory):
        try:
            with open(os.path.join(directory, segment_name(number)), "rb") as file:
                found = unpack_segment_header(file.read(HEADER_BYTES))
        except FileNotFoundError:
            continue
        if found:
            return found[2]
    return None


def walk(frames: memoryview, start: int, end: int, *, skip_records: bool = False) -> Iterator[Frame]:
    """The frames between two bytes, both on frame boundaries, without those of kind `PAD`."""
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


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _unharmed(frames: memoryview, bad: list[int]) -> list[tuple[int, int]]:
    """The stretches of whole frames outside the bad blocks.

    Behind a bad block the next boundary is not known: it is the first place from which a chain of frames, each counting
    on from the one before, leads exactly to the batch's end or into the next bad block.
    """
    bounds = [-1, *bad, -(-len(frames) // BLOCK_BYTES)]
    stretches = []
    for before, after in itertools.pairwise(bounds):
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
    at, wanted = start, None
    while at + FRAME_HEADER_BYTES <= end:
        first, second = words[at >> 3], words[(at >> 3) + 1]
        size = frame_size(first & LENGTH_MASK)
        number, is_record = second & NUMBER_MASK, second >> KIND_SHIFT == RECORD
        records = (number - (first >> LOST_SHIFT)) & LENGTH_MASK  # put before this frame, modulo 2**32
        empty = is_record and size == FRAME_HEADER_BYTES  # none is: such are the zeros of an array in a payload
        if wanted not in (None, records) or number >> 48 or empty or at + size > len(frames):
            return None
        wanted = (records + is_record) & LENGTH_MASK
        if at + size > end:
            return at if at > start else None
        at += size
    return at if at == end or not exact else None
