"""Caller delivery: to backends that need the caller's process: its memory, its screen, code defined in its script. A thread of the caller."""

from __future__ import annotations

from pathlib import Path

from asynctrack._system.loop_thread import LoopThread
from asynctrack.backends.base import Backend
from asynctrack.delivery.polling import Poller


class CallerDeliveries:
    """Drives a run's backends that belong in this process, on a thread.

    Args:
        run: the run's directory.
        backends: by their names in the run.
        ring: by which this process opened the run.
    """

    def __init__(self, run: Path, backends: dict[str, Backend], ring: int) -> None:
        self._poller = Poller(run, backends, keep=False, session=ring)

    def start(self) -> None:
        """Start the thread. Where Ctrl-C breaks this off, `stop` ends it all the same."""
        LoopThread("asynctrack-local", self._poller.run)

    def has(self, ring: int, position: int) -> bool:
        """Tell whether all of them have what was in a ring up to a position."""
        self._poller.expedite()
        return self._poller.has(ring, position)

    @property
    def done(self) -> bool:
        """Tell whether nothing is to be waited for: each of them has the run's end, or waits for a person."""
        self._poller.expedite()
        deliveries = self._poller.deliveries
        return bool(deliveries) and all(delivery.done or delivery.paused for delivery in deliveries)

    def stop(self) -> None:
        """Stop soon; what is behind stays behind."""
        self._poller.stop()
