"""Run room: how much more a merged run may take, of the collector's limits and its disk. Runs on the threads of a collector, several at once."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from asynctrack.carriers.wire import Limit
from asynctrack.merging.server.limits import ServerLimits
from asynctrack.merging.server.received_files import ReceivedFiles
from asynctrack.merging.server.refused import Refused


class RunRoom:
    """The room of one run.

    Args:
        run: its directory.
        files: that it has received.
        limits: of the collector.
    """

    def __init__(self, run: Path, files: ReceivedFiles, limits: ServerLimits) -> None:
        self._bytes = 0  # what came twice is counted twice, until they are counted again
        self._is_counted = False
        self._coming = 0  # of these, what is being written: a count finds it not there yet
        self._turn = threading.Lock()  # files come beside the messages, and none may take the room of another
        self._run = run
        self._files = files
        self._limits = limits

    def __repr__(self) -> str:
        return f"<RunRoom of {self._run}, {self._bytes} bytes taken>"

    def count(self) -> None:
        """Count what lies there."""
        with self._turn:
            self._count()

    @contextlib.contextmanager
    def take(self, size: int, limit: Limit) -> Iterator[None]:
        """Take room, if there is some, for what is written within.

        Args:
            size: in bytes, of what comes.
            limit: as what it is refused.

        Raises:
            Refused: there is none.
            OSError: the disk does not say.
        """
        with self._turn:
            self._check(size, limit)
            self._bytes += size
            self._coming += size
        try:
            yield
        finally:
            with self._turn:
                self._coming -= size

    def _check(self, size: int, limit: Limit) -> None:
        limits = self._limits
        if not self._is_counted or self._bytes + size > limits.run_bytes:
            self._count()
            if self._bytes + size > limits.run_bytes:
                raise Refused(
                    "too_large",
                    f"the run may have {limits.run_bytes} bytes, and has {self._bytes} (--max-run-bytes of the collector)",
                    limit=limit,
                )
        with contextlib.suppress(FileNotFoundError):  # of a run that only begins
            disk = os.statvfs(self._run)
            if disk.f_bavail * disk.f_frsize - size < limits.keep_free_bytes:
                kept = f"has less than {limits.keep_free_bytes} bytes left, which it keeps free (--keep-free)"
                raise Refused("disk_full", f"the collector's disk {kept if limits.keep_free_bytes else 'is full'}")

    def _count(self) -> None:
        self._bytes = _size_of(self._run / "journal") + self._files.bytes() + self._coming
        self._is_counted = True


def _size_of(journal: Path) -> int:
    size = 0
    with contextlib.suppress(OSError), os.scandir(journal) as entries:
        for entry in entries:
            size += entry.stat(follow_symlinks=False).st_size
    return size
