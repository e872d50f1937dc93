"""Segment: one open file of a journal. Runs in the worker. Imports the standard library only."""

from __future__ import annotations

import contextlib
import os
import time

from asynctrack._system import permissions
from asynctrack.journal.layout import HEADER_BYTES, pack_segment_header, segment_name


class Segment:
    """A segment that is appended to, or waits for its fsync.

    Attributes:
        fd: its descriptor.
        number: of the segment.
        size: bytes it has.
        synced_size: bytes of it that survive a power cut.
    """

    __slots__ = ("_path", "fd", "number", "size", "synced_size")

    def __init__(self, fd: int, number: int, path: str) -> None:
        self.fd = fd
        self.number = number
        self._path = path
        self.size = self.synced_size = HEADER_BYTES

    @classmethod
    def create(cls, directory: str, number: int, journal_id: bytes) -> Segment:
        """Make a segment that has only its header, with a name that survives a power cut.

        Raises:
            OSError: it cannot be made; nothing is left of it.
        """
        path = segment_path(directory, number)
        if os.path.lexists(path) and os.stat(path).st_size <= HEADER_BYTES:
            os.unlink(path)  # left by an earlier try, which could not remove it
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(path, flags, permissions.FILE)
        try:
            _write_all(fd, pack_segment_header(number, journal_id, time.time_ns()))
            sync_directory(directory)
        except BaseException:
            os.close(fd)
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise
        return cls(fd, number, path)

    def append(self, blob: bytes) -> None:
        """Append all of it.

        Raises:
            OSError: it could not be written, and the segment is as long as before.
        """
        try:
            _write_all(self.fd, blob)
        except OSError:
            self.truncate(self.size)
            raise
        self.size += len(blob)

    def write_over(self, batches: bytes) -> None:
        """Write what it holds again, byte for byte, where it is: a reader sees no difference, nor does a crash half-way."""
        fd = os.open(self._path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)  # appending, it would not write elsewhere
        try:
            view, at = memoryview(batches), HEADER_BYTES
            while view:
                written = os.pwrite(fd, view, at)
                view, at = view[written:], at + written
        finally:
            os.close(fd)

    def truncate(self, size: int) -> None:
        """Cut it back."""
        os.ftruncate(self.fd, size)
        self.size = size

    def leave(self) -> None:
        """Cut it back to what survives a power cut, if that works, and close it."""
        with contextlib.suppress(OSError):
            os.ftruncate(self.fd, self.synced_size)
        os.close(self.fd)

    def is_removed(self) -> bool:
        """Return whether its file has no name any more."""
        return os.fstat(self.fd).st_nlink == 0


def segment_path(directory: str, segment: int) -> str:
    """Return where a segment lies."""
    return os.path.join(directory, segment_name(segment))


def sync_directory(directory: str) -> None:
    """Make names in a directory survive a power cut, where the file system can."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            os.fsync(fd)
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
