"""Last values: the last value by each name of a run that grows, read from its journal once. Runs anywhere."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asynctrack.journal.reader import Reader


class LastValues:
    """Reads a journal on from where it was.

    Args:
        path: the run's directory.

    Attributes:
        found: the last value of each name, nested as they were logged.
    """

    def __init__(self, path: Path) -> None:
        self.found: dict[str, Any] = {}
        self._path = path
        self._reader: Reader | None = None

    def update(self) -> dict[str, Any]:
        """Read the records that have come since the last call, and return a copy of `found`."""
        from asynctrack.journal.manifest import UNREADABLE
        from asynctrack.journal.reader import Reader
        from asynctrack.queue.layout import RECORD
        from asynctrack.records.codec import Decoder, string_keys

        reader = self._reader = self._reader or Reader(os.path.join(self._path, "journal"))
        decode = Decoder(self._path).record
        while (batch := reader.next()) is not None:
            for frame in batch.frames():
                if frame.kind == RECORD:
                    with contextlib.suppress(*UNREADABLE):
                        merge(self.found, string_keys(decode(frame.payload, frame.number, batch.header.ring).data))
        reader.close()
        return copied(self.found)


def merge(into: dict[str, Any], fresh: Mapping[str, Any]) -> None:
    """Put newer values over older ones, in nested mappings too."""
    for name, value in fresh.items():
        before = into.get(name)
        if isinstance(value, Mapping) and isinstance(before, dict):
            merge(before, value)
        else:
            into[name] = copied(value) if isinstance(value, Mapping) else value


def copied(nested: Mapping[str, Any]) -> dict[str, Any]:
    """Copy nested mappings to dicts of their own."""
    return {name: copied(value) if isinstance(value, Mapping) else value for name, value in nested.items()}
