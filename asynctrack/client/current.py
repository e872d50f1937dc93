"""Current: the current run and its backends, for code that was not given them. Runs in the caller."""

from __future__ import annotations

from typing import TypeVar

from asynctrack._system.suggestions import suggests
from asynctrack.backends.base import Backend
from asynctrack.client.open_runs import open_runs
from asynctrack.client.run import Run
from asynctrack.errors import InvalidSettings, NoCurrentRun, NoSuchBackend

B = TypeVar("B", bound=Backend)


def current() -> Run | None:
    """Return the run that was opened last and is still open, in this task or thread if there is one, else in this process.

    Returns:
        The run; None if no run is open.
    """
    run: Run | None = open_runs.current()
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
