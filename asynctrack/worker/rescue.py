"""Rescue: journals what rings hold, on the calling thread, where no worker can be had. Runs in a caller that ends."""

from __future__ import annotations

import os

from asynctrack._system import locks
from asynctrack.queue.ring import Ring
from asynctrack.queue.shm_paths import LOCK_NAME, remove_host, ring_paths
from asynctrack.worker.drain import Drain

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    from collections.abc import Callable


def journal_now(directory: str, own: dict[str, Ring | None], journaled: Callable[[], object]) -> None:
    """Journal what the rings of a host hold, on the calling thread; of those whose producers have ended all is done.

    Args:
        directory: the host's.
        own: rings of this process by path; see `Drain`.
        journaled: called when all is in the journal, before anybody is told that nothing is left to do: that ends the process.
    """
    lock_fd = locks.take(os.path.join(directory, LOCK_NAME))
    if lock_fd is None:
        return  # a worker has the lock by now
    try:
        drain = Drain(directory, own=own)
        try:
            _journal_all(drain, journaled)
        finally:
            drain.leave_runs()
    finally:
        os.close(lock_fd)


def _journal_all(drain: Drain, journaled: Callable[[], object]) -> None:
    drain.scan_rings()
    for run in drain.runs.values():
        run.sync()
    ended = [run for run in drain.runs.values() if run.status is not None]
    for ring in [ring for run in ended for ring in run.rings]:
        ring.unlink()
    if not ring_paths(drain.host):
        remove_host(drain.host)
    journaled()
    for run in ended:
        run.close(done=True)
