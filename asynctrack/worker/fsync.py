"""Fsync: what is written survives a power cut, every `sync_interval_s`. A thread of the worker. Standard library only."""

from __future__ import annotations

from asynctrack._system.throttle import Throttle
from asynctrack.worker.drain import Drain
from asynctrack.worker.log_writer import warn
from asynctrack.worker.relay import Relay
from asynctrack.worker.run_journal import RunJournal


class Sync:
    """The thread that calls fsync, so that the drain never waits for a disk to settle, and those that it leaves behind where one hangs."""

    def __init__(self, drain: Drain) -> None:
        self._relay = Relay("asynctrack-sync", self._make_rounds)
        self._drain = drain
        self._stopping = False
        self._throttle = Throttle()

    def start(self) -> None:
        """Start the thread, and have it watched."""
        self._relay.start()
        self._drain.watchdog.relays.append(self._relay)

    def stop(self) -> None:
        """End the thread soon."""
        self._stopping = True
        self._drain.syncs.ask()

    def _make_rounds(self) -> None:
        while not self._stopping:
            for run in list(self._drain.runs.values()):
                if self._relay.may_visit(run.path, run.disk):
                    self._relay.visit(run.path, run.disk, self._sync, run)
            self._drain.syncs.wait()

    def _sync(self, run: RunJournal) -> None:
        if not run.sync() and self._throttle.admit("sync"):
            warn(
                f"the journal of {run.path} cannot be synced; records that are not safe yet are kept and written again"
            )
