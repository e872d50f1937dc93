"""Record count: counts the records in a run's journal without reading it all, and finds what is damaged on the way. Runs anywhere."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from asynctrack.journal.cursor import Cursor, peek_cursor
from asynctrack.journal.frames import FrameBatch
from asynctrack.journal.layout import Position, segment_name
from asynctrack.journal.manifest import Manifest
from asynctrack.journal.reader import Reader, segments
from asynctrack.journal.tally import Tally
from asynctrack.queue.layout import RECORD

# A journal up to this size is checked whole. Arbitrary: it takes a millisecond.
_CHECKED_BYTES: Final = 64 << 10


class RecordCount:
    """Counts the records in a run's journal, and goes on from there.

    Args:
        run: its directory.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._journal: Path = run / "journal"
        self._tally: Tally | None = None
        self._before = 0

    def count(self, manifest: Manifest) -> tuple[int, str | None]:
        """Count the records, and find what is damaged: a cursor has the count up to it, batch headers have the rest."""
        cursor, problem = self._furthest(manifest)
        start = cursor.position._replace(inner=0)
        tally = self._tally = Tally(self._journal, start, dict(cursor.ends))
        tally.update()
        damage = tally.damage()
        had = cursor.delivered + cursor.rejected + sum(cursor.skipped.values())
        self._before = had - _records_before(self._journal, cursor.position)
        records = self._before + tally.records()
        tally.rest()
        return records, problem or (str(damage[0]) if damage else None)

    def grow(self) -> tuple[int, FrameBatch] | None:
        """Count on, and return the last batch too; None where something else than records was appended, or nothing can be said."""
        tally = self._tally
        if tally is None:
            return None
        notes = len(tally.notes)
        tally.update()
        tally.rest()
        batch = tally.last_batch()
        if batch is None or tally.damage() or len(tally.notes) != notes:
            return None
        return self._before + tally.records(), batch

    def _furthest(self, manifest: Manifest) -> tuple[Cursor, str | None]:
        """Return the cursor from which on is counted, and what is damaged before it."""
        journal = self._journal
        sizes = {number: _size(journal / segment_name(number)) for number in segments(os.fspath(journal))}
        problem = _missing(journal, sizes)
        if sum(sizes.values()) <= _CHECKED_BYTES:
            return Cursor(), problem or _check(journal)
        known = [found for name in manifest.backends if (found := peek_cursor(self._run, name)) is not None]
        furthest = max(known, key=_position, default=Cursor())
        segment, offset, _ = furthest.position
        if segment and sizes.get(segment, 0) < offset:
            lost = f"{journal / segment_name(segment)} ends before byte {offset}, and a backend has received it up to there"
            return Cursor(), lost
        return furthest, problem


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
