"""Permissions: who may read the files in a run's directory. Runs anywhere. Standard library only.

A run's data follow the umask, but only their owner may ever write them. Locks, cursors and logs are the owner's alone.
"""

from __future__ import annotations

import os

FILE = 0o644
DIRECTORY = 0o755
PRIVATE_FILE = 0o600
PRIVATE_DIRECTORY = 0o700

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def create(path: str | os.PathLike[str]) -> int:
    """Make a file for a run's data and open it.

    Raises:
        OSError: the path exists, or the file cannot be made.
    """
    return os.open(path, _NEW, FILE)


def make_directories(path: str | os.PathLike[str]) -> None:
    """Make a directory for a run's data, and those above it that are missing.

    Raises:
        OSError: it cannot be made.
    """
    if os.path.isdir(path):
        return
    if parent := os.path.dirname(os.fspath(path)):
        make_directories(parent)
    try:
        os.mkdir(path, DIRECTORY)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
