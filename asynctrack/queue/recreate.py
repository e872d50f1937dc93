"""Recreate: makes a queue and its place again where somebody has removed them from shared memory under a run. Runs in the caller.

So does `systemd-logind` with `RemoveIPC` when a user logs out, and whoever tidies `/dev/shm`. Both sides keep their mappings, so nothing is
wrong while the worker lives: it makes the directory, the pipe and its lock again itself. When it dies, the next has to find a file. A file without
a name cannot be linked again, so the caller makes another at the same path, with the same id and positions, under the producer's claim
(`Ring.make_again`): 8 ms for 16 MiB, on the monitor's thread. The journal knows what it has by ring and position, so nothing is repeated. Nobody can
bring back the queue of a process that is killed, with its worker, after the removal.
"""

from __future__ import annotations

import os

from asynctrack._system import locks
from asynctrack.queue.layout import WORKER_PID
from asynctrack.queue.ring import Ring
from asynctrack.queue.shm_paths import CLOSED_SUFFIX, LOCK_NAME, is_closed, make_host_again, ring_paths

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    from collections.abc import Callable, Collection


def worker_of(ring: Ring) -> int | None:
    """Find the worker that drains a ring whose file is gone; `locks.ELSEWHERE` where it cannot be seen, None where it has ended.

    The lock that it had in the ring's directory went with that; it has the run's, too.
    """
    pid = ring.words[WORKER_PID]
    holder = locks.holder(run_lock(ring)) if pid else None
    return holder if holder in (pid, locks.ELSEWHERE) else None


def fetch(ring: Ring, own_hosts: Collection[str], own_rings: Collection[str], make: Callable[[], object]) -> bool:
    """Bring a ring back that is in another directory, whose worker has died; False while there is one, or who starts one.

    A worker that was about to leave has closed the directory with this ring in it, and stays until the ring is empty. Or a worker that let go of the run
    has left the ring to the next, or another process of the run has brought it to its own.

    Args:
        ring: of this process.
        own_hosts: the directories whose locks this process may have: it must not ask for those.
        own_rings: the names of this process's rings, which it must not open a second time.
        make: makes the ring's own directory again where it is gone.

    Raises:
        OSError: it cannot be brought.
    """
    found, own = ring.found_at(), os.path.basename(os.path.dirname(ring.path))
    place = os.path.dirname(found or "")
    # Its own directory may have been moved.
    if found is None or os.path.basename(place) in {os.path.basename(host) for host in own_hosts} - {own}:
        return False
    try:
        lock = locks.take(os.path.join(place, LOCK_NAME))
    except FileNotFoundError:  # its worker has just left
        return False
    if lock is None:
        return False
    try:
        if any(_lives(path) for path in ring_paths(place) if path != found and os.path.basename(path) not in own_rings):
            return False
        make()
        if not ring.is_there():  # else it was in the closed directory, which has its name again
            os.rename(found, ring.path)
    finally:
        os.close(lock)
    return True


def _lives(path: str) -> bool:
    """Tell whether the process of a ring lives; never call it for a ring of this process."""
    try:
        ring = Ring.attach(path)
    except (OSError, ValueError):
        return False
    try:
        return ring.producer_lives()
    finally:
        ring.close()


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
