"""Memory growth: whether calls of a function leave memory flat."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

# Allowed: what the allocator keeps for the next time. A byte lost per call would be a million.
_SLACK_BYTES: Final = 1 << 20
_CALLS: Final = 1_000_000
# A process grows by itself now and then: by the heaps of other threads, by tables of the interpreter. What a call loses it loses in each of these.
_ROUNDS: Final = 3


def lost_bytes(call: Callable[[int], object]) -> int:
    """Return the memory that a million calls lose, 0 where that is nothing to speak of: the least of up to three rounds."""
    _grown_by(call, 20_000)
    least = min(_until_flat(call))
    return least if least > _SLACK_BYTES else 0


def lost_bytes_apart(call: Callable[[int], object]) -> int:
    """Return the same, found in a child that has no other threads: what earlier tests have left in this process may grow meanwhile."""
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writes, str(lost_bytes(call)).encode())
        finally:
            os._exit(0)
    os.close(writes)
    with os.fdopen(reads) as answer:
        lost = answer.read()
    os.waitpid(child, 0)
    return int(lost)


def _until_flat(call: Callable[[int], object]) -> list[int]:
    grown: list[int] = []
    while len(grown) < _ROUNDS and not (grown and grown[-1] <= _SLACK_BYTES):
        grown.append(_grown_by(call, _CALLS))
    return grown


def _grown_by(call: Callable[[int], object], times: int) -> int:
    before = _resident_bytes()
    for n in range(times):
        call(n)
    gc.collect()
    return _resident_bytes() - before


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
