"""Drain: bytes from rings to journals, and nothing else. A thread of the worker.

It reads no frame but the first header of a batch, so no producer can outrun it. Imports the standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import threading
import time

from asynctrack.journal.layout import NOTES_RING
from asynctrack.journal.writer import Writer
from asynctrack.queue.layout import (
    DELIVERED,
    DONE,
    END,
    ENDS,
    FIRST,
    HEAD,
    HEARTBEAT,
    KIND_SHIFT,
    NOTE,
    SLEEPING,
    SYNCED,
    TAIL,
    TROUBLE,
    WANTED,
    WORKER_PID,
    frame_size,
)
from asynctrack.queue.places import WAKE_NAME, ring_paths
from asynctrack.queue.ring import Ring, ordinal

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

# Between two looks at which rings there are and whether their producers live.
CENSUS_INTERVAL_S: Final = 0.5
# Between two tries to write a journal whose disk failed.
RETRY_INTERVAL_S: Final = 0.5
# Between two warnings about the same trouble.
WARN_INTERVAL_S: Final = 60.0
# Under pressure: a ring would be full in less than 50 ms, which is what a delivery may take to let go of the interpreter.
PRESSED_RINGS_PER_S: Final = 20.0
_PRESSURE_WINDOW_S: Final = 0.02
# A look that finds less than this part of a ring may be followed by sleep.
_CALM: Final = 4

# Stores reach another core in order on x86-64. Elsewhere the worker trusts only the head of its previous look.
_ORDERED_STORES: Final = os.uname().machine.lower() in ("x86_64", "amd64", "i686")


class RunJournal:
    """The journal of one run, and the rings that feed it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.writer: Writer | None = None
        self.rings: list[Ring] = []
        self.live: list[Ring] = []
        self.ended: list[tuple[Ring, str]] = []
        self.status: str | None = None
        self.retry_at = 0.0
        self._lock_fd = -1
        self._notes_end = 0
        self._dropped: dict[int, dict[str, int]] = {}

    def __repr__(self) -> str:
        return f"<RunJournal {self.path}, {len(self.live)} live rings, {self.status or 'running'}>"

    def open(self) -> bool:
        """Take the run's lock and recover its journal; False while another worker has the lock."""
        if self._lock_fd < 0:
            self._lock_fd = os.open(
                os.path.join(self.path, "lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
        try:
            fcntl.lockf(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            raise
        self.writer = Writer(os.path.join(self.path, "journal"))
        self._notes_end = self.writer.ends.get(NOTES_RING, time.time_ns() & -8)
        return True

    def add(self, ring: Ring) -> None:
        assert self.writer is not None
        ring.words[TAIL] = max(ring.words[TAIL], self.writer.ends.get(ring.id, 0))
        self.rings.append(ring)
        self.live.append(ring)
        self.status = None

    def move(self, ring: Ring, head: int) -> int:
        """Journal what the ring holds up to `head`; returns how many bytes that was."""
        assert self.writer is not None
        tail = ring.words[TAIL]
        if head > tail:
            frames = ring.copy(tail, head)
            self.writer.append(ring.id, tail, head, ordinal(frames, ring.words[FIRST]), frames)
            ring.words[TAIL] = head
        return head - tail

    def note(self, content: dict[str, Any]) -> None:
        """Journal a note of the worker's own."""
        import json

        assert self.writer is not None
        payload = json.dumps(content).encode()
        header = len(payload).to_bytes(8, "little") + (NOTE << KIND_SHIFT).to_bytes(8, "little")
        frame = (header + payload).ljust(frame_size(len(payload)), b"\0")
        start, end = self._notes_end, self._notes_end + len(frame)
        self.writer.append(NOTES_RING, start, end, 0, frame)
        self._notes_end = end

    def note_drops(self, ring: Ring) -> None:
        dropped = ring.dropped()
        if dropped != self._dropped.get(ring.id, {}):
            self.note({"note": "dropped", "ring": f"{ring.id:016x}", "dropped": dropped})
            self._dropped[ring.id] = dropped

    def retire(self, ring: Ring) -> None:
        """A ring whose producer has ended, and which is empty."""
        end = ENDS[ring.words[END]]
        self.note({"note": "ring_ended", "ring": f"{ring.id:016x}", "end": end, "dropped": ring.dropped()})
        self.live.remove(ring)
        self.ended.append((ring, end))

    def end(self) -> None:
        """Note how the run ended, once no producer is left."""
        if self.rings and not self.live and self.status is None:
            status = _status(self.ended)
            self.note({"note": "run_ended", "status": status, "time_ns": time.time_ns()})
            self.status = status

    def sync(self) -> None:
        """Make the journal survive a power cut, and tell the producers."""
        if self.writer is not None and self.writer.sync():
            for ring in list(self.rings):
                ring.words[SYNCED] = max(ring.words[SYNCED], self.writer.synced.get(ring.id, 0))

    def set_delivered(self, ends: Callable[[int], int]) -> None:
        for ring in list(self.rings):
            words = ring.words
            words[DELIVERED] = max(words[DELIVERED], min(ends(ring.id), words[TAIL]))
            if (
                words[END]
                and words[DELIVERED] >= words[HEAD]
                and any(not other.words[END] for other in list(self.live))
            ):
                words[DONE] = 1  # others go on with the run; for this one nothing is left to do

    def wanted(self) -> bool:
        """Whether a producer waits for what is not yet delivered."""
        return any(ring.words[WANTED] > ring.words[DELIVERED] or ring.words[END] for ring in list(self.rings))

    def close(self, *, done: bool) -> None:
        """Let go of the journal and the rings; `done` tells the producers that nothing is left to do."""
        if self.writer is not None:
            self.writer.close()
            self.sync()
        for ring in self.rings:
            ring.words[DONE] = int(done)
            ring.unlink()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)


class Drain(threading.Thread):
    """The thread that moves bytes.

    Args:
        host: the directory of the calling process's rings.
        own: rings of this very process by path, for a worker that is a thread of the caller: a process must not open
            its own ring again, and cannot ask for its own lock.
        grew: called after a look with the runs whose journal grew.
    """

    def __init__(self, host: str, *, own: dict[str, Ring] | None = None) -> None:
        super().__init__(name="asynctrack-drain", daemon=True)
        self.host = host
        self.runs: dict[str, RunJournal] = {}
        self.grew: Callable[[list[RunJournal]], object] = lambda runs: None
        self.pressed = False
        self._filled = 0.0
        self._window_at = time.monotonic()
        self.wants_sync = threading.Event()
        self.idle_since = time.monotonic()
        self.sync_interval_s = 1.0
        self._linger_s = 0.1
        self._own = own if own is not None else {}
        self._stopping = False
        self._closing: list[tuple[RunJournal, bool]] = []
        self._known: set[str] = set()
        self._heads: dict[int, int] = {}
        self._census_at = 0.0
        self._warned: dict[str, float] = {}
        self._wake_fd = os.open(os.path.join(host, WAKE_NAME), os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> None:
        while not self._stopping:
            try:
                self._look_around()
            except Exception as error:  # whatever it was, the next look may work: the rings keep what is in them
                warn(f"the drain failed and goes on: {error!r}", error)
                time.sleep(RETRY_INTERVAL_S)
        os.close(self._wake_fd)

    def stop(self) -> None:
        """End the thread; what is in the rings stays there."""
        self._stopping = True
        self.wake()

    def wake(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._wake_fd, b"!")

    def finish(self, run: RunJournal, *, done: bool) -> None:
        """Ask the thread to let go of a run."""
        self._closing.append((run, done))
        self.wake()

    def moved_to(self, host: str) -> None:
        """The host's directory has a new name."""
        self._known = {path.replace(self.host, host, 1) for path in self._known}
        self.host = host

    def take_census(self) -> None:
        """Find new rings, and those whose producers have ended."""
        self._census_at = time.monotonic() + CENSUS_INTERVAL_S
        for path in ring_paths(self.host):
            if path not in self._known:
                self._adopt(path)
        for run in list(self.runs.values()):
            self._try(run, self._check_ends)

    def _look_around(self) -> None:
        if time.monotonic() >= self._census_at:
            self.take_census()
        grown, fullest = [], 0.0
        for run in list(self.runs.values()):
            if run.writer is None or time.monotonic() < run.retry_at:
                self._beat(run)
                continue
            moved = self._try(run, self._look_at)
            fullest = max(fullest, moved)
            if moved or run.wanted():
                grown.append(run)
        if grown:
            self.grew(grown)
        self._feel_pressure(fullest)
        self._close_asked()
        if fullest < 1 / _CALM:
            self._sleep()

    def _look_at(self, run: RunJournal) -> float:
        """Move what is in a run's rings; returns how full the fullest was, 0 to 1."""
        self._beat(run)
        if run.writer is not None and run.writer.wants_sync:
            self.wants_sync.set()
        return max([self._look(run, ring) for ring in list(run.live)], default=0.0)

    def _look(self, run: RunJournal, ring: Ring) -> float:
        words = ring.words
        head = words[HEAD]
        if not _ORDERED_STORES:
            head, self._heads[ring.id] = self._heads.get(ring.id, words[TAIL]), head
        moved = run.move(ring, head)
        if words[WANTED] > words[SYNCED]:
            self.wants_sync.set()
        if words[END]:
            self._check_end(run, ring)
        return moved / ring.capacity

    def _feel_pressure(self, fullest: float) -> None:
        self._filled += fullest
        now = time.monotonic()
        if now - self._window_at >= _PRESSURE_WINDOW_S:
            self.pressed = self._filled / (now - self._window_at) > PRESSED_RINGS_PER_S
            self._filled, self._window_at = 0.0, now

    def _beat(self, run: RunJournal) -> None:
        for ring in run.rings:
            ring.words[HEARTBEAT] = time.monotonic_ns()

    def _check_ends(self, run: RunJournal) -> float:
        run.end()
        for ring in list(run.live):
            self._check_end(run, ring)
        return 0.0

    def _check_end(self, run: RunJournal, ring: Ring) -> None:
        if not ring.words[END] and (ring.path in self._own or ring.producer_lives()):
            run.note_drops(ring)
            return
        run.move(ring, ring.words[HEAD])
        run.retire(ring)
        run.end()
        self.wants_sync.set()
        self.grew([run])

    def _adopt(self, path: str) -> None:
        try:
            ring = self._own.get(path) or Ring.attach(path)
        except (OSError, ValueError) as error:
            self._warn(path, f"{path} is not taken: {error}")
            return
        try:
            run = self._run_of(ring)
        except OSError as error:
            self._warn(path, f"the run {ring.meta.get('run')} cannot be written: {error}")
            run = None
        if run is None:
            if path not in self._own:
                ring.close()
            return
        self._known.add(path)
        run.add(ring)
        self._linger_s = min(self._linger_s, float(ring.meta.get("linger_s", self._linger_s)))
        self.sync_interval_s = min(self.sync_interval_s, float(ring.meta.get("sync_interval_s", self.sync_interval_s)))
        ring.words[WORKER_PID] = os.getpid()
        ring.words[HEARTBEAT] = time.monotonic_ns()

    def _run_of(self, ring: Ring) -> RunJournal | None:
        """The journal a ring belongs to, opened where need be; None while another worker has it."""
        path = ring.meta["run"]
        run = self.runs.get(path)
        if run is None:
            run = RunJournal(path)
            if not run.open():
                return None
            self.runs[path] = run
        return run

    def _close_asked(self) -> None:
        while self._closing:
            run, done = self._closing.pop()
            if run.live:  # somebody has begun to log to it again
                continue
            self.runs.pop(run.path, None)
            run.close(done=done)
            self._known.difference_update(ring.path for ring in run.rings)
            for ring in run.rings:
                if self._own.pop(ring.path, None) is None:
                    ring.close()
        if self.runs:
            self.idle_since = time.monotonic()

    def _sleep(self) -> None:
        """Wait for the linger to pass or a byte in the pipe. A ring that fills after the flag is set sends one."""
        rings = [ring for run in list(self.runs.values()) for ring in run.live]
        for ring in rings:
            ring.words[SLEEPING] = 1
        if not any(ring.used() * 2 > ring.capacity for ring in rings):
            ready, _, _ = select.select([self._wake_fd], [], [], self._linger_s)
            if ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_fd, 4096)
                self._census_at = 0.0
        for ring in rings:
            ring.words[SLEEPING] = 0

    def _try(self, run: RunJournal, work: Callable[[RunJournal], float]) -> float:
        """Work on a journal. If it cannot be written it is tried again later; its rings hold what they can until then."""
        try:
            result, code = work(run), 0
        except OSError as error:
            result, code = 0.0, error.errno or errno.EIO
            run.retry_at = time.monotonic() + RETRY_INTERVAL_S
            self._warn(run.path, f"the journal of {run.path} cannot be written: {error}; trying again")
        for ring in run.live:
            ring.words[TROUBLE] = code
        return result

    def _warn(self, about: str, message: str) -> None:
        now = time.monotonic()
        if now >= self._warned.get(about, 0.0):
            self._warned[about] = now + WARN_INTERVAL_S
            warn(message)


def _status(ended: list[tuple[Ring, str]]) -> str:
    """How the run ended: what the process that opened it said; if it died without a word, what the last other said."""
    said = [(ring.meta.get("root") == "True", end) for ring, end in ended]
    by_root = [end for root, end in said if root and end in ("finished", "failed")]
    if by_root:
        return by_root[-1]
    words = [end for _, end in said if end != "left"]
    return words[-1] if words and words[-1] in ("finished", "failed") else "crashed"


def warn(message: str, error: BaseException | None = None) -> None:
    """Log a warning. `logging` takes longer to import than the drain may wait, and is rarely needed."""
    import logging

    logging.getLogger("asynctrack.worker").warning(message, exc_info=error)
