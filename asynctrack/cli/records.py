"""Records as commands take them from a journal, with the keys that were chosen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec

from asynctrack.cli.options import Keys
from asynctrack.journal.frames import Batch
from asynctrack.journal.reader import Damage, Reader
from asynctrack.queue.layout import RECORD
from asynctrack.record import Record, decode_record


def records_in(batch: Batch) -> Iterator[Record]:
    """The records of a batch."""
    for frame in batch.frames():
        if frame.kind == RECORD:
            yield decode_record(frame.payload, frame.number, batch.header.ring)


def reversed_records_in(batch: Batch) -> Iterator[Record]:
    """The records of a batch, the last first; only those that are asked for are decoded."""
    for frame in reversed([frame for frame in batch.frames() if frame.kind == RECORD]):
        yield decode_record(frame.payload, frame.number, batch.header.ring)


def chosen(records: Iterator[Record], keys: Keys | None) -> Iterator[Record]:
    """The records with the chosen keys, nested names joined by `/`; those that have none of them are left out."""
    if keys is None:
        yield from records
        return
    for record in records:
        if data := keys.of(record.data):
            yield msgspec.structs.replace(record, data=data)


def read(run: Path, damage: list[Damage]) -> Iterator[Record]:
    """All records of a run; what is damaged is stepped over and added to `damage` at the end."""
    with closing(Reader(run / "journal")) as reader:
        for batch in reader:
            yield from records_in(batch)
        damage.extend(reader.damage)
