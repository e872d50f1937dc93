"""Backwards: reads a journal from its end, so that the last records of a long run cost no more than those of a short one. Standard library only."""

from __future__ import annotations

import contextlib
import os
from collections import deque

from asynctrack.journal.frames import Frame, FrameBatch, walk
from asynctrack.journal.layout import (
    BATCH_MAGIC,
    HEADER_BYTES,
    LONGEST_SEGMENT,
    NOTES_RING,
    Position,
    salt_of,
    segment_name,
    unpack_batch_header,
)
from asynctrack.journal.reader import Damage, Reader, begun, journal_id_of
from asynctrack.queue.layout import FRAME_HEADER_BYTES, KIND_SHIFT, LENGTH_MASK, RECORD

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    from collections.abc import Iterator

# What is read at once on the way back: a few batches of a slow run, a quarter of a fast one's.
_CHUNK_BYTES = 64 << 10


def backwards(
    directory: str | os.PathLike[str], *, notes: bool = False, damage: list[Damage] | None = None
) -> Iterator[FrameBatch]:
    """Iterate over the batches there are, the newest first; damage is passed over, repeats come once.

    Args:
        directory: the journal's.
        notes: whether the worker's own notes come too.
        damage: what is passed over is added to it.
    """
    passed = [] if damage is None else damage
    directory = os.fspath(directory)
    salt = salt_of(journal_id_of(directory) or b"")
    begins: dict[int, int] = {}
    there = begun(directory)
    for segment in reversed(there):
        path = os.path.join(directory, segment_name(segment))
        end = _size(path) if segment != there[-1] else None  # the last may be torn, or being written
        for offset in _offsets(path, salt):
            with contextlib.closing(Reader(directory, Position(segment, offset))) as reader:
                batch = reader.next()
            if batch is None or batch.offset != offset:
                continue
            passed += reader.damage
            if end is not None and batch.after.offset < end:
                passed.append(Damage(path, batch.after.offset, end - batch.after.offset, "no batch begins there"))
            end = offset
            ring = batch.header.ring
            if batch.header.end <= begins.get(ring, batch.header.end):  # else a later batch repeats it
                begins[ring] = batch.header.start
                if notes or ring != NOTES_RING:
                    yield batch


def _size(path: str) -> int | None:
    with contextlib.suppress(OSError):
        return min(os.lstat(path).st_size, LONGEST_SEGMENT)
    return None


def last_records(batch: FrameBatch, most: int) -> list[Frame]:
    """Return the last records of a batch, the last first. The others are passed over in half the time that reading them takes."""
    data = batch.data
    words = data[: len(data) & -8].cast("Q")
    begins: deque[int] = deque(maxlen=most)
    for at, end in batch.whole:
        while at + FRAME_HEADER_BYTES <= end:
            begin, size = at, ((words[at >> 3] & LENGTH_MASK) + 23) & -8  # frame_size(length), without the call
            at += size
            if words[(begin >> 3) + 1] >> KIND_SHIFT == RECORD and at <= end:
                begins.append(begin)
    return [next(walk(data, begin, len(data))) for begin in reversed(begins)]


def _offsets(path: str, salt: int) -> Iterator[int]:
    """Find where the whole batches of a segment begin, the last first: each ends where the one behind it begins, or before damage."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:  # the run was removed under us
        return
    try:
        end = chunk_end = min(os.fstat(fd).st_size, LONGEST_SEGMENT)
        while chunk_end > HEADER_BYTES:
            begin = max(HEADER_BYTES, chunk_end - _CHUNK_BYTES)
            # A header may reach into the chunk behind.
            chunk = os.pread(fd, chunk_end - begin + HEADER_BYTES, begin)
            at = chunk.rfind(BATCH_MAGIC, 0, chunk_end - begin + len(BATCH_MAGIC) - 1)
            while at >= 0:
                found = unpack_batch_header(chunk[at : at + HEADER_BYTES], salt)
                if found is not None and begin + at + found[0].size <= end:
                    end = begin + at
                    yield end
                at = chunk.rfind(BATCH_MAGIC, 0, at + len(BATCH_MAGIC) - 1) if at else -1
            chunk_end = begin
    finally:
        os.close(fd)
