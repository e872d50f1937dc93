"""Appending: a text file that is only appended to, and has each line once. Runs on threads of the worker: each call may wait for the disk.

After a crash a delivery gives again what came since its cursor was saved: what is encoded again is compared with what is there already, and only
what is missing is written, so that `tail -f` never sees a repeat. Lines of records that a power cut has taken from the journal stay where they are.
A file that a person has edited is left as it is.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from asynctrack._system import permissions
from asynctrack._system.wording import counted
from asynctrack.records.codec import Record

# A power cut takes about a second from the journal, which in the file are at most about 30 MB.
_MOST_LOST_BYTES: Final = 64 << 20

_log = logging.getLogger("asynctrack.delivery")


class FileChanged(Exception):
    """The file is not what was written."""


class Layout(NamedTuple):
    """What the lines of a file are like.

    Attributes:
        split: content into lines with their ends; what comes last may have none.
        stamp: step and time of a line in seconds since the epoch, None where it is not one of ours.
        is_torn: whether this is the end of a file that was being written: a line of ours without its end, or zeros where the disk had no more.
    """

    split: Callable[[bytes], list[bytes]]
    stamp: Callable[[bytes], tuple[int, float] | None]
    is_torn: Callable[[bytes], bool]


class AppendedFile:
    """A file with a line per record.

    Args:
        path: of the file, made where it is missing.
        layout: of its lines.
        offset: up to where it is known to have what has been delivered.
        count: of the lines up to there.

    Attributes:
        offset: the same as it grows. Who sets it back has what is there compared again.
        count: the same.
    """

    def __init__(self, path: Path, layout: Layout, offset: int = 0, count: int = 0) -> None:
        self.path = path
        self.offset: int = offset
        self.count: int = count
        self._layout = layout
        self._fd = -1

    def __repr__(self) -> str:
        return f"<AppendedFile {self.path}, {self.count} lines, {self.offset} bytes>"

    def append(self, block: bytes, records: Sequence[Record]) -> None:
        """Have the lines of these records in the file, if they are not there.

        Raises:
            FileChanged: another has changed the file.
            OSError: the file cannot be written; what is there of these lines is stepped over next time.
        """
        fd = self._open()
        at, rest, lost = self.offset, block, 0
        if os.fstat(fd).st_size > at:
            there = os.pread(fd, len(block), at)
            if block.startswith(there):
                at, rest = at + len(there), block[len(there) :]
            else:
                at, rest, lost = self._step_over_lost(fd, block, records)
        _write(fd, rest, at)
        self.offset = at + len(rest)
        self.count += len(records) + lost

    def sync(self) -> None:
        """Make what was written survive a power cut.

        Raises:
            FileChanged: it is shorter than what was written, or gone.
        """
        if self.offset:
            os.fdatasync(self._open())

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def _open(self) -> int:
        """
        Raises:
            FileChanged: it is shorter than what was written.
        """
        if self._fd < 0:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, permissions.FILE)
            if os.fstat(self._fd).st_size < self.offset:
                self.close()
                raise FileChanged(f"{self.path.name} is shorter than what was written")
        return self._fd

    def _step_over_lost(self, fd: int, block: bytes, records: Sequence[Record]) -> tuple[int, bytes, int]:
        """Step over lines of records that the journal has lost, and over those of this block that are there.

        Returns:
            Where to go on, the lines that are missing, and how many were stepped over that are not of this block.
        """
        content = os.pread(fd, _MOST_LOST_BYTES, self.offset)
        stamp_of, is_torn = self._layout.stamp, self._layout.is_torn
        wanted, ours = self._layout.split(block), {(record.step, record.time_ns / 1e9) for record in records}
        at = lost = size = 0
        for line in self._layout.split(content):
            if at == len(wanted):
                break
            stamp = stamp_of(line)
            if line == wanted[at]:
                at += 1
            elif line.endswith(b"\n") and stamp not in (None, *ours):
                lost += 1
            elif wanted[at].startswith(line) or (is_torn(line) and stamp not in ours):
                break
            else:
                raise FileChanged(f"{self.path.name} was changed by another")
            size += len(line)
        if at < len(wanted):
            if len(content) == _MOST_LOST_BYTES:
                raise FileChanged(f"{self.path.name} has too much that the journal has not")
            os.ftruncate(fd, self.offset + size)
        if lost:
            what = counted(lost, "line is", "lines are")
            _log.warning("%s: %s of records that the journal has lost, and stay there", self.path.name, what)
        return self.offset + size, b"".join(wanted[at:]), lost


def _write(fd: int, block: bytes, at: int) -> None:
    rest = memoryview(block)
    while rest:
        written = os.pwrite(fd, rest, at)
        rest, at = rest[written:], at + written


def beside(path: Path) -> Path:
    """The next free path beside one that is another's: metrics-2.jsonl, metrics-3.jsonl, ..."""
    stem, number = path.stem.rstrip("0123456789").rstrip("-"), 2
    while os.path.lexists(taken := path.with_name(f"{stem}-{number}{path.suffix}")):
        number += 1
    return taken
