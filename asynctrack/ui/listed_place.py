"""Listed place: keeps the runs of one directory in the list, and looks again at those that may have changed. Runs in the server of the page, on a file thread.

A run that goes on is looked at each second, or less often where that takes long or the run is fast. One that has ended is looked at again when its directory, its journal or its
cursors have changed, which is asked of some of them at a time.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path
from typing import Final

from asynctrack.client import run_state
from asynctrack.collection.growing_run import GrowingRun
from asynctrack.collection.run_index import RunIndex
from asynctrack.collection.run_places import RunPlaces
from asynctrack.collection.run_summary import RunLook
from asynctrack.errors import AsynctrackError
from asynctrack.journal.layout import segment_name
from asynctrack.journal.manifest import UNREADABLE
from asynctrack.journal.reader import segments
from asynctrack.queue.shm_paths import host_marks
from asynctrack.ui.run_list import ListedRun, RunList
from asynctrack.worker.listing import Worker

# A run that goes on is looked at again after so long, and after so many times what a look takes.
LIVE_S: Final = 0.9
_LIVE_COST: Final = 30.0
# One that logs so many records from look to look is looked at every other second: its page asks for its curves no more often.
_FAST_RECORDS: Final = 100
_FAST_S: Final = 1.9
# One of which nothing has changed is looked at after so long: who works on it may have died.
_QUIET_S: Final = 5.0
_IDLE_S: Final = 30.0
# For so long after queues have come or gone, more may: a new one says only later whose it is.
_FRESH_S: Final = 3.0
# Directories in which nothing has changed are searched again after so long, and after so many times what that takes.
_SEARCH_S: Final = 5.0
_SEARCH_COST: Final = 50.0
# A change that is younger may be followed by one of the same time.
_UNSURE_NS: Final = 2 * 10**9
# Of the runs that have ended so many are asked at a time whether they have changed, at least.
_ASKED: Final = 100
_ASKED_PART: Final = 0.05
# What is found is put into the list so often while more is looked at.
_NOTED_EACH_S: Final = 0.1

_GOING_ON: Final = frozenset({"running", "elsewhere"})
_Marks = tuple[int, ...]


class _Standing:
    """When a run is looked at again.

    Attributes:
        due_at: on the monotonic clock.
        looked_at: the same.
        marks: of its files when it was looked at last.
        is_settled: nothing of it changes as long as its files do not.
        patience_s: for how long it need not be looked at while its files have not changed.
        growing: tells how it grows while it goes on; None where that is not known.
    """

    def __init__(self) -> None:
        self.due_at = self.looked_at = -math.inf
        self.marks: _Marks = ()
        self.is_settled = False
        self.patience_s = 0.0
        self.growing: GrowingRun | None = None


class ListedPlace:
    """A directory of projects, of one project, or of a run. One thread at a time uses it.

    Args:
        directory: the path.
        listing: gets the runs.
        cache: whether what was found out about runs is kept in the user's cache, and found there.

    Attributes:
        directory: the path.
        is_complete: each run has been looked at once.
        unreadable: how many runs and projects this user may not read.
    """

    def __init__(self, directory: Path, listing: RunList, *, cache: bool = True) -> None:
        self.directory: Path = directory
        self.is_complete: bool = False
        self.unreadable: int = 0
        self._listing = listing
        self._has_cache = cache
        self._indexes: dict[str, RunIndex] = {}
        self._searched: dict[str, int] = {}
        self._search_at = -math.inf
        self._runs: dict[str, _Standing] = {}
        self._asked = 0
        self._hosts: list[tuple[str, int]] = []
        self._wake_until = -math.inf
        self._wake_at = -math.inf
        self._again_at = -math.inf

    def find(self) -> None:
        """Bring the runs of the list up to date, where there may be others."""
        now = time.monotonic()
        if now < self._search_at and all(_changed_ns(path) == at for path, at in self._searched.items()):
            return
        began_ns = time.time_ns()
        places = RunPlaces(self.directory, cache=self._has_cache, indexes=self._indexes)
        found = {place.path: place.found_by for place in places.newest_first()}
        self._take(found)
        self.unreadable = places.unreadable
        changed = {path: _changed_ns(path) for path in places.searched}
        unsure = began_ns - _UNSURE_NS
        self._searched = {path: at if at < unsure else -1 for path, at in changed.items()}
        took_s = time.monotonic() - now
        self._search_at = now + max(_SEARCH_S, _SEARCH_COST * took_s)

    def is_due(self) -> bool:
        """Return whether there may be something to see: a run that is not fast may have grown, or another one have come."""
        return time.monotonic() >= self._again_at

    def look(self, budget_s: float, watched: Collection[str] = ()) -> bool:
        """Look at runs that may have changed; return whether that was all of them.

        Args:
            budget_s: for about how long.
            watched: paths of runs that come first.
        """
        end = time.monotonic() + budget_s
        workers = _Workers()
        self._wake(workers)
        self._ask()
        found: list[tuple[ListedRun, RunLook]] = []
        noted_at = time.monotonic()
        is_complete = True
        for path, standing in self._due(watched):
            if time.monotonic() > end:
                is_complete = False
                break
            run = self._listing.at(path)
            if run is not None and (look := self._looked(run, standing, workers)) is not None:
                found.append((run, look))
            if time.monotonic() - noted_at > _NOTED_EACH_S:
                self._listing.note(found)
                found, noted_at = [], time.monotonic()
        self._listing.note(found)
        if is_complete and not self.is_complete:
            self.save()
        self.is_complete = self.is_complete or is_complete
        dues = (standing.due_at for standing in self._runs.values())
        self._again_at = min(time.monotonic() + _FAST_S, min(dues, default=math.inf)) if is_complete else -math.inf
        return is_complete

    def save(self) -> None:
        """Put what was found out about runs into the user's cache."""
        for index in self._indexes.values():
            index.save()

    def _take(self, found: dict[str, RunIndex]) -> None:
        gone = [path for path in self._runs if path not in found]
        for path in gone:
            del self._runs[path]
        self._listing.remove(gone)
        for path, index in found.items():
            if path not in self._runs and self._listing.at(path) is None:
                self._listing.add(path, index)
                self._runs[path] = _Standing()

    def _due(self, watched: Collection[str]) -> Iterator[tuple[str, _Standing]]:
        now = time.monotonic()
        due = [(path, standing) for path, standing in self._runs.items() if standing.due_at <= now]
        due.sort(key=lambda one: (one[0] not in watched, one[1].due_at > -math.inf))
        return iter(due)

    def _looked(self, run: ListedRun, standing: _Standing, workers: _Workers) -> RunLook | None:
        """Look at a run; None where nothing of its files has changed since the last look."""
        if (grown := _grown_since(run, standing)) is not None:
            return grown
        # Of a run that has ended nothing grows within its segments.
        began_at, marks = (
            time.monotonic(),
            _marks(run.path, is_growing=bool(standing.marks) and not standing.is_settled),
        )
        if marks == standing.marks and began_at < standing.looked_at + standing.patience_s:
            standing.due_at = began_at + LIVE_S
            return None
        look, standing.growing = _anew(run, workers)
        now = time.monotonic()
        standing.looked_at, standing.marks, standing.is_settled = now, marks, look.is_final
        standing.patience_s = _QUIET_S if look.summary.status in _GOING_ON else _IDLE_S
        standing.due_at = math.inf if look.is_final else now + max(LIVE_S, _LIVE_COST * (now - began_at))
        return look

    def _wake(self, workers: _Workers) -> None:
        """Have runs looked at that processes of this machine work on: while queues come and go, and now and then."""
        now, hosts = time.monotonic(), host_marks()
        if hosts != self._hosts:
            self._hosts, self._wake_until = hosts, now + _FRESH_S
        if now > self._wake_until and now < self._wake_at:
            return
        self._wake_at = now + _QUIET_S
        for path in {os.path.abspath(queue.run) for worker in workers.found for queue in worker.queues}:
            if (standing := self._runs.get(path)) is not None and standing.is_settled:
                standing.due_at = standing.looked_at = -math.inf
                standing.is_settled = False

    def _ask(self) -> None:
        """Ask the next of the runs that are not due whether they have changed."""
        paths = list(self._runs)
        for _ in range(min(len(paths), max(_ASKED, int(_ASKED_PART * len(paths))))):
            self._asked = (self._asked + 1) % len(paths)
            standing = self._runs[paths[self._asked]]
            if standing.is_settled and _marks(paths[self._asked], is_growing=False) != standing.marks:
                standing.due_at = standing.looked_at = -math.inf


class _Workers:
    """The workers of this machine, looked for when they are asked for."""

    @cached_property
    def found(self) -> list[Worker]:
        """Return them."""
        return run_state.other_workers()


def _anew(run: ListedRun, workers: _Workers) -> tuple[RunLook, GrowingRun | None]:
    """Look at a run, and return what tells how it grows, where it goes on."""
    if (kept := run.index.summary(run.path)) is not None:
        return RunLook(kept, True), None
    growing = GrowingRun(Path(run.path))
    look = run.anew(workers.found, growing.count).look
    is_healthy = look.summary.status in _GOING_ON and look.summary.problem is None
    return look, growing if is_healthy else None


def _grown_since(run: ListedRun, standing: _Standing) -> RunLook | None:
    """Look at what was appended to a run's journal; None where the run has to be looked at whole."""
    began_at, seen = time.monotonic(), run.summary
    if standing.growing is None or seen is None:
        return None
    summary = None
    with contextlib.suppress(AsynctrackError, OSError, *UNREADABLE):
        summary = standing.growing.grown(seen)
    if summary is None:
        standing.growing = None
        return None
    standing.looked_at = time.monotonic()
    least_s = _FAST_S if summary.records >= seen.records + _FAST_RECORDS else LIVE_S
    standing.due_at = standing.looked_at + max(least_s, _LIVE_COST * (standing.looked_at - began_at))
    return RunLook(summary, False)


def _marks(path: str, *, is_growing: bool) -> _Marks:
    """Return when a run's directory, its cursors and its journal have changed; of one that grows also the last segment of that."""
    changed = tuple(map(_changed_ns, (path, f"{path}/cursors", f"{path}/journal")))
    if not is_growing:
        return changed
    last = max(segments(f"{path}/journal"), default=0)
    return (*changed, *_grown(f"{path}/journal/{segment_name(last)}"))


def _changed_ns(path: str) -> int:
    return _grown(path)[0]


def _grown(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size
