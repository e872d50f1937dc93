"""Sparklines: each metric's lowest, highest and last value, and its course in a fixed number of points, however long the run."""

from __future__ import annotations

import math
from typing import Any, Final

from asynctrack.records.plain import numbers_in

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
        self.low, self.high = min(self.low, following.low), max(self.high, following.high)
        self.last, self.broken = following.last, self.broken or following.broken

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

    def _add(self, key: str, value: float) -> None:
        curve = self.by_key.get(key)
        if curve is None:
            if len(self.by_key) == MOST:
                self.omitted += 1
                return
            curve = self.by_key[key] = Sparkline()
        curve.add(value)
