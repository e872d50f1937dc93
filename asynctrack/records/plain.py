"""Plain: a record's values by flat names, its numbers, and numbers as floats, for whoever shows them. Runs anywhere.

What becomes of a value when it is logged is `snapshot`'s duty, and how JSON has it is that of `to_json`.
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
    """The values by flat names: see `flatten`. Of most records this is what was logged, and it is not copied."""
    return data if _LEAVES.issuperset(map(type, data.values())) else dict(flatten(data))


def numbers_in(data: Mapping[str, Any], parent: str = "", *, truths: bool = True) -> Iterable[tuple[str, float]]:
    """The numbers by flat names.

    Args:
        data: of a record, or what is nested in one.
        parent: what the names begin with.
        truths: whether True and False are numbers.
    """
    if not parent and _NUMBERS.issuperset(map(type, data.values())):
        return data.items()
    return [
        (name, value)
        for name, value in flatten(data, parent)
        if isinstance(value, int | float) and (truths or not isinstance(value, bool))
    ]


def as_float(value: float, beyond: T) -> float | T:
    """A number as a float; `beyond` for an integer that none is large enough for."""
    try:
        return float(value)
    except OverflowError:
        return beyond


def finite(value: float) -> float | None:
    """A number as a float that is finite; None where it is none."""
    number = as_float(value, math.inf)
    return number if math.isfinite(number) else None


def items_in(value: Any) -> list[Any]:
    """The items of a list, and of the lists in it; of what is no list itself."""
    return [item for part in value for item in items_in(part)] if isinstance(value, list) else [value]
