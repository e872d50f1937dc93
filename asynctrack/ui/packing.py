"""Packing: curves and documents as short texts for an exported file. Runs where runs are exported.

A text is base64 of what zlib has deflated. Of a curve's block the columns are stored byte by byte: first the first bytes of all its numbers, then the second
ones, and so on. Those of near numbers are alike, and deflate to half. A curve that is summed up in buckets is rounded before: a picture shows no more, and
zeros deflate to nothing. Its band is rounded outwards, so that no number lies outside.
"""

from __future__ import annotations

import array
import base64
import json
import math
import struct
import zlib
from typing import Final

import msgspec

from asynctrack.curves.curve import CurveBuckets

# A rounded number is off by a part of the metric's range, or of itself, of this many at most: more than a screen has rows.
_PARTS: Final = 4096
_MANTISSA: Final = 23
_MOST_DROPPED: Final = 11  # bits of a mantissa: 12 are left, for 4096 parts of the number itself
_SIGN: Final = 0x8000_0000
_INFINITE: Final = 0x7F80_0000
_SIZES: Final = {"f8": 8, "f4": 4, "u4": 4}


def packed(content: bytes) -> str:
    """Return bytes as a text."""
    return base64.b64encode(zlib.compress(content, 9)).decode("ascii")


def packed_block(block: bytes) -> str:
    """Return a block of `curve_wire` as a text."""
    end = 4 + struct.unpack_from("<I", block)[0]
    header = json.loads(block[4:end])
    parts, at = [block[:end]], end
    for _, code in header["columns"]:
        size = _SIZES[code]
        column = block[at : at + header["rows"] * size + -header["rows"] * size % 8]
        parts += [column[byte::size] for byte in range(size)]
        at += len(column)
    return packed(b"".join(parts))


def rounded(curve: CurveBuckets) -> CurveBuckets:
    """Return a curve whose band and mean have as many bits as a picture shows; one of single numbers, or of numbers beyond a float of 4 bytes, as it is."""
    if curve.exact or not len(curve):
        return curve
    columns = {name: array.array("f", getattr(curve, name)) for name in ("min", "max", "mean")}
    known = [abs(value) for name in ("min", "max") for value in columns[name] if value == value]
    if not known or math.isinf(greatest := max(known)):
        return curve
    across = max(value for value in columns["max"] if value == value) - min(v for v in columns["min"] if v == v)
    dropped = _droppable(greatest, across)
    rest, half = (1 << dropped) - 1, 1 << dropped >> 1
    low = _rounded(columns["min"], dropped, 0, rest)
    high = _rounded(columns["max"], dropped, rest, 0)
    mean = _rounded(columns["mean"], dropped, half, half)
    return msgspec.structs.replace(curve, min=low, max=high, mean=mean, last=mean)


def _droppable(greatest: float, across: float) -> int:
    """Return how many bits of each mantissa may go."""
    if not across > 0:
        return 0
    needed = math.ceil(math.log2(_PARTS * greatest / across)) if greatest else 0
    return min(max(_MANTISSA - needed, 0), _MOST_DROPPED)


def _rounded(column: array.array[float], dropped: int, positive: int, negative: int) -> memoryview:
    """Set the last bits of numbers to zero, after something was added to the magnitude of positive and of negative ones."""
    bits = array.array("I", column.tobytes())
    kept = ~((1 << dropped) - 1)
    for at, value in enumerate(bits):
        found = (value + (negative if value & _SIGN else positive)) & kept
        if value & _INFINITE != _INFINITE and found & _INFINITE != _INFINITE:
            bits[at] = found
    return memoryview(array.array("d", array.array("f", bits.tobytes())))
