"""Driver: one delivery, from the journal to one sink, or by a carrier to a collector. Runs in an asyncio loop of the worker, of a process of its own, or of the caller.

It takes the lease, lets `Transfer` do a round, and notes what came of it: that the backend works, or what went wrong and when it is tried again. What
belongs together is a part of its own: `DeliveryProgress` is how far the backend is, `Connection` the sink, `Failures` what went wrong,
`Reports` what is said.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
import anyio.lowlevel

from asynctrack._system.locks import in_words
from asynctrack.backends.base import ActionRequired, Backend, Resend
from asynctrack.backends.collector import Collector
from asynctrack.backends.part_files import PartFiles
from asynctrack.delivery.batcher import has_more
from asynctrack.delivery.failures import Failures
from asynctrack.delivery.lease import Lease
from asynctrack.delivery.next_step import Found, idle_s, is_caught_up
from asynctrack.delivery.progress import DeliveryProgress, make_directory
from asynctrack.delivery.reports import Reports
from asynctrack.delivery.retry_policy import RetryDecision, classify_error, classify_resend
from asynctrack.delivery.splitting import connect
from asynctrack.delivery.transfer import Hooks, Route, Transfer, sleep
from asynctrack.journal.cursor import Cursor, lease_path
from asynctrack.journal.manifest import Manifest

if TYPE_CHECKING:
    from asynctrack.delivery.carrier_transfer import CarrierTransfer

# How long deliveries that are to end may wait for their sinks.
STOP_WAIT_S: Final = 4.0
# Between two looks whether another process still delivers the same. Its lock could be waited for, but only by a thread that no signal ends.
_LEASE_WAIT_S: Final = 0.5


class Delivery:
    """Drives one sink from its cursor to the journal's end, and on as it grows.

    Args:
        run: the run's directory.
        name: of the backend in this run.
        backend: its settings.
        manifest: of the run.
        keep: whether the cursor outlives this process; what lives in memory starts from the beginning.
        force: deliver also from a copy of a run, though what the original had delivered may show twice.
        look_again: open a sink also where the backend has everything, since that may have been removed: a sink that finds less asks for the run again.

    Attributes:
        waiting: whether all there is has been delivered and saved.
    """

    def __init__(
        self,
        run: Path,
        name: str,
        backend: Backend,
        manifest: Manifest,
        *,
        keep: bool = True,
        force: bool = False,
        look_again: bool = False,
    ) -> None:
        self.waiting = False
        self._route = Route(run, name, backend, manifest, keep, force)
        self._lease = Lease(lease_path(run, name))
        self._progress = DeliveryProgress(run, name, self._lease, keep=keep)
        self._reports = Reports(run, name, backend)
        self._failures = Failures()
        self._stopping = anyio.Event()
        self._transfer = self._make_transfer(backend)
        if look_again:
            self._progress.reopen()
        else:
            self.reopen()

    def __repr__(self) -> str:
        return f"<Delivery to {self.name} at {self.cursor.position}, {self.cursor.delivered} delivered>"

    @property
    def name(self) -> str:
        """Return the backend's name in this run."""
        return self._route.name

    @property
    def cursor(self) -> Cursor:
        """Return the position. It is a value, which is replaced as the delivery advances."""
        return self._progress.cursor

    @property
    def done(self) -> bool:
        """Return True if the backend has everything, the run's end included."""
        return self.cursor.closed

    @property
    def paused(self) -> bool:
        """Return True if a person has to fix something before anything more is delivered."""
        # Without a failure here the pause is that of an earlier process.
        return self.cursor.paused and self._failures.count > 0

    @property
    def busy_since(self) -> float | None:
        """Return since when it has waited for its backend, in monotonic seconds; None while it does not."""
        return self._transfer.busy_since

    @property
    def saved_ends(self) -> dict[int, int]:
        """Return for each ring the position up to which the backend has it for good."""
        return self._progress.saved.ends

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
        if self._lease.in_use:  # it is said once
            return
        self._lease.begin()
        try:
            while not self.done and not self._stopping.is_set():
                await self._try(Hooks(wait, expedite, saved, pace))
            await self._transfer.pause()
        finally:
            self._lease.end()

    def reopen(self) -> bool:
        """Begin again if the run has gone on after its end, as a forked child may do; then `drive` it again.

        What lives in memory gets the whole run again.

        Returns:
            True where the run has gone on.
        """
        if self._lease.in_use or not self.done:
            return False
        more = has_more(self._route.run, self.cursor, self._route.backend)
        if more:
            self._progress.reopen()
        return more

    def stop(self) -> None:
        """End `drive` soon, once its sink has answered; delivery can go on from there later."""
        self._stopping.set()

    def _make_transfer(self, backend: Backend) -> Transfer | CarrierTransfer:
        if isinstance(backend, Collector | PartFiles):
            from asynctrack.delivery.carrier_transfer import CarrierTransfer  # rarely needed

            return CarrierTransfer(self._route.run, backend, self._lease, self._progress, self._reports, self._stopping)
        connection = connect(backend, self._lease)
        return Transfer(self._route, connection, self._progress, self._reports, self._stopping)

    async def _try(self, hooks: Hooks) -> None:
        """Do a round, if the run is this process's to deliver; note what is raised, and wait until it is tried again."""
        try:
            if await self._take_lease() and not self.done:
                found = await self._transfer.round(hooks)
                if found is not Found.UNKNOWN:
                    await self._settle(found, hooks)
        except Resend as reason:
            await sleep(self._stopping, await self._start_over(reason))
        except Exception as error:  # the backend failed; the journal has everything, so it is tried again
            decision = await self._fail(error)
            hooks.saved()
            await self._transfer.rest(decision.wait_s, hooks.expedite)

    async def _settle(self, found: Found, hooks: Hooks) -> None:
        """Note that the backend works, and wait for what comes next."""
        self._failures = self._failures.succeed(self.cursor.position)
        self._progress.succeed()
        if not self._progress.dirty:
            hooks.saved()
        if found is Found.BATCH:
            await hooks.pace()
        elif not self.done:
            await self._idle(hooks)

    async def _idle(self, hooks: Hooks) -> None:
        """Wait for the journal to grow, or what is gathered to be old enough."""
        due_in, dirty = self._transfer.due_in(), self._progress.dirty
        self.waiting = is_caught_up(dirty=dirty, due_in=due_in)
        await hooks.wait(idle_s(dirty=dirty, due_in=due_in))
        self.waiting = False

    async def _start_over(self, reason: Resend) -> float:
        """Go back to the run's beginning; returns seconds until then."""
        self._reports.say(f"{self._reports.describe(reason)}: giving it the whole run again")
        await self._transfer.abandon()
        self._failures = self._failures.add_resend(self.cursor.position)
        self._progress.start_over(reason.state)
        decision = classify_resend(self._failures.resends)
        if decision.paused:
            decision = await self._fail(ActionRequired(f"it asks for the whole run again and again: {reason}"))
        return decision.wait_s

    async def _fail(self, error: Exception) -> RetryDecision:
        """Note what went wrong, for who reads the cursor and who reads the log."""
        self._failures = self._failures.add(error)
        decision = classify_error(error, self._failures.count, self._failures.repeats)
        next_try_at = (datetime.now(UTC) + timedelta(seconds=decision.wait_s)).isoformat(timespec="milliseconds")
        self._reports.fail(error, self._failures, decision)
        try:
            await self._progress.fail(self._reports.describe(error), next_try_at, decision.paused)
        except Exception as failed:  # a full disk, perhaps: the cursor that was saved before stays
            self._reports.warn(f"the cursor cannot be saved: {failed}")
        return decision

    async def _take_lease(self) -> bool:
        """Be the one process that delivers this run to this backend; returns False after a while where another does.

        The lease goes with the process that holds it, so there is nothing to expire or to clean up. The cursor is read anew, since another
        process may have moved it.
        """
        if self._lease.held or not self._route.keep:
            self._lease.check()
            return True
        make_directory(lease_path(self._route.run, self.name))
        if not self._lease.take():
            holder = self._lease.holder()
            who = "another process" if holder is None else f"process {in_words([holder])}"
            self._reports.warn(f"{who} delivers the same; waiting for it to end")
            await sleep(self._stopping, _LEASE_WAIT_S)
            return False
        self._progress.catch_up()
        return True
