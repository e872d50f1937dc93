"""Orphans: rings whose producer and worker have both died, found by the next worker. Standard library only."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Collection, Iterator

from asynctrack.queue.places import LOCK_NAME, host_directories, remove_host, ring_paths
from asynctrack.queue.ring import Ring

# A host directory without rings may be one that a process is about to use; after this long it is not.
_ABANDONED_AFTER_S = 60.0

_log = logging.getLogger("asynctrack.worker")


def adopt(into: str, own: Collection[str] = ()) -> int:
    """Move the rings of dead callers with dead workers into the host directory `into`; returns how many there were.

    Args:
        into: of the worker that adopts.
        own: host directories of this process, which must not ask for its own locks.
    """
    adopted = 0
    left_alone = {os.path.basename(path) for path in (into, *own)}
    for host in host_directories():
        if os.path.basename(host) in left_alone:
            continue
        with contextlib.suppress(OSError):
            adopted += _adopt(host, into)
    if adopted:
        _log.info("%d queues of ended processes were taken over", adopted)
    return adopted


def _adopt(host: str, into: str) -> int:
    used_at = os.stat(host).st_mtime  # asked for first: the lock may be a new file in it
    with _worker_lock(host):
        paths = ring_paths(host)
        if any(_producer_lives(path) for path in paths):
            return 0  # that process starts a worker of its own
        for path in paths:
            os.rename(path, os.path.join(into, os.path.basename(path)))
        if paths or time.time() - used_at > _ABANDONED_AFTER_S:
            remove_host(host)
        return len(paths)


@contextlib.contextmanager
def _worker_lock(host: str) -> Iterator[None]:
    """Hold the lock that says a worker serves this host; raises OSError while one does."""
    fd = os.open(os.path.join(host, LOCK_NAME), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(fd)


def _producer_lives(path: str) -> bool:
    try:
        ring = Ring.attach(path)
    except (OSError, ValueError):
        return False
    try:
        return ring.producer_lives()
    finally:
        ring.close()
