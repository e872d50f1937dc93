"""Files: notes files that are logged by their paths, and seals them, so that a delivery knows whose they are. Runs in the caller."""

from __future__ import annotations

import hashlib  # noqa: F401  # a seal needs both, and nothing is imported first by a `log()`
import hmac  # noqa: F401
import os
import stat
from collections.abc import Sequence

from asynctrack._system import trust
from asynctrack.errors import InvalidValue
from asynctrack.records.media_types import LoggedFile, sealed


def logged_file(what: str, path: str) -> LoggedFile:
    """Note a file as it is now.

    Raises:
        InvalidValue: there is no such file.
    """
    real = os.path.realpath(os.path.expanduser(path))
    try:
        found = os.stat(real)
    except OSError as error:
        raise InvalidValue(what, "the path of a file that exists", f"{path!r:.200} ({error.strerror})") from error
    if not stat.S_ISREG(found.st_mode):
        raise InvalidValue(what, "the path of a file", f"{path!r:.200}, which is something else")
    return LoggedFile.at(os.path.basename(path), real, found.st_size, found.st_mtime_ns)


def seal(files: Sequence[LoggedFile]) -> str:
    """Return the seal of logged files: a run from elsewhere must not have this user's files copied into it."""
    return trust.seal("", "media", sealed(files), here=True) if files else ""


def suffix(path: str) -> str:
    """Return the suffix of a file's name, if it can be a part of another name."""
    ending = os.path.splitext(path)[1][1:].lower()
    return ending if ending.isalnum() and ending.isascii() and len(ending) <= 8 else ""
