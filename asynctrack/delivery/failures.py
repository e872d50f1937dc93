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
from asynctrack.journal.layout import Position

# Every call of a backend goes through these frames; they tell its author nothing.
_OURS: Final = (
    os.path.dirname(__file__),
    loop_thread.__file__,
    os.path.dirname(anyio.__file__),
    os.path.dirname(asyncio.__file__),
)

# The lines that an error came through; as a set, since an error that is kept and raised again repeats them each time.
Trace = tuple[type[Exception], frozenset[tuple[str, int]]]


class Failures(msgspec.Struct, frozen=True):
    """The failures in a row since a backend last worked. A value: each failure makes another.

    Attributes:
        count: of all of them.
        trace: the way of the last one; None for what says that it will pass (`Retry`, a network, a disk) or what is to be done.
        repeats: how often in a row that has come by the same way.
        resends: how often it has asked for the whole run since it last got further than before.
        asked_at: how far it had been when it asked.
    """

    count: int = 0
    trace: Trace | None = None
    repeats: int = 0
    resends: int = 0
    asked_at: Position = Position()

    def add(self, error: Exception) -> Failures:
        """Count one more."""
        trace = None if isinstance(error, Signal | OSError) or needs_a_person(error) else trace_of(error)
        repeats = 0 if trace is None else self.repeats + 1 if trace == self.trace else 1
        return msgspec.structs.replace(self, count=self.count + 1, trace=trace, repeats=repeats)

    def add_resend(self, position: Position) -> Failures:
        """Count that the backend has asked for the whole run again, from where it was: that is no error, and comes between none."""
        asked_at = max(position, self.asked_at)
        return msgspec.structs.replace(self, count=self.count + 1, resends=self.resends + 1, asked_at=asked_at)

    def succeed(self, position: Position) -> Failures:
        """Forget them, since the backend works.

        What it asked for counts until it is further than it was then: one that asks each time at the same place would get the run without end.
        """
        return Failures() if position > self.asked_at else Failures(resends=self.resends, asked_at=self.asked_at)


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
