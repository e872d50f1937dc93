"""Run service: serves one run, its `run.json` and its light deliveries, in an asyncio loop of the worker.

What comes next is decided in `run_rules`.
"""

from __future__ import annotations

import time

import anyio
import anyio.abc
import anyio.lowlevel

from asynctrack.delivery.driver import STOP_WAIT_S, Delivery
from asynctrack.worker.delegated_delivery import DelegatedDelivery
from asynctrack.worker.delivery_opening import DeliveryOpener
from asynctrack.worker.drain import Drain
from asynctrack.worker.growth import Growth
from asynctrack.worker.manifest_keeper import ManifestKeeper, find_manifest, gone
from asynctrack.worker.policy import Policy
from asynctrack.worker.provenance import Provenance
from asynctrack.worker.pulse import Pulse
from asynctrack.worker.run_journal import RunJournal
from asynctrack.worker.run_rules import SAVE_INTERVAL_S, RunFacts, interval_s, is_finished, is_overdue, next_step

# While the drain is under pressure the deliveries leave the interpreter to it for this long between batches.
LONGEST_YIELD_S = 0.25
# How long deliveries go on after their callers' end where the run does not say.
AFTER_EXIT_MAX_S = 300.0


class RunService:
    """One run: its manifest, and a delivery for each of its backends that belongs here.

    Attributes:
        journal: of the run.
        status: what the backends were told, once they were told all.
        notes: how many of the journal's notes `run.json` and the backends have at least.
        finished: whether nobody serves it any more.

    Args:
        journal: of the run.
        drain: moves the run's bytes.
        opener: opens its deliveries.
        policy: what may be done.
        provenance: has it found out where the run comes from.
    """

    def __init__(
        self, journal: RunJournal, drain: Drain, opener: DeliveryOpener, policy: Policy, provenance: Provenance
    ) -> None:
        self.journal = journal
        self.status: str | None = None
        self.finished = False
        self._drain = drain
        self._opener = opener
        self._policy = policy
        self._provenance = provenance
        self._opened_at: object = None
        self._deliveries: list[Delivery | DelegatedDelivery] = []
        self._growth = Growth()
        self._grown = self._growth.listen()
        self._ended_at: float | None = None
        self._stopping = False
        self.notes = journal.notes
        self._pulse = Pulse(journal.path)

    def notify_growth(self) -> None:
        """Take note that the run's journal has grown."""
        self._growth.notify()

    async def run(self) -> bool:
        """Serve the run to its end.

        Returns:
            False when delivery had to be left to `asynctrack sync`.

        Raises:
            FileNotFoundError: the run's directory was removed or moved meanwhile.
        """
        while self.journal.gone():  # another run may be at its path by now
            if self._stopping or self.hopeless():
                return False
            await self._wait(SAVE_INTERVAL_S)
        keeper = await find_manifest(self.journal, self._wait, lambda: self._stopping)
        if keeper is None:
            return True
        try:
            return await self._run(keeper)
        finally:
            keeper.close()

    def stop(self) -> None:
        """End `run` soon; delivery can go on later."""
        self._stopping = True
        for delivery in self._deliveries:
            delivery.stop()
        self.notify_growth()

    def is_outdated(self) -> bool:
        """Return whether the run goes on after all, or the journal has notes that came too late: an exit code, the end of an idle process."""
        goes_on = self.journal.status is None or self.journal.notes != self.notes
        return goes_on or self.status not in (None, self.journal.status)

    def hopeless(self) -> bool:
        """Return whether the run has ended, and somebody has removed its directory."""
        return self.journal.status is not None and self.journal.gone()

    async def _run(self, keeper: ManifestKeeper) -> bool:
        while not (self._stopping or self._has_begun()):
            await self._wait(SAVE_INTERVAL_S)
        await keeper.catch_up(self._pace)  # a run that goes on may do so with other backends
        self._note_provenance(keeper)
        async with anyio.create_task_group() as tasks:
            self._deliveries = self._opener.open(self.journal, keeper.manifest)
            for delivery in self._deliveries:
                tasks.start_soon(self._drive, delivery)
            is_gone = await self._serve(keeper, tasks)
            if self._stopping:
                tasks.cancel_scope.deadline = anyio.current_time() + STOP_WAIT_S
        if is_gone:
            raise gone(self.journal)
        keeper.save()
        self._publish()
        self.status = keeper.manifest.status
        return is_finished(self._facts(keeper))

    async def _serve(self, keeper: ManifestKeeper, tasks: anyio.abc.TaskGroup) -> bool:
        """Serve the run until nothing is left to do or somebody asks to end; returns whether its directory is gone."""
        while not self.journal.gone():
            self.notes = self.journal.notes  # asked for first: one of its processes may log or end meanwhile
            self._pulse.beat()
            await keeper.catch_up(self._pace)
            self._note_provenance(keeper)
            for delivery in self._deliveries:
                if delivery.reopen():
                    tasks.start_soon(self._drive, delivery)
            self._publish()
            step = next_step(self._facts(keeper))
            if step in ("tell", "give up"):
                self.journal.signal_done()  # `finish` does not wait for what only a person can mend
            if step == "give up":
                self.stop()
            if step in ("leave", "give up"):
                return False
            # Growth and the end of a delivery wake it. What only a look can tell is on disk: a run that goes on behind its end, and
            # another worker that wants it.
            await self._wait(interval_s(ended=keeper.ended))
            if self._is_overdue(keeper):
                if not self._is_wanted():
                    self.journal.leave_to_sync()
                self.stop()
        self.stop()
        return True

    def _note_provenance(self, keeper: ManifestKeeper) -> None:
        """Have it found out where the run comes from, for each session of it."""
        manifest = keeper.manifest
        opened_at = manifest.environment.get("opened_at")
        if opened_at != self._opened_at and not self._policy.patient:
            self._opened_at = opened_at
            self._provenance.note(self.journal.path, manifest.environment, manifest.limits)

    async def _drive(self, delivery: Delivery | DelegatedDelivery) -> None:
        grown = self._growth.listen()

        async def wait(seconds: float) -> None:
            if not self._stopping:
                await grown.wait(seconds)

        try:
            await delivery.drive(wait, self.journal.wanted, self._publish, self._pace)
        finally:
            self._growth.forget(grown)
        self.notify_growth()

    def _has_begun(self) -> bool:
        """Return whether what the run's callers begin with is in the journal."""
        assert self.journal.writer is not None
        known = self.journal.writer.ends
        return self.journal.status is not None or any(ring.id in known for ring in list(self.journal.rings))

    def _facts(self, keeper: ManifestKeeper) -> RunFacts:
        return RunFacts(
            stopping=self._stopping,
            ended=keeper.ended,
            saved=keeper.saved,
            done=all(delivery.done for delivery in self._deliveries),
            stuck=all(delivery.done or delivery.paused for delivery in self._deliveries),
            patient=self._policy.patient,
        )

    def _is_overdue(self, keeper: ManifestKeeper) -> bool:
        """Return whether the callers ended so long ago that what is behind is left to `asynctrack sync`."""
        if not keeper.ended:
            self._ended_at = None
            return False
        now = time.monotonic()
        if self._ended_at is None and not self.journal.is_awaited():  # `finish` waits as long as its own limit allows
            self._ended_at = now
        return is_overdue(
            wanted=self._is_wanted(),
            patient=self._policy.patient,
            ended_for_s=0.0 if self._ended_at is None else now - self._ended_at,
            limit_s=keeper.manifest.limits.get("after_exit_max_s", AFTER_EXIT_MAX_S),
        )

    def _is_wanted(self) -> bool:
        """Return whether another worker is to go on with the run."""
        return self._drain.leaving or self.journal.asked_for()

    def _publish(self) -> None:
        """Tell the producers how far all deliveries are."""
        deliveries = self._deliveries
        self.journal.set_delivered(
            lambda ring: min((delivery.saved_ends.get(ring, 0) for delivery in deliveries), default=1 << 62)
        )

    async def _wait(self, seconds: float) -> None:
        """Wait for the journal to grow."""
        if not self._stopping:
            await self._grown.wait(seconds)

    async def _pace(self) -> None:
        """Let the drain come first under pressure; a delivery still gets on, a batch at a time."""
        await anyio.lowlevel.checkpoint()
        deadline = time.monotonic() + LONGEST_YIELD_S
        # The drain's thread must not be made to wake this loop: that is what it has no time for. So this polls.
        while self._drain.pressed and time.monotonic() < deadline:
            await anyio.sleep(0.01)
