"""Open runs: the open runs of this process, and the current one of each task and thread. Runs in the caller."""

from __future__ import annotations

import contextlib
import contextvars
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")


class OpenRuns(Generic[T]):
    """Keep the open runs. Any thread, task and signal handler may call it."""

    def __init__(self) -> None:
        # What this task or thread, or the one that began it, has opened; the last is the current one for as long as it is open.
        self._opened: contextvars.ContextVar[tuple[T, ...]] = contextvars.ContextVar("asynctrack_runs", default=())
        # A list: what runs at any moment (a signal handler, another thread) finds it whole.
        self._open: list[T] = []

    def current(self) -> T | None:
        """Return the run that was opened last and is still open, in this task or thread if there is one, else in this process; else None."""
        for run in reversed(self._opened.get()):
            if run in self._open:
                return run
        with contextlib.suppress(IndexError):
            return self._open[-1]
        return None

    def all(self) -> list[T]:
        """List the open runs in the order in which they were opened."""
        return list(self._open)

    def enter(self, run: T) -> None:
        """Make a run the current one."""
        self._open.append(run)
        self._opened.set((*self._still_open(), run))

    def leave(self, run: T) -> None:
        """Remove a run that has finished."""
        with contextlib.suppress(ValueError):  # it has finished before
            self._open.remove(run)
        self._opened.set(self._still_open())

    def _still_open(self) -> tuple[T, ...]:
        return tuple(run for run in self._opened.get() if run in self._open)


# Of the class `Run`, which stands above this module.
open_runs: Final[OpenRuns[Any]] = OpenRuns()
