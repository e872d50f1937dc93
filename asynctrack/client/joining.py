"""Joining: of the processes that open one run by its id, the first opens it, and all others join. Runs in the caller.

Whoever has the run's lock (`run_lock`) opens it, if nobody has, also where it has ended since: who comes late joins all the same; and whoever finds a queue in which the run was started joins. A process that finds neither,
because another is at it, looks again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

from asynctrack._system import messages
from asynctrack._system.disk_timeout import InterruptibleCall
from asynctrack._system.printable import printable
from asynctrack._system.process_start import started_at
from asynctrack.client import elsewhere, finding, run_lock
from asynctrack.client.attaching import open_joined
from asynctrack.client.live_runs import best_of, live_queues
from asynctrack.client.open_runs import open_runs
from asynctrack.client.run import Run
from asynctrack.client.session import RunSession
from asynctrack.client.writer import Joining
from asynctrack.errors import RunExists, RunIsRunning
from asynctrack.journal.join import Join
from asynctrack.records.codec import make_plain
from asynctrack.settings import Settings

# How long a process waits for the one that opens the run. Arbitrary: to open one takes 25 ms, and a busy machine a second.
_WAIT_S: Final = 10.0
# Between two looks. Arbitrary: a look takes a millisecond.
_POLL_S: Final = 0.02


def open_or_join(place: Path, me: Joining, settings: Settings, open_run: Callable[[], Run]) -> Run:
    """Open a run, or join the process that has it open.

    Args:
        place: the run's directory.
        me: who this process is.
        settings: of this process's part.
        open_run: opens the run, if nobody has.

    Raises:
        RunElsewhere: its queues are out of reach.
        AsynctrackError: see `init`.
    """
    path = InterruptibleCall(lambda: Path(os.path.realpath(place)), place).wait()
    began = time.monotonic()
    while True:
        here: Run | None = open_runs.open_here(lambda run: run.is_open and run.path == path)
        found = here or _join(path, me, settings) or _open(path, me.join, open_run)
        if found is not None:
            return found
        elsewhere.check(path.name, path, time.monotonic() - began)
        if time.monotonic() - began > _WAIT_S:
            finding.check(finding.Wanted(path), _WAIT_S, is_over=True, timeout_s=_WAIT_S)
        time.sleep(_POLL_S)


def _join(path: Path, me: Joining, settings: Settings) -> Run | None:
    """Join the run; None where nobody has started it yet."""
    queues = list(live_queues(lambda run: run == str(path)))
    if not queues:
        return None
    try:
        run = open_joined(best_of(queues), me.join, settings, owns=me.owns)
    except FileNotFoundError:  # its worker has left since: the run has ended
        return None
    _record_config(run, me.join)
    return run


def _open(path: Path, join: Join, open_run: Callable[[], Run]) -> Run | None:
    """Open the run, also where it has ended; None where another process is about to, or about to end it."""
    if run_lock.holder(path) is not None:
        return None
    try:
        run = open_run()
    except (RunIsRunning, RunExists):  # another was first
        return None
    session = run._session
    if isinstance(session, RunSession) and not session.publisher.queue.is_root:
        if _had_ended_before(run):
            messages.show(f"asynctrack: run {printable(run.id)} had ended; {join.writer} has joined it all the same")
        _record_config(run, join)
    return run


def _had_ended_before(run: Run) -> bool:
    """Tell whether a run had ended before this process was started; ranks that are started together are no surprise, however soon one is done."""
    ended_at = run._manifest.ended_at
    return ended_at is None or datetime.fromisoformat(ended_at).timestamp() < started_at()


def _record_config(run: Run, join: Join) -> None:
    """Record what this process was given as config and the run does not have; say what it has otherwise."""
    given = make_plain(join.config)
    run.config.update({name: value for name, value in given.items() if name not in run.config})
    other = [name for name, value in given.items() if run.config[name] != value]
    if other:
        told = ", ".join(f"{name}={run.config[name]!r:.40} (here: {given[name]!r:.40})" for name in other[:5])
        more = f" and {len(other) - 5} more" if len(other) > 5 else ""
        messages.warn_now(
            printable(
                f"asynctrack: {join.writer} was given other values as config than run {run.id} has, which keeps its own: {told}{more}"
            )
        )
