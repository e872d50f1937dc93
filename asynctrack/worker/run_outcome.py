"""Run outcome: how a run has ended, by how the processes that logged to it have. Runs in the worker. Standard library only."""

from __future__ import annotations

import time

from asynctrack.queue.layout import END, ENDS, EXITING, PID, PREEMPTED
from asynctrack.queue.ring import Ring
from asynctrack.worker.caller_exit import Caller

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    from collections.abc import Sequence

# A process that has lost its lock without a word is about to end, but where it goes on as another program: then nobody can tell.
_LAST_BREATH_S = 1.0
# How long the exit code of a process is waited for that has said all it has to. Arbitrary: what libraries do at the end takes seconds.
_LONGEST_EXIT_S = 60.0


class RingOutcome:
    """The end of one process: its own word, and the kernel's.

    Attributes:
        ring: of the process.
        declared: one of `ENDS`; "open" where it declared none.
        is_root: whether it has opened the run.
        pid: of the process.
        reported: whether the journal has it, where it is a child's failure.
    """

    def __init__(self, ring: Ring, caller: Caller | None) -> None:
        self.ring = ring
        # Somebody may have written over the word.
        self.declared = ENDS[ring.words[END]] if ring.words[END] < len(ENDS) else ENDS[0]
        self.is_root = ring.meta.get("root") == "True"
        self.pid = ring.words[PID] if caller is None else caller.pid
        self.reported = False
        self._caller = caller
        self._gives_up_at = time.monotonic() + _LONGEST_EXIT_S

    def is_open(self) -> bool:
        """Return whether its exit code is still to come: the process ends, and had nothing to say against it."""
        exits = self.declared == "finished" and bool(self.ring.words[EXITING]) and self._caller is not None
        return exits and not self._has_exited() and time.monotonic() < self._gives_up_at

    def why(self) -> str | None:
        """Say what the kernel says against it; None where it says nothing."""
        final = self.declared in ("failed", "left") or (self.declared == "finished" and not self.ring.words[EXITING])
        return None if self._caller is None or final else self._caller.why()

    def child_error(self) -> str | None:
        """Say why a child has failed; None where it has not. SIGTERM is no failure: its parent ends it so, as a `with` block ends a pool."""
        why = self.why()
        return None if self._caller is not None and self._caller.was_terminated() else why

    def status(self) -> str:
        """Decide how it ended: one of `ENDS`, or "crashed"."""
        why = self.why()
        if why is not None:
            assert self._caller is not None
            exited = self.declared == "finished" and not self._caller.was_killed()
            return "failed" if exited else "crashed"
        well = self.declared == "open" and self._caller is not None and self._caller.is_well()
        return "finished" if well else self.declared

    def left_silently(self) -> bool:
        """Return whether it ended well, and said nothing of it."""
        return self.declared == "open" and self.is_root and self._caller is not None and self._caller.went_silently()

    def _has_exited(self) -> bool:
        return self._caller is None or self._caller.has_ended()


def breathes(caller: Caller | None, since: float) -> bool:
    """Return whether a process that has lost its ring's lock at `since` is still about to end."""
    return caller is not None and not caller.has_ended() and time.monotonic() - since < _LAST_BREATH_S


def run_outcome(outcomes: Sequence[RingOutcome]) -> tuple[str, str | None]:
    """Decide how the run ended, and why where the journal does not know.

    The process that opened it decides by what it said, or how it died; if it went without a word, what the last other said counts.
    """
    if any(outcome.ring.words[PREEMPTED] for outcome in outcomes):
        return "preempted", None
    for outcome in reversed(outcomes):
        if outcome.is_root and (status := outcome.status()) in ("finished", "failed", "crashed"):
            return status, outcome.why()
    words = [status for outcome in outcomes if (status := outcome.status()) != "left"]
    if words and words[-1] in ("finished", "failed"):
        return words[-1], None
    return "crashed", "it ended without a word, by os._exit" if any(
        outcome.left_silently() for outcome in outcomes
    ) else None
