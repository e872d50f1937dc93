"""Cuts: what the sessions of a resumed run logged again. Runs anywhere."""

from __future__ import annotations

from typing import Literal

History = Literal["all", "last"]

Cuts = list[dict[str, int]]
"""For each session, the step from which on a key was logged again in a later one."""


def cuts_of(firsts: list[dict[str, int]]) -> Cuts:
    """Find what was logged again, of the least step of each key in each session."""
    cuts: Cuts = []
    later: dict[str, int] = {}
    for first in reversed(firsts):
        cuts.insert(0, later)
        later = {**later, **{key: min(step, later.get(key, step)) for key, step in first.items()}}
    return cuts
