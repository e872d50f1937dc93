"""Sync: what is written survives a power cut, every `sync_interval_s`. A thread of the worker. Standard library only."""

from __future__ import annotations

import threading

from asynctrack.worker.drain import Drain, warn


class Sync(threading.Thread):
    """The thread that calls fsync, so that the drain never waits for a disk to settle."""

    def __init__(self, drain: Drain) -> None:
        super().__init__(name="asynctrack-sync", daemon=True)
        self._drain = drain
        self._stopping = False

    def run(self) -> None:
        while not self._stopping:
            self._drain.wants_sync.wait(self._drain.sync_interval_s)
            self._drain.wants_sync.clear()
            for run in list(self._drain.runs.values()):
                try:
                    run.sync()
                except OSError as error:
                    warn(f"the journal of {run.path} cannot be synced: {error}")

    def stop(self) -> None:
        self._stopping = True
        self._drain.wants_sync.set()
