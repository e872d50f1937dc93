"""Part files: the settings by which a host's part of a run, in a folder that hosts share, gets the files that were logged by their paths. Not for users: `init(collect=...)` sets it.

It is a backend to whoever looks at the part: it has a cursor, and is behind or has everything. But it gets batches of the journal as they are, and no records:
`delivery.kept_files` copies the files that these name.
"""

from __future__ import annotations

from typing import ClassVar

from asynctrack.backends.base import Backend, Execution
from asynctrack.backends.collector import FILE_BYTES


class PartFiles(Backend, frozen=True, kw_only=True, tag="files"):
    """Copies files into a host's part.

    Attributes:
        file_bytes: of a file that was logged by its path, or of an artifact's files together; larger ones stay where they are.
    """

    execution: ClassVar[Execution] = "worker"

    file_bytes: int = FILE_BYTES
