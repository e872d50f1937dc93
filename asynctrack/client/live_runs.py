"""Live runs: which processes of this user on this machine write to which runs, by their queues. Runs in the caller.

The process's own queues are left out: to open such a file again, and close it, would drop the lock that says that the process lives.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, NamedTuple

from asynctrack._system import locks
from asynctrack.client.worker_registry import is_own_ring, made_directories
from asynctrack.queue.layout import END, HEAD, TAIL
from asynctrack.queue.ring import Ring
from asynctrack.queue.shm_paths import CLOSED_SUFFIX, LOCK_NAME, host_directories, ring_paths, shared_roots, user_roots


class LiveQueue(NamedTuple):
    """A queue whose process lives and has not finished.

    Attributes:
        path: its file.
        directory: of the host that has it.
        run: the directory of the run.
        caller: the process; 0 where it cannot be seen from here.
        meta: what its header says.
    """

    path: str
    directory: str
    run: str
    caller: int
    meta: dict[str, Any]


def live_queues(wanted: Callable[[str], bool] = lambda run: True) -> Iterator[LiveQueue]:
    """Yield the queues of other processes in which something is said, of the runs that are wanted."""
    for directory in host_directories():
        if directory.endswith(CLOSED_SUFFIX):
            continue
        for path in ring_paths(directory):
            with contextlib.suppress(OSError, ValueError):
                if not is_own_ring(path) and (found := _look(directory, path, wanted)) is not None:
                    yield found


def queued_frames(directory: str, run: str) -> Iterator[bytes]:
    """Yield what other processes have put into their queues of a run, and no worker has journaled yet; whole frames."""
    for path in ring_paths(directory):
        with contextlib.suppress(OSError, ValueError):
            if not is_own_ring(path):
                with contextlib.closing(Ring.attach(path)) as ring:
                    if ring.meta["run"] == run:
                        yield ring.copy(ring.words[TAIL], ring.words[HEAD])


class QueuePlaces:
    """The directories in which queues come and go, as they are at this moment: to look whether one has takes microseconds, where to find one takes milliseconds."""

    def __init__(self) -> None:
        roots = [[*user_roots(shared)] or [shared] for shared in shared_roots()]
        self._paths = [*chain.from_iterable(roots), *host_directories()]
        self._stamps = self._look()

    def have_changed(self) -> bool:
        """Return whether a queue or a directory for queues has been made or removed since."""
        return self._look() != self._stamps

    def _look(self) -> list[int]:
        return [_changed_at(path) for path in self._paths]


def best_of(queues: list[LiveQueue]) -> LiveQueue:
    """Return the queue whose host is to be joined: one with a worker, if there is one."""
    return next((queue for queue in queues if _has_worker(queue.directory)), queues[0])


def _has_worker(directory: str) -> bool:
    # The worker of a host of our own may be threads here, whose lock must not be asked for.
    return directory in made_directories() or locks.is_taken(os.path.join(directory, LOCK_NAME))


def _look(directory: str, path: str, wanted: Callable[[str], bool]) -> LiveQueue | None:
    with contextlib.closing(Ring.attach(path)) as ring:
        run = ring.meta["run"]
        if ring.words[END] or ring.is_blank() or not wanted(run) or not ring.producer_lives():
            return None
        return LiveQueue(path, directory, run, ring.caller(), ring.meta)


def _changed_at(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:  # it has been removed
        return 0
