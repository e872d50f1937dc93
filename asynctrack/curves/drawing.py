"""Drawing: draws metrics of a run in a window, from the level of its pyramid that fits, or from single numbers. Runs anywhere."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from asynctrack._system.native import is_native
from asynctrack.curves.curve import CurveBuckets, of_cells, of_points
from asynctrack.curves.lanes import Lane
from asynctrack.curves.layout import CELL, ENTRY, FACTOR, ROW_RECORDS, BucketEntry, Bytes, row_at
from asynctrack.curves.native_parts import draw_against, draw_entries, draw_points
from asynctrack.curves.pyramid import OpenRow, Pyramid
from asynctrack.curves.python_buckets import BY_STEP, BY_TIME, place_of
from asynctrack.curves.single_numbers import LaneStretch, XAxis, read_points

# So many records are read again at least, rather than drawn from rows: 1 ms.
_FEW_RECORDS: Final = 4096
# So many records are read again at most where rows are wider than what they are drawn in: half a second.
_MANY_RECORDS: Final = 1 << 20
# Of rows that are wider than so many places nothing can be seen.
_WIDE: Final = 4
# Entries of an axis that are looked at for those in the window; of more, all are drawn from: 10 ms.
_MOST_LOOKED_AT: Final = 20_000
# Rows that are looked at to tell how wide they are.
_SAMPLE: Final = 200


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


class DrawnMetric(NamedTuple):
    """A metric in a window.

    Attributes:
        cells: what is drawn, from left to right.
        points: the single numbers, where they were read.
    """

    cells: bytearray
    points: bytes | None


def axis_of(pyramid: Pyramid, name: str) -> XAxis:
    """Return an axis by its name: "step", "time" (seconds since the epoch), "relative" (seconds since the first record), or a metric."""
    if name == "step":
        return XAxis(name, BY_STEP, 0, None)
    if name == "time":
        return XAxis(name, BY_TIME, 0, None)
    if name == "relative":
        rows = [row_at(lane.rows[0], 0) for lane in pyramid.lanes if lane.count()]
        rows += [row_at(found.row, 0) for found in pyramid.open_rows()]
        return XAxis(name, BY_TIME, min((row.time_low for row in rows), default=0), None)
    return XAxis(name, BY_STEP, 0, name)


def extent(pyramid: Pyramid, key: str, axis: XAxis) -> tuple[float, float] | None:
    """Return where the numbers of a metric begin and end on the axis, or somewhat before and behind; None where there are none."""
    if axis.metric is not None:
        totals = pyramid.totals(axis.metric)
        if totals is None or totals.min is None or totals.max is None or pyramid.totals(key) is None:
            return None
        return float(totals.min.value), float(totals.max.value)
    low, high = math.inf, -math.inf
    for rows, entries in _all_of(pyramid, key):
        for offset in range(0, len(entries), ENTRY.size):
            (index,) = struct.unpack_from("=I", entries, offset + ENTRY.size - 8)
            row = row_at(rows, index)
            begin, end = (row.time_low, row.time_high) if axis.kind == BY_TIME else (row.step_low, row.step_high)
            low, high = (
                min(low, place_of(begin, axis.kind, axis.origin)),
                max(high, place_of(end, axis.kind, axis.origin)),
            )
    return None if low > high else (low, high)


def draw(
    pyramid: Pyramid,
    keys: tuple[str, ...],
    axis: XAxis,
    begin: float,
    end: float,
    buckets: int,
    *,
    native: bool = is_native,
) -> list[DrawnMetric]:
    """Draw metrics between two places of the axis, in so many cells."""
    opened = list(pyramid.open_rows((*keys, *([axis.metric] if axis.metric else []))))
    parts = _parts(pyramid, keys, axis, begin, end)
    if _is_exact(parts, axis, begin, end, buckets):
        points = read_points(pyramid, _stretches(pyramid, parts, opened), keys, axis, begin, end, native=native)
        return [DrawnMetric(_of_points(found, begin, end, buckets), found) for found in points]
    return [
        DrawnMetric(
            _from_levels(key, [part for part in parts if key in part.lane.entries], opened, axis, begin, end, buckets),
            None,
        )
        for key in keys
    ]


def curve_of(key: str, axis: XAxis, drawn: DrawnMetric, buckets: int) -> CurveBuckets:
    """Make a curve: of single numbers where they are few enough."""
    if drawn.points is not None and len(drawn.points) <= 16 * buckets:
        points = [(x, y) for x, y in struct.iter_unpack("=2d", drawn.points)]
        return of_points(key, axis.name, sorted(points, key=lambda point: point[0]))
    return of_cells(key, axis.name, drawn.cells)


def _parts(pyramid: Pyramid, keys: tuple[str, ...], axis: XAxis, begin: float, end: float) -> list[LanePart]:
    found = []
    for lane in pyramid.lanes:
        if not lane.count() or not any(key in lane.entries for key in keys):
            continue
        if axis.metric is None:
            part = LanePart(lane, *lane.find(begin, end, axis.kind, axis.origin))
        elif axis.metric in lane.entries:
            part = LanePart(lane, *_find_against(lane, axis.metric, begin, end))
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


def _is_exact(parts: list[LanePart], axis: XAxis, begin: float, end: float, buckets: int) -> bool:
    """Say if the records have to be read again: there are few, or rows are wider than what they are drawn in."""
    rows = sum(part.end - part.first for part in parts)
    if rows <= max(buckets, _FEW_RECORDS // ROW_RECORDS):
        return True
    unordered = [
        part
        for part in parts
        if axis.metric or not (part.lane.times_in_order if axis.kind == BY_TIME else part.lane.steps_in_order)
    ]
    if not unordered or rows * ROW_RECORDS > _MANY_RECORDS:
        return False
    widths = sorted(width for part in unordered for width in _widths(part, axis))
    return bool(widths) and widths[len(widths) // 2] > _WIDE * (end - begin) / buckets


def _widths(part: LanePart, axis: XAxis) -> Iterator[float]:
    lane = part.lane
    if axis.metric is not None:
        entries = lane.entries[axis.metric][0]
        count = len(entries) // ENTRY.size
        for index in range(0, count, max(1, count // _SAMPLE)):
            entry = BucketEntry._make(ENTRY.unpack_from(entries, index * ENTRY.size))
            if entry.finite:
                yield entry.high - entry.low
        return
    for index in range(part.first, part.end, max(1, (part.end - part.first) // _SAMPLE)):
        row = row_at(lane.rows[0], index)
        if axis.kind == BY_TIME:
            yield (row.time_high - row.time_low) / 1e9
        else:
            yield row.step_high - row.step_low


def _stretches(pyramid: Pyramid, parts: list[LanePart], opened: list[OpenRow]) -> Iterator[LaneStretch]:
    begins = {id(found.lane): row_at(found.row, 0) for found in opened}
    for part in parts:
        yield LaneStretch(part.lane.place(part.first), part.lane.place(part.end), part.lane)
    for found in opened:
        row = begins[id(found.lane)]
        yield LaneStretch(type(found.lane.end)(row.segment, row.offset, row.inner), found.lane.end, found.lane)


def _of_points(points: bytes, begin: float, end: float, buckets: int) -> bytearray:
    cells = bytearray(CELL.size * buckets)
    draw_points(cells, begin, end, points)
    return cells


def _from_levels(
    key: str, parts: list[LanePart], opened: list[OpenRow], axis: XAxis, begin: float, end: float, buckets: int
) -> bytearray:
    cells = bytearray(CELL.size * buckets)
    rows = sum(part.end - part.first for part in parts)
    level = 0
    while rows >= 2 * buckets * FACTOR ** (level + 1):
        level += 1
    for part in parts:
        lane = part.lane
        if axis.metric is not None:
            for found in lane.slices(key, part.first, part.end, 0):
                draw_against(cells, begin, end, lane.entries[axis.metric][0], found.entries)
            continue
        in_order = lane.times_in_order if axis.kind == BY_TIME else lane.steps_in_order
        for found in lane.slices(key, part.first, part.end, level if in_order else 0):
            draw_entries(cells, begin, end, found.rows, found.entries, axis.kind, axis.origin)
    for one in opened:
        if (entry := one.entries.get(key)) is None:
            continue
        if axis.metric is None:
            draw_entries(cells, begin, end, one.row, entry, axis.kind, axis.origin)
        elif axis.metric in one.entries:
            draw_against(cells, begin, end, one.entries[axis.metric], entry)
    return cells


def _all_of(pyramid: Pyramid, key: str) -> Iterator[tuple[Bytes, Bytes]]:
    """Yield rows and entries of all numbers of a metric, from levels as coarse as there are."""
    for lane in pyramid.lanes:
        if key in lane.entries:
            for found in lane.slices(key, 0, lane.count(), len(lane.rows) + 1):
                yield found.rows, found.entries
    for one in pyramid.open_rows((key,)):
        if key in one.entries:
            yield one.row, one.entries[key]
