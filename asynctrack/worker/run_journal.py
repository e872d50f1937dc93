"""Run journal: the journal of one run and the rings that feed it. Runs in the worker.

Imports the standard library only.
"""

from __future__ import annotations

import os
import time

from asynctrack.journal.writer import Writer
from asynctrack.queue.layout import DELIVERED, DONE, END, FIRST, HEAD, NOTE, PID, SYNCED, TAIL, WANTED
from asynctrack.queue.ring import Ring, record_offset
from asynctrack.worker.caller_exit import Caller, caller_of
from asynctrack.worker.notes import Notes
from asynctrack.worker.run_claim import RunClaim, is_asked_for
from asynctrack.worker.run_outcome import RingOutcome, breathes, run_outcome

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


# A ring is freed in pieces of about this size. A look at a busy ring finds 2 MiB, which take 10 to 30 ms to checksum and write when other
# programs want the cores, and in that time the rest of the ring fills.
MOVE_BYTES = 256 << 10


class _Producer:
    """The known facts about the process of a live ring.

    Attributes:
        caller: how it ends; None where that cannot be seen.
        dropped: what the journal says that it dropped, by reason.
        silent_since: since when it has lost its ring's lock without a word; monotonic seconds.
    """

    __slots__ = ("caller", "dropped", "silent_since")

    def __init__(self, caller: Caller | None) -> None:
        self.caller = caller
        self.dropped: dict[str, int] = {}
        self.silent_since: float | None = None


class RunJournal:
    """The journal of one run, and the rings that feed it.

    Attributes:
        path: the run's directory.
        disk: the device that has it, once it is open: what hangs, hangs for all that is there.
        writer: of the journal; None until it is open.
        rings: all that have fed it.
        live: those whose producers have not ended.
        ended: how the others' have.
        status: how the run ended; None while it goes on.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.disk: int | None = None
        self.writer: Writer | None = None
        self.rings: list[Ring] = []
        self.live: list[Ring] = []
        self.ended: list[RingOutcome] = []
        self.status: str | None = None
        self._claim: RunClaim | None = None
        self._notes: Notes | None = None
        self._producers: dict[int, _Producer] = {}
        self._noted: tuple[str, str | None] | None = None  # how the journal says that the run ended
        self._earlier: str | None = None
        self._is_left = False  # what is behind is left to `asynctrack sync`: another worker would do no more

    def __repr__(self) -> str:
        return f"<RunJournal {self.path}, {len(self.live)} live rings, {self.status or 'running'}>"

    def open(self) -> bool:
        """Take the run's lock and recover its journal; False while another worker has the lock."""
        claim = RunClaim.take(self.path)
        if claim is None:
            return False
        try:
            claim.withdraw_request()
            writer = Writer(os.path.join(self.path, "journal"))
            if any(os.path.exists(os.path.join(self.path, name)) for name in ("cursors", "run.json")):
                from asynctrack.worker.rewind import rewind_cursors

                rewind_cursors(self.path, writer.found)
            self.disk = claim.hold_directory()
        except BaseException:
            claim.close()
            raise
        self._claim, self.writer, self._notes = claim, writer, Notes(writer)
        return True

    def settle(self) -> None:
        """Note how a run ended that has no ring any more, as far as anybody was left to say so.

        A power cut may have taken from the journal what `run.json` still knows; the deliveries wait for it.
        """
        from asynctrack.reading.reader import RunReader

        status: str = RunReader(self.path).status
        if status == "running" or not self._ends_with_outcome():
            status = "crashed" if status == "running" else status
            self.note({"note": "run_ended", "status": status, "time_ns": time.time_ns()})
        self.status = status

    def _ends_with_outcome(self) -> bool:
        """Return whether the last that the journal tells is how the run ended."""
        from asynctrack.journal.backwards import backwards
        from asynctrack.journal.manifest import read_note

        last = next(backwards(os.path.join(self.path, "journal"), notes=True), None)
        frames = [] if last is None else list(last.frames())
        return bool(frames) and frames[-1].kind == NOTE and read_note(frames[-1])["note"] == "run_ended"

    def gone(self) -> bool:
        """Return whether its directory is no more where it was, or it has been let go of."""
        if self._claim is None:
            return self.writer is not None
        return self._claim.is_gone()

    def restore(self) -> bool:
        """Make the journal's directory again where somebody has removed it under the run; returns whether that was so.

        What is not known to be safe is written again, with a note; what was safe is gone.
        """
        if self.writer is None or self.gone() or os.path.lexists(os.path.join(self.path, "journal")):
            return False
        self.writer.make_again()
        self.note({"note": "journal_removed", "time_ns": time.time_ns()})
        return True

    def asked_for(self) -> bool:
        """Return whether another worker wants this run, because its caller resumes it."""
        return is_asked_for(self.path)

    def add(self, ring: Ring) -> None:
        """Have a ring feed it, from where the journal has it."""
        assert self.writer is not None
        ring.words[TAIL] = max(ring.words[TAIL], self.writer.ends.get(ring.id, 0))
        self.rings.append(ring)
        self.live.append(ring)
        self._producers[ring.id] = _Producer(caller_of(ring))
        self.status = self._noted = None
        self._is_left = False

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
        assert self._notes is not None
        self._notes.write(content)

    def note_drops(self, ring: Ring) -> None:
        """Journal how many records a ring has turned away, where there are more."""
        producer, dropped = self._producers[ring.id], ring.dropped()
        if dropped != producer.dropped:
            self.note({"note": "dropped", "ring": f"{ring.id:016x}", "dropped": dropped})
            producer.dropped = dropped

    def retire(self, ring: Ring) -> None:
        """Note that the producer of a ring has ended, which is empty."""
        outcome = RingOutcome(ring, self._producers[ring.id].caller)
        self.note({"note": "ring_ended", "ring": f"{ring.id:016x}", "end": outcome.declared, "dropped": ring.dropped()})
        self._end_ring(outcome)

    def abandon(self, ring: Ring) -> None:
        """Let go of a ring whose journal is gone for good: nobody waits for it any more."""
        ring.words[DONE] = 1
        self._end_ring(RingOutcome(ring, self._producers[ring.id].caller))
        if not self.live:
            self.status, _ = run_outcome(self.ended)

    def watch(self) -> None:
        """See what only those can be asked that live."""
        for caller in {producer.caller for producer in self._producers.values()}:
            if caller is not None:
                caller.poll()

    def breathes(self, ring: Ring) -> bool:
        """Return whether the process of a ring, which has lost its lock without a word, is still about to end: then it is known how."""
        producer = self._producers[ring.id]
        producer.silent_since = producer.silent_since or time.monotonic()
        return breathes(producer.caller, producer.silent_since)

    def end(self) -> None:
        """Note how the run ended, once no producer is left; and again where an exit code says otherwise."""
        news = self._note_failed_children()
        if not self.rings or self.live:
            return
        told = self._outcome()
        if told != self._noted or news:
            status, why = told
            self.note({"note": "run_ended", "status": status, "error": why, "time_ns": time.time_ns()})
            self._noted, self.status = told, status

    def awaits_exit(self) -> bool:
        """Return whether a process has said its last, but its exit code is still to come."""
        return any(outcome.is_open() for outcome in self.ended)

    def _end_ring(self, outcome: RingOutcome) -> None:
        self.live.remove(outcome.ring)
        self._producers.pop(outcome.ring.id, None)
        self.ended.append(outcome)

    def _outcome(self) -> tuple[str, str | None]:
        """Find how the run ended, and why."""
        if any(outcome.is_root for outcome in self.ended):
            return run_outcome(self.ended)
        if self._earlier is None:  # only children go on: what the process said that has opened the run stays
            self._earlier = _status_of(self.path)
        return (
            (self._earlier, None) if self._earlier in ("finished", "failed", "preempted") else run_outcome(self.ended)
        )

    def _note_failed_children(self) -> bool:
        """Note which children have failed, as the kernel says; returns whether there was one."""
        failed = [
            (outcome, why)
            for outcome in self.ended
            if not (outcome.is_root or outcome.reported) and (why := outcome.child_error())
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
        """Tell the producers up to where each ring is delivered."""
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
        """Return whether a producer waits for what is not yet delivered."""
        return any(ring.words[WANTED] > ring.words[DELIVERED] or ring.words[END] for ring in list(self.rings))

    def is_awaited(self) -> bool:
        """Return whether a process still waits in `finish`, or while it ends. A process whose threads do this asks nobody for that."""
        pid = os.getpid()
        return any(ring.words[PID] != pid and ring.producer_lives() for ring in list(self.rings))

    def leave_to_sync(self) -> None:
        """Leave what is behind to `asynctrack sync`, for good: no other worker goes on with it, and nobody waits for one."""
        self._is_left = True

    def close(self, *, done: bool) -> None:
        """Let go of the journal and the rings; `done` tells the producers that nothing is left to do."""
        if self.writer is not None:
            self.writer.close()
            self.sync()
        for ring in self.rings:
            ring.words[DONE] = int(done or self._is_left)
            ring.unlink()
        claim, self._claim = self._claim, None
        if claim is not None:
            claim.close()


def _goes_on(ring: Ring) -> bool:
    """Return whether a ring's process may put more into it; one that has just died is asked for now, not with the next scan."""
    is_ours = ring.words[PID] == os.getpid()  # threads of the caller: it must not ask for its own lock
    return not ring.words[END] and (is_ours or ring.producer_lives())


def _status_of(path: str) -> str:
    """Read what `run.json` says of a run's status, also before a worker that has just started can import what readers need."""
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
