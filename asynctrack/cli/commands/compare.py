"""`asynctrack compare`: what differs between runs, and their metrics side by side."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final

import msgspec

from asynctrack.cli import options, output
from asynctrack.cli.compared_curves import print_metrics
from asynctrack.cli.output import STATE_STYLES, Output, Piece, Styled, TableColumn
from asynctrack.cli.run_table import labels_of, print_hints, print_runs
from asynctrack.cli.run_values import ValueColumn, cell
from asynctrack.client import run_state
from asynctrack.collection.comparison import Comparison, environment_of
from asynctrack.collection.differences import flat
from asynctrack.collection.selection import select
from asynctrack.collection.subject import RunSubject
from asynctrack.reading import catalog
from asynctrack.records.expressions import Condition

# Runs that stand side by side, as columns of this width at a terminal; more have a row each.
_MOST_BESIDE: Final = 8
_COLUMN: Final = 16
# Rows of what differs, of metrics, and columns of metrics, that are shown without --all. Arbitrary.
_MOST_ROWS: Final = 20
_MOST_METRICS: Final = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `main` to `parser`."""
    parser.add_argument("runs", metavar="RUN", nargs="*", help=options.RUN_HELP)
    options.add_dir(parser)
    options.add_where(parser, "compare all runs that meet this condition")
    options.add_keys(parser, "metrics to compare, separated by commas")
    parser.add_argument(
        "--all",
        action="store_true",
        help="show what is the same too, and every metric; without it what differs, and some metrics",
    )
    options.add_history(parser)
    options.add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Compare the runs. Return 1 if no run meets the condition."""
    if not args.runs and args.where is None:
        output.warn("give runs, or --where and a condition that they meet")
        return 2
    if args.where is not None and options.is_missing(args.dir):
        return 2
    subjects, condition = _subjects(args)
    if not subjects:
        missing = "" if condition is None else condition.what_is_missing()
        output.warn(f"no such runs in {args.dir}{missing and f': {missing}'}")
        return 1
    comparison = Comparison(subjects)
    out = Output()
    if args.json:
        output.print_json(_document(comparison, args))
    elif len(subjects) > _room(out):
        _print_rows(out, comparison, args)
    else:
        _print_beside(out, comparison, args)
    if args.keys is not None:
        args.keys.tell_unknown("metric")
    return 0


def _subjects(args: argparse.Namespace) -> tuple[list[RunSubject], Condition | None]:
    """Return the runs that were named, and those that meet the condition; each once."""
    workers = run_state.other_workers()
    found = [RunSubject(catalog.find(run, args.dir), workers, args.history) for run in args.runs]
    condition = None if args.where is None else Condition(args.where)
    if condition is not None:
        found += select(args.dir, where=condition, history=args.history)
    by_place: dict[Path, RunSubject] = {}
    for subject in found:
        by_place.setdefault(subject.path.resolve(), subject)
    return list(by_place.values()), condition


def _room(out: Output) -> int:
    """Return how many runs can stand side by side."""
    return _MOST_BESIDE if out.width is None else max(2, min(_MOST_BESIDE, out.width // _COLUMN - 1))


def _chosen(comparison: Comparison, args: argparse.Namespace) -> list[str]:
    """Return the metrics that are shown: those with a goal first, then those that most runs have."""
    found = [key for key in comparison.metrics if args.keys is None or key in args.keys]
    return sorted(found, key=lambda key: (key not in comparison.goals, -len(comparison.metrics[key])))


def _print_beside(out: Output, comparison: Comparison, args: argparse.Namespace) -> None:
    """Print the runs side by side, with a curve of each metric."""
    summaries = [subject.summary for subject in comparison.subjects]
    ids = [run.id for run in summaries]
    rows: list[list[Piece]] = [
        *([] if comparison.labels == ids else [_row("id", ids)]),
        _row("status", [Styled(run.status, STATE_STYLES.get(run.status, "")) for run in summaries]),
        _row("records", [output.count(run.records) for run in summaries]),
    ]
    blank: list[Piece] = [""] * len(comparison.labels)
    for title, values in _differences(comparison, args.all).items():
        shown = dict(list(values.items())[: None if args.all else _MOST_ROWS])
        if shown:
            rows += [["", *blank], [Styled(title, "bold"), *blank]]
        rows += [
            _row(key, [cell(key, found.get(label)) for label in comparison.labels]) for key, found in shown.items()
        ]
        if more := len(values) - len(shown):
            rows.append(_row(f"and {more:,} more: --all", blank))
    out.table([TableColumn(cut=True), *(TableColumn(label, cut=True) for label in comparison.labels)], rows)
    keys = _chosen(comparison, args)
    shown_keys = keys if args.all or args.keys is not None else keys[:_MOST_METRICS]
    print_metrics(out, comparison, shown_keys, args.history)
    _print_rest(out, len(keys) - len(shown_keys), "--all, or --keys")
    _print_same(out, comparison, args.all)


def _print_rows(out: Output, comparison: Comparison, args: argparse.Namespace) -> None:
    """Print a row for each run: what differs, and a value of each metric."""
    keys = _chosen(comparison, args)
    metrics = iter([_metric_column(comparison, key) for key in keys])
    settings = iter(
        ValueColumn(key, [by_label.get(label) for label in comparison.labels])
        for values in (comparison.config, comparison.environment)
        for key, by_label in values.items()
    )
    pairs = ((next(settings, None), next(metrics, None)) for _ in range(max(len(keys), 1000)))
    columns = (column for column in chain.from_iterable(pairs) if column is not None)
    summaries = [subject.summary for subject in comparison.subjects]
    print_runs(out, summaries, labels_of(out, summaries, args.dir), columns, all_values=args.all)
    out.line()
    print_hints(out, summaries)
    for key in keys:
        if (best := comparison.best(key)) is not None:
            out.line(Styled(f"best {key}: {best}", "dim"))


def _metric_column(comparison: Comparison, key: str) -> ValueColumn:
    goal = comparison.goals.get(key)
    how = {"minimize": "min", "maximize": "max"}.get(goal or "", "last")
    found = comparison.metrics[key]
    values = [getattr(found[label], how) if label in found else None for label in comparison.labels]
    return ValueColumn(key if how == "last" else f"{how}({key})", values, is_metric=True)


def _differences(comparison: Comparison, with_same: bool) -> dict[str, dict[str, dict[str, Any]]]:
    """Return by title what is shown of config, summary and environment: for each key the values by label."""
    if not with_same:
        return {"config": comparison.config, "environment": comparison.environment, "summary": comparison.summary}
    subjects = comparison.subjects
    return {
        "config": _all_of(comparison, [dict(flat(subject.summary.config)) for subject in subjects]),
        "environment": _all_of(comparison, [environment_of(subject.environment) for subject in subjects]),
        "summary": _all_of(comparison, [dict(flat(subject.summary.summary)) for subject in subjects]),
    }


def _all_of(comparison: Comparison, values: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    keys = dict.fromkeys(key for found in values for key in found)
    pairs = list(zip(comparison.labels, values, strict=True))
    return {key: {label: found[key] for label, found in pairs if key in found} for key in keys}


def _row(key: str, cells: Sequence[Piece]) -> list[Piece]:
    return [Styled(key, "dim"), *cells]


def _print_rest(out: Output, more: int, option: str) -> None:
    if more > 0:
        out.line(Styled(f"and {more:,} more: {option}", "dim"), indent=2)


def _print_same(out: Output, comparison: Comparison, with_same: bool) -> None:
    """Print that nothing differs, where that is so."""
    if not with_same and len(comparison.runs) > 1 and not comparison.config:
        out.line()
        out.line(Styled("the config of all of them is the same", "dim"))


def _document(comparison: Comparison, args: argparse.Namespace) -> dict[str, Any]:
    """Return what `--json` prints."""
    runs = [
        {
            "label": label,
            **{
                name: getattr(subject.summary, name)
                for name in ("path", "project", "id", "name", "status", "records", "created_at")
            },
        }
        for label, subject in zip(comparison.labels, comparison.subjects, strict=True)
    ]
    return {
        "runs": runs,
        **_differences(comparison, args.all),
        "metrics": {
            key: {label: msgspec.structs.asdict(stats) for label, stats in comparison.metrics[key].items()}
            for key in _chosen(comparison, args)
        },
        "goals": comparison.goals,
        "best": {key: best for key in comparison.goals if (best := comparison.best(key)) is not None},
    }
