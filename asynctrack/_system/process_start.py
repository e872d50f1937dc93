"""Process start: when this process was started. Standard library only."""

from __future__ import annotations

import os
import time
from typing import Final

# Where `/proc/self/stat` has the start, in ticks since the machine was started, behind the name.
_START: Final = 19


def started_at() -> float:
    """Return when this process was started, in seconds since the epoch; the time of the call where nothing says it."""
    try:
        with open("/proc/self/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[_START])
        ago_s = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        ago_s = 0.0
    return time.time() - max(0.0, ago_s)
