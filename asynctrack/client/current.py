"""Current: the current run and its backends, for code that was not given them. Runs in the caller."""

from __future__ import annotations

from typing import TypeVar

from asynctrack.backends.base import Backend
from asynctrack.client.open_runs import open_runs
from asynctrack.client.run import Run
from asynctrack.errors import NoCurrentRun, NoSuchBackend

B = TypeVar("B", bound=Backend)


def current() -> Run | None:
    """The open run that was opened last in this task or thread, else in this process; None when none is open."""
    run: Run | None = open_runs.current()
    return run


def current_backend(kind: type[B]) -> B:
    """The current run's backend of this class, with the settings it has there; the first where there are several.

    What lives in this process is the living thing: `current_backend(Memory).records`. How far it is, is in the run's `stats()`.

    Args:
        kind: the class, or one that it is derived from.

    Raises:
        NoCurrentRun: no run is open.
        NoSuchBackend: the run has none of this class.
    """
    run = current()
    if run is None:
        raise NoCurrentRun(f"current_backend({kind.__name__})")
    found = next((backend for backend in run.backends.values() if isinstance(backend, kind)), None)
    if found is None:
        raise NoSuchBackend(kind.__name__, run.id, run.backends)
    return found
