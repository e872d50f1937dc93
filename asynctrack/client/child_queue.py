"""Child queue: gets a forked child a queue of its own in its parent's run, with the first that it records. Runs in the caller.

Until then a child has nothing: no ring, no worker, no thread. So a fork costs those nothing that do not log.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from typing import Final

from asynctrack._system.wording import counted
from asynctrack.client.run_queue import RunQueue
from asynctrack.client.run_warnings import RunWarnings
from asynctrack.client.write_gate import FORKED, REOPENING, WriteGate

# Between two tries to make a queue for a forked child. Arbitrary: it takes a fraction of a millisecond.
_JOIN_INTERVAL_S: Final = 1.0


class ChildQueue:
    """Makes the queue of a forked child.

    Attributes:
        begun: called when the child has got its queue, and when it has records without one: then its end has something to do.

    Args:
        queue: of the run.
        gate: of the run.
        warnings: of the run.
    """

    def __init__(self, queue: RunQueue, gate: WriteGate, warnings: RunWarnings) -> None:
        self.begun: list[Callable[[], object]] = []
        self._queue = queue
        self._gate = gate
        self._warnings = warnings
        self._lock = threading.RLock()
        self._early: list[bytes] = []  # records of signal handlers and finalisers while the queue is made
        self._join_at = 0.0
        self._turned_away = 0
        self._told = 0  # how many of the dropped ones were reported
        self._why = ""

    def after_fork(self) -> None:
        """Begin anew in a forked child; the parent counts what it has turned away itself."""
        self._lock = threading.RLock()
        self._early = []
        self._join_at = 0.0
        self._turned_away = self._told = 0

    def make(self, *, at_once: bool = False) -> list[bytes]:
        """Make the queue, if there is none; another thread that makes it is waited for.

        Args:
            at_once: whether to try it again however short ago the last try was.

        Returns:
            The records of signal handlers and finalisers that came in between. They have been accepted, and are to be put into it.

        Raises:
            Exception: there is no room, it has just been tried, or an audit hook of the user is against it.
        """
        with self._lock:
            if self._gate.state is FORKED:
                self._join(at_once=at_once)
            if self._gate.state is REOPENING:  # this call interrupts the one that makes the queue
                return []
            early, self._early = self._early, []
            return early

    def make_for(self, payload: bytes) -> list[bytes] | None:
        """Make the queue for a record.

        Returns:
            The records that came in between, see `make`. None: the record is one of those.

        Raises:
            Exception: see `make`.
        """
        with self._lock:
            if self._gate.state is REOPENING:
                self._early.append(payload)
                return None
            return self.make()

    def turn_away(self, error: Exception) -> None:
        """Count a record for which there is no queue; the queue is told when there is one."""
        self._turned_away += 1
        if not isinstance(error, BlockingIOError):
            self._join_at = time.monotonic() + _JOIN_INTERVAL_S
            self._why = str(error)
            if self._warnings.is_due("full"):
                self._told = self._turned_away
                dropped = counted(self._turned_away, "record")
                self._warnings.warn("full", f"{dropped} of this process dropped so far: {error}")
        self._begin()

    @property
    def has_early(self) -> bool:
        """Tell whether records were accepted for which there is no queue yet."""
        return bool(self._early)

    def turn_early_away(self, error: Exception) -> None:
        """Count what was accepted and gets no queue any more, because the run ends."""
        early, self._early = self._early, []
        self._turned_away += len(early)
        self._why = str(error)

    def report(self) -> None:
        """Say how many records were turned away in all, where that was not said."""
        if self._turned_away > self._told:
            self._told = self._turned_away
            dropped = counted(self._turned_away, "record was", "records were")
            self._warnings.warn("dropped", f"{dropped} dropped in all by this process, which has no queue: {self._why}")

    def _begin(self) -> None:
        for begun in list(self.begun):
            begun()

    def _join(self, *, at_once: bool) -> None:
        self._gate.change("reopen")
        try:
            if time.monotonic() < self._join_at and not at_once:
                raise BlockingIOError(errno.EAGAIN, "the last attempt failed a moment ago")
            self._queue.join()
            if self._turned_away:
                self._queue.producer.drop("full", self._turned_away)
            self._gate.lead_to(self._queue.producer.put)
            self._gate.change("reopened")
            self._begin()
            self._queue.serve()
        finally:
            if self._gate.change("not reopened") and self._early:  # where it has been, this changes nothing
                self._begin()
