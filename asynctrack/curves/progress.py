"""Progress: how far a journal was read into a pyramid, and what came of it beside rows and totals. Runs anywhere."""

from __future__ import annotations

from typing import NamedTuple

from asynctrack.curves.cuts import CutCounts, Cuts
from asynctrack.curves.media_counts import NamedMedium
from asynctrack.journal.layout import Position
from asynctrack.journal.reader import Damage


class Progress(NamedTuple):
    """Says how far a journal was read.

    Attributes:
        journal: its id.
        position: behind the last batch.
        ends: for each ring the end of its last batch.
        last: the number of the session that has begun last.
        begun: whether a session has begun.
        firsts: for each session the least step of each key.
        cuts: for each session the steps from which on keys are left out.
        fixed: the sessions of rings that belong to another than that in which they stand.
        left_out: what was cut.
        media: that were logged, by kind.
        newest: of these.
        damage: that was met.
        rounded: whether a step, a time or an integer was beyond 64 bits, and is not as it was logged.
    """

    journal: bytes
    position: Position
    ends: dict[int, int]
    last: int
    begun: bool
    firsts: list[dict[str, int]]
    cuts: Cuts
    fixed: dict[int, int]
    left_out: CutCounts
    media: dict[str, int]
    newest: list[NamedMedium]
    damage: list[Damage]
    rounded: bool
