"""Batch part: reads some frames of a batch of which the place is known, without the rest of it. Runs anywhere."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Final

from asynctrack.journal.frames import FrameBatch
from asynctrack.journal.layout import (
    BLOCK_BYTES,
    HEADER_BYTES,
    BatchHeader,
    Position,
    bad_blocks,
    salt_of,
    segment_name,
    unpack_batch_header,
)
from asynctrack.journal.reader import Reader, journal_id_of

Part = tuple[FrameBatch, list[tuple[int, int]]]

_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class BatchParts:
    """Reads parts of the batches of a journal.

    Args:
        directory: the journal's.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._salt = salt_of(journal_id_of(str(directory)) or b"")
        self._segment = -1
        self._fd = -1

    def close(self) -> None:
        """Close the segment."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = self._segment = -1

    def read(self, segment: int, offset: int, first: int, behind: int) -> Part:
        """Read the frames of a batch from byte `first` to byte `behind`, both between frames.

        Returns:
            A batch whose `data` has those frames, and the stretches of it that are unharmed. Where one of its blocks is damaged, it is the whole batch.
            There are no stretches where it cannot be read.
        """
        try:
            self._open(segment)
        except FileNotFoundError:  # removed meanwhile
            return _nothing(segment, offset)
        found = unpack_batch_header(os.pread(self._fd, HEADER_BYTES, offset), self._salt)
        if found is None:
            return _nothing(segment, offset)
        header, table_crc = found
        begin = first // BLOCK_BYTES
        at, end = begin * BLOCK_BYTES, min(header.length, -(-behind // BLOCK_BYTES) * BLOCK_BYTES)
        table = os.pread(self._fd, header.table_bytes, offset + HEADER_BYTES)
        data = memoryview(os.pread(self._fd, end - at, offset + HEADER_BYTES + header.table_bytes + at))
        wanted = table[4 * begin : 4 * -(-end // BLOCK_BYTES)]
        is_whole = len(data) == end - at and zlib.crc32(table, self._salt) == table_crc
        if not is_whole or bad_blocks(wanted, zlib.crc32(wanted, self._salt), data, self._salt):
            return self._read_all(segment, offset, first, behind)
        return FrameBatch(segment, offset, header, data, [(0, len(data))]), [(first - at, min(behind, end) - at)]

    def _read_all(self, segment: int, offset: int, first: int, behind: int) -> Part:
        reader = Reader(self._directory, Position(segment, offset))
        try:
            batch = reader.next()
        finally:
            reader.close()
        if batch is None or (batch.segment, batch.offset) != (segment, offset):
            return _nothing(segment, offset)
        stretches = [(max(start, first), min(end, behind)) for start, end in batch.whole]
        return batch, [(start, end) for start, end in stretches if start < end]

    def _open(self, segment: int) -> None:
        if segment != self._segment:
            self.close()
            self._fd = os.open(self._directory / segment_name(segment), _FLAGS)
            self._segment = segment


def _nothing(segment: int, offset: int) -> Part:
    return FrameBatch(segment, offset, BatchHeader(0, 0, 0, 0, 0, 0), memoryview(b""), []), []
