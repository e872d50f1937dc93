"""The core and Python draw the same of any bytes, and make the same coarser levels."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asynctrack._system.native import is_native
from asynctrack.curves import python_drawing
from asynctrack.curves.layout import CELL, ENTRY, ROW

if is_native:
    from asynctrack import _native

pytestmark = pytest.mark.skipif(not is_native, reason="the native core is not built")

numbers = st.integers(-50, 50).map(float) | st.floats(allow_nan=False, allow_infinity=False, width=32)
places = st.integers(-100, 100) | st.sampled_from([-(2**63), 2**63 - 1])
spans = st.lists(st.tuples(places, places).map(sorted), min_size=1, max_size=12)
entries = st.lists(
    st.tuples(st.integers(0, 14), st.lists(numbers, max_size=4), st.integers(0, 2)),
    max_size=12,
    unique_by=lambda e: e[0],
)


def packed_rows(of: list[list[int]]) -> bytes:
    return b"".join(ROW.pack(*span, *span, 1, 64 * at, 8 * at, 64) for at, span in enumerate(of))


def packed_entries(of: list[tuple[int, list[float], int]]) -> bytes:
    found = b""
    for row, some, broken in sorted(of):
        if some:
            found += ENTRY.pack(min(some), max(some), sum(some), some[-1], len(some), broken, row, 0)
        elif broken:
            found += ENTRY.pack(float("inf"), float("-inf"), 0.0, float("nan"), 0, broken, row, 0)
    return found


def cells(of: bytearray | bytes, layout: struct.Struct = CELL) -> list[str]:
    return [repr(each) for each in layout.iter_unpack(of)]


@settings(max_examples=200, deadline=None)
@given(spans, entries, entries, st.integers(1, 7), st.integers(-60, 60), st.integers(0, 80), st.integers(0, 1), places)
def test_core_and_python_draw_the_same(
    rows: list[list[int]],
    some: list[tuple[int, list[float], int]],
    axis: list[tuple[int, list[float], int]],
    count: int,
    begin: int,
    width: int,
    kind: int,
    origin: int,
) -> None:
    drawn = []
    window = (float(begin), float(begin + width))
    points = b"".join(struct.pack("=2d", at, number) for at, (_, them, _) in enumerate(some) for number in them)
    for version in (_native, python_drawing):
        found = [bytearray(CELL.size * count) for _ in range(4)]
        version.draw_entries(found[0], *window, packed_rows(rows), packed_entries(some), kind, origin)
        version.draw_against(found[1], *window, packed_entries(axis), packed_entries(some))
        version.draw_points(found[2], *window, points)
        for others in found[:3]:
            version.draw_cells(found[3], *window, others)
        lifted = version.lift_rows(packed_rows(rows)), version.lift_entries(packed_entries(some))
        drawn.append(([cells(each) for each in found], cells(lifted[0], ROW), cells(lifted[1], ENTRY)))
    assert drawn[0] == drawn[1]


def test_cells_that_are_cut_short_are_refused() -> None:
    for version in (_native, python_drawing):
        with pytest.raises(ValueError, match="room for one cell"):
            version.draw_points(bytearray(CELL.size + 1), 0.0, 1.0, b"")
        with pytest.raises(ValueError, match="room for one cell"):
            version.draw_points(bytearray(), 0.0, 1.0, b"")
