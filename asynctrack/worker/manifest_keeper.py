"""Manifest keeper: keeps one run's `run.json` up with its journal. Runs in the worker."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from asynctrack._system.throttle import Throttle
from asynctrack.errors import AsynctrackError, ManifestUnreadable
from asynctrack.journal import conflicts
from asynctrack.journal import manifest as manifests
from asynctrack.journal.frames import Frame
from asynctrack.journal.layout import Position
from asynctrack.journal.manifest import Manifest, find_start
from asynctrack.journal.reader import Reader
from asynctrack.reading.writer_counts import WriterCounts
from asynctrack.worker.run_journal import RunJournal
from asynctrack.worker.run_rules import SAVE_INTERVAL_S

_log = logging.getLogger("asynctrack.worker")


class ManifestKeeper:
    """Reads what changes a run, and saves it.

    Attributes:
        manifest: the run, as far as the journal was read.
        ended: whether the run had ended when the journal was read last.
        saved: whether `run.json` says what `manifest` does.

    Args:
        journal: of the run.
        manifest: as it was found.
        position: in the journal, up to which it tells.
    """

    def __init__(self, journal: RunJournal, manifest: Manifest, position: Position) -> None:
        self.manifest = manifest
        self.ended = False
        self.saved = False
        self._journal = journal
        self._reader = Reader(_directory(journal), position)
        self._counts = WriterCounts(Path(journal.path))
        self._throttle = Throttle()

    async def catch_up(self, pace: Callable[[], Awaitable[None]]) -> None:
        """Read to the journal's end, and save what has changed.

        Args:
            pace: waits after each batch for as long as others come first.
        """
        changed = False
        for batch in self._reader:
            for frame in batch.frames(skip_records=True):
                self._apply(frame, batch.header.ring)
                changed = True
            self._counts.take(batch)
            self.manifest.position = self._reader.position
            await pace()
        # Asked for behind the journal's end, which the drain writes before it says so.
        self.ended = self.manifest.status != "running" and self._journal.status is not None
        if changed or not self.saved:
            self.manifest.writers = self._counts.count_ended(self.manifest.writers)
            self.save()

    def _apply(self, frame: Frame, ring: int) -> None:
        known = self.manifest.conflicts
        self.manifest.apply(frame, ring)
        for conflict in self.manifest.conflicts if self.manifest.conflicts is not known else ():
            if conflict not in known:
                _log.warning("%s: %s; the last counts", self._journal.path, conflicts.describe(conflict))

    def save(self) -> None:
        """Save the manifest; where it cannot be written it is tried again: the deliveries may still get on."""
        try:
            if self._journal.gone():
                raise gone(self._journal)
            manifests.save(Path(self._journal.path), self.manifest)
            self.saved = True
        except OSError as error:
            self.saved = False
            if self._throttle.admit(manifests.FILE_NAME):
                _log.warning("%s cannot be written: %s; trying again", manifests.FILE_NAME, error)

    def close(self) -> None:
        """Close the journal."""
        self._reader.close()
        self._counts.close()


async def find_manifest(
    journal: RunJournal, wait: Callable[[float], Awaitable[None]], is_stopping: Callable[[], bool]
) -> ManifestKeeper | None:
    """Find the run as `run.json` has it, or as its first frame says.

    Args:
        journal: of the run.
        wait: waits for it to grow, at most so many seconds.
        is_stopping: whether somebody has asked to end soon.

    Returns:
        None where its caller died before it said anything.
    """
    try:
        manifest = manifests.load(Path(journal.path))
        return ManifestKeeper(journal, manifest, manifest.position)
    except AsynctrackError as error:
        if isinstance(error, ManifestUnreadable):
            _log.warning(
                "%s of %s cannot be read: %s; the journal stands in", manifests.FILE_NAME, journal.path, error.found
            )
    started = await _find_in_journal(journal, wait, is_stopping)
    return None if started is None else ManifestKeeper(journal, started, Position())


def gone(journal: RunJournal) -> FileNotFoundError:
    """Make the error that says that a run's directory is gone."""
    return FileNotFoundError(errno.ENOENT, "the run's directory has been removed or moved", journal.path)


async def _find_in_journal(
    journal: RunJournal, wait: Callable[[float], Awaitable[None]], is_stopping: Callable[[], bool]
) -> Manifest | None:
    reader = Reader(_directory(journal))
    try:
        while True:
            over = is_stopping() or journal.status is not None  # asked for first: the drain goes on meanwhile
            batch = reader.next()
            if batch is not None:
                if (started := find_start(batch)) is not None:
                    return started
            elif over:
                return None
            else:
                await wait(SAVE_INTERVAL_S)
    finally:
        reader.close()


def _directory(journal: RunJournal) -> str:
    return os.path.join(journal.path, "journal")
