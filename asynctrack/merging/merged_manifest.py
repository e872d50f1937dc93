"""Merged manifest: keeps the `run.json` of a merged run up with its journal. Runs with the merger."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from asynctrack.errors import AsynctrackError
from asynctrack.journal import manifest as manifests
from asynctrack.journal.layout import Position
from asynctrack.journal.manifest import Manifest, find_start
from asynctrack.journal.reader import Reader
from asynctrack.reading.writer_counts import WriterCounts


class MergedManifest:
    """Reads what changes a merged run, and saves it.

    Attributes:
        is_saved: whether it was there, and could be read.

    Args:
        run: the run's directory.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._journal = os.fspath(run / "journal")
        self._counts = WriterCounts(run)
        self._manifest: Manifest | None = None
        with contextlib.suppress(AsynctrackError):  # one that is missing or damaged is made anew from the journal
            self._manifest = manifests.load(run)
        self.is_saved = self._manifest is not None
        self._reader = Reader(self._journal, Position() if self._manifest is None else self._manifest.position)
        self._search = Reader(self._journal)  # goes on where it was: what strangers bring may have no start for long

    def catch_up(self) -> None:
        """Read to the journal's end, and save what has changed.

        Raises:
            OSError: it cannot be saved.
        """
        if self._manifest is None:
            self._manifest = self._find()
        if self._manifest is None:
            return
        changed = self._manifest.position == Position()
        for batch in self._reader:
            for frame in batch.frames(skip_records=True):
                self._manifest.apply(frame, batch.header.ring)
                changed = True
            self._counts.take(batch)
            self._manifest.position = self._reader.position
        if changed:
            self._manifest.writers = self._counts.count_ended(self._manifest.writers)
            manifests.save(self._run, self._manifest)

    def close(self) -> None:
        """Close the journal."""
        self._search.close()
        self._reader.close()
        self._counts.close()

    def _find(self) -> Manifest | None:
        """Return the run as its start says; None where nobody has opened it yet."""
        found = next((found for batch in self._search if (found := find_start(batch)) is not None), None)
        if found is not None:
            self._search.close()
        return found
