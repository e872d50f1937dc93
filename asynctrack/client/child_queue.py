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
        joined: called when the child has got its queue.

    Args:
        queue: of the run.
        gate: of the run.
        warnings: of the run.
    """

    def __init__(self, queue: RunQueue, gate: WriteGate, warnings: RunWarnings) -> None:
        self.joined: list[Callable[[], object]] = []
        self._queue = queue
        self._gate = gate
        self._warnings = warnings
        self._lock = threading.RLock()
        self._early: list[bytes] = []  # records of signal handlers and finalisers while the queue is made
        self._join_at = 0.0
        self._turned_away = 0

    def after_fork(self) -> None:
        """Begin anew in a forked child; the parent counts what it has turned away itself."""
        self._lock = threading.RLock()
        self._early = []
        self._join_at = 0.0
        self._turned_away = 0

    def make(self) -> list[bytes]:
        """Make the queue, if there is none; another thread that makes it is waited for.

        Returns:
            The records of signal handlers and finalisers that came in between. They have been accepted, and are to be put into it.

        Raises:
            Exception: there is no room, it has just been tried, or an audit hook of the user is against it.
        """
        with self._lock:
            if self._gate.state is FORKED:
                self._join()
            if self._gate.state is REOPENING:  # this call came in between, too
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
            dropped = counted(self._turned_away, "record")
            self._warnings.warn("full", f"{dropped} of this process dropped so far: {error}")

    def _join(self) -> None:
        self._gate.change("reopen")
        try:
            if time.monotonic() < self._join_at:
                raise BlockingIOError(errno.EAGAIN, "it has just been tried")
            self._queue.join()
            if self._turned_away:
                self._queue.producer.drop("full", self._turned_away)
            self._gate.lead_to(self._queue.producer.put)
            self._gate.change("reopened")
            for joined in self.joined:
                joined()
            self._queue.serve()
        finally:
            self._gate.change("not reopened")  # where it has been, this changes nothing
