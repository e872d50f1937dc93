"""Delivery: journal to one backend, in order, from a cursor of its own. Runs in the worker's loop or on a thread of the caller.

A delivery shares nothing with the loop that logs, with the worker's other duties or with another backend but the journal,
which it reads. So "slow", "down", "restarted" and "added later" are one code path: it is behind, and goes on from its cursor.
"""

from __future__ import annotations

import inspect
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.lowlevel
import anyio.to_thread
import msgspec

from asynctrack.backends.base import Backend, Batch, Context, Outcome, Sink, StartOver, Update
from asynctrack.cursor import Cursor, cursor_path, load_cursor
from asynctrack.journal.frames import Batch as JournalBatch
from asynctrack.journal.frames import Frame
from asynctrack.journal.layout import Position
from asynctrack.journal.reader import Reader
from asynctrack.manifest import Manifest, read_note, replace_file
from asynctrack.queue.layout import CONFIG, NOTE, SUMMARY
from asynctrack.record import decode_record, decode_update

# A batch is cut at this many bytes of frames: about 1,200 records, 2 ms of the loop to decode and encode.
BATCH_BYTES: Final = 128 * 1024
# Between two saves of a cursor. What a crash delivers again to a backend that cannot tell is at most this much.
CHECKPOINT_INTERVAL_S: Final = 1.0
# How long deliveries that are to end may wait for their sinks.
STOP_WAIT_S: Final = 4.0
FIRST_RETRY_S: Final = 1.0
LONGEST_RETRY_S: Final = 60.0

_log = logging.getLogger("asynctrack.delivery")


class Delivery:
    """Drives one sink from its cursor to the journal's end, and on as it grows.

    Args:
        run: the run's directory.
        name: of the backend in this run.
        backend: its settings.
        manifest: of the run.
        keep: whether the cursor outlives this process; what lives in memory starts from the beginning.
    """

    def __init__(self, run: Path, name: str, backend: Backend, manifest: Manifest, *, keep: bool = True) -> None:
        self.name = name
        self.cursor = load_cursor(run, name) if keep else Cursor()
        self.saved_ends: dict[int, int] = dict(self.cursor.ends)
        self.outcome: Outcome | None = None
        self._run = run
        self._backend = backend
        self._manifest = manifest
        self._sink: Sink | None = None
        self._reader: Reader | None = None
        self._batch: JournalBatch | None = None
        self._inner = 0
        self._pending: tuple[Batch, Position] | None = None
        self._stopping = anyio.Event()
        self._dirty = False
        self._saved_at = 0.0
        self._keep = keep
        self._driven = False
        self.reopen()

    def __repr__(self) -> str:
        return f"<Delivery to {self.name} at {self.cursor.position}, {self.cursor.delivered} delivered>"

    @property
    def done(self) -> bool:
        """Whether the backend has everything, the run's end included."""
        return self.cursor.closed

    async def drive(
        self,
        wait: Callable[[float], Awaitable[None]],
        hurry: Callable[[], bool],
        saved: Callable[[], None] = lambda: None,
        pace: Callable[[], Awaitable[None]] = anyio.lowlevel.checkpoint,
    ) -> None:
        """Deliver until the run's end is delivered, or until `stop`; failures are kept in the cursor, and tried again.

        Args:
            wait: waits for the journal to grow, at most so many seconds.
            hurry: whether somebody waits for the cursor to be saved.
            saved: called after the cursor was saved.
            pace: waits after each batch, for as long as others come first.
        """
        if self._driven:  # once is enough
            return
        self._driven = True
        failures = 0
        while not self.done and not self._stopping.is_set():
            try:
                moved = await self._deliver()
                if self._due(moved, hurry()):
                    await self._save()
                    saved()
                failures = 0
                if moved:
                    await pace()
                else:
                    await wait(CHECKPOINT_INTERVAL_S if self._dirty else LONGEST_RETRY_S)
            except StartOver as reason:
                await self._start_over(reason)
            except Exception as error:  # the backend failed; the journal has everything, so it is tried again
                failures += 1
                await self._fail(error)
                saved()
                with anyio.move_on_after(_back_off(failures)):
                    await self._stopping.wait()
        await self._pause()
        self._driven = False

    def reopen(self) -> bool:
        """Whether the run has gone on after its end, as a forked child may do; then `drive` it again.

        What lives in memory gets the whole run again.
        """
        if self._driven or not self.done:
            return False
        reader = Reader(self._run / "journal", self.cursor.position, dict(self.cursor.ends))
        more = reader.next() is not None
        reader.close()
        if more:
            self.cursor.closed = False
            self.cursor = self.cursor if self._keep else Cursor()
            self.outcome = None
            self._sink = self._reader = self._batch = self._pending = None
        return more

    def stop(self) -> None:
        """End `drive` soon, once its sink has answered; delivery can go on from there later."""
        self._stopping.set()

    async def _pause(self) -> None:
        """Save the cursor and close the sink, unless the end has done so."""
        try:
            if not self.done and self._sink is not None:
                await self._save()
                await _call(self._sink.close, "stopped")
        except Exception as error:  # what is not saved is delivered again
            _log.warning("%s: could not be closed: %s: %s", self.name, type(error).__name__, error)
        if self._reader is not None:
            self._reader.close()

    async def _deliver(self) -> bool:
        """Give the sink one batch; False when there was nothing."""
        if self._sink is None:
            await self._open()
        if self._pending is None and not self._cut():
            return False
        assert self._pending is not None and self._sink is not None
        batch, position = self._pending
        if batch.records or batch.updates:
            await _call(self._sink.write, batch)
        self._pending = None
        self._dirty = True
        self.cursor.last_error = None
        self.cursor.delivered += len(batch.records)
        self.cursor.position = position
        if self._batch is None:
            self.cursor.ends = dict(self._reader.ends) if self._reader else {}
        if self.outcome is not None:
            await self._close(self.outcome)
        return True

    async def _open(self) -> None:
        manifest = self._manifest
        context = Context(
            run_id=manifest.id,
            name=manifest.name,
            project=manifest.project,
            directory=self._run,
            config=manifest.config,
            state=self.cursor.state,
        )
        self._sink = await _call(self._backend.open, context)
        position = self.cursor.position
        self._reader = Reader(self._run / "journal", position._replace(inner=0), dict(self.cursor.ends))
        if position.inner:
            self._batch, self._inner = self._reader.next(), position.inner

    def _cut(self) -> bool:
        """Read the next batch for the sink: fixed before the first try, so a retry is the same."""
        assert self._reader is not None
        if self._batch is None:
            self._batch, self._inner = self._reader.next(), 0
        batch = self._batch
        if batch is None:
            return False
        payloads, others, self._inner = batch.cut(self._inner, BATCH_BYTES)
        ring = batch.header.ring
        records = [decode_record(payload, number, ring) for number, payload in payloads]
        position = Position(batch.segment, batch.offset, self._inner)
        if self._inner >= len(batch.data):
            position, self._batch = batch.after, None
        self._pending = Batch(records, self._read_others(others)), position
        return True

    def _read_others(self, frames: list[Frame]) -> list[Update]:
        """The updates among frames that are not records, and how the run ended if one says so."""
        updates = []
        for frame in frames:
            if frame.kind in (CONFIG, SUMMARY):
                updates.append(Update("config" if frame.kind == CONFIG else "summary", *decode_update(frame.payload)))
            elif frame.kind == NOTE and (note := read_note(frame))["note"] == "run_ended":
                self.outcome = note["status"]
        return updates

    async def _close(self, outcome: Outcome) -> None:
        """The run has ended and nothing follows; a resumed run goes on behind its end."""
        assert self._reader is not None
        if self._batch is None and self._reader.next() is None:
            await self._save()
            assert self._sink is not None
            await _call(self._sink.close, outcome)
            self._reader.close()
            self.cursor.closed = True
            await self._save_cursor()
        else:
            self._reader.close()  # it may have moved to the next segment
            self._reader.position, self._reader.ends = self.cursor.position, dict(self.cursor.ends)
        self.outcome = None if not self.done else outcome

    def _due(self, moved: bool, hurry: bool) -> bool:
        age = time.monotonic() - self._saved_at
        return self._dirty and not self.done and (age > CHECKPOINT_INTERVAL_S or (hurry and not moved))

    async def _save(self) -> None:
        if self._sink is not None:
            self.cursor.state = await _call(self._sink.checkpoint)
        await self._save_cursor()

    async def _save_cursor(self) -> None:
        self._dirty = False
        self._saved_at = time.monotonic()
        content = msgspec.json.encode(self.cursor)
        await anyio.to_thread.run_sync(self._write_cursor, content)
        self.saved_ends = dict(self.cursor.ends)

    def _write_cursor(self, content: bytes) -> None:
        path = cursor_path(self._run, self.name)
        os.makedirs(path.parent, mode=0o700, exist_ok=True)
        replace_file(path, content)

    async def _start_over(self, reason: StartOver) -> None:
        _log.warning("%s: %s: giving it the whole run again", self.name, reason)
        if self._sink is not None:
            await _call(self._sink.close, "stopped")
        if self._reader is not None:
            self._reader.close()
        self._sink = self._reader = self._batch = self._pending = None
        self.cursor = Cursor(state=reason.state)

    async def _fail(self, error: Exception) -> None:
        self.cursor.last_error = f"{type(error).__name__}: {error}"
        _log.warning("%s: %s: trying again", self.name, self.cursor.last_error)
        try:
            await self._save_cursor()
        except OSError as failed:
            _log.warning("%s: the cursor cannot be saved: %s", self.name, failed)


def _back_off(failures: int) -> float:
    """Seconds until the next try: full jitter, 1 s to 60 s."""
    return random.uniform(0.1, min(LONGEST_RETRY_S, FIRST_RETRY_S * 2 ** min(failures - 1, 10)))


async def _call(method: Callable[..., Any], *arguments: Any) -> Any:
    """Call a sink's method: a plain function in a thread, so that it cannot hold the loop, a coroutine function here."""
    if inspect.iscoroutinefunction(method):
        return await method(*arguments)
    return await anyio.to_thread.run_sync(method, *arguments)
