"""Deliveries to backends that need the caller's process: its memory, its screen, code defined in its script. A thread of the caller."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Final

import anyio

from asynctrack.backends.base import Backend
from asynctrack.delivery import STOP_WAIT_S, Delivery
from asynctrack.journal.reader import Reader
from asynctrack.manifest import Manifest, find_start

# Nobody rings a bell here when the journal grows: the worker is another process.
_POLL_S: Final = 0.05


class LocalDeliveries:
    """Drives a run's backends that belong in this process, each from its own cursor."""

    def __init__(self, run: Path, backends: dict[str, Backend]) -> None:
        self._run = run
        self._backends = backends
        self._deliveries: list[Delivery] = []
        self._started = False
        self._hurry = False
        self._stopping = False
        self._thread = threading.Thread(target=self._serve, name="asynctrack-local", daemon=True)
        self._thread.start()

    def has(self, ring: int, position: int) -> bool:
        """Whether all of them have what was in a ring up to a position."""
        self._hurry = True
        return self._started and all(delivery.saved_ends.get(ring, 0) >= position for delivery in self._deliveries)

    @property
    def done(self) -> bool:
        """Whether all of them have the run's end."""
        self._hurry = True
        return self._started and all(delivery.done for delivery in self._deliveries)

    def stop(self) -> None:
        """Stop soon; what is behind stays behind."""
        self._stopping = True

    def _serve(self) -> None:
        asyncio.run(self._deliver())

    async def _deliver(self) -> None:
        manifest = await self._manifest()
        if manifest is None:
            return
        self._deliveries = [
            Delivery(self._run, name, backend, manifest, keep=False) for name, backend in self._backends.items()
        ]
        self._started = True
        async with anyio.create_task_group() as tasks:
            for delivery in self._deliveries:
                tasks.start_soon(delivery.drive, self._wait, lambda: self._hurry)
            while not self._stopping and not all(delivery.done for delivery in self._deliveries):
                await anyio.sleep(_POLL_S)
            for delivery in self._deliveries:
                delivery.stop()
            tasks.cancel_scope.deadline = anyio.current_time() + STOP_WAIT_S

    async def _manifest(self) -> Manifest | None:
        """The run as its first frame says."""
        reader = Reader(self._run / "journal")
        while not self._stopping:
            for batch in reader:
                if (found := find_start(batch)) is not None:
                    reader.close()
                    return found
            await anyio.sleep(_POLL_S)
        return None

    async def _wait(self, seconds: float) -> None:
        await anyio.sleep(min(seconds, 0.005 if self._hurry else _POLL_S))
