"""Curves: a run's numbers, downsampled to what a picture can show. Runs where they are drawn.

A curve is kept in stretches of 2**k steps, each with its least, greatest and mean value. When they are too many k grows by one, and two become one. So memory
does not grow with the run, no spike gets lost, and the curve is the same in whatever order its values come.
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
# Curves of a run; one that makes up a name per record must not fill the memory. Arbitrary.
MOST_CURVES: Final = 200

NO_NUMBERS: Final = "no number to draw"
TOO_MANY: Final = f"of more than {MOST_CURVES} metrics"


class Stretch:
    """What became of a curve between two of its steps.

    Attributes:
        begin: the first step with a value.
        end: the last.
        low: the least value that is finite.
        high: the greatest.
        total: the sum of those that are finite,
        count: and how many they are.
        broken: the first step whose value is not finite.
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
        """Take in a value."""
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
        """Take in a neighbour."""
        self.begin, self.end = min(self.begin, other.begin), max(self.end, other.end)
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.total, self.count = self.total + other.total, self.count + other.count
        broken = [step for step in (self.broken, other.broken) if step is not None]
        self.broken = min(broken, default=None)

    @property
    def mean(self) -> float:
        """Of the values that are finite, NaN where none is."""
        if not self.count:
            return math.nan
        mean = self.total / self.count
        return mean if math.isfinite(mean) else self.low / 2 + self.high / 2  # the sum is too large

    def copy(self) -> Stretch:
        other = Stretch(self.begin)
        other.absorb(self)
        return other


class Course(NamedTuple):
    """A curve as it is drawn, point by point; a mean is NaN where no value is finite.

    Attributes:
        steps: of the points.
        means: what lies between lows and highs.
        lows: the least values.
        highs: the greatest.
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
    """One metric, of which at most so many stretches are kept: 2 or more, since steps below 0 never meet those above."""

    __slots__ = ("_most", "_shift", "_stretches", "count")

    def __init__(self, most: int = MOST_STRETCHES) -> None:
        self.count: int = 0
        self._most = most
        self._shift = 0
        self._stretches: dict[int, Stretch] = {}

    def __len__(self) -> int:
        """Stretches that are kept."""
        return len(self._stretches)

    @property
    def greatest(self) -> float:
        """The greatest value that is finite, minus infinity where none is."""
        return max(stretch.high for stretch in self._stretches.values())

    def add(self, step: int, value: float) -> None:
        """Take a value."""
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
        """The curve in at most so many points, 2 or more."""
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
        scope: that it is from, "" for none.
        rank: of the scope among those that share a panel with others, which is its colour in all panels; None where it never does.
        curve: what is drawn.
    """

    key: str
    scope: str
    rank: int | None
    curve: PlotCurve


class Panel(NamedTuple):
    """What is drawn in one pair of axes: a metric of each scope that has it. Its title is the whole name where only one has."""

    title: str
    lines: list[Line]


class PlotCurves:
    """The curves of a run.

    Args:
        keys: the metrics to keep.

    Attributes:
        by_key: in the order they came.
    """

    def __init__(self, keys: MetricSelection) -> None:
        self.by_key: dict[str, PlotCurve] = {}
        self._keys = keys

    def take(self, records: Iterable[Record]) -> dict[str, int]:
        """Take records; how many of them nothing is drawn of, by reason."""
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
        """What is to be drawn: metrics in the order they came."""
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
        """A new curve; None where the metric is not wanted, or one too many."""
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
