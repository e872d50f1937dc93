"""Open runs: the open runs of this process, and the current one of each task and thread. Runs in the caller."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")


class OpenRuns(Generic[T]):
    """Keep the open runs. Any thread, task and signal handler may call it."""

    def __init__(self) -> None:
        # What this task or thread, or the one that began it, has opened; the last is the current one for as long as it is open.
        self._opened: contextvars.ContextVar[tuple[T, ...]] = contextvars.ContextVar("asynctrack_runs", default=())
        # A list, since its methods are atomic: a signal handler or another thread never finds it half changed.
        self._open: list[T] = []

    def current(self) -> T | None:
        """Return the run that was opened last and is still open, in this task or thread if there is one, else in this process; else None."""
        opened = self._opened.get()
        if opened and opened[-1] in self._open:  # nearly always
            return opened[-1]
        for run in reversed(opened):
            if run in self._open:
                return run
        with contextlib.suppress(IndexError):
            return self._open[-1]
        return None

    def all(self) -> list[T]:
        """List the open runs in the order in which they were opened."""
        return list(self._open)

    def open_here(self, is_meant: Callable[[T], bool]) -> T | None:
        """Return the run that was opened last of those that are meant and still open; None where there is none."""
        return next((run for run in reversed(self._open) if is_meant(run)), None)

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


# Its items are of the class `Run`, whose module imports this one.
open_runs: Final[OpenRuns[Any]] = OpenRuns()
