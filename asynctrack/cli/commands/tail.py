"""`asynctrack tail`: the last records of a run, and those that come."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import closing
from itertools import islice
from pathlib import Path

from asynctrack.cli import options
from asynctrack.cli.follow import Follower
from asynctrack.cli.lines import as_json, print_line
from asynctrack.cli.output import Output, warn
from asynctrack.cli.records import chosen, records_in, reversed_records_in
from asynctrack.journal.backwards import backwards
from asynctrack.journal.layout import NOTES_RING, Position
from asynctrack.journal.reader import Damage
from asynctrack.reading.damage import manifest_of, scan, unreached_end
from asynctrack.records.codec import Record


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `main` to `parser`."""
    options.add_run(parser)
    parser.add_argument(
        "-n", type=options.whole(0), default=10, metavar="N", help="number of records (default: %(default)s)"
    )
    parser.add_argument("-f", "--follow", action="store_true", help="keep printing new records until the run ends")
    options.add_keys(parser, "metrics to print, separated by commas; records with none of them are left out")
    options.add_json(parser, "print each record as a line of JSON, as in metrics.jsonl")


def main(args: argparse.Namespace) -> int:
    """Print records. Return 1 if a followed run has lost its process and its worker."""
    run = options.find(args)
    out = Output()

    def show(record: Record) -> None:
        if args.json:
            sys.stdout.write(as_json(record))
        else:
            print_line(out, record)

    last = _Last(run, args.n, args.keys)
    for record in reversed(last.records):
        show(record)
    for stretch in last.damage:
        warn(f"damaged: {stretch}")
    return _follow(run, last, args.keys, show) if args.follow else 0


class _Last:
    """The last records of a run, the last first; the position behind them; and the damage that was met on the way."""

    def __init__(self, run: Path, most: int, keys: options.KeyFilter | None) -> None:
        self.records: list[Record] = []
        self.position = Position()
        self.ends: dict[int, int] = {}
        said, around, passed = manifest_of(run), scan(run), list[Damage]()
        for batch in backwards(run / "journal", notes=True, damage=passed):
            self.position = max(self.position, batch.after)
            self.ends.setdefault(batch.header.ring, batch.header.end)
            if len(self.records) == most:
                break
            if batch.header.ring == NOTES_RING:
                continue
            missing = most - len(self.records)
            self.records += islice(chosen(reversed_records_in(batch), keys), missing)
        self.damage = list(dict.fromkeys([*around, *passed, *unreached_end(run, said, self.position)]))


def _follow(run: Path, last: _Last, keys: options.KeyFilter | None, show: Callable[[Record], None]) -> int:
    sys.stdout.flush()
    with closing(Follower(run, last.position, last.ends)) as follower:
        for batch in follower.batches():
            if batch is None:
                sys.stdout.flush()
                continue
            for record in chosen(records_in(batch), keys):
                show(record)
    for stretch in follower.damage:
        warn(str(stretch))
    if follower.status == "lost":
        warn(f"the process and the worker of {run} have died; `asynctrack sync` recovers what they left")
    return 1 if follower.status == "lost" else 0
