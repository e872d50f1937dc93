"""Service: keeps each run's `run.json` and drives its light deliveries, on a lane for each disk. Runs in the worker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from asynctrack.backends.base import Backend
from asynctrack.worker.disk_lane import DiskLane
from asynctrack.worker.drain import Drain
from asynctrack.worker.policy import CALLERS_ONLY, Policy
from asynctrack.worker.provenance import Provenance
from asynctrack.worker.run_journal import RunJournal

# Between two looks whether the worker is idle, at most.
_POLL_S = 0.5


class Service:
    """Serves the runs of a drain.

    Args:
        drain: whose runs are served.
        local: backends that run here though they belong on the caller's side, by run directory: the worker is a thread
            of the caller.
        policy: what it may do.
    """

    def __init__(
        self, drain: Drain, local: dict[str, dict[str, Backend]] | None = None, policy: Policy = CALLERS_ONLY
    ) -> None:
        self._drain = drain
        self._local = local if local is not None else {}
        self._policy = policy
        self._provenance = Provenance()
        self._lanes: dict[int | None, DiskLane] = {}
        self._spare: DiskLane | None = None
        self._opening = threading.Lock()

    def start(self, first: Callable[[], object] = lambda: None) -> None:
        """Begin to serve; `first` is called on the first lane's thread before anything else.

        That lane is there before it is known which disk it is for: when the main thread has ended, no thread can be had.
        """
        self._spare = DiskLane(self._drain, self._local, self._policy, self._provenance, first)
        self._drain.notify_of_growth(self._grew)
        self._grew(list(self._drain.runs.values()))

    def wait(self, *, idle_exit_s: float) -> None:
        """Wait until there has been no run for so many seconds.

        It polls: a ring may lie in the directory that nobody can take in, and no one tells when it comes or goes.
        """
        while not self._idle(idle_exit_s):
            time.sleep(min(_POLL_S, idle_exit_s))

    def stop(self, timeout_s: float) -> None:
        """End soon; what is behind stays behind, and who waits for a disk is left there."""
        lanes = {*self._lanes.values(), *filter(None, [self._spare])}
        for lane in lanes:
            lane.stop()
        deadline = time.monotonic() + timeout_s
        for lane in lanes:
            lane.join(max(0.0, deadline - time.monotonic()))

    def give_up(self, run: str) -> None:
        """Let go of a run: what is behind stays behind. From any thread."""
        for lane in list(self._lanes.values()):
            lane.give_up(run)

    def _grew(self, runs: Iterable[RunJournal]) -> None:
        """Have runs served whose journal has grown. Called by the drain's thread, and those that it has left behind."""
        by_disk: dict[int | None, list[RunJournal]] = {}
        for run in runs:
            by_disk.setdefault(run.disk, []).append(run)
        for disk, of_it in by_disk.items():
            self._lane_of(disk).take(of_it)

    def _lane_of(self, disk: int | None) -> DiskLane:
        with self._opening:
            if disk not in self._lanes:
                self._lanes[disk], self._spare = self._spare or self._another(), None
            return self._lanes[disk]

    def _another(self) -> DiskLane:
        try:
            return DiskLane(self._drain, self._local, self._policy, self._provenance)
        except RuntimeError:  # no other thread can be started: it shares one
            return next(iter(self._lanes.values()))

    def _idle(self, idle_exit_s: float) -> bool:
        quiet = not self._drain.runs and all(lane.serves_none() for lane in list(self._lanes.values()))
        long_enough = self._drain.leaving or time.monotonic() - self._drain.idle_since > idle_exit_s
        if not quiet or not long_enough or self._drain.relay.held:
            return False
        return self._drain.serves_none()  # else all runs would be begun anew again and again without a pause
