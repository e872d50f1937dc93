"""Columns: the values of a key with their steps, as lists and as NumPy arrays. Runs anywhere."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from asynctrack.records.codec import Array
from asynctrack.records.column_types import Kind, are_plain, as_kind, kind_of, kind_of_integers

_TYPES: Final[dict[Kind, Any]] = {"bool": bool, "int": "int64", "long": "int64", "float": "float64", "text": str}


class Curve(NamedTuple):
    """The values of a key as a NumPy array, and another with the steps that they were logged at."""

    steps: Any
    values: Any


class Column:
    """The values of one key, and the steps that they were logged at.

    Attributes:
        steps: of the values, in the order in which they were logged.
        values: as they were logged if they have one type; else of the type that `column_types` gives them: numbers are widened where that is without
            loss, any other mixture is text. Arrays are `Array`, images and the like `Media`, whose content is read from their files.
    """

    __slots__ = ("steps", "values")

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.values: list[Any] = []

    def __len__(self) -> int:
        return len(self.values)

    def settle(self) -> None:
        """Convert the values to one type where several were logged; lists and the like stay as they are."""
        values = self.values
        if len({*map(type, values)} - {type(None)}) > 1 and are_plain(values):
            self.values = as_kind(kind_of(values) or "text", values)

    def __repr__(self) -> str:
        last = f", last {self.values[-1]!r} at step {self.steps[-1]}" if self.values else ""
        return f"<Column of {len(self)}{last}>"


def put(nested: dict[str, Any], key: str, curve: Curve) -> None:
    """Put a curve where its name says. Where its name is the beginning of another, put it below that, under ""."""
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
    """Return steps as a NumPy array of integers: unsigned where a step takes 64 bits, of objects where there are negative ones too."""
    import numpy

    kind = kind_of_integers(min(steps, default=0), max(steps, default=0))
    if kind != "text":
        return numpy.array(steps, "int64")
    return numpy.array(steps, "uint64" if min(steps) >= 0 else object)


def as_array(values: list[Any]) -> Any:
    """Return values as a NumPy array of numbers or texts, by the rule of `column_types`.

    Arrays of one shape are stacked: their dimensions come after the first. Any other mixture becomes an array of objects.
    """
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
