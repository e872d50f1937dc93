"""Run service: keeps one run's `run.json` and drives its light deliveries, in an asyncio loop of the worker."""

from __future__ import annotations

import errno
import logging
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import anyio.lowlevel

from asynctrack._system import trust
from asynctrack._system.spawn import can_spawn
from asynctrack._system.throttle import Throttle
from asynctrack.backends.base import Backend
from asynctrack.backends.registry import Unbuilt, execution_of, from_caller, from_stored, goes_with_its_process
from asynctrack.backends.stored_settings import lives_in_caller
from asynctrack.delivery.driver import STOP_WAIT_S, Delivery
from asynctrack.errors import AsynctrackError, ManifestUnreadable
from asynctrack.journal import manifest as manifests
from asynctrack.journal.layout import Position
from asynctrack.journal.manifest import Manifest, find_start
from asynctrack.journal.reader import Reader
from asynctrack.worker.delivery_supervisor import DelegatedDelivery, Supervisor
from asynctrack.worker.drain import Drain
from asynctrack.worker.run_journal import RunJournal

# `run.json` is written at most this often while a run goes on.
SAVE_INTERVAL_S = 1.0
# While the drain is under pressure the deliveries leave the interpreter to it for this long between batches.
LONGEST_YIELD_S = 0.25
# How long deliveries go on after their callers' end where the run does not say.
AFTER_EXIT_MAX_S = 300.0

_log = logging.getLogger("asynctrack.worker")


class Policy(NamedTuple):
    """What a worker may do beyond serving its own callers' runs: `asynctrack sync` is told by its user.

    Attributes:
        offline_too: deliver to backends that need a network also where the run is offline.
        trust: take settings that lead out of a run's directory from any `run.json`.
        force: deliver copies of runs also where what their originals delivered shows twice.
        patient: the callers have ended, and a person waits. So go on for as long as it is let, not for as long as the run says, deliver
            to what lived in a caller where that can be imported, and let go of a run at once when only a person can help.
    """

    offline_too: bool = False
    trust: bool = False
    force: bool = False
    patient: bool = False


CALLERS_ONLY = Policy()


class RunService:
    """One run: its manifest, and a delivery for each of its backends that belongs here."""

    def __init__(
        self, journal: RunJournal, drain: Drain, processes: Supervisor, local: dict[str, Backend], policy: Policy
    ) -> None:
        self.journal = journal
        self.finished = False
        self.status: str | None = None
        self._drain = drain
        self._processes = processes
        self._local = local
        self._policy = policy
        self._deliveries: list[Delivery | DelegatedDelivery] = []
        self._from_callers: dict[str, dict[str, Any]] = {}
        self._waiters: list[anyio.Event] = []
        self._ended = False
        self._manifest: Manifest | None = None
        self._reader = Reader(os.path.join(journal.path, "journal"))
        self._saved_at = 0.0
        self._saved = False
        self._throttle = Throttle()
        self._left_at: float | None = None
        self._stopping = False

    def notify_growth(self) -> None:
        """The run's journal has grown."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.set()

    async def run(self) -> bool:
        """Serve the run to its end; False when delivery had to be left to `asynctrack sync`."""
        try:
            return await self._run()
        finally:
            self._reader.close()

    async def _run(self) -> bool:
        while self.journal.gone():  # what lies there by now may be another's
            if self._stopping or self.hopeless():
                return False
            await self._wait(SAVE_INTERVAL_S)
        if not await self._find_manifest():
            return True
        while not (self._stopping or self._has_begun()):
            await self._wait(SAVE_INTERVAL_S)
        await self._keep_manifest()  # a run that goes on may do so with other backends
        async with anyio.create_task_group() as tasks:
            for delivery in self._open_deliveries():
                tasks.start_soon(self._drive, delivery)
            while True:
                if gone := self.journal.gone():
                    self.stop()
                    break
                await self._keep_manifest()
                for delivery in self._deliveries:
                    if delivery.reopen():
                        tasks.start_soon(self._drive, delivery)
                self._publish()
                if self._finished() or self._stopping:
                    break
                if self._ended and all(delivery.done or delivery.paused for delivery in self._deliveries):
                    self.journal.signal_done()  # what waits for a person is not waited for by `finish`
                    if self._policy.patient:
                        self.stop()
                        break
                await self._wait(0.2 if self._ended else SAVE_INTERVAL_S)
                if self._overdue():
                    self.stop()
            if self._stopping:
                tasks.cancel_scope.deadline = anyio.current_time() + STOP_WAIT_S
        if gone:
            raise _gone(self.journal)
        self._save()
        self._publish()
        if self._manifest is not None:
            self.status = self._manifest.status
        return self._finished()

    def is_outdated(self) -> bool:
        """Whether somebody has begun to log to the run again, or its end is another than it was: an exit code came."""
        return bool(self.journal.live) or self.status not in (None, self.journal.status)

    async def _drive(self, delivery: Delivery | DelegatedDelivery) -> None:
        await delivery.drive(self._wait, self.journal.wanted, self._publish, self._pace)
        self.notify_growth()

    def stop(self) -> None:
        """End `run` soon; delivery can go on later."""
        self._stopping = True
        for delivery in self._deliveries:
            delivery.stop()
        self.notify_growth()

    def hopeless(self) -> bool:
        """Whether the run has ended, and somebody has removed its directory."""
        return self.journal.status is not None and self.journal.gone()

    async def _find_manifest(self) -> bool:
        """The run as `run.json` has it, or as its first frame says; False when its caller died before it said anything."""
        try:
            self._manifest = manifests.load(Path(self.journal.path))
            self._reader.position = self._manifest.position
        except AsynctrackError as error:
            if isinstance(error, ManifestUnreadable):
                _log.warning(
                    "%s of %s cannot be read: %s; the journal stands in",
                    manifests.FILE_NAME,
                    self.journal.path,
                    error.found,
                )
            while self._manifest is None:
                over = self._stopping or self.journal.status is not None  # asked for first: the drain goes on meanwhile
                batch = self._reader.next()
                if batch is not None:
                    self._manifest = find_start(batch)
                elif over:
                    return False
                else:
                    await self._wait(SAVE_INTERVAL_S)
            self._reader.close()
            self._reader = Reader(os.path.join(self.journal.path, "journal"))
        return True

    def _has_begun(self) -> bool:
        """Whether what the run's callers begin with is in the journal."""
        assert self.journal.writer is not None
        known = self.journal.writer.ends
        return self.journal.status is not None or any(ring.id in known for ring in list(self.journal.rings))

    def _open_deliveries(self) -> list[Delivery | DelegatedDelivery]:
        assert self._manifest is not None
        self._read_callers_settings()
        for name, stored in self._manifest.backends.items():
            backend = self._local.get(name) or self._from_stored(name, stored)
            if backend is None or (backend.remote and self._manifest.offline and not self._policy.offline_too):
                continue
            self._deliveries.append(self._open_delivery(name, backend, stored))
        return self._deliveries

    def _open_delivery(self, name: str, backend: Backend, stored: dict[str, Any]) -> Delivery | DelegatedDelivery:
        assert self._manifest is not None
        run, execution = Path(self.journal.path), execution_of(backend)
        if execution == "process" and can_spawn():
            process = self._processes.of(str(stored["kind"]))
            return DelegatedDelivery(run, name, backend, stored, process, force=self._policy.force)
        keep = name not in self._local or execution != "caller"
        return Delivery(run, name, backend, self._manifest, keep=keep, force=self._policy.force)

    def _read_callers_settings(self) -> None:
        """What the run's callers themselves have said of their backends, through queues that nobody else can write."""
        mine = {ring.id for ring in self.journal.rings}
        directory = os.path.join(self.journal.path, "journal")
        headers = Reader(directory, bodies=False)
        for batch in headers:
            if batch.header.ring in mine and not batch.header.start:  # a ring begins with what its caller says
                reader = Reader(directory, Position(batch.segment, batch.offset))
                first = reader.next()
                reader.close()
                if first is not None and (start := find_start(first)) is not None:
                    self._from_callers.update(start.backends)
        headers.close()

    def _from_stored(self, name: str, stored: dict[str, Any]) -> Backend | None:
        assert self._manifest is not None
        trusted = (
            self._policy.trust
            or self._from_callers.get(name) == stored
            or trust.is_sealed(self._manifest.id, name, stored)
        )
        try:
            if self._policy.patient and lives_in_caller(stored):
                return None if goes_with_its_process(stored) else from_caller(stored, trusted=trusted)
            return from_stored(stored, trusted=trusted)
        except AsynctrackError as error:
            if not lives_in_caller(stored):  # what lives there is delivered there, or does not concern us
                _log.info("%s: %s", name, error)
            is_callers = self._from_callers.get(name) == stored and not lives_in_caller(stored)
            return Unbuilt(settings=stored) if is_callers else None

    async def _keep_manifest(self) -> None:
        assert self._manifest is not None
        changed = self._saved_at == 0.0
        for batch in self._reader:
            for frame in batch.frames(skip_records=True):
                self._manifest.apply(frame)
                changed = True
            self._manifest.position = self._reader.position
            await self._pace()
        self._ended = self._manifest.status != "running" and self.journal.status is not None
        if changed or not self._saved:
            self._save()

    def _save(self) -> None:
        """Save the manifest; where it cannot be written it is tried again: the deliveries may still get on."""
        assert self._manifest is not None
        self._saved_at = time.monotonic()
        try:
            if self.journal.gone():
                raise _gone(self.journal)
            manifests.save(Path(self.journal.path), self._manifest)
            self._saved = True
        except OSError as error:
            self._saved = False
            if self._throttle.admit(manifests.FILE_NAME):
                _log.warning("%s cannot be written: %s; trying again", manifests.FILE_NAME, error)

    async def _wait(self, seconds: float) -> None:
        """Wait for the journal to grow."""
        if self._stopping:
            return
        waiter = anyio.Event()
        self._waiters.append(waiter)
        with anyio.move_on_after(seconds):
            await waiter.wait()
        if waiter in self._waiters:  # the time was up first
            self._waiters.remove(waiter)

    async def _pace(self) -> None:
        """Under pressure the drain comes first; a delivery still gets on, a batch at a time."""
        await anyio.lowlevel.checkpoint()
        deadline = time.monotonic() + LONGEST_YIELD_S
        while self._drain.pressed and time.monotonic() < deadline:
            await anyio.sleep(0.01)

    def _publish(self) -> None:
        """Tell the producers how far all deliveries are."""
        deliveries = self._deliveries
        self.journal.set_delivered(
            lambda ring: min((delivery.saved_ends.get(ring, 0) for delivery in deliveries), default=1 << 62)
        )

    def _finished(self) -> bool:
        return self._ended and self._saved and all(delivery.done for delivery in self._deliveries)

    def _overdue(self) -> bool:
        """Whether the callers ended so long ago that what is behind is left to `asynctrack sync`."""
        if not self._ended:
            self._left_at = None
            return False
        if self._drain.leaving or self.journal.asked_for():
            return True
        if self._policy.patient:
            return False
        self._left_at = self._left_at or time.monotonic()
        limit = self._manifest.limits.get("after_exit_max_s", AFTER_EXIT_MAX_S) if self._manifest else 0.0
        return time.monotonic() - self._left_at > limit


def _gone(journal: RunJournal) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, "the run's directory has been removed or moved", journal.path)
