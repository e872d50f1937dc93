"""Plain: a record's values by flat names, its numbers, and numbers as floats, for display. Runs anywhere.

`snapshot` decides what a value becomes when it is logged; `to_json` how JSON has it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

from asynctrack.records.codec import flatten

T = TypeVar("T")

_LEAVES: Final = frozenset({float, int, str, bool, type(None)})
_NUMBERS: Final = frozenset({float, int})


def flat(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the values by flat names, as `flatten` makes them. Most records are flat already, and are not copied."""
    return data if _LEAVES.issuperset(map(type, data.values())) else dict(flatten(data))


def numbers_in(data: Mapping[str, Any], parent: str = "") -> Iterable[tuple[str, float]]:
    """Yield the numbers by flat names; True and False are some.

    Args:
        data: of a record, or what is nested in one.
        parent: the beginning of each name.
    """
    if not parent and _NUMBERS.issuperset(map(type, data.values())):
        return data.items()
    return [(name, value) for name, value in flatten(data, parent) if isinstance(value, int | float)]


def as_float(value: float, beyond: T) -> float | T:
    """Convert a number to a float; return `beyond` for an integer that no float is large enough for."""
    try:
        return float(value)
    except OverflowError:
        return beyond


def finite(value: float) -> float | None:
    """Convert a number to a float; return None if it is not finite."""
    number = as_float(value, math.inf)
    return number if math.isfinite(number) else None


def items_in(value: Any) -> list[Any]:
    """Return the items of a list and of the lists in it; any other value as the only item."""
    return [item for part in value for item in items_in(part)] if isinstance(value, list) else [value]
