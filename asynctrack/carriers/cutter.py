"""Cutter: cuts what a host's journal has behind a place into messages, whole batches each. Only reads. Runs on the host, or where its folder is seen."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from asynctrack.carriers.message import Place, pack
from asynctrack.errors import AsynctrackError, PartRefused
from asynctrack.journal.frames import FrameBatch
from asynctrack.journal.layout import HEADER_BYTES, SEGMENT_HEADER, Position, segment_name, unpack_segment_header
from asynctrack.journal.reader import Reader, journal_id_of, segments

# Measured with prototypes: the size of a message decides on the speed. Of batches that are longer one alone makes a message.
MESSAGE_BYTES: Final = 512 * 1024


class Cut(NamedTuple):
    """Holds a message, and where in the journal it is from.

    Attributes:
        after: the place before its first batch.
        upto: the place behind its last.
        message: the bytes.
        batches: that are in it, without their frames.
    """

    after: Place
    upto: Place
    message: bytes
    batches: list[FrameBatch]


class Cutter:
    """Walks a host's journal.

    Args:
        journal: its directory.
        place: where to begin; at the journal's beginning, where that segment is another by now.
    """

    def __init__(self, journal: Path, place: Place) -> None:
        self._journal = journal
        self._id = journal_id_of(os.fspath(journal)) or b""
        self.place = place if place.segment and self._made_ns(place.segment) == place.made_ns else Place()
        self._reader = Reader(journal, Position(self.place.segment, self.place.offset), bodies=False)

    @property
    def journal_id(self) -> bytes:
        """Return the id of the journal; empty as long as it has none."""
        return self._id

    def check(self) -> None:
        """Check a journal without an id: it has not begun, or is none.

        Raises:
            PartRefused: it is none.
        """
        for number in segments(os.fspath(self._journal)):
            if os.stat(self._path(number), follow_symlinks=False).st_size >= HEADER_BYTES:
                run, _, host = self._journal.parent.name.rpartition("@")
                raise PartRefused(run, host, f"{self._path(number)} is no segment of a journal")

    def cut(
        self, max_bytes: int = MESSAGE_BYTES, *, settled: bool = False, max_batches: int | None = None
    ) -> Cut | None:
        """Cut the next message; None where the journal has nothing more.

        Args:
            max_bytes: it ends with the batch that reaches this.
            settled: whether what is damaged or missing in the journal is so for good.
            max_batches: it has no more; None for any number.

        Raises:
            OSError: the journal cannot be read, or what was found in it is gone.
        """
        batches: list[FrameBatch] = []
        size = 0
        while size < max_bytes and len(batches) != max_batches and (batch := self._reader.next()) is not None:
            batches.append(batch)
            size += batch.header.size
        if not batches:
            return None
        parts = [self._read(*stretch) for stretch in _stretches(batches)]
        position = self._reader.position
        after, upto = self.place, self.place_at(position.segment, position.offset)
        self.place = upto
        return Cut(after, upto, pack(self._id, b"".join(parts), settled=settled), batches)

    def find(self, ring: int, seen: int) -> Place | None:
        """Find the batch with which a ring goes on from a position, from the journal's beginning on; None where there is none.

        Raises:
            OSError: the journal cannot be read.
        """
        with contextlib.closing(Reader(self._journal, bodies=False)) as reader:
            for batch in reader:
                header = batch.header
                if header.ring == ring and header.start <= seen < header.end:
                    return self.place_at(batch.segment, batch.offset)
        return None

    def place_at(self, segment: int, offset: int) -> Place:
        """Return the place in the journal as it is now."""
        return Place(segment, offset, self._made_ns(segment))

    def still_s(self) -> float:
        """Return for how many seconds nothing was written to the journal, by the clocks of both machines."""
        numbers = segments(os.fspath(self._journal))
        if not numbers:
            return 0.0
        return max(0.0, time.time() - os.stat(self._path(numbers[-1])).st_mtime)

    def close(self) -> None:
        """Close the journal."""
        self._reader.close()

    def _read(self, segment: int, offset: int, size: int) -> bytes:
        fd = os.open(self._path(segment), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.pread(fd, size, offset)
        finally:
            os.close(fd)
        if len(found) < size:  # it was cut back meanwhile, or a network file system does not show it yet
            raise OSError(
                errno.EIO, f"expected {size} bytes from byte {offset} on, got {len(found)}", self._path(segment)
            )
        return found

    def _made_ns(self, segment: int) -> int:
        """Return when a segment was made; 0 where it is not there, or its header cannot be read."""
        with contextlib.suppress(OSError, struct.error):
            header = self._read(segment, 0, HEADER_BYTES)
            if unpack_segment_header(header) is not None:
                return int(SEGMENT_HEADER.unpack(header)[4])
        return 0

    def _path(self, segment: int) -> str:
        return os.path.join(self._journal, segment_name(segment))


def bytes_behind(journal: Path, place: Place) -> int:
    """Return how many bytes a journal has behind a place; those that can be seen.

    Args:
        journal: its directory.
        place: in it.
    """
    found = 0
    with contextlib.suppress(AsynctrackError, OSError):
        for number in segments(os.fspath(journal)):
            if number >= place.segment:
                size = os.stat(journal / segment_name(number), follow_symlinks=False).st_size
                found += max(0, size - (place.offset if number == place.segment else HEADER_BYTES))
    return found


def _stretches(batches: Iterable[FrameBatch]) -> list[tuple[int, int, int]]:
    """Return segment, offset and size of the stretches that batches make: mostly one, for mostly nothing lies between them."""
    found: list[tuple[int, int, int]] = []
    for batch in batches:
        segment, begin, size = found[-1] if found else (0, 0, 0)
        if (segment, begin + size) == (batch.segment, batch.offset):
            found[-1] = (segment, begin, size + batch.header.size)
        else:
            found.append((batch.segment, batch.offset, batch.header.size))
    return found
