"""Transfer: brings the batches of a run to one sink, a step at a time, as `next_step` decides. Runs with the driver."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import anyio

from asynctrack._system.loop_thread import in_thread
from asynctrack._system.wording import counted
from asynctrack.backends.base import ActionRequired, Backend, Batch, Context, Rejected, TooLarge
from asynctrack.delivery import dead_letters, media_store
from asynctrack.delivery.batcher import Batcher
from asynctrack.delivery.connection import Connection
from asynctrack.delivery.gathering import NEVER_S
from asynctrack.delivery.next_step import Do, Found, NextStep, Rate, Situation, next_step
from asynctrack.delivery.pending import Pending
from asynctrack.delivery.progress import DeliveryProgress
from asynctrack.delivery.reports import Reports
from asynctrack.journal.manifest import Manifest


class Route(NamedTuple):
    """The run, the backend and the terms of a delivery, as `Delivery` is told them."""

    run: Path
    name: str
    backend: Backend
    manifest: Manifest
    keep: bool
    force: bool


class Hooks(NamedTuple):
    """The services of whoever drives a delivery: the arguments of `Delivery.drive`."""

    wait: Callable[[float], Awaitable[None]]
    expedite: Callable[[], bool]
    saved: Callable[[], None]
    pace: Callable[[], Awaitable[None]]


class Transfer:
    """Reads batches, and brings them to a sink.

    Args:
        route: from where to where.
        connection: to the backend.
        progress: how far the backend is.
        reports: who says what happens.
        stopping: set when the transfer is to end soon.
    """

    def __init__(
        self, route: Route, connection: Connection, progress: DeliveryProgress, reports: Reports, stopping: anyio.Event
    ) -> None:
        self._route = route
        self._connection = connection
        self._progress = progress
        self._reports = reports
        self._stopping = stopping
        self._batcher: Batcher | None = None
        self._pending: Pending | None = None
        self._rate = Rate(route.backend.max_records_s)

    def __repr__(self) -> str:
        parts = 0 if self._pending is None else len(self._pending.parts)
        return f"<Transfer over {self._connection!r}, {parts} parts pending>"

    @property
    def busy_since(self) -> float | None:
        """Return since when it has waited for its sink, in monotonic seconds; None while it does not."""
        return self._connection.busy_since

    def due_in(self) -> float:
        """Compute the seconds until what is gathered is to be given; infinite where there is nothing."""
        return NEVER_S if self._batcher is None else self._batcher.due_in()

    async def round(self, hooks: Hooks) -> Found:
        """Give the sink one batch, or find that there is none.

        Returns:
            The round's result, `UNKNOWN` where it was stopped.
        """
        found = Found.UNKNOWN
        while (step := next_step(self._situation(found, hooks))).do is not Do.END:
            found = await self._act(step, found, hooks)
        return found

    def _situation(self, found: Found, hooks: Hooks) -> Situation:
        progress = self._progress
        return Situation(
            now=time.monotonic(),
            found=found,
            stopping=self._stopping.is_set(),
            # Until the sink is known there is nothing to hurry.
            expedite=found is not Found.UNKNOWN and hooks.expedite(),
            sink_open=self._connection.is_open,
            journal_open=self._batcher is not None,
            pending=self._pending,
            rate_free_at=self._rate.free_at,
            dirty=progress.dirty,
            saved_at=progress.saved_at,
            closed=progress.cursor.closed,
        )

    async def _act(self, step: NextStep, found: Found, hooks: Hooks) -> Found:
        """Do a step; returns the result of the round so far."""
        match step.do:
            case Do.OPEN_SINK:
                await self._open_sink()
            case Do.OPEN_JOURNAL:
                self._batcher = Batcher(self._route.run, self._progress.cursor, self._route.backend)
            case Do.GATHER:
                return await self._gather(hooks)
            case Do.STORE_MEDIA:
                await self._store_media()
            case Do.WAIT:
                await sleep(self._stopping, step.wait_s)
            case Do.WRITE:
                await self._write()
            case Do.ADVANCE:
                return self._advance()
            case Do.SAVE:
                await self._save()
            case Do.CLOSE:
                await self._close()
        return found

    async def _open_sink(self) -> None:
        route, manifest = self._route, self._route.manifest
        if route.keep:
            self._check_origin()
        context = Context(
            run_id=manifest.id,
            name=manifest.name,
            project=manifest.project,
            directory=route.run,
            created_at=manifest.created_at,
            config=manifest.config,
            labels=manifest.labels,
            state=self._progress.cursor.state,
        )
        await self._connection.open(context)

    def _check_origin(self) -> None:
        """Keep a copy of a run from repeating what its original has delivered.

        A copy is known by its inode: a move keeps that and a copy does not, also in a container with another host name.
        """
        route, inode = self._route, os.stat(self._route.run).st_ino
        if route.force or not self._progress.cursor.origin_inode or route.backend.idempotent:
            self._progress.adopt(inode)
        elif self._progress.cursor.origin_inode != inode:
            raise ActionRequired(
                "this is a copy of a run whose original has delivered a part of it, and what is delivered twice would "
                "show twice; deliver the original, or the copy with `asynctrack sync --force`"
            )

    async def _gather(self, hooks: Hooks) -> Found:
        """Read on until a batch can be cut, or the journal has nothing more."""
        assert self._batcher is not None
        while self._batcher.gather():
            await hooks.pace()
        cut = self._batcher.take(expedite=hooks.expedite())
        if cut is not None:
            self._pending = Pending.of(cut)
            return Found.UNKNOWN
        return Found.NOTHING if self._batcher.outcome() is None else Found.RUN_END

    async def _store_media(self) -> None:
        assert self._pending is not None
        await self._connection.in_thread(media_store.store, self._route.run, self._pending.whole.batch)
        self._pending = self._pending.store()

    async def _write(self) -> None:
        """Give the sink the part that comes first, and note its answer."""
        assert self._pending is not None
        part = self._pending.parts[0]
        try:
            answer = await self._connection.write(part)
        except (TooLarge, Rejected) as no:
            await self._refuse(self._pending, part, no)
        else:
            self._pending = self._pending.take(answer)
            self._rate = self._rate.after(len(part.records), time.monotonic())

    async def _refuse(self, pending: Pending, part: Batch, no: TooLarge | Rejected) -> None:
        """Keep what the sink will never take of a part, before the rest comes again."""
        left, lost = pending.refuse(no)
        if lost:
            reason = self._reports.hide(str(no)) or "too large"
            await in_thread(dead_letters.keep, self._route.run, self._route.name, reason, lost)
            what = counted(len(lost), "record is", "records are")
            self._reports.warn(f"{what} rejected: {reason}; see {dead_letters.FILE_NAME}")
        elif len(left.parts) < len(pending.parts):
            self._reports.warn(f"a change of the {part.updates[0].kind} is rejected: {no}")
        self._pending = left

    def _advance(self) -> Found:
        assert self._pending is not None
        self._progress.advance(self._pending.move(self._progress.cursor))
        self._pending = None
        return Found.BATCH

    async def _save(self) -> None:
        """Save the cursor with what the sink says of itself: the one is nothing without the other."""
        await self._progress.save(state=await self._connection.checkpoint())

    async def _close(self) -> None:
        """Tell the sink of the run's end, and close the cursor; if that is not saved, another sink is opened and closed."""
        assert self._batcher is not None
        outcome = self._batcher.outcome()
        assert outcome is not None
        await self._connection.close(outcome)
        await self._progress.save(closed=True, last_error=None, next_try_at=None, paused=False)
        self._close_batcher()

    async def rest(self, seconds: float, expedite: Callable[[], bool]) -> None:
        """Wait until the next try, but not for longer than it may: a backend that fails is spared, also while somebody waits."""
        await sleep(self._stopping, seconds)

    async def pause(self) -> None:
        """Save the cursor and close the sink, unless the end has done so."""
        # Half-way through a batch there is no place in the journal for what the sink says of itself.
        half_way = self._pending is not None and self._pending.taken
        if self._connection.is_open and not half_way:
            try:
                await self._save()
            except Exception as error:  # what is not saved is delivered again
                self._reports.say(f"its cursor could not be saved: {self._reports.describe(error)}")
        await self.abandon()

    async def abandon(self) -> None:
        """Close what is open; what was written has been saved, or will be written again."""
        self._pending = None
        self._close_batcher()
        try:
            await self._connection.abandon()
        except Exception as error:  # nothing depends on what it says
            self._reports.say(f"it could not be closed: {self._reports.describe(error)}")

    def _close_batcher(self) -> None:
        if self._batcher is not None:
            self._batcher.close()
            self._batcher = None


async def sleep(stopping: anyio.Event, seconds: float) -> None:
    """Wait, but not for longer than `stopping` allows."""
    if seconds > 0:
        with anyio.move_on_after(seconds):
            await stopping.wait()
