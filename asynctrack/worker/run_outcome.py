"""Run outcome: how a run has ended, by how the processes that logged to it have. Runs in the worker. Standard library only."""

from __future__ import annotations

import os
import time

from asynctrack.queue.layout import END, ENDS, EXITING, PID, PREEMPTED
from asynctrack.queue.ring import Ring
from asynctrack.worker.caller_exit import Caller

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    from collections.abc import Sequence

# A process that loses its lock without a word is about to end, or goes on as another program by `exec`, which cannot be told.
_LAST_BREATH_S = 1.0
# How long the exit code of a process is waited for that has said all it has to. Arbitrary: what libraries do at the end takes seconds.
_LONGEST_EXIT_S = 60.0
# How long the run waits for those that outlive its owner and say nothing, where that does not say. The default of `Settings.straggler_s`.
STRAGGLER_S = 30.0
# What is said of an owner that ended well without a word.
SILENT = "it ended without a word, by os._exit"


class RingOutcome:
    """The end of one process: its own word, and the kernel's.

    Attributes:
        ring: of the process.
        declared: one of `ENDS`; "open" where it declared none.
        is_root: whether it has opened the run.
        owns: whether it says that the run's status is its own, though another may have opened the run.
        has_joined: whether it is another process than the one that has opened the run, or a forked child of another.
        writer: its label, where its ring has one; a forked child has none of its own.
        pid: of the process.
        ended_at: when its end was seen; monotonic seconds.
        reported: whether the journal has it, where it is a child's failure.
        told: how the journal says that the process has ended, and why; None as long as it does not.
    """

    def __init__(self, ring: Ring, caller: Caller | None) -> None:
        self.ring = ring
        # Somebody may have written over the word.
        self.declared = ENDS[ring.words[END]] if ring.words[END] < len(ENDS) else ENDS[0]
        self.is_root = is_root(ring)
        self.owns = ring.meta.get("owner") == "True"
        self.has_joined = "writer" in ring.meta and not self.is_root
        self.writer: str | None = None if ring.meta.get("forked") == "True" else ring.meta.get("writer")
        self.pid = ring.words[PID] if caller is None else caller.pid
        self.ended_at = time.monotonic()
        self.reported = False
        self.told: tuple[str, str | None] | None = None
        self._caller = caller
        self._gives_up_at = time.monotonic() + _LONGEST_EXIT_S

    def is_open(self) -> bool:
        """Return whether its exit code is still to come: the process ends, and had nothing to say against it."""
        exits = self.declared == "finished" and bool(self.ring.words[EXITING]) and self._caller is not None
        return exits and not self.has_exited() and time.monotonic() < self._gives_up_at

    def why(self) -> str | None:
        """Say what the kernel says against it; None where it says nothing."""
        return self._caller.why() if self._caller is not None and self._says_no_end() else None

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

    def writer_status(self) -> str:
        """Decide how it ended as one writer among several: "finished", "failed", "crashed" or "terminated".

        A process that its parent ends by SIGTERM, as pools and launchers do, has not crashed, also where it was ending just then; one that ends with exit
        code 0 has finished, as a child of `multiprocessing` does by `os._exit`.
        """
        if self._caller is not None and self._says_no_end() and self._caller.was_terminated():
            return "finished" if self._caller.is_well() else "terminated"
        if self.left_silently():
            return "crashed" if self.is_root else "finished"
        status = self.status()
        return "crashed" if status == "open" else "finished" if status == "left" else status

    def _says_no_end(self) -> bool:
        """Return whether its own word leaves open how it ends: it has said nothing, or that it ends, and its exit code may say more."""
        return self.declared == "open" or (self.declared == "finished" and bool(self.ring.words[EXITING]))

    def left_silently(self) -> bool:
        """Return whether it ended well, and said nothing of it."""
        return self.declared == "open" and self._caller is not None and self._caller.went_silently()

    def may_be_daemon(self) -> bool:
        """Return whether it may have left its forked children as daemons: it ended well without a word, or nobody saw how."""
        return self.declared == "open" and (self.left_silently() or self.is_blind())

    def is_blind(self) -> bool:
        """Return whether nobody here can tell how the process ended but by its own word: it had ended before this worker came."""
        return self._caller is None and self.ring.words[PID] != os.getpid()

    def is_child_of(self, owner: RingOutcome) -> bool:
        """Return whether it is a forked child of the run's owner. Who has opened the run is none of one that has joined."""
        if owner.is_root:
            return not self.has_joined
        said, owner_said = self.ring.meta, owner.ring.meta
        return said.get("forked") == "True" and said.get("writer") == owner_said.get("writer")

    def has_exited(self) -> bool:
        """Return whether its process has ended; also where nobody can tell."""
        return self._caller is None or self._caller.has_ended()


def breathes(caller: Caller | None, since: float) -> bool:
    """Return whether a process that has lost its ring's lock at `since` is still about to end."""
    return caller is not None and not caller.has_ended() and time.monotonic() - since < _LAST_BREATH_S


def run_outcome(outcomes: Sequence[RingOutcome]) -> tuple[str, str | None]:
    """Decide how the run ended, and why where the journal does not know.

    Its owner decides: by what it said, or how it died; without a word it has crashed, whatever others said. An owner that left its forked children by
    `os._exit(0)` has made a daemon of them, perhaps before any worker saw it: then the last word counts of those children that have outlived it, and of
    all where no owner is known. An owner that has joined decides alone: who has opened the run, and its children, are others.

    Args:
        outcomes: of the run's processes, in the order in which they have ended.
    """
    owner = owner_of(outcomes)
    own = _own(outcomes, owner)
    if any(outcome.ring.words[PREEMPTED] for outcome in own):
        return "preempted", None
    if owner is not None:
        if (status := owner.status()) in ("finished", "failed", "crashed"):
            return status, owner.why()
        if not owner.may_be_daemon():
            return "crashed", None
    outlived_by = own
    if owner is not None:
        outlived_by = [outcome for outcome in outcomes[outcomes.index(owner) + 1 :] if outcome.is_child_of(owner)]
    words = [status for outcome in outlived_by if (status := outcome.status()) != "left"]
    if words and words[-1] in ("finished", "failed"):
        return words[-1], None
    return "crashed", SILENT if owner is not None and owner.left_silently() else None


def _own(outcomes: Sequence[RingOutcome], owner: RingOutcome | None) -> list[RingOutcome]:
    """Return the owner and its forked children, as far as any can be told apart from those of others."""
    if owner is not None and not owner.is_root:
        return [owner]
    return [outcome for outcome in outcomes if outcome is owner or not (outcome.has_joined or outcome.is_root)]


def is_root(ring: Ring) -> bool:
    """Return whether the process of a ring has opened the run."""
    return ring.meta.get("root") == "True"


def owns(ring: Ring) -> bool:
    """Return whether the run may end as the process of a ring does."""
    return is_root(ring) or ring.meta.get("owner") == "True"


def straggler_s(owner: Ring) -> float:
    """Return for how long others may say nothing after the owner's end, until the run ends without them."""
    try:
        return float(owner.meta["straggler_s"])
    except (KeyError, ValueError):
        return STRAGGLER_S


def owner_of(outcomes: Sequence[RingOutcome]) -> RingOutcome | None:
    """Find the process whose end is that of the run: the one that says so, else the one that has opened the run; the last, where it was resumed."""
    owning = [outcome for outcome in outcomes if outcome.owns]
    opening = [outcome for outcome in outcomes if outcome.is_root]
    return next(reversed(owning or opening), None)
