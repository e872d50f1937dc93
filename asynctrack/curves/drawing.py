"""Drawing: draws metrics of a run in a window, from the level of its pyramid that fits, or from single numbers. Runs anywhere."""

from __future__ import annotations

import array
import math
import struct
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from asynctrack._system.native import is_native
from asynctrack.curves.curve import CurveBuckets, curve_of_cells, curve_of_points
from asynctrack.curves.lanes import JournalPlace, Lane, OpenRow
from asynctrack.curves.layout import CELL, ENTRY, FACTOR, ROW_RECORDS, BucketEntry, Bytes, entry_at, row_at
from asynctrack.curves.native_parts import draw_against, draw_entries, draw_points
from asynctrack.curves.pyramid import Pyramid
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


def extent(pyramid: Pyramid, key: str, axis: XAxis) -> Window | None:
    """Return where the numbers of a metric begin and end on the axis, or somewhat before and behind; None where there are none."""
    if axis.metric is not None:
        totals = pyramid.totals(axis.metric)
        if totals is None or totals.min is None or totals.max is None or pyramid.totals(key) is None:
            return None
        return Window(float(totals.min.value), float(totals.max.value))
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
    return None if low > high else Window(low, high)


def draw(
    pyramid: Pyramid, windows: Mapping[str, Window], axis: XAxis, buckets: int, *, native: bool = is_native
) -> dict[str, DrawnMetric]:
    """Draw metrics, each between two places of the axis, in so many cells. Records that have to be read again are read once for all metrics."""
    opened = list(pyramid.open_rows((*windows, *([axis.metric] if axis.metric else []))))
    found, exact, stretches = {}, {}, list[LaneStretch]()
    for key, window in windows.items():
        parts = _parts(pyramid, key, axis, window)
        again = _to_read_again(key, parts, axis, window, buckets)
        if again is None:
            found[key] = DrawnMetric(_from_levels(key, parts, opened, axis, window, buckets), None)
        else:
            exact[key] = window
            stretches += again
    if exact:
        stretches += _open_stretches(opened)
        window = Window(min(one.begin for one in exact.values()), max(one.end for one in exact.values()))
        read = read_points(pyramid, stretches, tuple(exact), axis, *window, native=native)
        for key, points in zip(exact, read, strict=True):
            own = points if exact[key] == window else _within(points, exact[key])
            found[key] = of_points(own, exact[key], buckets)
    return found


def curve_of(key: str, axis: XAxis, drawn: DrawnMetric, buckets: int) -> CurveBuckets:
    """Make a curve: of single numbers where they are few enough."""
    if drawn.points is not None and len(drawn.points) <= 16 * buckets:
        points = [(x, y) for x, y in struct.iter_unpack("=2d", drawn.points)]
        return curve_of_points(key, axis.name, sorted(points, key=lambda point: point[0]))
    return curve_of_cells(key, axis.name, drawn.cells)


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


def _to_read_again(
    key: str, parts: list[LanePart], axis: XAxis, window: Window, buckets: int
) -> list[LaneStretch] | None:
    """Return the records that have to be read again: all where they are few, and those of rows that are wider than what they are drawn in; None for none."""
    rows = sum(part.end - part.first for part in parts)
    if rows <= max(buckets, _FEW_RECORDS // ROW_RECORDS):
        return [LaneStretch(part.lane.place(part.first), part.lane.place(part.end), part.lane) for part in parts]
    unordered = [part for part in parts if axis.metric is not None or not _in_order(part.lane, axis)]
    widths = sorted(width for part in unordered for width in _widths(key, part, axis))
    if not widths or widths[len(widths) // 2] <= _WIDE * (window.end - window.begin) / buckets:
        return None
    found, count = [], 0
    for part in parts:
        runs = list(part.lane.rows_with(key, part.first, part.end))
        found += [LaneStretch(part.lane.place(first), part.lane.place(end), part.lane) for first, end in runs]
        count += sum(end - first for first, end in runs)
    return found if count * ROW_RECORDS <= _MANY_RECORDS else None


def _in_order(lane: Lane, axis: XAxis) -> bool:
    return lane.times_in_order if axis.kind == BY_TIME else lane.steps_in_order


def _widths(key: str, part: LanePart, axis: XAxis) -> Iterator[float]:
    """Yield how wide some of the rows are that have a metric."""
    lane = part.lane
    if axis.metric is not None:
        entries = lane.entries[axis.metric][0]
        count = len(entries) // ENTRY.size
        for index in range(0, count, max(1, count // _SAMPLE)):
            entry = entry_at(entries, index)
            if entry.finite:
                yield entry.high - entry.low
        return
    for entries in (found.entries for found in lane.slices(key, part.first, part.end, 0)):
        count = len(entries) // ENTRY.size
        for index in range(0, count, max(1, count // _SAMPLE)):
            row = row_at(lane.rows[0], entry_at(entries, index).row)
            yield (row.time_high - row.time_low) / 1e9 if axis.kind == BY_TIME else row.step_high - row.step_low


def _open_stretches(opened: list[OpenRow]) -> Iterator[LaneStretch]:
    for found in opened:
        row = row_at(found.row, 0)
        yield LaneStretch(JournalPlace(row.segment, row.offset, row.inner), found.lane.end, found.lane)


def _within(points: bytes, window: Window) -> bytes:
    """Return the points that lie in a window."""
    pairs = memoryview(points).cast("d")
    kept = array.array("d")
    for at in range(0, len(pairs), 2):
        if window.begin <= pairs[at] <= window.end:
            kept.extend(pairs[at : at + 2])
    return kept.tobytes()


def of_points(points: bytes, window: Window, buckets: int) -> DrawnMetric:
    """Draw single numbers, which lie in the window."""
    cells = bytearray(CELL.size * buckets)
    draw_points(cells, *window, points)
    return DrawnMetric(cells, points)


def _from_levels(
    key: str, parts: list[LanePart], opened: list[OpenRow], axis: XAxis, window: Window, buckets: int
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
                draw_against(cells, *window, lane.entries[axis.metric][0], found.entries)
            continue
        for found in lane.slices(key, part.first, part.end, level if _in_order(lane, axis) else 0):
            draw_entries(cells, *window, found.rows, found.entries, axis.kind, axis.origin)
    for one in opened:
        if (entry := one.entries.get(key)) is None:
            continue
        if axis.metric is None:
            draw_entries(cells, *window, one.row, entry, axis.kind, axis.origin)
        elif axis.metric in one.entries:
            draw_against(cells, *window, one.entries[axis.metric], entry)
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
