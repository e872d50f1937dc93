"""Current: the current run and its backends, for code that was not given them. Runs in the caller."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final, TypeVar

from asynctrack._system.suggestions import suggests
from asynctrack.backends.base import Backend
from asynctrack.client import following, left_runs
from asynctrack.client.open_runs import open_runs
from asynctrack.client.run import Run
from asynctrack.errors import InvalidSettings, NoCurrentRun, NoSuchBackend

if TYPE_CHECKING:
    from asynctrack.client.live_runs import QueuePlaces

B = TypeVar("B", bound=Backend)

# Between two looks for the run of an ancestor, where there was none and no queue has come or gone: a look takes some milliseconds. Arbitrary.
_LOOK_AGAIN_S: Final = 0.25

_look_at = 0.0
_found_none_in: QueuePlaces | None = None


def current() -> Run | None:
    """Return the run that was opened last and is still open, in this task or thread if there is one, else in this process.

    Returns:
        The run; None if no run is open.
    """
    run: Run | None = open_runs.current()
    if run is not None and following.followed:
        left_runs.keep(run)
    return run


def current_or_attached(call: str) -> Run:
    """Return the current run; where none is open, the run of an ancestor, to which this process attaches as a forked child does.

    Where the current run is one that an ancestor had and has left, its next one is looked for: pools are kept from one run to the next.

    Args:
        call: what needs it, for the message.

    Raises:
        NoCurrentRun: no run is open, here or in an ancestor.
        AsynctrackError: there is one, and it cannot be attached to; see `attach`.
    """
    run: Run | None = open_runs.current()
    if run is None or following.is_left(run):
        run = attached(run) or run
    if run is None:
        raise NoCurrentRun(call, attach=True, named=os.environ.get("ASYNCTRACK_RUN"))
    return run


def attached(before: Run | None = None) -> Run | None:
    """Attach to the run of an ancestor, where one has one open; looks for it where a queue has come or gone, and now and then, not at each call.

    Args:
        before: the current run, which its ancestor has left.

    Returns:
        The run; None where there is none.

    Raises:
        AsynctrackError: see `attach`.
    """
    global _look_at, _found_none_in
    if _found_none_in is not None and time.monotonic() < _look_at and not _found_none_in.have_changed():
        return None
    try:
        from asynctrack.client.attaching import attach_to_ancestors  # rarely needed
        from asynctrack.client.live_runs import QueuePlaces
    except ImportError:  # the interpreter ends, and imports nothing any more
        return None
    places = QueuePlaces()  # before the look: what comes meanwhile is a change
    run = attach_to_ancestors()
    if run is None or run is before:
        _found_none_in, _look_at = places, time.monotonic() + _LOOK_AGAIN_S
    elif run is not open_runs.current():
        open_runs.leave(run)
        open_runs.enter(run)
    if run is not None and before is not None and run is not before:
        left_runs.leave(before, run)
    return run


@suggests
def current_backend(kind: type[B]) -> B:
    """Return the current run's backend of a class.

    Use it to read what a backend keeps in this process: `current_backend(Memory).records`. For the progress of a backend see `Run.stats`.

    Args:
        kind: The class of the backend, or a base of it.

    Returns:
        The backend with the settings that it has in this run. If there are several, the first of `backends=`.

    Raises:
        InvalidSettings: `kind` is not a class.
        NoCurrentRun: No run is open.
        NoSuchBackend: The run has no backend of this class.
    """
    if not isinstance(kind, type):
        raise InvalidSettings([f"kind must be the class of a backend, such as asynctrack.Memory; got {kind!r:.80}"])
    run = current()
    if run is None:
        raise NoCurrentRun(f"current_backend({kind.__name__})")
    found = next((backend for backend in run.backends.values() if isinstance(backend, kind)), None)
    if found is None:
        raise NoSuchBackend(kind.__name__, run.id, run.backends)
    return found
