"""Column types: the type of a column whose values have several; one rule for frames, arrays, columns and files. Runs anywhere.

Types that widen without loss become a number, all else becomes text:

| Values of a column | Type of the column |
| --- | --- |
| bools | bool |
| bools and integers within 64 bits (signed) | integers; True is 1 |
| bools, integers up to 2**53 either way, and floats | floats |
| floats beside an integer beyond 2**53, which a float would round | text |
| an integer beyond 64 bits | text |
| texts beside anything | text |

None stands for no value, and does not count. Text is as JSON has it, without quotes: `true`, `0.5`, `NaN`, `[1,2]`. JSON Lines, CSV and SQL keep each value
as it was logged: they have no type for a column.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Literal

import msgspec

from asynctrack.records.codec import to_json

# A "long" is an integer of 64 bits that a float may not hold.
Kind = Literal["bool", "int", "long", "float", "text"]

_ORDER: Final[tuple[Kind, ...]] = ("bool", "int", "long", "float", "text")
_OF_TYPE: Final[dict[type, Kind]] = {bool: "bool", int: "int", float: "float", str: "text"}
# Types whose values are as a column of a kind has them.
_AS_IT_IS: Final[dict[Kind, frozenset[type]]] = {
    "bool": frozenset({bool}),
    "int": frozenset({int}),
    "long": frozenset({int}),
    "float": frozenset({float}),
    "text": frozenset({str}),
}
_NONE: Final = type(None)
_LONGEST: Final = 1 << 63
EXACT: Final = 1 << 53


def kind_of(values: Sequence[Any]) -> Kind | None:
    """Return the narrowest kind that all values fit without loss; None where all are None."""
    types = {*map(type, values)} - {_NONE}
    if not types:
        return None
    kind = widest(_OF_TYPE.get(of, "text") for of in types)
    if int not in types or kind == "text":
        return kind
    wide = kind_of_integers(*_range(value for value in values if type(value) is int))
    return widest((kind, wide))


def kind_of_integers(low: int, high: int) -> Kind:
    """Return the kind of a column of integers from `low` to `high`."""
    if low >= -EXACT and high <= EXACT:
        return "int"
    return "long" if low >= -_LONGEST and high < _LONGEST else "text"


def widest(kinds: Iterable[Kind]) -> Kind:
    """Return the kind that values of all these kinds fit."""
    found = {*kinds}
    return "text" if {"long", "float"} <= found else max(found, key=_ORDER.index)


def are_plain(values: Sequence[Any]) -> bool:
    """Return True if none of the values is a list, an array, a medium or the like."""
    return {*map(type, values)} <= {_NONE, *_OF_TYPE}


def as_kind(kind: Kind, values: list[Any]) -> list[Any]:
    """Convert values to a column of this kind."""
    types = {*map(type, values)} - {_NONE}
    if types <= _AS_IT_IS[kind]:
        return values
    convert = _CONVERT[kind]
    return [None if value is None else convert(value) for value in values]


def as_float(value: float) -> float:
    """Convert a number to a float; an integer beyond the largest float becomes infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _range(values: Iterable[int]) -> tuple[int, int]:
    all_of_them = list(values)
    return min(all_of_them), max(all_of_them)


def _text(value: Any) -> str:
    plain = to_json(value)
    return plain if isinstance(plain, str) else msgspec.json.encode(plain).decode()


_CONVERT: Final[dict[Kind, Callable[[Any], Any]]] = {
    "bool": bool,
    "int": int,
    "long": int,
    "float": float,
    "text": _text,
}
