"""Plain JSON: what the page's server says of values that may be anybody's. Runs in the server of the page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from asynctrack.records.codec import Array, Media, flatten
from asynctrack.records.media_types import MAX_DEPTH, unicode

# Larger numbers are texts: JSON readers make floats of them.
_INT64: Final = 1 << 63
# Items of an array that are shown. Arbitrary.
_MOST_ITEMS: Final = 1000


def encode(value: Any) -> bytes:
    """Encode a value as JSON."""
    return msgspec.json.encode(value)


def plain(value: Any, depth: int = 0) -> Any:
    """Convert a value to what JSON and browsers can hold: NaN and infinities become "nan", "inf" and "-inf"."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return unicode(value)
    if isinstance(value, int):
        return int(value) if -_INT64 <= value < _INT64 else _digits(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if depth > MAX_DEPTH:
        return "..."
    return _nested(value, depth)


def number(value: float | None) -> float | str | None:
    """Convert a number, or None."""
    found: float | str | None = plain(value)
    return found


def flat(values: Mapping[str, Any], most: int, longest: int) -> dict[str, Any]:
    """Return nested values by names joined by `/`, the first of them, and of texts the beginning."""
    found: dict[str, Any] = {}
    for key, value in flatten(values):
        if len(found) == most:
            break
        # Most values are numbers; their row is one of ten thousand.
        told = value if type(value) is float and math.isfinite(value) else plain(value)
        if isinstance(told, list | dict):
            told = encode(told).decode()
        found[unicode(key)[:longest]] = told[:longest] if isinstance(told, str) else told
    return found


def _nested(value: Any, depth: int) -> Any:
    if isinstance(value, Mapping):
        return {unicode(str(key)): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, Media):
        return plain(value.reference(), depth + 1)
    if isinstance(value, Array):
        if math.prod(value.shape) > _MOST_ITEMS:
            return f"array of {value.dtype}, {' x '.join(map(str, value.shape))}"
        return plain(value.tolist(), depth + 1)
    if isinstance(value, msgspec.Struct):
        return plain(msgspec.to_builtins(value), depth + 1)
    return unicode(repr(value)[:_MOST_ITEMS])


def _digits(value: int) -> str:
    try:
        return str(value)
    except ValueError:  # more digits than Python writes
        return hex(value)
