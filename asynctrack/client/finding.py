"""Finding: which open run a process is to attach to: by its path or id, or by the processes from which it descends. Runs in the caller.

Nothing is written into the environment for it: to set a variable is unsafe beside threads of C, and a variable reaches processes on other machines.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final, NamedTuple

from asynctrack._system import messages
from asynctrack._system.paths import expanded
from asynctrack._system.printable import printable
from asynctrack.client import elsewhere, run_lock
from asynctrack.client.ancestry import ancestors
from asynctrack.client.live_runs import LiveQueue, best_of, live_queues
from asynctrack.client.worker_registry import worker_of
from asynctrack.errors import (
    ManifestUnreadable,
    NoRunToAttach,
    NotARun,
    RunElsewhere,
    RunHasEnded,
    RunOfAnotherUser,
    SeveralOpenRuns,
)
from asynctrack.journal import manifest as manifests
from asynctrack.queue.shm_paths import shared_roots

# Read, and never written.
VARIABLE: Final = "ASYNCTRACK_RUN"
# Between two looks for a run that is about to be open. Arbitrary: a look takes a millisecond.
_POLL_S: Final = 0.02
# How long a run that says that it runs, and that no process has, is looked at again: its process may be about to take its lock. Arbitrary.
_LOST_AFTER_S: Final = 0.5


class Wanted:
    """The run that is meant by a path or an id.

    Args:
        text: a path, an id, or `project/id`.
        named_by: the variable of the environment that has it, if one has.
    """

    def __init__(self, text: str | os.PathLike[str], named_by: str = "") -> None:
        self.text = os.fspath(text)
        self.named_by = named_by
        # Not `Path.exists`: it raises where a name is too long for one.
        found = isinstance(text, str) and os.path.exists(expanded(text) / manifests.FILE_NAME)
        self.is_id: bool = isinstance(text, str) and os.sep not in text and not found
        self.path = Path(os.path.realpath(expanded(text)))

    def say_what_is_missing(self) -> None:
        """Say at once if not even the directory is there in which the run's would be: a path with an error in it, or a run that is the first of its project."""
        if self.is_id or os.path.isdir(parent := os.path.dirname(self.path)):
            return
        messages.show(
            f"asynctrack: waits for a run at {printable(str(self.path))}: there is no directory {printable(parent)} yet{self.hint}"
        )

    @property
    def hint(self) -> str:
        """Return the end of a message about the run: what has named it."""
        return f"; {self.named_by} names it" if self.named_by else ""

    def is_meant(self, run: str) -> bool:
        """Tell whether the run in this directory is meant."""
        if self.is_id:
            name = os.path.basename(run)
            return self.text in (name, name.rpartition("@")[0])  # or this host's part of the run
        return run == str(self.path) or os.path.realpath(run) == str(self.path) or run.endswith(f"{os.sep}{self.text}")


class FoundRun(NamedTuple):
    """A run that was found.

    Attributes:
        queue: one of its queues, beside which another is to be made.
        of_ancestor: the queue that the nearest of the processes has from which this one descends; None where none of them has the run.
    """

    queue: LiveQueue
    of_ancestor: LiveQueue | None


def find(wanted: Wanted, timeout_s: float, began: float) -> FoundRun:
    """Find a run, as soon as it is open.

    Args:
        wanted: the run.
        timeout_s: how long to wait, in seconds.
        began: since when; monotonic seconds.

    Raises:
        NoRunToAttach, NotARun: there was none in time.
        SeveralOpenRuns: there are several of this id.
        RunHasEnded: it has ended.
        RunElsewhere: its queues are out of reach.
        RunOfAnotherUser: it is another user's.
    """
    is_said = False
    while True:
        queues = list(live_queues(wanted.is_meant))
        if runs := sorted({queue.run for queue in queues}):
            if len(runs) > 1:
                raise SeveralOpenRuns(f"this user, by the id {wanted.text!r},", runs)
            of_process = {queue.caller: queue for queue in queues}
            return FoundRun(best_of(queues), next((of_process[pid] for pid in ancestors() if pid in of_process), None))
        waited_s = time.monotonic() - began
        check(wanted, waited_s, is_over=waited_s >= timeout_s, timeout_s=timeout_s)
        if not is_said:
            is_said = True
            wanted.say_what_is_missing()
        time.sleep(_POLL_S)


def find_of_ancestors() -> FoundRun:
    """Find the run that the nearest ancestor with an open run has.

    Raises:
        NoRunToAttach: no ancestor has one.
        SeveralOpenRuns: it has several.
    """
    of_process: dict[int, list[LiveQueue]] = {}
    for queue in live_queues():
        of_process.setdefault(queue.caller, []).append(queue)
    for pid in ancestors() if of_process else ():
        if queues := of_process.get(pid):
            if len(runs := sorted({queue.run for queue in queues})) > 1:
                raise SeveralOpenRuns(f"process {pid}, from which this one descends,", runs)
            return FoundRun(best_of(queues), queues[0])
    raise NoRunToAttach(None)


def check(wanted: Wanted, waited_s: float, *, is_over: bool, timeout_s: float) -> None:
    """Raise where there is no use in waiting on for a run without a queue.

    Args:
        wanted: the run.
        waited_s: how long it was waited for, in seconds.
        is_over: whether that was long enough.
        timeout_s: how long was to be waited at most.

    Raises:
        AsynctrackError: see `find`.
    """
    if wanted.is_id:
        if is_over:
            raise NoRunToAttach(wanted.text, timeout_s, wanted.named_by)
        return
    _check_user(wanted.path)
    try:
        found = manifests.load(wanted.path)
    except ManifestUnreadable:
        raise
    except NotARun as missing:
        if is_over:
            raise NotARun(wanted.path, wanted.hint) from missing
        return
    except OSError as error:
        raise NotARun(wanted.path, f" ({os.strerror(error.errno or 0)}){wanted.hint}") from error
    if found.status != "running":
        raise RunHasEnded(found.id, wanted.path, found.status)
    elsewhere.check(found.id, wanted.path, waited_s)
    host = str(found.environment.get("host") or "")
    is_elsewhere = host not in ("", os.uname().nodename)
    if not _is_held(wanted.path) and not is_elsewhere and waited_s >= _LOST_AFTER_S:
        raise RunHasEnded(found.id, wanted.path, "lost")
    if is_over:
        raise RunElsewhere(found.id, wanted.path, list(shared_roots()), host if is_elsewhere else "")


def _check_user(path: Path) -> None:
    try:
        owner = os.stat(path).st_uid
    except OSError:  # there is none
        return
    if owner != os.geteuid():
        raise RunOfAnotherUser(path, owner)


def _is_held(path: Path) -> bool:
    """Tell whether a process has the run open, or a worker."""
    try:
        return run_lock.is_held(path) or worker_of(path)
    except OSError:
        return True
