"""Conflicts: of which names of a run's config and summary two writers have set different values. Runs anywhere.

The last value counts, as `registers` decides. That it was not the only one is kept, so that somebody is told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from asynctrack.journal.registers import Stamp

# How many are kept: a program may set thousands of names. Arbitrary.
MOST_CONFLICTS: Final = 100
# Names of ours begin so: each process adds to them, and keeps its own artifacts.
_OURS: Final = ("_", "artifacts/")


class Conflict(msgspec.Struct, frozen=True, kw_only=True):
    """Tells of one name that several writers have set, and not to the same.

    Attributes:
        what: "config" or "summary".
        key: the name.
        writers: the labels of the first two of them.
    """

    what: str
    key: str
    writers: list[str] = []


def learn(
    known: list[Conflict], what: str, content: Mapping[str, Any], stamps: Mapping[str, Stamp], ring: str,
    fresh: Mapping[str, Any], label_of: Callable[[str], str | None], opener: str | None = None,
) -> list[Conflict]:  # fmt: skip
    """Return the conflicts with those that a change makes, before it is admitted.

    Args:
        known: those so far.
        what: "config" or "summary".
        content: its values.
        stamps: which change of each name counts.
        ring: through which the change came.
        fresh: the values that it sets.
        label_of: the label of a ring; None of a forked child's, which sets what it sets for its parent.
        opener: the label of the process that has set what no change has set, as it opened the run; None where none has.
    """
    mine = label_of(ring)
    if mine is None:
        return known
    seen = {(one.what, one.key) for one in known}
    found = []
    for key, value in fresh.items():
        before = stamps.get(key)
        if key not in content or key.startswith(_OURS) or (what, key) in seen:
            continue
        other = opener if before is None else label_of(before[1])
        if other not in (None, mine) and not _is_same(content[key], value):
            found.append(Conflict(what=what, key=key, writers=[str(other), mine]))
    return [*known, *found][:MOST_CONFLICTS] if found else known


def describe(conflict: Conflict) -> str:
    """Say in words what a conflict is."""
    return f"{conflict.what}[{conflict.key!r:.80}] was set to different values by {' and '.join(conflict.writers)}"


def _is_same(one: object, other: object) -> bool:
    """Return whether two values are equal, or both no number; what cannot be compared is not."""
    try:
        return bool(one == other) or (one != one and other != other)
    except Exception:  # values of others, such as arrays, compare as they like
        return False
