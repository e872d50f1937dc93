"""Session records: the records of a journal, each with the number of its session. Runs anywhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from asynctrack.journal.batch_records import BatchDecoder
from asynctrack.journal.frames import FrameBatch
from asynctrack.journal.manifest import UNREADABLE, unreadable
from asynctrack.journal.reader import Reader
from asynctrack.queue.layout import RECORD, START
from asynctrack.records.codec import Record, string_keys

Batches = Iterable[tuple[Reader, FrameBatch]]


def session_records(
    run: Path,
    batches: Batches,
    decoder: BatchDecoder,
    fixed: Mapping[int, int] | None = None,
    takes: Callable[[FrameBatch], bool] | None = None,
) -> Iterator[tuple[int, Record]]:
    """Yield the records of a journal, each with the number of its session, from 0. What comes before the first start belongs to the first.

    Args:
        run: its directory.
        batches: all of the journal, from its beginning; each comes with its reader, which is told of damage.
        decoder: of this pass.
        fixed: the sessions of rings that belong to another than that in which they stand.
        takes: tells of each batch if its records are wanted; None for all.
    """
    session, fixed = -1, fixed or {}
    for reader, batch in batches:
        if takes is not None and not takes(batch):
            session += sum(frame.kind == START for frame in batch.frames(skip_records=True))
            continue
        begin = 0
        for found in decoder.pieces(batch):
            for frame in found.unreadable:
                reader.report(unreadable(run, batch, frame))
            if any(frame.kind == START for frame in found.others):
                numbered = list(_singly(batch, begin, found.inner, decoder, session))
                session = numbered[-1][0]
            else:
                numbered = [(session, record) for record in found.records]
            begin = found.inner
            for of, record in numbered:
                if record is not None:
                    yield fixed.get(record.ring, max(0, of)), _with_string_keys(record) if found.odd else record


def _with_string_keys(record: Record) -> Record:
    data = string_keys(record.data)
    return record if data is record.data else msgspec.structs.replace(record, data=data)


def _singly(
    batch: FrameBatch, begin: int, end: int, decoder: BatchDecoder, session: int
) -> Iterator[tuple[int, Record | None]]:
    """Yield the frames between two bytes, each with the number of its session; None where it is no record that can be read."""
    writer = decoder.label_of(batch)
    for frame in batch.frames(begin):
        if frame.end > end:
            return
        session += frame.kind == START
        record = None
        if frame.kind == RECORD:
            with contextlib.suppress(*UNREADABLE):
                record = decoder.record(frame.payload, frame.number, batch.header.ring, writer)
        yield session, record
