"""Ledger: what a writer offered and what was accepted, in memory that survives it. Runs in the callers, and is read by the oracle.

A writer is one thread of one process in one session of a run. It logs n = 0, 1, ..., and goes on to the next only when `log()` has returned True. So
what was accepted is known to one: the record whose call had not returned when its process was killed.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from asynctrack.errors import QueueFull, RunFinished

_PID, _OFFERED, _ACCEPTED, _FULL, _CLOSED, _IN_FLIGHT, _LONGEST_NS, _OVER = range(8)
_BYTES = 64


class Account(NamedTuple):
    """What a ledger says.

    Attributes:
        who: the writer.
        offered: calls of `log()`.
        accepted: of them returned True.
        full: of them found no room.
        closed: of them came after the run's end.
        in_flight: whether a call had not returned when the process ended.
        longest_s: the longest call.
        over: whether the writer came to its end.
    """

    who: str
    pid: int
    offered: int
    accepted: int
    full: int
    closed: int
    in_flight: bool
    longest_s: float
    over: bool


class Ledger:
    """A writer's own. The file gets its name before anything is logged."""

    def __init__(self, folder: Path, who: str) -> None:
        self.who = who
        fd = os.open(folder / who, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
        os.truncate(fd, _BYTES)
        self._words = memoryview(mmap.mmap(fd, _BYTES)).cast("Q")
        os.close(fd)
        self._words[_PID] = os.getpid()

    @property
    def accepted(self) -> int:
        return self._words[_ACCEPTED]

    def log(self, log: Callable[..., bool], data: dict[str, Any], step: int | None) -> bool:
        """Log the next record; False when the run is over."""
        words = self._words
        words[_IN_FLIGHT] = 1
        words[_OFFERED] += 1
        begin = time.perf_counter_ns()
        try:
            outcome = _ACCEPTED if log(data, step) else _FULL
        except QueueFull:
            outcome = _FULL
        except RunFinished:
            outcome = _CLOSED
        words[_LONGEST_NS] = max(words[_LONGEST_NS], time.perf_counter_ns() - begin)
        words[outcome] += 1
        words[_IN_FLIGHT] = 0
        return outcome != _CLOSED

    def end(self) -> None:
        """The writer has come to its end."""
        self._words[_OVER] = 1


def read_ledger(path: Path) -> Account:
    """What a ledger says, also that of a dead process."""
    words = memoryview(path.read_bytes()).cast("Q")
    pid, offered, accepted, full, closed, in_flight, longest_ns, over = words
    return Account(path.name, pid, offered, accepted, full, closed, bool(in_flight), longest_ns / 1e9, bool(over))
