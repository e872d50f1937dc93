"""Write gate: owns the answer to "may I write?" for a run in one process. Runs in the caller, in any thread, signal handler or finaliser.

Every call that records something asks the gate, and `WriteGate.state` is the whole answer. A finished run is such a state; a disabled one is in
its own from the start.

========= ================================================== =================================================================
state     the run, in this process                           `log()`
========= ================================================== =================================================================
OPEN      takes records                                      puts the record; where the queue is full, `when_full` decides
HOLDING   is open; `log(commit=False)` has kept records back puts one record of these and its own; then the run is OPEN
ENDING    is open; the process ends                          as in OPEN; `commit=False` keeps nothing back any more
FORKED    is inherited by a forked child without a queue     makes a queue, then puts the record; drops it if that fails
REOPENING gets the child's queue                             waits for the queue; a signal handler in between leaves its record
CLOSED    takes no more; `finish()` waits for delivery       raises `RunFinished`
ENDED     takes no more; the process ends                    drops the record: a daemon thread is not told off
FINISHED  is over: `finish()` has returned                   raises `RunFinished`, in forked children too
DISABLED  records nothing                                    returns True
========= ================================================== =================================================================

A queue that is full, that another thread has claimed, or whose file somebody has removed still takes records sooner or later. So these are no
states of the run: `queue.producer` deals with them, and says only that it did not take a frame.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final, Literal, Protocol


class WriteState(Enum):
    """Says whether a run takes records in this process."""

    OPEN = "open"
    HOLDING = "holding"
    ENDING = "ending"
    FORKED = "forked"
    REOPENING = "reopening"
    CLOSED = "closed"
    ENDED = "ended"
    FINISHED = "finished"
    DISABLED = "disabled"


OPEN: Final = WriteState.OPEN
HOLDING: Final = WriteState.HOLDING
ENDING: Final = WriteState.ENDING
FORKED: Final = WriteState.FORKED
REOPENING: Final = WriteState.REOPENING
CLOSED: Final = WriteState.CLOSED
ENDED: Final = WriteState.ENDED
FINISHED: Final = WriteState.FINISHED
DISABLED: Final = WriteState.DISABLED

Event = Literal["hold", "release", "exit", "close", "finish", "abandon", "fork", "reopen", "reopened", "not reopened"]

# What is not here changes nothing.
TRANSITIONS: Final[Mapping[Event, Mapping[WriteState, WriteState]]] = {
    "hold": {OPEN: HOLDING},
    "release": {HOLDING: OPEN},
    "exit": {OPEN: ENDING, HOLDING: ENDING, CLOSED: ENDED},
    "close": {OPEN: CLOSED, HOLDING: CLOSED, ENDING: ENDED},
    # From OPEN: a wait for delivery that was broken off before the queue was closed.
    "finish": {state: FINISHED for state in WriteState if state not in (FINISHED, DISABLED)},
    "abandon": {OPEN: FINISHED},
    # A child takes up what its parent was about to finish, as it would have a moment before; but nothing that has finished.
    "fork": {state: FORKED for state in WriteState if state not in (FINISHED, DISABLED)},
    "reopen": {FORKED: REOPENING},
    "reopened": {REOPENING: OPEN},
    "not reopened": {REOPENING: FORKED},
}

# In these a record goes to the queue at once; in all others `put` refuses, and `Publisher.on_put_failed` decides by the state.
_PUTS_AT_ONCE: Final = (OPEN, ENDING)
# In these the run is open, and this process has a queue for it.
IS_OPEN: Final = (OPEN, ENDING, HOLDING)

Put = Callable[[bytes], bool]


class PutHolder(Protocol):
    """Puts a run's records by a bound method that its gate sets."""

    _put: Put


class WriteGate:
    """Says whether one run takes records in this process.

    Attributes:
        state: the answer.

    Args:
        state: the first.
    """

    def __init__(self, state: WriteState = OPEN) -> None:
        self.state = state
        self._lock = threading.RLock()
        self._queue: Put = _refuse
        self._holder: PutHolder | None = None

    def __repr__(self) -> str:
        return f"<WriteGate, {self.state.value}>"

    @property
    def puts_at_once(self) -> bool:
        """Tell whether a record goes to the queue without a further look."""
        return self.state in _PUTS_AT_ONCE

    @property
    def is_writable(self) -> bool:
        """Tell whether the run is open, and this process has a queue for it."""
        return self.state in IS_OPEN

    def lead_to(self, queue: Put) -> None:
        """Lead to a queue: the first, or the one that a forked child has made."""
        self._queue = queue
        self._bind()

    def serve(self, holder: PutHolder) -> None:
        """Keep the holder's `_put` the bound method that the state asks for."""
        self._holder = holder
        self._bind()

    def leave(self) -> None:
        """Let go of who holds the method and of the queue, so that nothing of a run that has finished waits for the garbage collector."""
        if self._holder is not None:
            self._holder._put = _refuse
        self._holder, self._queue = None, _refuse

    def change(self, event: Event) -> bool:
        """Go where the table leads; return False where it leads nowhere from this state.

        Signal handlers may come in between, and change the state themselves: then theirs stays. The state is never more open than the method:
        whoever finds the method refuse, and the state open, would take the queue to be full.
        """
        with self._lock:
            before = self.state
            after = TRANSITIONS[event].get(before)
            if after is None:
                return False
            if after in _PUTS_AT_ONCE and self._holder is not None:
                self._holder._put = self._queue
            self.state = after if self.state is before else self.state  # on one line: nothing comes in between
            self._bind()
            return self.state is after

    def after_fork(self) -> None:
        """Become the gate of a forked child. The parent's threads may have held the lock."""
        self._lock = threading.RLock()
        self.change("fork")

    def _bind(self) -> None:
        """Set the bound method by which records are put. This is the one place that chooses it; a native core's is chosen here."""
        holder = self._holder
        if holder is not None:
            holder._put = self._queue if self.state in _PUTS_AT_ONCE else _refuse  # on one line, as above


def _refuse(payload: bytes) -> bool:
    """Put nothing: the `put` of a run that does not put at once."""
    return False
