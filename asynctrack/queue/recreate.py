"""Recreate: makes a queue and its place again where somebody has removed them from shared memory under a run. Runs in the caller.

So does `systemd-logind` with `RemoveIPC` when a user logs out, and whoever tidies `/dev/shm`. Both sides keep their mappings, so nothing is
wrong while the worker lives: it makes the directory, the pipe and its lock again itself. When it dies, the next has to find a file. A file without
a name cannot be linked again, so the caller makes another at the same path, with the same id and positions, under the producer's claim
(`Ring.make_again`): 2 ms for 4 MiB, on the monitor's thread. The journal knows what it has by ring and position, so nothing is repeated. Nobody can
bring back the queue of a process that is killed, with its worker, after the removal.
"""

from __future__ import annotations

import os

from asynctrack._system import locks
from asynctrack.queue.layout import WORKER_PID
from asynctrack.queue.ring import Ring
from asynctrack.queue.shm_paths import CLOSED_SUFFIX, LOCK_NAME, is_closed, make_host_again


def worker_of(ring: Ring) -> int | None:
    """Find the worker that drains a ring whose file is gone; `locks.ELSEWHERE` where it cannot be seen, None where it has ended.

    The lock that it had in the ring's directory went with that; it has the run's, too.
    """
    pid = ring.words[WORKER_PID]
    holder = locks.holder(run_lock(ring)) if pid else None
    return holder if holder in (pid, locks.ELSEWHERE) else None


def run_lock(ring: Ring) -> str:
    """Return the path of the lock that the worker of a ring has on its run."""
    return os.path.join(ring.meta["run"], "lock")


def make_place(directory: str) -> None:
    """Make a host directory again; where a worker died in between closing it and leaving, it is opened again.

    Raises:
        OSError: there is no room, or no right to write there.
    """
    closed = directory + CLOSED_SUFFIX
    if is_closed(directory) and not locks.is_taken(os.path.join(closed, LOCK_NAME)):
        os.rename(closed, directory)
    make_host_again(directory)
