"""Record count: counts the records in a run's journal without reading it all, and finds what is damaged on the way. Runs anywhere."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from asynctrack.journal.cursor import Cursor, peek_cursor
from asynctrack.journal.layout import Position, segment_name
from asynctrack.journal.manifest import Manifest
from asynctrack.journal.reader import Reader, segments
from asynctrack.journal.tally import Tally
from asynctrack.queue.layout import RECORD

# A journal up to this size is checked whole. Arbitrary: it takes a millisecond.
_CHECKED_BYTES: Final = 64 << 10


def count_records(run: Path, manifest: Manifest) -> tuple[int, str | None]:
    """Count the records in the journal, and find what is damaged: a cursor has the count up to it, batch headers have the rest."""
    journal = run / "journal"
    sizes = {number: _size(journal / segment_name(number)) for number in segments(os.fspath(journal))}
    cursor, problem = Cursor(), _missing(journal, sizes)
    if sum(sizes.values()) <= _CHECKED_BYTES:
        problem = problem or _check(journal)
    else:
        known = [found for name in manifest.backends if (found := peek_cursor(run, name)) is not None]
        furthest = max(known, key=_position, default=cursor)
        segment, offset, _ = furthest.position
        if segment and sizes.get(segment, 0) < offset:
            problem = f"{journal / segment_name(segment)} ends before byte {offset}, and a backend has received it up to there"
        else:
            cursor = furthest
    start = cursor.position._replace(inner=0)
    tally = Tally(journal, start, dict(cursor.ends))
    tally.update()
    damage = tally.damage()
    tally.close()
    had = cursor.delivered + cursor.rejected + sum(cursor.skipped.values()) - _records_before(journal, cursor.position)
    return had + tally.records(), problem or (str(damage[0]) if damage else None)


def _missing(journal: Path, sizes: dict[int, int]) -> str | None:
    """Name the first missing segment. `damage.scan` does so too, except before a last one that was torn within its header."""
    gap = next((number for number in range(1, max(sizes, default=0)) if number not in sizes), None)
    return None if gap is None else f"{journal / segment_name(gap)} is missing"


def _check(journal: Path) -> str | None:
    """Return the first damage in a journal, by all of its checksums."""
    with contextlib.closing(Reader(journal)) as reader:
        for _ in reader:
            pass
    return str(reader.damage[0]) if reader.damage else None


def _records_before(journal: Path, position: Position) -> int:
    """Count the records of a batch that lie before a position in it."""
    if not position.inner:
        return 0
    with contextlib.closing(Reader(journal, position._replace(inner=0))) as reader:
        batch = reader.next()
    frames = batch.frames() if batch is not None else iter(())
    return sum(frame.kind == RECORD and frame.end <= position.inner for frame in frames)


def _position(cursor: Cursor) -> Position:
    return cursor.position


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
