"""`asynctrack tail`: the last records of a run, and those that come."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import closing
from itertools import islice
from pathlib import Path

import msgspec

from asynctrack.cli import options
from asynctrack.cli.follow import Follower
from asynctrack.cli.lines import as_json, print_line
from asynctrack.cli.output import Output, warn
from asynctrack.cli.records import batch_decoder, by_time, chosen, records_in, reversed_records_in
from asynctrack.cli.writers import add_writer
from asynctrack.journal.backwards import backwards
from asynctrack.journal.layout import NOTES_RING, Position
from asynctrack.journal.reader import Damage
from asynctrack.journal.writers import Writers
from asynctrack.reading.damage import manifest_of, scan, unreached_end
from asynctrack.reading.writer_counts import read_last_labels
from asynctrack.reading.writer_filter import WriterFilter
from asynctrack.records.codec import Record


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `main` to `parser`."""
    options.add_run(parser)
    parser.add_argument(
        "-n", type=options.whole(0), default=10, metavar="N", help="number of records (default: %(default)s)"
    )
    parser.add_argument("-f", "--follow", action="store_true", help="keep printing new records until the run ends")
    options.add_keys(parser, "metrics to print, separated by commas; records with none of them are left out")
    add_writer(parser, "print only records of this writer")
    options.add_json(parser, "print each record as a line of JSON, as in metrics.jsonl")


def main(args: argparse.Namespace) -> int:
    """Print records. Return 1 if a followed run has lost its process and its worker, 2 if it has no such writer."""
    run = options.find(args)
    out, writer = Output(), WriterFilter(run, args.writer)
    if (problem := writer.problem()) is not None:
        warn(problem)
        return 2

    def show(record: Record) -> None:
        if args.json:
            sys.stdout.write(as_json(record))
        else:
            print_line(out, record)

    last = _Last(run, args.n, args.keys, writer)
    manifest = manifest_of(run)
    labels, hosts = read_last_labels(run, manifest), [] if manifest is None else manifest.hosts
    for record in by_time(reversed(last.records), hosts) if hosts else reversed(last.records):
        show(msgspec.structs.replace(record, writer=labels.label_of(record.ring)))
    for stretch in last.damage:
        warn(f"damaged: {stretch}")
    return _follow(run, last, labels, args.keys, writer, show) if args.follow else 0


class _Last:
    """The last records of a run, the last first; the position behind them; and the damage that was met on the way."""

    def __init__(self, run: Path, most: int, keys: options.KeyFilter | None, writer: WriterFilter) -> None:
        self.records: list[Record] = []
        self.position = Position()
        self.ends: dict[int, int] = {}
        said, around, passed = manifest_of(run), scan(run), list[Damage]()
        for batch in backwards(run / "journal", notes=True, damage=passed):
            self.position = max(self.position, batch.after)
            self.ends.setdefault(batch.header.ring, batch.header.end)
            if len(self.records) == most:
                break
            if batch.header.ring == NOTES_RING or not writer.takes(batch):
                continue
            missing = most - len(self.records)
            self.records += islice(chosen(reversed_records_in(batch), keys), missing)
        self.damage = list(dict.fromkeys([*around, *passed, *unreached_end(run, said, self.position)]))


def _follow(
    run: Path,
    last: _Last,
    labels: Writers,
    keys: options.KeyFilter | None,
    writer: WriterFilter,
    show: Callable[[Record], None],
) -> int:
    sys.stdout.flush()
    decoder = batch_decoder(labels)
    with closing(Follower(run, last.position, last.ends)) as follower:
        for batch in follower.batches():
            if batch is None:
                sys.stdout.flush()
                continue
            decoder.label_of(batch)  # also of those that are not shown
            records = records_in(batch, decoder=decoder)
            for record in chosen(records, keys) if writer.takes(batch) else ():
                show(record)
    for stretch in follower.damage:
        warn(str(stretch))
    if follower.status == "lost":
        warn(f"the process and the worker of {run} have died; `asynctrack sync` recovers what they left")
    return 1 if follower.status == "lost" else 0
