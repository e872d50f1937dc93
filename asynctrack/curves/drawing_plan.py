"""Drawing plan: decides what of a metric is drawn from the rows of its pyramid, and which records are read again. Runs anywhere."""

from __future__ import annotations

import array
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from asynctrack.curves.lanes import Lane, OpenRow
from asynctrack.curves.layout import ENTRY, ROW, ROW_RECORDS, BucketRow, Bytes, entry_at, row_at
from asynctrack.curves.pyramid import Pyramid
from asynctrack.curves.python_buckets import BY_TIME
from asynctrack.curves.single_numbers import LaneStretch, XAxis

# So many records are read again at least, rather than drawn from rows: 1 ms.
_FEW_RECORDS: Final = 4096
# So many records are read again at most where rows are wider than what they are drawn in: half a second.
_MANY_RECORDS: Final = 1 << 20
# Of rows that are wider than so many places nothing can be seen.
_WIDE: Final = 4
# How far a float of a step or of a time in ns may be off: more than that of 64 bits.
_INEXACT: Final = 2048
# Of a row or an entry, 8 bytes each.
_WORDS: Final = ROW.size // 8


class Window(NamedTuple):
    """A stretch of the axis."""

    begin: float
    end: float


class LanePart(NamedTuple):
    """Rows of a lane that may have something in the window.

    Attributes:
        lane: the lane.
        first: the first row.
        end: the row behind the last.
    """

    lane: Lane
    first: int
    end: int


class DrawingPlan(NamedTuple):
    """Says how a metric is drawn.

    Attributes:
        parts: drawn from their rows.
        again: records that are read again; None for none, and then the open rows are drawn as they are.
    """

    parts: list[LanePart]
    again: list[LaneStretch] | None


class _WindowRows(NamedTuple):
    """Rows of a lane that may have something of a metric in the window, though they are in no order; and how wide each is."""

    lane: Lane
    rows: list[int]
    widths: list[float]


def plan_of(
    pyramid: Pyramid, key: str, opened: list[OpenRow], axis: XAxis, window: Window, buckets: int
) -> DrawingPlan:
    """Decide what of a metric is drawn from rows: nothing where they are few, and none that is wider than what it is drawn in."""
    ordered, unordered = _in_window(pyramid, key, axis, window)
    rows = sum(part.end - part.first for part in ordered) + sum(len(part.rows) for part in unordered)
    if rows <= max(buckets, _FEW_RECORDS // ROW_RECORDS):
        parts = [*ordered, *(LanePart(of.lane, *run) for of in unordered for run in _runs(of.rows))]
        return DrawingPlan([], [_stretch(part) for part in parts])
    widest = _WIDE * (window.end - window.begin) / buckets
    wide = [(of, [row for row, width in zip(of.rows, of.widths, strict=True) if width > widest]) for of in unordered]
    count = sum(len(rows) for _, rows in wide)
    if (not count and not any(_is_wide(one, axis, widest) for one in opened)) or count * ROW_RECORDS > _MANY_RECORDS:
        return DrawingPlan([*ordered, *(LanePart(of.lane, of.rows[0], of.rows[-1] + 1) for of in unordered)], None)
    narrow = [*ordered, *(part for of, rows in wide for part in _between(of, rows))]
    return DrawingPlan(narrow, [_stretch(LanePart(of.lane, *run)) for of, rows in wide for run in _runs(rows)])


def _in_window(pyramid: Pyramid, key: str, axis: XAxis, window: Window) -> tuple[list[LanePart], list[_WindowRows]]:
    """Return the rows of lanes in order, and of the others."""
    ordered, unordered = [], []
    for lane in pyramid.lanes:
        if not lane.count() or key not in lane.entries or (axis.metric is not None and axis.metric not in lane.entries):
            continue
        if axis.metric is None and is_in_order(lane, axis):
            part = LanePart(lane, *lane.find(*window, axis.kind, axis.origin))
            ordered += [part] if part.first < part.end else []
        else:
            rows = _rows_in_window(key, lane, axis, window)
            unordered += [rows] if rows.rows else []
    return ordered, unordered


def _rows_in_window(key: str, lane: Lane, axis: XAxis, window: Window) -> _WindowRows:
    lows: Sequence[float]
    highs: Sequence[float]
    index: Sequence[int]
    begin, end, scale = window.begin, window.end, 1.0
    if axis.metric is not None:
        entries = bytes(lane.entries[axis.metric][0])
        numbers = array.array("d", entries)
        lows, highs, index = numbers[::_WORDS], numbers[1::_WORDS], _rows_of(entries)
    else:
        places, at = array.array("q", bytes(lane.rows[0])), 2 if axis.kind == BY_TIME else 0
        lows, highs, index = places[at::_WORDS], places[at + 1 :: _WORDS], range(lane.count())
        scale = 1e9 if axis.kind == BY_TIME else 1.0
        # A float does not hold each integer of 64 bits.
        begin, end = begin * scale + axis.origin - _INEXACT, end * scale + axis.origin + _INEXACT
    found = [
        (row, (high - low) / scale)
        for row, low, high in zip(index, lows, highs, strict=True)
        if high >= begin and low <= end
    ]
    if found and len(lane.entries[key][0]) // ENTRY.size != lane.count():
        having = {*_rows_of(bytes(lane.entries[key][0]))}
        found = [one for one in found if one[0] in having]
    return _WindowRows(lane, [row for row, _ in found], [width for _, width in found])


def _between(of: _WindowRows, rows: list[int]) -> Iterator[LanePart]:
    """Yield what lies between some of the rows."""
    behind = of.rows[0]
    for first, end in _runs(rows):
        if behind < first:
            yield LanePart(of.lane, behind, first)
        behind = end
    if behind <= of.rows[-1]:
        yield LanePart(of.lane, behind, of.rows[-1] + 1)


def _stretch(part: LanePart) -> LaneStretch:
    return LaneStretch(part.lane.place(part.first), part.lane.place(part.end), part.lane)


def is_in_order(lane: Lane, axis: XAxis) -> bool:
    """Say if the places of a lane on an axis of steps or times have never gone back."""
    return lane.times_in_order if axis.kind == BY_TIME else lane.steps_in_order


def _is_wide(opened: OpenRow, axis: XAxis, widest: float) -> bool:
    if axis.metric is not None:
        entry = opened.entries.get(axis.metric)
        of = None if entry is None else entry_at(entry, 0)
        return of is not None and of.finite > 0 and of.high - of.low > widest
    row = row_at(opened.row, 0)
    return not is_in_order(opened.lane, axis) and _width_of(row, axis) > widest


def _width_of(row: BucketRow, axis: XAxis) -> float:
    return (row.time_high - row.time_low) / 1e9 if axis.kind == BY_TIME else row.step_high - row.step_low


def _rows_of(entries: Bytes) -> array.array[int]:
    """Return the row of each entry."""
    return array.array("I", bytes(entries))[2 * _WORDS - 2 :: 2 * _WORDS]


def _runs(rows: list[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and the row behind the last of rows that follow each other."""
    begin = 0
    for at in range(1, len(rows) + 1 if rows else 0):
        if at == len(rows) or rows[at] != rows[at - 1] + 1:
            yield rows[begin], rows[at - 1] + 1
            begin = at
