"""Native parts: what sums up and draws, by the core or by the Python version. Runs anywhere."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from asynctrack._system.native import is_native
from asynctrack.curves import python_drawing
from asynctrack.curves.layout import MOST_METRICS, ROW_RECORDS
from asynctrack.curves.python_buckets import PythonBuckets, PythonPoints, PythonScan

if TYPE_CHECKING or is_native:
    from asynctrack._native import (
        Buckets,
        Points,
        Scan,
        draw_against,
        draw_cells,
        draw_entries,
        draw_points,
        lift_entries,
        lift_rows,
    )
else:
    draw_against, draw_cells, draw_entries, draw_points = (
        python_drawing.draw_against,
        python_drawing.draw_cells,
        python_drawing.draw_entries,
        python_drawing.draw_points,
    )
    lift_entries, lift_rows = python_drawing.lift_entries, python_drawing.lift_rows

__all__ = [
    "draw_against",
    "draw_cells",
    "draw_entries",
    "draw_points",
    "lift_entries",
    "lift_rows",
    "new_buckets",
    "new_points",
    "new_scan",
]

# Of the hash of names, which may be anybody's.
_SEED: Final = secrets.randbits(64)


def new_scan(*, native: bool = is_native) -> Scan | PythonScan:
    """Make what reads records."""
    return Scan(_SEED) if native else PythonScan()


def new_buckets(scan: Scan | PythonScan) -> Buckets | PythonBuckets:
    """Make what sums up the records of a scan."""
    if isinstance(scan, PythonScan):
        return PythonBuckets(scan, ROW_RECORDS, MOST_METRICS)
    return Buckets(scan, ROW_RECORDS, MOST_METRICS)


def new_points(
    scan: Scan | PythonScan,
    keys: tuple[str, ...],
    against: str | None,
    kind: int,
    origin: int,
    begin: float,
    end: float,
) -> Points | PythonPoints:
    """Make what takes single numbers of the records of a scan."""
    if isinstance(scan, PythonScan):
        return PythonPoints(scan, keys, against, kind, origin, begin, end)
    return Points(scan, keys, against, kind, origin, begin, end)
