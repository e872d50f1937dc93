"""Locks that go with the process that holds them, however it ends: POSIX locks on files. Standard library only.

A pid is used again, `flock` is shared with forked children, and a zombie still has both; a POSIX lock is the kernel's own word. It has one
trap: closing any descriptor of the file gives the process's lock back. So a process never asks for a lock that it holds itself.
"""

from __future__ import annotations

import errno
import fcntl
import os


def take(path: str | os.PathLike[str]) -> int | None:
    """Take the lock of a file, which is made where it is missing and tells people our pid; None while another process has it.

    Returns:
        A descriptor: closing it gives the lock back.

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
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
    except OSError:
        pass  # the disk is full: people will have to do without
    return fd


def is_at(fd: int, path: str | os.PathLike[str]) -> bool:
    """Whether the file of a lock that this process has is still there: not removed, nor moved, nor replaced by another."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except OSError:
        return False


def is_taken(path: str | os.PathLike[str]) -> bool:
    """Whether another process has the lock of a file."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(fd)


def holder(path: str | os.PathLike[str]) -> int | None:
    """The pid of the process that has the lock of a file; None where nobody has it."""
    if not is_taken(path):
        return None
    try:
        with open(path, "rb") as file:
            return int(file.read(20))
    except (OSError, ValueError):
        return None
