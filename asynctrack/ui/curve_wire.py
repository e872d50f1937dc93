"""Curve wire: curves as bytes that a browser takes as typed arrays. Runs in the server of the page, on file threads.

A block is the length of its header (4 bytes), the header, which is JSON, and columns. The header says what follows; spaces at its end let the columns begin at
a multiple of 8, and zeros let the next block do so. All numbers are little-endian.
"""

from __future__ import annotations

import array
import math
import struct
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

from asynctrack.curves.curve import CurveBuckets
from asynctrack.curves.group import GroupCurve
from asynctrack.records.media_types import unicode
from asynctrack.ui.plain_json import encode

_LENGTH: Final = struct.Struct("<I")
_UNIT: Final = 8
# Of array types the codes of the wire.
_CODES: Final = {"d": "f8", "f": "f4", "I": "u4"}
_BANDS: Final = ("min", "max", "mean", "last")
_INFINITE: Final = (math.inf, -math.inf)

Extent = tuple[float, float] | None


def block_of_curve(run: str, curve: CurveBuckets, x_range: Extent) -> bytes:
    """Encode a curve of a run.

    Args:
        run: its key.
        curve: to encode.
        x_range: where the metric begins and ends.
    """
    columns: list[tuple[str, array.array[Any]]] = [("x", array.array("d", curve.x))]
    if curve.exact:
        columns.append(("mean", array.array("d", curve.mean)))
    else:
        columns += _singles((name, getattr(curve, name)) for name in _BANDS)
    broken = curve.not_finite.tolist()
    if any(broken):
        columns.append(("not_finite", _counts(broken)))
    said = {"run": run, "key": unicode(curve.key), "axis": unicode(curve.axis), "kind": "curve", "exact": curve.exact}
    return _block({**said, "x_range": _finite(x_range)}, columns)


def block_of_group(curve: GroupCurve, x_range: Extent) -> bytes:
    """Encode a curve of several runs; `x_range` is where the metric begins and ends in all of them."""
    bands = _singles((name, getattr(curve, name)) for name in ("mean", "deviation", "min", "max"))
    columns = [("x", array.array("d", curve.x)), *bands, ("runs", _counts(curve.runs.tolist()))]
    said = {"run": None, "key": unicode(curve.key), "axis": unicode(curve.axis), "kind": "group", "exact": False}
    return _block({**said, "x_range": _finite(x_range)}, columns)


def _singles(columns: Iterable[tuple[str, memoryview]]) -> list[tuple[str, array.array[Any]]]:
    """Return columns of 4 bytes a number; of 8, where one is too large."""
    doubles = [(name, array.array("d", column)) for name, column in columns]
    singles = [(name, array.array("f", column)) for name, column in doubles]
    return doubles if any(one in column for _, column in singles for one in _INFINITE) else singles


def _counts(counts: Sequence[int]) -> array.array[int]:
    return array.array("I", [min(count, 0xFFFFFFFF) for count in counts])


def _block(said: dict[str, Any], columns: list[tuple[str, array.array[Any]]]) -> bytes:
    names = [(name, _CODES[column.typecode]) for name, column in columns]
    header = encode({**said, "rows": len(columns[0][1]), "columns": names})
    header += b" " * (-(_LENGTH.size + len(header)) % _UNIT)
    parts = [_LENGTH.pack(len(header)), header]
    for _, column in columns:
        if sys.byteorder == "big":
            column.byteswap()
        parts += [column.tobytes(), bytes(-len(column) * column.itemsize % _UNIT)]
    return b"".join(parts)


def _finite(x_range: Extent) -> Extent:
    return x_range if x_range is not None and all(map(math.isfinite, x_range)) else None
