"""Directory: names the directory of merged runs for good, so that a collector knows whether it has lost its disk. Runs in a collector."""

from __future__ import annotations

import contextlib
import re
import secrets
from pathlib import Path
from typing import Final, NamedTuple

from asynctrack._system import permissions
from asynctrack.errors import UnsafeFile
from asynctrack.journal import safe_read
from asynctrack.journal.manifest import replace_file

_FILE_NAME: Final = ".collector_id"
_ID: Final = re.compile(r"[0-9a-f]{16}", re.ASCII)


class MergedDirectory(NamedTuple):
    """Holds a directory and its name.

    Attributes:
        path: of the directory.
        id: as long as it is on this disk.
    """

    path: Path
    id: str

    @classmethod
    def at(cls, path: Path) -> MergedDirectory:
        """Name a directory, which is made where it is missing.

        Raises:
            OSError: it cannot be written.
        """
        permissions.make_directories(path)
        if (found := _read(path / _FILE_NAME)) is None:
            replace_file(path / _FILE_NAME, secrets.token_hex(8).encode(), durable=True)
            found = _read(path / _FILE_NAME)  # of two that have come at once the last one counts
        return cls(path, found or secrets.token_hex(8))


def _read(path: Path) -> str | None:
    with contextlib.suppress(OSError, UnicodeDecodeError, UnsafeFile):
        text = safe_read.read(path).decode("ascii")
        return text if _ID.fullmatch(text) else None
    return None
