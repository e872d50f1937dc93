"""Syncing: many files made safe against a power cut at once. Runs where the sink does."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path


def sync_file_system(directory: Path) -> bool:
    """Wait until all that was written to the file system of a directory is on its disk, by whomever; False where it cannot be asked for.

    Raises:
        OSError: the disk has not taken it.
    """
    try:
        syncfs = ctypes.CDLL(None, use_errno=True).syncfs
    except (OSError, AttributeError):  # another C library
        return False
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if syncfs(fd) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), os.fspath(directory))
    finally:
        os.close(fd)
    return True
