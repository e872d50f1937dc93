"""Metric stats: count, first, last, least, greatest and mean of the numbers of each metric of a run. Runs anywhere."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from asynctrack._system.native import is_native
from asynctrack.curves import saved
from asynctrack.curves.totals import MetricTotals, clamped
from asynctrack.errors import AsynctrackError
from asynctrack.journal.manifest import UNREADABLE
from asynctrack.journal.reader import Reader
from asynctrack.reading.history import History
from asynctrack.reading.reader import RunReader
from asynctrack.reading.repeats import find_repeats
from asynctrack.reading.scan import Batches, blocks
from asynctrack.reading.scanned_metrics import as_it_is
from asynctrack.records.codec import Record, flatten
from asynctrack.records.column_types import as_float
from asynctrack.records.expressions import How

if TYPE_CHECKING:
    from asynctrack._native import Scan

# Metrics that are kept: a run may make up a name per record.
_MOST_METRICS: Final = 10_000


class MetricStats(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of one metric of a run.

    Attributes:
        count: of the numbers, those that are not finite included; True and False are 1 and 0.
        first: as it was logged.
        last: as it was logged.
        min: the least of the finite ones; None where there is none.
        max: the greatest of the finite ones.
        mean: of the finite ones.
        first_step: of the first.
        last_step: of the last.
        min_step: of the least, the first time.
        max_step: of the greatest, the first time.
        not_finite: how many are NaN or infinite.
    """

    count: int
    first: float
    last: float
    min: float | None
    max: float | None
    mean: float | None
    first_step: int
    last_step: int
    min_step: int | None
    max_step: int | None
    not_finite: int = 0

    def value(self, how: How) -> float | None:
        """Return one of the numbers by its name."""
        found: float | None = getattr(self, how)
        return found


def stats_of(run: Path, history: History = "last") -> dict[str, MetricStats]:
    """Return the stats of each metric of a run, in memory that does not grow with it; of nothing where it cannot be read.

    Args:
        run: its directory.
        history: "last" leaves out what was logged again after a resume; "all" does not.
    """
    try:
        reader = RunReader(run)
        if (found := _kept_stats(reader, history)) is not None:
            return found
        if is_native and (run / "journal").is_dir():
            with contextlib.suppress(OverflowError):  # a step that only Python can hold
                return _scanned_stats(reader, history)
        return stats_of_records(reader.records(history))
    except (AsynctrackError, OSError, *UNREADABLE):  # damaged bytes lead anywhere
        return {}


def stats_of_records(records: Iterable[Record]) -> dict[str, MetricStats]:
    """Return the stats of the numbers in records."""
    return stats_of_numbers((key, record.step, value) for record in records for key, value in flatten(record.data))


def stats_of_numbers(values: Iterable[tuple[str, int, Any]]) -> dict[str, MetricStats]:
    """Return the stats of the numbers among values, each of which comes with its name and step."""
    tallies: dict[str, NumberTally] = {}
    for key, step, value in values:
        if isinstance(value, int | float):
            tally = tallies.get(key)
            if tally is None:
                if len(tallies) == _MOST_METRICS:
                    continue
                tally = tallies[key] = NumberTally()
            tally.add(step, value)
    return {key: tally.stats() for key, tally in tallies.items()}


class NumberTally:
    """Adds up the numbers of one metric, as they come."""

    def __init__(self) -> None:
        self.count = self.not_finite = 0
        self.first: tuple[float, int] | None = None
        self.last: tuple[float, int] = (math.nan, 0)
        self.low: tuple[float, int] | None = None
        self.high: tuple[float, int] | None = None
        self.total = self.lost = 0.0

    def add(self, step: int, value: float) -> None:
        """Take the next number; True and False are 1 and 0."""
        self.count += 1
        self.last = (+value, step)
        self.first = self.first or self.last
        if not _is_finite(value):
            self.not_finite += 1
            return
        if self.low is None or value < self.low[0]:
            self.low = self.last
        if self.high is None or value > self.high[0]:
            self.high = self.last
        self._sum(as_float(value))

    def add_column(self, scan: Scan, index: int) -> None:
        """Take the numbers of a column of a scan."""
        found = scan.tally(index, self.total, self.lost)
        if found is None:
            for step, value in zip(memoryview(scan.steps_of(index)), scan.objects_of(index), strict=True):
                if isinstance(value, int | float):
                    self.add(step, value)
            return
        count, not_finite, first, last, low, high, self.total, self.lost = found
        self.count += count
        self.not_finite += not_finite
        self.first = self.first or first
        self.last = last or self.last
        if low is not None and (self.low is None or low[0] < self.low[0]):
            self.low = low
        if high is not None and (self.high is None or high[0] > self.high[0]):
            self.high = high

    def stats(self) -> MetricStats:
        """Return what was added up; there must be a number."""
        assert self.first is not None
        low, high = self.low or (None, None), self.high or (None, None)
        finite = self.count - self.not_finite
        return MetricStats(
            count=self.count,
            first=self.first[0],
            last=self.last[0],
            min=low[0],
            max=high[0],
            mean=self._mean(finite, low[0], high[0]),
            first_step=self.first[1],
            last_step=self.last[1],
            min_step=low[1],
            max_step=high[1],
            not_finite=self.not_finite,
        )

    def _sum(self, value: float) -> None:
        """Add a number to the sum, and what that rounds off to `lost`: Neumaier's way."""
        total = self.total + value
        larger, smaller = (self.total, value) if abs(self.total) >= abs(value) else (value, self.total)
        self.lost += (larger - total) + smaller
        self.total = total

    def _mean(self, finite: int, low: float | None, high: float | None) -> float | None:
        if not finite or low is None or high is None:
            return None
        total = self.total + self.lost if math.isfinite(self.lost) else self.total
        return clamped(total / finite, as_float(low), as_float(high))


def _kept_stats(reader: RunReader, history: History) -> dict[str, MetricStats] | None:
    """Return the stats by the curves of a run that were kept in the user's cache, and what has come since; None where nothing was."""
    if not saved.is_kept(reader.path, history):
        return None
    curves = reader._run_curves(history)
    if curves.is_rounded:
        return None
    return {name: _of_totals(of) for name in curves.names() if (of := curves.totals(name)) is not None}


def _of_totals(of: MetricTotals) -> MetricStats:
    return MetricStats(
        count=of.count,
        first=of.first.value,
        last=of.last.value,
        min=None if of.min is None else of.min.value,
        max=None if of.max is None else of.max.value,
        mean=of.mean,
        first_step=of.first.step,
        last_step=of.last.step,
        min_step=None if of.min is None else of.min.step,
        max_step=None if of.max is None else of.max.step,
        not_finite=of.not_finite,
    )


def _scanned_stats(reader: RunReader, history: History) -> dict[str, MetricStats]:
    """Return what `stats_of_records` does, by the native core.

    Raises:
        OverflowError: the core cannot hold a step.
    """
    run = reader.path
    repeats = find_repeats(run, reader.manifest(), lambda: _batches(run)) if history == "last" else None
    tallies: dict[str, NumberTally] = {}
    for block in blocks(run, _batches(run), as_it_is, repeats=repeats):
        for index, name in enumerate(block.names()):
            if name in tallies or len(tallies) < _MOST_METRICS:
                tallies.setdefault(name, NumberTally()).add_column(block, index)
    return {name: tally.stats() for name, tally in tallies.items() if tally.count}


def _batches(run: Path) -> Batches:
    with contextlib.closing(Reader(run / "journal")) as reader:
        for batch in reader:
            yield reader, batch


def _is_finite(value: float) -> bool:
    return isinstance(value, int) or math.isfinite(value)
