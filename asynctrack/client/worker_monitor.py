"""Worker monitor: the thread that looks after the workers of this process, wakes them, and has another started where one is gone. Runs in the caller.

The thread of `messages` cannot: it may wait for somebody to read a stream.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Final, Protocol

from asynctrack._system import fork, messages
from asynctrack._system.background import BackgroundThread

# Between two looks. Who logs little asks for none, and what is in the queue would wait for a worker that is gone. A look takes about 10 us.
_LOOK_INTERVAL_S: Final = 0.25
# A look that comes later than this is left out: the process was stopped, as Slurm does with a job, and perhaps its worker, which is to move first.
_LATE_S: Final = 1.0
# How many items may wait for the thread. Arbitrary: it handles one in 20 us.
_MOST_ASKED: Final = 100
# How long the end of the process waits for the thread. Arbitrary: a disk that hangs may hold it up.
_LEAVE_S: Final = 1.0


class Watched(Protocol):
    """A host whose worker is looked after."""

    def look(self) -> bool:
        """Look whether the worker lives. Called on the monitor's thread, four times a second.

        Returns:
            False where nothing is to be looked after any more, until `watch` is called again.
        """


_watched: set[Watched] = set()
_looked_at = 0.0


def watch(thing: Watched) -> None:
    """Have the worker of something looked after from now on."""
    _watched.add(thing)
    monitor.ask(_nothing)  # without a watched worker the thread waits without a limit


def leave() -> None:
    """Let the thread get done with what it is at, at the end of the process: a thread of ours would die in the middle of it."""
    for pause in monitor.until_done(_LEAVE_S):
        time.sleep(pause)


def _nothing() -> None:
    pass


def _do(asked: Callable[[], object]) -> None:
    asked()
    # Where one run asks all the time the thread is never idle, and others are to be looked after too.
    if _watched and time.monotonic() - _looked_at >= _LOOK_INTERVAL_S:
        _look()


def _look() -> None:
    global _looked_at
    before, _looked_at = _looked_at, time.monotonic()
    if _looked_at - before > _LATE_S:
        return
    for thing in _watched.copy():
        _watched.discard(thing)  # first: what begins meanwhile calls `watch`
        goes_on = True
        try:
            goes_on = thing.look()
        finally:
            if goes_on:
                _watched.add(thing)


monitor: BackgroundThread[Callable[[], object]] = BackgroundThread(
    _do,
    _MOST_ASKED,
    failed=functools.partial(messages.warn_of_failure, "looking after the worker"),
    idle=_look,
    idle_after=lambda: _LOOK_INTERVAL_S if _watched else None,
)

fork.in_child(_watched.clear)
