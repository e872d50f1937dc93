"""Catch-up: what ended processes left in their queues is journaled, what is behind is delivered. The worker, as threads of the command line."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Literal

import msgspec

from asynctrack.backends.registry import from_stored
from asynctrack.books import Books, Stats
from asynctrack.census import take_census
from asynctrack.cursor import load_cursor
from asynctrack.errors import AsynctrackError
from asynctrack.host import make_directory
from asynctrack.manifest import Manifest, Status
from asynctrack.queue.places import ring_paths
from asynctrack.reader import open_run
from asynctrack.worker.orphans import adopt
from asynctrack.worker.threads import WorkerThreads

# Runs that are worked on at once. Each holds a few descriptors open; more would not be quicker on one interpreter.
_AT_ONCE: Final = 8

State = Literal["waiting", "working", "done", "behind", "live"]


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a run is.

    Attributes:
        path: the run's directory.
        state: "waiting" for its turn; "working"; "done": every backend has everything; "behind": some has not, `stats` says which and
            why; "live": a process still logs to it, and its worker delivers.
        status: of the run.
        stats: its books.
    """

    path: str
    state: State
    status: Status
    stats: Stats


class CatchUp:
    """Works on runs until all are done; a context manager, whose end stops the work where it is.

    Args:
        runs: their directories.
    """

    def __init__(self, runs: Collection[Path]) -> None:
        workers = take_census()
        self._live = {run for run in runs if any(str(run) in worker.runs and worker.callers for worker in workers)}
        self._waiting = [run for run in runs if run not in self._live]
        self._working: list[Path] = []
        self._ended: dict[Path, State] = dict.fromkeys(self._live, "live")
        self._books = {run: Books(run) for run in runs}
        self._directory = make_directory()
        mine = {str(run) for run in self._waiting}
        adopt(self._directory, wanted=mine.__contains__)
        self._worker = WorkerThreads(self._directory)

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
            if not self._worker.has(str(run)):
                self._working.remove(run)
                self._ended[run] = "behind" if is_behind(run) else "done"
        while self._waiting and len(self._working) < _AT_ONCE:
            run = self._waiting.pop(0)
            self._working.append(run)
            self._worker.drain.take_on(str(run))
        return [self._progress(run) for run in self._books]

    def _progress(self, run: Path) -> Progress:
        manifest = open_run(run).manifest()
        state: State = self._ended.get(run) or ("working" if run in self._working else "waiting")
        stats = self._books[run].take([], ring_paths(self._directory), manifest.backends)
        return Progress(path=str(run), state=state, status=manifest.status, stats=stats)


def is_behind(run: Path) -> bool:
    """Whether a run has no end yet, or a backend that can be opened here does not have all of it."""
    manifest = open_run(run).manifest()
    return manifest.status == "running" or any(not load_cursor(run, name).closed for name in deliverable(manifest))


def deliverable(manifest: Manifest) -> Iterator[str]:
    """The run's backends that need nothing of the process that logged."""
    for name, stored in manifest.backends.items():
        try:
            from_stored(stored)
        except AsynctrackError:
            continue
        yield name
