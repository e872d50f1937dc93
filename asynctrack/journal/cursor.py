"""Cursor: how far each backend of a run is, in `cursors/NAME.json`. Written by its delivery, read by anyone."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final

import msgspec

from asynctrack.errors import UnsafeFile
from asynctrack.journal import safe_read
from asynctrack.journal.layout import Position
from asynctrack.journal.open_means import OpenMeans
from asynctrack.journal.writers import Writers

CURSORS: Final = "cursors"

# More than any position or count: 10**9 a second would take 292 years.
_TOO_MANY: Final = 1 << 63

# What earlier versions called these in cursors, and reasons for skipping a record.
_FORMER_NAMES: Final = {"refused": "rejected", "home": "origin_inode"}
_FORMER_REASONS: Final = {"thinned": "downsampled"}

_log = logging.getLogger("asynctrack.delivery")


class Cursor(msgspec.Struct, kw_only=True):
    """The position of a backend in a run: the content of `cursors/NAME.json`.

    Attributes:
        position: of the journal, up to which the backend has everything.
        ends: for each ring, up to where.
        delivered: records that the backend has.
        skipped: records that it cannot show, by reason.
        rejected: records that it will never take: the run's dead letters.
        state: the sink's own.
        retries: tries that failed, in all.
        last_error: what went wrong last, None once it works again.
        next_try_at: when it is tried again, UTC, ISO 8601; None while it works.
        paused: whether a person has to mend something first; `last_error` says what.
        origin_inode: the inode of the run's directory that this was delivered from: a copy of the run has another.
        next_number: after the highest number of a record that the backend has got, also of those that the journal has lost since.
        closed: whether it has the run's end too.
        writers: the labels of the rings, up to the position.
        means: over the writers that are open there; None where the backend gets no means.
    """

    position: Position = Position()
    ends: dict[int, int] = {}
    delivered: int = 0
    skipped: dict[str, int] = {}
    rejected: int = 0
    state: dict[str, Any] | None = None
    retries: int = 0
    last_error: str | None = None
    next_try_at: str | None = None
    paused: bool = False
    origin_inode: int = 0
    next_number: int = 0
    closed: bool = False
    writers: Writers = Writers()
    means: OpenMeans | None = None

    def rewind(self, end: Position, ends: dict[int, int], journaled: int) -> None:
        """Go on from the journal's end, where that has lost what the backend has, which keeps it.

        Args:
            end: of the journal; the position lies beyond it.
            ends: for each ring in the journal, up to where.
            journaled: records in the journal.
        """
        self.position, self.closed = end, False
        self.ends = {ring: min(at, ends[ring]) for ring, at in self.ends.items() if ring in ends}
        # Which of them were lost is not known; what the backend shows is counted out first.
        lost = max(0, self.delivered + self.rejected + sum(self.skipped.values()) - journaled)
        self.delivered, lost = _less(self.delivered, lost)
        for reason in self.skipped:
            self.skipped[reason], lost = _less(self.skipped[reason], lost)
        self.rejected, _ = _less(self.rejected, lost)


def cursor_path(run: Path, name: str) -> Path:
    """Return where a backend's cursor lies."""
    return run / CURSORS / f"{name}.json"


def lease_path(run: Path, name: str) -> Path:
    """Return the file whose lock says which process delivers to a backend."""
    return run / CURSORS / f"{name}.lock"


def load_cursor(run: Path, name: str) -> Cursor:
    """Read a backend's cursor; a fresh one where it has none yet or cannot be read."""
    try:
        return decode_cursor(safe_read.read(cursor_path(run, name)))
    except (FileNotFoundError, NotADirectoryError):
        return Cursor()
    except (ValueError, RecursionError, UnsafeFile) as error:
        _log.warning("%s cannot be read (%s): starting over", cursor_path(run, name), error)
        return Cursor()


def peek_cursor(run: Path, name: str) -> Cursor | None:
    """Read a backend's cursor, to look at; None where it is another user's, whose cursors are private."""
    try:
        return load_cursor(run, name)
    except PermissionError:
        return None


def decode_cursor(content: bytes) -> Cursor:
    """Decode the cursor in a file.

    Raises:
        ValueError: it is none; also `RecursionError`.
    """
    cursor = msgspec.convert(_renamed(msgspec.json.decode(content)), Cursor, strict=False, str_keys=True)
    counts = (*cursor.position, cursor.delivered, cursor.rejected, cursor.next_number, *cursor.skipped.values())
    if not all(0 <= count < _TOO_MANY for count in counts):
        raise ValueError("its counts are impossible")
    return cursor


def _renamed(fields: object) -> object:
    """Return the fields of a cursor by the names of this version."""
    if not isinstance(fields, dict):
        return fields
    fields = {_FORMER_NAMES.get(name, name): value for name, value in fields.items()}
    if isinstance(skipped := fields.get("skipped"), dict):
        fields["skipped"] = {_FORMER_REASONS.get(reason, reason): count for reason, count in skipped.items()}
    return fields


def _less(count: int, lost: int) -> tuple[int, int]:
    """Take what was lost off a count; returns the rest, and how much more was lost."""
    return max(0, count - lost), max(0, lost - count)
