"""Orphan rings: rings whose producer and worker have both died, found by the next worker. Standard library only."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator

from asynctrack._system import locks
from asynctrack._system.wording import counted
from asynctrack.queue.ring import Ring
from asynctrack.queue.shm_paths import (
    CLOSED_SUFFIX,
    LOCK_NAME,
    close_host,
    host_directories,
    move_ring,
    remove_host,
    ring_paths,
)

# A host directory without rings may be one that a process is about to use; after this long it is not.
_ABANDONED_AFTER_S = 60.0

_log = logging.getLogger("asynctrack.worker")


def adopt(into: str, own: Collection[str] = (), wanted: Callable[[str], bool] = lambda run: True) -> int:
    """Move the rings of dead callers with dead workers into the host directory `into`; returns how many there were.

    Args:
        into: of the worker that adopts.
        own: host directories of this process, which must not ask for its own locks.
        wanted: which runs' rings, by the run's directory.
    """
    adopted = 0
    left_alone = {os.path.basename(path) for path in (into, *own)}
    for host in host_directories():
        if os.path.basename(host) in left_alone:
            continue
        with contextlib.suppress(OSError):
            adopted += _adopt(host, into, wanted)
    if adopted:
        _log.info("%s of ended processes taken over", counted(adopted, "queue"))
    return adopted


def _adopt(host: str, into: str, wanted: Callable[[str], bool]) -> int:
    used_at = os.stat(host).st_mtime  # asked for first: the lock may be a new file in it
    with _worker_lock(host):
        rings = {path: _inspect(path) for path in ring_paths(host)}
        if any(lives for lives, _ in rings.values()):
            return 0  # that process starts a worker of its own
        moved = [path for path, (_, run) in rings.items() if run and wanted(run)]  # of those that can be read
        for path in moved:
            move_ring(path, into)
        # The clock may have been set back since; what its worker has closed is nobody's any more.
        young = 0 <= time.time() - used_at <= _ABANDONED_AFTER_S and not host.endswith(CLOSED_SUFFIX)
        if len(moved) == len(rings) and (moved or not young):
            # Closed first: another worker that has just listed it would make the lock anew in what is being removed.
            remove_host(close_host(host))
        return len(moved)


@contextlib.contextmanager
def _worker_lock(host: str) -> Iterator[None]:
    """Hold the lock that says a worker serves this host; raises OSError while one does."""
    fd = locks.take(os.path.join(host, LOCK_NAME))
    if fd is None:
        raise BlockingIOError(errno.EAGAIN, "a worker serves it", host)
    try:
        yield
    finally:
        os.close(fd)


def _inspect(path: str) -> tuple[bool, str]:
    """Find whether a ring's producer lives, and its run."""
    try:
        ring = Ring.attach(path)
    except (OSError, ValueError):
        return False, ""
    try:
        return ring.producer_lives(), ring.meta["run"]
    finally:
        ring.close()
