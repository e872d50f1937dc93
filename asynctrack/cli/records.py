"""Records: reads records from a journal for commands, with the keys that were chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import msgspec

from asynctrack.cli.options import KeyFilter
from asynctrack.journal.frames import Frame, FrameBatch
from asynctrack.journal.manifest import UNREADABLE, unreadable
from asynctrack.journal.reader import Damage, Reader
from asynctrack.queue.layout import RECORD
from asynctrack.reading.damage import manifest_of, unreached_end
from asynctrack.records.codec import Record, decode_record


def records_in(batch: FrameBatch, damage: Callable[[Frame], object] = lambda frame: None) -> Iterator[Record]:
    """Yield the records of a batch; `damage` is called with frames that cannot be decoded."""
    for frame in batch.frames():
        if frame.kind == RECORD:
            try:
                record = decode_record(frame.payload, frame.number, batch.header.ring)
            except UNREADABLE:
                damage(frame)
                continue
            yield record


def reversed_records_in(batch: FrameBatch) -> Iterator[Record]:
    """Yield the records of a batch, the last first, decoding only those that are taken."""
    for frame in reversed([frame for frame in batch.frames() if frame.kind == RECORD]):
        with suppress(*UNREADABLE):
            yield decode_record(frame.payload, frame.number, batch.header.ring)


def chosen(records: Iterator[Record], keys: KeyFilter | None) -> Iterator[Record]:
    """Yield the records with the chosen keys, by flat names; a record with none of them is left out."""
    if keys is None:
        yield from records
        return
    for record in records:
        if data := keys.of(record.data):
            yield msgspec.structs.replace(record, data=data)


def read(run: Path, damage: list[Damage]) -> Iterator[Record]:
    """Yield all records of a run. Damaged stretches are skipped and added to `damage` at the end."""
    said = manifest_of(run)
    with closing(Reader(run / "journal")) as reader:
        for batch in reader:
            yield from records_in(batch, reporter_of(run, reader, batch))
        damage.extend([*reader.damage, *unreached_end(run, said, reader.position)])


def reporter_of(run: Path, reader: Reader, batch: FrameBatch) -> Callable[[Frame], None]:
    """Return a function that notes frames of a batch that cannot be decoded as the reader's damage."""
    return lambda frame: reader.report(unreadable(run, batch, frame))
