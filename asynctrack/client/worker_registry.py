"""Worker registry: the worker handles of this process, one of each kind in each place for rings, which its forked children join. Runs in the caller."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from asynctrack._system import fork, locks
from asynctrack.client.handshake import write_handshake
from asynctrack.client.worker_handle import WorkerHandle
from asynctrack.errors import SharedMemoryUnavailable
from asynctrack.queue.producer import Producer
from asynctrack.queue.shm_paths import has_room, make_host_directory, ring_paths, shared_roots
from asynctrack.settings import WorkerKind

T = TypeVar("T")

_hosts: dict[tuple[WorkerKind, str], WorkerHandle] = {}
_hosts_lock = threading.RLock()


def host_for(kind: WorkerKind) -> WorkerHandle:
    """Return this process's host of a kind, in the first place that has room.

    Raises:
        SharedMemoryUnavailable: there is no place for one.
    """
    return _in_some_root(lambda root: _host_in(root, kind), _roots())


def open_ring(
    kind: WorkerKind, meta: dict[str, Any], queue_bytes: int | None, *, first: int = 0
) -> tuple[WorkerHandle, Producer]:
    """Make a ring for a run in this process, in the first place that has room.

    If other processes log to the run, it has to be where their rings are: two workers cannot have one run.

    Returns:
        The host it joins, and the ring's producer.

    Raises:
        SharedMemoryUnavailable: there is no room.
    """
    shared = [root for (own, root), host in list(_hosts.items()) if own == kind and any(host.others_of(meta["run"]))]
    return _in_some_root(lambda root: _open_ring_in(root, kind, meta, queue_bytes, first), shared or _roots())


def _open_ring_in(
    root: str, kind: WorkerKind, meta: dict[str, Any], queue_bytes: int | None, first: int
) -> tuple[WorkerHandle, Producer]:
    while True:
        host = _host_in(root, kind)
        try:
            return host, host.open_ring(meta, queue_bytes, first=first)
        except FileNotFoundError:
            _forget(host)  # the worker has left; the next try makes a new host
        except OSError:
            if not ring_paths(host.directory):
                _forget(host)
                host.remove()
            raise


def _host_in(root: str, kind: WorkerKind) -> WorkerHandle:
    with _hosts_lock:
        if (kind, root) not in _hosts:
            _hosts[kind, root] = WorkerHandle(kind, root, own_directories)
        return _hosts[kind, root]


def own_directories() -> list[str]:
    """Host directories of this process, whose rings and locks it must not open a second time."""
    return [host.directory for host in list(_hosts.values())]


def _forget(host: WorkerHandle) -> None:
    """Forget a host: the next run gets a new one."""
    with _hosts_lock:
        if _hosts.get((host.kind, host.root)) is host:
            del _hosts[host.kind, host.root]


def worker_of(run: Path) -> bool:
    """Return True if a worker has this run."""
    ours = any(host.has(str(run)) for host in list(_hosts.values()))  # to ask for a lock that is ours gives it back
    return ours or locks.is_taken(run / "lock")


def stop_threads() -> None:
    """Stop all threads at the interpreter's end, when all runs that need them have finished."""
    for key, host in list(_hosts.items()):
        if host.kind == "thread" or host.serves_here:
            del _hosts[key]
            host.stop()


def make_directory() -> str:
    """Make a directory for rings that were left behind.

    Raises:
        SharedMemoryUnavailable: there is no room for one.
    """
    return _in_some_root(_make_directory_in, _roots())


def _make_directory_in(root: str) -> str:
    directory = make_host_directory(root)
    write_handshake(directory)
    return directory


def _in_some_root(make: Callable[[str], T], roots: Iterable[str]) -> T:
    """Return what `make` returns for the first place where it works."""
    tried = []
    failed: OSError = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    for root in roots:
        tried.append(root)
        try:
            return make(root)
        except OSError as error:
            failed = error
    raise SharedMemoryUnavailable(tried, failed) from failed


def _roots() -> Iterator[str]:
    """Yield the places for rings, those that have room first."""
    full = []
    for root in shared_roots():
        if has_room(root):
            yield root
        else:
            full.append(root)
    yield from full


@fork.in_child
def _after_fork_in_child() -> None:
    global _hosts_lock
    _hosts_lock = threading.RLock()
    for host in _hosts.values():
        host.after_fork()
