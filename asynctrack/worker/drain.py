"""Drain: bytes from rings to journals, and nothing else. A thread of the worker.

It reads no frame but the first header of a batch, so no producer can outrun it. Imports the standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import threading
import time

from asynctrack._system.throttle import Throttle
from asynctrack.errors import AsynctrackError
from asynctrack.queue.layout import (
    DONE,
    END,
    HEAD,
    HEARTBEAT,
    LAST_ERRNO,
    NO_ANSWER,
    SLEEPING,
    SYNCED,
    TAIL,
    WANTED,
    WORKER_PID,
)
from asynctrack.queue.ring import Ring
from asynctrack.queue.shm_paths import WAKE_NAME, ring_paths
from asynctrack.worker.host_lock import HostLock
from asynctrack.worker.log_writer import warn
from asynctrack.worker.relay import Relay, Watchdog
from asynctrack.worker.run_journal import RunJournal

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

# Between two looks at which rings there are and whether their producers live.
SCAN_INTERVAL_S: Final = 0.5
# Between two tries to write a journal whose disk failed.
RETRY_INTERVAL_S: Final = 0.5
# For so long a worker tries to open the run of an ended caller; then it may leave, and the queue waits for the next or for `sync`. As `after_exit_max_s`.
GIVE_UP_S: Final = 300.0
# Between two looks, and between two syncs, where no run says otherwise.
LINGER_S: Final = 0.1
SYNC_INTERVAL_S: Final = 1.0
# Under pressure: a ring would be full in less than 50 ms, which is what a delivery may take to let go of the interpreter.
PRESSED_RINGS_PER_S: Final = 20.0
_PRESSURE_WINDOW_S: Final = 0.02
# A look that finds less than this part of a ring may be followed by sleep.
_CALM: Final = 4

# Stores reach another core in order on x86-64. Elsewhere the worker trusts only the head of its previous look.
_ORDERED_STORES: Final = os.uname().machine.lower() in ("x86_64", "amd64", "i686")


class Drain:
    """The thread that moves bytes, and those that it leaves behind where a disk hangs.

    Attributes:
        runs: those it moves bytes for, by directory.
        watchdog: looks whether it, or another that makes rounds, is held up.
        pressed: whether the deliveries should leave it the interpreter.
        leaving: whether the worker has been asked to end.
        failed: why a run could not be opened the last time that it was tried, by directory.
        unwritable: why a run's journal could not be written the last time, by directory.
        notify_growth: called after a round with the runs whose journal grew.

    Args:
        host: the directory of the calling process's rings.
        own: rings of this very process by path, for a worker that is a thread of the caller: a process must not open
            its own ring again, and cannot ask for its own lock.
        host_lock: the host's lock, of a worker that stays.
    """

    def __init__(
        self, host: str, *, own: dict[str, Ring | None] | None = None, host_lock: HostLock | None = None
    ) -> None:
        self.relay = Relay("asynctrack-drain", self._make_rounds)
        self.watchdog = Watchdog()
        self.watchdog.relays.append(self.relay)
        self.host = host
        self.runs: dict[str, RunJournal] = {}
        self.notify_growth: Callable[[list[RunJournal]], object] = lambda runs: None
        self.pressed = False
        self._filled = 0.0
        self._window_at = time.monotonic()
        self.wants_sync = threading.Event()
        self.idle_since = time.monotonic()
        self.sync_interval_s = SYNC_INTERVAL_S
        self.leaving = False
        self.failed: dict[str, Exception] = {}
        self.unwritable: dict[str, Exception] = {}
        self._linger_s = LINGER_S
        self._own = own if own is not None else {}
        self._stopping = False
        self._closing: list[tuple[RunJournal, bool, str | None]] = []
        self._parting: list[tuple[RunJournal, str | None]] = []
        self._left: list[str] = []
        self._known: set[str] = set()
        self._kept: set[str] = set()
        self._failing: dict[str, float] = {}
        self._heads: dict[int, int] = {}
        self._scan_at = 0.0
        self._throttle = Throttle()
        self._host_lock = host_lock
        self._wake_fd = _open_pipe(host)
        self._pipe = select.poll()  # `select` takes no descriptor over 1023, and a caller may have more open files
        self._pipe.register(self._wake_fd, select.POLLIN)

    def start(self) -> None:
        self.watchdog.start()
        self.relay.start()  # at last: by it the drain lives

    def is_alive(self) -> bool:
        return self.relay.is_alive()

    def join(self, timeout_s: float) -> None:
        self.relay.join(timeout_s)

    def _make_rounds(self) -> None:
        while not self._stopping:
            try:
                self._poll_once()
            except Exception as error:  # whatever it was, the next look may work: the rings keep what is in them
                warn(f"the drain failed and goes on: {error!r}", error)
                time.sleep(RETRY_INTERVAL_S)
        os.close(self._wake_fd)

    def stop(self) -> None:
        """End the thread; what is in the rings stays there."""
        self._stopping = True
        self.watchdog.stop()
        self.wake()

    def wake(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._wake_fd, b"!")

    def finish(self, run: RunJournal, *, done: bool, told: str | None = None) -> None:
        """Ask the thread to let go of a run; `told`: the status that those know to whom it was delivered."""
        self._closing.append((run, done, told))
        self.wake()

    def take_on(self, run: str) -> None:
        """Ask the thread for a run that has no ring any more, once no other worker has it."""
        self._left.append(run)
        self.wake()

    def has(self, run: str) -> bool:
        """Whether it moves bytes for a run, or waits for another worker to let go of it, or for its disk."""
        return run in self._left or run in self.runs or run in self.relay.held

    def serves_none(self) -> bool:
        """Whether no ring is left but those of ended callers whose disks are not there: the next worker tries them again."""
        return all(os.path.basename(path) in self._kept for path in ring_paths(self.host))

    def leave(self) -> None:
        """Serve until the callers have ended, and leave what is behind then to `asynctrack sync`."""
        self.leaving = True
        self.wake()

    def moved_to(self, host: str) -> None:
        """The host's directory has a new name."""
        self._known = {path.replace(self.host, host, 1) for path in self._known}
        for ring in [ring for run in list(self.runs.values()) for ring in run.rings]:
            ring.path = ring.path.replace(self.host, host, 1)
        self.host = host

    def scan_rings(self) -> None:
        """Find new rings, and those whose producers have ended."""
        self._scan_at = time.monotonic() + SCAN_INTERVAL_S
        self._keep_host()
        for path in ring_paths(self.host):
            if path not in self._known:
                self._adopt(path)
        for path in list(self._left):
            if self.relay.may_visit(path, None):
                self.relay.visit(path, None, self._take_left, path)
        for run in list(self.runs.values()):
            if self._may_visit(run):
                self._visit(run, self._check_ends)
        self._recompute_intervals()

    def _keep_host(self) -> None:
        """Make the host's directory again, where somebody has removed it under runs that go on."""
        if self._host_lock is None or not self.runs or self._host_lock.is_at(self.host):
            return
        try:
            if self._host_lock.make_again(self.host):
                pipe = _open_pipe(self.host)
                os.dup2(pipe, self._wake_fd, inheritable=False)
                os.close(pipe)
                warn(f"{self.host} was removed; it is made again")
        except OSError as error:
            self._warn(self.host, f"{self.host} was removed, and cannot be made again: {error}")

    def _recompute_intervals(self) -> None:
        """Look, and sync, as often as the most eager of the runs that are open wants."""
        asked = [ring.meta for run in list(self.runs.values()) for ring in run.live]
        self._linger_s = min((float(meta.get("linger_s", LINGER_S)) for meta in asked), default=LINGER_S)
        before = self.sync_interval_s
        intervals = (float(meta.get("sync_interval_s", SYNC_INTERVAL_S)) for meta in asked)
        self.sync_interval_s = min(intervals, default=SYNC_INTERVAL_S)
        if self.sync_interval_s < before:
            self.wants_sync.set()  # who waits for the longer one begins anew

    def _poll_once(self) -> None:
        if time.monotonic() >= self._scan_at:
            self.scan_rings()
        grown, fullest = [], 0.0
        for run in list(self.runs.values()):
            if run.writer is None or time.monotonic() < run.retry_at:
                self._heartbeat(run)
                continue
            if not self._may_visit(run):
                self._heartbeat(run, trouble=NO_ANSWER)
                continue
            moved = self._visit(run, self._poll_run)
            fullest = max(fullest, moved)
            if moved or run.wanted():
                grown.append(run)
        if grown:
            self.notify_growth(grown)
        self._update_backpressure(fullest)
        self._close_asked()
        if fullest < 1 / _CALM:
            self._sleep()

    def _poll_run(self, run: RunJournal) -> float:
        """Move what is in a run's rings; returns how full the fullest was, 0 to 1."""
        self._heartbeat(run)
        if run.writer is not None and run.writer.wants_sync:
            self.wants_sync.set()
        fullest = max([self._poll_ring(run, ring) for ring in list(run.live)], default=0.0)
        for ring in run.live:
            ring.words[LAST_ERRNO] = 0
        for ring in run.rings:  # whose caller may wait for deliveries still
            if ring.words[LAST_ERRNO] == NO_ANSWER:
                ring.words[LAST_ERRNO] = 0
        return fullest

    def _poll_ring(self, run: RunJournal, ring: Ring) -> float:
        words = ring.words
        if not ring.can_be():
            self._warn(ring.path, f"the queue of {run.path} was written over; what it still had is lost")
            run.retire(ring)
            run.end()
            self.notify_growth([run])
            return 0.0
        head = words[HEAD]
        if not _ORDERED_STORES:
            head, self._heads[ring.id] = self._heads.get(ring.id, words[TAIL]), head
        moved = run.move(ring, head)
        if words[WANTED] > words[SYNCED]:
            self.wants_sync.set()
        if words[END]:
            self._check_end(run, ring)
        return moved / ring.capacity

    def _update_backpressure(self, fullest: float) -> None:
        self._filled += fullest
        now = time.monotonic()
        if now - self._window_at >= _PRESSURE_WINDOW_S:
            self.pressed = self._filled / (now - self._window_at) > PRESSED_RINGS_PER_S
            self._filled, self._window_at = 0.0, now

    def _heartbeat(self, run: RunJournal, *, trouble: int = 0) -> None:
        for ring in list(run.rings):
            _heartbeat(ring, trouble)

    def _check_ends(self, run: RunJournal) -> float:
        run.watch()
        run.end()
        for ring in list(run.live):
            self._check_end(run, ring)
        return 0.0

    def _has_ended(self, ring: Ring) -> bool:
        """Whether nothing more will be put into a ring."""
        return bool(ring.words[END]) or not (ring.path in self._own or ring.producer_lives())

    def _abandon(self, run: RunJournal, rings: list[Ring]) -> None:
        """Give up what cannot be journaled any more, because the run's directory is gone."""
        if rings:
            left = sum(ring.used() for ring in rings)
            warn(f"{run.path} has been removed or moved: {left} bytes that were logged to it since are not journaled")
        for ring in rings:
            run.abandon(ring)
        self.notify_growth([run])

    def _check_end(self, run: RunJournal, ring: Ring) -> None:
        if not self._has_ended(ring):
            run.note_drops(ring)
            return
        run.move(ring, ring.words[HEAD])
        if not ring.words[END] and run.breathes(ring):
            return
        run.retire(ring)
        run.end()
        self.wants_sync.set()
        self.notify_growth([run])

    def _adopt(self, path: str) -> None:
        try:
            ring = self._own[path]
        except KeyError:
            ring = self._attach(path)
        if ring is None:  # it cannot be, or this process is making it
            return
        if ring.is_blank():  # no run has begun: a journal of it would be none
            self._leave_blank(path, ring)
            return
        run = ring.meta["run"]
        if self.relay.may_visit(run, None):
            self.relay.visit(run, None, self._take_in, path, ring)
            return
        _heartbeat(ring, NO_ANSWER)
        if path not in self._own:
            ring.close()

    def _leave_blank(self, path: str, ring: Ring) -> None:
        """A queue in which nothing is said: it waits for its producer, and goes where that is dead."""
        if path not in self._own:
            if self._has_ended(ring):
                ring.unlink()
            ring.close()

    def _take_in(self, path: str, ring: Ring) -> None:
        """Open a ring's run, where need be, and move the ring's bytes from here on."""
        try:
            run = self._run_of(ring)
        except ImportError:
            run = None  # what rewinds cursors after a power cut comes with the deliveries: the next scan has it
        except (OSError, AsynctrackError) as error:
            self.failed[ring.meta.get("run", path)] = error
            self._warn(path, f"the run {ring.meta.get('run')} cannot be written: {error}")
            if self._has_ended(ring):
                self._give_up(ring, error)
            run = None
        if run is None:
            if path not in self._own:
                ring.close()
            return
        self._known.add(path)
        run.add(ring)
        ring.words[WORKER_PID] = os.getpid()
        _heartbeat(ring)

    def _give_up(self, ring: Ring, error: Exception) -> None:
        """The run of an ended caller is not there: it was removed, or, if more is missing, its disk may come back; or it fails for long."""
        run, name = ring.meta["run"], os.path.basename(ring.path)
        if not isinstance(error, FileNotFoundError):
            since = self._failing.setdefault(name, time.monotonic())
            if self.leaving or time.monotonic() - since > GIVE_UP_S:
                self._kept.add(name)
        elif not os.path.isdir(run):
            if os.path.isdir(os.path.dirname(run)) or _disk_above(run) == ring.meta.get("disk"):
                warn(f"{run} has been removed or moved: {ring.used()} bytes that were logged to it are not journaled")
                ring.words[DONE] = 1
                ring.unlink()
            else:
                self._kept.add(name)

    def _take_left(self, path: str) -> None:
        if self._open_left(path):
            self._left.remove(path)

    def _open_left(self, path: str) -> bool:
        """Open a run that `take_on` asks for; False while another worker has it."""
        if path in self.runs:
            return True
        run = RunJournal(path)
        try:
            if not run.open():
                return False
            run.settle()
        except (OSError, AsynctrackError) as error:
            self.failed[path] = error
            self._warn(path, f"the run {path} cannot be taken on: {error}")
            run.close(done=False)
            return False
        self.runs[path] = run
        self.notify_growth([run])
        return True

    def _attach(self, path: str) -> Ring | None:
        try:
            return Ring.attach(path)
        except (OSError, ValueError) as error:
            self._warn(path, f"{path} is not taken: {error}")
            if isinstance(error, ValueError | PermissionError):  # another try would not help
                self._kept.add(os.path.basename(path))
            return None

    def _run_of(self, ring: Ring) -> RunJournal | None:
        """The journal a ring belongs to, opened where need be; None while another worker has it."""
        path = ring.meta["run"]
        run = self.runs.get(path)
        if run is not None and run.gone():  # and another has been made where it was
            self._abandon(run, list(run.live))
            self._let_go(run, True)
            run = None
        if run is None:
            run = RunJournal(path)
            if not run.open():
                return None
            self.runs[path] = run
        return run

    def _close_asked(self) -> None:
        for asked in list(self._closing):
            run, done, told = asked
            if not self._may_visit(run):
                continue
            self._closing.remove(asked)
            if run.live or self.runs.get(run.path) is not run:  # somebody has begun to log to it again
                continue
            if done and (run.awaits_exit() or told not in (None, run.status)):
                run.signal_done()
                self._parting.append((run, told or run.status))
            else:
                self.relay.visit(run.path, run.disk, self._let_go, run, done)
        self._part()
        if self.runs or self.relay.held:
            self.idle_since = time.monotonic()

    def _part(self) -> None:
        """Let go of runs whose callers have said all they had to, when their exit codes are known; who says otherwise is told of once more."""
        for run, status in self._parting[:]:
            if not self._may_visit(run):
                continue
            asked_for = self.leaving or self.relay.visit(run.path, run.disk, run.asked_for)
            if run.awaits_exit() and not (run.live or asked_for):
                continue
            self._parting.remove((run, status))
            if run.live or self.runs.get(run.path) is not run:
                continue
            self._visit(run, self._check_ends)
            if run.status == status:
                self.relay.visit(run.path, run.disk, self._let_go, run, True)
            else:
                self.notify_growth([run])

    def _let_go(self, run: RunJournal, done: bool) -> None:
        self.idle_since = time.monotonic()  # the last round that found the run may have been a linger ago
        del self.runs[run.path]
        run.close(done=done)
        self._known.difference_update(ring.path for ring in run.rings)
        for ring in run.rings:
            if self._own.pop(ring.path, None) is None:
                ring.close()

    def _sleep(self) -> None:
        """Wait for the linger to pass or a byte in the pipe. A ring that fills after the flag is set sends one."""
        now = time.monotonic()
        able = [run for run in list(self.runs.values()) if now >= run.retry_at and self._may_visit(run)]
        rings = [ring for run in able for ring in list(run.live)]
        for ring in rings:
            ring.words[SLEEPING] = 1
        if not any(ring.used() * 2 > ring.capacity for ring in rings):
            woken = self._pipe.poll(self._linger_s * 1000)
            if woken:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_fd, 4096)
                self._scan_at = 0.0
        for ring in rings:
            ring.words[SLEEPING] = 0

    def _may_visit(self, run: RunJournal) -> bool:
        return self.relay.may_visit(run.path, run.disk)

    def _visit(self, run: RunJournal, work: Callable[[RunJournal], float]) -> float:
        """Work on a journal; see `Relay.visit`."""
        moved: float = self.relay.visit(run.path, run.disk, self._try, run, work)
        return moved

    def _try(self, run: RunJournal, work: Callable[[RunJournal], float]) -> float:
        """Work on a journal. If it cannot be written it is tried again later; its rings hold what they can until then."""
        try:
            moved = work(run)
            self.unwritable.pop(run.path, None)
            return moved
        except Exception as error:  # whatever it was, the other runs go on
            self.unwritable[run.path] = error
            if isinstance(error, FileNotFoundError) and self._restore(run):
                return 0.0
            for ring in run.live:
                ring.words[LAST_ERRNO] = getattr(error, "errno", None) or errno.EIO
            run.retry_at = time.monotonic() + RETRY_INTERVAL_S
            self._warn(run.path, f"the journal of {run.path} cannot be written: {error}; trying again")
            if run.gone():
                self._abandon(run, [ring for ring in run.live if self._has_ended(ring)])
            return 0.0

    def _restore(self, run: RunJournal) -> bool:
        """Whether it was that somebody has removed the journal of a run that goes on, and it is there again."""
        with contextlib.suppress(OSError):
            if run.restore():
                self._warn(f"restored {run.path}", f"the journal of {run.path} was removed; another is begun")
                return True
        return False

    def _warn(self, about: str, message: str) -> None:
        if self._throttle.admit(about):
            warn(message)


def _heartbeat(ring: Ring, trouble: int = 0) -> None:
    """Tell a ring's producer that its worker lives, and what keeps it from the journal."""
    ring.words[HEARTBEAT] = time.monotonic_ns()
    if trouble:
        ring.words[LAST_ERRNO] = trouble


def _open_pipe(host: str) -> int:
    return os.open(os.path.join(host, WAKE_NAME), os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def _disk_above(path: str) -> str:
    """The device that has what is left of the way to a path."""
    while path != os.path.dirname(path):
        path = os.path.dirname(path)
        with contextlib.suppress(OSError):
            return str(os.stat(path).st_dev)
    return ""
