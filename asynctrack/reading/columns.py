"""Columns: the values of a key with their steps, as lists and as NumPy arrays. Runs anywhere."""

from __future__ import annotations

from typing import Any, NamedTuple

from asynctrack.record import Array


class Curve(NamedTuple):
    """The values of a key as a NumPy array, and another with the steps they were logged at."""

    steps: Any
    values: Any


class Column:
    """The values of one key, and the steps they were logged at.

    Attributes:
        steps: of the values, in the order they were logged.
        values: as they were logged; arrays as `Array`, images and the like as `Media`, whose content is read from their files.
    """

    __slots__ = ("steps", "values")

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.values: list[Any] = []

    def __len__(self) -> int:
        return len(self.values)

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


def as_array(values: list[Any]) -> Any:
    """A NumPy array of numbers or texts; of arrays of one shape, with their dimensions behind the first; else of objects."""
    import numpy

    kinds = {type(value) for value in values}
    if kinds <= {int, float, bool} or kinds == {str}:
        return numpy.array(values)
    if kinds == {Array} and len({value.shape for value in values}) == 1:
        return numpy.stack([numpy.asarray(value) for value in values])
    objects = numpy.empty(len(values), object)
    for at, value in enumerate(values):
        objects[at] = value
    return objects
