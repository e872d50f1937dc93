"""Unsynced tail: cuts off what a power cut has damaged of what was merged and not yet acknowledged: the hosts have it still, and it comes again.

A worker keeps what is whole of a damaged batch, since nobody else has it. A merger must not: it would take the whole batch for a repeat.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from asynctrack.journal.layout import Position, segment_name
from asynctrack.journal.reader import Reader, segments


def cut_damaged(journal: Path, end: Position) -> None:
    """Cut a merged journal back to where the first damage begins behind a place; before a writer opens it.

    Args:
        journal: its directory.
        end: up to where it was synced and acknowledged. What is damaged before that stays: its host may be gone.

    Raises:
        OSError: it cannot be read, or cut.
    """
    whole = _find_damage(journal, end)
    if whole is None or not whole.segment:
        return
    directory = os.fspath(journal)
    for number in reversed(segments(directory)):
        if number > whole.segment:
            os.unlink(os.path.join(directory, segment_name(number)))
    os.truncate(os.path.join(directory, segment_name(whole.segment)), whole.offset)


def _find_damage(journal: Path, end: Position) -> Position | None:
    """Find the place up to which all is whole; None where all is, or where only the last batch is torn: recovery sees to that."""
    whole = end
    with contextlib.closing(Reader(journal, end)) as reader:
        for batch in reader:
            if reader.damage:
                return whole
            whole = batch.after
        return whole if reader.damage else None
