"""Drain: bytes from rings to journals, and nothing else. A thread of the worker.

It reads no frame but the first header of a batch, so no producer can outrun it. What it does next is decided in `drain_rules`.
Imports the standard library only.
"""

from __future__ import annotations

import os
import time

from asynctrack.queue.layout import END, HEAD, LAST_ERRNO, NO_ANSWER, SLEEPING, SYNCED, TAIL, WANTED
from asynctrack.queue.ring import Ring
from asynctrack.worker.drain_rules import (
    LINGER_S,
    RETRY_INTERVAL_S,
    FillRate,
    fastest_intervals,
    is_pressing,
    may_sleep,
    measure,
    next_round,
)
from asynctrack.worker.drained_runs import DrainedRuns
from asynctrack.worker.host_lock import HostLock
from asynctrack.worker.log_writer import warn
from asynctrack.worker.partings import Partings
from asynctrack.worker.relay import Relay, Watchdog
from asynctrack.worker.ring_intake import RingIntake, heartbeat
from asynctrack.worker.run_journal import RunJournal
from asynctrack.worker.sync_schedule import SyncSchedule
from asynctrack.worker.wake_pipe import WakePipe

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

# Between two looks at which rings there are and whether their producers live.
SCAN_INTERVAL_S: Final = 0.5
# The same where a process is about to end: its end is to be known within a second.
BREATH_INTERVAL_S: Final = 0.05

# Stores reach another core in order on x86-64. Elsewhere the worker trusts only the head of its previous look.
_ORDERED_STORES: Final = os.uname().machine.lower() in ("x86_64", "amd64", "i686")


class Drain:
    """The thread that moves bytes, and those that it leaves behind where a disk hangs.

    Attributes:
        relay: makes the rounds.
        watchdog: looks whether it, or another that makes rounds, is held up.
        syncs: when journals are synced.
        leaving: whether the worker has been asked to end.

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
        self.syncs = SyncSchedule()
        self.leaving = False
        self._runs = DrainedRuns(self.relay, own if own is not None else {})
        self._intake = RingIntake(host, self._runs)
        self._partings = Partings(self._runs, self._check_ends)
        self._fill_rate = FillRate(0.0, time.monotonic())
        self._linger_s = LINGER_S
        self._scan_at = 0.0
        self._heads: dict[int, int] = {}
        self._pipe = WakePipe(host)
        self._host_lock = host_lock
        self._stopping = False

    @property
    def host(self) -> str:
        """Return the directory of the rings."""
        return self._intake.host

    @property
    def runs(self) -> dict[str, RunJournal]:
        """Return the runs whose bytes it moves, by directory."""
        return self._runs.by_path

    @property
    def pressed(self) -> bool:
        """Return True if the deliveries should leave it the interpreter."""
        return self._fill_rate.pressed

    @property
    def idle_since(self) -> float:
        """Return when there was a run for the last time, in monotonic seconds."""
        return self._runs.idle_since

    def start(self) -> None:
        """Start the threads."""
        self.watchdog.start()
        self.relay.start()  # last, since the drain counts as alive from here on

    def is_alive(self) -> bool:
        """Return whether a thread makes the rounds."""
        return self.relay.is_alive()

    def join(self, timeout_s: float) -> None:
        """Wait for the rounds to end, but not for longer than told."""
        self.relay.join(timeout_s)

    def stop(self) -> None:
        """End the thread; what is in the rings stays there."""
        self._stopping = True
        self.watchdog.stop()
        self._pipe.wake()

    def leave_runs(self) -> None:
        """Let another worker of this process have the runs, once the thread has ended; but for those at which a thread still waits for a disk."""
        for path, run in list(self.runs.items()):
            if not (self.is_alive() or path in self.relay.held):
                run.leave()

    def notify_of_growth(self, notify: Callable[[list[RunJournal]], object]) -> None:
        """Have a function called after each round with the runs whose journal grew."""
        self._runs.notify_growth = notify

    def error_of(self, run: str) -> Exception | None:
        """Return why a run could not be opened or written the last time; None where it could."""
        failure = self._runs.failures.get(run)
        return failure.error if failure is not None else None

    def finish(self, run: RunJournal, *, done: bool, told: str | None = None, notes: int = 0) -> None:
        """Ask the thread to let go of a run; `told`: the status that those know to whom it was delivered, with so many notes."""
        self._partings.ask(run, done=done, told=told, notes=notes)
        self._pipe.wake()

    def take_on(self, run: str) -> None:
        """Ask the thread for a run that has no ring any more, once no other worker has it."""
        self._intake.take_on(run)
        self._pipe.wake()

    def has(self, run: str) -> bool:
        """Return whether it moves bytes for a run, or waits for another worker to let go of it, or for its disk."""
        return self._intake.waits_for(run) or run in self.runs or run in self.relay.held

    def serves_none(self) -> bool:
        """Return whether no ring is left but those of ended callers whose disks are not there: the next worker tries them again."""
        return self._intake.serves_none()

    def leave(self) -> None:
        """Serve until the callers have ended, and leave what is behind then to `asynctrack sync`.

        A batch system that ends a job, or a machine that shuts down, sends SIGTERM to the worker and to the callers. They may log for as
        long as their grace lasts.
        """
        self.leaving = True
        self._pipe.wake()

    def move_to(self, host: str) -> None:
        """Take note that the host's directory has a new name."""
        self._intake.move_to(host)

    def scan_rings(self) -> None:
        """Find new rings, and those whose producers have ended."""
        self._scan_at = time.monotonic() + SCAN_INTERVAL_S
        self._keep_host()
        self._intake.scan(leaving=self.leaving)
        for run in self._runs:
            if self._runs.may_visit(run):
                self._runs.visit(run, self._check_ends)
        self._linger_s, sync_interval_s = fastest_intervals(ring.meta for run in self._runs for ring in list(run.live))
        self.syncs.set_interval(sync_interval_s)

    def _make_rounds(self) -> None:
        while not self._stopping:
            try:
                self._poll_once()
            except Exception as error:  # whatever it was, the next look may work: the rings keep what is in them
                warn(f"the drain failed and goes on: {error!r}", error)
                time.sleep(RETRY_INTERVAL_S)  # not in a wait on the pipe, which producers may write to all the time
        self._pipe.close()

    def _poll_once(self) -> None:
        if time.monotonic() >= self._scan_at:
            self.scan_rings()
        grown, fullest = [], 0.0
        for run in self._runs:
            if not self._is_due(run):
                continue
            moved = self._runs.visit(run, self._poll_run)
            fullest = max(fullest, moved)
            if moved or run.wanted():
                grown.append(run)
        if grown:
            self._runs.notify_growth(grown)
        self._fill_rate = measure(self._fill_rate, fullest, time.monotonic())
        self._partings.advance(leaving=self.leaving)
        if self.runs or self.relay.held:
            self._runs.idle_since = time.monotonic()
        if may_sleep(fullest):
            self._sleep()
        else:
            self._listen(0.0)

    def _is_due(self, run: RunJournal) -> bool:
        """Return whether a run's bytes are to be moved; its producers are told that the worker lives where they are not."""
        step = next_round(
            is_open=run.writer is not None,
            retry_at=self._runs.retry_at(run),
            may_visit=self._runs.may_visit(run),
            now=time.monotonic(),
        )
        if step != "poll":
            _heartbeat(run, trouble=NO_ANSWER if step == "no answer" else 0)
        return step == "poll"

    def _poll_run(self, run: RunJournal) -> float:
        """Move what is in a run's rings; returns how full the fullest was, 0 to 1."""
        _heartbeat(run)
        if run.writer is not None and run.writer.wants_sync:
            self.syncs.ask()
        fullest = max([self._poll_ring(run, ring) for ring in list(run.live)], default=0.0)
        for ring in run.live:
            ring.words[LAST_ERRNO] = 0
        for ring in run.rings:  # whose caller may wait for deliveries still
            if ring.words[LAST_ERRNO] == NO_ANSWER:
                ring.words[LAST_ERRNO] = 0
        return fullest

    def _poll_ring(self, run: RunJournal, ring: Ring) -> float:
        """Move what is in a ring; returns how full it was, 0 to 1."""
        words = ring.words
        if not ring.can_be():
            self._runs.warn(
                ring.path,
                f"another program has written over the queue of {run.path}; the records that were still in it are lost",
            )
            run.retire(ring)
            run.end()
            self._runs.notify_growth([run])
            return 0.0
        head = words[HEAD]
        if not _ORDERED_STORES:
            head, self._heads[ring.id] = self._heads.get(ring.id, words[TAIL]), head
        moved = run.move(ring, head)
        if words[WANTED] > words[SYNCED]:
            self.syncs.ask()
        if words[END]:
            self._check_end(run, ring)
        return moved / ring.capacity

    def _check_ends(self, run: RunJournal) -> float:
        """See which producers of a run have ended."""
        run.watch()
        for ring in list(run.live):  # before the end of the run: one that has died is not idle
            self._check_end(run, ring)
        if run.end():
            self._runs.notify_growth([run])
        return 0.0

    def _check_end(self, run: RunJournal, ring: Ring) -> None:
        """See whether a ring's producer has ended; then move the rest and retire it."""
        if not self._runs.has_ended(ring):
            run.note_drops(ring)
            return
        run.move(ring, ring.words[HEAD])
        if not ring.words[END] and run.breathes(ring):
            self._scan_at = min(self._scan_at, time.monotonic() + BREATH_INTERVAL_S)
            return
        run.retire(ring)
        run.end()
        self.syncs.ask()
        self._runs.notify_growth([run])

    def _sleep(self) -> None:
        """Wait for the linger to pass or a byte in the pipe. A ring that fills after the flag is set sends one.

        The linger is short, since producers ring only where they wait for something: a record that is alone in its ring is
        journaled when it has passed.
        """
        now = time.monotonic()
        able = [run for run in self._runs if now >= self._runs.retry_at(run) and self._runs.may_visit(run)]
        rings = [ring for run in able for ring in list(run.live)]
        for ring in rings:
            ring.words[SLEEPING] = 1
        pressing = any(is_pressing(ring.used(), ring.capacity) for ring in rings)
        self._listen(0.0 if pressing else self._linger_s)
        for ring in rings:
            ring.words[SLEEPING] = 0

    def _listen(self, seconds: float) -> None:
        """Wait for a byte in the pipe, and look for new rings where there is one: a forked child may be killed right behind its first record."""
        if self._pipe.wait(seconds):
            self._scan_at = 0.0

    def _keep_host(self) -> None:
        """Make the host's directory again, where somebody has removed it under runs that go on."""
        if self._host_lock is None or not self.runs or self._host_lock.is_at(self.host):
            return
        try:
            if self._host_lock.make_again(self.host):
                self._pipe.move_to(self.host)
                warn(f"{self.host} was removed; it is made again")
        except OSError as error:
            self._runs.warn(self.host, f"{self.host} was removed, and cannot be made again: {error}")


def _heartbeat(run: RunJournal, *, trouble: int = 0) -> None:
    for ring in list(run.rings):
        heartbeat(ring, trouble)
