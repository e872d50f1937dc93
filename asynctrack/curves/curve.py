"""Curve: the numbers of a metric, summed up for as many places as a picture has. Runs anywhere."""

from __future__ import annotations

import array
import itertools
import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

import msgspec

from asynctrack._system.suggestions import suggests
from asynctrack.curves.layout import CELL, Bytes, DrawnCell
from asynctrack.curves.totals import clamped
from asynctrack.records.libraries import import_library

# Of a cell: floats, but for the last two.
_FIELDS: Final = CELL.size // 8

_COLUMNS: Final = ("x", "x_min", "x_max", "min", "max", "mean", "last", "count", "not_finite")


class CurveBuckets(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Sums a metric up in buckets along the x axis, from left to right, without empty ones. Each column is a memoryview, of floats or of integers.

    Every number that was logged in the window lies within one of the buckets: between its `x_min` and `x_max`, and between its `min` and `max`.

    Attributes:
        key: the metric.
        axis: "step", "time", "relative", or the metric that is the x axis.
        x: where to draw a bucket: the middle of `x_min` and `x_max`.
        x_min: the least x of a bucket.
        x_max: the greatest x of a bucket.
        min: the least finite number, NaN where there is none.
        max: the greatest finite number.
        mean: of the finite numbers.
        last: the finite number with the greatest x, of several the last.
        count: how many finite numbers.
        not_finite: how many NaN and infinities.
        exact: each bucket is one number, as it was logged.
    """

    key: str
    axis: str
    x: memoryview
    x_min: memoryview
    x_max: memoryview
    min: memoryview
    max: memoryview
    mean: memoryview
    last: memoryview
    count: memoryview
    not_finite: memoryview
    exact: bool

    def __len__(self) -> int:
        """Return how many buckets there are."""
        return len(self.x)

    def __repr__(self) -> str:
        numbers = sum(self.count) + sum(self.not_finite)
        return f"<CurveBuckets {self.key!r} over {self.axis!r}: {numbers} numbers in {len(self)} buckets>"

    def arrays(self) -> dict[str, Any]:
        """Return the columns as NumPy arrays, without a copy.

        Raises:
            LibraryMissing: NumPy is not installed.
        """
        numpy = import_library("numpy", "arrays")
        return {name: numpy.asarray(getattr(self, name)) for name in _COLUMNS}

    @suggests
    def smoothed(self, width: float, how: Literal["exponential", "window"] = "exponential") -> memoryview:
        """Smooth the means by x, not by bucket: a gap counts for what it is.

        Args:
            width: on the x axis. An exponential mean forgets all but a 2.7th over it; a window is as wide, and reaches as far back as forth.
            how: "exponential" or "window".

        Returns:
            A float for each bucket; NaN where the bucket has no finite number.
        """
        weights = [float(count) for count in self.count]
        if how == "window":
            return _view("d", _window(self.x, self.mean, weights, width))
        return _view("d", _exponential(self.x, self.mean, width))


def _exponential(x: Sequence[float], mean: Sequence[float], width: float) -> Iterable[float]:
    total = weight = 0.0
    before = None
    for at, value in zip(x, mean, strict=True):
        if value != value:
            yield math.nan
            continue
        kept = math.exp(-(at - before) / width) if before is not None and width > 0 else 0.0
        # A value counts for the stretch since the one before, so that dense ones do not outweigh sparse ones.
        share = 1.0 if before is None else 1.0 - kept
        total, weight = kept * total + share * value, kept * weight + share
        if not weight:  # several at one x
            total, weight = value, 1.0
        before = at
        yield total / weight


def _window(x: Sequence[float], mean: Sequence[float], weights: Sequence[float], width: float) -> Iterable[float]:
    first = end = 0
    for at in range(len(x)):
        while x[first] < x[at] - width / 2:
            first += 1
        while end < len(x) and x[end] <= x[at] + width / 2:
            end += 1
        found = [(mean[i], weights[i]) for i in range(first, end) if weights[i]]
        total = math.fsum(weight for _, weight in found)
        yield math.fsum(value * (weight / total) for value, weight in found) if weights[at] else math.nan


def curve_of_cells(key: str, axis: str, cells: Bytes) -> CurveBuckets:
    """Make a curve of what is drawn."""
    floats, counts = array.array("d", bytes(cells)), array.array("q", bytes(cells))
    columns: list[Any] = [
        *(floats[at::_FIELDS] for at in range(_FIELDS - 2)),
        counts[_FIELDS - 2 :: _FIELDS],
        counts[_FIELDS - 1 :: _FIELDS],
    ]
    there = list(map(operator.or_, columns[-2], columns[-1]))
    if not all(there):
        columns = [array.array(of.typecode, itertools.compress(of, there)) for of in columns]
    middles = _middles(columns)
    if any(map(operator.gt, middles, middles[1:])):
        order = sorted(range(len(middles)), key=middles.__getitem__)
        columns = [array.array(of.typecode, [of[at] for at in order]) for of in columns]
        middles = _middles(columns)
    x_low, x_high, low, high, total, last, _, finite, broken = columns
    mean = array.array("d", _means(total, finite, low, high))
    if not all(finite):
        for of in (low, high, last):
            of[:] = array.array("d", [value if count else math.nan for value, count in zip(of, finite, strict=True)])
    return CurveBuckets(
        key=key,
        axis=axis,
        x=memoryview(middles),
        x_min=memoryview(x_low),
        x_max=memoryview(x_high),
        min=memoryview(low),
        max=memoryview(high),
        mean=memoryview(mean),
        last=memoryview(last),
        count=memoryview(finite),
        not_finite=memoryview(broken),
        exact=all(one + other == 1 for one, other in zip(finite, broken, strict=True)),
    )


def _middles(columns: Sequence[Any]) -> array.array[float]:
    return array.array("d", [low + (high - low) / 2 for low, high in zip(columns[0], columns[1], strict=True)])


def _means(total: Any, count: Any, low: Any, high: Any) -> Iterable[float]:
    if not all(count):
        return [
            clamped(each / number, least, greatest) if number else math.nan
            for each, number, least, greatest in zip(total, count, low, high, strict=True)
        ]
    means = list(map(operator.truediv, total, count))
    if all(map(operator.le, low, means)) and all(map(operator.le, means, high)):  # as nearly always
        return means
    return map(clamped, means, low, high)


def curve_of_points(key: str, axis: str, points: Sequence[tuple[float, float]]) -> CurveBuckets:
    """Make a curve of single numbers, each with its place."""
    x = _view("d", (place for place, _ in points))
    number = _view("d", (y if y - y == 0 else math.nan for _, y in points))
    return CurveBuckets(
        key=key,
        axis=axis,
        x=x,
        x_min=x,
        x_max=x,
        min=number,
        max=number,
        mean=number,
        last=number,
        count=_view("q", (int(y - y == 0) for _, y in points)),
        not_finite=_view("q", (int(y - y != 0) for _, y in points)),
        exact=True,
    )


def mean_of(cell: DrawnCell) -> float:
    """Return the mean of the finite numbers of a cell that has some."""
    return clamped(cell.total / cell.finite, cell.low, cell.high)


def _view(kind: str, numbers: Iterable[float]) -> memoryview:
    return memoryview(array.array(kind, numbers))
