"""Sync job: journals what ended processes left in their queues, and delivers what is behind, as the worker does, on threads of the command line."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal

import msgspec

from asynctrack._system.wording import in_figures
from asynctrack.backends.base import Backend
from asynctrack.cli.sync_plan import has_all, incomplete, plan_sync
from asynctrack.client.run_state import other_workers
from asynctrack.client.worker_registry import make_directory, own_directories
from asynctrack.delivery.polling import Poller
from asynctrack.delivery.retry_policy import needs_a_person
from asynctrack.errors import AsynctrackError, ManifestUnreadable, NotARun
from asynctrack.journal.manifest import Status
from asynctrack.queue.shm_paths import ring_paths
from asynctrack.reading.reader import RunReader
from asynctrack.reading.stats import RunStats, StatsCollector
from asynctrack.worker.listing import Worker
from asynctrack.worker.orphan_rings import adopt
from asynctrack.worker.policy import CALLERS_ONLY, Policy
from asynctrack.worker.threads import WorkerThreads

# Runs that get on at once. Each holds a few descriptors open; more would not be quicker on one interpreter.
_AT_ONCE: Final = 8
# Runs that wait for their servers do not keep others from their turn, up to so many. Arbitrary: a few hundred descriptors.
_AT_ONCE_WITH_WAITING: Final = 64
# A run that has not moved for so long waits for something. Arbitrary.
_WAITS_AFTER_S: Final = 2.0
# How long a run may stand still before it is given up.
PATIENCE_S: Final = 60.0
# How the reason begins where a run was given up because it stood still.
NO_PROGRESS: Final = "no progress"
# How long an attached delivery that is stopped may wait for its sink.
_STOP_WAIT_S: Final = 10.0

State = Literal["waiting", "working", "done", "behind", "live"]


class SyncProgress(msgspec.Struct, frozen=True, kw_only=True):
    """The progress of a run.

    Attributes:
        path: the run's directory.
        state: "waiting" for its turn; "working"; "done": every backend that can be delivered to from here has everything; "behind": some has
            not, `missing` says which and why; "live": a process still logs to it, and its worker delivers.
        status: of the run.
        stats: its statistics.
        left_out: backends that do not have everything and cannot be delivered to from here, and why.
        missing: once nothing more is done for the run: every backend that does not have everything, those left out too, and why.
        had_all: backends that had everything before, as their cursors say; nobody has asked them.
    """

    path: str
    state: State
    status: Status
    stats: RunStats
    left_out: dict[str, str] = {}
    missing: dict[str, str] = {}
    had_all: list[str] = []


class SyncJob:
    """Works on runs until all are done, or only a person can help. A context manager: leaving it stops the work where it is.

    Args:
        runs: their directories.
        policy: what may be done for them.
        patience_s: a run that makes no progress for so long is given up.
    """

    def __init__(self, runs: Collection[Path], policy: Policy = CALLERS_ONLY, patience_s: float = PATIENCE_S) -> None:
        workers = other_workers()
        served = _served(workers)
        live = [run for run in runs if os.path.realpath(run) in served]
        named = {os.path.realpath(name): name for worker in workers for name in worker.runs}
        # As its queues have it, which may be by way of a link: under two names it would have two writers.
        self._known_as = {run: named.get(os.path.realpath(run), str(run)) for run in runs}
        self._policy = policy = policy._replace(patient=True)
        self._patience_s = patience_s
        self._waiting = [run for run in runs if run not in live]
        self._working: dict[Path, _Watch] = {}
        self._ended: dict[Path, State] = dict.fromkeys(live, "live")
        self._still: dict[Path, str] = {}
        self._last: dict[Path, SyncProgress] = {}
        self._final: dict[Path, SyncProgress] = {}
        self._collectors = {run: StatsCollector(run) for run in runs}
        self._directory = make_directory()
        mine = {self._known_as[run] for run in self._waiting}
        adopt(self._directory, own_directories(), wanted=mine.__contains__)
        self._worker = WorkerThreads(self._directory, policy=policy)
        self._worker.start()

    def __enter__(self) -> SyncJob:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._worker.stop()
        for collector in self._collectors.values():
            collector.close()

    @property
    def done(self) -> bool:
        """Return True if nothing is left to do."""
        return not self._waiting and not self._working

    def poll(self) -> list[SyncProgress]:
        """Begin what can be begun, note what has ended, give up runs without progress, and return the progress of each run."""
        for run in list(self._working):
            if not self._worker.has(self._known_as[run]):
                self._end(run)
        moving = sum(watch.moves for watch in self._working.values())
        while self._waiting and moving < _AT_ONCE and len(self._working) < _AT_ONCE_WITH_WAITING:
            run, moving = self._waiting.pop(0), moving + 1
            self._working[run] = _Watch()
            self._worker.drain.take_on(self._known_as[run])
        for run in self._collectors:
            if run not in self._final:
                self._last[run] = progress = self._progress(run)
                self._watch(run, progress.stats)
        return [self._final.get(run) or self._last[run] for run in self._collectors]

    def _watch(self, run: Path, stats: RunStats) -> None:
        watch = self._working.get(run)
        if watch is None:
            return
        watch.see(stats)
        drain, name = self._worker.drain, self._known_as[run]
        failed = drain.error_of(name)
        if failed is not None and needs_a_person(failed):
            self._give_up(run, str(failed))
        elif watch.still_s > self._patience_s:
            self._give_up(run, str(failed) if failed else f"{NO_PROGRESS} for {in_figures(self._patience_s)} s")

    def _give_up(self, run: Path, why: str) -> None:
        self._still[run] = why
        self._worker.give_up(self._known_as[run])
        self._end(run)

    def _end(self, run: Path) -> None:
        """Note how the run has ended. Our worker lets go of one that a process resumes meanwhile: that is live."""
        del self._working[run]
        try:
            todo = plan_sync(run, self._policy).todo
            resumed = todo and run not in self._still and os.path.realpath(run) in _served(other_workers())
            self._ended[run] = "live" if resumed else "behind" if todo else "done"
        except ManifestUnreadable as error:
            self._ended[run], self._still[run] = "behind", str(error)
        except NotARun:  # its caller was killed before it had announced the run
            self._ended[run] = "done"
        except (AsynctrackError, OSError) as error:
            self._ended[run], self._still[run] = "behind", str(error)
        self._final[run] = self._progress(run)

    def _progress(self, run: Path) -> SyncProgress:
        state: State = self._ended.get(run) or ("working" if run in self._working else "waiting")
        try:
            return self._read(run, state)
        except (
            AsynctrackError,
            OSError,
        ) as error:  # all of it is still in its queue, or it is damaged, or its disk fails
            missing = {"journal": self._still.get(run, str(error))} if state == "behind" else {}
            return SyncProgress(path=str(run), state=state, status="running", stats=RunStats(), missing=missing)

    def _read(self, run: Path, state: State) -> SyncProgress:
        manifest = RunReader(run).manifest()
        stats = self._collectors[run].collect([], ring_paths(self._directory), manifest.backends)
        found = incomplete(run, manifest, self._policy) if state in ("done", "behind") else {}
        still = self._still.get(run, "delivery was stopped")
        missing = {name: why or stats.backends[name].last_error or still for name, why in found.items()}
        if found and (stats.queued or manifest.status == "running"):
            missing = {"journal": still, **missing}
        return SyncProgress(
            path=str(run),
            state=state,
            status=manifest.status,
            stats=stats,
            left_out={name: why for name, why in found.items() if why is not None},
            missing=missing,
        )


def _served(workers: Iterable[Worker]) -> set[str]:
    """Return the runs that processes log to, by their real paths."""
    return {os.path.realpath(name) for worker in workers if worker.callers for name in worker.runs}


class _Watch:
    """Watches a run for progress. Attempts and their errors are none: they are the same each time."""

    def __init__(self) -> None:
        self._last: Any = None
        self._moved_at = time.monotonic()

    def see(self, stats: RunStats) -> None:
        """Note the statistics, and whether they have changed."""
        now = stats.journaled, stats.queued, [_gone(backend_stats) for backend_stats in stats.backends.values()]
        if now != self._last:
            self._last, self._moved_at = now, time.monotonic()

    @property
    def still_s(self) -> float:
        """Return for how many seconds nothing has changed."""
        return time.monotonic() - self._moved_at

    @property
    def moves(self) -> bool:
        """Return True if something has changed lately."""
        return self.still_s < _WAITS_AFTER_S


class AttachJob:
    """Delivers a run to one backend, of its own or another. A context manager: leaving it stops the work where it is.

    Args:
        run: its directory; it may be live.
        name: of the backend in this run.
        backend: its settings.
        force: deliver also from a copy of a run.
        follow: go on to the run's end; else to where its journal ends now.
        patience_s: it is given up without progress for so long, unless it follows.
    """

    def __init__(
        self,
        run: Path,
        name: str,
        backend: Backend,
        *,
        force: bool = False,
        follow: bool = False,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._run = run
        self._name = name
        self._collector = StatsCollector(run)
        self._follow = follow
        self._patience_s = patience_s
        self._watch = _Watch()
        self._still = "delivery was stopped"
        # Only what lies here: a server would show the run as running for a while, and what it has lost can be given by `--again`.
        self._had_all = has_all(run, name) and backend.remote
        self._poller = Poller(
            run, {name: backend}, keep=True, force=force, follow=follow, look_again=not backend.remote
        )
        self._thread = threading.Thread(target=self._serve, name="asynctrack-attached", daemon=True)

    def __enter__(self) -> AttachJob:
        self._poller.expedite()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._poller.stop()
        self._thread.join(_STOP_WAIT_S)
        self._collector.close()

    @property
    def done(self) -> bool:
        """Return True if nothing is left to do."""
        return not self._thread.is_alive()

    def poll(self) -> list[SyncProgress]:
        """Return the progress."""
        manifest = RunReader(self._run).manifest()
        stats = self._collector.collect([], [], [self._name])
        self._watch.see(stats)
        backend_stats = stats.backends[self._name]
        if any(delivery.paused for delivery in self._poller.deliveries):
            self._poller.stop()
        elif self._watch.still_s > self._patience_s and not (self._follow and backend_stats.last_error is None):
            self._still = f"{NO_PROGRESS} for {in_figures(self._patience_s)} s"
            self._poller.stop()
        behind = backend_stats.behind or backend_stats.last_error
        state: State = "working" if not self.done else "behind" if behind else "done"
        missing = {self._name: backend_stats.last_error or self._still} if state == "behind" else {}
        had_all = [self._name] if self._had_all else []
        return [
            SyncProgress(
                path=str(self._run),
                state=state,
                status=manifest.status,
                stats=stats,
                missing=missing,
                had_all=had_all,
            )
        ]

    def _serve(self) -> None:
        asyncio.run(self._poller.run())


def _gone(backend_stats: Any) -> int:
    return int(backend_stats.delivered + backend_stats.rejected + sum(backend_stats.skipped.values()))
