"""`asynctrack best`: the best runs by a metric."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

from asynctrack._system.printable import printable
from asynctrack._system.suggestions import hint
from asynctrack._system.wording import counted
from asynctrack.cli import options, output
from asynctrack.cli.output import STATE_STYLES, Output, Styled, TableColumn
from asynctrack.collection.ranking import Ranked, Ranking
from asynctrack.collection.selection import select
from asynctrack.collection.subject import RunSubject
from asynctrack.reading import catalog
from asynctrack.records.codec import flatten
from asynctrack.records.expressions import Condition

_SHOWN_RUNS: Final = 10
# Keys of the config that the table has; `--json` has all that differ. Arbitrary.
_SHOWN_KEYS: Final = 8
# Before the keys of the config are left out of a narrow terminal, the first of them last.
_RANK_OF_KEYS: Final = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `main` to `parser`."""
    parser.add_argument(
        "metric",
        metavar="METRIC",
        help="'loss' or 'val/acc', where define_metric(goal=) has said whether less or more is better; 'min(loss)' or "
        "'max(val/acc)' anyway; 'last(loss)' ranks by the last value",
    )
    options.add_directory(parser)
    options.add_where(parser, "rank only runs that meet a condition")
    parser.add_argument(
        "-n", type=options.whole(1), metavar="N", help=f"list the best N (default: {_SHOWN_RUNS}; 1 with --id)"
    )
    parser.add_argument("--id", action="store_true", help="print only the id, for a script")
    options.add_history(parser)
    options.add_json(parser, "print the runs as one JSON list")


def main(args: argparse.Namespace) -> int:
    """List the best runs. Return 1 if no run has the metric."""
    ranking, condition = Ranking(args.metric), None if args.where is None else Condition(args.where)
    if (directory := options.directory_of(args)) is None:
        return 2
    runs = list(select(directory, where=condition, history=args.history))
    for run in output.with_progress("reading the runs", runs):
        _ = run.metrics
    title, ranked = ranking.rank(runs)
    best = list(islice(ranked, args.n or (1 if args.id else _SHOWN_RUNS)))
    if args.json:
        output.print_json(_documents(title, best))
    elif args.id:
        for one in best:
            print(printable(_id(one.run, directory)))
    elif best:
        _print(title, best)
    if not best:
        output.warn(_why_none(ranking.key, runs, directory, condition))
    return 0 if best else 1


def _print(title: str, best: Sequence[Ranked]) -> None:
    keys = _differing(best)
    columns = [
        TableColumn("run"), TableColumn("name", rank=3, cut=True), TableColumn("status", rank=2), TableColumn(title, right=True),
        TableColumn("step", right=True, rank=1), *(TableColumn(key, right=True, rank=_RANK_OF_KEYS + at) for at, key in enumerate(keys[:_SHOWN_KEYS])),
    ]  # fmt: skip
    rows: list[list[output.Piece]] = []
    for one in best:
        summary, config = one.run.summary, dict(flatten(one.run.summary.config))
        rows.append([
            f"{summary.project}/{summary.id}", "" if summary.name == summary.id else summary.name,
            Styled(summary.status, STATE_STYLES.get(summary.status, "")), output.number(one.value), "-" if one.step is None else str(one.step),
            *(output.brief(config[key], 20) if key in config else "" for key in keys[:_SHOWN_KEYS]),
        ])  # fmt: skip
    if not any(row[1] for row in rows):
        columns, rows = [columns[0], *columns[2:]], [[row[0], *row[2:]] for row in rows]
    out = Output()
    out.table(columns, rows)
    if more := keys[_SHOWN_KEYS:]:
        out.line(
            Styled(
                f"{counted(len(more), 'more key')} of the config {'differ' if len(more) > 1 else 'differs'}: --json has all",
                "dim",
            )
        )


def _documents(title: str, best: Sequence[Ranked]) -> list[dict[str, Any]]:
    keys = _differing(best)
    found = []
    for one in best:
        summary, config = one.run.summary, dict(flatten(one.run.summary.config))
        found.append({
            "path": summary.path, "project": summary.project, "id": summary.id, "name": summary.name, "status": summary.status, "metric": title,
            "value": one.value, "step": one.step, "config": {key: config[key] for key in keys if key in config},
        })  # fmt: skip
    return found


def _differing(best: Sequence[Ranked]) -> list[str]:
    """Return the keys of the config that differ among runs, in their order."""
    configs = [dict(flatten(one.run.summary.config)) for one in best]
    keys = dict.fromkeys(key for config in configs for key in config)
    return [
        key
        for key in keys
        if any(key not in config or not _same(config[key], configs[0].get(key)) for config in configs)
    ]


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and repr(one) == repr(other)


def _id(run: RunSubject, directory: Path) -> str:
    """Return the id of a run; with its project where another in the directory has the same."""
    times = Counter(os.path.basename(os.path.abspath(path)) for path in catalog.runs_under(directory))
    return run.summary.id if times[run.summary.id] < 2 else catalog.name_of(run.path)


def _why_none(key: str, runs: Sequence[RunSubject], directory: Path, condition: Condition | None) -> str:
    if not runs:
        missing = condition.what_is_missing() if condition is not None else ""
        return f"no {'such ' if condition else ''}runs in {directory}" + (f": {missing}" if missing else "")
    known = {name for run in runs for name in run.metrics}
    what, meant = ("finite numbers", "") if key in known else ("numbers", hint(key, known))
    return f"no {'such ' if condition else ''}run in {directory} has {what} of `{key}`{meant}"
