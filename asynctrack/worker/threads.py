"""Worker threads: the worker as threads of this process, where none can be started, or of the command line."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable

from asynctrack._system import locks
from asynctrack.backends.base import Backend
from asynctrack.queue.ring import Ring
from asynctrack.queue.shm_paths import LOCK_NAME, remove_host, ring_paths
from asynctrack.worker.drain import Drain
from asynctrack.worker.fsync import Sync
from asynctrack.worker.host_lock import HostLock
from asynctrack.worker.policy import CALLERS_ONLY, Policy
from asynctrack.worker.service import Service

_STOP_WAIT_S = 5.0
# How long another process may have the lock that only looks for queues which are left behind: it takes milliseconds. Arbitrary.
_LOCK_WAIT_S = 1.0


class WorkerThreads:
    """The drain, the sync and the deliveries of one host directory, as threads of this process.

    Args:
        directory: the host's.
        own: rings of this process by path; see `Drain`.
        local: backends that run here though they belong on the caller's side, by run directory.
        policy: what it may do beyond serving its callers' runs.
        adopt: called first on the deliveries' thread; brings what ended processes have left behind.

    Raises:
        BlockingIOError: another worker serves the directory.
    """

    def __init__(
        self,
        directory: str,
        own: dict[str, Ring | None] | None = None,
        local: dict[str, dict[str, Backend]] | None = None,
        adopt: Callable[[], object] = lambda: None,
        policy: Policy = CALLERS_ONLY,
    ) -> None:
        self._host_lock = HostLock(_take_lock(directory))
        self.drain = Drain(directory, own=own, host_lock=self._host_lock)
        self._directory = directory
        self._adopt = adopt
        self._sync = Sync(self.drain)
        self._service = Service(self.drain, local, policy)

    def start(self) -> None:
        """Start the threads; the drain, by which it lives, at last. Ctrl-C may not come in between: a thread may be there that nobody knows of.

        Raises:
            RuntimeError: no thread can be had any more.
        """
        try:
            self._service.start(self._adopt)
            self._sync.start()
            self.drain.start()
        except BaseException:
            self._ask_to_stop(0.0)
            self._host_lock.close()
            raise

    def alive(self) -> bool:
        """Return whether the drain lives."""
        return self.drain.is_alive()

    def has(self, run: str) -> bool:
        """Return whether a run is served, or waited for."""
        return self.drain.has(run)

    def give_up(self, run: str) -> None:
        """Let go of a run soon; what is behind stays behind."""
        self._service.give_up(run)

    def stop(self) -> None:
        """Stop soon; what is behind stays behind."""
        self._ask_to_stop(_STOP_WAIT_S)
        self.drain.join(_STOP_WAIT_S)
        self.drain.leave_runs()
        self._host_lock.close()
        if not ring_paths(self._directory):
            remove_host(self._directory)

    def _ask_to_stop(self, timeout_s: float) -> None:
        self._service.stop(timeout_s)
        self.drain.stop()
        self._sync.stop()


def _take_lock(directory: str) -> int:
    deadline = time.monotonic() + _LOCK_WAIT_S
    while (fd := locks.take(os.path.join(directory, LOCK_NAME))) is None:
        if time.monotonic() > deadline:
            raise BlockingIOError(errno.EAGAIN, "another worker serves it", directory)
        time.sleep(0.001)
    return fd
