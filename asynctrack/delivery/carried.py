"""Carried: how much of a journal a collector has, counted by the headers of its batches. Runs with the driver."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from asynctrack.errors import PartIncomplete
from asynctrack.journal.cursor import Cursor
from asynctrack.journal.frames import FrameBatch
from asynctrack.journal.layout import NOTES_RING, Position
from asynctrack.journal.reader import Reader
from asynctrack.journal.tally import Tally


class Carried:
    """Counts what a collector has.

    Args:
        journal: its directory.
        cursor: where to begin to count.

    Attributes:
        position: up to where the collector has the journal.
    """

    def __init__(self, journal: Path, cursor: Cursor) -> None:
        self._journal = journal
        self.position = cursor.position
        self._ends = dict(cursor.ends)
        self._delivered = cursor.delivered
        self._since = Tally(journal)

    def __repr__(self) -> str:
        return f"<Carried up to {self.position}>"

    def add(self, batches: Iterable[FrameBatch], position: Position) -> None:
        """Count batches that it has now.

        Args:
            batches: those that come next.
            position: behind the last of them.
        """
        for batch in batches:
            self._ends[batch.header.ring] = batch.header.end
            if batch.header.ring != NOTES_RING:
                self._since.take(batch)
        self.position = position

    def check(self, run: str, host: str, batches: Sequence[FrameBatch], begin: Position) -> int:
        """Return how many of the batches that a collector is to get have nothing missing before them.

        Args:
            run: of the part.
            host: whose part it is.
            batches: those that come next.
            begin: before the first of them.

        Raises:
            PartIncomplete: it is none. What is missing may still come: a network file system may not show it yet.
        """
        if begin != self.position:
            self.move(begin)
        ends = dict(self._ends)
        for at, batch in enumerate(batches):
            ring, start = batch.header.ring, batch.header.start
            seen = ends.get(ring, 0)
            if start > seen and ring != NOTES_RING:  # whose positions leap, from one process that writes to the next
                if at > 0:
                    return at
                why = f"bytes {seen} to {start} of ring {ring:016x} are not in its journal"
                raise PartIncomplete(run, host, why, ring, seen)
            ends[ring] = max(seen, batch.header.end)
        return len(batches)

    def move(self, position: Position) -> None:
        """Go to where the collector says that it is; back, where it has lost what it had."""
        if position < self.position:
            self.position, self._ends, self._delivered, self._since = Position(), {}, 0, Tally(self._journal)
        with contextlib.closing(Reader(self._journal, self.position, dict(self._ends), bodies=False)) as reader:
            self.add(itertools.takewhile(lambda batch: batch.after <= position, reader), position)

    def cursor(self, before: Cursor) -> Cursor:
        """Return the cursor that says so. Reads the last batch of each ring.

        Args:
            before: the cursor as it was.
        """
        delivered = self._delivered + self._since.records()
        return msgspec.structs.replace(before, position=self.position, ends=dict(self._ends), delivered=delivered)
