"""Entering: from a prepared run to one that this process has open. Runs in the caller.

Whichever way a process comes to a run, it ends here: it has opened or resumed the run, attached to it, or joined it, also after the run's end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from asynctrack._system.disk_timeout import InterruptibleCall
from asynctrack.backends.base import Backend
from asynctrack.client.handshake import hold_streams
from asynctrack.client.open_runs import open_runs
from asynctrack.client.preparation import PreparedRun, take_back
from asynctrack.client.run import Run
from asynctrack.client.session import RunSession
from asynctrack.queue.layout import JOIN


def enter(
    prepare: Callable[[], PreparedRun],
    place: Path | str,
    backends: Mapping[str, Backend],
    welcome: Callable[[Run, PreparedRun], object] = lambda run, ready: None,
) -> Run:
    """Prepare a run and open it here, or leave nothing of that: Ctrl-C may come at any moment.

    Args:
        prepare: prepares the run. It runs on a thread of ours.
        place: the run's directory.
        backends: of the run, where this process begins a session of it.
        welcome: called with the open run.

    Raises:
        AsynctrackError: see `init` and `attach`.
    """
    hold_streams()
    call = InterruptibleCall(prepare, place, take_back)
    session: RunSession | None = None
    run: Run | None = None
    try:
        ready = call.wait()
        joins = ready.kind == JOIN
        session = RunSession(
            ready.path, ready.settings, {} if joins else dict(backends), publisher=ready.publisher, run_lock=ready.run_lock,
            joined=ready.manifest.backends if joins else None,
        )  # fmt: skip
        session.open(ready.first, ready.kind)
        run = Run(ready.manifest, ready.path, session, resumed=ready.resumed)
        welcome(run, ready)
        open_runs.enter(run)
        return run
    except BaseException:
        if session is not None:
            session.give_up()
        if run is not None:
            open_runs.leave(run)
        call.drop()
        raise
