"""Ancestry: the processes from which this one descends, the nearest first. Runs anywhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

# Where `/proc/PID/stat` has the parent, behind the name, which may hold anything.
_PARENT: Final = 1


def ancestors() -> Iterator[int]:
    """Yield the pids of the ancestors of this process, as far as they can be seen: its parent alone where there is no `/proc`.

    Whose parent has ended descends from init, or from the subreaper that has taken it in: the chain of its start is lost.
    """
    pid = os.getppid()
    met = set()
    while pid > 1 and pid not in met:  # a pid that is given again in between could close a circle
        met.add(pid)
        yield pid
        pid = _parent_of(pid)


def _parent_of(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[_PARENT])
    except (OSError, ValueError, IndexError):
        return 0
