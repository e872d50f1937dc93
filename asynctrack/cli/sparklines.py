"""Sparklines: each metric's lowest, highest and last value, and its course in as many values as there is room for."""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

from asynctrack.curves.curve import CurveBuckets
from asynctrack.curves.layout import MOST_METRICS
from asynctrack.curves.run_curves import RunCurves


class Sparkline(msgspec.Struct, frozen=True):
    """Says what a metric comes to.

    Attributes:
        count: of its numbers.
        low: the lowest finite one, NaN where there is none.
        high: the highest finite one, likewise.
        last: the last, NaN and the infinities too.
    """

    count: int
    low: float
    high: float
    last: float


class Sparklines:
    """The metrics of a run.

    Args:
        curves: of the run, up to date.

    Attributes:
        by_key: each metric, in the order they came.
    """

    def __init__(self, curves: RunCurves) -> None:
        self.by_key: dict[str, Sparkline] = {}
        self._curves = curves
        for key in curves.names():
            if (of := curves.totals(key)) is not None:
                low, high = (math.nan if pick is None else pick.value for pick in (of.min, of.max))
                self.by_key[key] = Sparkline(of.count, low, high, of.last.value)

    @property
    def is_full(self) -> bool:
        """Return whether the run may have metrics that are not kept, because there are too many."""
        return len(self.by_key) >= MOST_METRICS

    def courses(self, keys: Iterable[str], most: int) -> dict[str, list[float]]:
        """Return the courses of some metrics over their steps, each in at most `most` values."""
        return {key: course_of(curve) for key, curve in self._curves.curves(keys, "step", None, None, most).items()}


def course_of(curve: CurveBuckets) -> list[float]:
    """Return a value for each bucket: its last, but the lowest and the highest of the curve where it has that; NaN where one is not finite."""
    low, high = (
        pick((value for value in of if value == value), default=0.0)
        for pick, of in ((min, curve.min), (max, curve.max))
    )
    course = []
    for least, greatest, last, broken in zip(curve.min, curve.max, curve.last, curve.not_finite, strict=True):
        extreme = greatest if greatest == high else least if least == low else last
        course.append(math.nan if broken else extreme)
    return course
