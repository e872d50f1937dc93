"""Group: one curve of several runs. Runs anywhere."""

from __future__ import annotations

import array
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from asynctrack.curves.curve import mean_of
from asynctrack.curves.layout import CELL, DrawnCell
from asynctrack.curves.run_curves import RunCurves, window_end
from asynctrack.records.libraries import import_library

_COLUMNS: Final = ("x", "mean", "deviation", "min", "max", "runs")


class GroupCurve(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Sums a metric of several runs up in buckets along the x axis, from left to right. Each column is a memoryview, of floats or of integers.

    Attributes:
        key: the metric.
        axis: as of `CurveBuckets`.
        x: the middle of each bucket.
        mean: of the runs' means there. A run without a number in a bucket counts by the straight line between its neighbours, as it is drawn.
        deviation: the standard deviation of these means, as of a sample; 0 for one run.
        min: the least finite number of all runs, NaN where no run has one in the bucket.
        max: the greatest.
        runs: how many runs count.
    """

    key: str
    axis: str
    x: memoryview
    mean: memoryview
    deviation: memoryview
    min: memoryview
    max: memoryview
    runs: memoryview

    def __len__(self) -> int:
        """Return how many buckets there are."""
        return len(self.x)

    def arrays(self) -> dict[str, Any]:
        """Return the columns as NumPy arrays, without a copy.

        Raises:
            LibraryMissing: NumPy is not installed.
        """
        numpy = import_library("numpy", "arrays")
        return {name: numpy.asarray(getattr(self, name)) for name in _COLUMNS}


def group_curve(
    runs: Sequence[RunCurves], key: str, x: str, x0: float | None, x1: float | None, buckets: int
) -> GroupCurve:
    """Return one curve of several runs; those that have no such number do not count."""
    x0, x1 = window_end("x0", x0, -math.inf), window_end("x1", x1, math.inf)
    extents = [(run, found) for run in runs if (found := _extent(run, key, x)) is not None]
    begin = min((low for _, (low, _) in extents), default=0.0) if x0 is None else x0
    end = max((high for _, (_, high) in extents), default=0.0) if x1 is None else x1
    of_runs = [
        list(map(DrawnCell._make, CELL.iter_unpack(run.drawn((key,), x, begin, end, buckets)[key].cells)))
        for run, _ in extents
    ]
    lines = [_line(cells) for cells in of_runs]
    rows = []
    for at in range(buckets):
        means = [line[at] for line in lines if line[at] == line[at]]
        if not means:
            continue
        cells = [cells[at] for cells in of_runs if cells[at].finite]
        mean = math.fsum(value / len(means) for value in means)
        square = math.fsum((value - mean) ** 2 for value in means)
        rows.append(
            (
                begin + (at + 0.5) * (end - begin) / buckets,
                mean,
                math.sqrt(square / (len(means) - 1)) if len(means) > 1 else 0.0,
                min((cell.low for cell in cells), default=math.nan),
                max((cell.high for cell in cells), default=math.nan),
                len(means),
            )
        )
    columns = [memoryview(array.array("d", (row[at] for row in rows))) for at in range(5)]
    count = memoryview(array.array("q", (row[5] for row in rows)))
    found_x, mean_of_all, deviation, low, high = columns
    return GroupCurve(key=key, axis=x, x=found_x, mean=mean_of_all, deviation=deviation, min=low, max=high, runs=count)


def group_extent(runs: Sequence[RunCurves], key: str, x: str) -> tuple[float, float] | None:
    """Return the least and the greatest x of a metric of several runs; None where none has a number there."""
    extents = [found for run in runs if (found := _extent(run, key, x)) is not None]
    return (min(low for low, _ in extents), max(high for _, high in extents)) if extents else None


def _extent(run: RunCurves, key: str, x: str) -> tuple[float, float] | None:
    """Return where a run has a metric; None where it has none, or not that axis."""
    known = run.names()
    if key not in known or (x not in ("step", "time", "relative") and x not in known):
        return None
    return run.extent(key, x)


def _line(cells: list[DrawnCell]) -> list[float]:
    """Return the mean of each cell; between those that have one on the straight line, NaN before and behind them."""
    line = [mean_of(cell) if cell.finite else math.nan for cell in cells]
    for left, right in _gaps(line):
        for at in range(left + 1, right):
            share = (at - left) / (right - left)
            line[at] = line[left] * (1 - share) + line[right] * share
    return line


def _gaps(line: list[float]) -> Iterable[tuple[int, int]]:
    known = [at for at, value in enumerate(line) if value == value]
    return [(left, right) for left, right in itertools.pairwise(known) if right > left + 1]
