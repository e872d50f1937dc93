"""Appending: write each line once to a text file that only grows.

Runs on threads of the worker: each call may wait for the disk.

After a crash a delivery repeats everything since its cursor was saved. The lines are encoded again and compared with
the file, and only missing ones are written, so that `tail -f` never sees a repeat. A power cut may take records from
the journal whose lines are in the file; these lines stay. A file that a person has edited is left alone.
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

# A power cut takes about a second of records from the journal: at most about 30 MB in the file.
_MOST_LOST_BYTES: Final = 64 << 20

_log = logging.getLogger("asynctrack.delivery")


class FileChanged(Exception):
    """The file differs from what was written to it."""


class Layout(NamedTuple):
    """The format of a file's lines.

    Attributes:
        split: splits content into lines with their line ends; the last line may have none.
        stamp: returns step and time of a line, in seconds since the epoch; None where the line is not one of ours.
        is_torn: tells whether a line is the end of a file that was being written: the beginning of one of our lines, or
            zeros where the disk had no more.
    """

    split: Callable[[bytes], list[bytes]]
    stamp: Callable[[bytes], tuple[int, float] | None]
    is_torn: Callable[[bytes], bool]


class AppendedFile:
    """A file with a line per record.

    Args:
        path: of the file, which is made where it is missing.
        layout: of its lines.
        offset: bytes up to which the file is known to hold everything that was delivered.
        count: lines up to there.

    Attributes:
        offset: the same as it grows. After it has been set back, the content behind it is compared again.
        count: the same as it grows.
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
        """Write the lines of these records, except for those that are in the file already.

        Args:
            block: the lines, one a record.
            records: that they are of.

        Raises:
            FileChanged: something else has changed the file.
            OSError: the file cannot be written; the next call steps over the lines that it has by then.
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
        """Make the written lines survive a power cut.

        Raises:
            FileChanged: the file is shorter than what was written, or gone.
        """
        if self.offset:
            os.fdatasync(self._open())

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def _open(self) -> int:
        """Open the file where it is not open.

        Raises:
            FileChanged: it is shorter than what was written, or gone.
        """
        if self._fd < 0:
            made = 0 if self.offset else os.O_CREAT
            try:
                self._fd = os.open(self.path, os.O_RDWR | made | os.O_NOFOLLOW | os.O_CLOEXEC, permissions.FILE)
            except FileNotFoundError as error:
                if made or not self.path.parent.is_dir():
                    raise
                raise FileChanged(f"{self.path.name} was removed") from error
            if os.fstat(self._fd).st_size < self.offset:
                self.close()
                raise FileChanged(f"{self.path.name} is shorter than the {self.offset} bytes that were written")
        return self._fd

    def _step_over_lost(self, fd: int, block: bytes, records: Sequence[Record]) -> tuple[int, bytes, int]:
        """Step over lines of records that the journal has lost, and over those lines of this block that the file has.

        Returns:
            The offset at which to go on, the lines that are missing, and the number of lines stepped over that are not
                of this block.
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
                raise FileChanged(f"{self.path.name} was changed by another program")
            size += len(line)
        if at < len(wanted):
            if len(content) == _MOST_LOST_BYTES:
                raise FileChanged(
                    f"{self.path.name} has {_MOST_LOST_BYTES >> 20} MiB or more that the journal does not have"
                )
            os.ftruncate(fd, self.offset + size)
        if lost:
            what = counted(lost, "line is", "lines are")
            _log.warning("%s: %s of records that the journal has lost; they stay in the file", self.path.name, what)
        return self.offset + size, b"".join(wanted[at:]), lost


def _write(fd: int, block: bytes, at: int) -> None:
    rest = memoryview(block)
    while rest:
        written = os.pwrite(fd, rest, at)
        rest, at = rest[written:], at + written


def free_path(path: Path) -> Path:
    """Return the path itself where nothing is there; else the next that is free: metrics-2.jsonl, metrics-3.jsonl, ..."""
    if not os.path.lexists(path):
        return path
    stem, number = path.stem.rstrip("0123456789").rstrip("-"), 2
    while os.path.lexists(taken := path.with_name(f"{stem}-{number}{path.suffix}")):
        number += 1
    return taken
