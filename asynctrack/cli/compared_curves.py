"""Compared curves: the metrics of a few runs, each with a curve on a scale that the runs share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from asynctrack.cli import output
from asynctrack.cli.curves import read_curves
from asynctrack.cli.output import Output, Piece, Styled, TableColumn
from asynctrack.cli.sparklines import Sparklines
from asynctrack.collection.comparison import Comparison
from asynctrack.collection.metric_stats import MetricStats
from asynctrack.reading.history import History

# Characters of a curve, at most and at least; of a label; of the numbers beside it.
_LONGEST_CURVE: Final = 48
_SHORTEST_CURVE: Final = 8
_LONGEST_LABEL: Final = 20
_NUMBERS: Final = 48


def print_metrics(out: Output, comparison: Comparison, keys: Sequence[str], history: History) -> None:
    """Print for each metric a line per run: its course, first, last, least and greatest value, and which is best.

    Args:
        out: where to.
        comparison: of the runs.
        keys: the metrics.
        history: of which the curves are.
    """
    if not keys:
        return
    curves = {
        label: read_curves(reader, history=history).curves
        for label, reader in zip(comparison.labels, comparison.runs, strict=True)
    }
    labels = max(map(output.width_of, comparison.labels))
    room = _LONGEST_CURVE if out.width is None else out.width - min(labels, _LONGEST_LABEL) - _NUMBERS
    for key in keys:
        goal = comparison.goals.get(key)
        out.heading(key + (f" ({goal})" if goal else ""))
        found = comparison.metrics[key]
        shown = {label: curves[label] for label in found if key in curves[label].by_key}
        drawn = _draw(out, key, shown, found, max(_SHORTEST_CURVE, min(room, _LONGEST_CURVE)))
        rows = [
            _row(label, drawn.get(label, ""), stats, label == comparison.best(key)) for label, stats in found.items()
        ]
        out.table(_COLUMNS, rows, indent=2)


_COLUMNS: Final = (
    TableColumn(cut=True),
    TableColumn(),
    *(TableColumn(title, right=True) for title in ("first", "last", "min", "max")),
    TableColumn(),
)


def _row(label: str, line: str, stats: MetricStats, is_best: bool) -> list[Piece]:
    numbers = (stats.first, stats.last, stats.min, stats.max)
    cells = [output.number(number, 4) if number is not None else Styled("-", "dim") for number in numbers]
    return [label, Styled(line, "cyan"), *cells, Styled("best", "bold") if is_best else ""]


def _draw(
    out: Output, key: str, curves: dict[str, Sparklines], stats: dict[str, MetricStats], most: int
) -> dict[str, str]:
    """Draw the curves of a metric on one scale: each as long as its steps go, beside the longest, and as high as its values are among all."""
    end = max((stats[label].last_step for label in curves), default=0)
    room = {label: max(1, round(most * max(0, stats[label].last_step) / end)) if end > 0 else most for label in curves}
    courses = {label: of.courses([key], room[label])[key] for label, of in curves.items()}
    drawn = out.spark([value for course in courses.values() for value in course])
    found, at = {}, 0
    for label, course in courses.items():
        found[label] = drawn[at : at + len(course)]
        at += len(course)
    return found
