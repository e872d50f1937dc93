"""Open means: how far a delivery of means over a run's writers has come, as its cursor keeps it.

The sums themselves are not kept: they are made again from the journal, from the first record of a step that is open.
"""

from __future__ import annotations

from typing import Final

import msgspec

from asynctrack.journal.layout import Position

# Why a record is not in the means: cursors count such ones by it.
LATE: Final = "late for its step"


class OpenMeans(msgspec.Struct, frozen=True, kw_only=True):
    """The place of a delivery of means, beside the cursor's own.

    Attributes:
        since: the batch with the first record of a step that is open; None where no step is.
        closed: steps below this one are closed; None where none is.
        reached: the highest step of each ring that has not ended; None where it has put no record since the run was opened.
        writers: the labels of this session, and whether each has a rank.
        expected: how many writers there are to be; None where nobody has said.
        rows: that were given.
    """

    since: Position | None = None
    closed: int | None = None
    reached: dict[int, int | None] = {}
    writers: dict[str, bool] = {}
    expected: int | None = None
    rows: int = 0
