"""Deliveries: gives merged runs to backends while they grow, in the processes that a worker has for that. Runs in a collector's loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Final

from asynctrack._system import trust
from asynctrack.backends.base import Backend, kind_of
from asynctrack.backends.registry import execution_of, from_stored, name_backends, stored
from asynctrack.errors import AsynctrackError, InvalidSettings
from asynctrack.journal import manifest as manifests
from asynctrack.journal.cursor import load_cursor
from asynctrack.journal.manifest import Manifest
from asynctrack.merging.host_places import FILE_NAME
from asynctrack.worker.delegated_delivery import DelegatedDelivery
from asynctrack.worker.delivery_supervisor import Supervisor

# Between two looks at a run that waits for something.
_POLL_S: Final = 0.25
# For how long after a run's end a backend that fails is tried again; then it is left to `asynctrack sync`. As a worker does by default.
_AFTER_END_S: Final = 300.0

# Of runs that had ended before, so many are gone on with at once. Arbitrary.
_MOST_RESUMED: Final = 32
# For how long after a run's end its cursors are looked at often. Arbitrary.
_EXPEDITE_S: Final = 5.0

_log = logging.getLogger("asynctrack.collector")


class Deliveries:
    """Delivers merged runs.

    Args:
        backends: to which, by their names.
        host: the directory of this process's handshake, see `worker.delivery_supervisor`.
    """

    def __init__(self, backends: dict[str, Backend], host: str) -> None:
        self._backends = backends
        self._supervisor = Supervisor(host)
        self._runs: dict[Path, _RunDeliveries] = {}
        self._tasks: dict[Path, asyncio.Task[None]] = {}

    async def watch(self) -> None:
        """Watch the processes, until cancelled."""
        await self._supervisor.watch()

    async def resume(self, directory: Path) -> None:
        """Go on with the runs that have ended, and of which a backend lacks something: the collector was ended meanwhile."""
        for run in await asyncio.to_thread(lambda: list(_behind(directory, self._backends))):
            while len(self._runs) >= _MOST_RESUMED:
                await asyncio.sleep(_POLL_S)
            if run not in self._runs:
                self.note(run, has_ended=True)

    def note(self, run: Path, *, has_ended: bool) -> None:
        """Take note that a run is there, and whether it has ended."""
        known = self._runs.get(run)
        if known is None:
            known = self._runs[run] = _RunDeliveries(run, self._backends, self._supervisor)
            self._tasks[run] = asyncio.create_task(self._deliver(known))
        known.note(has_ended=has_ended)

    async def stop(self) -> None:
        """Stop; what is behind is delivered when the collector is started again, or by `asynctrack sync`."""
        await self.leave(lambda _: True)

    async def leave(self, mine: Callable[[str], bool]) -> None:
        """Stop with some runs, which another collector delivers from now on.

        Args:
            mine: says by its id whether a run is one of them.
        """
        tasks = [task for run, task in self._tasks.items() if mine(run.name)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _deliver(self, run: _RunDeliveries) -> None:
        try:
            noted = -1
            while noted != run.noted:  # it has ended, and may have gone on meanwhile
                noted = run.noted
                await run.deliver()
        except Exception:  # of one run: the others go on
            _log.exception("the deliveries of %s have failed; asynctrack sync goes on with them", run.path)
        finally:
            del self._runs[run.path], self._tasks[run.path]


class _RunDeliveries:
    """Delivers one run.

    Attributes:
        noted: how often something was noted of it.
    """

    def __init__(self, path: Path, backends: dict[str, Backend], supervisor: Supervisor) -> None:
        self.path = path
        self._backends = backends
        self._supervisor = supervisor
        self.noted = 0
        self._ended_at: float | None = None
        self._deliveries: list[DelegatedDelivery] = []

    def note(self, *, has_ended: bool) -> None:
        """Take note whether it has ended."""
        self.noted += 1
        self._ended_at = (self._ended_at or time.monotonic()) if has_ended else None

    async def deliver(self) -> None:
        """Deliver to all backends until they have the run's end, or long after it."""
        while (found := await asyncio.to_thread(self._manifest)) is None:
            if self._is_over():
                return
            await asyncio.sleep(_POLL_S)
        self._deliveries = [self._delivery(found, kind, backend) for kind, backend in self._backends.items()]
        tasks = [asyncio.create_task(self._drive(delivery)) for delivery in self._deliveries]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for behind in (delivery.name for delivery in self._deliveries if not delivery.done):
            _log.warning("%s of %s is behind: asynctrack sync goes on with it", behind, self.path)

    async def _drive(self, delivery: DelegatedDelivery) -> None:
        """Deliver to one backend, again where the run goes on after its end."""
        while not self._is_over():
            if delivery.done and not delivery.reopen():
                if self._has_all():
                    return
                await asyncio.sleep(_POLL_S)
                continue
            driving = asyncio.create_task(delivery.drive(_sleep, self._is_awaited))
            try:
                while not driving.done() and not self._is_over():
                    await asyncio.wait([driving], timeout=_POLL_S)
                if driving.done():
                    driving.result()
            finally:
                driving.cancel()
                await asyncio.gather(driving, return_exceptions=True)

    def _has_all(self) -> bool:
        return self._ended_at is not None and all(delivery.done for delivery in self._deliveries)

    def _is_awaited(self) -> bool:
        return self._ended_at is not None and time.monotonic() - self._ended_at < _EXPEDITE_S

    def _is_over(self) -> bool:
        return self._ended_at is not None and time.monotonic() - self._ended_at > _AFTER_END_S

    def _delivery(self, manifest: Manifest, name: str, backend: Backend) -> DelegatedDelivery:
        """Make a delivery, with the settings of the run's backend of this name where this user himself has made them."""
        settings, given = stored(backend, manifest.id, name), manifest.backends.get(name, {})
        if given.get("kind") == settings["kind"] and trust.is_sealed(manifest.id, name, given):
            with contextlib.suppress(AsynctrackError):
                backend, settings = from_stored(given), given
        return DelegatedDelivery(self.path, name, backend, settings, self._supervisor.of(settings["kind"]))

    def _manifest(self) -> Manifest | None:
        with contextlib.suppress(AsynctrackError, OSError):
            return manifests.load(self.path)
        return None


def chosen_backends(names: str) -> dict[str, Backend]:
    """Build the backends that `--backends` names, by their names.

    Raises:
        InvalidSettings: one of them cannot be used.
    """
    found = name_backends([name.strip() for name in names.split(",") if name.strip()])
    problems = []
    for name, backend in found.items():
        if execution_of(backend) == "caller" or kind_of(backend) == "console":
            problems.append(f"--backends {name}: it shows records where they are logged, and not in a collector")
        problems += [f"--backends {name}: {lacking}" for lacking in backend.lacking()]
    if problems:
        raise InvalidSettings(problems)
    return {name: backend.prepare() for name, backend in found.items()}


def _behind(directory: Path, names: Collection[str]) -> Iterator[Path]:
    """Yield the merged runs that have ended, and have backends of these names which lack something."""
    for path in sorted(directory.glob(f"*/*/{FILE_NAME}")):
        with contextlib.suppress(AsynctrackError, OSError):
            found = manifests.load(path.parent)
            named = [name for name in names if name in found.backends]
            if found.status != "running" and not all(load_cursor(path.parent, name).closed for name in named):
                yield path.parent


async def _sleep(seconds: float) -> None:
    await asyncio.sleep(seconds)
