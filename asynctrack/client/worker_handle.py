"""Worker handle: starts this process's worker, watches it, restarts it. Runs in the caller.

The worker is a process that is nobody's child, or it is threads here, where a process cannot be started.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import posix  # eventlet's `os.write` waits where a pipe is full
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from asynctrack._system import locks, messages
from asynctrack._system.background import BackgroundThread
from asynctrack._system.native_threads import allocate_lock
from asynctrack._system.private import threads_are_over
from asynctrack.backends.base import Backend
from asynctrack.client.handshake import hold_streams, write_handshake
from asynctrack.client.worker_launcher import WorkerLauncher
from asynctrack.queue import recreate
from asynctrack.queue.layout import DONE, HEAD, HEARTBEAT, TAIL, WORKER_PID
from asynctrack.queue.producer import Producer
from asynctrack.queue.ring import Ring
from asynctrack.queue.shm_paths import (
    LOCK_NAME,
    SMALLEST_RING_BYTES,
    WAKE_NAME,
    fresh_ring_path,
    is_closed,
    make_host_directory,
    remove_host,
    ring_bytes,
    ring_paths,
)
from asynctrack.settings import WorkerKind

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
# Between two wakes of a worker that sleeps; it takes 1 ms to come, and half a ring lasts 20.
_WAKE_INTERVAL_S: Final = 0.005
# How long a loop leaves the interpreter to who wakes the worker; it takes 0.1 to 0.4 ms. Else a loop that keeps the interpreter would have the worker
# woken after 8 to 15 ms: a thread that wants it gets it after 5.
_LET_S: Final = 0.001
# How much the worker's monitor may be asked for before it is left alone. Arbitrary: it does one thing in 20 us.
_MOST_ASKED: Final = 100
# How long the end of the process waits for what the worker's monitor is at. Arbitrary: a disk that hangs may hold it.
_LEAVE_S: Final = 1.0
# How long `start` waits for another thread that starts the worker. Arbitrary: that takes a millisecond.
_START_WAIT_S: Final = 1.0


class WorkerHandle:
    """This process's side of its worker. Every method may be called from any thread.

    Args:
        kind: of the worker.
        root: the place for rings.
        own: says the directories of all hosts of this process, whose rings and locks it must not open a second time.
    """

    def __init__(self, kind: WorkerKind, root: str, own: Callable[[], list[str]]) -> None:
        hold_streams()
        self.kind = kind
        self.root = root
        self.directory: str = make_host_directory(root)
        self.local: dict[str, dict[str, Backend]] = {}
        self._own_directories = own
        self._own: dict[str, Ring | None] = {}  # None: it is being made
        self._producers: dict[str, Producer] = {}
        self._is_shared = False  # with the process that has forked this one
        self._threads: WorkerThreads | None = None
        self._probe_at = 0.0
        self._wake_at = 0.0
        self._starting = allocate_lock()
        self._launch = WorkerLauncher(self.directory)
        self._log_path = os.devnull
        self._replaced = 0  # the pid of the last worker that hung and was killed
        try:
            write_handshake(self.directory)
        except OSError:  # memory is full to the last page
            self.remove()
            raise

    def __repr__(self) -> str:
        return f"<WorkerHandle of a worker {self.kind}, {len(self._own)} rings in {self.directory}>"

    def open_ring(self, meta: dict[str, Any], queue_bytes: int | None, *, first: int = 0) -> Producer:
        """Make a ring for a run in this process.

        Raises:
            FileNotFoundError: the worker has left and taken the directory with it; use a new host.
            OSError: there is no room.
        """
        self._keep_place()
        size = ring_bytes(self.directory) if queue_bytes is None else 1 << (queue_bytes - 1).bit_length()
        while True:
            path = fresh_ring_path(self.directory)
            self._own[path] = None  # before it exists: whoever opened it here as another's would drop its lock
            try:
                ring = self._own[path] = Ring.create(path, size, meta, first=first)
                self._producers[path] = Producer(ring, functools.partial(self.poll_ring, ring))
                return self._producers[path]
            except OSError as error:
                del self._own[path]
                if error.errno not in (errno.ENOSPC, errno.EFBIG) or size <= SMALLEST_RING_BYTES:
                    raise
                size //= 2

    def release(self, ring: Ring) -> None:
        """Let go of a ring whose producer is closed. What is left to do needs a worker that outlives this process."""
        if not ring.words[DONE] and self.kind == "process":
            with contextlib.suppress(Exception):  # `asynctrack sync` finds it
                self._leave_to_another(ring)
        if ring.words[DONE]:
            ring.give_back()
        self._own.pop(ring.path, None)
        self._producers.pop(ring.path, None)
        ring.close()

    def wake(self) -> None:
        """Wake the worker, if it sleeps. Never waits.

        The pipe is not kept open: a child that becomes a daemon closes all files, and its log would get the byte.
        """
        # Nobody reads it yet; or it is full, and the worker awake; or an audit hook is against it.
        with contextlib.suppress(Exception):
            fd = os.open(
                os.path.join(self.directory, WAKE_NAME), os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            )
            try:
                posix.write(fd, b"!")
            finally:
                os.close(fd)

    def poll_ring(self, ring: Ring, wake: bool) -> None:
        """Have the worker woken, and another started if it is gone. A producer calls this now and then.

        It only asks for that: it is called between the acceptance of a record and the return of `log()`.
        """
        now = time.monotonic()
        quiet = now - ring.words[HEARTBEAT] / 1e9 >= QUIET_AFTER_S and now >= self._probe_at and not ring.words[DONE]
        if quiet:
            self._probe_at = now + _PROBE_INTERVAL_S
        wake = wake and now >= self._wake_at
        if not (wake or quiet):
            return
        if _monitor.started:
            _monitor.ask((self, ring, wake, quiet))
            if wake:
                self._wake_at = now + _WAKE_INTERVAL_S
                _monitor.let(_LET_S)
        else:
            with contextlib.suppress(Exception):  # no thread can be had
                self._care(ring, wake, quiet)

    def _care(self, ring: Ring, wake: bool, quiet: bool) -> None:
        """Wake the worker, and start another if it is gone. On the monitor's thread."""
        if wake:
            self.wake()
        if not quiet or not self._starting.acquire(blocking=False):
            return
        try:
            if not ring.words[DONE]:  # it may have become that since it was asked for
                self._revive(ring, time.monotonic() - ring.words[HEARTBEAT] / 1e9)
        except ValueError:  # the run has finished meanwhile, and its ring is closed
            pass
        except Exception as error:  # whatever it was, the queue takes what it can
            self._warn(f"the worker cannot be started: {error}; records wait in the queue until it is full")
        finally:
            self._starting.release()

    def start(self, log_path: Path, ring: Ring) -> None:
        """Start the worker where there is none, and wait a little until it has taken the ring."""
        deadline = time.monotonic() + READY_WAIT_S
        _monitor.start()
        if self._starting.acquire(timeout=_START_WAIT_S):  # else this may be a signal handler inside `poll_ring`
            try:
                self._log_path = str(log_path)
                if not self._worker_lives():
                    self._start()
            except Exception as error:
                self._warn(f"the worker cannot be started: {error}; records wait in the queue until it is full")
            finally:
                self._starting.release()
        self.wake()
        while not ring.words[WORKER_PID] and time.monotonic() < deadline:
            time.sleep(0.0005)
        if self._starting.acquire(blocking=False):
            try:
                self._launch.read_report()
            finally:
                self._starting.release()
        self._probe_at = time.monotonic() + QUIET_AFTER_S  # it may be slower than that to start

    def take_over(self, run: Path) -> tuple[int, list[bytes]]:
        """Bring the queues that a run's dead processes and dead workers left behind to this worker.

        Returns:
            The number after the last record in them, 0 where there is none; and the frames in them that are not journaled.
        """
        self._adopt()
        found = [
            (ring.next_number(), ring.copy(ring.words[TAIL], ring.words[HEAD])) for ring in self.others_of(str(run))
        ]
        return max((number for number, _ in found), default=0), [frames for _, frames in found]

    @property
    def serves_here(self) -> bool:
        """Tell whether the worker is threads of this process."""
        return self._threads is not None

    def has(self, run: str) -> bool:
        """Tell whether threads of this process have a run."""
        return self._threads is not None and self._threads.has(run)

    def others(self) -> list[str]:
        """List the rings of other processes that share the worker."""
        return [path for path in ring_paths(self.directory) if path not in self._own]

    def others_of(self, run: str) -> Iterator[Ring]:
        """Open the rings of other processes that log to a run; each is closed when the next is asked for."""
        for path in self.others():
            with contextlib.suppress(OSError, ValueError), contextlib.closing(Ring.attach(path)) as ring:
                if ring.meta["run"] == run:
                    yield ring

    def after_fork(self) -> None:
        """Forget the parent's rings and threads, in a forked child. No lock, no system call."""
        self._is_shared = True
        self._own = {}
        self._producers = {}
        self._threads = None
        self._launch.forget()
        self._starting = allocate_lock()

    def remove(self) -> None:
        """Remove its directory, unless somebody uses it."""
        if not ring_paths(self.directory) and not self._worker_lives():
            remove_host(self.directory)

    def stop(self) -> None:
        """Stop the worker's threads, if that is what it is."""
        alone = self._starting.acquire(timeout=_START_WAIT_S)  # a start may hang, in a disk or an audit hook
        try:
            threads, self._threads = self._threads, None
        finally:
            if alone:
                self._starting.release()
        if threads is not None:
            threads.stop()

    def _adopt(self) -> None:
        from asynctrack.worker.orphan_rings import adopt

        adopt(self.directory, self._own_directories())

    def _keep_place(self) -> None:
        """Make the directory again that somebody has removed, where rings are in use whose worker still looks there for others."""
        if (self._own or self._is_shared) and not (os.path.isdir(self.directory) or is_closed(self.directory)):
            self._make_place()

    def _make_place(self) -> None:
        recreate.make_place(self.directory)
        with contextlib.suppress(FileExistsError):
            write_handshake(self.directory)

    def _leave_to_another(self, ring: Ring) -> None:
        """See to it that there is a worker for a ring whose producer leaves it."""
        if (ring.is_there() or self._bring_back(ring, HUNG_AFTER_S)) and not self._worker_lives():
            self._start(again=True)

    def _bring_back(self, ring: Ring, quiet_s: float) -> bool:
        """Make a ring's file again that somebody has removed; False while its worker lives, which has the ring all the same."""
        if ring.words[DONE] or (self._threads is not None and self._threads.alive()):
            return False
        worker = recreate.worker_of(ring)
        if worker is not None:
            if quiet_s > HUNG_AFTER_S and locks.signal_holder(recreate.run_lock(ring), signal.SIGKILL, worker):
                self._warn_replaced(worker, quiet_s)
            return False
        try:
            self._make_place()
            self._producers[ring.path].make_again()
        except OSError as error:
            self._warn(
                f"the queue was removed from shared memory, and cannot be made again: {error}; until it can, this process's memory alone has what is not journaled"
            )
            return False
        self._warn("the queue was removed from shared memory; it is made again with what it held, for another worker")
        return True

    def _revive(self, ring: Ring, quiet_s: float) -> None:
        if not ring.is_there() and not self._bring_back(ring, quiet_s):
            return
        if not self._worker_lives():
            said = ring.words[WORKER_PID] in (0, self._replaced)
            if not said and not (self.kind == "thread" and threads_are_over()):
                self._warn("the worker is gone; starting another, nothing is lost")
            self._start()
        elif quiet_s > HUNG_AFTER_S and ring.words[WORKER_PID] and self.kind == "process" and not self.serves_here:
            self._replace(ring.words[WORKER_PID], quiet_s)

    def _replace(self, pid: int, quiet_s: float) -> None:
        """Kill the worker that hangs. The next look starts another."""
        lock = os.path.join(self.directory, LOCK_NAME)
        if locks.holder(lock) == locks.ELSEWHERE:
            self._warn(
                "the worker does not move, and it is in another PID namespace: kill it there; records wait in the queue until it is full"
            )
        # Else the one that hung is gone, and another could not take this ring.
        elif locks.signal_holder(lock, signal.SIGKILL, pid):
            self._warn_replaced(pid, quiet_s)

    def _warn_replaced(self, pid: int, quiet_s: float) -> None:
        self._replaced = pid
        messages.warn(
            None, f"asynctrack: the worker has not moved for {quiet_s:.0f} s; it is replaced, nothing is lost"
        )

    def _warn(self, message: str) -> None:
        messages.warn((self.directory, message), f"asynctrack: {message}")

    def _worker_lives(self) -> bool:
        """Tell whether some process holds the worker's lock. A process cannot ask that of its own threads."""
        if self._threads is not None:
            return self._threads.alive()
        return locks.is_taken(os.path.join(self.directory, LOCK_NAME))

    def _start(self, *, again: bool = False) -> None:
        """Start the worker, unless it has just been tried; `again`: also then."""
        if self._launch.hopeless():
            self._do_its_work()
        elif self.kind == "thread" and not threads_are_over():
            self._start_threads()
        else:
            self._launch.start(self._log_path, again=again)

    def _start_threads(self) -> None:
        from asynctrack.worker.threads import WorkerThreads

        self._threads = WorkerThreads(self.directory, self._own, self.local, self._adopt)
        self._threads.start()

    def _do_its_work(self) -> None:
        """Do the work of a worker process that cannot be started."""
        said = f"no worker process can be started ({self._launch.why})"
        try:
            self._start_threads()
            self._warn(f"{said}; threads of this process do its work")
        except RuntimeError:  # too late for another thread
            from asynctrack.worker.rescue import journal_now

            self._threads = None
            told = f"{said}; all is in the journal, and `asynctrack sync` delivers it"
            journal_now(self.directory, self._own, lambda: self._warn(told))


# Looks after the workers of this process. Not the thread that says what we have to say: that may wait for a reader.
_monitor: BackgroundThread[tuple[WorkerHandle, Ring, bool, bool]] = BackgroundThread(
    lambda asked: asked[0]._care(*asked[1:]), _MOST_ASKED
)


def leave() -> None:
    """Let the worker's monitor get done with what it is at, at the end of the process: a thread of ours would die in the middle of it."""
    for pause in _monitor.until_done(_LEAVE_S):
        time.sleep(pause)
