"""Sync: what is written survives a power cut, every `sync_interval_s`. A thread of the worker. Standard library only."""

from __future__ import annotations

import threading
import time

from asynctrack.worker.drain import WARN_INTERVAL_S, Drain, warn


class Sync(threading.Thread):
    """The thread that calls fsync, so that the drain never waits for a disk to settle."""

    def __init__(self, drain: Drain) -> None:
        super().__init__(name="asynctrack-sync", daemon=True)
        self._drain = drain
        self._stopping = False
        self._warn_at = 0.0

    def run(self) -> None:
        while not self._stopping:
            self._drain.wants_sync.wait(self._drain.sync_interval_s)
            self._drain.wants_sync.clear()
            for run in list(self._drain.runs.values()):
                if not run.sync() and time.monotonic() >= self._warn_at:
                    self._warn_at = time.monotonic() + WARN_INTERVAL_S
                    warn(f"the journal of {run.path} cannot be synced; what is not safe is kept and written again")

    def stop(self) -> None:
        self._stopping = True
        self._drain.wants_sync.set()
