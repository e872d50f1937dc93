"""Host worker: the worker of a host, a process of its own or threads here, as it is started. Runs in the caller."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from asynctrack._system import locks, messages
from asynctrack._system.private import threads_are_over
from asynctrack.backends.base import Backend
from asynctrack.client.host_rings import HostRings
from asynctrack.client.worker_launcher import WorkerLauncher
from asynctrack.queue.shm_paths import LOCK_NAME
from asynctrack.settings import WorkerKind

if TYPE_CHECKING:
    from asynctrack.worker.threads import WorkerThreads


class HostWorker:
    """Starts the worker of one host: threads where they are asked for, or where no process can be started. Not thread-safe: the handle sees to it.

    Attributes:
        local: The backends that live in this process, by run and by name.
        log_path: Where the worker process writes what goes wrong.

    Args:
        kind: The kind of worker that is asked for.
        directory: The directory of the host.
        rings: The rings of this process there.
        own: Returns the directories of all hosts of this process, whose rings and locks it must not open a second time.
    """

    def __init__(self, kind: WorkerKind, directory: str, rings: HostRings, own: Callable[[], list[str]]) -> None:
        self.local: dict[str, dict[str, Backend]] = {}
        self.log_path: str = os.devnull
        self._kind = kind
        self._directory = directory
        self._rings = rings
        self._own_directories = own
        self._threads: WorkerThreads | None = None
        self._launch = WorkerLauncher(directory)

    @property
    def serves_here(self) -> bool:
        """Tell whether the worker is threads of this process."""
        return self._threads is not None

    def has(self, run: str) -> bool:
        """Tell whether threads of this process have a run."""
        return self._threads is not None and self._threads.has(run)

    def threads_live(self) -> bool:
        """Tell whether the worker is threads of this process, and they run."""
        return self._threads is not None and self._threads.alive()

    def lives(self) -> bool:
        """Tell whether some process holds the worker's lock. A process cannot ask that of its own threads."""
        if self._threads is not None:
            return self._threads.alive()
        return locks.is_taken(os.path.join(self._directory, LOCK_NAME))

    def load(self) -> None:
        """Import what threads take, if they are asked for: on the caller's thread, see `loop_thread`."""
        if self._kind == "thread":
            import asynctrack.worker.threads  # noqa: F401  # for later

    def start(self, *, again: bool = False) -> None:
        """Start the worker, unless it has just been tried; `again`: also then."""
        if self._launch.hopeless():
            self._do_its_work()
        elif self._kind == "thread" and not threads_are_over():
            self._start_threads()
        else:
            self._launch.start(self.log_path, again=again)

    def read_report(self) -> None:
        """Hear what the last process says of its start."""
        self._launch.read_report()

    def adopt(self) -> None:
        """Bring the rings that dead processes and dead workers left behind to this worker."""
        from asynctrack.worker.orphan_rings import adopt

        adopt(self._directory, self._own_directories())

    def take_threads(self) -> WorkerThreads | None:
        """Return the threads that are the worker, for who stops them, and have none from then on."""
        threads, self._threads = self._threads, None
        return threads

    def after_fork(self) -> None:
        """Forget the parent's worker, in a forked child. No lock, no system call."""
        self._threads = None
        self._launch.forget()

    def warn(self, message: str) -> None:
        """Say something about the worker, unless it was said a short while ago."""
        messages.warn((self._directory, message), f"asynctrack: {message}")

    def _start_threads(self) -> None:
        from asynctrack.worker.threads import WorkerThreads

        if self._threads is not None:
            self._threads.drain.leave_runs()
        self._threads = WorkerThreads(self._directory, self._rings.own, self.local, self.adopt)
        self._threads.start()

    def _do_its_work(self) -> None:
        """Do the work of a worker process that cannot be started."""
        said = f"no worker process can be started ({self._launch.why})"
        try:
            self._start_threads()
            self.warn(f"{said}; threads of this process do its work")
        except RuntimeError:  # too late for another thread
            from asynctrack.worker.rescue import journal_now

            self._threads = None
            told = f"{said}; all is in the journal, and `asynctrack sync` delivers it"
            journal_now(self._directory, self._rings.own, lambda: self.warn(told))
