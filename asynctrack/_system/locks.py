"""Locks: POSIX locks on files, which end with the process that holds them, however it ends. Standard library only.

A pid is reused, `flock` is shared with forked children, and a zombie keeps both; a POSIX lock is the kernel's own answer. It has one trap: closing
any descriptor of the file releases the process's lock. So a process never asks about a lock that it holds itself.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys
from collections.abc import Iterable

# `struct flock`: type, whence, start, length and pid; on macOS start, length, pid, type and whence.
_IS_MAC = sys.platform == "darwin"
_FLOCK = struct.Struct("qqihh" if _IS_MAC else "hhqqi0q")

# The pid of a process that this one cannot see, as in another PID namespace or on another machine.
ELSEWHERE = 0


def take(path: str | os.PathLike[str], said: str = "") -> int | None:
    """Take the lock of a file, and return None if another process has it. Makes the file where it is missing, and writes our pid into it for people.

    Args:
        path: of the file.
        said: a line to write behind the pid, which `said_by_holder` returns to others.

    Returns:
        A descriptor: closing it releases the lock.

    Raises:
        OSError: the file cannot be made or opened.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return None
        raise
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n%s" % (os.getpid(), f"{said}\n".encode() if said else b""), 0)
    except OSError:
        pass  # the disk is full: people will have to do without
    return fd


def is_at(fd: int, path: str | os.PathLike[str]) -> bool:
    """Return True if the file of a lock that this process holds is still at `path`: not removed, moved or replaced by another."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except OSError:
        return False


def is_taken(path: str | os.PathLike[str]) -> bool:
    """Return True if another process has the lock of a file."""
    return holder(path) is not None


def holder(path: str | os.PathLike[str]) -> int | None:
    """Return the pid of the process that has the lock of a file; `ELSEWHERE` where that cannot be seen from here, None where nobody has it.

    The kernel says it, in the numbers of this process's own PID namespace. The pid in the file is for people only: in another container the same
    number is another process.

    Raises:
        OSError: the file cannot be opened.
    """
    if (fd := _open(path)) is None:
        return None
    try:
        return holder_of(fd)
    finally:
        os.close(fd)


def said_by_holder(path: str | os.PathLike[str]) -> str | None:
    """Return the line that the process has written that has the lock of a file; None where nobody has it, or has written any.

    Whoever has just taken it writes a moment later: until then the line is that of the one before.

    Raises:
        OSError: the file cannot be opened.
    """
    if (fd := _open(path)) is None:
        return None
    try:
        lines = [] if holder_of(fd) is None else os.pread(fd, 1000, 0).decode("utf-8", "replace").splitlines()
    finally:
        os.close(fd)
    return lines[1] if len(lines) > 1 else None


def _open(path: str | os.PathLike[str]) -> int | None:
    try:
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None


def holder_of(fd: int) -> int | None:
    """Return the `holder` of a file that is open here; this process's own lock does not count."""
    try:
        return _ask(fd)
    except OSError:  # not on this system: to try is to know, but for the pid
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return ELSEWHERE
        fcntl.lockf(fd, fcntl.LOCK_UN)
        return None


def signal_holder(path: str | os.PathLike[str], number: int, pid: int) -> bool:
    """Send a signal to the process that has the lock of a file, if its pid is still `pid`. Return True if it was sent.

    It is never sent to a process that cannot be seen from here, nor to one that was given the pid of one that has ended.
    """
    if pid <= ELSEWHERE:
        return False
    try:
        handle = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
    except OSError:  # it has ended; or this kernel has none
        handle = None
    try:
        if holder(path) != pid:
            return False
        _send(handle, pid, number)
    except OSError:  # it has just ended, or is another user's
        return False
    finally:
        if handle is not None:
            os.close(handle)
    return True


def _ask(fd: int) -> int | None:
    asked = (0, 0, 0, fcntl.F_WRLCK, os.SEEK_SET) if _IS_MAC else (fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    told = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, _FLOCK.pack(*asked)))
    kind, pid = (told[3], told[2]) if _IS_MAC else (told[0], told[4])
    return None if kind == fcntl.F_UNLCK else max(pid, ELSEWHERE)


def _send(handle: int | None, pid: int, number: int) -> None:
    if handle is None:
        os.kill(pid, number)
    else:
        import signal

        signal.pidfd_send_signal(handle, number)


def in_words(pids: Iterable[int]) -> str:
    """Return pids as people read them: "7, 9", and "in another container" for one that cannot be seen from here."""
    return ", ".join("in another container" if pid == ELSEWHERE else str(pid) for pid in pids)
