"""Drawing: draws metrics of a run in a window, from the level of its pyramid that fits, or from single numbers. Runs anywhere."""

from __future__ import annotations

import array
import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from asynctrack._system.native import is_native
from asynctrack.curves.curve import CurveBuckets, curve_of_cells, curve_of_points
from asynctrack.curves.drawing_plan import DrawingPlan, LanePart, Window, is_in_order, plan_of
from asynctrack.curves.lanes import JournalPlace, OpenRow
from asynctrack.curves.layout import CELL, ENTRY, FACTOR, Bytes, row_at
from asynctrack.curves.native_parts import draw_against, draw_entries, draw_points
from asynctrack.curves.pyramid import Pyramid
from asynctrack.curves.python_buckets import BY_STEP, BY_TIME, place_of
from asynctrack.curves.single_numbers import LaneStretch, XAxis, read_points

# Where a metric begins and ends is looked for in so many places, so often, until it is hardly any closer. Arbitrary.
_LOOKED_AT: Final = 1000
_MOST_LOOKS: Final = 4
_CLOSE: Final = 0.9


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


def extents(
    pyramid: Pyramid, keys: Iterable[str], axis: XAxis, *, native: bool = is_native
) -> dict[str, Window | None]:
    """Return where the numbers of metrics begin and end on the axis, or somewhat before and behind; None where there are none.

    Rows whose places go back and forth tell little of one metric: the records of those are read again.
    """
    found = {key: _extent_of_rows(pyramid, key, axis) for key in keys}
    loose = {
        key: window
        for key, window in found.items()
        if window is not None
        and axis.metric is None
        and not all(is_in_order(lane, axis) for lane in pyramid.lanes if key in lane.entries)
    }
    for _ in range(_MOST_LOOKS):
        closer, exact = _closer(pyramid, loose, axis, native=native)
        found.update(closer)
        loose = {
            key: window
            for key, window in closer.items()
            if key not in exact and window.end - window.begin <= _CLOSE * (loose[key].end - loose[key].begin)
        }
    return found


def _extent_of_rows(pyramid: Pyramid, key: str, axis: XAxis) -> Window | None:
    if axis.metric is not None:
        totals = pyramid.totals(axis.metric)
        if totals is None or totals.min is None or totals.max is None or pyramid.totals(key) is None:
            return None
        return Window(float(totals.min.value), float(totals.max.value))
    return _window_of(_all_of(pyramid, key), axis)


def _window_of(pieces: Iterable[tuple[Bytes, Bytes]], axis: XAxis) -> Window | None:
    """Return where the rows of entries begin and end."""
    low, high = math.inf, -math.inf
    for rows, entries in pieces:
        for offset in range(0, len(entries), ENTRY.size):
            (index,) = struct.unpack_from("=I", entries, offset + ENTRY.size - 8)
            row = row_at(rows, index)
            begin, end = (row.time_low, row.time_high) if axis.kind == BY_TIME else (row.step_low, row.step_high)
            low = min(low, place_of(begin, axis.kind, axis.origin))
            high = max(high, place_of(end, axis.kind, axis.origin))
    return None if low > high else Window(low, high)


def _closer(
    pyramid: Pyramid, windows: Mapping[str, Window], axis: XAxis, *, native: bool
) -> tuple[dict[str, Window], set[str]]:
    """Return windows that are closer, by the records in rows that are wide beside what is known; and for which metrics all records were read."""
    opened = list(pyramid.open_rows(tuple(windows)))
    plans = {key: plan_of(pyramid, key, opened, axis, window, _LOOKED_AT) for key, window in windows.items()}
    found, exact = dict(windows), set[str]()
    for keys, stretches in _readings(plans):
        read = _read_again(
            pyramid, {key: windows[key] for key in keys}, [*stretches, *_open_stretches(opened)], axis, native=native
        )
        for key in keys:
            found[key] = _window_by(key, plans[key], read[key], axis) or windows[key]
        exact |= {key for key in keys if not plans[key].parts}
    return found, exact


def _window_by(key: str, plan: DrawingPlan, points: bytes, axis: XAxis) -> Window | None:
    """Return where the points of a metric begin and end, and the rows that are drawn as they are."""
    places = [float(place) for place in memoryview(points).cast("d")[::2]]
    narrow = _window_of(
        (
            (found.rows, found.entries)
            for part in plan.parts
            for found in part.lane.slices(key, part.first, part.end, 0)
        ),
        axis,
    )
    places += [] if narrow is None else [*narrow]
    return Window(min(places), max(places)) if places else None


def draw(
    pyramid: Pyramid, windows: Mapping[str, Window], axis: XAxis, buckets: int, *, native: bool = is_native
) -> dict[str, DrawnMetric]:
    """Draw metrics, each between two places of the axis, in so many cells. Records that have to be read again are read for several metrics at once."""
    opened = list(pyramid.open_rows((*windows, *([axis.metric] if axis.metric else []))))
    plans = {key: plan_of(pyramid, key, opened, axis, window, buckets) for key, window in windows.items()}
    found = {}
    for keys, stretches in _readings(plans):
        read = _read_again(
            pyramid, {key: windows[key] for key in keys}, [*stretches, *_open_stretches(opened)], axis, native=native
        )
        for key in keys:
            cells = _from_levels(key, plans[key].parts, [], axis, windows[key], buckets)
            draw_points(cells, *windows[key], read[key])
            found[key] = DrawnMetric(cells, None if plans[key].parts else read[key])
    for key in [key for key in windows if key not in found]:
        found[key] = DrawnMetric(_from_levels(key, plans[key].parts, opened, axis, windows[key], buckets), None)
    return found


def _readings(plans: Mapping[str, DrawingPlan]) -> Iterator[tuple[list[str], Iterable[LaneStretch]]]:
    """Yield metrics for which records have to be read again, and these: together where nothing of them is drawn from rows, or all read the same."""
    exact = [key for key, plan in plans.items() if plan.again is not None and not plan.parts]
    if exact:
        yield exact, [stretch for key in exact for stretch in plans[key].again or ()]
    mixed: dict[tuple[LaneStretch, ...], list[str]] = {}
    for key, plan in plans.items():
        if plan.again is not None and plan.parts:
            mixed.setdefault(tuple(plan.again), []).append(key)
    for stretches, keys in mixed.items():
        yield keys, stretches


def _read_again(
    pyramid: Pyramid, windows: Mapping[str, Window], stretches: list[LaneStretch], axis: XAxis, *, native: bool
) -> dict[str, bytes]:
    """Return the points of metrics in some stretches, each in its window."""
    every = windows.values()
    whole = Window(min(one.begin for one in every), max(one.end for one in every))
    read = read_points(pyramid, stretches, tuple(windows), axis, *whole, native=native)
    return {
        key: points if window == whole else _within(points, window)
        for (key, window), points in zip(windows.items(), read, strict=True)
    }


def curve_of(key: str, axis: XAxis, drawn: DrawnMetric, buckets: int) -> CurveBuckets:
    """Make a curve: of single numbers where they are few enough."""
    if drawn.points is not None and len(drawn.points) <= 16 * buckets:
        points = [(x, y) for x, y in struct.iter_unpack("=2d", drawn.points)]
        return curve_of_points(key, axis.name, sorted(points, key=lambda point: point[0]))
    return curve_of_cells(key, axis.name, drawn.cells)


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
        for found in lane.slices(key, part.first, part.end, level if is_in_order(lane, axis) else 0):
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
