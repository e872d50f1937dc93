"""Host places: up to where the journal of each host is merged, in `hosts.json` beside the merged journal. Written by the merger.

It saves reading what is merged anyway; the merged journal alone says what is. So it counts only where that is at least as long as it was then.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

import msgspec

from asynctrack.carriers.message import Place
from asynctrack.errors import UnsafeFile
from asynctrack.journal import safe_read
from asynctrack.journal.layout import Position
from asynctrack.journal.manifest import replace_file

FILE_NAME: Final = "hosts.json"


class _Saved(msgspec.Struct):
    end: Position = Position()
    places: dict[str, Place] = {}


def load_places(run: Path, end: Position) -> dict[str, Place]:
    """Read the places of a run's hosts; none where they cannot be read, or tell of more than the merged journal has.

    Args:
        run: the merged run's directory.
        end: of its journal.
    """
    saved = _load(run)
    return saved.places if saved is not None and saved.end <= end else {}


def load_end(run: Path) -> Position | None:
    """Read up to where the merged journal was synced when the file was written; None where it cannot be read."""
    saved = _load(run)
    return None if saved is None else saved.end


def _load(run: Path) -> _Saved | None:
    with contextlib.suppress(OSError, ValueError, RecursionError, UnsafeFile):
        return msgspec.json.decode(safe_read.read(run / FILE_NAME), type=_Saved)
    return None


def save_places(run: Path, end: Position, places: dict[str, Place]) -> None:
    """Replace the file. Done behind a sync of the journal up to `end`.

    Raises:
        OSError: it cannot be written.
    """
    replace_file(run / FILE_NAME, msgspec.json.encode(_Saved(end, places)), durable=False)
