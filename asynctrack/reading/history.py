"""History: finds what a resumed run logged again, and leaves it out. Runs anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec

from asynctrack.records.codec import Record, flatten

History = Literal["all", "last"]

Cuts = list[dict[str, int]]
"""For each session, the step from which on a key was logged again in a later one."""


def find_cuts(records: Iterable[tuple[int, Record]]) -> Cuts:
    """Find what was logged again.

    Args:
        records: each with the number of its session, from 0.
    """
    firsts: list[dict[str, int]] = []
    for session, record in records:
        firsts += ({} for _ in range(len(firsts), session + 1))
        first = firsts[session]
        for key, _ in flatten(record.data):
            first[key] = min(record.step, first.get(key, record.step))
    cuts: Cuts = []
    later: dict[str, int] = {}
    for first in reversed(firsts):
        cuts.insert(0, later)
        later = {**later, **{key: min(step, later.get(key, step)) for key, step in first.items()}}
    return cuts


def without(records: Iterable[tuple[int, Record]], cuts: Cuts) -> Iterator[Record]:
    """Yield the records without what was logged again. A record that loses a value has flat keys."""
    for session, record in records:
        cut = cuts[session] if session < len(cuts) else {}  # the run may have gone on meanwhile
        data = dict(flatten(record.data)) if cut else record.data
        kept = {key: value for key, value in data.items() if key not in cut or record.step < cut[key]}
        if len(kept) == len(data):
            yield record
        elif kept:
            yield msgspec.structs.replace(record, data=kept)
