"""Cursors: how far each backend of a run is, in `cursors/NAME.json`. Written by its delivery, read by anyone."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final

import msgspec

from asynctrack.journal.layout import Position

CURSORS: Final = "cursors"

_log = logging.getLogger("asynctrack.delivery")


class Cursor(msgspec.Struct, kw_only=True):
    """How far a backend is: the content of `cursors/NAME.json`.

    Attributes:
        position: of the journal, up to which the backend has everything.
        ends: for each ring, up to where.
        delivered: records that the backend has.
        skipped: records that it cannot show, by reason.
        refused: records that it refused for good.
        state: the sink's own.
        last_error: what went wrong last, None once it works again.
        closed: whether it has the run's end too.
    """

    position: Position = Position()
    ends: dict[int, int] = {}
    delivered: int = 0
    skipped: dict[str, int] = {}
    refused: int = 0
    state: dict[str, Any] | None = None
    last_error: str | None = None
    closed: bool = False


def cursor_path(run: Path, name: str) -> Path:
    return run / CURSORS / f"{name}.json"


def load_cursor(run: Path, name: str) -> Cursor:
    """A backend's cursor; a fresh one where it has none yet or cannot be read."""
    try:
        return msgspec.json.decode(cursor_path(run, name).read_bytes(), type=Cursor, strict=False)
    except (FileNotFoundError, NotADirectoryError):
        return Cursor()
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        _log.warning("%s cannot be read (%s): starting over", cursor_path(run, name), error)
        return Cursor()
