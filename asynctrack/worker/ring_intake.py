"""Ring intake: takes the rings of a host directory in, and opens the runs that they feed. Runs in the worker. Standard library only."""

from __future__ import annotations

import contextlib
import os
import time

from asynctrack.errors import AsynctrackError
from asynctrack.queue.layout import DONE, HEARTBEAT, LAST_ERRNO, NO_ANSWER, WORKER_PID
from asynctrack.queue.ring import Ring
from asynctrack.queue.shm_paths import ring_paths
from asynctrack.worker.drain_rules import Failure, after_failed_open
from asynctrack.worker.drained_runs import DrainedRuns
from asynctrack.worker.log_writer import warn
from asynctrack.worker.run_journal import RunJournal

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    from asynctrack.worker.drain_rules import Missing


class RingIntake:
    """Finds rings, and the runs without rings that somebody asks for.

    Attributes:
        host: the directory of the rings.

    Args:
        host: the same.
        runs: where the runs go that are opened.
    """

    def __init__(self, host: str, runs: DrainedRuns) -> None:
        self.host = host
        self._runs = runs
        self._asked: list[str] = []
        self._kept: set[str] = set()
        self._failing: dict[str, float] = {}

    def take_on(self, run: str) -> None:
        """Ask for a run that has no ring any more, once no other worker has it. From any thread."""
        self._asked.append(run)

    def waits_for(self, run: str) -> bool:
        """Return whether a run that was asked for is not open yet."""
        return run in self._asked

    def serves_none(self) -> bool:
        """Return whether no ring is left but those of ended callers whose disks are not there: the next worker tries them again."""
        return all(os.path.basename(path) in self._kept for path in ring_paths(self.host))

    def move_to(self, host: str) -> None:
        """Take note that the host's directory has a new name."""
        for ring in self._runs.rings():
            ring.path = ring.path.replace(self.host, host, 1)
        self.host = host

    def scan(self, *, leaving: bool) -> None:
        """Take in what is new.

        Args:
            leaving: whether the worker has been asked to end.
        """
        taken = {ring.path for ring in self._runs.rings()}
        for path in ring_paths(self.host):
            if path not in taken:
                self._adopt(path, leaving)
        for run in list(self._asked):
            if self._runs.relay.may_visit(run, None):
                self._runs.relay.visit(run, None, self._take_asked, run)

    def _adopt(self, path: str, leaving: bool) -> None:
        try:
            ring = self._runs.own[path]
        except KeyError:
            ring = self._attach(path)
        if ring is None:  # the ring cannot be opened, or this process is still making it
            return
        if ring.is_blank():  # no run has begun, so there is nothing to journal
            self._leave_blank(path, ring)
            return
        run = ring.meta["run"]
        if self._runs.relay.may_visit(run, None):
            self._runs.relay.visit(run, None, self._take_in, path, ring, leaving)
            return
        heartbeat(ring, NO_ANSWER)
        self._close(path, ring)

    def _attach(self, path: str) -> Ring | None:
        try:
            return Ring.attach(path)
        except (OSError, ValueError) as error:
            self._runs.warn(path, f"{path} is not taken: {error}")
            if isinstance(error, ValueError | PermissionError):  # another try would not help
                self._kept.add(os.path.basename(path))
            return None

    def _leave_blank(self, path: str, ring: Ring) -> None:
        """Leave a queue in which nothing is said to its producer; it goes where that is dead.

        The start frame follows the queue's making, and a kill between them must not make a journal that does not say whose it is.
        """
        if path not in self._runs.own:
            if self._runs.has_ended(ring):
                ring.unlink()
            ring.close()

    def _take_in(self, path: str, ring: Ring, leaving: bool) -> None:
        """Open a ring's run, where need be, and have the ring's bytes moved from here on."""
        try:
            run = self._run_of(ring)
        except ImportError:
            run = None  # what rewinds cursors after a power cut comes with the deliveries: the next scan has it
        except (OSError, AsynctrackError) as error:
            run = None
            self._runs.failures[ring.meta.get("run", path)] = Failure(error)
            self._runs.warn(path, f"the run {ring.meta.get('run')} cannot be written: {error}")
            if self._runs.has_ended(ring):
                self._leave_unopened(ring, error, leaving)
        # A thread that a disk has held up may have taken it in since this one looked.
        if run is None or any(taken.id == ring.id for taken in run.rings):
            self._close(path, ring)
            return
        run.add(ring)
        heartbeat(ring)  # first: a worker that has the ring and gives no sign of life is killed
        ring.words[WORKER_PID] = os.getpid()

    def _close(self, path: str, ring: Ring) -> None:
        if path not in self._runs.own:
            ring.close()

    def _leave_unopened(self, ring: Ring, error: Exception, leaving: bool) -> None:
        """See what becomes of the ring of an ended caller whose run cannot be opened."""
        run, name, missing, failing_s = ring.meta["run"], os.path.basename(ring.path), None, 0.0
        if isinstance(error, FileNotFoundError):
            missing = _find_missing(run, ring.meta.get("disk"))
        else:
            now = time.monotonic()
            failing_s = now - self._failing.setdefault(name, now)
        step = after_failed_open(missing, failing_s, leaving=leaving)
        if step == "keep":
            self._kept.add(name)
        elif step == "give up":
            warn(f"{run} has been removed or moved: {ring.used()} bytes that were logged to it are not journaled")
            ring.words[DONE] = 1
            ring.unlink()

    def _run_of(self, ring: Ring) -> RunJournal | None:
        """Find the journal that a ring belongs to, opened where need be; None while another worker has it."""
        path = ring.meta["run"]
        run = self._runs.by_path.get(path)
        if run is not None and run.gone():  # and another has been made where it was
            self._runs.abandon(run, list(run.live))
            self._runs.let_go(run, True)
            run = None
        if run is None:
            run = RunJournal(path)
            if not run.open(self.host):
                return None
            self._runs.add(run)
        return run

    def _take_asked(self, path: str) -> None:
        if self._open_asked(path):
            self._asked.remove(path)

    def _open_asked(self, path: str) -> bool:
        """Open a run that was asked for; False while another worker has it."""
        if path in self._runs.by_path:
            return True
        run = RunJournal(path)
        try:
            if not run.open(self.host):
                return False
            run.settle()
        except (OSError, AsynctrackError) as error:
            self._runs.failures[path] = Failure(error)
            self._runs.warn(path, f"the run {path} cannot be taken on: {error}")
            run.close(done=False)
            return False
        self._runs.add(run)
        self._runs.notify_growth([run])
        return True


def heartbeat(ring: Ring, trouble: int = 0) -> None:
    """Tell a ring's producer that its worker lives, and what keeps it from the journal.

    Rings of ended producers get it too: without it a `finish()` that waited 10 s for a slow delivery took the worker for hung and
    replaced it.
    """
    ring.words[HEARTBEAT] = time.monotonic_ns()
    if trouble:
        ring.words[LAST_ERRNO] = trouble


def _find_missing(run: str, disk: str | None) -> Missing:
    """Find what is not there of a run: it was removed; or, if more is missing, its disk may come back.

    Args:
        run: its directory.
        disk: the device that had it.
    """
    if os.path.isdir(run):
        return "nothing"
    return "run" if os.path.isdir(os.path.dirname(run)) or _disk_above(run) == disk else "disk"


def _disk_above(path: str) -> str:
    """Find the device that has what is left of the way to a path."""
    while path != os.path.dirname(path):
        path = os.path.dirname(path)
        with contextlib.suppress(OSError):
            return str(os.stat(path).st_dev)
    return ""
