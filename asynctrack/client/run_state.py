"""Run state: who works on a run on this machine, and so what has become of it. Only looks. Runs anywhere."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from asynctrack.client import run_lock
from asynctrack.client.shutdown import is_open
from asynctrack.client.worker_registry import is_own_ring, made_directories, worker_of
from asynctrack.errors import AsynctrackError
from asynctrack.journal import manifest as manifests
from asynctrack.journal.backwards import backwards
from asynctrack.journal.frames import FrameBatch
from asynctrack.journal.layout import NOTES_RING
from asynctrack.journal.manifest import Manifest, Status, read_note
from asynctrack.reading import live_state
from asynctrack.reading.live_state import State as State
from asynctrack.worker.listing import Worker, list_workers, worker_starts


class RunActivity(NamedTuple):
    """The processes that work on a run.

    Attributes:
        callers: processes that log to it.
        worker: whether a worker has it or is about to; None where that cannot be told: the run is another user's.
        directories: host directories that hold queues of it.
        known_as: the run's directory, as its queues have it.
    """

    callers: list[int]
    worker: bool | None
    directories: list[str]
    known_as: Path

    @property
    def is_active(self) -> bool:
        return bool(self.callers or self.worker)


def other_workers() -> list[Worker]:
    """Return the workers of this user on this machine, without this process's own and its own queues at others."""
    return list_workers(but=made_directories(), is_own=is_own_ring)


def activity_of(run: Path, workers: Sequence[Worker] | None = None) -> RunActivity:
    """Find the processes that work on a run; `workers` is an earlier result of `other_workers()`, where that is recent enough."""
    path = os.path.realpath(run)
    here, known_as = is_open(Path(path)), Path(path)
    callers, served, directories = [os.getpid()] if here else [], here, []
    for worker in other_workers() if workers is None else workers:
        if queues := [queue for queue in worker.queues if os.path.realpath(queue.run) == path]:
            callers += sorted({queue.caller for queue in queues if queue.caller_lives})
            directories.append(worker.directory)
            known_as = Path(queues[0].run)
            served = served or worker.pid is not None
    return RunActivity(callers, served or _has_worker(run), directories, known_as)


def state_of(run: Path, manifest: Manifest, workers: Sequence[Worker] | None = None) -> State:
    """Return the state of a run: its status, but "lost" where that is "running" and no process is left to change it.

    "elsewhere": it runs, or was lost, on other machines or as another user; from here that cannot be told. Readers and commands go by this rule.
    """
    if manifest.status != "running":
        return manifest.status
    if workers is not None and activity_of(run, workers).is_active:
        return "running"
    now = activity_of(run)  # what was seen before may be older than the manifest
    if now.is_active or worker_starts(now.directories):  # looked for before the end: it may come to that at once
        return "running"
    ended = _ended_meanwhile(run)
    if ended is not None:
        return ended
    here = manifest.environment.get("host") in (None, os.uname().nodename) and not manifest.hosts
    if not here or now.worker is None:
        return "elsewhere"
    if now.directories or manifests.has_begun(run, manifest):
        return "lost"
    # Its caller is about to begin it, or was killed before it could.
    return "running" if run_lock.is_held(run) else "crashed"


def ended_as(run: Path) -> Status | None:
    """Return how a run ended, if that is the last note of its journal; None otherwise."""
    batch = next(backwards(run / "journal", notes=True), None)
    return None if batch is None else end_in(batch)


def end_in(batch: FrameBatch) -> Status | None:
    """Return how the run ended, if that is the last note in a batch of the worker's notes."""
    status: Status | None = None
    if batch.header.ring == NOTES_RING:
        for frame in batch.frames():
            note = read_note(frame)
            status = note["status"] if note["note"] == "run_ended" else None
    return status


def _ended_meanwhile(run: Path) -> Status | None:
    try:
        status = manifests.load(run).status
    except AsynctrackError:
        status = "running"
    return ended_as(run) if status == "running" else status


def _has_worker(run: Path) -> bool | None:
    try:
        return worker_of(run)
    except OSError:
        return None


live_state.use(state_of)
