"""Run books: what was offered, journaled and delivered of a run, and by whom, counted on from where it was counted last. Runs in the server of the page, on a file thread."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from asynctrack.client.run_state import RunActivity
from asynctrack.collection.backend_standing import backend_standing
from asynctrack.errors import AsynctrackError
from asynctrack.journal.manifest import UNREADABLE, Manifest
from asynctrack.journal.reader import journal_id_of
from asynctrack.queue.shm_paths import ring_paths
from asynctrack.reading.stats import StatsCollector
from asynctrack.reading.writer_counts import WriterCounts

# Runs whose books are kept open: each holds two files.
_MOST: Final = 16
# The books of a run that goes on are counted again after so long, and after so many times what that takes.
_LEAST_S: Final = 2.0
_COST: Final = 200.0


class RunBooks:
    """The books of one run. For one thread at a time.

    Args:
        run: its directory.
        known_as: the same, as its queues have it.
    """

    def __init__(self, run: Path, known_as: Path) -> None:
        self.known_as: Path = known_as
        self.journal: bytes | None = journal_id_of(str(run / "journal"))
        self._run = run
        self._stats = StatsCollector(known_as)
        self._counts = WriterCounts(run)
        self._told: dict[str, Any] = {}
        self._again_at = -math.inf

    def close(self) -> None:
        """Close the journal."""
        self._stats.close()
        self._counts.close()

    def told(self, manifest: Manifest, activity: RunActivity) -> dict[str, Any]:
        """Return the statistics, how far each backend is, and the writers: of a run that goes on as they were up to some seconds ago."""
        began_at, is_going_on = time.monotonic(), manifest.status == "running"
        if not is_going_on or began_at >= self._again_at:
            self._told = self._counted(manifest, activity)
            now = time.monotonic()
            self._again_at = now + max(_LEAST_S, _COST * (now - began_at)) if is_going_on else -math.inf
        return self._told

    def _counted(self, manifest: Manifest, activity: RunActivity) -> dict[str, Any]:
        rings = [path for directory in activity.directories for path in ring_paths(directory)]
        stats = self._stats.collect([], rings, manifest.backends)
        return {
            "stats": {
                "offered": stats.offered,
                "accepted": stats.accepted,
                "journaled": stats.journaled,
                "queued": stats.queued,
                "dropped": stats.dropped,
            },
            "backends": {name: backend_standing(self._run, name, manifest, stats) for name in manifest.backends},
            "writers": self._writers(manifest),
        }

    def _writers(self, manifest: Manifest) -> Any:
        writers = [*manifest.earlier_writers, *manifest.writers]
        with suppress(AsynctrackError, OSError, *UNREADABLE):
            writers = self._counts.by_process(writers)
        return msgspec.to_builtins(writers)


class OpenBooks:
    """Keeps the books of the runs that were asked for last. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._books: OrderedDict[str, RunBooks] = OrderedDict()

    def close(self) -> None:
        """Close the journals."""
        with self._lock:
            gone, self._books = self._books, OrderedDict()
        for one in gone.values():
            one.close()

    def told(self, path: str, manifest: Manifest, activity: RunActivity) -> dict[str, Any]:
        """Return what `RunBooks.told` does; the books are this call's alone while it goes on."""
        run = Path(path)
        with self._lock:
            books = self._books.pop(path, None)
        if books is not None and (books.known_as, books.journal) != (
            activity.known_as,
            journal_id_of(str(run / "journal")),
        ):
            books.close()
            books = None
        books = books or RunBooks(run, activity.known_as)
        try:
            return books.told(manifest, activity)
        finally:
            self._put_back(path, books)

    def _put_back(self, path: str, books: RunBooks) -> None:
        with self._lock:
            gone = [books] if path in self._books else []
            if not gone:
                self._books[path] = books
            while len(self._books) > _MOST:
                gone.append(self._books.popitem(last=False)[1])
        for one in gone:
            one.close()
