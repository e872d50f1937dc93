"""Host lock: the lock of the host directory that a worker serves, and its place, made again where somebody has removed it. Runs in the worker.

The rings stay mapped, so no run notices. But a forked child looks for the directory, and who starts a worker for the lock. Standard
library only.
"""

from __future__ import annotations

import os

from asynctrack._system import locks
from asynctrack.queue.shm_paths import LOCK_NAME, is_closed, make_host_again


class HostLock:
    """The lock by which a worker is its host's only one.

    Args:
        lock_fd: has the lock.
    """

    def __init__(self, lock_fd: int) -> None:
        self._lock_fd = lock_fd

    def is_at(self, host: str) -> bool:
        """Return whether its lock is the one of this host directory."""
        return locks.is_at(self._lock_fd, os.path.join(host, LOCK_NAME))

    def make_again(self, host: str) -> bool:
        """Make the directory again; False while it is being left, or another worker has it by now.

        Raises:
            OSError: it cannot be made.
        """
        if is_closed(host):
            return False
        make_host_again(host)
        lock_fd = locks.take(os.path.join(host, LOCK_NAME))
        if lock_fd is None:
            return False
        former, self._lock_fd = self._lock_fd, lock_fd
        os.close(former)
        return True

    def close(self) -> None:
        """Give the lock back."""
        lock_fd, self._lock_fd = self._lock_fd, -1
        if lock_fd >= 0:
            os.close(lock_fd)
