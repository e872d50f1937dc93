"""File: write each event once to an event file that only grows. Runs in a delivery.

A reader may follow the file by offset, as TensorBoard does: nothing in it is written again, and nothing is cut off
except an event without its end. After a crash the delivery repeats everything since the last `sync`; events that the
file has already are stepped over. The file may have more: events of records that a power cut has taken from the
journal, which stay.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
from collections import Counter
from io import FileIO
from pathlib import Path
from typing import Final

from asynctrack._system import permissions
from asynctrack._system.wording import counted
from asynctrack.backends.base import Retry
from asynctrack.backends.files.appending import FileChanged
from asynctrack.backends.tfevents.events import HEADER_BYTES, Events, size_of, stamp_of

# Bytes behind `offset`, at most: about a second of a tight loop since the last `sync`, and records that a power cut took from the journal.
_MOST_AHEAD_BYTES: Final = 64 << 20

_log = logging.getLogger("asynctrack.delivery")


class EventFile:
    """An event file.

    Args:
        path: of the file, made with its directories where it is missing.
        offset: bytes up to which the file is known to hold everything that was delivered.
        begin: its first event.
        events: checks whether bytes are an event.

    Attributes:
        offset: the same as it grows.
    """

    def __init__(self, path: Path, offset: int, begin: bytes, events: Events) -> None:
        self.path = path
        self.offset: int = offset
        self._begin = begin
        self._events = events
        self._file: FileIO | None = None
        self._end = offset  # where the next event goes
        self._torn = b""  # the beginning of an event that lies there
        self._ahead: Counter[bytes] = Counter()  # events between `offset` and `_end` that have not come again

    def __repr__(self) -> str:
        return f"<EventFile {self.path} at {self._end}, {self._ahead.total()} events ahead>"

    def append(self, records: bytes, others: bytes) -> None:
        """Write these events, except for those that are in the file already.

        Args:
            records: events that come in the same order when they are repeated.
            others: events that may then come in another place between them, but not after a record that comes after
                these.

        Raises:
            FileChanged: something else has changed the file.
            Retry: another process writes it.
            OSError: the file cannot be written; the next call steps over the events that it has by then.
        """
        try:
            fd = self._open()
            size = os.fstat(fd).st_size
            records = records if self._end else self._begin + records
            if not self._ahead:
                new = records + others
                there = _read(fd, len(new), self._end) if size > self._end else b""
                if new.startswith(there):
                    _write(fd, new[len(there) :], self._end + len(there))
                    self.offset = self._end = self._end + len(new)
                    return
                self._read_ahead(fd, size)
            elif size != self._end + len(self._torn):
                raise FileChanged(f"{self.path.name} was written by another program")
            self._append_missing(fd, records, others)
        except BaseException:
            self._forget()
            raise

    def sync(self) -> int:
        """Make the file survive a power cut.

        Returns:
            The offset at which the next check of the file begins.
        """
        if self._file is not None:
            os.fdatasync(self._file.fileno())
        return self.offset

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> int:
        if self._file is None:
            permissions.make_directories(self.path.parent)
            self._file = FileIO(self.path, "r+", opener=_create)
            self._lock(self._file.fileno())
            if os.fstat(self._file.fileno()).st_size < self.offset:
                raise FileChanged(f"{self.path.name} is shorter than the {self.offset} bytes that were written")
        elif not self._is_there(self._file.fileno()):
            raise FileChanged(f"{self.path.name} was removed")
        return self._file.fileno()

    def _lock(self, fd: int) -> None:
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise Retry(f"another process writes {self.path}") from None
            raise

    def _is_there(self, fd: int) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.stat(self.path), os.fstat(fd))
        return False

    def _read_ahead(self, fd: int, size: int) -> None:
        """Find the events behind `offset` that are there already."""
        if size - self.offset > _MOST_AHEAD_BYTES:
            raise FileChanged(f"{self.path.name} has over {_MOST_AHEAD_BYTES >> 20} MiB that the journal does not have")
        content = _read(fd, size - self.offset, self.offset)
        if not self.offset and not content.startswith(self._begin[: len(content)]):
            raise FileChanged(f"{self.path.name} is a file of another program")
        at = 0
        while len(content) - at > HEADER_BYTES and (end := at + size_of(content, at)) <= len(content):
            frame = content[at:end]
            if not self._events.is_whole(frame):
                break
            self._ahead[frame] += 1
            at = end
        self._end, self._torn = self.offset + at, content[at:]
        if not self._is_torn(self._torn):
            raise FileChanged(f"{self.path.name} was changed by another program")

    def _is_torn(self, rest: bytes) -> bool:
        """Return whether these bytes end a file that was being written.

        Such a file ends with an event without its end, or with zeros where the disk had no more.
        """
        begun = rest.rstrip(b"\0")
        if len(begun) < HEADER_BYTES:
            return True
        return self._events.has_header(rest) and len(begun) < size_of(rest, 0)

    def _append_missing(self, fd: int, records: bytes, others: bytes) -> None:
        missing, missing_others = self._missing(records), self._missing(others)
        if missing and not {*map(stamp_of, self._ahead)}.isdisjoint(map(stamp_of, missing)):
            raise FileChanged(f"{self.path.name} was changed by another program")
        new = b"".join(missing + missing_others)
        if new:
            there = len(self._torn) if new.startswith(self._torn) else 0
            if not there:
                os.ftruncate(fd, self._end)
            _write(fd, new[there:], self._end + there)
            self._end, self._torn = self._end + len(new), b""
        if missing or not self._ahead:
            self._leave_behind()

    def _missing(self, block: bytes) -> list[bytes]:
        """Return the events of a block that are not in the file."""
        missing, at = [], 0
        while at < len(block):
            end = at + size_of(block, at)
            frame, at = block[at:end], end
            count = self._ahead.pop(frame, 0)
            if count == 0:
                missing.append(frame)
            elif count > 1:
                self._ahead[frame] = count - 1
        return missing

    def _leave_behind(self) -> None:
        """Move the offset past the events that will not come again.

        Records come in order: after one was missing, or after all have come, none of the events ahead will be repeated.
        """
        if self._ahead:
            left, name = self._ahead.total(), self.path.name
            _log.info(
                "%s in %s did not come again, perhaps lost by the journal; they stay", counted(left, "event"), name
            )
        self.offset = self._end
        self._forget()

    def _forget(self) -> None:
        """Check the file again at the next call."""
        self._ahead.clear()
        self._end, self._torn = self.offset, b""


def _create(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW, permissions.FILE)


def _read(fd: int, size: int, at: int) -> bytes:
    parts = []
    while size and (part := os.pread(fd, size, at)):
        parts.append(part)
        size, at = size - len(part), at + len(part)
    return b"".join(parts)


def _write(fd: int, content: bytes, at: int) -> None:
    rest = memoryview(content)
    while rest:
        written = os.pwrite(fd, rest, at)
        rest, at = rest[written:], at + written
