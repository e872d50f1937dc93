"""Which run is the current one, by task and thread. Runs in the caller."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asynctrack.run import Run

_current: contextvars.ContextVar[Run | None] = contextvars.ContextVar("asynctrack_run", default=None)
_latest: Run | None = None


def current() -> Run | None:
    """The run that was opened last in this task or thread, else in this process; None when none is open."""
    return _current.get() or _latest


def enter(run: Run) -> None:
    """Make a run the current one."""
    global _latest
    _latest = run
    _current.set(run)


def leave(run: Run) -> None:
    """The run has finished: it is nobody's current one."""
    global _latest
    if _latest is run:
        _latest = None
    if _current.get() is run:
        _current.set(None)
