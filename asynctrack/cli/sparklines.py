"""Sparklines: each metric's lowest, highest and last value, and its course in a fixed number of points, however long the run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from asynctrack.reading.scan import FLOAT, INT
from asynctrack.records.plain import numbers_in

if TYPE_CHECKING:
    from asynctrack._native import Scan

# Points a curve is kept in: between this and half of it, when two neighbours become one.
POINTS: Final = 96
# Metrics that are kept; a run that makes up a name per record must not fill the memory. Arbitrary.
MOST: Final = 2_000


class Point:
    """A stretch of a curve: its lowest, highest and last value, and a mark where one of its values was not finite."""

    __slots__ = ("broken", "high", "last", "low")

    def __init__(self) -> None:
        self.low, self.high, self.last, self.broken = math.inf, -math.inf, math.nan, False

    def absorb(self, following: Point) -> None:
        """Add the stretch that follows."""
        self.take(following.low, following.high, following.last, following.broken)

    def take(self, low: float, high: float, last: float, broken: bool) -> None:  # as `Scan.extremes` has them
        """Add what follows: its lowest, highest and last value, and if one was not finite."""
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.last, self.broken = last, self.broken or broken

    @property
    def shown(self) -> float:
        """Return the value that a curve shows for it: the last, or NaN where one was not finite."""
        return math.nan if self.broken else self.last


class Sparkline:
    """One metric, value by value. When the points are used up, each two neighbours become one."""

    __slots__ = ("_each", "_missing", "_points", "count")

    def __init__(self) -> None:
        self.count = 0
        self._points: list[Point] = []
        self._each = 1  # values in a point
        self._missing = 0  # values until the last point has that many

    def add(self, value: float) -> None:
        """Add the next value."""
        self.count += 1
        if not self._missing:
            self._begin()
        self._missing -= 1
        point = self._points[-1]
        point.last = value
        if value < point.low:
            point.low = value
        if value > point.high:
            point.high = value
        if value - value != 0:  # NaN and the infinities
            point.broken = True

    def add_column(self, scan: Scan, index: int, count: int) -> None:
        """Add the values of a column that has nothing but numbers."""
        at = 0
        while at < count:
            if not self._missing:
                self._begin()
            size = min(self._missing, count - at)
            self._points[-1].take(*scan.extremes(index, at, size))
            self._missing -= size
            at += size
        self.count += count

    @property
    def low(self) -> float:
        """Return the lowest value, NaN where there is no other."""
        low = min(point.low for point in self._points)
        return low if low <= max(point.high for point in self._points) else math.nan

    @property
    def high(self) -> float:
        """Return the highest value, NaN where there is no other."""
        high = max(point.high for point in self._points)
        return high if min(point.low for point in self._points) <= high else math.nan

    @property
    def last(self) -> float:
        """Return the last value, NaN too."""
        return self._points[-1].last

    def course(self, most: int) -> list[float]:
        """Return its course in at most `most` values; NaN where one was not finite."""
        count = len(self._points)
        if count <= most:
            return [point.shown for point in self._points]
        merged = []
        for at in range(most):
            stretch = self._points[at * count // most : (at + 1) * count // most]
            merged.append(math.nan if any(point.broken for point in stretch) else stretch[-1].last)
        return merged

    def _begin(self) -> None:
        if len(self._points) == POINTS:
            for first, second in zip(self._points[::2], self._points[1::2], strict=True):
                first.absorb(second)
            del self._points[1::2]
            self._each *= 2
        self._points.append(Point())
        self._missing = self._each


class Sparklines:
    """The curves of a run's numbers.

    Attributes:
        by_key: each metric's, in the order they came.
        omitted: values whose metric is not kept, because there are too many.
    """

    def __init__(self) -> None:
        self.by_key: dict[str, Sparkline] = {}
        self.omitted = 0

    def add(self, data: dict[str, Any]) -> None:
        """Add the numbers of a record's data."""
        for key, value in data.items():
            kind = type(value)
            if kind is float or kind is int:
                self._add(key, value)
            elif kind is dict:
                for inner, number in numbers_in(value, f"{key}/", truths=False):
                    self._add(inner, number)

    def add_scan(self, scan: Scan) -> None:
        """Add the numbers of the rows that a scan has."""
        names = scan.names()
        for _, index in sorted((place, index) for index in range(len(names)) if (place := scan.first_number(index))):
            key, (tags, count, *_) = names[index], scan.describe(index)
            if tags & ~(INT | FLOAT):
                for value in scan.objects_of(index):
                    if type(value) is float or type(value) is int:
                        self._add(key, value)
            elif (curve := self._curve(key)) is None:
                self.omitted += count
            else:
                curve.add_column(scan, index, count)

    def _add(self, key: str, value: float) -> None:
        curve = self._curve(key)
        if curve is None:
            self.omitted += 1
        else:
            curve.add(value)

    def _curve(self, key: str) -> Sparkline | None:
        """Find or begin a metric's curve; None where there are too many."""
        curve = self.by_key.get(key)
        if curve is None and len(self.by_key) < MOST:
            curve = self.by_key[key] = Sparkline()
        return curve
