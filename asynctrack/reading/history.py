"""History: finds what a resumed run logged again, and leaves it out. Runs anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import msgspec

from asynctrack.curves.cuts import Cuts as Cuts
from asynctrack.curves.cuts import History as History
from asynctrack.curves.cuts import cuts_of as cuts_of
from asynctrack.records.codec import Record, flatten


class LeftOut:
    """Counts what was left out of a run because it was logged again.

    Attributes:
        rows: records of which nothing is left.
        values: of other records.
    """

    __slots__ = ("rows", "values")

    def __init__(self) -> None:
        self.rows = self.values = 0

    def __bool__(self) -> bool:
        return bool(self.rows or self.values)

    def __repr__(self) -> str:
        return f"<LeftOut {self.rows} rows, {self.values} values>"


class Repeats(NamedTuple):
    """Tells what the sessions of a run logged again.

    Attributes:
        cuts: for each session the steps from which on keys are left out.
        fixed: the sessions of rings that belong to another than that in which they stand; see `host_sessions`.
    """

    cuts: Cuts
    fixed: Mapping[int, int]


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
    return cuts_of(firsts)


def without(records: Iterable[tuple[int, Record]], cuts: Cuts, left_out: LeftOut | None = None) -> Iterator[Record]:
    """Yield the records without what was logged again, and count that. A record that loses a value has flat keys."""
    left_out = LeftOut() if left_out is None else left_out
    begins = [min(cut.values(), default=None) for cut in cuts]  # most records lie before all that is cut
    for session, record in records:
        begin = begins[session] if session < len(begins) else None  # the run may have gone on meanwhile
        if begin is None or record.step < begin:
            yield record
            continue
        cut, data = cuts[session], dict(flatten(record.data))
        kept = {key: value for key, value in data.items() if key not in cut or record.step < cut[key]}
        if len(kept) == len(data):
            yield record
        elif kept:
            left_out.values += len(data) - len(kept)
            yield msgspec.structs.replace(record, data=kept)
        else:
            left_out.rows += 1
