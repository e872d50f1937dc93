"""Job id: the id of a run that all processes of a job have in common, as their environment says it. Runs in the caller."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from asynctrack.errors import InvalidSettings
from asynctrack.settings import check_name, fitting

# Read, and never written.
VARIABLE: Final = "ASYNCTRACK_RUN_ID"
# What torchrun says where it was given no id.
_NO_ID: Final = "none"


def given_id(run_id: str | None) -> str | None:
    """Return the id of a run as `init` was given it, or else the environment; None where neither says one.

    Raises:
        InvalidRunId: it cannot be the name of a directory.
    """
    if run_id is not None:
        return check_name("id", run_id)
    named = os.environ.get(VARIABLE, "")
    return check_name(f"{VARIABLE} in the environment", named) if named else None


def shared_id(run_id: str | None) -> str:
    """Return the id of a run that several processes are to open: the one that was given, else that of their job.

    Raises:
        InvalidRunId: it cannot be the name of a directory.
        InvalidSettings: there is none.
    """
    found = given_id(run_id) or job_id()
    if found is None:
        raise InvalidSettings(
            [
                f"join=True, or collect=, needs an id that all processes of the run have in common: give id=, or set {VARIABLE}, or start them by a scheduler that "
                "sets one of SLURM_JOB_ID, TORCHELASTIC_RUN_ID, RAY_JOB_ID, PBS_JOBID, LSB_JOBID (torchrun does with --rdzv-id, or --standalone)"
            ]
        )
    return found


def job_id() -> str | None:
    """Return the id of the job that this process belongs to, as the name of a directory; None where nobody says one.

    A job that was started again is another, with the number of the restart behind its id.
    """
    for found, again in _jobs():
        if found and found.strip() not in ("", _NO_ID):
            return fitting(found.strip() + (f".{again}" if again not in (None, "", "0") else ""))[:128]
    return None


def _jobs() -> Iterator[tuple[str | None, str | None]]:
    """Yield what schedulers and launchers call a job, and how often it was started again; the outermost first."""
    yield os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_RESTART_COUNT")
    yield os.environ.get("TORCHELASTIC_RUN_ID"), os.environ.get("TORCHELASTIC_RESTART_COUNT")
    yield os.environ.get("RAY_JOB_ID"), None
    yield os.environ.get("PBS_JOBID"), None
    yield os.environ.get("LSB_JOBID"), None
