"""Run end: how a run ended, where that is the last that its journal tells. Runs anywhere."""

from __future__ import annotations

import os
from typing import Literal

from asynctrack.journal.backwards import backwards
from asynctrack.journal.layout import Position
from asynctrack.journal.manifest import read_note
from asynctrack.queue.layout import NOTE

End = Literal["finished", "failed", "crashed", "preempted"]


def ended_at(journal: str | os.PathLike[str], position: Position) -> End | None:
    """Return how the run ended, if that lies right before a place which is the journal's end; else None.

    Args:
        journal: its directory.
        position: the place.
    """
    last = next(backwards(journal, notes=True), None)
    frames = list(last.frames()) if last is not None and last.after == position else []
    if frames and frames[-1].kind == NOTE and (note := read_note(frames[-1]))["note"] == "run_ended":
        status: End = note["status"]
        return status
    return None
