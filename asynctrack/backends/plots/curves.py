"""Curves: reduce a run's numbers to the detail that a picture can show. Runs where they are drawn.

A curve is kept in stretches of 2**k steps, each with its least, greatest and mean value. When there are too many
stretches, k grows by one, and two become one. So memory does not grow with the run, no spike gets lost, and the curve
is the same in whatever order its values come.

Curves are no part of a cursor's state: a thousand stretches of twenty curves are 0.8 MB of JSON, too much to save each
second. After a kill they are made again from the journal, at 2 to 3 us a value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from asynctrack.backends.metric_selection import MetricSelection
from asynctrack.records.codec import Record, split_source
from asynctrack.records.column_types import as_float
from asynctrack.records.plain import numbers_in

# Stretches of a curve: two a pixel of a panel, at most 0.3 MB.
MOST_STRETCHES: Final = 1_024
# Curves of a run, at most: a run that makes up a name per record must not fill the memory. Arbitrary.
MOST_CURVES: Final = 200

NO_NUMBERS: Final = "no number to draw"
TOO_MANY: Final = f"of more than {MOST_CURVES} metrics"


class Stretch:
    """A curve's values between two of its steps, summed up.

    Attributes:
        begin: the first step with a value.
        end: the last step with a value.
        low: the least finite value.
        high: the greatest finite value.
        total: the sum of the finite values.
        count: the number of finite values.
        broken: the first step whose value is not finite; None where all are.
    """

    __slots__ = ("begin", "broken", "count", "end", "high", "low", "total")

    def __init__(self, step: int) -> None:
        self.begin: int = step
        self.end: int = step
        self.low: float = math.inf
        self.high: float = -math.inf
        self.total: float = 0.0
        self.count: int = 0
        self.broken: int | None = None

    def take(self, step: int, value: float) -> None:
        """Add a value."""
        if step < self.begin:
            self.begin = step
        elif step > self.end:
            self.end = step
        if value - value != 0:  # NaN and the infinities
            self.broken = step if self.broken is None else min(step, self.broken)
            return
        if value < self.low:
            self.low = value
        if value > self.high:
            self.high = value
        self.total += value
        self.count += 1

    def absorb(self, other: Stretch) -> None:
        """Add the values of a neighbour."""
        self.begin, self.end = min(self.begin, other.begin), max(self.end, other.end)
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.total, self.count = self.total + other.total, self.count + other.count
        broken = [step for step in (self.broken, other.broken) if step is not None]
        self.broken = min(broken, default=None)

    @property
    def mean(self) -> float:
        """Return the mean of the finite values, NaN where there are none."""
        if not self.count:
            return math.nan
        mean = self.total / self.count
        return mean if math.isfinite(mean) else self.low / 2 + self.high / 2  # the sum is beyond a float

    def copy(self) -> Stretch:
        """Return a copy."""
        other = Stretch(self.begin)
        other.absorb(self)
        return other


class Course(NamedTuple):
    """A curve as it is drawn, point by point; a mean is NaN where no value is finite.

    Attributes:
        steps: of the points.
        means: the mean value of each point.
        lows: the least value of each point.
        highs: the greatest value of each point.
        broken: steps with values that are not finite.
        exact: whether each point is one value.
    """

    steps: list[float]
    means: list[float]
    lows: list[float]
    highs: list[float]
    broken: list[int]
    exact: bool


class PlotCurve:
    """One metric, reduced to a limited number of stretches.

    Args:
        most: stretches that are kept, at most: 2 or more, since steps below 0 never share one with those above.

    Attributes:
        count: values taken so far.
    """

    __slots__ = ("_most", "_shift", "_stretches", "count")

    def __init__(self, most: int = MOST_STRETCHES) -> None:
        self.count: int = 0
        self._most = most
        self._shift = 0
        self._stretches: dict[int, Stretch] = {}

    def __len__(self) -> int:
        """Return the number of stretches."""
        return len(self._stretches)

    @property
    def greatest(self) -> float:
        """Return the greatest finite value, minus infinity where there is none."""
        return max(stretch.high for stretch in self._stretches.values())

    def add(self, step: int, value: float) -> None:
        """Add a value."""
        self.count += 1
        at = step >> self._shift
        stretch = self._stretches.get(at)
        if stretch is None:
            stretch = self._stretches[at] = Stretch(step)
        stretch.take(step, value)
        while len(self._stretches) > self._most:
            self._shift += 1
            self._stretches = _merged(self._stretches, 1)

    def course(self, most: int) -> Course:
        """Return the curve in at most `most` points, 2 or more."""
        shift = 0
        while len({at >> shift for at in self._stretches}) > most:
            shift += 1
        kept = _merged(self._stretches, shift) if shift else self._stretches
        found = [kept[at] for at in sorted(kept)]
        return Course(
            [(each.begin + each.end) / 2 for each in found],
            [each.mean for each in found],
            [each.low if each.count else math.nan for each in found],
            [each.high if each.count else math.nan for each in found],
            [each.broken for each in found if each.broken is not None],
            all(each.count <= 1 for each in found),
        )


class Line(NamedTuple):
    """A curve in a panel.

    Attributes:
        key: the metric's whole name.
        scope: of the metric, "" for none.
        rank: number of the scope among those that share a panel with others. It decides the colour, which is the same
            in all panels. None where the scope never shares one.
        curve: its values.
    """

    key: str
    scope: str
    rank: int | None
    curve: PlotCurve


class Panel(NamedTuple):
    """The contents of one pair of axes: a metric in each scope that has it.

    Where only one has, the title is the metric's whole name.
    """

    title: str
    lines: list[Line]


class PlotCurves:
    """The curves of a run.

    Args:
        keys: the metrics to keep.

    Attributes:
        by_key: the curves by metric, in the order of their first values.
    """

    def __init__(self, keys: MetricSelection) -> None:
        self.by_key: dict[str, PlotCurve] = {}
        self._keys = keys

    def take(self, records: Iterable[Record]) -> dict[str, int]:
        """Add the numbers of these records to the curves.

        Returns:
            How many records add nothing to a curve, by reason.
        """
        skipped: dict[str, int] = {}
        for record in records:
            reason: str | None = NO_NUMBERS
            for key, value in numbers_in(record.data):
                curve = self.by_key.get(key) or self._begin(key)
                if curve is not None:
                    curve.add(record.step, as_float(value))
                    reason = None
                elif reason and key in self._keys:
                    reason = TOO_MANY
            if reason:
                skipped[reason] = skipped.get(reason, 0) + 1
        return skipped

    def panels(self) -> list[Panel]:
        """Arrange the curves in panels, in the order of their first values."""
        metrics: dict[str, list[str]] = {}
        for key in self.by_key:
            metrics.setdefault(split_source(key)[1], []).append(key)
        ranks: dict[str, int] = {}
        for keys in metrics.values():
            for key in keys if len(keys) > 1 else []:
                ranks.setdefault(split_source(key)[0], len(ranks))
        return [
            Panel(metric if len(keys) > 1 else keys[0], [self._line(key, ranks) for key in keys])
            for metric, keys in metrics.items()
        ]

    def _line(self, key: str, ranks: Mapping[str, int]) -> Line:
        scope, _ = split_source(key)
        return Line(key, scope, ranks.get(scope) if ranks else 0, self.by_key[key])

    def _begin(self, key: str) -> PlotCurve | None:
        """Make a new curve; return None where the metric is not wanted, or is one too many."""
        if key not in self._keys or len(self.by_key) == MOST_CURVES:
            return None
        curve = self.by_key[key] = PlotCurve()
        return curve


def _merged(stretches: dict[int, Stretch], shift: int) -> dict[int, Stretch]:
    merged: dict[int, Stretch] = {}
    for at, stretch in stretches.items():
        into = merged.get(at >> shift)
        if into is None:
            merged[at >> shift] = stretch.copy()
        else:
            into.absorb(stretch)
    return merged
