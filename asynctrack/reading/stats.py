"""Stats: counts how many records are where. All counts are derived from journal, rings and cursors; none is kept beside them.

They balance: `accepted = journaled + queued`, `offered = accepted + dropped`, and for each backend
`journaled = delivered + skipped + rejected + behind`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from asynctrack.journal.cursor import Cursor, peek_cursor
from asynctrack.journal.manifest import read_note
from asynctrack.journal.tally import Tally
from asynctrack.queue.ring import Ring

# Attempts: a small ring may turn over between the readings of journal and queue; each takes about 0.1 ms. Arbitrary.
_MAX_TRIES: Final = 100


class BackendStats(msgspec.Struct, frozen=True, kw_only=True):
    """Counts the records of one backend.

    Attributes:
        delivered: records that the backend has.
        skipped: records that it cannot show, by reason.
        rejected: records that it will never take; the run's `dead_letters.jsonl` has them.
        behind: records that are journaled and still to be delivered.
        retries: attempts to deliver that failed, in all.
        last_error: what went wrong last; None while it works.
        next_try_at: when the next attempt is due, UTC, ISO 8601; None while it works.
        paused: True while deliveries wait for a person to mend something; `last_error` says what.
        known: False where these statistics cannot be read, and all counts are 0: they are private to the user who ran the run, and out of reach for a
            process that has called `chroot` or become another user.
    """

    delivered: int = 0
    skipped: dict[str, int] = {}
    rejected: int = 0
    behind: int = 0
    retries: int = 0
    last_error: str | None = None
    next_try_at: str | None = None
    paused: bool = False
    known: bool = True


class RunStats(msgspec.Struct, frozen=True, kw_only=True):
    """Counts the records of a run, over all processes that log to it.

    Attributes:
        accepted: records for which `log()` returned True.
        journaled: records that are in the journal.
        queued: records that are still in shared memory.
        dropped: records that were turned away, by reason: "full", "oversize", "closed". `log()` returned False for them, or raised.
        backends: each backend's own statistics.
    """

    accepted: int = 0
    journaled: int = 0
    queued: int = 0
    dropped: dict[str, int] = {}
    backends: dict[str, BackendStats] = {}

    @property
    def offered(self) -> int:
        """Return the number of records that `log()` was called with."""
        return self.accepted + sum(self.dropped.values())

    @property
    def behind(self) -> int:
        """Return the number of records that some backend does not have yet."""
        return self.queued + max((backend.behind for backend in self.backends.values()), default=0)


class StatsCollector:
    """Collects the statistics of one run; keeps its place in the journal between calls."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._tally = Tally(run / "journal")

    def collect(self, own: Iterable[Ring], others: Iterable[str], backends: Iterable[str]) -> RunStats:
        """Collect the statistics as they stand.

        Args:
            own: rings of this process; those that are journaled to the end may be left out.
            others: paths of rings of other processes, perhaps of other runs.
            backends: names of the run's backends.
        """
        dropped_by_ring: dict[int, dict[str, int]] = {}
        rings = list(own)
        with contextlib.ExitStack() as opened:
            for path in others:
                ring = self._attach(path)
                if ring is not None:
                    opened.callback(ring.close)
                    rings.append(ring)
            cursors = {name: peek_cursor(self._run, name) for name in backends}  # first: none is ahead of the journal
            queued = self._count_queued(rings)
            self._read_notes(dropped_by_ring)
            dropped_by_ring.update((ring.id, ring.dropped()) for ring in rings)
        journaled = self._tally.records()
        return RunStats(
            accepted=journaled + queued,
            journaled=journaled,
            queued=queued,
            dropped=_sum(dropped_by_ring.values()),
            backends={name: _backend(cursor, journaled) for name, cursor in cursors.items()},
        )

    def close(self) -> None:
        """Close the journal."""
        self._tally.close()

    def _count_queued(self, rings: list[Ring]) -> int:
        """Count the records in the rings that the journal does not have, as both were at one moment."""
        for _ in range(_MAX_TRIES):
            self._tally.update()
            counts = [ring.queued(self._tally.end(ring.id)) for ring in rings]
            if None not in counts:
                break
        return sum(count or 0 for count in counts)

    def _attach(self, path: str) -> Ring | None:
        try:
            ring = Ring.attach(path)
        except (OSError, ValueError):
            return None
        if os.path.realpath(ring.meta.get("run", "")) == os.path.realpath(self._run):
            return ring
        ring.close()
        return None

    def _read_notes(self, dropped: dict[int, dict[str, int]]) -> None:
        for frame in self._tally.notes:
            note = read_note(frame)
            if "dropped" in note:
                dropped[int(note["ring"], 16)] = note["dropped"]


def _backend(cursor: Cursor | None, journaled: int) -> BackendStats:
    if cursor is None:
        return BackendStats(known=False)
    gone = cursor.delivered + cursor.rejected + sum(cursor.skipped.values())
    return BackendStats(
        delivered=cursor.delivered,
        skipped=cursor.skipped,
        rejected=cursor.rejected,
        behind=max(0, journaled - gone),
        retries=cursor.retries,
        last_error=cursor.last_error,
        next_try_at=cursor.next_try_at,
        paused=cursor.paused,
    )


def _sum(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for by_reason in counts:
        for reason, count in by_reason.items():
            total[reason] = total.get(reason, 0) + count
    return total
