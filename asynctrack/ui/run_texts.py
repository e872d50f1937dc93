"""Run texts: the worker's log and the uncommitted changes of a run. Runs in the server of the page, on a file thread."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

from asynctrack.errors import UnsafeFile
from asynctrack.journal.environment_file import DIFF_NAME

LOG_NAME: Final = "worker.log"
_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# Of the changes. Arbitrary: git's part is cut sooner.
_MOST_BYTES: Final = 16 << 20


def end_of_log(run: Path, most_bytes: int) -> bytes:
    """Return the last lines of a run's `worker.log`; nothing where there is none.

    Raises:
        UnsafeFile: it is no file.
        OSError: it cannot be read.
    """
    found = _end_of(run / LOG_NAME, most_bytes + 1)
    if len(found) <= most_bytes:
        return found
    _, newline, lines = found.partition(b"\n")
    return lines if newline else found[1:]


def diff_of(run: Path) -> bytes:
    """Return the changes that git had not committed when a run began.

    Raises:
        FileNotFoundError: there are none.
        UnsafeFile: it is no file.
        OSError: it cannot be read.
    """
    if not os.path.lexists(run / DIFF_NAME):
        raise FileNotFoundError(f"this run has no {DIFF_NAME}")
    return _end_of(run / DIFF_NAME, _MOST_BYTES)


def is_text(path: Path) -> bool:
    """Return whether there is a file; a link is none."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def _end_of(path: Path, most_bytes: int) -> bytes:
    try:
        fd = os.open(path, _FLAGS)
    except FileNotFoundError:
        return b""
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise UnsafeFile(path, "a link" if error.errno == errno.ELOOP else "something else") from None
        raise
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise UnsafeFile(path, "no file")
        file.seek(max(0, status.st_size - most_bytes))
        return file.read(most_bytes)
