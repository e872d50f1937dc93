"""Disk lane: serves the runs on one disk, in an asyncio loop and on a thread of its own: what hangs, hangs for these. Runs in the worker."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable

import anyio
import anyio.abc
import anyio.to_thread

from asynctrack._system.loop_thread import LoopThread
from asynctrack._system.throttle import Throttle
from asynctrack.backends.base import Backend
from asynctrack.delivery.driver import STOP_WAIT_S
from asynctrack.delivery.retry_policy import FIRST_RETRY_S, LONGEST_RETRY_S
from asynctrack.worker.delivery_opening import DeliveryOpener
from asynctrack.worker.delivery_supervisor import Supervisor
from asynctrack.worker.drain import Drain
from asynctrack.worker.policy import Policy
from asynctrack.worker.provenance import Provenance
from asynctrack.worker.run_journal import RunJournal
from asynctrack.worker.run_service import AFTER_EXIT_MAX_S, RunService

# Between two looks whether a run that cannot be served is still there, which only its disk tells. Arbitrary: soon enough for who waits
# in `finish`.
_HOPE_INTERVAL_S = 0.2
# Between two looks at which runs there are, where nothing is heard of them.
_POLL_S = 0.5
# How many calls may wait in threads. If so many files on other disks hang, they hold up all other calls.
_MOST_WAITING = 1000

_log = logging.getLogger("asynctrack.worker")


class DiskLane:
    """Serves those of a drain's runs that are its own.

    Args:
        drain: whose runs are served.
        local: backends that run here though they belong on the caller's side, by run directory: the worker is a thread
            of the caller.
        policy: what it may do.
        provenance: has it found out where the runs come from.
        first: called on its thread before anything else.

    Raises:
        RuntimeError: no thread can be started.
    """

    def __init__(
        self,
        drain: Drain,
        local: dict[str, dict[str, Backend]],
        policy: Policy,
        provenance: Provenance,
        first: Callable[[], object] = lambda: None,
    ) -> None:
        self.runs: dict[str, RunJournal] = {}
        self._drain = drain
        self._local = local
        self._policy = policy
        self._provenance = provenance
        self._first = first
        self._processes = Supervisor(drain.host)
        self._served: dict[str, RunService] = {}
        self._given_up: set[str] = set()
        self._stopping = False
        self._changed: anyio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = LoopThread("asynctrack-service", self._run)

    def take(self, runs: Iterable[RunJournal]) -> None:
        """Serve runs whose journal has grown. From any thread; never waits."""
        runs = list(runs)
        self.runs.update((run.path, run) for run in runs)
        self._call(self._ring, runs)

    def give_up(self, run: str) -> None:
        """Let go of a run: what is behind stays behind. From any thread."""
        self._call(self._stop_one, run)

    def serves_none(self) -> bool:
        """Return whether nothing is left to do for any run."""
        return all(served.finished for served in list(self._served.values())) and not self._wanted()

    def stop(self) -> None:
        """End soon; what is behind stays behind. From any thread."""
        self._stopping = True
        self._call(self._wake)

    def join(self, timeout_s: float) -> None:
        """Wait for its thread to end, but not for longer than told."""
        self._thread.join(timeout_s)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        anyio.to_thread.current_default_thread_limiter().total_tokens = _MOST_WAITING
        try:
            self._first()
            await self._serve_all()
        except Exception:
            _log.exception("deliveries have failed; the journal goes on")
            await self._only_journal()

    async def _serve_all(self) -> None:
        """Serve until stopped."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._processes.watch)
            async with anyio.create_task_group() as serving:
                while not self._stopping:
                    self._changed = anyio.Event()
                    self._forget_closed()
                    self._begin_new(serving)
                    with anyio.move_on_after(_POLL_S):
                        await self._changed.wait()
                for served in self._served.values():
                    served.stop()
                serving.cancel_scope.deadline = anyio.current_time() + STOP_WAIT_S
            tasks.cancel_scope.cancel()

    def _begin_new(self, tasks: anyio.abc.TaskGroup) -> None:
        """Begin to serve the runs that nobody serves yet."""
        for journal in self._wanted():
            if journal.path not in self._served and journal.writer is not None:
                self._served[journal.path] = served = self._service_of(journal)
                tasks.start_soon(self._serve, served)

    async def _only_journal(self) -> None:
        """Let go of the runs whose callers have ended, without deliveries; `asynctrack sync` delivers."""
        self._served.clear()
        while not self._stopping:
            self._forget_closed()
            for run in self._wanted():
                if run.status is not None:
                    self._drain.finish(run, done=False)
            await anyio.sleep(_POLL_S)

    def _wanted(self) -> list[RunJournal]:
        return [run for run in list(self.runs.values()) if self._drain.runs.get(run.path) is run]

    def _forget_closed(self) -> None:
        """Forget runs that the drain has let go of, and those that somebody has begun to log to again."""
        for path, run in list(self.runs.items()):
            if self._drain.runs.get(path) is not run and self.runs.get(path) is run:
                del self.runs[path]
        for path, served in list(self._served.items()):
            if self._drain.runs.get(path) is not served.journal or (served.finished and served.is_outdated()):
                del self._served[path]

    async def _serve(self, served: RunService) -> None:
        """Serve a run to its end, by as many services as it takes."""
        journal, done, pause_s = served.journal, False, FIRST_RETRY_S
        gives_up_at, throttle = float("inf"), Throttle()
        while not served.hopeless() and time.monotonic() < gives_up_at and journal.path not in self._given_up:
            try:
                done = await served.run()
                break
            except (
                Exception
            ) as error:  # one run's failure must not end the others', and may pass: a full disk, a lost mount
                if throttle.admit(journal.path):
                    if (said := _disk_error(error)) is not None:
                        _log.warning("%s cannot be served: %s; trying again", journal.path, said)
                    else:
                        _log.exception("%s cannot be served; its journal goes on", journal.path)
                if journal.status is not None:  # its callers have ended, so the tries come to an end
                    gives_up_at = min(gives_up_at, time.monotonic() + AFTER_EXIT_MAX_S)
                with anyio.move_on_after(pause_s):
                    while not served.hopeless():
                        await anyio.sleep(_HOPE_INTERVAL_S)
                pause_s = min(2 * pause_s, LONGEST_RETRY_S)
                before, served = served, self._service_of(journal)
                if self._served.get(journal.path) is before:  # else another run is there by now
                    self._served[journal.path] = served
        served.finished = True
        if not self._stopping:
            self._drain.finish(journal, done=done or served.hopeless(), told=served.status, notes=served.notes)

    def _service_of(self, journal: RunJournal) -> RunService:
        local = self._local.get(journal.path, {})
        opener = DeliveryOpener(self._processes, local, self._policy)
        return RunService(journal, self._drain, opener, self._policy, self._provenance)

    def _call(self, function: object, *arguments: object) -> None:
        if self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(function, *arguments)  # type: ignore[arg-type]  # any function
            except RuntimeError:
                pass  # the loop has ended

    def _stop_one(self, run: str) -> None:
        self._given_up.add(run)
        if run in self._served:
            self._served[run].stop()

    def _ring(self, runs: list[RunJournal]) -> None:
        for journal in runs:
            served = self._served.get(journal.path)
            if served is None or served.finished:
                self._wake()
            else:
                served.notify_growth()

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()


def _disk_error(error: Exception) -> OSError | None:
    """Find the first of the errors of a disk, if there are no others: they say where, and no line of ours does."""
    if isinstance(error, ExceptionGroup) and error.split(OSError)[1] is None:
        return _disk_error(error.exceptions[0])
    return error if isinstance(error, OSError) else None
