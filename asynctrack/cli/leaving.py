"""Leaving: the runs that `asynctrack rm` chooses by a condition, by their age, and by a metric of which the best stay."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NamedTuple

from asynctrack._system.suggestions import hint
from asynctrack.cli import output
from asynctrack.collection.ranking import Ranking
from asynctrack.collection.selection import select
from asynctrack.collection.subject import RunSubject
from asynctrack.errors import UsageError
from asynctrack.records.expressions import Condition, seconds


class BestRuns(NamedTuple):
    """The runs that stay.

    Attributes:
        most: how many.
        ranking: by which they are the best.
    """

    most: int
    ranking: Ranking


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose runs."""
    parser.add_argument(
        "--where",
        metavar="EXPR",
        help="remove the runs that meet a condition, such as \"status in (failed, crashed) and tag == 'test'\"",
    )
    parser.add_argument(
        "--older", metavar="AGE", type=_age, help="remove only runs that began longer ago, such as 30d, 12h or 2w"
    )
    parser.add_argument(
        "--keep-best",
        nargs=2,
        metavar=("N", "METRIC"),
        action=_KeepBestOption,
        help="of the runs that --where and --older choose, keep the best N by a metric: 'val/acc' where define_metric(goal=) has said "
        "which way is better, else 'max(val/acc)'; runs that lack it go too",
    )


def is_asked_for(args: argparse.Namespace) -> bool:
    """Return True if runs are to be chosen, and not named."""
    return not (args.where is None and args.older is None and args.keep_best is None)


def choose(args: argparse.Namespace) -> list[RunSubject]:
    """Choose runs, without those that run.

    Raises:
        InvalidExpression: the condition or the metric cannot be parsed, or a goal is missing.
        UsageError: a name of them is that of nothing.
    """
    condition = None if args.where is None else Condition(args.where)
    runs = list(select(args.dir))
    found = []
    for run in output.with_progress("reading the runs", runs):
        _ = run.summary
        if condition is None or condition.holds(run):
            found.append(run)
    if condition is not None and runs and (missing := condition.missing):
        told = condition.what_is_missing() or f"no run has {' or '.join(f'`{name}`' for name in missing)}"
        raise UsageError(f"{told}; nothing was removed")
    if args.older is not None:
        found = [run for run in found if _is_older(run, args.older)]
    return found


def best_of(args: argparse.Namespace) -> BestRuns | None:
    """Parse what says which runs stay.

    Raises:
        InvalidExpression: the metric cannot be parsed.
    """
    return None if args.keep_best is None else BestRuns(args.keep_best[0], Ranking(args.keep_best[1]))


def without_best(runs: Sequence[RunSubject], best: BestRuns | None) -> list[RunSubject]:
    """Leave out the best runs.

    Raises:
        InvalidExpression: a goal is missing.
        UsageError: none of them has the metric.
    """
    if best is None or not runs:
        return list(runs)
    for run in output.with_progress("reading the runs", runs):
        _ = run.metrics
    _, ranked = best.ranking.rank(runs)
    if not ranked:
        known = {name for run in runs for name in run.metrics}
        key = best.ranking.key
        raise UsageError(f"none of the runs has numbers of `{key}`{hint(key, known)}; nothing was removed")
    kept = {one.run.path for one in ranked[: best.most]}
    return [run for run in runs if run.path not in kept]


def _is_older(run: RunSubject, age_s: float) -> bool:
    age = run.field("age")
    return isinstance(age, int | float) and age > age_s


def _age(text: str) -> float:
    found = seconds(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"expected an age with its unit (s, m, h, d or w), such as 30d, got {text!r}")
    return found


class _KeepBestOption(argparse.Action):
    """Parses the two values of --keep-best."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: object, option: str | None = None
    ) -> None:
        assert isinstance(values, list)
        count, metric = values
        if not (count.isascii() and count.isdigit()):
            parser.error(f"argument --keep-best: expected a whole number from 0 on and a metric, got {count!r}")
        setattr(namespace, self.dest, (int(count), metric))
