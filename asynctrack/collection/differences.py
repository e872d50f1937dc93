"""Differences: what is not the same in all of several runs. Runs anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from asynctrack.records.codec import flatten

_PLAIN: Final = frozenset({float, int, str, bool, type(None)})
_MISSING: Final = object()


def flat(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return nested values by flat names, joined by `/`."""
    if _PLAIN.issuperset(map(type, values.values())):
        return values
    return dict(flatten(values))


def differing(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names whose values differ, in the order in which they first come. One that some runs lack differs.

    Args:
        runs: the values of each, by flat names.
    """
    if not runs:
        return []
    first, *others = runs
    found: dict[str, None] = {}
    same = dict(first)
    for values in others:
        if values.keys() != first.keys():
            found.update((name, None) for name in values if name not in first)
        gone = [name for name, value in same.items() if not _are_equal(values.get(name, _MISSING), value)]
        for name in gone:
            found[name] = None
            del same[name]
    order = {name: at for at, name in enumerate(dict.fromkeys(name for values in runs for name in values))}
    return sorted(found, key=order.__getitem__)


def _are_equal(one: Any, other: Any) -> bool:
    """Return True for values that people take for the same: NaN and NaN, 1 and 1.0; not 1 and True."""
    if type(one) is type(other) and one == other:
        return True
    if isinstance(one, bool) is not isinstance(other, bool):
        return False
    return bool(one == other) or (one != one and other != other)
