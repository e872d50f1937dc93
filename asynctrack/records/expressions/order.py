"""Order: by what runs are sorted: `-max(val/acc)`, or several with commas between, the first before the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from asynctrack.records.expressions.subject import Subject
from asynctrack.records.expressions.term import directed

T = TypeVar("T")


class Order:
    """An order, parsed. A `-` puts the greatest first.

    Attributes:
        text: in its canonical form.
        terms: by which it sorts, each with True where the greatest comes first.

    Raises:
        InvalidExpression: it cannot be parsed.
    """

    def __init__(self, text: str) -> None:
        self.terms = directed(text)
        # A blank behind a `-` would do no harm; a backquote may stand there.
        self.text = ", ".join("-" * minus + term.text for term, minus in self.terms)

    def __repr__(self) -> str:
        return f"Order({self.text!r})"

    def sorted(self, items: Iterable[T], subject: Callable[[T], Subject]) -> list[T]:
        """Sort things by what their subjects have; what has nothing, or NaN, comes last either way, and what is alike stays as it was.

        Raises:
            UnknownGoal: it asks for the best of a metric, and nobody has said whether less or more of it is better.
        """
        found = list(items)
        for term, minus in reversed(self.terms):
            keyed = [(_key(term.of(subject(item))), item) for item in found]
            there = [(key, item) for key, item in keyed if key is not None]
            there.sort(key=lambda pair: pair[0], reverse=minus)
            found = [item for _, item in there] + [item for key, item in keyed if key is None]
        return found

    def what_is_missing(self, nothing: str = "no run") -> str:
        """Say which names nothing has had that was asked; see `Condition`."""
        return self.terms[0][0].what_is_missing(nothing)


def _key(value: Any) -> tuple[int, Any] | None:
    """Return what a value is sorted by: numbers go before texts, and these before the rest."""
    if isinstance(value, int | float):
        return (0, value) if value == value else None
    if isinstance(value, str):
        return (1, value)
    if isinstance(value, list | tuple) and value:
        return (2, ", ".join(map(str, value)))
    return None
