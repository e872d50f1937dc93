"""Sync schedule: says when journals are synced next. Any thread of the worker. Standard library only."""

from __future__ import annotations

import threading

from asynctrack.worker.drain_rules import SYNC_INTERVAL_S


class SyncSchedule:
    """Syncs every so often, and at once where somebody asks.

    Attributes:
        interval_s: between two syncs.
    """

    def __init__(self) -> None:
        self.interval_s = SYNC_INTERVAL_S
        self._asked = threading.Event()

    def ask(self) -> None:
        """Have a sync made now."""
        self._asked.set()

    def set_interval(self, seconds: float) -> None:
        """Sync every so often from here on."""
        before, self.interval_s = self.interval_s, seconds
        if seconds < before:
            self.ask()  # wake who waits for the longer interval, to wait for the shorter one

    def wait(self) -> None:
        """Wait until a sync is due."""
        self._asked.wait(self.interval_s)
        self._asked.clear()
