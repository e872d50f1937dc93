"""The curves of the demo's trials, taken from a run's records and thinned to one bucket a pixel.

A bucket keeps the smallest and the largest value that fell into it, so no spike gets lost; memory is that of the
buckets, however long the run.
"""

from __future__ import annotations

from collections.abc import Iterable

from asynctrack.records.codec import Record

__all__ = ["TrialCurve", "TrialCurves", "curves_of"]


class TrialCurve:
    """A curve from `first` to `last` (both included) in `buckets` buckets of equal width."""

    def __init__(self, first: float, last: float, buckets: int) -> None:
        self.low: list[float | None] = [None] * buckets
        self.high: list[float | None] = [None] * buckets
        self._first = first
        self._per_unit = buckets / (last - first) if last > first else 0.0

    def add(self, x: float, y: float) -> None:
        """Take one point."""
        k = min(int((x - self._first) * self._per_unit), len(self.low) - 1)
        low, high = self.low[k], self.high[k]
        self.low[k] = y if low is None or y < low else low
        self.high[k] = y if high is None or y > high else high

    def spans(self) -> list[tuple[int, float, float]]:
        """The buckets that have points: number, smallest and largest value."""
        return [
            (k, low, high)
            for k, (low, high) in enumerate(zip(self.low, self.high, strict=True))
            if low is not None and high is not None
        ]


class TrialCurves:
    """What is drawn of one trial."""

    def __init__(self, steps: int, buckets: int) -> None:
        self.length = TrialCurve(0, steps, buckets)
        self.best = TrialCurve(0, steps, buckets)
        self.temperature = TrialCurve(0, steps, buckets)

    def add(self, step: int, data: dict[str, float]) -> None:
        """Take one record."""
        self.length.add(step, data["length"])
        self.best.add(step, data["best"])
        self.temperature.add(step, data["temperature"])


def curves_of(records: Iterable[Record], steps: int, buckets: int) -> dict[int, TrialCurves]:
    """The curves of each trial, all of them over `steps` steps."""
    trials: dict[int, TrialCurves] = {}
    for record in records:
        trial = int(record.data["trial"])
        if trial not in trials:
            trials[trial] = TrialCurves(steps, buckets)
        trials[trial].add(record.step, record.data)
    return trials
