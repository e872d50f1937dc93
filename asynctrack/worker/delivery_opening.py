"""Delivery opening: builds a delivery for each backend of a run that belongs here. Runs in the worker."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from asynctrack._system import trust
from asynctrack._system.spawn import can_spawn
from asynctrack.backends.base import Backend
from asynctrack.backends.registry import Unbuilt, execution_of, from_caller, from_stored, goes_with_its_process
from asynctrack.backends.stored_settings import lives_in_caller
from asynctrack.delivery.driver import Delivery
from asynctrack.errors import AsynctrackError
from asynctrack.journal.layout import Position
from asynctrack.journal.manifest import Manifest, find_start
from asynctrack.journal.reader import Reader
from asynctrack.worker.delegated_delivery import DelegatedDelivery
from asynctrack.worker.delivery_supervisor import Supervisor
from asynctrack.worker.policy import Policy
from asynctrack.worker.run_journal import RunJournal

_log = logging.getLogger("asynctrack.worker")


class DeliveryOpener:
    """Opens the deliveries of runs.

    Args:
        processes: deliver what needs a process of its own.
        local: the run's backends that run here though they belong on the caller's side.
        policy: what may be done.
    """

    def __init__(self, processes: Supervisor, local: dict[str, Backend], policy: Policy) -> None:
        self._processes = processes
        self._local = local
        self._policy = policy

    def open(self, journal: RunJournal, manifest: Manifest) -> list[Delivery | DelegatedDelivery]:
        """Open a delivery for each backend of a run that can be delivered to from here."""
        run, from_callers = Path(journal.path), _callers_settings(journal)
        deliveries: list[Delivery | DelegatedDelivery] = []
        for name, stored in manifest.backends.items():
            is_callers = from_callers.get(name) == stored
            backend = self._local.get(name) or self._build(manifest, name, stored, is_callers)
            if backend is None or (backend.remote and manifest.offline and not self._policy.offline_too):
                continue
            deliveries.append(self._open(run, manifest, name, backend))
        return deliveries

    def _open(self, run: Path, manifest: Manifest, name: str, backend: Backend) -> Delivery | DelegatedDelivery:
        stored, execution = manifest.backends[name], execution_of(backend)
        if execution == "process" and can_spawn():
            process = self._processes.of(str(stored["kind"]))
            return DelegatedDelivery(run, name, backend, stored, process, force=self._policy.force)
        keep = name not in self._local or execution != "caller"
        return Delivery(run, name, backend, manifest, keep=keep, force=self._policy.force)

    def _build(self, manifest: Manifest, name: str, stored: dict[str, Any], is_callers: bool) -> Backend | None:
        """Build a backend from its settings; None where they do not concern us.

        A `run.json` can name an address, a path or a class, and a run's directory may come from anywhere. So what leads out of it is
        believed only where this run's callers have said it, or this user has sealed it.
        """
        trusted = self._policy.trust or is_callers or trust.is_sealed(manifest.id, name, stored)
        try:
            if self._policy.patient and lives_in_caller(stored):
                return None if goes_with_its_process(stored) else from_caller(stored, trusted=trusted)
            return from_stored(stored, trusted=trusted)
        except AsynctrackError as error:
            if not lives_in_caller(stored):  # what lives there is delivered there, or does not concern us
                _log.info("%s: %s", name, error)
            return Unbuilt(settings=stored) if is_callers and not lives_in_caller(stored) else None


def _callers_settings(journal: RunJournal) -> dict[str, dict[str, Any]]:
    """Read what the run's callers themselves have said of their backends, through queues that nobody else can write."""
    mine = {ring.id for ring in journal.rings}
    directory = os.path.join(journal.path, "journal")
    said: dict[str, dict[str, Any]] = {}
    headers = Reader(directory, bodies=False)
    for batch in headers:
        if batch.header.ring in mine and not batch.header.start:  # a ring begins with what its caller says
            reader = Reader(directory, Position(batch.segment, batch.offset))
            first = reader.next()
            reader.close()
            if first is not None and (start := find_start(first)) is not None:
                said.update(start.backends)
    headers.close()
    return said
