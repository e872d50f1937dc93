"""Which run is the current one, by task and thread. Runs in the caller."""

from __future__ import annotations

import contextlib
import contextvars
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asynctrack.run import Run

# What this task or thread, or the one that began it, has opened; the last is the current one for as long as it is open.
_opened: contextvars.ContextVar[tuple[Run, ...]] = contextvars.ContextVar("asynctrack_runs", default=())
# What is open in this process. A list: what runs at any moment (a signal handler, another thread) finds it whole.
_open: list[Run] = []


def current() -> Run | None:
    """The open run that was opened last in this task or thread, else in this process; None when none is open."""
    for run in reversed(_opened.get()):
        if run in _open:
            return run
    with contextlib.suppress(IndexError):
        return _open[-1]
    return None


def opened() -> list[Run]:
    """All open runs of this process, in the order in which they were opened."""
    return list(_open)


def enter(run: Run) -> None:
    """Make a run the current one."""
    _open.append(run)
    _opened.set((*_still_open(), run))


def leave(run: Run) -> None:
    """The run has finished: it is nobody's current one."""
    with contextlib.suppress(ValueError):  # it has finished before
        _open.remove(run)
    _opened.set(_still_open())


def _still_open() -> tuple[Run, ...]:
    return tuple(run for run in _opened.get() if run in _open)
