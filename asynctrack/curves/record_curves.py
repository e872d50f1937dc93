"""Record curves: the curves of a run of which records are left, but no journal. Runs anywhere.

They are read once: what has lost its journal does not go on. All numbers are kept, 16 bytes each.
"""

from __future__ import annotations

import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from asynctrack.curves.cuts import Cuts
from asynctrack.curves.drawing import DrawnMetric, of_points
from asynctrack.curves.drawing_plan import Window
from asynctrack.curves.layout import MOST_METRICS, ROW_RECORDS
from asynctrack.curves.media_counts import MediaCounts
from asynctrack.curves.pyramid import Watch
from asynctrack.curves.python_buckets import BY_STEP, BY_TIME, PythonBuckets, PythonScan, place_of
from asynctrack.curves.record_feed import numbers_of, within_64_bits
from asynctrack.curves.run_curves import RunCurves
from asynctrack.curves.session_begins import SessionBegin
from asynctrack.curves.single_numbers import XAxis
from asynctrack.curves.totals import LoggedNumber, MetricTotals
from asynctrack.journal.reader import Damage
from asynctrack.records.codec import Record, flatten, string_keys

# Of a run without a journal, the ring is not known.
_NO_RING: Final = 0


class _Numbers:
    """The numbers of a metric, each with the row of its record."""

    def __init__(self, index: int) -> None:
        self.index = index  # of the metric
        self.rows = array.array("Q")
        self.values = array.array("d")


class RecordCurves(RunCurves):
    """The curves of some records. For any thread.

    Args:
        run: the directory of the run that they are of.
        records: reads them.
    """

    def __init__(self, run: Path, records: Callable[[], Iterable[Record]]) -> None:
        super().__init__(run, "all", native=False)
        self._records: Callable[[], Iterable[Record]] | None = records
        self._scan = PythonScan()
        self._buckets = PythonBuckets(self._scan, ROW_RECORDS, MOST_METRICS)
        self._media = MediaCounts()
        self._steps, self._times = array.array("q"), array.array("q")
        self._by_name: dict[str, _Numbers] = {}

    def grow(
        self,
        fixed: Mapping[int, int] | None = None,
        *,
        cuts: Cuts | None = None,
        watch: Watch | None = None,
    ) -> list[Damage]:
        """Read the records, the first time."""
        with self._lock:
            records, self._records = self._records, None
            self._buckets.begin(0, 0, 0)
            for record in () if records is None else records():
                self._take(record)
                self._buckets.take()
            return []

    @property
    def media(self) -> MediaCounts:
        """Return the images and the like among the records."""
        return self._media

    def names(self) -> list[str]:
        """Return the metrics in the order of their first numbers."""
        return list(self._by_name)

    def totals(self, key: str) -> MetricTotals | None:
        """Return what a metric comes to; None where it has no number."""
        if (of := self._by_name.get(key)) is None:
            return None
        count, broken, total, lost, *picks = self._buckets.totals(of.index)
        first, last, low, high = (None if pick is None else LoggedNumber(*pick[:3], _NO_RING) for pick in picks)
        assert first is not None and last is not None
        return MetricTotals(count, broken, first, last, low, high, total, lost)

    def memory_bytes(self) -> int:
        """Return about how much memory it takes."""
        return sum(16 * len(of.rows) for of in self._by_name.values()) + 16 * len(self._steps)

    def sessions(self) -> list[SessionBegin]:
        """Return one session: nothing says when the run was resumed."""
        return [SessionBegin(min(self._steps), min(self._times))] if self._steps else []

    def _take(self, record: Record) -> None:
        values = list(flatten(string_keys(record.data)))
        self._media.add(values)
        step, time_ns = within_64_bits(record.step), within_64_bits(record.time_ns)
        row, self._scan.number = len(self._steps), record.number
        pairs = numbers_of(values)
        self._steps.append(step)
        self._times.append(time_ns)
        self._scan.put(step, time_ns, pairs)
        known = self._by_name
        for name, value in pairs:
            if value is None or (name not in known and len(known) == MOST_METRICS):
                continue
            numbers = known.setdefault(name, _Numbers(len(known)))
            numbers.rows.append(row)
            numbers.values.append(value)

    def _axis(self, x: str) -> XAxis:
        if x == "step":
            return XAxis(x, BY_STEP, 0, None)
        if x in ("time", "relative"):
            return XAxis(x, BY_TIME, min(self._times, default=0) if x == "relative" else 0, None)
        return XAxis(x, BY_STEP, 0, x)

    def _extents_of(self, keys: Iterable[str], axis: XAxis) -> dict[str, Window | None]:
        places = {key: [x for x, _ in self._points(key, axis)] for key in keys}
        return {key: Window(min(of), max(of)) if of else None for key, of in places.items()}

    def _draw(self, windows: Mapping[str, Window], axis: XAxis, buckets: int) -> dict[str, DrawnMetric]:
        found = {}
        for key, window in windows.items():
            points = array.array("d")
            for x, y in self._points(key, axis):
                if window.begin <= x <= window.end:
                    points.extend((x, y))
            found[key] = of_points(points.tobytes(), window, buckets)
        return found

    def _points(self, key: str, axis: XAxis) -> Iterator[tuple[float, float]]:
        """Yield the numbers of a metric, each with its place."""
        of = self._by_name.get(key)
        if of is None:
            return
        if axis.metric is not None:
            against = self._by_name.get(axis.metric)
            places = {} if against is None else dict(zip(against.rows, against.values, strict=True))
            places = {row: x for row, x in places.items() if x - x == 0}
            yield from ((places[row], y) for row, y in zip(of.rows, of.values, strict=True) if row in places)
            return
        rows = self._times if axis.kind == BY_TIME else self._steps
        yield from ((place_of(rows[row], axis.kind, axis.origin), y) for row, y in zip(of.rows, of.values, strict=True))
