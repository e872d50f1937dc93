"""Syncing: make many files safe against a power cut at once. Runs where the sink does."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path


def sync_file_system(directory: Path) -> bool:
    """Wait until everything written to a directory's file system is on disk.

    Args:
        directory: any one on that file system.

    Returns:
        False where the C library has no `syncfs`.

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
