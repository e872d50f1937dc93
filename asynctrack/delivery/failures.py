"""Failures: how often a backend has failed in a row, and by which way its last error came.

An error that comes again and again by the same way is a mistake in the backend, which no retry mends.
"""

from __future__ import annotations

import asyncio
import os
import traceback
from typing import Final

import anyio
import msgspec

from asynctrack._system import loop_thread
from asynctrack.backends.base import Signal
from asynctrack.delivery.retry_policy import needs_a_person

# Through these every call of a backend goes; they tell its author nothing.
_OURS: Final = (
    os.path.dirname(__file__),
    loop_thread.__file__,
    os.path.dirname(anyio.__file__),
    os.path.dirname(asyncio.__file__),
)

# By which lines an error came; as a set, since an error that is kept and raised again has them once more each time.
Trace = tuple[type[Exception], frozenset[tuple[str, int]]]


class Failures(msgspec.Struct, frozen=True):
    """The failures in a row since a backend last worked. A value: each failure makes another.

    Attributes:
        count: of all of them.
        trace: the way of the last one; None for what says that it will pass (`Retry`, a network, a disk) or what is to be done.
        repeats: how often in a row that has come by the same way.
    """

    count: int = 0
    trace: Trace | None = None
    repeats: int = 0

    def add(self, error: Exception) -> Failures:
        """Count one more."""
        trace = None if isinstance(error, Signal | OSError) or needs_a_person(error) else trace_of(error)
        repeats = 0 if trace is None else self.repeats + 1 if trace == self.trace else 1
        return Failures(self.count + 1, trace, repeats)

    def add_resend(self) -> Failures:
        """Count that the backend has asked for the whole run again: that is no error, and comes between none."""
        return msgspec.structs.replace(self, count=self.count + 1)


def trace_of(error: Exception) -> Trace:
    """Return the way that an error came."""
    lines = ((frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__))
    return type(error), frozenset(lines)


def traceback_text(error: Exception) -> str:
    """Format an error's traceback, from where the backend's own lines begin."""
    said = traceback.TracebackException.from_exception(error)
    ours = next(
        (at for at, frame in enumerate(said.stack) if not frame.filename.startswith(_OURS)), len(said.stack) - 1
    )
    said.stack = traceback.StackSummary.from_list(said.stack[max(ours, 0) :])
    return "".join(said.format()).rstrip()
