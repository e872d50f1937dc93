"""Python buckets: sums records up as `_native/buckets.c` does, and takes single numbers as `_native/points.c` does. Runs anywhere.

It is what these parts of the core have to do, and does it where there is no core.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final

from asynctrack.curves.layout import ENTRY, ROW

_INT64: Final = 1 << 63
_PAIR: Final = struct.Struct("=2d")

Pairs = list[tuple[str, Any]]
Pick = tuple[float, int, int, int]
Taker = Callable[[int, int, Pairs], None]

BY_STEP, BY_TIME = 0, 1


class PythonScan:
    """Leaves out what is cut of each record, notes the least steps, and hands over the rest.

    Attributes:
        taker: gets step, time and pairs of each record.
        number: of the record that is put next.
        begins: where its frame begins in the batch.
    """

    def __init__(self) -> None:
        self.taker: Taker = lambda step, time_ns, pairs: None
        self.number: int = 0
        self.begins: int = 0
        self._firsts: dict[str, int] = {}
        self._cuts: Mapping[str, int] = {}
        self._cut = [0, 0]

    @property
    def cut(self) -> tuple[int, int]:
        """Return how many records were left out, and how many values of others."""
        return self._cut[0], self._cut[1]

    def begin_session(self, cuts: Mapping[str, int], stores: bool, /) -> None:
        """Begin a session, with the steps from which on a key is left out."""
        self._firsts = {}
        self._cuts = cuts

    def firsts(self) -> dict[str, int]:
        """Return the least step of each key in this session."""
        return self._firsts

    def put(self, step: int, time_ns: int, pairs: Pairs, /) -> None:
        """Take a record."""
        for name, _ in pairs:
            if (first := self._firsts.get(name)) is None or step < first:
                self._firsts[name] = step
        kept = [(name, value) for name, value in pairs if name not in self._cuts or step < self._cuts[name]]
        if kept:
            self._cut[1] += len(pairs) - len(kept)
            self.taker(step, time_ns, kept)
        elif pairs:
            self._cut[0] += 1


class _Metric:
    def __init__(self, name: str) -> None:
        self.name = name
        self.count = self.broken = 0
        self.total = self.lost = 0.0
        self.first: Pick | None = None
        self.last: Pick | None = None
        self.low: Pick | None = None
        self.high: Pick | None = None

    def add(self, value: float, number: float, found: tuple[int, int, int]) -> None:
        pick = (value, *found)
        self.last = pick
        self.first = self.first or pick
        self.count += 1
        if number - number != 0:
            self.broken += 1
            return
        if self.low is None or value < self.low[0]:
            self.low = pick
        if self.high is None or self.high[0] < value:
            self.high = pick
        total = self.total + number
        larger = abs(self.total) >= abs(number)
        self.lost += (self.total - total) + number if larger else (number - total) + self.total
        self.total = total


class _Lane:
    def __init__(self) -> None:
        self.rows = 0
        self.steps_in_order = self.times_in_order = True
        self.last: tuple[int, int] | None = None
        self.row: list[int] = []  # open, as `layout.BucketRow`
        self.entries: dict[int, list[Any]] = {}  # of the open row


class PythonBuckets:
    """Sums up the records that a scan reads.

    Args:
        scan: gives them.
        records: of a row.
        most: metrics, at most.
    """

    def __init__(self, scan: PythonScan, records: int, most: int) -> None:
        self._scan = scan
        self._records = records
        self._most = most
        self._metrics: list[_Metric] = []
        self._indices: dict[str, int] = {}
        self._lanes: list[_Lane] = []
        self._current = 0
        self._at = (0, 0)
        self._rows: list[bytes] = []
        self._entries: dict[int, list[bytes]] = {}

    def begin(self, lane: int, segment: int, offset: int, /) -> None:
        """Take the records that come next for those of a lane, an old or the next new one, in a batch of the journal."""
        if self._rows or not 0 <= lane <= len(self._lanes):
            raise ValueError(f"expected that all is taken, and a lane up to {len(self._lanes)}; got {lane}")
        if lane == len(self._lanes):
            self._lanes.append(_Lane())
        self._current, self._at = lane, (segment, offset)
        self._scan.taker = self._take

    def take(self) -> tuple[bytes, dict[int, bytes]] | None:
        """Return the rows that are sealed since, and for each metric its entries; None where no row is."""
        if not self._rows:
            return None
        found = b"".join(self._rows), {metric: b"".join(entries) for metric, entries in self._entries.items()}
        self._rows, self._entries = [], {}
        return found

    def order(self, lane: int, /) -> tuple[bool, bool]:
        """Return if the steps of a lane, and if its times, have never gone back."""
        of = self._lanes[lane]
        return of.steps_in_order, of.times_in_order

    def open(self, metrics: tuple[int, ...], /) -> list[tuple[int, bytes, dict[int, bytes]]]:
        """Return for each lane with an open row the lane, the row, and the entries of these metrics, of all where there are none."""
        return [
            (
                index,
                ROW.pack(*of.row),
                {m: ENTRY.pack(*entry, 0, 0) for m, entry in of.entries.items() if not metrics or m in metrics},
            )
            for index, of in enumerate(self._lanes)
            if of.row
        ]

    def totals(self, metric: int, /) -> tuple[int, int, float, float, Pick, Pick, Pick | None, Pick | None]:
        """Return count, count of the not finite, sum and what it has lost, and the first, last, least and greatest number, each with step, number and lane."""
        of = self._metrics[metric]
        assert of.first is not None and of.last is not None
        return of.count, of.broken, of.total, of.lost, of.first, of.last, of.low, of.high

    def names(self, after: int, /) -> list[str]:
        """Return the names of the metrics from number `after` on."""
        return [metric.name for metric in self._metrics[after:]]

    def _take(self, step: int, time_ns: int, pairs: Pairs) -> None:
        lane = self._lanes[self._current]
        has_numbers = False
        for name, value in pairs:
            if isinstance(value, int | float) and (index := self._know(name)) is not None:
                has_numbers = True
                number = float(value)
                _add(lane.entries.setdefault(index, [math.inf, -math.inf, 0.0, math.nan, 0, 0]), number)
                plain = int(value) if isinstance(value, int) else value
                self._metrics[index].add(plain, number, (step, self._scan.number, self._current))
        if not has_numbers:
            return
        before = lane.last or (step, time_ns)
        lane.steps_in_order &= step >= before[0]
        lane.times_in_order &= time_ns >= before[1]
        lane.last = step, time_ns
        row = lane.row
        if not row:
            row = lane.row = [step, step, time_ns, time_ns, *self._at, self._scan.begins, 0]
        row[:4] = [min(step, row[0]), max(step, row[1]), min(time_ns, row[2]), max(time_ns, row[3])]
        row[7] += 1
        if row[7] == self._records:
            self._seal(lane)

    def _seal(self, lane: _Lane) -> None:
        self._rows.append(ROW.pack(*lane.row))
        for index, entry in lane.entries.items():
            self._entries.setdefault(index, []).append(ENTRY.pack(*entry, lane.rows, 0))
        lane.rows += 1
        lane.row, lane.entries = [], {}

    def _know(self, name: str) -> int | None:
        index = self._indices.get(name)
        if index is None and len(self._metrics) < self._most:
            index = self._indices[name] = len(self._metrics)
            self._metrics.append(_Metric(name))
        return index


def _add(entry: list[Any], number: float) -> None:
    """Add a number to an entry."""
    if number - number != 0:
        entry[5] += 1
        return
    entry[0] = min(number, entry[0]) if number != entry[0] else entry[0]
    entry[1] = max(number, entry[1]) if number != entry[1] else entry[1]
    entry[2] += number
    entry[3] = number
    entry[4] += 1


class PythonPoints:
    """Takes single numbers from the records that a scan reads, each with its place on an axis.

    Args:
        scan: gives the records.
        keys: the metrics to take.
        against: the metric that is the axis; None for steps or times.
        kind: `BY_STEP` or `BY_TIME`.
        origin: what is 0 on the axis.
        begin: the first place that is wanted.
        end: the last.
    """

    def __init__(
        self,
        scan: PythonScan,
        keys: tuple[str, ...],
        against: str | None,
        kind: int,
        origin: int,
        begin: float,
        end: float,
    ) -> None:
        self._found: dict[str, list[bytes]] = {key: [] for key in keys}
        self._keys = keys
        self._against = against
        self._kind = kind
        self._origin = origin
        self._begin, self._end = begin, end
        scan.taker = self._take

    def take(self, key: int, /) -> bytes:
        """Return pairs of place and number of the key of this index."""
        return b"".join(self._found[self._keys[key]])

    def _take(self, step: int, time_ns: int, pairs: Pairs) -> None:
        x = self._place(step, time_ns, pairs)
        if x is None or not self._begin <= x <= self._end:
            return
        for name, value in pairs:
            if name in self._found and isinstance(value, int | float):
                self._found[name].append(_PAIR.pack(x, value))

    def _place(self, step: int, time_ns: int, pairs: Pairs) -> float | None:
        if self._against is None:
            return place_of(time_ns if self._kind == BY_TIME else step, self._kind, self._origin)
        numbers = [float(value) for name, value in pairs if name == self._against and isinstance(value, int | float)]
        return next((number for number in reversed(numbers) if number - number == 0), None)


def place_of(value: int, kind: int, origin: int) -> float:
    """Convert a step or a time to its place on the axis."""
    difference = value - origin
    place = float(difference) if -_INT64 <= difference < _INT64 else float(value) - float(origin)
    return place / 1e9 if kind == BY_TIME else place
