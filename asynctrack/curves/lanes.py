"""Lanes: the levels of a pyramid for the records of one ring in one session. Runs anywhere.

A coarser level has only what is complete: four rows of the level below. What comes behind that is drawn from the finer levels.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from asynctrack.curves.layout import ENTRY, FACTOR, ROW, Bytes
from asynctrack.curves.native_parts import lift_entries, lift_rows
from asynctrack.curves.python_buckets import BY_TIME, place_of

# A level that has more rows gets one above it. Arbitrary.
_MOST_ROWS: Final = 16
# Where the index of the row lies in an entry.
_ROW_OF_ENTRY: Final = ENTRY.size - 8


class JournalPlace(NamedTuple):
    """A place in a journal: before a frame of a batch."""

    segment: int
    offset: int
    inner: int


class LevelSlice(NamedTuple):
    """Entries of a level, with all of its rows.

    Attributes:
        rows: of the level.
        entries: some.
    """

    rows: Bytes
    entries: memoryview


class Lane:
    """The records of one ring in one session.

    Attributes:
        ring: its id.
        session: its number, from 0.
        rows: of each level, the finest first.
        entries: of each metric, those of each level.
        steps_in_order: they have never gone back.
        times_in_order: they have never gone back.
        end: the place behind its last record.
    """

    def __init__(self, ring: int, session: int) -> None:
        self.ring: int = ring
        self.session: int = session
        self.rows: list[Bytes] = [bytearray()]
        self.entries: dict[str, list[Bytes]] = {}
        self.steps_in_order: bool = True
        self.times_in_order: bool = True
        self.end: JournalPlace = JournalPlace(0, 0, 0)

    def add(self, rows: bytes, entries: dict[str, bytes]) -> None:
        """Add rows, and the entries of each metric in them."""
        _extend(self.rows, 0, rows)
        for metric, more in entries.items():
            _extend(self.entries.setdefault(metric, []), 0, more)

    def count(self, level: int = 0) -> int:
        """Return how many rows a level has."""
        return len(self.rows[level]) // ROW.size

    def lift(self, metric: str | None = None) -> None:
        """Bring the coarser levels up to date: the rows, and the entries of a metric."""
        level = 0
        while self.count(level) > _MOST_ROWS:
            if level + 1 == len(self.rows):
                self.rows.append(bytearray())
            done, whole = self.count(level + 1), self.count(level) // FACTOR
            if whole > done:
                _extend(
                    self.rows,
                    level + 1,
                    lift_rows(self.rows[level][done * FACTOR * ROW.size : whole * FACTOR * ROW.size]),
                )
            level += 1
        levels = self.entries.get(metric, []) if metric is not None else []
        for level in range(len(self.rows) - 1 if levels else 0):
            of = levels[level]
            if level + 1 == len(levels):
                levels.append(bytearray())
            above = levels[level + 1]
            begin = _first_from(of, (_row_of(above, len(above) // ENTRY.size - 1) + 1) * FACTOR) if above else 0
            end = _first_from(of, self.count(level + 1) * FACTOR)
            if end > begin:
                _extend(levels, level + 1, lift_entries(of[begin * ENTRY.size : end * ENTRY.size]))

    def find(self, begin: float, end: float, kind: int, origin: int) -> tuple[int, int]:
        """Return the first row that may have something between two places, and the row behind the last."""
        low, high = (16, 24) if kind == BY_TIME else (0, 8)
        if not (self.times_in_order if kind == BY_TIME else self.steps_in_order):
            return 0, self.count()
        rows = self.rows[0]

        def at(offset: int) -> Callable[[int], float]:
            return lambda index: place_of(struct.unpack_from("=q", rows, index * ROW.size + offset)[0], kind, origin)

        ends, begins = at(high), at(low)
        first = _bisect(self.count(), lambda index: ends(index) < begin)
        return first, max(first, _bisect(self.count(), lambda index: begins(index) <= end))

    def slices(self, metric: str, first: int, end: int, level: int) -> Iterator[LevelSlice]:
        """Yield the entries of a metric for rows of the finest level, from levels as coarse as fits, up to one."""
        self.lift(metric)
        yield from self._slices(metric, first, end, 0, min(level, len(self.rows) - 1))

    def _slices(self, metric: str, first: int, end: int, level: int, top: int) -> Iterator[LevelSlice]:
        inner_first, inner_end = -(-first // FACTOR), end // FACTOR
        if level == top or inner_first >= inner_end:
            yield from self._slice(metric, level, first, end)
            return
        inner_end = min(inner_end, self.count(level + 1))
        if inner_first >= inner_end:
            yield from self._slice(metric, level, first, end)
            return
        yield from self._slice(metric, level, first, inner_first * FACTOR)
        yield from self._slices(metric, inner_first, inner_end, level + 1, top)
        yield from self._slice(metric, level, inner_end * FACTOR, end)

    def _slice(self, metric: str, level: int, first: int, end: int) -> Iterator[LevelSlice]:
        levels = self.entries.get(metric, ())
        if first >= end or level >= len(levels):
            return
        entries = levels[level]
        begin, behind = _first_from(entries, first), _first_from(entries, end)
        if begin < behind:
            yield LevelSlice(self.rows[level], memoryview(entries)[begin * ENTRY.size : behind * ENTRY.size])

    def place(self, row: int) -> JournalPlace:
        """Return where a row begins in the journal; where the lane ends, for the one behind the last."""
        if row >= self.count():
            return self.end
        return JournalPlace(*struct.unpack_from("=3I", self.rows[0], row * ROW.size + 32))

    def highest_step(self) -> int:
        """Return the greatest step of all rows."""
        self.lift()
        top = len(self.rows) - 1
        greatest = -(1 << 63)
        begin = 0
        for level in range(top, -1, -1):
            rows = self.rows[level]
            for index in range(begin, self.count(level)):
                greatest = max(greatest, struct.unpack_from("=q", rows, index * ROW.size + 8)[0])
            begin = self.count(level) * FACTOR
        return greatest


class OpenRow(NamedTuple):
    """The last row of a lane, which is not full yet; it is in no level.

    Attributes:
        lane: to which it belongs.
        row: as in the layout.
        entries: by metric.
    """

    lane: Lane
    row: bytes
    entries: dict[str, bytes]


def _extend(levels: list[Bytes], level: int, more: bytes) -> None:
    if level == len(levels):
        levels.append(bytearray())
    into = levels[level]
    assert isinstance(into, bytearray), "a lane of the cache does not grow"
    into += more


def _row_of(entries: Bytes, index: int) -> int:
    found: int = struct.unpack_from("=I", entries, index * ENTRY.size + _ROW_OF_ENTRY)[0]
    return found


def _first_from(entries: Bytes, row: int) -> int:
    """Find the first entry that is of a row, or of a later one."""
    count = len(entries) // ENTRY.size
    if row < count and row == _row_of(entries, row):  # as where the metric is in each row
        return row
    return _bisect(count, lambda index: _row_of(entries, index) < row)


def _bisect(count: int, is_before: Callable[[int], bool]) -> int:
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if is_before(middle):
            low = middle + 1
        else:
            high = middle
    return low
