"""Safe read: reads a small file of a run's directory, which may come from anyone, if it is a file and not huge. Runs anywhere. Standard library only."""

from __future__ import annotations

import errno
import os
import stat

from asynctrack.errors import UnsafeFile

# A config and a summary fit half a queue, which is 16 MiB by default. What JSON of this size becomes fits into memory.
MAX_BYTES = 64 << 20


def read(path: str | os.PathLike[str]) -> bytes:
    """Read a file. What is no file (a link, a pipe, a device) is not opened for reading, and holds nobody up.

    Raises:
        FileNotFoundError: there is nothing.
        UnsafeFile: there is something else, or it is too large.
        OSError: it cannot be read.
    """
    try:
        return _read(path)
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
    return _read(path)  # a network's disk raises ESTALE where the file was replaced meanwhile: read the new one


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise UnsafeFile(path, "a link" if error.errno == errno.ELOOP else "something else") from None
        raise
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise UnsafeFile(path, "a directory" if stat.S_ISDIR(found.st_mode) else "a pipe or a device")
        if found.st_size > MAX_BYTES:
            raise UnsafeFile(path, f"{found.st_size} bytes, more than {MAX_BYTES}")
        with open(fd, "rb", closefd=False) as file:
            return file.read(MAX_BYTES)
    finally:
        os.close(fd)
