"""Other processes: the waits of `finish(wait="all")` for those that write to the run, too. Runs in the caller.

Waits are generators of pauses in seconds; see `waits`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from asynctrack._system.wording import counted
from asynctrack.carriers.parts import split_name
from asynctrack.client.publisher import Publisher
from asynctrack.client.session_stats import STATS_WAIT_S, SessionStats
from asynctrack.errors import AsynctrackError
from asynctrack.journal.writer_list import count_expected
from asynctrack.queue.layout import DELIVERED, DONE, HEAD
from asynctrack.queue.ring import Ring

if TYPE_CHECKING:
    from asynctrack.client.live_runs import LiveQueue

# Between two looks whether other processes have ended: each opens their queues. Arbitrary.
_POLL_S: Final = 0.05
# In a message. Arbitrary.
_MOST_NAMED: Final = 5


class OtherProcesses:
    """Waits for the other processes of a run.

    Args:
        path: the run's directory.
        publisher: of this process.
        stats: of the run, which read its files in time.
    """

    def __init__(self, path: Path, publisher: Publisher, stats: SessionStats) -> None:
        self._path = path
        self._publisher = publisher
        self._stats = stats

    def until_come(self, deadline: float) -> Iterator[float]:
        """Wait until as many writers have come as are expected, and say how many have where that takes too long; with a monotonic deadline."""
        expected = self._expected_here()
        while expected is not None and (come := self._count()) is not None and come < expected:
            left = deadline - time.monotonic()
            if left <= 0:
                self._publisher.warnings.warn(
                    "expected", f"finish(wait='all') waits no longer: {come} of {expected} expected writers have come"
                )
                return
            yield min(_POLL_S, left)

    def until_done(self, deadline: float) -> Iterator[float]:
        """Wait until no other process writes to the run, and what they have written is delivered; with a monotonic deadline."""
        from asynctrack.client.live_runs import live_queues  # rarely needed

        queue, run = self._publisher.queue, str(self._path)
        while any(live_queues(lambda other: other == run)) or any(map(_is_behind, queue.others_of_run())):
            left = deadline - time.monotonic()
            if left <= 0:
                self._say_who_is_left([*live_queues(lambda other: other == run)])
                return
            yield min(_POLL_S, left)

    def _say_who_is_left(self, queues: list[LiveQueue]) -> None:
        """Name the processes that have not ended; where there is none, a backend is behind, and that is said elsewhere."""
        if queues:
            labels = sorted({str(queue.meta.get("writer") or f"process {queue.caller}") for queue in queues})
            named = ", ".join(labels[:_MOST_NAMED]) + (", ..." if len(labels) > _MOST_NAMED else "")
            have = counted(len(queues), "other process has", "other processes have")
            self._publisher.warnings.warn("others", f"finish(wait='all') waits no longer: {have} not ended: {named}")

    def _expected_here(self) -> int | None:
        """Return how many writers the run is to have on this machine; None where that is not known."""
        expected = self._publisher.queue.expected
        if (
            expected is None or split_name(self._path.name) is not None
        ):  # of a host's part it counts the other machines' processes too
            return None
        here = os.environ.get("LOCAL_WORLD_SIZE", "")
        return min(expected, int(here)) if here.isascii() and here.isdigit() and len(here) < 10 else expected

    def _count(self) -> int | None:
        """Count the writers that have come; None where the run's files cannot be read."""
        from asynctrack.reading.reader import RunReader  # rarely needed

        try:
            return self._stats.read_in_time(
                lambda: count_expected(RunReader(self._path).manifest().writers), STATS_WAIT_S
            )
        except (OSError, AsynctrackError):  # it waits for nobody whom it cannot see
            return None


def _is_behind(ring: Ring) -> bool:
    """Say whether something of a queue is not delivered."""
    words = ring.words
    return not words[DONE] and words[DELIVERED] < words[HEAD]
