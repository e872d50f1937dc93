"""Process ends: notes in a run's journal how each of its processes has ended, and again where its exit code says otherwise. Runs in the worker.

Standard library only.
"""

from __future__ import annotations

import time

from asynctrack.worker.run_outcome import SILENT, RingOutcome

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeAlias

    Note: TypeAlias = Callable[[dict[str, Any]], object]


class ProcessEnds:
    """Notes the ends of one run's processes.

    Its methods take `note`, which journals a note. An attribute that held it would make a reference cycle with the run's journal, and its rings would stay
    mapped until the garbage collector runs, which hardly ever happens in a worker.

    Args:
        path: the run's directory.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def note(self, outcome: RingOutcome, note: Note) -> None:
        """Note how a process has ended; one that has joined the run is named in the log where it failed."""
        ring = outcome.ring
        outcome.told = status, why = outcome.writer_status(), outcome.why()
        why = SILENT if why is None and outcome.is_root and outcome.left_silently() else why
        who = {} if outcome.writer is None else {"writer": outcome.writer}
        note({
            "note": "ring_ended", "ring": f"{ring.id:016x}", "end": outcome.declared, "dropped": ring.dropped(), **who,
            "pid": outcome.pid, "status": status, "error": why, "blind": outcome.is_blind(), "time_ns": time.time_ns(),
        })  # fmt: skip
        if outcome.has_joined and outcome.writer is not None and status in ("crashed", "failed"):
            told = f"{status}: {why}" if why else status
            _warn(f"{outcome.writer}, process {outcome.pid}, which wrote to {self._path}, has {told}")

    def note_news(self, ended: Sequence[RingOutcome], note: Note) -> bool:
        """Note what the kernel has said since of processes that have ended; returns whether there was anything."""
        return self._note_late(ended, note) | self._note_failed_children(ended, note)

    def _note_late(self, ended: Sequence[RingOutcome], note: Note) -> bool:
        late = [outcome for outcome in ended if outcome.told not in (None, (outcome.writer_status(), outcome.why()))]
        for outcome in late:
            self.note(outcome, note)
        return bool(late)

    def _note_failed_children(self, ended: Sequence[RingOutcome], note: Note) -> bool:
        failed = [
            (outcome, why)
            for outcome in ended
            if not (outcome.is_root or outcome.writer is not None or outcome.reported)
            and (why := outcome.child_error())
        ]
        for outcome, why in failed:
            note({"note": "child_failed", "child": outcome.pid, "error": why})
            outcome.reported = True
            _warn(f"process {outcome.pid}, a child of the one that has opened {self._path}: {why}")
        return bool(failed)


def _warn(message: str) -> None:
    import logging

    logging.getLogger("asynctrack.worker").warning(message)
