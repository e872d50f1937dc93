"""Run journal: the journal of one run, the rings that feed it, and the lock that says whose it is. Runs in the worker.

Imports the standard library only.
"""

from __future__ import annotations

import os
import time

from asynctrack._system import locks
from asynctrack.journal.layout import NOTES_RING
from asynctrack.journal.writer import Writer
from asynctrack.queue.layout import (
    DELIVERED,
    DONE,
    END,
    FIRST,
    HEAD,
    KIND_SHIFT,
    NOTE,
    PID,
    SYNCED,
    TAIL,
    WANTED,
    frame_size,
)
from asynctrack.queue.ring import Ring, record_offset
from asynctrack.worker.caller_exit import Caller, caller_of
from asynctrack.worker.run_outcome import RingOutcome, breathes, run_outcome

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


LOCK_NAME = "lock"
HANDOVER_NAME = "handover"
# A ring is freed in pieces of about this size: 2 MiB at once take 10 to 30 ms of a busy machine, in which the rest fills.
MOVE_BYTES = 256 << 10
# The notes of one writer take less than a TiB of positions.
_NOTES_SHIFT = 40


class RunJournal:
    """The journal of one run, and the rings that feed it.

    Attributes:
        disk: the device that has it, once it is open: what hangs, hangs for all that is there.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.writer: Writer | None = None
        self.rings: list[Ring] = []
        self.live: list[Ring] = []
        self.ended: list[RingOutcome] = []
        self.status: str | None = None
        self.disk: int | None = None
        self._lock_fd = -1
        self._directory_fd = -1
        self._notes_end = 0
        self._dropped: dict[int, dict[str, int]] = {}
        self._callers: dict[int, Caller | None] = {}
        self._silent_since: dict[int, float] = {}
        self._status_noted: tuple[str, str | None] | None = None
        self._earlier: str | None = None

    def __repr__(self) -> str:
        return f"<RunJournal {self.path}, {len(self.live)} live rings, {self.status or 'running'}>"

    def open(self) -> bool:
        """Take the run's lock and recover its journal; False while another worker has the lock."""
        lock_fd = locks.take(os.path.join(self.path, LOCK_NAME))
        if lock_fd is None:
            self._ask_for_it()
            return False
        try:
            _unlink(os.path.join(self.path, HANDOVER_NAME))
            writer = Writer(os.path.join(self.path, "journal"))
            if any(os.path.exists(os.path.join(self.path, name)) for name in ("cursors", "run.json")):
                from asynctrack.worker.rewind import rewind_cursors

                rewind_cursors(self.path, writer.found)
            self._directory_fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except BaseException:
            os.close(lock_fd)
            raise
        self.disk = os.fstat(self._directory_fd).st_dev
        self._lock_fd, self.writer = lock_fd, writer
        # Segment numbers only grow, so the notes of this writer lie behind all others, whatever the clock says.
        self._notes_end = max(writer.ends.get(NOTES_RING, 0), writer.next_segment << _NOTES_SHIFT)
        return True

    def settle(self) -> None:
        """For a run that has no ring any more: how it ended, as far as anybody was left to say so.

        A power cut may have taken from the journal what `run.json` still knows; the deliveries wait for it.
        """
        from asynctrack.reading.reader import RunReader

        status: str = RunReader(self.path).status
        if status == "running" or not self._ends_with_outcome():
            status = "crashed" if status == "running" else status
            self.note({"note": "run_ended", "status": status, "time_ns": time.time_ns()})
        self.status = status

    def _ends_with_outcome(self) -> bool:
        """Whether the last that the journal tells is how the run ended."""
        from asynctrack.journal.backwards import backwards
        from asynctrack.journal.manifest import read_note

        last = next(backwards(os.path.join(self.path, "journal"), notes=True), None)
        frames = [] if last is None else list(last.frames())
        return bool(frames) and frames[-1].kind == NOTE and read_note(frames[-1])["note"] == "run_ended"

    def gone(self) -> bool:
        """Whether its directory is no more where it was: removed, moved, or replaced by another; or let go of."""
        if self._directory_fd < 0:
            return self.writer is not None
        try:
            return not os.path.samestat(os.stat(self.path), os.fstat(self._directory_fd))
        except OSError:
            return True

    def restore(self) -> bool:
        """Make the journal's directory again where somebody has removed it under the run; whether that was so.

        What is not known to be safe is written again, with a note; what was safe is gone.
        """
        if self.writer is None or self.gone() or os.path.lexists(os.path.join(self.path, "journal")):
            return False
        self.writer.make_again()
        self.note({"note": "journal_removed", "time_ns": time.time_ns()})
        return True

    def asked_for(self) -> bool:
        """Whether another worker wants this run, because its caller resumes it."""
        return os.path.exists(os.path.join(self.path, HANDOVER_NAME))

    def _ask_for_it(self) -> None:
        """Ask the worker that has the run to let go of it; it does when its own callers have ended."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        os.close(os.open(os.path.join(self.path, HANDOVER_NAME), flags, 0o600))

    def add(self, ring: Ring) -> None:
        assert self.writer is not None
        ring.words[TAIL] = max(ring.words[TAIL], self.writer.ends.get(ring.id, 0))
        self.rings.append(ring)
        self.live.append(ring)
        self._callers[ring.id] = caller_of(ring)
        self.status = self._status_noted = None

    def move(self, ring: Ring, head: int) -> int:
        """Journal what the ring holds up to `head`; returns how many bytes that was."""
        assert self.writer is not None
        tail = start = ring.words[TAIL]
        while tail < head:
            end = ring.batch_end(tail, head, MOVE_BYTES)
            frames = ring.copy(tail, end)
            self.writer.append(ring.id, tail, end, record_offset(frames, ring.words[FIRST]), frames)
            ring.words[TAIL] = tail = end
        return head - start

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
        outcome = RingOutcome(ring, self._callers.pop(ring.id, None))
        self.note({"note": "ring_ended", "ring": f"{ring.id:016x}", "end": outcome.declared, "dropped": ring.dropped()})
        self.live.remove(ring)
        self.ended.append(outcome)

    def abandon(self, ring: Ring) -> None:
        """A ring whose journal is gone for good: nobody waits for it any more."""
        ring.words[DONE] = 1
        self.live.remove(ring)
        self.ended.append(RingOutcome(ring, self._callers.pop(ring.id, None)))
        if not self.live:
            self.status, _ = run_outcome(self.ended)

    def watch(self) -> None:
        """See what only those can be asked that live."""
        for caller in set(self._callers.values()):
            if caller is not None:
                caller.poll()

    def breathes(self, ring: Ring) -> bool:
        """Whether the process of a ring, which has lost its lock without a word, is still about to end: then it is known how."""
        return breathes(self._callers.get(ring.id), self._silent_since.setdefault(ring.id, time.monotonic()))

    def end(self) -> None:
        """Note how the run ended, once no producer is left; and again where an exit code says otherwise."""
        news = self._note_failed_children()
        if not self.rings or self.live:
            return
        told = self._outcome()
        if told != self._status_noted or news:
            status, why = told
            self.note({"note": "run_ended", "status": status, "error": why, "time_ns": time.time_ns()})
            self._status_noted, self.status = told, status

    def awaits_exit(self) -> bool:
        """Whether a process has said its last, but its exit code is still to come."""
        return any(outcome.is_open() for outcome in self.ended)

    def _outcome(self) -> tuple[str, str | None]:
        if any(outcome.is_root for outcome in self.ended):
            return run_outcome(self.ended)
        if self._earlier is None:  # only children go on: what the process said that has opened the run stays
            self._earlier = _status_of(self.path)
        return (
            (self._earlier, None) if self._earlier in ("finished", "failed", "preempted") else run_outcome(self.ended)
        )

    def _note_failed_children(self) -> bool:
        """Note which children have failed, as the kernel says; whether there was one."""
        failed = [
            (outcome, why)
            for outcome in self.ended
            if not (outcome.is_root or outcome.reported) and (why := outcome.why())
        ]
        for outcome, why in failed:
            self.note({"note": "child_failed", "child": outcome.pid, "error": why})
            outcome.reported = True
            _warn(f"process {outcome.pid}, a child of the one that has opened {self.path}: {why}")
        return bool(failed)

    def sync(self) -> bool:
        """Make the journal survive a power cut, and tell the producers; returns whether it does."""
        if self.writer is None:
            return True
        safe = self.writer.sync()
        for ring in list(self.rings):
            ring.words[SYNCED] = max(ring.words[SYNCED], self.writer.synced.get(ring.id, 0))
        return safe

    def set_delivered(self, ends: Callable[[int], int]) -> None:
        for ring in list(self.rings):
            words = ring.words
            words[DELIVERED] = max(words[DELIVERED], min(ends(ring.id), words[TAIL]))
            if words[END] and words[DELIVERED] >= words[HEAD] and any(map(_goes_on, list(self.live))):
                words[DONE] = 1  # others go on with the run; for this one nothing is left to do

    def signal_done(self) -> None:
        """Tell the producers that there is nothing that they should wait for."""
        for ring in list(self.rings):
            ring.words[DONE] = 1

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
        for fd in (self._directory_fd, self._lock_fd):
            if fd >= 0:
                os.close(fd)
        self._directory_fd = self._lock_fd = -1


def _goes_on(ring: Ring) -> bool:
    """Whether a ring's process may put more into it; one that has just died is asked for now, not with the next scan."""
    is_ours = ring.words[PID] == os.getpid()  # threads of the caller: it must not ask for its own lock
    return not ring.words[END] and (is_ours or ring.producer_lives())


def _status_of(path: str) -> str:
    """What `run.json` says of a run, also before a worker that has just started can import what readers need."""
    try:
        from asynctrack.reading.reader import RunReader

        return str(RunReader(path).status)
    except ImportError:
        import json

        with open(os.path.join(path, "run.json"), encoding="utf-8") as file:
            return str(json.load(file)["status"])


def _warn(message: str) -> None:
    import logging

    logging.getLogger("asynctrack.worker").warning(message)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
