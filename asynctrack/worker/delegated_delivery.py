"""Delegated delivery: a delivery that a process of its own drives; here its cursor is looked at. Runs in the worker."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.lowlevel

from asynctrack._system.loop_thread import in_thread
from asynctrack.backends.base import Backend
from asynctrack.delivery.batcher import has_more
from asynctrack.delivery.progress import note_failure
from asynctrack.delivery.retry_policy import MOST_REPEATS
from asynctrack.journal.cursor import load_cursor
from asynctrack.journal.layout import Position
from asynctrack.worker.delivery_supervisor import SupervisedProcess

# Between two looks at a cursor, and while somebody waits for it: another process moves it, and its file is all that tells.
_POLL_S: Final = 0.5
_EXPEDITED_POLL_S: Final = 0.02


class DelegatedDelivery:
    """A delivery with the face of a `Delivery`.

    Args:
        run: the run's directory.
        name: of the backend in this run.
        backend: its settings.
        stored: the same as `run.json` has them.
        process: delivers.
        force: deliver also from a copy of a run.

    Attributes:
        name: of the backend in this run.
        cursor: how far it is, as was seen last.
    """

    def __init__(
        self,
        run: Path,
        name: str,
        backend: Backend,
        stored: dict[str, Any],
        process: SupervisedProcess,
        *,
        force: bool = False,
    ) -> None:
        self.name = name
        self._run = run
        self._backend = backend
        self._stored = stored
        self._process = process
        self._force = force
        self._stopping = False
        self._driven = False
        self._reopened_at: Position | None = None
        self.cursor = load_cursor(run, name)
        self._retries_before = self.cursor.retries

    @property
    def done(self) -> bool:
        """Return True if the backend has everything, the run's end included."""
        return self.cursor.closed and self.cursor.position != self._reopened_at

    @property
    def paused(self) -> bool:
        """Return True if a person has to fix something before anything more is delivered."""
        tried_here = self.cursor.retries > self._retries_before  # else the error is of an earlier process
        return self.cursor.paused and tried_here

    async def drive(
        self,
        wait: Callable[[float], Awaitable[None]],
        expedite: Callable[[], bool],
        saved: Callable[[], None] = lambda: None,
        pace: Callable[[], Awaitable[None]] = anyio.lowlevel.checkpoint,
    ) -> None:
        """Have the run delivered, to its end or until `stop`; see `Delivery.drive`."""
        if self._driven:
            return
        self._driven = True
        self._retries_before = self.cursor.retries
        deaths = self._process.deaths.total
        self._process.deliver(self._run, self.name, self._backend, self._stored, force=self._force)
        try:
            while not self.done and not self._stopping:
                if expedited := expedite():
                    self._process.expedite(self._run)
                await anyio.sleep(_EXPEDITED_POLL_S if expedited else _POLL_S)
                if self._process.deaths.total != deaths:
                    deaths = self._process.deaths.total
                    await self._note_death()
                self._poll()
                saved()
        finally:
            self._process.stop(self._run, self.name)
            self._driven = False

    def reopen(self) -> bool:
        """Return whether the run has gone on after its end; then `drive` it again."""
        if self._driven or not self.done or not has_more(self._run, self.cursor, self._backend):
            return False
        self._reopened_at = self.cursor.position
        return True

    def stop(self) -> None:
        """End `drive` soon; delivery can go on from there later."""
        self._stopping = True

    @property
    def saved_ends(self) -> dict[int, int]:
        """Return for each ring the position up to which the saved cursor has it."""
        return self.cursor.ends

    async def _note_death(self) -> None:
        with contextlib.suppress(OSError):  # a full disk; the log tells it, too
            deaths = self._process.deaths
            hopeless = deaths.in_a_row >= MOST_REPEATS
            await in_thread(note_failure, self._run, self.name, f"its process {deaths.why}", hopeless)

    def _poll(self) -> None:
        before = self.cursor
        with contextlib.suppress(OSError):  # a disk that fails: the next look may find it well
            self.cursor = load_cursor(self._run, self.name)
        if self.cursor.position != before.position:
            self._process.progressed()
