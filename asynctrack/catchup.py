"""Catch-up: what ended processes left in their queues is journaled, what is behind is delivered. The worker, as threads of the command line."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Collection, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Literal

import msgspec

from asynctrack import trust
from asynctrack.backends.base import Backend
from asynctrack.backends.registry import from_stored
from asynctrack.books import Books, Stats
from asynctrack.census import take_census
from asynctrack.cursor import load_cursor
from asynctrack.delivery.polling import Poller
from asynctrack.errors import AsynctrackError, NotARun
from asynctrack.hosts import make_directory, own_directories
from asynctrack.manifest import Manifest, Status
from asynctrack.queue.places import ring_paths
from asynctrack.reading.reader import open_run
from asynctrack.worker.orphans import adopt
from asynctrack.worker.service import CALLERS_ONLY, Policy
from asynctrack.worker.threads import WorkerThreads

# Runs that are worked on at once. Each holds a few descriptors open; more would not be quicker on one interpreter.
_AT_ONCE: Final = 8
# How long an attached delivery that is told to stop may wait for its sink.
_STOP_WAIT_S: Final = 10.0

State = Literal["waiting", "working", "done", "behind", "live"]


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a run is.

    Attributes:
        path: the run's directory.
        state: "waiting" for its turn; "working"; "done": every backend has everything; "behind": some has not, `stats` says which and
            why; "live": a process still logs to it, and its worker delivers.
        status: of the run.
        stats: its books.
        left_out: backends that cannot be delivered to from here, and why.
    """

    path: str
    state: State
    status: Status
    stats: Stats
    left_out: dict[str, str] = {}


class CatchUp:
    """Works on runs until all are done; a context manager, whose end stops the work where it is.

    Args:
        runs: their directories.
        policy: what may be done for them.
    """

    def __init__(self, runs: Collection[Path], policy: Policy = CALLERS_ONLY) -> None:
        workers = take_census(but=own_directories())
        served = {os.path.realpath(name) for worker in workers if worker.callers for name in worker.runs}
        live = [run for run in runs if os.path.realpath(run) in served]
        named = {os.path.realpath(name): name for worker in workers for name in worker.runs}
        # As its queues have it, which may be by way of a link: under two names it would have two writers.
        self._known_as = {run: named.get(os.path.realpath(run), str(run)) for run in runs}
        self._policy = policy = policy._replace(patient=True)
        self._waiting = [run for run in runs if run not in live]
        self._working: list[Path] = []
        self._ended: dict[Path, State] = dict.fromkeys(live, "live")
        self._books = {run: Books(run) for run in runs}
        self._directory = make_directory()
        mine = {self._known_as[run] for run in self._waiting}
        adopt(self._directory, own_directories(), wanted=mine.__contains__)
        self._worker = WorkerThreads(self._directory, policy=policy)
        self._worker.start()

    def __enter__(self) -> CatchUp:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._worker.stop()
        for books in self._books.values():
            books.close()

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return not self._waiting and not self._working

    def look(self) -> list[Progress]:
        """Begin what can be begun, note what has ended, and say how far each run is."""
        for run in list(self._working):
            if not self._worker.has(self._known_as[run]):
                self._working.remove(run)
                self._ended[run] = self._ending(run)
        while self._waiting and len(self._working) < _AT_ONCE:
            run = self._waiting.pop(0)
            self._working.append(run)
            self._worker.drain.take_on(self._known_as[run])
        return [self._progress(run) for run in self._books]

    def _ending(self, run: Path) -> State:
        try:
            return "behind" if is_behind(run, self._policy) else "done"
        except NotARun:  # its caller was killed before it had said anything
            return "done"

    def _progress(self, run: Path) -> Progress:
        state: State = self._ended.get(run) or ("working" if run in self._working else "waiting")
        try:
            manifest = open_run(run).manifest()
        except NotARun:  # all that there is of it is still in its queue
            return Progress(path=str(run), state=state, status="running", stats=Stats())
        stats = self._books[run].take([], ring_paths(self._directory), manifest.backends)
        left_out = {name: why for name, why in _look_at(manifest, self._policy) if why is not None}
        return Progress(path=str(run), state=state, status=manifest.status, stats=stats, left_out=left_out)


class Attached:
    """Delivers a run to a backend that it was not opened with; a context manager, whose end stops it where it is.

    Args:
        run: its directory; it may be live.
        name: of the backend in this run.
        backend: its settings.
        force: deliver also from a copy of a run.
        follow: go on to the run's end; else to where its journal ends now.
    """

    def __init__(self, run: Path, name: str, backend: Backend, *, force: bool = False, follow: bool = False) -> None:
        self._run = run
        self._name = name
        self._books = Books(run)
        self._poller = Poller(run, {name: backend}, keep=True, force=force, follow=follow)
        self._thread = threading.Thread(target=self._serve, name="asynctrack-attached", daemon=True)

    def __enter__(self) -> Attached:
        self._poller.hurry()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._poller.stop()
        self._thread.join(_STOP_WAIT_S)
        self._books.close()

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return not self._thread.is_alive()

    def look(self) -> list[Progress]:
        """How far it is."""
        manifest = open_run(self._run).manifest()
        stats = self._books.take([], [], [self._name])
        behind = stats.backends[self._name].behind
        state: State = "working" if not self.done else "behind" if behind else "done"
        return [Progress(path=str(self._run), state=state, status=manifest.status, stats=stats)]

    def _serve(self) -> None:
        asyncio.run(self._poller.run())


def orphaned(under: Path) -> list[Path]:
    """Runs in a directory of which dead processes with dead workers left queues, perhaps before anything was journaled."""
    dead = [worker for worker in take_census(but=own_directories()) if worker.pid is None and not worker.callers]
    found = [Path(os.path.realpath(run)) for worker in dead for run in worker.runs]
    return [run for run in found if run.is_relative_to(os.path.realpath(under))]


def is_behind(run: Path, policy: Policy = CALLERS_ONLY) -> bool:
    """Whether a run has no end yet, or a backend that can be opened here does not have all of it.

    Raises:
        NotARun: neither the directory nor a queue tells of a run there.
    """
    try:
        manifest = open_run(run).manifest()
    except NotARun:
        if orphaned(run):
            return True
        raise
    open_here = [name for name, why in _look_at(manifest, policy) if why is None]
    return manifest.status == "running" or any(not load_cursor(run, name).closed for name in open_here)


def _look_at(manifest: Manifest, policy: Policy) -> Iterator[tuple[str, str | None]]:
    """The run's backends, and why each is not delivered to from here; None where it is."""
    for name, stored in manifest.backends.items():
        if stored.get("place") == "caller":
            continue  # it had it while it ran, or never will
        try:
            from_stored(stored, trusted=policy.trust or trust.is_sealed(manifest.id, name, stored))
        except AsynctrackError as error:
            yield name, str(error)
        else:
            yield name, None
