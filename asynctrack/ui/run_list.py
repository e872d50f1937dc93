"""Run list: the runs that the page shows, by their keys, each looked at again when it may have changed. Runs in the server of the page.

A key is all that a request can say of a run: no path comes from one. What has changed gets the next version of the list, so that a page asks for that alone.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from asynctrack.collection.record_count import RecordCount
from asynctrack.collection.run_index import RunIndex
from asynctrack.collection.run_summary import RunLook, RunSummary
from asynctrack.collection.subject import RunSubject
from asynctrack.records.media_types import unicode
from asynctrack.ui.plain_json import encode
from asynctrack.ui.run_rows import row_of
from asynctrack.worker.listing import Worker

# Runs that have gone are remembered up to so many; a page that knows more begins anew.
_MOST_REMOVED: Final = 10_000


class ListedRun:
    """A run of the list.

    Attributes:
        key: by which the page asks for it.
        path: of its directory.
        index: where what was found out about it is kept.
        look: the last one; None before the first.
        looked_at: when that was, on the monotonic clock.
        row: of it, as JSON.
        version: of the list, in which the row is.
    """

    def __init__(self, key: str, path: str, index: RunIndex) -> None:
        self.key: str = key
        self.path: str = path
        self.index: RunIndex = index
        self.look: RunLook | None = None
        self.looked_at: float = 0.0
        self.row: bytes = b""
        self.version: int = 0

    @property
    def summary(self) -> RunSummary | None:
        """Return what is known of it."""
        return None if self.look is None else self.look.summary

    def subject(self) -> RunSubject:
        """Return what expressions ask about it, as it was when it was looked at."""
        return RunSubject(self.path, (), index=self.index, seen=self.look)

    def recent(self, workers: Callable[[], Sequence[Worker]], within_s: float) -> RunSubject:
        """Return the same, as it was within some seconds."""
        if self.look is not None and time.monotonic() < self.looked_at + within_s:
            return self.subject()
        return self.anew(workers())

    def anew(self, workers: Sequence[Worker], count: RecordCount | None = None) -> RunSubject:
        """Return the same, to look at it again."""
        return RunSubject(self.path, workers, index=self.index, count=count)


class ListChanges(NamedTuple):
    """Tells what has changed since a version.

    Attributes:
        version: of the list.
        reset: it is all that there is: what was known counts no more.
        rows: as JSON.
        removed: keys of runs that have gone.
    """

    version: int
    reset: bool
    rows: list[bytes]
    removed: list[str]


class RunList:
    """Holds the runs by their keys. For any thread; nothing here touches a file."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_key: dict[str, ListedRun] = {}
        self._by_path: dict[str, ListedRun] = {}
        # Another server's versions are others: pages outlive it.
        self._first = self.version = int(time.time() * 1000)
        self._removed: list[tuple[int, str]] = []
        self._forgotten = self._first

    def get(self, key: str) -> ListedRun | None:
        """Return a run by its key."""
        return self._by_key.get(key)

    def at(self, path: str) -> ListedRun | None:
        """Return a run by the path of its directory."""
        return self._by_path.get(path)

    def all(self) -> list[ListedRun]:
        """Return all runs, the newest first as far as that is known."""
        with self._lock:
            found = list(self._by_key.values())
        found.sort(key=_created_at, reverse=True)
        return found

    def add(self, path: str, index: RunIndex) -> ListedRun:
        """Add a run that is not there yet."""
        with self._lock:
            found = ListedRun(self._new_key(path), path, index)
            self._by_key[found.key] = self._by_path[path] = found
            return found

    def remove(self, paths: Iterable[str]) -> None:
        """Remove runs."""
        with self._lock:
            gone = [found for path in paths if (found := self._by_path.pop(path, None)) is not None]
            if not gone:
                return
            self.version += 1
            for run in gone:
                del self._by_key[run.key]
                self._removed.append((self.version, run.key))
            for version, _ in self._removed[:-_MOST_REMOVED]:
                self._forgotten = version
            del self._removed[:-_MOST_REMOVED]

    def note(self, looks: Collection[tuple[ListedRun, RunLook]]) -> None:
        """Take looks at runs; those whose rows have changed get a new version."""
        rows = [(run, look, encode(row_of(run.key, look.summary))) for run, look in looks]
        with self._lock:
            changed = [run for run, _, row in rows if row != run.row]
            if changed:
                self.version += 1
            for run, look, row in rows:
                run.look, run.row, run.looked_at = look, row, time.monotonic()
            for run in changed:
                run.version = self.version

    def since(self, version: int | None) -> ListChanges:
        """Return what has changed since a version; all without one, or where that is of another server."""
        with self._lock:
            reset = version is None or not self._forgotten <= version <= self.version
            after = -1 if version is None or reset else version
            rows = [run.row for run in self._by_key.values() if run.row and run.version > after]
            removed = [] if reset else [key for at, key in self._removed if at > after and key not in self._by_key]
            return ListChanges(self.version, reset, rows, removed)

    def _new_key(self, path: str) -> str:
        above, name = os.path.split(path)
        name = f"{unicode(os.path.basename(above))}/{unicode(name)}"
        return next(key for key in _spellings(name) if key not in self._by_key)


def rows_as_json(changes: ListChanges, more: dict[str, Any]) -> bytes:
    """Encode what has changed, and other fields."""
    said = {"version": changes.version, "reset": changes.reset, **more, "removed": changes.removed}
    return msgspec.json.encode({**said, "runs": [msgspec.Raw(row) for row in changes.rows]})


def _spellings(name: str) -> Iterable[str]:
    return itertools.chain([name], (f"{name} ({at})" for at in itertools.count(2)))


def _created_at(run: ListedRun) -> tuple[str, str]:
    summary = run.summary
    return ("" if summary is None else summary.created_at, run.path)
