"""Catching up: makes the open sums of a delivery of means again from the journal, where a delivery goes on. Reads the journal."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final

from asynctrack.delivery.writer_views import MeanView, WriterView
from asynctrack.journal.cursor import Cursor
from asynctrack.journal.frames import FrameBatch
from asynctrack.journal.layout import Position
from asynctrack.journal.manifest import UNREADABLE
from asynctrack.journal.reader import Reader
from asynctrack.queue.layout import RECORD
from asynctrack.records.codec import Decoder, Record

# Records that are taken at once: others share the loop. A millisecond or two.
_AT_ONCE: Final = 200


def catch_up(journal: Path, cursor: Cursor, view: WriterView | None, decoder: Decoder) -> Generator[None]:
    """Take again what lies between the first record of an open step and the cursor. A view without means needs nothing.

    Args:
        journal: its directory.
        cursor: where the delivery goes on.
        view: as the cursor has it, without the sums of its open steps; it gets these.
        decoder: of records.

    Yields:
        Now and then.
    """
    if not isinstance(view, MeanView) or cursor.means is None or cursor.means.since is None:
        return
    means = view.means
    means.writers = cursor.writers
    reached: dict[int, int | None] = {}
    for batch in _batches(journal, cursor.means.since, cursor.position):
        ring, since = batch.header.ring, Position(batch.segment, batch.offset)
        for records in _records(batch, cursor.position, decoder):
            reached[ring] = means.add_again(ring, records, since, reached.get(ring))
            yield


def _batches(journal: Path, since: Position, until: Position) -> Iterator[FrameBatch]:
    reader = Reader(journal, since)
    try:
        while (batch := reader.next()) is not None and Position(batch.segment, batch.offset) < until:
            yield batch
    finally:
        reader.close()


def _records(batch: FrameBatch, until: Position, decoder: Decoder) -> Iterator[list[Record]]:
    """Yield the records of a batch that lie before a place, some at a time."""
    last = until.inner if batch[:2] == until[:2] else len(batch.data)
    found: list[Record] = []
    for frame in batch.frames():
        if frame.end > last:
            break
        if frame.kind == RECORD:
            with contextlib.suppress(*UNREADABLE):
                found.append(decoder.record(frame.payload, frame.number, batch.header.ring))
        if len(found) == _AT_ONCE:
            yield found
            found = []
    yield found
