"""Run lock: the lock by which one process has a run open, from before it reads anything of the run until it has finished. Runs in the caller.

The worker has a lock of its own (`lock`), but takes it a moment later, and keeps it when the run has ended; two processes that go on with one
run at once would both begin where the journal ends. So `init` takes `caller.lock` first.

It is a POSIX lock, which goes with its process and is not given to forked children. Whoever copies the run's directory in this very process
drops it; what then keeps another process out is that the run has a worker and has not ended.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
import weakref
from pathlib import Path
from typing import Final

from asynctrack._system import fork, locks
from asynctrack.queue.reach import here

FILE_NAME: Final = "caller.lock"
# A process that has it may be about to give it back: one that is in `finish`, or that finds that it may not begin. Arbitrary.
_WAIT_S: Final = 0.25
_POLL_S: Final = 0.01

# The runs of this process, by inode: to ask for a lock that is ours would give it back.
_held: set[tuple[int, int]] = set()
_turns: weakref.WeakValueDictionary[tuple[int, int], threading.Lock] = weakref.WeakValueDictionary()
_turns_lock = threading.Lock()


class RunLock:
    """A run's lock, while this process has it. Get one from `take`."""

    def __init__(self, run: tuple[int, int], fd: int, file: tuple[int, int] | None) -> None:
        self._run = run
        self._fd = fd
        self._file = file

    def release(self) -> None:
        """Give it back; more than once does nothing. What by now is another's file is left alone."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            _held.discard(self._run)
            with contextlib.suppress(OSError):
                if _is(fd, self._file):
                    os.close(fd)


def no_lock() -> RunLock:
    """Return the lock of a process that joins a run: it has none, and gives nothing back."""
    return RunLock((0, 0), -1, None)


class Held(Exception):
    """A process has the run open.

    Attributes:
        pid: of it, as far as it has said; None of this one.
    """

    def __init__(self, pid: int | None) -> None:
        self.pid = pid


def take(run: Path) -> RunLock:
    """Take the lock of a run, whose directory is there.

    Raises:
        Held: a process has it, perhaps this one.
        FileNotFoundError: the directory has been removed.
        OSError: too many files are open.
    """
    deadline = time.monotonic() + _WAIT_S
    while True:
        try:
            return _take(run)
        except Held as held:
            if held.pid is None or time.monotonic() > deadline:
                raise
        time.sleep(_POLL_S)


def _take(run: Path) -> RunLock:
    path = run / FILE_NAME
    key = _identity(os.stat(run))
    with _turn_of(key):
        if key in _held:
            raise Held(None)
        try:
            fd = locks.take(path, here())
        except OSError as error:  # a full disk, one without locks, or not ours: the worker will say so, or do without
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise
            os.stat(run)
            _held.add(key)
            return _NominalLock(key)
        if fd is None:
            raise Held(_holder(path))
        if not locks.is_at(fd, path):  # the process that made the file has removed it since
            os.close(fd)
            raise Held(0)
        _held.add(key)
        return RunLock(key, fd, _identity(os.fstat(fd)))


def is_held(run: Path) -> bool:
    """Return True if a process has a run open, this one too."""
    return holder(run) is not None


def holder(run: Path) -> int | None:
    """Return the pid of the process that has a run open, this one too; `locks.ELSEWHERE` where it cannot be seen, None where none has."""
    try:
        key = _identity(os.stat(run))
        with _turn_of(key):
            return os.getpid() if key in _held else locks.holder(run / FILE_NAME)
    except OSError:
        return None


def said_by_holder(run: Path) -> str | None:
    """Return in which shared memory another process is that has a run open, as it says (see `queue.reach`); None where none has, or says it."""
    try:
        key = _identity(os.stat(run))
        with _turn_of(key):
            return None if key in _held else locks.said_by_holder(run / FILE_NAME)
    except OSError:
        return None


def _turn_of(run: tuple[int, int]) -> threading.Lock:
    """Return the lock for opening this run's file: closing it would drop the lock of another open. Each run has one, since the disk of one may hang."""
    with _turns_lock:
        turn = _turns.get(run)
        if turn is None:
            turn = _turns[run] = threading.Lock()
        return turn


class _NominalLock(RunLock):
    """Stands for a lock that cannot be had; it is known in this process only."""

    def __init__(self, run: tuple[int, int]) -> None:
        super().__init__(run, -1, None)

    def release(self) -> None:
        _held.discard(self._run)


def _holder(path: Path) -> int:
    try:
        return int(path.read_bytes()[:20].partition(b"\n")[0])
    except (OSError, ValueError):
        return 0


def _is(fd: int, file: tuple[int, int] | None) -> bool:
    """Return True if a descriptor is still that of a file, or the file's disk fails and does not say."""
    try:
        return _identity(os.fstat(fd)) == file
    except OSError as error:
        return error.errno != errno.EBADF


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


@fork.in_child
def _after_fork_in_child() -> None:
    global _turns, _turns_lock
    _turns, _turns_lock = weakref.WeakValueDictionary(), threading.Lock()
    _held.clear()
