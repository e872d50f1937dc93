"""Records: reads records from a journal for commands, with the keys that were chosen."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from itertools import chain
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from asynctrack.backends.files.jsonl import encode_lines
from asynctrack.backends.files.line_records import LineBatches, LineRecords, TakenLines
from asynctrack.cli.options import KeyFilter
from asynctrack.journal.batch_records import BatchDecoder, Taken
from asynctrack.journal.frames import Frame, FrameBatch
from asynctrack.journal.host_list import HostStats, offset_of
from asynctrack.journal.manifest import UNREADABLE, unreadable
from asynctrack.journal.reader import Damage, Reader
from asynctrack.journal.writers import Writers
from asynctrack.queue.layout import RECORD
from asynctrack.reading.damage import manifest_of, unreached_end
from asynctrack.reading.writer_filter import WriterFilter
from asynctrack.records.codec import Decoder, Record, decode_record

Found = TypeVar("Found", Taken, TakenLines)

_decoder: Final = Decoder()


def batch_decoder(writers: Writers | None = None) -> BatchDecoder:
    """Return a decoder for the batches of one run, in their order; with the labels that are known where it begins."""
    return BatchDecoder(_decoder, writers)


def records_in(
    batch: FrameBatch, damage: Callable[[Frame], object] = lambda frame: None, decoder: BatchDecoder | None = None
) -> Iterator[Record]:
    """Yield the records of a batch; `damage` is called with frames that cannot be decoded. Labels are those that `decoder` knows."""
    for found in (decoder or BatchDecoder(_decoder)).pieces(batch):
        for frame in found.unreadable:
            damage(frame)
        yield from found.records


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


def by_time(records: Iterable[Record], hosts: Sequence[HostStats]) -> list[Record]:
    """Return records of a merged run in the order of their times, corrected by the clocks of its hosts; those of a process stay in theirs."""
    by_ring: dict[int, list[Record]] = {}
    for record in records:
        by_ring.setdefault(record.ring, []).append(record)
    offsets = {ring: offset_of(hosts, f"{ring:016x}") for ring in by_ring}
    return list(heapq.merge(*by_ring.values(), key=lambda record: record.time_ns + offsets[record.ring]))


def read(run: Path, damage: list[Damage], writer: WriterFilter | None = None) -> Iterator[Record]:
    """Yield all records of a run, or those of one writer. Damaged stretches are skipped and added to `damage` at the end."""
    return chain.from_iterable(read_lists(run, damage, writer))


def read_lists(run: Path, damage: list[Damage], writer: WriterFilter | None = None) -> Iterator[list[Record]]:
    """Yield the records of `read`, some at a time."""
    for found in _pieces(decoder_of(writer).pieces, run, damage, writer):
        yield found.records


def read_lines(run: Path, damage: list[Damage], writer: WriterFilter | None = None) -> Iterator[LineRecords]:
    """Yield the records of `read` as lines of JSON, some at a time; with the core only."""
    batches = LineBatches(None, decoder_of(writer), encode_lines, gaps=False)
    for found in _pieces(batches.pieces, run, damage, writer):
        yield found.records


def decoder_of(writer: WriterFilter | None) -> BatchDecoder:
    """Make a decoder that knows the labels of all writers, though it is given the batches of one alone."""
    return BatchDecoder(_decoder, None if writer is None else writer.known)


def _pieces(
    pieces_of: Callable[[FrameBatch], Iterator[Found]], run: Path, damage: list[Damage], writer: WriterFilter | None
) -> Iterator[Found]:
    """Yield the pieces of a run's batches, and report what cannot be decoded."""
    for reader, batch in batches_of(run, damage, writer):
        report = reporter_of(run, reader, batch)
        for found in pieces_of(batch):
            for frame in found.unreadable:
                report(frame)
            yield found


def batches_of(
    run: Path, damage: list[Damage], writer: WriterFilter | None = None
) -> Iterator[tuple[Reader, FrameBatch]]:
    """Yield the batches of a run's journal, or of one writer, each with its reader. What that finds damaged is added to `damage` at the end."""
    said = manifest_of(run)
    with closing(Reader(run / "journal")) as reader:
        for batch in reader:
            if writer is None or writer.takes(batch):
                yield reader, batch
        damage.extend([*reader.damage, *unreached_end(run, said, reader.position)])


def reporter_of(run: Path, reader: Reader, batch: FrameBatch) -> Callable[[Frame], None]:
    """Return a function that notes frames of a batch that cannot be decoded as the reader's damage."""
    return lambda frame: reader.report(unreadable(run, batch, frame))
