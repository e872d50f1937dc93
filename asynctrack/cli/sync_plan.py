"""Sync plan: finds what is to be done for a run that no process works on, and what only a person can do. Only reads. Runs in the command line."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from asynctrack._system import trust
from asynctrack.backends.base import Backend
from asynctrack.backends.registry import from_caller, from_stored, goes_with_its_process
from asynctrack.backends.stored_settings import lives_in_caller
from asynctrack.client.run_state import other_workers
from asynctrack.delivery.batcher import has_more, lacks
from asynctrack.errors import AsynctrackError
from asynctrack.journal import manifest as manifests
from asynctrack.journal.cursor import load_cursor
from asynctrack.journal.manifest import Manifest, has_begun
from asynctrack.reading.reader import RunReader
from asynctrack.worker.policy import CALLERS_ONLY, Policy


class SyncPlan(NamedTuple):
    """The work that a run needs.

    Attributes:
        todo: True if something can be done from here.
        left_out: backends that do not have everything and cannot be delivered to from here, and why.
    """

    todo: bool
    left_out: dict[str, str]


def orphaned(under: Path | None = None) -> list[Path]:
    """Return runs whose dead processes and workers left queues, perhaps before anything was journaled; `under` a directory, or anywhere."""
    dead = [worker for worker in other_workers() if worker.pid is None and not worker.callers]
    found = list(dict.fromkeys(Path(os.path.realpath(run)) for worker in dead for run in worker.runs))
    return [run for run in found if under is None or run.is_relative_to(os.path.realpath(under))]


def plan_sync(run: Path, policy: Policy = CALLERS_ONLY, orphans: Collection[Path] | None = None) -> SyncPlan:
    """Plan what is to be done for a run that no process works on: its queues, its end, its backends.

    Args:
        run: its directory.
        policy: what may be done for it.
        orphans: the result of `orphaned`, where that is recent enough.

    Raises:
        NotARun: neither a directory nor a queue of such a run exists.
        AsynctrackError: what is there cannot be read.
    """
    left = Path(os.path.realpath(run)) in (orphaned(run) if orphans is None else orphans)
    try:
        manifest = _manifest(run)
    except AsynctrackError:
        if left:
            return SyncPlan(True, {})
        raise
    if not (left or (run / "journal").is_dir()):
        manifests.load(run)  # without run.json nobody knows which backends the run had
    if not left and not has_begun(run, manifest):
        return SyncPlan(False, {})
    found = incomplete(run, manifest, policy)
    todo = left or manifest.status == "running" or None in found.values()
    return SyncPlan(todo, {name: why for name, why in found.items() if why is not None})


def _manifest(run: Path) -> Manifest:
    """Read the manifest. The files of backends do not count: they do not show which backends the run had, nor that they have everything."""
    return RunReader(run).manifest() if (run / "journal").is_dir() else manifests.load(run)


def has_all(run: Path, name: str) -> bool:
    """Return True if a backend has the run's end, and the journal has not grown since: a finished run may have been resumed."""
    cursor = load_cursor(run, name)
    return cursor.closed and not has_more(run, cursor, Backend())


def incomplete(run: Path, manifest: Manifest, policy: Policy = CALLERS_ONLY) -> dict[str, str | None]:
    """Return the run's backends that do not have everything, each with the reason why it cannot be delivered to from here; None where it can."""
    found = {
        name: _why_not(manifest, name, stored, policy)
        for name, stored in manifest.backends.items()
        if not goes_with_its_process(stored) and not has_all(run, name)
    }
    return {name: why for name, why in found.items() if why is None or not _was_given_all(run, name, manifest)}


def _was_given_all(run: Path, name: str, manifest: Manifest) -> bool:
    """Return True if a backend in a caller has all that its process could give it. Only the run's end is missing, and no other process can tell it that."""
    return lives_in_caller(manifest.backends[name]) and not lacks(run, load_cursor(run, name))


def _why_not(manifest: Manifest, name: str, stored: dict[str, Any], policy: Policy) -> str | None:
    build = from_caller if lives_in_caller(stored) else from_stored
    try:
        build(stored, trusted=policy.trust or trust.is_sealed(manifest.id, name, stored))
    except AsynctrackError as error:
        elsewhere = isinstance(error.__cause__, ModuleNotFoundError)
        return f"{error}; if its module is a file, sync with PYTHONPATH=FOLDER" if elsewhere else str(error)
    return None
