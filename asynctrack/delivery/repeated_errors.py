"""Repeated errors: an error that comes again and again by the same way is a mistake in the backend, which no retry mends. Runs with the driver."""

from __future__ import annotations

import asyncio
import os
import traceback
from typing import Final

import anyio

from asynctrack._system import loop_thread
from asynctrack.backends.base import Signal
from asynctrack.delivery.retry_policy import needs_a_person

# Traces that are remembered, so that each is printed once. Arbitrary.
_MOST_REPORTED: Final = 100

# Through these every call of a backend goes; they tell its author nothing.
_OURS: Final = (
    os.path.dirname(__file__),
    loop_thread.__file__,
    os.path.dirname(anyio.__file__),
    os.path.dirname(asyncio.__file__),
)

_Trace = tuple[type[Exception], frozenset[tuple[str, int]]]


class RepeatedErrors:
    """Counts how often in a row an error has come by the same way.

    Attributes:
        count: of the last one; 0 for what says that it will pass (`Retry`, a network, a disk) or what is to be done.
    """

    def __init__(self) -> None:
        self.count = 0
        self._last: _Trace | None = None
        self._reported: set[_Trace] = set()

    def add(self, error: Exception) -> str | None:
        """Count one more; returns its traceback if it is new."""
        if isinstance(error, Signal | OSError) or needs_a_person(error):
            self.forget()
            return None
        trace = _trace(error)
        self.count = self.count + 1 if trace == self._last else 1
        self._last = trace
        if trace in self._reported or len(self._reported) >= _MOST_REPORTED:
            return None
        self._reported.add(trace)
        return _traceback(error)

    def forget(self) -> None:
        """Something went well in between."""
        self.count, self._last = 0, None


def _traceback(error: Exception) -> str:
    """Its traceback, from where the backend's own lines begin."""
    said = traceback.TracebackException.from_exception(error)
    ours = next(
        (at for at, frame in enumerate(said.stack) if not frame.filename.startswith(_OURS)), len(said.stack) - 1
    )
    said.stack = traceback.StackSummary.from_list(said.stack[max(ours, 0) :])
    return "".join(said.format()).rstrip()


def _trace(error: Exception) -> _Trace:
    """By which lines it came; as a set, since an error that is kept and raised again has them once more each time."""
    return type(error), frozenset(
        (frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)
    )
