"""Growing run: tells how a run that goes on has grown since it was looked at, by what was appended to its journal alone. Runs anywhere.

As long as its journal grows, somebody works on it, and only records, step, last values and bytes are others. All else shows in files that are replaced or
added: then, and every few seconds, it is looked at whole.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

import msgspec

from asynctrack.collection.record_count import RecordCount
from asynctrack.collection.run_summary import RunSummary, journaled_at, numbers_in, rate_of
from asynctrack.journal.backwards import last_records
from asynctrack.journal.frames import FrameBatch
from asynctrack.journal.layout import segment_name
from asynctrack.journal.manifest import FILE_NAME, UNREADABLE
from asynctrack.journal.reader import segments
from asynctrack.records.codec import decode_record

# After so long it is looked at whole: errors of backends and the bytes of other files show then.
_WHOLE_S: Final = 5.0


class GrowingRun:
    """A run that goes on, as it grows.

    Make it before the run is looked at, with `count`.

    Args:
        run: its directory.

    Attributes:
        count: of its records.
    """

    def __init__(self, run: Path) -> None:
        self.count: RecordCount = RecordCount(run)
        self._run = run
        self._marks = _marks(run)
        self._bytes = _size(self._segment(max(segments(f"{run}/journal"), default=0)))
        self._whole_until = time.monotonic() + _WHOLE_S

    def grown(self, seen: RunSummary) -> RunSummary | None:
        """Return what it has become; None where it has to be looked at whole.

        Args:
            seen: what it was when it was looked at last.

        Raises:
            AsynctrackError, OSError: something cannot be read.
        """
        if time.monotonic() > self._whole_until or _marks(self._run) != self._marks:
            return None
        found = self.count.grow()
        if found is None or found[0] <= seen.records:
            return None
        return self._with_last(seen, *found)

    def _with_last(self, seen: RunSummary, records: int, batch: FrameBatch) -> RunSummary | None:
        """Return the run with its last batch; None where that cannot be read."""
        before, self._bytes = self._bytes, _size(self._segment(batch.segment))
        try:
            last = [decode_record(frame.payload, frame.number) for frame in last_records(batch, 1)]
        except UNREADABLE:
            return None
        if not last:
            return None
        return msgspec.structs.replace(
            seen,
            records=records,
            records_per_s=rate_of(records, seen.created_at, journaled_at(batch)),
            step=last[0].step,
            last={**seen.last, **dict(numbers_in(last[0]))},
            bytes=seen.bytes + max(0, self._bytes - before),
        )

    def _segment(self, number: int) -> str:
        return f"{self._run}/journal/{segment_name(number)}"


def _marks(run: Path) -> tuple[tuple[int, int, int], ...]:
    """Return what changes when a file of a run is replaced or added, but for its cursors."""
    return tuple(_mark(path) for path in (f"{run}", f"{run}/{FILE_NAME}", f"{run}/journal"))


def _size(path: str) -> int:
    return _mark(path)[2]


def _mark(path: str) -> tuple[int, int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0, 0
    return found.st_ino, found.st_mtime_ns, found.st_size
