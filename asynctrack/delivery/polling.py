"""Polling: drives a run's deliveries where nobody tells it that the journal grows: in another process than its writer.

It polls the journal, since not every file system tells that a file has grown (NFS and FUSE do not). `stop` and `expedite` are looked at with it, not
waited for: who waits for a delivery calls `expedite` at each look of its own, and would pay for a wake-up call of the loop each time.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Final

import anyio

from asynctrack._system import messages
from asynctrack.backends.base import Backend
from asynctrack.delivery.driver import STOP_WAIT_S, Delivery
from asynctrack.delivery.retry_policy import DISK_PAUSE_S, back_off
from asynctrack.journal.manifest import Manifest, find_start
from asynctrack.journal.reader import Reader, segments

_log = logging.getLogger("asynctrack.delivery")

# Between two looks at the journal, and at whether to stop. Arbitrary: what comes is seen so much later at most.
_POLL_S: Final = 0.05
# The same while somebody waits.
_EXPEDITED_POLL_S: Final = 0.005
# For how long a word that somebody waits counts.
_EXPEDITE_S: Final = 1.0


class Poller:
    """Drives some backends of one run, each from its own cursor.

    Args:
        run: the run's directory.
        backends: by their names in the run.
        keep: whether their cursors outlive this process.
        force: deliver also from a copy of a run.
        follow: go on to the run's end; else to the journal's end as it is now.
        look_again: open a sink also where a backend has everything, as `Delivery` does.
        session: the ring of who has the run open: nothing is delivered before the journal has its beginning, since what a resumed run's earlier
            session says of its end is no end. None for the journal as it is.

    Attributes:
        deliveries: one per backend, once the run is known.
    """

    def __init__(
        self,
        run: Path,
        backends: dict[str, Backend],
        *,
        keep: bool,
        force: bool = False,
        follow: bool = True,
        look_again: bool = False,
        session: int | None = None,
    ) -> None:
        self.deliveries: list[Delivery] = []
        self._run = run
        self._backends = backends
        self._keep = keep
        self._force = force
        self._follow = follow
        self._look_again = look_again
        self._session = session
        self._stopping = False
        self._expedite_until = 0.0

    def __repr__(self) -> str:
        return f"<Poller of {', '.join(self._backends)} for {self._run}>"

    @property
    def done(self) -> bool:
        """Return True if all of them have the run's end."""
        return bool(self.deliveries) and all(delivery.done for delivery in self.deliveries)

    def has(self, ring: int, position: int) -> bool:
        """Return True if all of them have what was in a ring up to a position."""
        return bool(self.deliveries) and all(
            delivery.saved_ends.get(ring, 0) >= position for delivery in self.deliveries
        )

    def expedite(self) -> None:
        """Look often, and save cursors at once, for a second: somebody waits. From any thread."""
        self._expedite_until = time.monotonic() + _EXPEDITE_S

    def stop(self) -> None:
        """End `run` soon; what is behind stays behind. From any thread."""
        self._stopping = True

    async def run(self) -> None:
        """Deliver to the end, or until `stop`."""
        self.deliveries = await self._begin()
        async with anyio.create_task_group() as tasks:
            for delivery in self.deliveries:
                tasks.start_soon(delivery.drive, self._wait, self._expedited)
            while not self._is_over():
                await self._wait(_POLL_S)
            for delivery in self.deliveries:
                delivery.stop()
            tasks.cancel_scope.deadline = anyio.current_time() + STOP_WAIT_S

    def _is_over(self) -> bool:
        """Return whether nothing is left to do: it is stopped, or all have what they are to get."""
        caught_up = not self._follow and all(delivery.done or delivery.waiting for delivery in self.deliveries)
        return self._stopping or self.done or caught_up

    async def _begin(self) -> list[Delivery]:
        """Make the deliveries once the run is known; none where it is stopped before. A disk that fails is asked again, as each delivery does."""
        failures = 0
        while not self._stopping:
            try:
                if (manifest := await self._manifest()) is None:
                    break
                return [self._delivery(name, backend, manifest) for name, backend in self._backends.items()]
            except OSError as error:
                failures += 1
                if failures == 1:
                    self._warn(error)
                await self._pause(min(DISK_PAUSE_S, back_off(failures)))
        return []

    def _delivery(self, name: str, backend: Backend, manifest: Manifest) -> Delivery:
        return Delivery(
            self._run,
            name,
            backend,
            manifest,
            keep=self._keep,
            force=self._force,
            look_again=self._look_again,
        )

    def _warn(self, error: OSError) -> None:
        message = f"{', '.join(self._backends)} of {self._run}: the journal cannot be read: {error}: trying again"
        if self._keep:
            _log.warning("%s", message)
        else:  # it lives in its caller, and so does its user
            messages.warn(None, f"asynctrack: {message}")

    async def _pause(self, seconds: float) -> None:
        """Wait, but not for longer than `stop` allows."""
        until = time.monotonic() + seconds
        while not self._stopping and time.monotonic() < until:
            await anyio.sleep(_POLL_S)

    async def _manifest(self) -> Manifest | None:
        """Wait for the run as its first frame says it, or that of the session.

        A delivery that lives in its caller is given a resumed run from its beginning, and in the first 0.1 s the journal ends with the end of
        the earlier session: `Memory` took that for the end of the run in 11 of 20 resumed runs.
        """
        journal = self._run / "journal"
        begun, reader = segments(os.fspath(journal))[:1], Reader(journal)
        try:
            while not self._stopping:
                first = segments(os.fspath(journal))[:1]
                if first != begun:  # what could not be seen before has the first frame
                    reader.close()
                    begun, reader = first, Reader(journal)
                for batch in reader:
                    if self._session not in (None, batch.header.ring):
                        continue
                    if (found := find_start(batch)) is not None:
                        return found
                await anyio.sleep(_POLL_S)
            return None
        finally:
            reader.close()

    def _expedited(self) -> bool:
        return not self._follow or time.monotonic() < self._expedite_until

    async def _wait(self, seconds: float) -> None:
        """Wait until the next look at the journal, as each delivery's `wait`."""
        await anyio.sleep(min(seconds, _EXPEDITED_POLL_S if self._expedited() else _POLL_S))
