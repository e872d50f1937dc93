"""Listing: the workers of this user on this machine, their callers and their queues. Only looks. Runs anywhere.

Never call it for the host directories of this very process: whoever opens his own ring a second time drops its lock.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection

import msgspec

from asynctrack._system import locks
from asynctrack.queue.layout import END, ENDS, HEARTBEAT
from asynctrack.queue.ring import Ring
from asynctrack.queue.shm_paths import LOCK_NAME, host_directories, ring_paths

# What a worker runs, with its host directory and its log behind that; the shell that starts it has the same words.
_SCRIPT = "/worker/main.py"


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """One ring: the queue between a process and its worker.

    Attributes:
        run: the run's directory.
        caller: the process that logs; 0 where it cannot be seen from here, as in another container.
        caller_lives: whether it is there.
        end: how it ended, as far as it said so: "open", "finished", "failed" or "left".
        used: bytes that are not journaled.
        capacity: bytes.
        looked_at_s: seconds since a worker looked at it; None where none has.
        trouble: why the journal cannot be written, None when it can.
    """

    run: str
    caller: int
    caller_lives: bool
    end: str
    used: int
    capacity: int
    looked_at_s: float | None
    trouble: str | None = None


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """The worker of one calling process and its forked children, or their queues where it has none.

    Attributes:
        directory: of its rings.
        pid: of the worker, 0 where it cannot be seen from here; None where there is none: the caller starts one, or, where it has died
            too, the next run or `asynctrack sync` takes over.
        queues: the rings, but for those in which nothing is said yet.
    """

    directory: str
    pid: int | None
    queues: list[Queue]

    @property
    def callers(self) -> list[int]:
        """Return the pids of the processes that log and are alive."""
        return sorted({queue.caller for queue in self.queues if queue.caller_lives})

    @property
    def runs(self) -> list[str]:
        """Return the directories of the runs that it serves."""
        return sorted({queue.run for queue in self.queues})


def list_workers(*, but: Collection[str] = (), is_own: Callable[[str], bool] = lambda path: False) -> list[Worker]:
    """List every worker of this user, and every host that has none.

    Args:
        but: host directories of this process, which are left out.
        is_own: tells whether a ring is this process's own, in the directory of another: it is left out.
    """
    left_out = {os.path.basename(path) for path in but}
    found = []
    for directory in host_directories():
        if os.path.basename(directory) not in left_out:
            pid = locks.holder(os.path.join(directory, LOCK_NAME))
            found.append(Worker(directory=directory, pid=pid, queues=_queues(directory, is_own)))
    return found


def worker_starts(directories: Collection[str]) -> bool:
    """Tell whether a worker for one of these host directories is being started: it has no lock yet, by which `list_workers` would know it.

    Where `/proc` does not show it, as on another system or from another container, nobody can tell.
    """
    names = {os.path.basename(directory) for directory in directories}
    return bool(names) and any(_host_in(pid) in names for pid in _pids())


def _pids() -> list[str]:
    """List the processes, the newest first: the shell that starts a worker is gone a moment later."""
    try:
        return [name for name in reversed(os.listdir("/proc")) if name.isdigit()]
    except OSError:
        return []


def _host_in(pid: str) -> str | None:
    """Return the name of the host directory that a process is a worker for; None where it is none."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            arguments = os.fsdecode(file.read()).split("\0")[:-1]
    except OSError:  # it has ended
        return None
    is_worker = len(arguments) > 3 and arguments[-3].endswith(_SCRIPT)
    return os.path.basename(arguments[-2]) if is_worker else None


def _queues(directory: str, is_own: Callable[[str], bool]) -> list[Queue]:
    queues = []
    for path in ring_paths(directory):
        if is_own(path):
            continue
        try:
            ring = Ring.attach(path)
        except (OSError, ValueError):
            continue
        try:
            if not ring.is_blank():
                queues.append(_queue(ring))
        finally:
            ring.close()
    return queues


def _queue(ring: Ring) -> Queue:
    words = ring.words
    return Queue(
        run=ring.meta["run"],
        caller=ring.caller(),
        caller_lives=ring.producer_lives(),
        end=ENDS[words[END]],
        used=ring.used(),
        capacity=ring.capacity,
        looked_at_s=round(max(0.0, time.monotonic() - words[HEARTBEAT] / 1e9), 3) if words[HEARTBEAT] else None,
        trouble=ring.trouble(),
    )
