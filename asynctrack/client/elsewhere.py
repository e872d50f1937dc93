"""Elsewhere: tells of a run that it is open where no queue of this process can come. Runs in the caller.

Who has a run open leaves beside its lock in which shared memory it is (`queue/reach.py`), so nobody has to wait for a queue that will not appear.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from asynctrack.carriers.parts import split_name
from asynctrack.client import run_lock
from asynctrack.client.worker_registry import said_by_worker
from asynctrack.errors import RunElsewhere
from asynctrack.queue.reach import machine_out_of_reach
from asynctrack.queue.shm_paths import shared_roots

# Who takes a lock writes its line a moment later, and what is there until then is another's. Arbitrary: that takes microseconds.
_SETTLES_S: Final = 0.02
# A worker that nobody logs to any more lets go of the run in half a second, unless it has something to deliver.
_WORKER_LEAVES_S: Final = 2.0


def machine_of(run: Path, *, asks_worker: bool = True) -> str | None:
    """Return the machine that has a run open out of this process's reach: empty for another container of this one; None where nobody has it so.

    Args:
        run: its directory.
        asks_worker: whether a worker counts that has the run, where who has opened it has ended.
    """
    line = _line(run, asks_worker)
    if line is None or machine_out_of_reach(line) is None:
        return None
    time.sleep(_SETTLES_S)
    return machine_out_of_reach(line) if _line(run, asks_worker) == line else None


def check(run_id: str, run: Path, waited_s: float) -> None:
    """Refuse to wait for a run that is open elsewhere.

    Args:
        run_id: the id of the run.
        run: its directory.
        waited_s: how long it was waited for, in seconds.

    Raises:
        RunElsewhere: it is.
    """
    if (host := machine_of(run, asks_worker=waited_s >= _WORKER_LEAVES_S)) is not None:
        named = split_name(run.name)
        raise RunElsewhere(run_id, run, list(shared_roots()), host, None if named is None else named[1])


def _line(run: Path, asks_worker: bool) -> str | None:
    """Return what another process says that has the run open, or a worker that has it; None where neither is there, or says anything."""
    try:
        return run_lock.said_by_holder(run) or (said_by_worker(run) if asks_worker else None)
    except OSError:
        return None
