"""Memory growth: whether calls of a function leave memory flat."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

# How many calls show what is lost: a million by hand. No block is smaller than 16 bytes, so a byte per call is one block lost in sixteen calls.
CALLS: Final = (
    pytest.param(100_000, marks=pytest.mark.system),
    pytest.param(1_000_000, marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
)
# Allowed: what the allocator keeps for the next time.
_SLACK_PER_CALL: Final = 1.0
# A process grows by itself now and then: by the heaps of other threads, by tables of the interpreter. What a call loses it loses in each of these.
_ROUNDS: Final = 3


def lost_bytes(call: Callable[[int], object], calls: int) -> int:
    """Return the memory that so many calls lose, 0 where that is less than a byte for each: the least of up to three rounds."""
    _grown_by(call, 20_000)
    least = min(_until_flat(call, calls))
    return least if least > calls * _SLACK_PER_CALL else 0


def lost_bytes_apart(call: Callable[[int], object], calls: int) -> int:
    """Return the same, found in a child that has no other threads: what earlier tests have left in this process may grow meanwhile."""
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writes, str(lost_bytes(call, calls)).encode())
        finally:
            os._exit(0)
    os.close(writes)
    with os.fdopen(reads) as answer:
        lost = answer.read()
    os.waitpid(child, 0)
    return int(lost)


def _until_flat(call: Callable[[int], object], calls: int) -> list[int]:
    grown: list[int] = []
    while len(grown) < _ROUNDS and not (grown and grown[-1] <= calls * _SLACK_PER_CALL):
        grown.append(_grown_by(call, calls))
    return grown


def _grown_by(call: Callable[[int], object], times: int) -> int:
    """Return by how much a process has grown, or what is in use in it where that is more: what is lost may fill room that was free."""
    resident, used = _resident_bytes(), _used_bytes()
    for n in range(times):
        call(n)
    gc.collect()
    return max(_resident_bytes() - resident, _used_bytes() - used)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


class _MallInfo(ctypes.Structure):
    """What glibc's `mallinfo2` returns."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"
        )
    ]  # fmt: skip


def _used_bytes() -> int:
    """Return what Python's allocator has given out, by the least size of a block, and what the C library's has, where it says that."""
    blocks = 16 * sys.getallocatedblocks()
    ask = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if ask is None:
        return blocks
    ask.restype = _MallInfo
    said = ask()
    return int(blocks + said.uordblks + said.hblkhd)
