"""Lease: the right of one process at a time to deliver a run to a backend, a lock on `cursors/NAME.lock`. Runs with the driver.

The lock goes with the process that holds it, so there is nothing to expire or to clean up. It is known by the inode of its file: one run may have
two names, by a link, and a POSIX lock does not keep its own process out.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from asynctrack._system import fork, locks

# The files whose locks this process has, by device and inode: the system lets a process take its own lock again.
_taken: Final[set[tuple[int, int]]] = set()
_taking = threading.Lock()


class Lease:
    """A lease that is given back when nobody uses it any more: neither the driver nor a thread that it has left at its sink.

    Args:
        path: of the lock.

    Attributes:
        in_use: between `begin` and `end`.
    """

    def __init__(self, path: Path) -> None:
        self.in_use = False
        self._path = path
        self._fd: int | None = None
        self._file = (0, 0)
        self._away = False
        self._lock = threading.Lock()

    @property
    def held(self) -> bool:
        """Return True if this process has the right by this lease."""
        return self._fd is not None

    def begin(self) -> None:
        """Note that a driver uses it."""
        self.in_use = True

    def end(self) -> None:
        """Give it back, once no thread is left at its sink."""
        self.in_use = False
        self._give_back()

    def take(self) -> bool:
        """Take it; returns False while another delivers the same."""
        with _taking:
            if self._is_ours():
                return False
            fd = locks.take(self._path)
            if fd is None:
                return False
            try:
                self._file = _identity(os.fstat(fd))
            except OSError:
                os.close(fd)
                raise
            _taken.add(self._file)
            self._fd = fd
        return True

    def holder(self) -> int | None:
        """Return the process that delivers the same, if it is still there."""
        return os.getpid() if self._is_ours() else locks.holder(self._path)

    def check(self) -> None:
        """Check that the run is still where it was: what lies there may be another's.

        Raises:
            FileNotFoundError: it is held, and its file is no longer there.
        """
        if self._fd is not None and not locks.is_at(self._fd, self._path):
            raise FileNotFoundError(errno.ENOENT, "the run has been removed or moved", str(self._path.parent.parent))

    def call(self, method: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Call a sink's method on this thread, which goes on when the delivery is given up; not at all if that has happened before."""
        with self._lock:
            if not self.in_use:
                return None
            self._away = True
        try:
            return method(*arguments)
        finally:
            self._away = False
            self._give_back()

    def _give_back(self) -> None:
        with self._lock:
            if self._fd is not None and not self.in_use and not self._away:
                fd, self._fd = self._fd, None
                _taken.discard(self._file)  # also where a failing disk cannot say which file it is
                with contextlib.suppress(OSError):
                    os.close(fd)

    def _is_ours(self) -> bool:
        """Return whether this process has it, by another `Lease` too; to ask for the lock then would give it back."""
        try:
            return _identity(os.stat(self._path)) in _taken
        except FileNotFoundError:
            return False


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


@fork.in_child
def _after_fork_in_child() -> None:
    global _taking
    _taking = threading.Lock()
    _taken.clear()  # a forked child does not inherit the locks
