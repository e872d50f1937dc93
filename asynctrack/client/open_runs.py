"""Open runs: the open runs of this process, and which of them is the current one, by task and thread. Runs in the caller."""

from __future__ import annotations

import contextlib
import contextvars
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")


class OpenRuns(Generic[T]):
    """The runs that are open. May be asked by any thread, task and signal handler."""

    def __init__(self) -> None:
        # What this task or thread, or the one that began it, has opened; the last is the current one for as long as it is open.
        self._opened: contextvars.ContextVar[tuple[T, ...]] = contextvars.ContextVar("asynctrack_runs", default=())
        # A list: what runs at any moment (a signal handler, another thread) finds it whole.
        self._open: list[T] = []

    def current(self) -> T | None:
        """The open run that was opened last in this task or thread, else in this process; None when none is open."""
        for run in reversed(self._opened.get()):
            if run in self._open:
                return run
        with contextlib.suppress(IndexError):
            return self._open[-1]
        return None

    def all(self) -> list[T]:
        """All of them, in the order in which they were opened."""
        return list(self._open)

    def enter(self, run: T) -> None:
        """Make a run the current one."""
        self._open.append(run)
        self._opened.set((*self._still_open(), run))

    def leave(self, run: T) -> None:
        """A run has finished: it is nobody's current one."""
        with contextlib.suppress(ValueError):  # it has finished before
            self._open.remove(run)
        self._opened.set(self._still_open())

    def _still_open(self) -> tuple[T, ...]:
        return tuple(run for run in self._opened.get() if run in self._open)


# Of the class `Run`, which stands above this module.
open_runs: Final[OpenRuns[Any]] = OpenRuns()
