"""Drained runs: the runs that a drain moves bytes for, each visited so that a disk which fails or hangs holds up no other. Runs in the worker.

Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import time

from asynctrack._system.throttle import Throttle
from asynctrack.queue.layout import END, LAST_ERRNO
from asynctrack.queue.ring import Ring
from asynctrack.worker.drain_rules import RETRY_INTERVAL_S, Failure
from asynctrack.worker.log_writer import warn
from asynctrack.worker.relay import Relay
from asynctrack.worker.run_journal import RunJournal

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class DrainedRuns:
    """The runs of a drain.

    Attributes:
        by_path: their journals, by directory.
        failures: why a run could not be opened or written the last time, by directory.
        idle_since: when there was a run for the last time; monotonic seconds.
        notify_growth: called with runs whose journal grew.

    Args:
        relay: makes the rounds.
        own: rings of this very process by path.
    """

    def __init__(self, relay: Relay, own: dict[str, Ring | None]) -> None:
        self.by_path: dict[str, RunJournal] = {}
        self.failures: dict[str, Failure] = {}
        self.idle_since = time.monotonic()
        self.notify_growth: Callable[[list[RunJournal]], object] = lambda runs: None
        self.relay = relay
        self.own = own
        self._throttle = Throttle()

    def __iter__(self) -> Iterator[RunJournal]:
        return iter(list(self.by_path.values()))

    def rings(self) -> Iterator[Ring]:
        """Iterate over the rings of all runs, those of ended producers too."""
        for run in self:
            yield from run.rings

    def add(self, run: RunJournal) -> None:
        """Take a run in whose journal has been opened."""
        self.by_path[run.path] = run
        self.failures.pop(run.path, None)

    def may_visit(self, run: RunJournal) -> bool:
        """Return whether nobody waits for the run's disk, as far as that is known."""
        return self.relay.may_visit(run.path, run.disk)

    def visit(self, run: RunJournal, work: Callable[[RunJournal], float]) -> float:
        """Work on a journal; see `Relay.visit`. One that cannot be written is tried again later.

        Returns:
            What `work` returns; 0 where it failed.
        """
        moved: float = self.relay.visit(run.path, run.disk, self._try, run, work)
        return moved

    def retry_at(self, run: RunJournal) -> float:
        """Return when a journal that could not be written is tried again; 0 where it could."""
        failure = self.failures.get(run.path)
        return failure.retry_at if failure is not None else 0.0

    def has_ended(self, ring: Ring) -> bool:
        """Return whether nothing more will be put into a ring."""
        return bool(ring.words[END]) or not (ring.path in self.own or ring.producer_lives())

    def abandon(self, run: RunJournal, rings: list[Ring]) -> None:
        """Give up what cannot be journaled any more, because the run's directory is gone."""
        if rings:
            left = sum(ring.used() for ring in rings)
            warn(f"{run.path} has been removed or moved: {left} bytes that were logged to it since are not journaled")
        for ring in rings:
            run.abandon(ring)
        self.notify_growth([run])

    def let_go(self, run: RunJournal, done: bool) -> None:
        """Close a run's journal and its rings; `done` tells the producers that nothing is left to do."""
        try:
            run.close(done=done)
        finally:  # and not before: `asynctrack sync` looks at what is left of a run, its queues too, once nobody has it any more
            self.idle_since = time.monotonic()  # the last round that found the run may have been a linger ago
            del self.by_path[run.path]
        for ring in run.rings:
            if self.own.pop(ring.path, None) is None:
                ring.close()

    def warn(self, about: str, message: str) -> None:
        """Log a warning, once in a while about the same thing."""
        if self._throttle.admit(about):
            warn(message)

    def _try(self, run: RunJournal, work: Callable[[RunJournal], float]) -> float:
        """Work on a journal. If it cannot be written it is tried again later; its rings hold what they can until then."""
        try:
            moved = work(run)
        except Exception as error:  # a failure of one run must not stop the others
            self._fail(run, error)
            return 0.0
        if self.failures and time.monotonic() >= self.retry_at(run):  # before that nothing may have been written
            self.failures.pop(run.path, None)
        return moved

    def _fail(self, run: RunJournal, error: Exception) -> None:
        if isinstance(error, FileNotFoundError) and self._restore(run):
            self.failures[run.path] = Failure(error)
            return
        for ring in run.live:
            ring.words[LAST_ERRNO] = getattr(error, "errno", None) or errno.EIO
        self.failures[run.path] = Failure(error, time.monotonic() + RETRY_INTERVAL_S)
        self.warn(run.path, f"the journal of {run.path} cannot be written: {error}; trying again")
        if run.gone():
            self.abandon(run, [ring for ring in run.live if self.has_ended(ring)])

    def _restore(self, run: RunJournal) -> bool:
        """Begin another journal where somebody has removed that of a run which goes on; returns whether that was so."""
        with contextlib.suppress(OSError):
            if run.restore():
                self.warn(f"restored {run.path}", f"the journal of {run.path} was removed; another is begun")
                return True
        return False
