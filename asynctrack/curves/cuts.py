"""Cuts: what the sessions of a resumed run logged again. Runs anywhere."""

from __future__ import annotations

from typing import Literal, NamedTuple

History = Literal["all", "last"]

Cuts = list[dict[str, int]]
"""For each session, the step from which on a key was logged again in a later one."""


class CutCounts(NamedTuple):
    """Counts what was left out of a run because it was logged again.

    Attributes:
        rows: records of which nothing is left.
        values: of other records.
    """

    rows: int = 0
    values: int = 0


def cuts_of(firsts: list[dict[str, int]]) -> Cuts:
    """Find what was logged again, of the least step of each key in each session."""
    cuts: Cuts = []
    later: dict[str, int] = {}
    for first in reversed(firsts):
        cuts.insert(0, later)
        later = {**later, **{key: min(step, later.get(key, step)) for key, step in first.items()}}
    return cuts
