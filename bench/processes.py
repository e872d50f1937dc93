"""Processes: the processor time and the memory of one, from outside. Linux only: it reads /proc."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_CLOCK_TICKS: Final = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Return the processor time of a process, its threads included; in steps of a clock tick, 10 ms on most systems."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / _CLOCK_TICKS


def threads_cpu_s(pid: int) -> float:
    """Return the processor time of the threads that a process has, to the nanosecond; those that have ended are left out."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def main_thread_cpu_s(pid: int) -> float:
    """Return the processor time of a process's first thread, to the nanosecond."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9


def own_bytes(pid: int) -> int:
    """Return the memory that a process shares with nobody."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    sizes = {name: 1024 * int(size) for name, size, *_ in map(str.split, lines)}
    return sizes["Private_Clean:"] + sizes["Private_Dirty:"]
