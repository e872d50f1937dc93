"""`asynctrack ls`: the runs of a directory, one line each, or one for each group of them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec

from asynctrack._system.wording import counted, see
from asynctrack.cli import options, output
from asynctrack.cli.output import Output, ProgressLine, Styled
from asynctrack.cli.run_groups import RunGroup, group_runs, print_groups
from asynctrack.cli.run_table import labels_of, print_hints, print_runs
from asynctrack.cli.run_values import asked, chosen, column_of
from asynctrack.collection.selection import Selection, select
from asynctrack.collection.subject import RunSubject
from asynctrack.reading import catalog
from asynctrack.records.expressions import STATUSES, Condition, Order, Term

# What a line of progress says.
_READING: Final = "reading the runs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `main` to `parser`."""
    options.add_directory(parser)
    options.add_where(parser, "list only runs that meet this condition")
    parser.add_argument(
        "--sort",
        type=options.signed,
        metavar="KEY",
        help="list by this name or aggregate, such as 'max(val/acc)'; with - in front the greatest first; runs without it come last "
        "(default: the newest first)",
    )
    parser.add_argument(
        "--columns",
        metavar="KEY,...",
        help="show these names and aggregates, such as 'lr,max(val/acc)'; * and ? in them stand for metrics "
        "(default: config that differs, and last values, as many as fit)",
    )
    parser.add_argument(
        "--group",
        metavar="KEY",
        help="list a line for each value of this name: how many runs have it, and the mean, the standard deviation, the least and the greatest "
        "of the columns",
    )
    parser.add_argument(
        "--status",
        type=_states,
        metavar="STATUS,...",
        help=f"list only runs in one of these states: {', '.join(STATUSES)}",
    )
    parser.add_argument("--project", help="list only runs of this project")
    parser.add_argument(
        "-n", type=options.whole(1), metavar="N", help="list only the first N, which are the newest without --sort"
    )
    options.add_keys(parser, "metrics whose last values are shown, separated by commas")
    options.add_history(parser)
    options.add_json(
        parser, "print the runs as one JSON list, with config, summary and the columns that were asked for"
    )


def main(args: argparse.Namespace) -> int:
    """List runs. A name that no run has is said on stderr, and is no failure: new runs may lack it."""
    if (directory := options.directory_of(args)) is None:
        return 2
    listing = _RunList(args, directory)
    listing.warn()
    if args.json:
        output.print_json(listing.documents())
    else:
        listing.print(Output())
    return 0


class _RunList:
    """Finds what is to be listed, and prints it."""

    def __init__(self, args: argparse.Namespace, directory: Path) -> None:
        self._args = args
        self._directory = directory
        self._condition = None if args.where is None else Condition(args.where)
        self._order = None if args.sort is None else Order(args.sort)
        self._key = None if args.group is None else Term(args.group)
        self.total = 0
        selection = select(directory, project=args.project, history=args.history)
        found = self._found(selection)
        limit = None if args.group is not None else args.n
        self._subjects = list(islice(found, limit) if self._order is None else self._sorted(found, self._order)[:limit])
        self._unreadable = selection.unreadable
        self._terms = [] if args.columns is None else asked(args.columns, self._subjects)
        _read(self._subjects, self._terms)
        self._columns = [column_of(term, self._subjects) for term in self._terms]
        self._groups = [] if self._key is None else self._grouped(self._key)

    def warn(self) -> None:
        """Say which names no run has."""
        parsed = (self._condition, self._order, self._key, *self._terms[:1])
        for said in dict.fromkeys(one.what_is_missing() for one in parsed if one is not None):
            if said:
                output.warn(said)

    def documents(self) -> list[dict[str, Any]]:
        """Return what `--json` prints."""
        if self._key is not None:
            return [group.document() for group in self._groups]
        return [self._document(at, subject) for at, subject in enumerate(self._subjects)]

    def print(self, out: Output) -> None:
        """Print a table."""
        unreadable = self._unreadable
        if not self._subjects:
            is_chosen = any(value is not None for value in (self._args.status, self._args.project, self._args.where))
            such, read = "such " if is_chosen else "", " that you may read" if unreadable else ""
            out.line(f"no {such}runs in {self._directory}{read}")
            _print_unreadable(out, unreadable)
            return
        found = [subject.summary for subject in self._subjects]
        if self._key is not None:
            print_groups(out, self._key.text, self._groups)
        else:
            asked_for = self._args.columns is not None
            values = self._columns if asked_for else chosen(self._subjects, self._args.keys)
            print_runs(out, found, labels_of(out, found, self._directory), values, all_values=asked_for)
        out.line()
        of = f"{len(found)} of " if self.total > len(found) else ""
        bytes_in_all = sum(run.bytes for run in found)
        out.line(Styled(f"{of}{counted(self.total if of else len(found), 'run')}, {output.size(bytes_in_all)}", "dim"))
        print_hints(out, found)
        _print_unreadable(out, unreadable)

    def _found(self, selection: Selection) -> Iterator[RunSubject]:
        """Yield the runs that meet all conditions, the newest first."""
        looks = self._condition is not None or self._args.status is not None
        runs = len(catalog.runs_under(self._directory)) if looks and sys.stderr.isatty() else 0
        with ProgressLine(_READING, runs) as progress:
            for subject in selection:
                self.total += 1
                if runs:
                    progress.at(self.total)
                if self._args.status is not None and subject.summary.status not in self._args.status:
                    continue
                if self._condition is None or self._condition.holds(subject):
                    yield subject

    def _sorted(self, found: Iterator[RunSubject], order: Order) -> list[RunSubject]:
        subjects = list(found)
        _read(subjects, [term for term, _ in order.terms])
        return order.sorted(subjects, lambda subject: subject)

    def _grouped(self, key: Term) -> list[RunGroup]:
        columns = self._columns
        if self._args.columns is None:
            columns = [column for column in chosen(self._subjects, self._args.keys) if column.is_metric]
        return group_runs(key, self._subjects, columns, keeps_order=self._order is not None)[: self._args.n]

    def _document(self, at: int, subject: RunSubject) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.structs.asdict(subject.summary)
        if self._args.keys is not None:
            found["last"] = self._args.keys.of(found["last"])
        if self._args.columns is not None:
            found["columns"] = {column.title: column.values[at] for column in self._columns}
        return found


def _read(subjects: Sequence[RunSubject], terms: Sequence[Term]) -> None:
    """Look at runs, and read those whose metrics are asked for; show how far that is. Each remembers what was found."""
    for subject in output.with_progress(_READING, subjects):
        _ = subject.summary
        for term in terms:
            term.of(subject)


def _print_unreadable(out: Output, count: int) -> None:
    if count:
        out.line(
            Styled(
                f"{counted(count, 'run')} that you may not read: ask who ran them{see('reference/permissions.md')}",
                "dim",
            )
        )


def _states(text: str) -> set[str]:
    states = set(text.split(","))
    if unknown := states - set(STATUSES):
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(STATUSES)}, got {', '.join(sorted(unknown))!r}")
    return states
