"""Worker handle: starts this process's worker, watches it, restarts it. Runs in the caller.

The worker is a process that is nobody's child, or it is threads here, where a process cannot be started.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from asynctrack._system import locks, messages
from asynctrack._system.background import call_undisturbed
from asynctrack._system.native_threads import allocate_lock
from asynctrack._system.private import threads_are_over
from asynctrack.client.handshake import hold_streams, write_handshake
from asynctrack.client.host_rings import HostRings
from asynctrack.client.host_worker import HostWorker
from asynctrack.client.worker_monitor import monitor, watch
from asynctrack.queue import recreate
from asynctrack.queue.layout import DONE, HEAD, HEARTBEAT, TAIL, WORKER_PID
from asynctrack.queue.producer import Producer
from asynctrack.queue.ring import Ring
from asynctrack.queue.shm_paths import LOCK_NAME, make_host_directory, remove_host, ring_paths, wake_host
from asynctrack.settings import WorkerKind

# `init()` waits at most this long for the worker's first look, which comes after 15 to 25 ms; a ring of 16 MiB lasts a tight loop for about 40 ms.
READY_WAIT_S: Final = 0.012
# Without a heartbeat for this long the caller looks whether the worker is there ...
QUIET_AFTER_S: Final = 0.5
# ... and if it is there but does nothing for this long, it is killed.
HUNG_AFTER_S: Final = 10.0
# Between two such looks.
_PROBE_INTERVAL_S: Final = 0.25
# Between two wakes of a worker that sleeps; it takes 1 ms to come, and half a ring lasts 20.
_WAKE_INTERVAL_S: Final = 0.005
# How long `log()` releases the interpreter to the monitor, which wakes the worker in 0.1 to 0.4 ms. In a loop that never releases it, the worker would be
# woken after 8 to 15 ms: CPython takes the interpreter from a thread only every 5 ms.
_LET_S: Final = 0.001
# How long `start` waits for another thread that starts the worker. Arbitrary: that takes a millisecond.
_START_WAIT_S: Final = 1.0


class WorkerHandle:
    """This process's side of its worker. Every method may be called from any thread.

    Args:
        kind: of the worker.
        root: the place for rings.
        own: says the directories of all hosts of this process, whose rings and locks it must not open a second time.
        joins: the directory of another process's host, which this process joins; None makes one.
    """

    def __init__(self, kind: WorkerKind, root: str, own: Callable[[], list[str]], joins: str | None = None) -> None:
        hold_streams()
        self.kind = kind
        self.root = root
        self.is_joined = joins is not None
        self._own = own
        self.directory: str = make_host_directory(root) if joins is None else joins
        self.rings: HostRings = HostRings(self.directory)
        self.worker: HostWorker = HostWorker(kind, self.directory, self.rings, own)
        self._probe_at = 0.0
        self._wake_at = 0.0
        self._starting = allocate_lock()
        self._replaced = 0  # the pid of the last worker that hung and was killed
        if self.is_joined:
            return
        try:
            write_handshake(self.directory)
        except OSError:  # shared memory has not one free page
            self.remove()
            raise

    def __repr__(self) -> str:
        return f"<WorkerHandle of a worker {self.kind}, {len(self.rings.own)} rings in {self.directory}>"

    def open_ring(self, meta: dict[str, Any], queue_bytes: int | None, *, first: int = 0) -> Producer:
        """Make a ring for a run in this process.

        Raises:
            FileNotFoundError: the worker has left and taken the directory with it; use a new host.
            OSError: there is no room.
        """
        return self.rings.open(meta, queue_bytes, self.poll_ring, first=first)

    def release(self, ring: Ring) -> None:
        """Let go of a ring whose producer is closed. What is left to do needs a worker that outlives this process."""
        if not ring.words[DONE] and self.kind == "process":
            with contextlib.suppress(Exception):  # `asynctrack sync` finds it
                call_undisturbed(lambda: self._alone(lambda: self._leave_to_another(ring), _START_WAIT_S))
        if ring.words[DONE]:
            ring.give_back()
        self.rings.close(ring)

    def wake(self) -> None:
        """Wake the worker, if it sleeps. Never waits."""
        wake_host(self.directory)

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
        if monitor.started:
            monitor.ask(functools.partial(self._care, ring, wake, quiet))
            if wake:
                self._wake_at = now + _WAKE_INTERVAL_S
                monitor.let(_LET_S)
        else:
            with contextlib.suppress(Exception):  # no thread can be had
                self._care(ring, wake, quiet)

    def _care(self, ring: Ring, wake: bool, quiet: bool) -> None:
        """Wake the worker, and start another if it is gone. On the monitor's thread."""
        if wake:
            self.wake()
        if quiet:
            self._alone(lambda: self._look_after(ring))

    def _look_after(self, ring: Ring) -> None:
        try:
            if not ring.words[DONE]:  # it may be done since the item was queued
                self._revive(ring, time.monotonic() - ring.words[HEARTBEAT] / 1e9)
        except ValueError:  # the run has finished meanwhile, and its ring is closed
            pass
        except Exception as error:  # records still go into the queue until it is full
            self.worker.warn(f"the worker cannot be started: {error}; records wait in the queue until it is full")

    def start(self, log_path: Path, ring: Ring) -> None:
        """Start the worker where there is none, and wait a little until it has taken the ring.

        Ctrl-C ends the waits, and nothing else: a worker that is half started would be started once more, and two would have the run.
        """
        deadline = time.monotonic() + READY_WAIT_S
        self.worker.log_path = str(log_path)
        self.worker.load()
        monitor.start()
        watch(self)
        call_undisturbed(lambda: self._alone(self._start, _START_WAIT_S))
        self.wake()
        while not ring.words[WORKER_PID] and time.monotonic() < deadline:
            time.sleep(0.0005)
        hear = functools.partial(self._alone, self.worker.read_report)
        if not (monitor.started and monitor.ask(hear)):
            hear()
        self._probe_at = time.monotonic() + QUIET_AFTER_S  # a worker may need longer than that to start

    def look(self) -> bool:
        """Look whether the worker lives, as a producer does that logs much; return whether there is a ring here that it is to empty."""
        rings = [ring for ring in self.rings.own.copy().values() if ring is not None]
        for ring in rings:
            with contextlib.suppress(ValueError):  # the run has finished meanwhile, and its ring is closed
                self.poll_ring(ring, wake=False)
        return bool(rings)

    def take_over(self, run: Path) -> tuple[int, list[bytes]]:
        """Bring the queues that a run's dead processes and dead workers left behind to this worker.

        Returns:
            The number after the last record in them, 0 where there is none; and the frames in them that are not journaled.
        """
        self.worker.adopt()
        found = [
            (ring.next_number(), ring.copy(ring.words[TAIL], ring.words[HEAD]))
            for ring in self.rings.others_of(str(run))
        ]
        return max((number for number, _ in found), default=0), [frames for _, frames in found]

    def after_fork(self) -> None:
        """Forget the parent's rings and threads, in a forked child. No lock, no system call."""
        self.rings.after_fork()
        self.worker.after_fork()
        self._starting = allocate_lock()

    def remove(self) -> None:
        """Remove its directory, unless somebody uses it."""
        if not ring_paths(self.directory) and not self.worker.lives():
            remove_host(self.directory)

    def stop(self) -> None:
        """Stop the worker's threads, if that is what it is."""
        alone = self._starting.acquire(timeout=_START_WAIT_S)  # a start may hang, in a disk or an audit hook
        try:
            threads = self.worker.take_threads()
        finally:
            if alone:
                self._starting.release()
        if threads is not None:
            threads.stop()

    def _start(self) -> None:
        try:
            if not self.worker.lives():
                self.worker.start()
        except Exception as error:
            self.worker.warn(f"the worker cannot be started: {error}; records wait in the queue until it is full")

    def _alone(self, do: Callable[[], object], wait_s: float = 0.0) -> None:
        """Call what starts the worker, or hears it, while no other thread does; not at all where one still does after a while: it hangs, in a disk or a hook.

        Call it where no Ctrl-C comes: it would come between taking the lock and giving it back, too.
        """
        if self._starting.acquire(timeout=wait_s):
            try:
                do()
            finally:
                self._starting.release()

    def _leave_to_another(self, ring: Ring) -> None:
        """See to it that there is a worker for a ring whose producer leaves it."""
        if (ring.is_there() or self._bring_back(ring, HUNG_AFTER_S)) and not self.worker.lives():
            self.worker.start(again=True)

    def _bring_back(self, ring: Ring, quiet_s: float) -> bool:
        """Have a ring's file where it was, which is not there any more; False while its worker lives, which has the ring all the same.

        Another process of the run may have brought it to its own worker, a worker that let go of the run has removed it, or somebody else has.
        """
        if ring.words[DONE] or self.worker.threads_live():
            return False
        worker = recreate.worker_of(ring)
        if worker is not None:
            if quiet_s > HUNG_AFTER_S and locks.signal_holder(recreate.run_lock(ring), signal.SIGKILL, worker):
                self._warn_replaced(worker, quiet_s)
            return False
        was_left = False
        try:
            if ring.has_name():
                return self.rings.fetch(ring, self._own())
            if ring.words[DONE]:  # a worker has said so, before it removed the file
                return False  # type: ignore[unreachable]  # meanwhile
            was_left = not ring.words[WORKER_PID]
            self.rings.make_again(ring)
        except OSError as error:
            self.worker.warn(
                f"the queue was removed from shared memory, and cannot be made again: {error}; until it can, this process's memory alone has what is not journaled"
            )
            return False
        if not was_left:
            self.worker.warn(
                "the queue was removed from shared memory; it is made again with what it held, for another worker"
            )
        return True

    def _revive(self, ring: Ring, quiet_s: float) -> None:
        if not ring.is_there() and not self._bring_back(ring, quiet_s):
            return
        if not self.worker.lives():
            said = ring.words[WORKER_PID] in (0, self._replaced)
            if not said and not (self.kind == "thread" and threads_are_over()):
                self.worker.warn("the worker is gone; starting another, nothing is lost")
            self.worker.start()
        elif (
            quiet_s > HUNG_AFTER_S and ring.words[WORKER_PID] and self.kind == "process" and not self.worker.serves_here
        ):
            self._replace(ring.words[WORKER_PID], quiet_s)

    def _replace(self, pid: int, quiet_s: float) -> None:
        """Kill the worker that hangs. The next look starts another."""
        lock = os.path.join(self.directory, LOCK_NAME)
        if locks.holder(lock) == locks.ELSEWHERE:
            self.worker.warn(
                "the worker does not move, and it is in another PID namespace: kill it there; records wait in the queue until it is full"
            )
        # The signal is sent only to the process that holds the lock: the one that hung may be gone, and its number another's.
        elif locks.signal_holder(lock, signal.SIGKILL, pid):
            self._warn_replaced(pid, quiet_s)

    def _warn_replaced(self, pid: int, quiet_s: float) -> None:
        self._replaced = pid
        messages.warn(
            None, f"asynctrack: the worker has not moved for {quiet_s:.0f} s; it is replaced, nothing is lost"
        )
