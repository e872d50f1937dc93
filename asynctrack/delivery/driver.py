"""Driver: one delivery, from the journal to one sink. Runs in an asyncio loop of the worker, of a process of its own, or of the caller."""

from __future__ import annotations

import inspect
import logging
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.lowlevel
import anyio.to_thread
import msgspec

from asynctrack import locks
from asynctrack.backends.base import Backend, Batch, Context, Outcome, Paused, Refused, Sink, StartOver, TooLarge
from asynctrack.cursor import Cursor, cursor_path, lease_path, load_cursor
from asynctrack.delivery import refused
from asynctrack.delivery.cutter import Cut, Cutter, has_more
from asynctrack.delivery.verdict import LONGEST_RETRY_S, describe, judge
from asynctrack.manifest import Manifest, replace_file

# Between two saves of a cursor. What a crash delivers again to a backend that cannot tell is at most this much.
CHECKPOINT_INTERVAL_S: Final = 1.0
# How long deliveries that are to end may wait for their sinks.
STOP_WAIT_S: Final = 4.0
# Between two looks whether another process still delivers the same.
_LEASE_WAIT_S: Final = 0.5
# Between two lines about a backend that does not work.
_WARN_INTERVAL_S: Final = 60.0

_log = logging.getLogger("asynctrack.delivery")


class _Pending:
    """A cut on its way to the sink: the parts that it has not yet taken, and what became of the others."""

    def __init__(self, cut: Cut) -> None:
        self.cut = cut
        batch = cut.batch
        self.parts = deque([batch] if batch.records or batch.updates else [])
        self.delivered = 0
        self.refused = 0
        self.skipped: dict[str, int] = {"thinned": cut.thinned} if cut.thinned else {}

    def take(self, part: Batch, skipped: Mapping[str, int] | None) -> None:
        """The sink has a part, but for what it cannot show."""
        self.delivered += len(part.records)
        for reason, count in (skipped or {}).items():
            self.delivered -= count
            self.skipped[reason] = self.skipped.get(reason, 0) + count


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
        cursor: how far it is.
        saved_ends: for each ring, up to where the saved cursor has it.
        busy_since: since when it has waited for its backend, monotonic seconds; None while it does not.
        waiting: whether all there is has been delivered and saved.
    """

    def __init__(
        self, run: Path, name: str, backend: Backend, manifest: Manifest, *, keep: bool = True, force: bool = False
    ) -> None:
        self.name = name
        self.cursor = load_cursor(run, name) if keep else Cursor()
        self.saved_ends: dict[int, int] = dict(self.cursor.ends)
        self._run = run
        self._backend = backend
        self._manifest = manifest
        self._keep = keep
        self._force = force
        self._sink: Sink | None = None
        self._cutter: Cutter | None = None
        self._pending: _Pending | None = None
        self._stopping = anyio.Event()
        self._driven = False
        self._dirty = False
        self._saved_at = 0.0
        self._ready_at = 0.0
        self._failures = 0
        self._warn_at = 0.0
        self._lease_fd: int | None = None
        self.busy_since: float | None = None
        self.waiting = False
        self.reopen()

    def __repr__(self) -> str:
        return f"<Delivery to {self.name} at {self.cursor.position}, {self.cursor.delivered} delivered>"

    @property
    def done(self) -> bool:
        """Whether the backend has everything, the run's end included."""
        return self.cursor.closed

    @property
    def paused(self) -> bool:
        """Whether a person has to mend something before anything more is delivered."""
        return self.cursor.paused

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
        try:
            while not self.done and not self._stopping.is_set():
                try:
                    if not await self._lease() or self.done:
                        continue
                    await self._step(wait, hurry, saved, pace)
                except StartOver as reason:
                    await self._start_over(reason)
                except Exception as error:  # the backend failed; the journal has everything, so it is tried again
                    wait_s = await self._fail(error)
                    saved()
                    await self._sleep(wait_s)
            await self._pause()
        finally:
            self._release()
            self._driven = False

    def reopen(self) -> bool:
        """Whether the run has gone on after its end, as a forked child may do; then `drive` it again.

        What lives in memory gets the whole run again.
        """
        if self._driven or not self.done:
            return False
        more = has_more(self._run, self.cursor, self._backend)
        if more:
            self.cursor.closed = False
            self.cursor = self.cursor if self._keep else Cursor()
            self._sink = self._cutter = self._pending = None
        return more

    def stop(self) -> None:
        """End `drive` soon, once its sink has answered; delivery can go on from there later."""
        self._stopping.set()

    async def _step(
        self,
        wait: Callable[[float], Awaitable[None]],
        hurry: Callable[[], bool],
        saved: Callable[[], None],
        pace: Callable[[], Awaitable[None]],
    ) -> None:
        """Give the sink one batch, or wait for one."""
        moved = await self._deliver(hurry())
        if self._due(moved, hurry()):
            await self._save()
            saved()
        self._failures = 0
        if moved:
            await self._sleep(self._ready_at - time.monotonic())
            await pace()
        else:
            assert self._cutter is not None
            self.waiting = not self._dirty
            await wait(min(CHECKPOINT_INTERVAL_S if self._dirty else LONGEST_RETRY_S, max(0.0, self._cutter.due_in())))
            self.waiting = False

    async def _deliver(self, hurry: bool) -> bool:
        """Give the sink one batch; False when there was none."""
        if self._sink is None:
            self._sink = await self._open()
        if self._cutter is None:
            self._cutter = Cutter(self._run, self.cursor, self._backend)
        if self._pending is None:
            cut = self._cutter.cut(hurry=hurry)
            if cut is None:
                return False
            self._pending = _Pending(cut)
        await self._give(self._sink, self._pending)
        await self._move(self._pending)
        return True

    async def _give(self, sink: Sink, pending: _Pending) -> None:
        """Write what the sink has not yet taken: what is too large in halves, without what it refuses."""
        while pending.parts:
            part = pending.parts[0]
            try:
                skipped = await self._call(sink.write, part)
            except (TooLarge, Refused) as no:
                await self._split(pending, part, no)
                continue
            pending.parts.popleft()
            pending.take(part, skipped)
            if self._backend.max_records_s is not None:
                now = time.monotonic()
                self._ready_at = max(now, self._ready_at) + len(part.records) / self._backend.max_records_s

    async def _split(self, pending: _Pending, part: Batch, no: TooLarge | Refused) -> None:
        records, which = part.records, getattr(no, "which", None)
        if which is None and len(records) > 1:
            half = len(records) // 2
            rest = [Batch(records[:half], part.updates), Batch(records[half:], [])]
        elif records:
            which = which if which is not None else {0}
            lost = [record for index, record in enumerate(records) if index in which]
            if not lost:
                raise ValueError(f"the backend refuses none of these records: {sorted(which)}") from no
            reason = str(no) or "too large"
            await anyio.to_thread.run_sync(refused.keep, self._run, self.name, reason, lost)
            self._say(f"{len(lost)} records are refused: {reason}; they are in {refused.FILE_NAME}")
            pending.refused += len(lost)
            left = [record for index, record in enumerate(records) if index not in which]
            rest = [Batch(left, part.updates)] if left or part.updates else []
        else:
            self._say(f"a change of config or summary is refused: {no}")
            rest = []
        pending.parts.popleft()
        pending.parts.extendleft(reversed(rest))

    async def _move(self, pending: _Pending) -> None:
        """The backend has all of a cut: the cursor moves behind it."""
        cursor, cut = self.cursor, pending.cut
        self._pending = None
        self._dirty = True
        cursor.last_error, cursor.next_try_at, cursor.paused = None, None, False
        cursor.delivered += pending.delivered
        cursor.refused += pending.refused
        for reason, count in pending.skipped.items():
            cursor.skipped[reason] = cursor.skipped.get(reason, 0) + count
        cursor.position, cursor.ends = cut.position, cut.ends
        if cut.batch.records:
            cursor.next_number = max(cursor.next_number, cut.batch.records[-1].number + 1)
        assert self._cutter is not None
        if cut.outcome is not None and self._cutter.at_end():  # a resumed run goes on behind its end
            await self._close(cut.outcome)

    async def _open(self) -> Sink:
        if self._keep:
            self._check_home()
        manifest = self._manifest
        context = Context(
            run_id=manifest.id,
            name=manifest.name,
            project=manifest.project,
            directory=self._run,
            created_at=manifest.created_at,
            config=manifest.config,
            state=self.cursor.state,
        )
        sink: Sink = await self._call(self._backend.open, context)
        return sink

    def _check_home(self) -> None:
        """A copy of a run must not repeat what its original has delivered."""
        home = os.stat(self._run).st_ino
        if self._force or not self.cursor.home or not self._backend.repeats_show:
            self.cursor.home = home
        if self.cursor.home != home:
            raise Paused(
                "this is a copy of a run whose original has delivered a part of it, and what is delivered twice would "
                "show twice; deliver the original, or the copy with `asynctrack sync --force`"
            )

    async def _close(self, outcome: Outcome) -> None:
        await self._save()
        assert self._sink is not None and self._cutter is not None
        await self._call(self._sink.close, outcome)
        self._cutter.close()
        self.cursor.closed = True
        await self._save_cursor()

    async def _pause(self) -> None:
        """Save the cursor and close the sink, unless the end has done so."""
        try:
            if not self.done and self._sink is not None:
                await self._save()
                await self._call(self._sink.close, "stopped")
        except Exception as error:  # what is not saved is delivered again
            _log.warning("%s: could not be closed: %s", self.name, describe(error))
        if self._cutter is not None:
            self._cutter.close()
        self._sink = self._cutter = self._pending = None

    def _due(self, moved: bool, hurry: bool) -> bool:
        age = time.monotonic() - self._saved_at
        return self._dirty and not self.done and (age > CHECKPOINT_INTERVAL_S or (hurry and not moved))

    async def _save(self) -> None:
        if self._sink is not None:
            self.cursor.state = await self._call(self._sink.checkpoint)
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
            await self._call(self._sink.close, "stopped")
        if self._cutter is not None:
            self._cutter.close()
        self._sink = self._cutter = self._pending = None
        self.cursor = Cursor(state=reason.state, home=self.cursor.home, retries=self.cursor.retries)

    async def _fail(self, error: Exception) -> float:
        """Note what went wrong; returns seconds until the next try."""
        self._failures += 1
        verdict = judge(error, self._failures)
        cursor = self.cursor
        cursor.last_error, cursor.paused = describe(error), verdict.paused
        cursor.retries += 1
        cursor.next_try_at = (datetime.now(UTC) + timedelta(seconds=verdict.wait_s)).isoformat(timespec="milliseconds")
        self._say(f"{cursor.last_error}: {'waiting for you' if verdict.paused else 'trying again'}")
        try:
            await self._save_cursor()
        except OSError as failed:
            self._say(f"the cursor cannot be saved: {failed}")
        return verdict.wait_s

    async def _lease(self) -> bool:
        """Be the one process that delivers this run to this backend; False after a while where another does."""
        if self._lease_fd is not None or not self._keep:
            return True
        path = lease_path(self._run, self.name)
        os.makedirs(path.parent, mode=0o700, exist_ok=True)
        self._lease_fd = locks.take(path)
        if self._lease_fd is None:
            self._say(f"process {locks.holder(path)} delivers the same; waiting for it to end")
            await self._sleep(_LEASE_WAIT_S)
            return False
        self._catch_up()
        return True

    def _catch_up(self) -> None:
        """Another may have delivered since the cursor was read."""
        found = load_cursor(self._run, self.name)
        if found.position != self.cursor.position:
            self.cursor, self.saved_ends = found, dict(found.ends)

    def _release(self) -> None:
        if self._lease_fd is not None:
            os.close(self._lease_fd)
            self._lease_fd = None

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
            return await anyio.to_thread.run_sync(method, *arguments, abandon_on_cancel=True)
        finally:
            self.busy_since = None

    def _say(self, message: str) -> None:
        now = time.monotonic()
        if now >= self._warn_at:
            self._warn_at = now + _WARN_INTERVAL_S
            _log.warning("%s of %s: %s", self.name, self._run, message)
