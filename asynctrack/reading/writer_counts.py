"""Writer counts: how many records each process of a run has in the journal, and which was its last step. Runs anywhere."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from asynctrack.journal.cursor import Cursor, peek_cursor
from asynctrack.journal.frames import FrameBatch
from asynctrack.journal.layout import NOTES_RING, Position
from asynctrack.journal.manifest import UNREADABLE, Manifest
from asynctrack.journal.reader import Reader
from asynctrack.journal.tally import Tally
from asynctrack.journal.writer_list import WriterList, WriterStats, last_by_label
from asynctrack.journal.writers import Writers
from asynctrack.records.codec import decode_record

_NONE: Final = Writers()
_BEGIN: Final = Position()


class WriterCounts:
    """Counts by the headers of batches.

    Args:
        run: the run's directory.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._tally = Tally(run / "journal")

    def take(self, batch: FrameBatch) -> None:
        """Count a batch that the caller has read."""
        if batch.header.ring != NOTES_RING:
            self._tally.take(batch)

    def count_ended(self, writers: WriterList) -> WriterList:
        """Return the processes, with the counts of those that have ended since the last call. Of a single one that was not heard of nothing is read."""
        return [
            self._counted(one) if one.has_ended and one.accepted is None and self._knows(one, len(writers)) else one
            for one in writers
        ]

    def by_process(self, writers: WriterList) -> WriterList:
        """Read the journal, and return the processes with their counts as they stand."""
        self._tally.update()
        return [self._counted(one) for one in writers]

    def by_label(self, writers: WriterList) -> dict[str, WriterStats]:
        """Read the journal, and return the last process of each label, with the records and drops of all that had it, forked children too."""
        found = last_by_label(self.by_process(writers))
        labels, rings = read_labels(self._run), self._tally.rings()
        accepted = dict.fromkeys(found, 0)
        for ring, label in ((ring, labels.name_of(ring)) for ring in rings):
            if label in accepted:
                accepted[label] += self._tally.put_by(ring)
        dropped = {label: _sum([one.dropped for one in writers if one.writer == label]) for label in found}
        return {
            label: msgspec.structs.replace(one, accepted=accepted[label], dropped=dropped[label])
            for label, one in found.items()
        }

    def last_step(self, ring: int) -> int | None:
        """Return the step of the last record of a ring; None where it has none."""
        self._find(ring)
        with contextlib.suppress(*UNREADABLE):
            frame = self._tally.last_record(ring)
            return None if frame is None else decode_record(frame.payload, frame.number).step
        return None

    def close(self) -> None:
        """Close the journal."""
        self._tally.close()

    def _counted(self, one: WriterStats) -> WriterStats:
        ring = int(one.ring, 16)
        last_step = self.last_step(ring)
        return msgspec.structs.replace(one, accepted=self._tally.put_by(ring), last_step=last_step)

    def _knows(self, one: WriterStats, count: int) -> bool:
        return count > 1 or int(one.ring, 16) in self._tally.rings()

    def _find(self, ring: int) -> None:
        """Read the headers of the journal where nothing of a ring was read so far: it may have been idle since another worker was here."""
        if ring not in self._tally.rings():
            self._tally.update()


def read_last_labels(run: Path, manifest: Manifest | None) -> Writers:
    """Read which ring has which label, from where the furthest of the run's backends knows them on. Of a run of one writer nothing is read."""
    if manifest is None:
        return read_labels(run)
    cursors = [found for name in manifest.backends if (found := peek_cursor(run, name)) is not None]
    furthest = max(cursors, key=lambda cursor: cursor.position, default=Cursor())
    if not furthest.writers.several and len(manifest.writers) < 2 and "writer" not in manifest.environment:
        return Writers()
    return read_labels(run, furthest.writers, furthest.position._replace(inner=0), furthest.ends)


def read_labels(
    run: Path, known: Writers = _NONE, begin: Position = _BEGIN, ends: Mapping[int, int] | None = None
) -> Writers:
    """Read which ring has which label: the headers of the journal, and the first batch of each ring.

    Args:
        run: the run's directory.
        known: the labels that are known at a place of the journal.
        begin: that place.
        ends: for each ring, up to where it is known there.
    """
    journal = run / "journal"
    with contextlib.closing(Reader(journal, begin, dict(ends or {}), bodies=False)) as headers:
        for header in headers:
            if header.header.start == 0 and header.header.ring != NOTES_RING:
                with contextlib.closing(Reader(journal, Position(header.segment, header.offset))) as reader:
                    first = reader.next()
                known = known if first is None else known.learn(first)
    return known


def _sum(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    reasons = dict.fromkeys(reason for one in counts for reason in one)
    return {reason: sum(one.get(reason, 0) for one in counts) for reason in reasons}
