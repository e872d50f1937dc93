"""Host: starts this process's worker, watches it, restarts it. Runs in the caller.

A process has at most one host of each kind, and its forked children join it. The worker is a process that is nobody's child, or it
is threads here, where a process cannot be started.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from asynctrack import locks
from asynctrack.backends.base import Backend
from asynctrack.errors import SharedMemoryUnavailable
from asynctrack.queue.layout import HEARTBEAT, WORKER_PID
from asynctrack.queue.places import (
    HELLO_NAME,
    LOCK_NAME,
    RING_SUFFIX,
    SMALLEST_RING_BYTES,
    WAKE_NAME,
    make_host_directory,
    ring_bytes,
    ring_paths,
    shared_roots,
)
from asynctrack.queue.producer import Producer
from asynctrack.queue.ring import Ring
from asynctrack.settings import WorkerHost
from asynctrack.spawn import spawn

if TYPE_CHECKING:
    from asynctrack.worker.threads import WorkerThreads

# `init()` waits at most this long for the worker's first look; a ring of 4 MiB lasts a tight loop for about 40 ms.
READY_WAIT_S: Final = 0.02
# Without a heartbeat for this long the caller looks whether the worker is there ...
QUIET_AFTER_S: Final = 0.5
# ... and if it is there but does nothing for this long, it is killed.
HUNG_AFTER_S: Final = 10.0
# Between two such looks.
_PROBE_INTERVAL_S: Final = 0.25
# A worker that was started may take this long until it has its lock; a second would only wait for it.
_START_GRACE_S: Final = 1.0
# How long `start` waits for another thread that starts the worker. Arbitrary: that takes a millisecond.
_START_WAIT_S: Final = 1.0
# Between two warnings that no worker can be started.
_WARN_INTERVAL_S: Final = 60.0

_log = logging.getLogger("asynctrack")
_hosts: dict[WorkerHost, Host] = {}
_hosts_lock = threading.RLock()


class Host:
    """This process's side of its worker. Every method may be called from any thread."""

    def __init__(self, kind: WorkerHost) -> None:
        self.kind = kind
        self.directory = make_directory()
        self.local: dict[str, dict[str, Backend]] = {}
        self._own: dict[str, Ring | None] = {}  # None: it is being made
        self._wake_fd = os.open(os.path.join(self.directory, WAKE_NAME), os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._threads: WorkerThreads | None = None
        self._probe_at = 0.0
        self._warn_at = 0.0
        self._starting = threading.Lock()
        self._started_at = -_START_GRACE_S
        self._log_path = os.devnull
        hello = os.open(
            os.path.join(self.directory, HELLO_NAME), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
        )
        with open(hello, "w", encoding="utf-8") as file:
            json.dump({"sys_path": [path for path in sys.path if path], "argv": sys.argv}, file)

    def __repr__(self) -> str:
        return f"<Host of a worker {self.kind}, {len(self._own)} rings in {self.directory}>"

    def open_ring(self, meta: dict[str, Any], queue_bytes: int | None, *, first: int = 0) -> Producer:
        """Make a ring for a run in this process.

        Raises:
            FileNotFoundError: the worker has left and taken the directory with it; use a new host.
            SharedMemoryUnavailable: there is no room.
        """
        size = ring_bytes(self.directory) if queue_bytes is None else 1 << (queue_bytes - 1).bit_length()
        while True:
            # Names sort by time, so that the ring of a run's earlier sitting is drained before that of a later one.
            path = os.path.join(self.directory, f"{time.time_ns():016x}-{os.urandom(4).hex()}{RING_SUFFIX}")
            self._own[path] = None  # before it exists: whoever opened it here as another's would drop its lock
            try:
                ring = self._own[path] = Ring.create(path, size, meta, first=first)
                return Producer(ring, functools.partial(self.look, ring))
            except FileNotFoundError:
                del self._own[path]
                raise
            except OSError as error:
                del self._own[path]
                if error.errno != errno.ENOSPC or size <= SMALLEST_RING_BYTES:
                    raise SharedMemoryUnavailable([self.directory], error) from error
                size //= 2

    def release(self, ring: Ring) -> None:
        """Let go of a ring whose producer is closed."""
        self._own.pop(ring.path, None)
        ring.close()

    def wake(self) -> None:
        """Wake the worker, if it sleeps. Never waits."""
        with contextlib.suppress(OSError):  # the pipe is full: it is awake
            os.write(self._wake_fd, b"!")

    def look(self, ring: Ring, wake: bool) -> None:
        """Called by a producer now and then: wake the worker, and start another if it is gone."""
        if wake:
            self.wake()
        now = time.monotonic()
        quiet_s = now - ring.words[HEARTBEAT] / 1e9
        if quiet_s < QUIET_AFTER_S or now < self._probe_at or not self._starting.acquire(blocking=False):
            return
        try:
            self._probe_at = now + _PROBE_INTERVAL_S
            self._revive(ring, quiet_s)
        except OSError as error:
            self._warn(error)
        finally:
            self._starting.release()

    def start(self, log_path: Path, ring: Ring) -> None:
        """Start the worker where there is none, and wait a little until it has taken the ring."""
        if self._starting.acquire(timeout=_START_WAIT_S):  # else this may be a signal handler inside `look`
            try:
                self._log_path = str(log_path)
                if not self._worker_lives():
                    self._start()
            except OSError as error:
                self._warn(error)
            finally:
                self._starting.release()
        self.wake()
        deadline = time.monotonic() + READY_WAIT_S
        while not ring.words[WORKER_PID] and time.monotonic() < deadline:
            time.sleep(0.0005)
        self._probe_at = time.monotonic() + QUIET_AFTER_S  # it may be slower than that to start

    def take_over(self, run: Path) -> int:
        """Bring the queues that a run's dead processes and dead workers left behind to this worker.

        Returns the number after the last record in them, 0 where there is none.
        """
        self._adopt()
        following = 0
        for path in self.others():
            with contextlib.suppress(OSError, ValueError):
                ring = Ring.attach(path)
                if ring.meta["run"] == str(run):
                    following = max(following, ring.next_number())
                ring.close()
        return following

    def others(self) -> list[str]:
        """Rings of other processes that share the worker."""
        return [path for path in ring_paths(self.directory) if path not in self._own]

    def after_fork(self) -> None:
        """In a forked child: the parent's rings and threads are not ours. No lock, no system call."""
        self._own = {}
        self._threads = None
        self._starting = threading.Lock()

    def stop(self) -> None:
        """Stop the worker's threads, if that is what it is."""
        if self._threads is not None:
            self._threads.stop()
            self._threads = None

    def _adopt(self) -> None:
        from asynctrack.worker.orphans import adopt

        adopt(self.directory, own_directories())

    def _revive(self, ring: Ring, quiet_s: float) -> None:
        if not self._worker_lives():
            if ring.words[WORKER_PID]:
                _log.warning("asynctrack: the worker is gone; starting another, nothing is lost")
            self._start()
        elif quiet_s > HUNG_AFTER_S and ring.words[WORKER_PID] and self.kind == "process":
            _log.warning("asynctrack: the worker has not moved for %.0f s; it is replaced", quiet_s)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(ring.words[WORKER_PID], signal.SIGKILL)

    def _warn(self, error: OSError) -> None:
        now = time.monotonic()
        if now >= self._warn_at:
            self._warn_at = now + _WARN_INTERVAL_S
            _log.warning("asynctrack: the worker cannot be started: %s; the queue holds what it can", error)

    def _worker_lives(self) -> bool:
        """Whether some process holds the worker's lock. A process cannot ask that of its own threads."""
        if self._threads is not None:
            return self._threads.alive()
        return locks.is_taken(os.path.join(self.directory, LOCK_NAME))

    def _start(self) -> None:
        if self.kind == "thread":
            from asynctrack.worker.threads import WorkerThreads

            self._threads = WorkerThreads(self.directory, self._own, self.local, self._adopt)
        elif time.monotonic() - self._started_at > _START_GRACE_S:
            spawn("worker/main.py", [self.directory], log_path=self._log_path)
            self._started_at = time.monotonic()


def host_for(kind: WorkerHost) -> Host:
    """This process's host of a kind."""
    with _hosts_lock:
        if kind not in _hosts:
            _hosts[kind] = Host(kind)
        return _hosts[kind]


def own_directories() -> list[str]:
    """Host directories of this process, whose rings and locks it must not open a second time."""
    return [host.directory for host in list(_hosts.values())]


def forget(host: Host) -> None:
    """The host's directory is gone: the next run gets a new host."""
    with _hosts_lock:
        if _hosts.get(host.kind) is host:
            del _hosts[host.kind]


def stop_threads() -> None:
    """At the interpreter's end, when all runs have finished."""
    host = _hosts.pop("thread", None)
    if host is not None:
        host.stop()


def worker_of(run: Path) -> bool:
    """Whether a worker in another process has this run. Never ask in a process whose own threads have it."""
    return locks.is_taken(run / "lock")


def make_directory() -> str:
    """A directory for the rings of this process.

    Raises:
        SharedMemoryUnavailable: there is no room for one.
    """
    roots = []
    failed: OSError = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    for root in shared_roots():
        roots.append(root)
        try:
            return make_host_directory(root)
        except OSError as error:
            failed = error
    raise SharedMemoryUnavailable(roots, failed)


def _after_fork_in_child() -> None:
    global _hosts_lock
    _hosts_lock = threading.RLock()
    for host in _hosts.values():
        host.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
