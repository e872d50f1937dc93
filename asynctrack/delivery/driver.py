"""Driver: one delivery, from the journal to one sink. Runs in an asyncio loop of the worker, of a process of its own, or of the caller."""

from __future__ import annotations

import inspect
import logging
import os
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.lowlevel
import msgspec

from asynctrack._system import locks, permissions
from asynctrack._system.locks import in_words
from asynctrack._system.loop_thread import in_thread
from asynctrack._system.masking import mask_text
from asynctrack._system.throttle import Throttle
from asynctrack._system.wording import counted
from asynctrack.backends import env_refs
from asynctrack.backends.base import ActionRequired, Backend, Batch, Context, Outcome, Rejected, Resend, Sink, TooLarge
from asynctrack.delivery import dead_letters, media_store
from asynctrack.delivery.batcher import Batcher, has_more
from asynctrack.delivery.lease import Lease
from asynctrack.delivery.pending import Pending, split
from asynctrack.delivery.progress import CHECKPOINT_INTERVAL_S, DeliveryProgress, make_directory
from asynctrack.delivery.repeated_errors import RepeatedErrors
from asynctrack.delivery.retry_policy import LONGEST_RETRY_S, MOST_REPEATS, back_off, classify_error, describe
from asynctrack.journal.cursor import Cursor, cursor_path, lease_path, load_cursor
from asynctrack.journal.manifest import Manifest, replace_file

# How long deliveries that are to end may wait for their sinks.
STOP_WAIT_S: Final = 4.0
# Between two looks whether another process still delivers the same.
_LEASE_WAIT_S: Final = 0.5

_log = logging.getLogger("asynctrack.delivery")


class Delivery:
    """Drives one sink from its cursor to the journal's end, and on as it grows.

    Args:
        run: the run's directory.
        name: of the backend in this run.
        backend: its settings.
        manifest: of the run.
        keep: whether the cursor outlives this process; what lives in memory starts from the beginning.
        force: deliver also from a copy of a run, though what the original had delivered may show twice.

    Attributes:
        busy_since: since when it has waited for its backend, monotonic seconds; None while it does not.
        waiting: whether all there is has been delivered and saved.
    """

    def __init__(
        self, run: Path, name: str, backend: Backend, manifest: Manifest, *, keep: bool = True, force: bool = False
    ) -> None:
        self.name = name
        self._lease = Lease(lease_path(run, name))
        self._progress = DeliveryProgress(run, name, self._lease, keep=keep)
        self._run = run
        self._backend = backend
        self._manifest = manifest
        self._keep = keep
        self._force = force
        self._sink: Sink | None = None
        self._batcher: Batcher | None = None
        self._pending: Pending | None = None
        self._stopping = anyio.Event()
        self._ready_at = 0.0
        self._failures = 0
        self._repeats = RepeatedErrors()
        self._throttle = Throttle()
        # Of its own: a hundred sinks that hang must not use up the others' threads.
        self._limiter = anyio.CapacityLimiter(1)
        self.busy_since: float | None = None
        self.waiting = False
        self.reopen()

    def __repr__(self) -> str:
        return f"<Delivery to {self.name} at {self.cursor.position}, {self.cursor.delivered} delivered>"

    @property
    def cursor(self) -> Cursor:
        """How far it is."""
        return self._progress.cursor

    @property
    def done(self) -> bool:
        """Whether the backend has everything, the run's end included."""
        return self.cursor.closed

    @property
    def paused(self) -> bool:
        """Whether a person has to mend something before anything more is delivered."""
        return self.cursor.paused and self._failures > 0  # what an earlier process says has not yet been tried here

    @property
    def saved_ends(self) -> dict[int, int]:
        """For each ring, up to where the saved cursor has it."""
        return self._progress.saved_ends

    async def drive(
        self,
        wait: Callable[[float], Awaitable[None]],
        expedite: Callable[[], bool],
        saved: Callable[[], None] = lambda: None,
        pace: Callable[[], Awaitable[None]] = anyio.lowlevel.checkpoint,
    ) -> None:
        """Deliver until the run's end is delivered, or until `stop`; failures are kept in the cursor, and tried again.

        Args:
            wait: waits for the journal to grow, at most so many seconds.
            expedite: whether somebody waits for the cursor to be saved.
            saved: called after the cursor was saved.
            pace: waits after each batch, and while one is read, for as long as others come first.
        """
        if self._lease.in_use:  # once is enough
            return
        self._lease.begin()
        try:
            while not self.done and not self._stopping.is_set():
                try:
                    if await self._take_lease() and not self.done:
                        await self._step(wait, expedite, saved, pace)
                except Resend as reason:
                    await self._start_over(reason)
                except Exception as error:  # the backend failed; the journal has everything, so it is tried again
                    wait_s = await self._fail(error)
                    saved()
                    await self._sleep(wait_s)
            await self._pause()
        finally:
            self._lease.end()

    def reopen(self) -> bool:
        """Whether the run has gone on after its end, as a forked child may do; then `drive` it again.

        What lives in memory gets the whole run again.
        """
        if self._lease.in_use or not self.done:
            return False
        more = has_more(self._run, self.cursor, self._backend)
        if more:
            self._progress.reopen()
        return more

    def stop(self) -> None:
        """End `drive` soon, once its sink has answered; delivery can go on from there later."""
        self._stopping.set()

    async def _step(
        self,
        wait: Callable[[float], Awaitable[None]],
        expedite: Callable[[], bool],
        saved: Callable[[], None],
        pace: Callable[[], Awaitable[None]],
    ) -> None:
        """Give the sink one batch, or wait for one."""
        moved = await self._deliver(expedite(), pace)
        if self._progress.is_due(moved, expedite()):
            await self._save()
        self._succeed()
        if not self._progress.dirty:
            saved()
        if moved:
            await pace()
        elif not self.done:
            await self._idle(wait)

    async def _deliver(self, expedite: bool, pace: Callable[[], Awaitable[None]]) -> bool:
        """Give the sink one batch, or tell it of the run's end; False when there was no batch."""
        if self._sink is None:
            self._sink = await self._open()
        if self._batcher is None:
            self._batcher = Batcher(self._run, self.cursor, self._backend)
        if self._pending is None:
            while self._batcher.gather():
                await pace()
            found = self._batcher.take(expedite=expedite)
            if found is None:
                if (outcome := self._batcher.outcome()) is not None:
                    await self._close(outcome)
                return False
            self._pending = Pending(found)
        if self._pending.media:
            batch = self._pending.whole.batch
            await in_thread(media_store.store, self._run, batch, abandon_on_cancel=True, limiter=self._limiter)
            self._pending.media = False
        await self._give(self._sink, self._pending)
        if not self._pending.parts:
            self._pending.advance(self.cursor)
            self._pending, self._progress.dirty = None, True
        return True

    async def _give(self, sink: Sink, pending: Pending) -> None:
        """Write what the sink has not yet taken: what is too large in halves, without what it rejects."""
        while pending.parts:
            await self._sleep(self._ready_at - time.monotonic())
            if self._stopping.is_set() and not pending.begun:
                return
            part = pending.parts[0]
            try:
                skipped = await self._call(sink.write, part)
            except (TooLarge, Rejected) as no:
                await self._reject(pending, part, no)
                continue
            pending.take(part, skipped)
            if self._backend.max_records_s is not None:
                now = time.monotonic()
                self._ready_at = max(now, self._ready_at) + len(part.records) / self._backend.max_records_s

    async def _reject(self, pending: Pending, part: Batch, no: TooLarge | Rejected) -> None:
        """The sink has refused all or some of a part: what it will never take is kept, the rest comes again."""
        rest, lost = split(part, no)
        if lost:
            reason = self._hide(str(no)) or "too large"
            await in_thread(dead_letters.keep, self._run, self.name, reason, lost)
            what = counted(len(lost), "record is", "records are")
            self._warn(f"{what} rejected: {reason}; see {dead_letters.FILE_NAME}")
            pending.rejected += len(lost)
        elif not rest:
            self._warn(f"a change of the {part.updates[0].kind} is rejected: {no}")
        pending.replace(rest)

    async def _open(self) -> Sink:
        if self._keep:
            self._check_origin()
        manifest = self._manifest
        context = Context(
            run_id=manifest.id,
            name=manifest.name,
            project=manifest.project,
            directory=self._run,
            created_at=manifest.created_at,
            config=manifest.config,
            labels=manifest.labels,
            state=self.cursor.state,
        )
        sink: Sink = await self._call(self._backend.open, context)
        return sink

    def _check_origin(self) -> None:
        """A copy of a run must not repeat what its original has delivered."""
        inode = os.stat(self._run).st_ino
        if self._force or not self.cursor.origin_inode or self._backend.idempotent:
            self.cursor.origin_inode = inode
        if self.cursor.origin_inode != inode:
            raise ActionRequired(
                "this is a copy of a run whose original has delivered a part of it, and what is delivered twice would "
                "show twice; deliver the original, or the copy with `asynctrack sync --force`"
            )

    async def _close(self, outcome: Outcome) -> None:
        assert self._sink is not None
        if self._progress.dirty:
            await self._save()
        await self._call(self._sink.close, outcome)
        self._sink = None  # should the cursor not be saved, another is opened and closed
        await self._progress.save(closed=True, last_error=None, next_try_at=None, paused=False)
        self._close_batcher()

    async def _pause(self) -> None:
        """Save the cursor and close the sink, unless the end has done so."""
        # Half-way through a batch there is no place in the journal for what the sink says of itself.
        half_way = self._pending is not None and self._pending.begun
        if self._sink is not None and not half_way:
            try:
                await self._save()
            except Exception as error:  # what is not saved is delivered again
                _log.warning("%s of %s: its cursor could not be saved: %s", self.name, self._run, self._describe(error))
        await self._drop_sink()

    async def _drop_sink(self) -> None:
        """Close what is open; what was written has been saved, or will be written again."""
        sink, self._sink, self._pending = self._sink, None, None
        self._close_batcher()
        if sink is not None:
            try:
                await self._call(sink.close, "stopped")
            except Exception as error:  # nothing depends on it
                _log.warning("%s of %s: it could not be closed: %s", self.name, self._run, self._describe(error))

    def _close_batcher(self) -> None:
        if self._batcher is not None:
            self._batcher.close()
            self._batcher = None

    async def _idle(self, wait: Callable[[float], Awaitable[None]]) -> None:
        """Wait for the journal to grow, or what is gathered to be old enough."""
        assert self._batcher is not None
        due_in = self._batcher.due_in()
        self.waiting = not self._progress.dirty and due_in == float("inf")
        await wait(min(CHECKPOINT_INTERVAL_S if self._progress.dirty else LONGEST_RETRY_S, max(0.0, due_in)))
        self.waiting = False

    async def _save(self) -> None:
        """Save the cursor with what the sink says of itself: the one is nothing without the other."""
        assert self._sink is not None
        state = await self._call(self._sink.checkpoint)
        await self._progress.save(state=state)

    async def _start_over(self, reason: Resend) -> None:
        _log.warning("%s of %s: %s: giving it the whole run again", self.name, self._run, self._describe(reason))
        await self._drop_sink()
        self._progress.start_over(reason.state)
        self._failures += 1
        if self._failures >= MOST_REPEATS:
            await self._sleep(await self._fail(ActionRequired(f"it asks for the whole run again and again: {reason}")))
        elif self._failures > 1:  # it has just done so
            await self._sleep(back_off(self._failures))

    async def _fail(self, error: Exception) -> float:
        """Note what went wrong; returns seconds until the next try."""
        self._failures += 1
        new_trace = self._repeats.add(error)
        decision = classify_error(error, self._failures, self._repeats.count)
        next_try_at = (datetime.now(UTC) + timedelta(seconds=decision.wait_s)).isoformat(timespec="milliseconds")
        what = self._describe(error)
        if new_trace is not None:
            self._warn_at_once(f"{what}: trying again\n{new_trace}")
        elif self._repeats.count == MOST_REPEATS:
            self._warn_at_once(
                f"{what}: it has failed {MOST_REPEATS} times the same way, and is seldom tried again until you mend it"
            )
        else:
            self._warn(f"{what}: {'waiting for you to mend that' if decision.paused else 'trying again'}")
        try:
            await self._progress.fail(what, next_try_at, decision.paused)
        except Exception as failed:  # a full disk; what is saved is what was
            self._warn(f"the cursor cannot be saved: {failed}")
        return decision.wait_s

    def _succeed(self) -> None:
        """The backend works."""
        self._failures = 0
        self._repeats.forget()
        self._progress.succeed()

    async def _take_lease(self) -> bool:
        """Be the one process that delivers this run to this backend; False after a while where another does."""
        if self._lease.held or not self._keep:
            self._lease.check()
            return True
        path = lease_path(self._run, self.name)
        make_directory(path)
        if not self._lease.take():
            holder = self._lease.holder()
            who = "another process" if holder is None else f"process {in_words([holder])}"
            self._warn(f"{who} delivers the same; waiting for it to end")
            await self._sleep(_LEASE_WAIT_S)
            return False
        self._progress.catch_up()
        return True

    async def _sleep(self, seconds: float) -> None:
        """Wait, but not for longer than `stop` allows."""
        if seconds > 0:
            with anyio.move_on_after(seconds):
                await self._stopping.wait()

    async def _call(self, method: Callable[..., Any], *arguments: Any) -> Any:
        """Call a backend's or sink's method: a plain function in a thread, so that it cannot hold the loop, a coroutine function here."""
        self.busy_since = time.monotonic()
        try:
            if inspect.iscoroutinefunction(method):
                return await method(*arguments)
            return await in_thread(self._lease.call, method, arguments, abandon_on_cancel=True, limiter=self._limiter)
        except (SystemExit, KeyboardInterrupt) as error:  # a library that wants to end the process: it is not its own
            raise RuntimeError(f"the backend raised {type(error).__name__}: {error}") from error
        finally:
            self.busy_since = None

    def _describe(self, error: Exception) -> str:
        """An error in words, without what its settings have from the environment."""
        return self._hide(describe(error))

    def _hide(self, text: str) -> str:
        return mask_text(env_refs.hide(text, self._backend.references))

    def _warn(self, message: str) -> None:
        if self._throttle.due(self.name):
            self._warn_at_once(message)

    def _warn_at_once(self, message: str) -> None:
        self._throttle.note(self.name)
        _log.warning("%s of %s: %s", self.name, self._run, self._hide(message))


def note_failure(run: Path, name: str, what: str, paused: bool = False) -> None:
    """Note in a backend's cursor why nobody delivers to it just now; nothing where somebody does again."""
    fd = locks.take(lease_path(run, name))
    if fd is None:
        return
    try:
        cursor = load_cursor(run, name)
        cursor.last_error, cursor.paused = what, paused
        cursor.retries += 1
        replace_file(cursor_path(run, name), msgspec.json.encode(cursor), permissions.PRIVATE_FILE)
    finally:
        os.close(fd)
