"""Comparing: what the operators of expressions mean. What is missing, or does not compare, makes every comparison false but one with null."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, Final

from asynctrack.records.expressions.subject import MISSING

Compare = Callable[[Any, Any], bool]


def compares(left: Any, right: Any) -> bool:
    """Return True for two numbers, two texts, or where one is null."""
    if left is MISSING or right is MISSING:
        return False
    if left is None or right is None:
        return True
    numbers = isinstance(left, int | float) and isinstance(right, int | float)
    return numbers or (isinstance(left, str) and isinstance(right, str))


def _is_nothing(value: Any) -> bool:
    return value is None or value is MISSING


def _ordered(compare: Compare) -> Compare:
    def test(left: Any, right: Any) -> bool:
        if isinstance(left, list | tuple):
            return any(test(item, right) for item in left)
        if isinstance(right, list | tuple):
            return any(test(left, item) for item in right)
        return left is not None and right is not None and compares(left, right) and bool(compare(left, right))

    return test


def equal(left: Any, right: Any) -> bool:
    """Compare; a list is equal to each of its items, and null to what is missing."""
    if left is None or right is None:
        return _is_nothing(left) and _is_nothing(right)
    if isinstance(left, list | tuple):
        return any(equal(item, right) for item in left)
    if isinstance(right, list | tuple):
        return any(equal(left, item) for item in right)
    return compares(left, right) and bool(left == right)


def unequal(left: Any, right: Any) -> bool:
    """Compare; a list is unequal to what is none of its items, and null to all that there is."""
    if left is None or right is None:
        return not (_is_nothing(left) and _is_nothing(right))
    if isinstance(left, list | tuple):
        return right is not MISSING and not equal(left, right)
    if isinstance(right, list | tuple):
        return left is not MISSING and not equal(left, right)
    return compares(left, right) and bool(left != right)


OPERATORS: Final[dict[str, Compare]] = {
    "<": _ordered(operator.lt), "<=": _ordered(operator.le), ">": _ordered(operator.gt), ">=": _ordered(operator.ge),
    "==": equal, "!=": unequal,
}  # fmt: skip


def among(value: Any, items: Sequence[Any]) -> bool:
    """Return True if a value, or an item of it, is one of several."""
    return any(equal(value, item) for item in items)


def not_among(value: Any, items: Sequence[Any]) -> bool:
    """Return True if a value compares with one of several at least, and is none of them."""
    may = isinstance(value, list | tuple) or any(compares(value, item) for item in items)
    return may and not among(value, items)


def contained(value: Any, whole: Any) -> bool:
    """Return True for an item of a list, and for a part of a text."""
    if isinstance(whole, list | tuple):
        return any(equal(value, item) for item in whole)
    return isinstance(whole, str) and isinstance(value, str) and value in whole


def not_contained(value: Any, whole: Any) -> bool:
    """Return True where there is a list or a text, and a value is not in it."""
    if isinstance(whole, list | tuple):
        return value is not MISSING and not contained(value, whole)
    return isinstance(whole, str) and isinstance(value, str) and value not in whole
