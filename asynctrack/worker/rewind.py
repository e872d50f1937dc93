"""Rewind: after a power cut cursors and `run.json` may tell of what the journal has lost; they are rewound to its end. Runs in the worker.

The numbers of lost segments are used again, and a cursor that lies beyond the end would step over what is written there.
Imports the standard library only, and the rest where something lies beyond.
"""

from __future__ import annotations

import contextlib
import os

from asynctrack._system import permissions
from asynctrack.journal import safe_read
from asynctrack.journal.layout import Position
from asynctrack.journal.segment import sync_directory

_CURSORS = "cursors"
_MANIFEST = "run.json"


def rewind_cursors(run: str, end: Position) -> None:
    """Rewind what lies beyond the journal's end. Done before anything is appended, and again after a crash half-way.

    Raises:
        OSError: something could not be written; nothing may be appended.
    """
    cursors = [name for name in _cursors(run) if _position(os.path.join(run, _CURSORS, name)) > end]
    if cursors:
        _set_cursors_back(run, [name.removesuffix(".json") for name in cursors], end)
    if _position(os.path.join(run, _MANIFEST)) > end:
        _set_manifest_back(run, end)


def _cursors(run: str) -> list[str]:
    directory = os.path.join(run, _CURSORS)
    try:
        names = [] if os.path.islink(directory) else os.listdir(directory)
    except FileNotFoundError:
        return []
    return [name for name in names if name.endswith(".json") and not name.startswith(".")]


def _position(path: str) -> Position:
    """Read the position that a file tells; the journal's begin where it tells none."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        import json

        return Position(*map(int, json.loads(safe_read.read(path))["position"]))
    return Position()


def _set_cursors_back(run: str, names: list[str], end: Position) -> None:
    from pathlib import Path

    import msgspec

    from asynctrack.journal.cursor import cursor_path, load_cursor
    from asynctrack.journal.manifest import replace_file
    from asynctrack.journal.tally import Tally

    path = Path(run)
    tally = Tally(path / "journal")
    tally.update()
    for name in names:
        cursor = load_cursor(path, name)
        cursor.rewind(end, tally.ends, tally.records())
        replace_file(cursor_path(path, name), msgspec.json.encode(cursor), permissions.PRIVATE_FILE)
    tally.close()
    sync_directory(os.path.join(run, _CURSORS))


def _set_manifest_back(run: str, end: Position) -> None:
    from pathlib import Path

    from asynctrack.errors import AsynctrackError
    from asynctrack.journal import manifest as manifests

    with contextlib.suppress(AsynctrackError):  # a `run.json` that cannot be read says nothing that is wrong
        manifest = manifests.load(Path(run))
        manifest.position = end
        manifests.save(Path(run), manifest)
        sync_directory(run)
