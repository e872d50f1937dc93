"""Python drawing: makes the coarser levels of a pyramid, and draws from it, as `_native/pyramid.c` does. Runs anywhere.

It is what this part of the core has to do, and does it where there is no core.
"""

from __future__ import annotations

import struct
from typing import Final

from asynctrack.curves.layout import CELL, ENTRY, FACTOR, ROW, BucketEntry, BucketRow, Bytes, DrawnCell, row_at
from asynctrack.curves.python_buckets import BY_TIME, place_of

_NOWHERE: Final = DrawnCell(0, 0, 0, 0, 0, 0, 0, 0, 0)


def lift_rows(rows: Bytes, /) -> bytes:
    """Return a row for each four."""
    found = []
    given = list(map(BucketRow._make, ROW.iter_unpack(rows)))
    for at in range(0, len(given) // FACTOR * FACTOR, FACTOR):
        parts = given[at : at + FACTOR]
        found.append(
            ROW.pack(
                min(part.step_low for part in parts),
                max(part.step_high for part in parts),
                min(part.time_low for part in parts),
                max(part.time_high for part in parts),
                *parts[0][4:7],
                sum(part.records for part in parts) & 0xFFFFFFFF,
            )
        )
    return b"".join(found)


def lift_entries(entries: Bytes, /) -> bytes:
    """Return an entry for all of each four rows."""
    found: list[BucketEntry] = []
    for values in ENTRY.iter_unpack(entries):
        following = BucketEntry._make(values)
        following = following._replace(row=following.row // FACTOR)
        if found and found[-1].row == following.row:
            found[-1] = _joined(found[-1], following)
        else:
            found.append(following)
    return b"".join(ENTRY.pack(*entry) for entry in found)


def _joined(one: BucketEntry, other: BucketEntry) -> BucketEntry:
    broken = one.broken + other.broken
    if not other.finite:
        return one._replace(broken=broken)
    return one._replace(
        low=other.low if other.low < one.low else one.low,
        high=other.high if other.high > one.high else one.high,
        total=one.total + other.total,
        last=other.last,
        finite=one.finite + other.finite,
        broken=broken,
    )


class Canvas:
    """The cells between two places, side by side."""

    def __init__(self, cells: bytearray, begin: float, end: float) -> None:
        self._cells = cells
        self._count = len(cells) // CELL.size
        self._begin = begin
        if len(cells) % CELL.size or not self._count:
            raise ValueError("expected room for one cell at least")
        self._width = (end - begin) / self._count

    def draw_entry(self, x_low: float, x_high: float, of: BucketEntry) -> None:
        """Draw an entry that lies between two places."""
        self.draw(DrawnCell(x_low, x_high, of.low, of.high, of.total, of.last, x_high, of.finite, of.broken))

    def draw(self, of: DrawnCell) -> None:
        """Draw what lies between two places, in the cell of their middle."""
        middle = of.x_low + (of.x_high - of.x_low) / 2 - self._begin
        at = middle / self._width if self._width > 0 else 0
        offset = CELL.size * (min(int(min(at, self._count)), self._count - 1) if at > 0 else 0)
        cell = DrawnCell._make(CELL.unpack_from(self._cells, offset))
        if not cell.finite and not cell.broken:
            cell = _NOWHERE._replace(x_low=of.x_low, x_high=of.x_high)
        cell = cell._replace(
            x_low=min(cell.x_low, of.x_low),
            x_high=max(cell.x_high, of.x_high),
            broken=cell.broken + of.broken,
        )
        if of.finite:
            is_first = not cell.finite
            is_last = is_first or of.last_x >= cell.last_x
            cell = cell._replace(
                low=of.low if is_first or of.low < cell.low else cell.low,
                high=of.high if is_first or of.high > cell.high else cell.high,
                last=of.last if is_last else cell.last,
                last_x=of.last_x if is_last else cell.last_x,
                total=cell.total + of.total,
                finite=cell.finite + of.finite,
            )
        CELL.pack_into(self._cells, offset, *cell)


def draw_entries(
    cells: bytearray, begin: float, end: float, rows: Bytes, entries: Bytes, kind: int, origin: int, /
) -> None:
    """Draw entries over the steps or the times of their rows."""
    canvas, count = Canvas(cells, begin, end), len(rows) // ROW.size
    for values in ENTRY.iter_unpack(entries):
        of = BucketEntry._make(values)
        if of.row >= count:
            continue
        row = row_at(rows, of.row)
        low, high = (row.time_low, row.time_high) if kind == BY_TIME else (row.step_low, row.step_high)
        x_low, x_high = place_of(low, kind, origin), place_of(high, kind, origin)
        if x_high >= begin and x_low <= end:
            canvas.draw_entry(x_low, x_high, of)


def draw_against(cells: bytearray, begin: float, end: float, places: Bytes, entries: Bytes, /) -> None:
    """Draw entries over those of another metric."""
    canvas = Canvas(cells, begin, end)
    axis = {place.row: place for place in map(BucketEntry._make, ENTRY.iter_unpack(places))}
    for values in ENTRY.iter_unpack(entries):
        of = BucketEntry._make(values)
        place = axis.get(of.row)
        if place is not None and place.finite and place.high >= begin and place.low <= end:
            canvas.draw_entry(place.low, place.high, of)


def draw_points(cells: bytearray, begin: float, end: float, points: Bytes, /) -> None:
    """Draw pairs of place and number."""
    canvas = Canvas(cells, begin, end)
    for x, y in struct.iter_unpack("=2d", points):
        finite = y - y == 0
        canvas.draw_entry(x, x, BucketEntry(y, y, y, y, 1, 0, 0) if finite else BucketEntry(0, 0, 0, 0, 0, 1, 0))


def draw_cells(cells: bytearray, begin: float, end: float, others: Bytes, /) -> None:
    """Draw other cells."""
    canvas = Canvas(cells, begin, end)
    for cell in map(DrawnCell._make, CELL.iter_unpack(others)):
        if cell.finite or cell.broken:
            canvas.draw(cell)
