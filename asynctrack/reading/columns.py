"""Columns: the values of a key with their steps, as lists and as NumPy arrays. Runs anywhere."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from asynctrack.records.codec import Array
from asynctrack.records.column_types import Kind, are_plain, as_kind, kind_of, kind_of_integers

_TYPES: Final[dict[Kind, Any]] = {"bool": bool, "int": "int64", "long": "int64", "float": "float64", "text": str}


class Curve(NamedTuple):
    """The values of a key as a NumPy array, and another with the steps they were logged at."""

    steps: Any
    values: Any


class Column:
    """The values of one key, and the steps they were logged at.

    Attributes:
        steps: of the values, in the order they were logged.
        values: as they were logged, where they are of one type; else of the one that `column_types` says: numbers that widen without loss are, other mixtures are text. Arrays as `Array`, images and the like as `Media`, whose content is read from their files.
    """

    __slots__ = ("steps", "values")

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.values: list[Any] = []

    def __len__(self) -> int:
        return len(self.values)

    def settle(self) -> None:
        """Have values of one type, where several were logged; lists and the like stay as they are."""
        values = self.values
        if len({*map(type, values)} - {type(None)}) > 1 and are_plain(values):
            self.values = as_kind(kind_of(values) or "text", values)

    def __repr__(self) -> str:
        last = f", last {self.values[-1]!r} at step {self.steps[-1]}" if self.values else ""
        return f"<Column of {len(self)}{last}>"


def put(nested: dict[str, Any], key: str, curve: Curve) -> None:
    """Put a curve where its name says; where that is the beginning of another, below that, under ""."""
    *above, name = key.split("/")
    for part in above:
        there = nested.setdefault(part, {})
        if isinstance(there, Curve):
            there = nested[part] = {"": there}
        nested = there
    if isinstance(nested.get(name), dict):
        nested, name = nested[name], ""
    nested[name] = curve


def steps_as_array(steps: list[int]) -> Any:
    """A NumPy array of integers; without a sign where a step takes 64 bits, of objects where there are negative ones beside."""
    import numpy

    kind = kind_of_integers(min(steps, default=0), max(steps, default=0))
    if kind != "text":
        return numpy.array(steps, "int64")
    return numpy.array(steps, "uint64" if min(steps) >= 0 else object)


def as_array(values: list[Any]) -> Any:
    """A NumPy array of numbers or texts, by the rule of `column_types`; of arrays of one shape, with their dimensions behind the first; else of objects."""
    import numpy

    if are_plain(values) and None not in values:
        kind = kind_of(values) or "float"
        return numpy.array(as_kind(kind, values), _TYPES[kind])
    kinds = {type(value) for value in values}
    if kinds == {Array} and len({value.shape for value in values}) == 1:
        return numpy.stack([numpy.asarray(value) for value in values])
    objects = numpy.empty(len(values), object)
    for at, value in enumerate(values):
        objects[at] = value
    return objects
