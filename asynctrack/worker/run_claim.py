"""Run claim: a worker's hold on a run's directory, and how another worker asks for it. Runs in the worker. Standard library only."""

from __future__ import annotations

import os

from asynctrack._system import locks

LOCK_NAME = "lock"
HANDOVER_NAME = "handover"


class RunClaim:
    """The lock that makes a worker the only one that writes to a run.

    Args:
        path: the run's directory.
        lock_fd: has the lock.
    """

    __slots__ = ("_directory_fd", "_lock_fd", "_path")

    def __init__(self, path: str, lock_fd: int) -> None:
        self._path = path
        self._lock_fd = lock_fd
        self._directory_fd = -1

    @classmethod
    def take(cls, path: str) -> RunClaim | None:
        """Take a run's lock; None while another worker has it, which is asked to let go: it does when its own callers have ended.

        Raises:
            OSError: the directory is not there, or cannot be written.
        """
        lock_fd = locks.take(os.path.join(path, LOCK_NAME))
        if lock_fd is not None:
            return cls(path, lock_fd)
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        os.close(os.open(os.path.join(path, HANDOVER_NAME), flags, 0o600))
        return None

    def withdraw_request(self) -> None:
        """Take back what asked for the run: it is here."""
        try:
            os.unlink(os.path.join(self._path, HANDOVER_NAME))
        except FileNotFoundError:
            pass

    def hold_directory(self) -> int:
        """Remember which directory it is, to tell it from another at the same place; returns the device that has it."""
        self._directory_fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return os.fstat(self._directory_fd).st_dev

    def is_gone(self) -> bool:
        """Return whether the directory is no more where it was: removed, moved, or replaced by another."""
        try:
            return not os.path.samestat(os.stat(self._path), os.fstat(self._directory_fd))
        except OSError:
            return True

    def close(self) -> None:
        """Give the lock back."""
        for fd in (self._directory_fd, self._lock_fd):
            if fd >= 0:
                os.close(fd)


def is_asked_for(path: str) -> bool:
    """Return whether another worker wants a run, because its caller resumes it."""
    return os.path.exists(os.path.join(path, HANDOVER_NAME))
