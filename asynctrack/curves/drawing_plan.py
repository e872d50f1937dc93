"""Drawing plan: decides what of a metric is drawn from the rows of its pyramid, and which records are read again. Runs anywhere."""

from __future__ import annotations

import array
import operator
from collections.abc import Iterator
from typing import Final, NamedTuple

from asynctrack.curves.lanes import Lane, OpenRow
from asynctrack.curves.layout import ENTRY, ROW, ROW_RECORDS, BucketEntry, BucketRow, Bytes, entry_at, row_at
from asynctrack.curves.pyramid import Pyramid
from asynctrack.curves.python_buckets import BY_TIME
from asynctrack.curves.single_numbers import LaneStretch, XAxis

# So many records are read again at least, rather than drawn from rows: 1 ms.
_FEW_RECORDS: Final = 4096
# So many records are read again at most where rows are wider than what they are drawn in: half a second.
_MANY_RECORDS: Final = 1 << 20
# Of rows that are wider than so many places nothing can be seen.
_WIDE: Final = 4
# Entries of an axis that are looked at for those in the window; of more, all are drawn from: 10 ms.
_MOST_LOOKED_AT: Final = 20_000
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


def plan_of(
    pyramid: Pyramid, key: str, opened: list[OpenRow], axis: XAxis, window: Window, buckets: int
) -> DrawingPlan:
    """Decide what of a metric is drawn from rows: nothing where they are few, and none that is wider than what it is drawn in."""
    parts = _parts(pyramid, key, axis, window)
    rows = sum(part.end - part.first for part in parts)
    if rows <= max(buckets, _FEW_RECORDS // ROW_RECORDS):
        again = [LaneStretch(part.lane.place(part.first), part.lane.place(part.end), part.lane) for part in parts]
        return DrawingPlan([], again)
    widest = _WIDE * (window.end - window.begin) / buckets
    narrow, again, count = list[LanePart](), list[LaneStretch](), 0
    for part in parts:
        if axis.metric is None and is_in_order(part.lane, axis):
            narrow.append(part)
            continue
        wide = _wide_rows(key, part, axis, widest)
        count += len(wide)
        behind = part.first
        for first, end in _runs(wide):
            narrow += [LanePart(part.lane, behind, first)] if behind < first else []
            again.append(LaneStretch(part.lane.place(first), part.lane.place(end), part.lane))
            behind = end
        narrow += [LanePart(part.lane, behind, part.end)] if behind < part.end else []
    is_open = any(_is_wide(one, axis, widest) for one in opened)
    return (
        DrawingPlan(narrow, again)
        if (again or is_open) and count * ROW_RECORDS <= _MANY_RECORDS
        else DrawingPlan(parts, None)
    )


def _parts(pyramid: Pyramid, key: str, axis: XAxis, window: Window) -> list[LanePart]:
    found = []
    for lane in pyramid.lanes:
        if not lane.count() or key not in lane.entries:
            continue
        if axis.metric is None:
            part = LanePart(lane, *lane.find(*window, axis.kind, axis.origin))
        elif axis.metric in lane.entries:
            part = LanePart(lane, *_find_against(lane, axis.metric, *window))
        else:
            continue
        if part.first < part.end:
            found.append(part)
    return found


def _find_against(lane: Lane, metric: str, begin: float, end: float) -> tuple[int, int]:
    """Find the rows in which an axis that is a metric has something in the window."""
    entries = lane.entries[metric][0]
    if len(entries) > _MOST_LOOKED_AT * ENTRY.size:
        return 0, lane.count()
    first, last = lane.count(), -1
    for entry in map(BucketEntry._make, ENTRY.iter_unpack(entries)):
        if entry.finite and entry.high >= begin and entry.low <= end:
            first, last = min(first, entry.row), max(last, entry.row)
    return first, last + 1


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


def _wide_rows(key: str, part: LanePart, axis: XAxis, widest: float) -> list[int]:
    """Return the rows of a part that have a metric and are wider than so much, in their order."""
    lane, wide = part.lane, list[int]()
    if axis.metric is None:
        rows = array.array("q", bytes(memoryview(lane.rows[0])[part.first * ROW.size : part.end * ROW.size]))
        at = 2 if axis.kind == BY_TIME else 0
        limit = widest * 1e9 if axis.kind == BY_TIME else widest
        widths = map(operator.sub, rows[at + 1 :: _WORDS], rows[at::_WORDS])
        wide = [part.first + index for index, width in enumerate(widths) if width > limit]
    else:
        for found in lane.slices(axis.metric, part.first, part.end, 0):
            low, high = (array.array("d", bytes(found.entries))[at::_WORDS] for at in (0, 1))
            there = _rows_of(found.entries)
            wide += [row for row, one, other in zip(there, low, high, strict=True) if other - one > widest]
    if not wide:
        return wide
    having = {row for found in lane.slices(key, part.first, part.end, 0) for row in _rows_of(found.entries)}
    return [row for row in wide if row in having]


def _rows_of(entries: Bytes) -> array.array[int]:
    """Return the row of each entry."""
    return array.array("I", bytes(entries))[2 * _WORDS - 2 :: 2 * _WORDS]


def _runs(rows: list[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and the row behind the last of rows that follow each other."""
    begin = 0
    for at in range(1, len(rows) + 1):
        if at == len(rows) or rows[at] != rows[at - 1] + 1:
            yield rows[begin], rows[at - 1] + 1
            begin = at
