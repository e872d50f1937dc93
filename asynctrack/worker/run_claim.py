"""Run claim: a worker's hold on a run's directory, and how another worker asks for it. Runs in the worker. Standard library only."""

from __future__ import annotations

import os

from asynctrack._system import locks
from asynctrack.journal import safe_read
from asynctrack.queue.reach import here
from asynctrack.queue.shm_paths import host_directories

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    from typing import TypeAlias

    _Key: TypeAlias = tuple[int, int, int]

LOCK_NAME = "lock"
HANDOVER_NAME = "handover"

# The runs that this process has, by its pid and their directories' inodes: a POSIX lock does not keep two workers of one process apart, and asking for one
# that is ours would give it back. The pid, since a forked child has none of its parent's.
_held: dict[_Key, object] = {}


class RunClaim:
    """The lock that makes a worker the only one that writes to a run.

    Args:
        path: the run's directory.
        lock_fd: has the lock.
        key: of the run among those that this process has.
        mine: what stands for this claim there.
        host: the directory of the rings of who has it.
    """

    __slots__ = ("_directory_fd", "_host", "_key", "_lock_fd", "_mine", "_path")

    def __init__(self, path: str, lock_fd: int, key: _Key, mine: object, host: str) -> None:
        self._path = path
        self._host = host
        self._lock_fd = lock_fd
        self._key = key
        self._mine = mine
        self._directory_fd = -1

    @classmethod
    def take(cls, path: str, host: str = "") -> RunClaim | None:
        """Take a run's lock; None while another worker has it, which is asked to let go: it does when its own callers have ended.

        Args:
            path: the run's directory.
            host: the directory of the rings of who asks: there the queues go whose processes still wait.

        Raises:
            OSError: the directory is not there, or cannot be written.
        """
        found = os.stat(path)
        key, mine = (os.getpid(), found.st_dev, found.st_ino), object()
        if _held.setdefault(key, mine) is mine:
            lock_fd = None
            try:
                lock_fd = locks.take(os.path.join(path, LOCK_NAME), here())
            finally:
                if lock_fd is None:
                    del _held[key]
            if lock_fd is not None:
                return cls(path, lock_fd, key, mine, host)
        _ask(os.path.join(path, HANDOVER_NAME), host)
        return None

    def is_asked_for(self) -> bool:
        """Return whether another worker wants the run, because its caller resumes it.

        None does that has its rings where ours are: the place had been removed, and they are taken in here.
        """
        if not os.path.exists(os.path.join(self._path, HANDOVER_NAME)):
            return False
        if not self._host or _asking(self._path) != self._host:
            return True
        self.withdraw_request()
        return False

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
        self.leave()

    def leave(self) -> None:
        """Let another worker of this process have the run: nothing more is written by this one, which has not let go of it."""
        if _held.get(self._key) is self._mine:
            del _held[self._key]


def asking_host(path: str) -> str | None:
    """Return the directory of the rings of the worker that has asked for a run; None where nobody has, or what is said there is none of this user's."""
    said = _asking(path)
    return said if said is not None and said in host_directories() else None  # the run's directory may come from anyone


def _asking(path: str) -> str | None:
    try:
        return os.fsdecode(safe_read.read(os.path.join(path, HANDOVER_NAME)))
    except (OSError, ValueError):
        return None


def _ask(path: str, host: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, os.pwrite(fd, os.fsencode(host), 0))
    except OSError:
        pass  # a full disk, or no file at all: it is asked for, and nobody knows by whom
    finally:
        os.close(fd)
