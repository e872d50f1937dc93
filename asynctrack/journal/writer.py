"""Appends batches to a journal, makes them survive a power cut, and repairs its end after a crash. Runs in the worker.

One writer per journal, which the run's lock sees to. `append` belongs to one thread (the drain), `sync` to another.
Imports the standard library only.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from pathlib import Path
from typing import Final, NamedTuple

from asynctrack.journal.layout import (
    HEADER_BYTES,
    SEGMENT_BYTES,
    BatchHeader,
    Position,
    pack_batch,
    pack_segment_header,
    salt_of,
    segment_name,
    unpack_segment_header,
)
from asynctrack.journal.reader import Reader, segments

# Batches that a failed fsync could still take are kept in memory up to this much, then synced earlier.
MAX_UNSYNCED_BYTES: Final = 64 << 20


class Unsynced(NamedTuple):
    """A batch that is written and not yet known to survive a power cut."""

    ring: int
    end: int
    blob: bytes


class Writer:
    """The one appender of a journal.

    Opening it recovers: the torn end of the last segment is cut off, and `ends` says up to where each ring is journaled.
    The first batch opens a new segment; nothing is ever appended behind a repaired end.

    Args:
        directory: the journal's; made where it is missing.
        segment_bytes: a segment that is longer than this is followed by the next.

    Raises:
        OSError: the directory cannot be made, listed or read.
        UnsupportedVersion: a newer asynctrack wrote it.
    """

    def __init__(self, directory: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._lock = threading.Lock()
        self._sync_lock = threading.Lock()
        self._unsynced: deque[Unsynced] = deque()
        self._unsynced_bytes = 0
        self._open: list[_Segment] = []  # the last one is appended to; the others wait for their fsync
        self._suspect = False
        self.synced: dict[int, int] = {}
        self.synced_until = Position()
        self.ends, self._number, journal_id = recover(directory)
        self._journal_id = journal_id or os.urandom(16)
        self._salt = salt_of(self._journal_id)

    def __repr__(self) -> str:
        return f"<Writer of {self._directory}, segment {self._number}, {self._unsynced_bytes} bytes not synced>"

    def append(self, ring: int, start: int, end: int, ordinal: int, frames: bytes) -> None:
        """Write one batch, whole or not at all.

        Raises:
            OSError: it could not be written (the disk is full); the segment is cut back to the last whole batch.
        """
        header = BatchHeader(len(frames), ring, start, end, ordinal, time.time_ns())
        blob = pack_batch(header, frames, self._salt)
        if self._unsynced_bytes + len(blob) > MAX_UNSYNCED_BYTES:
            self.sync()
        with self._lock:
            if self._suspect:
                self._write_again()
            self._segment_for(len(blob)).append(blob)
            self._unsynced.append(Unsynced(ring, end, blob))
            self._unsynced_bytes += len(blob)
            self.ends[ring] = end

    def sync(self) -> bool:
        """Make what is appended survive a power cut; returns whether it does.

        A failed fsync is never repeated on the same file, whose pages may be marked clean although they are not on disk:
        what was not known to be safe is written again to a new segment.
        """
        with self._sync_lock:
            return self._sync()

    def close(self) -> None:
        """Sync what can be synced, and close."""
        with self._sync_lock:
            self._sync()
            with self._lock:
                for segment in self._open:
                    os.close(segment.fd)
                self._open.clear()

    def _sync(self) -> bool:
        with self._lock:
            if self._suspect:
                return self._try_again()
            open_segments, batches = list(self._open), len(self._unsynced)
            sizes = [segment.size for segment in open_segments]
        if not batches:
            return True
        try:
            for segment in open_segments:
                os.fdatasync(segment.fd)
        except OSError:
            with self._lock:
                self._suspect = True
                return self._try_again()
        with self._lock:
            self._forget(batches)
            for segment, size in zip(open_segments, sizes, strict=True):
                segment.synced_size = size
            self._retire(open_segments)
        return True

    def _try_again(self) -> bool:
        """Write the suspect batches again, if that works; either way they are not synced yet."""
        with contextlib.suppress(OSError):
            self._write_again()
        return False

    def _segment_for(self, size: int) -> _Segment:
        if not self._open or self._open[-1].size + size > max(self._segment_bytes, HEADER_BYTES + size):
            self._open.append(_Segment.create(self._directory, self._number + 1, self._journal_id))
            self._number += 1
        return self._open[-1]

    def _write_again(self) -> None:
        """Write what the suspect segments may have lost to a new one, and only then leave them."""
        suspects, self._open = self._open, []
        try:
            fresh = self._segment_for(0)
            for batch in self._unsynced:
                fresh.append(batch.blob)
        except OSError:
            for segment in self._open:
                os.close(segment.fd)
            self._open = suspects
            raise
        for suspect in suspects:
            with contextlib.suppress(OSError):
                os.ftruncate(suspect.fd, suspect.synced_size)
            os.close(suspect.fd)
        self._suspect = False

    def _forget(self, batches: int) -> None:
        for _ in range(batches):
            batch = self._unsynced.popleft()
            self._unsynced_bytes -= len(batch.blob)
            self.synced[batch.ring] = batch.end

    def _retire(self, synced: list[_Segment]) -> None:
        for segment in synced:
            self.synced_until = Position(segment.number, segment.synced_size)
            if segment is not self._open[-1]:
                os.close(segment.fd)
                self._open.remove(segment)


class _Segment:
    """An open segment file."""

    __slots__ = ("fd", "number", "size", "synced_size")

    def __init__(self, fd: int, number: int) -> None:
        self.fd = fd
        self.number = number
        self.size = self.synced_size = HEADER_BYTES

    @classmethod
    def create(cls, directory: Path, number: int, journal_id: bytes) -> _Segment:
        path = directory / segment_name(number)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(path, flags, 0o600)
        try:
            _write_all(fd, pack_segment_header(number, journal_id, time.time_ns()))
            sync_directory(directory)
        except BaseException:
            os.close(fd)
            os.unlink(path)
            raise
        return cls(fd, number)

    def append(self, blob: bytes) -> None:
        try:
            _write_all(self.fd, blob)
        except OSError:
            os.ftruncate(self.fd, self.size)
            raise
        self.size += len(blob)


def recover(directory: Path) -> tuple[dict[int, int], int, bytes | None]:
    """Cut the torn end of the last segment off; needs no note of what happened.

    Only the last batch can be journaled without its ring's `TAIL` saying so, so the last segment that has one is
    all that needs reading, however long the run.

    Returns:
        Up to where the rings in that segment are journaled, the number of the last segment (0: none), and the journal's
        id (None: none).
    """
    numbers = segments(directory)
    if not numbers:
        return {}, 0, None
    reader = Reader(directory)
    for number in reversed(numbers):
        reader = Reader(directory, Position(number))
        found = any([True for _ in reader])
        reader.close()
        if found:
            break
    last = directory / segment_name(numbers[-1])
    if _journal_id(last) is None:
        last.unlink()
    elif reader.position.segment == numbers[-1] and last.stat().st_size > reader.position.offset:
        os.truncate(last, reader.position.offset)
    ids = (_journal_id(directory / segment_name(number)) for number in reversed(numbers))
    return reader.ends, numbers[-1], next(filter(None, ids), None)


def sync_directory(directory: Path) -> None:
    """Make names in a directory survive a power cut, where the file system can."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            os.fsync(fd)
    finally:
        os.close(fd)


def _journal_id(segment: Path) -> bytes | None:
    try:
        with open(segment, "rb") as file:
            header = unpack_segment_header(file.read(HEADER_BYTES))
    except FileNotFoundError:
        return None
    return header[2] if header else None


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
