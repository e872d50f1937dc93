"""Totals: what a metric of a run comes to, exactly. Runs anywhere."""

from __future__ import annotations

import math

import msgspec


class LoggedNumber(msgspec.Struct, frozen=True):
    """A number of a metric, as it was logged.

    Attributes:
        value: the number; True and False are 1 and 0.
        step: at which it was logged.
        record: the number of its record in its process.
        ring: of that process.
    """

    value: int | float  # what reads it from the cache keeps an integer then
    step: int
    record: int
    ring: int


class MetricTotals(msgspec.Struct, frozen=True):
    """The numbers of a metric.

    Attributes:
        count: of all, those that are not finite included.
        not_finite: how many are NaN or infinite.
        first: in the order of the journal.
        last: in the order of the journal.
        min: the least of the finite ones, the first time; None where there is none.
        max: the greatest of the finite ones, the first time.
        sum: of the finite ones, without the rounding.
        rounding: what `sum` lacks.
    """

    count: int
    not_finite: int
    first: LoggedNumber
    last: LoggedNumber
    min: LoggedNumber | None
    max: LoggedNumber | None
    sum: float
    rounding: float

    @property
    def mean(self) -> float | None:
        """Return the mean of the finite numbers; None where there is none."""
        finite = self.count - self.not_finite
        if not finite or self.min is None or self.max is None:
            return None
        total = self.sum + self.rounding if math.isfinite(self.rounding) else self.sum
        return clamped(total / finite, self.min.value, self.max.value)

    def followed_by(self, other: MetricTotals) -> MetricTotals:
        """Return the totals of these numbers and those of another part of the run, which came later."""
        low, high = self.min or other.min, self.max or other.max
        if low is not None and other.min is not None and other.min.value < low.value:
            low = other.min
        if high is not None and other.max is not None and other.max.value > high.value:
            high = other.max
        count, not_finite = self.count + other.count, self.not_finite + other.not_finite
        total, rounding = self.sum + other.sum, self.rounding + other.rounding
        return MetricTotals(count, not_finite, self.first, other.last, low, high, total, rounding)


def clamped(mean: float, low: float, high: float) -> float:
    """Return a mean that lies where it has to: a sum may be beyond a float, and is rounded."""
    if mean - mean != 0:
        return low / 2 + high / 2
    return min(max(mean, low), high)
