"""Left runs: ends this process's part in the runs that it was never given, and that its ancestor has left. Runs in the caller.

A pool that is kept from one run to the next would have a queue of each of them for good. The last one that was left stays open: a thread may be about to log to
it. So does any that code outside has been given, which may log to it at any time.
"""

from __future__ import annotations

from typing import Final

from asynctrack._system import fork
from asynctrack.client.run import Run

_given: Final[set[Run]] = set()
_left: Final[list[Run]] = []


def keep(run: Run) -> None:
    """Take note that code outside has a run."""
    for before in [before for before in _given if not before.is_open]:
        _given.discard(before)
    _given.add(run)


def leave(run: Run, goes_on_with: Run) -> None:
    """Take note that this process has gone on from a run to another, and end its part in those that it has left before."""
    earlier = [one for one in _left if one is not run and one is not goes_on_with]
    _left[:] = [run]
    for one in earlier:
        if one.is_open and one not in _given:
            _end(one)


def _end(run: Run) -> None:
    """End this process's part without a wait: the worker has what is in the queue, and the process of the run has told of its end."""
    for _ in run._session.finishing(None, timeout_s=0.0):
        pass
    run._settle(waited=False)


@fork.in_child
def _after_fork_in_child() -> None:
    _given.clear()
    _left.clear()
