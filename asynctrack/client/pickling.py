"""Pickling: a run travels to another process as its path, and that process attaches to it. Runs in the caller."""

from __future__ import annotations

import copyreg
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asynctrack.client.disabled_run import AbsentRun, DisabledRun
from asynctrack.client.run import Run
from asynctrack.journal.manifest import Manifest


def register() -> None:
    """Teach pickle, cloudpickle and all that builds on them how a run travels: `copyreg` has a table of types for all of them."""
    copyreg.pickle(Run, _reduce)
    copyreg.pickle(DisabledRun, _reduce_disabled)
    copyreg.pickle(AbsentRun, _reduce_disabled)


def arrive(path: str) -> Run:
    """Return the run where its pickle is read: the one that this process has open, or a run that it attaches to.

    Raises:
        RunHasEnded: the run has ended.
        AsynctrackError: see `attach`.
    """
    from asynctrack.client.attaching import attach  # rarely needed

    return attach(path)


def arrive_disabled(run_id: str, project: str, path: str, created_at: str) -> DisabledRun:
    """Return a run that records nothing, where the pickle of such a one is read."""
    manifest = Manifest(id=run_id, name=run_id, project=project, created_at=created_at)
    return DisabledRun(manifest, Path(path), {})


def _reduce(run: Run) -> tuple[Callable[..., Run], tuple[Any, ...]]:
    """Return what is kept of a run: neither a key nor a record, only where it is."""
    return arrive, (os.fspath(run.path),)


def _reduce_disabled(run: DisabledRun) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    return arrive_disabled, (run.id, run.project, os.fspath(run.path), run.created_at)
