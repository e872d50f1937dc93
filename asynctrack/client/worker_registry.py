"""Worker registry: the worker handles of this process, one of each kind in each place for rings, which its forked children join. Runs in the caller."""

from __future__ import annotations

import contextlib
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

    If other processes log to the run, it has to be where their rings are: two workers cannot have one run. So has it in a child of a process that
    has joined the run.

    Returns:
        The host it joins, and the ring's producer.

    Raises:
        SharedMemoryUnavailable: there is no room.
    """
    hosts = [host for host in list(_hosts.values()) if host.kind == kind and any(host.rings.others_of(meta["run"]))]
    for host in hosts:
        if host.is_joined:
            with contextlib.suppress(FileNotFoundError):
                return host, join(host.directory, meta, queue_bytes)[1]
    shared = [host.root for host in hosts if not host.is_joined]
    return _in_some_root(lambda root: _open_ring_in(root, kind, meta, queue_bytes, first), shared or _roots())


def join(directory: str, meta: dict[str, Any], queue_bytes: int | None) -> tuple[WorkerHandle, Producer]:
    """Make a ring in the directory of another process's host.

    Returns:
        This process's side of that host, and the ring's producer.

    Raises:
        FileNotFoundError: its worker has left.
        SharedMemoryUnavailable: there is no room.
    """
    host = _host_at(directory)
    try:
        return host, host.open_ring(meta, queue_bytes)
    except FileNotFoundError:
        _forget(host)
        raise
    except OSError as error:
        raise SharedMemoryUnavailable([directory], error) from error


def _host_at(directory: str) -> WorkerHandle:
    with _hosts_lock:
        for host in _hosts.values():
            if host.directory == directory:
                return host
        host = WorkerHandle("process", directory, own_directories, directory)
        return _hosts.setdefault(("process", directory), host)


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
    """Host directories in which this process has rings or locks, which it must not open a second time."""
    return [host.directory for host in list(_hosts.values())]


def made_directories() -> list[str]:
    """Host directories that this process has made: its worker serves them."""
    return [host.directory for host in list(_hosts.values()) if not host.is_joined]


def is_own_ring(path: str) -> bool:
    """Tell whether this process has made a ring: to open its file again would drop the lock that says so."""
    name = os.path.basename(path)
    return any(os.path.basename(own) == name for host in list(_hosts.values()) for own in list(host.rings.own))


def _forget(host: WorkerHandle) -> None:
    """Forget a host: the next run gets a new one."""
    with _hosts_lock:
        if _hosts.get((host.kind, host.root)) is host:
            del _hosts[host.kind, host.root]


def worker_of(run: Path) -> bool:
    """Return True if a worker has this run."""
    # To ask for a lock that is ours would give it back.
    return any(host.worker.has(str(run)) for host in list(_hosts.values())) or locks.is_taken(run / "lock")


def said_by_worker(run: Path) -> str | None:
    """Return in which shared memory the worker of another process is that has this run, as it says; None where none has it, or says it."""
    if any(host.worker.has(str(run)) for host in list(_hosts.values())):
        return None
    return locks.said_by_holder(run / "lock")


def stop_threads() -> None:
    """Stop all threads at the interpreter's end, when all runs that need them have finished."""
    for key, host in list(_hosts.items()):
        if host.kind == "thread" or host.worker.serves_here:
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
