"""Run journal: the journal of one run and the rings that feed it. Runs in the worker.

Imports the standard library only.
"""

from __future__ import annotations

import os
import time

from asynctrack.journal.layout import Position
from asynctrack.journal.writer import Writer
from asynctrack.queue.layout import (
    DELIVERED,
    DONE,
    END,
    FIRST,
    FRAME_HEADER_BYTES,
    HEAD,
    LENGTH_MASK,
    NOTE,
    PID,
    SYNCED,
    TAIL,
    WANTED,
    WORKER_PID,
    frame_size,
)
from asynctrack.queue.ring import Ring, record_offset
from asynctrack.queue.shm_paths import hand_over, wake_host
from asynctrack.worker.caller_exit import Caller, caller_of
from asynctrack.worker.earlier_end import earlier_end
from asynctrack.worker.notes import Notes
from asynctrack.worker.process_ends import ProcessEnds
from asynctrack.worker.run_claim import RunClaim, asking_host
from asynctrack.worker.run_outcome import RingOutcome, breathes, is_root, owner_of, owns, run_outcome, straggler_s

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
        moved_at: when it was seen to say something for the last time, or the ring was taken in; monotonic seconds.
        outlived_at: how many others had ended when the first ended that has outlived it.
        silent_since: since when it has lost its ring's lock without a word; monotonic seconds.
    """

    __slots__ = ("caller", "dropped", "moved_at", "outlived_at", "silent_since")

    def __init__(self, caller: Caller | None) -> None:
        self.caller = caller
        self.dropped: dict[str, int] = {}
        self.moved_at = time.monotonic()
        self.outlived_at: int | None = None
        self.silent_since: float | None = None


class RunJournal:
    """The journal of one run, and the rings that feed it.

    Attributes:
        path: the run's directory.
        disk: the device that has it, once it is open: what hangs, hangs for all that is there.
        writer: of the journal; None until it is open.
        rings: all that have fed it.
        live: those whose producers have not ended.
        ended: how the others' have, in the order in which they did.
        notes: how many of the worker's notes it has been given.
        status: how the run ended, though others of its processes may live that say nothing more; None while it goes on.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.disk: int | None = None
        self.writer: Writer | None = None
        self.rings: list[Ring] = []
        self.live: list[Ring] = []
        self.ended: list[RingOutcome] = []
        self.notes = 0
        self.status: str | None = None
        self._ends = ProcessEnds(path)
        self._unbegun: list[Ring] = []  # of processes that have opened the run, and of which nothing is journaled
        self._claim: RunClaim | None = None
        self._notes: Notes | None = None
        self._producers: dict[int, _Producer] = {}
        self._noted: tuple[str, str | None] | None = None  # how the journal says that the run ended
        self._earlier: str | None = None
        self._had_ended = False  # as the journal was found
        self._is_left = False  # the rest is left to `asynctrack sync`: another worker could do no more

    def __repr__(self) -> str:
        return f"<RunJournal {self.path}, {len(self.live)} live rings, {self.status or 'running'}>"

    def open(self, host: str = "") -> bool:
        """Take the run's lock and recover its journal; False while another worker has the lock, which then knows of the directory of our rings, `host`."""
        claim = RunClaim.take(self.path, host)
        if claim is None:
            return False
        try:
            claim.withdraw_request()
            writer = Writer(os.path.join(self.path, "journal"))
            if any(os.path.exists(os.path.join(self.path, name)) for name in ("cursors", "run.json")):
                from asynctrack.worker.rewind import rewind_cursors

                rewind_cursors(self.path, writer.found)
            self._had_ended = writer.found > Position() and self._ends_with_outcome()
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

        status: str = RunReader(self.path).manifest().status
        if status == "running" or not self._ends_with_outcome():
            status = (earlier_end(self.path) or "crashed") if status == "running" else status
            self.note({"note": "run_ended", "status": status, "time_ns": time.time_ns()})
        self.status = status

    def _ends_with_outcome(self) -> bool:
        """Return whether the last that the journal tells is how the run ended."""
        from asynctrack.journal.backwards import backwards

        last = next(backwards(os.path.join(self.path, "journal"), notes=True), None)
        frames = [] if last is None else list(last.frames())
        # Decoding takes what the drain cannot import yet.
        return bool(frames) and frames[-1].kind == NOTE and b"run_ended" in bytes(frames[-1].payload)

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
        claim = self._claim  # another thread may let go of it meanwhile
        return claim is not None and claim.is_asked_for()

    def add(self, ring: Ring) -> None:
        """Have a ring feed it, from where the journal has it."""
        assert self.writer is not None
        ring.words[TAIL] = max(ring.words[TAIL], self.writer.ends.get(ring.id, 0))
        self._producers[ring.id] = _Producer(caller_of(ring))
        self.rings.append(ring)
        self.live.append(ring)
        if is_root(ring):
            self._had_ended = False
            if not ring.words[TAIL]:
                self._unbegun.append(ring)
        else:
            self._reopen()
        self.status = self._noted = None
        self._is_left = False

    def move(self, ring: Ring, head: int) -> int:
        """Journal what the ring holds up to `head`; returns how many bytes that was."""
        assert self.writer is not None
        while self._unbegun:
            self._begin(self._unbegun.pop())
        tail = start = ring.words[TAIL]
        if head > tail and (producer := self._producers.get(ring.id)) is not None:
            producer.moved_at = time.monotonic()
            self._reopen()
        while tail < head:
            end = ring.batch_end(tail, head, MOVE_BYTES)
            offset = record_offset(ring.copy(tail, tail + FRAME_HEADER_BYTES), ring.words[FIRST])
            self.writer.append(ring.id, tail, end, offset, *ring.parts(tail, end))
            ring.words[TAIL] = tail = end
        return head - start

    def _begin(self, root: Ring) -> None:
        """Journal what opens the run before all else: another process may have joined it, and ended, before this worker looked for the first time."""
        if root in self.live and root.can_be():  # its first frame alone: that was there before anybody could join
            self.move(root, min(root.words[HEAD], frame_size(int.from_bytes(root.copy(0, 8), "little") & LENGTH_MASK)))

    def note(self, content: dict[str, Any]) -> None:
        """Journal a note of the worker's own."""
        assert self._notes is not None
        self._notes.write(content)
        self.notes += 1  # behind it: whoever reads the journal when the count has been seen finds them all

    def note_drops(self, ring: Ring) -> None:
        """Journal how many records a ring has turned away, where there are more."""
        producer, dropped = self._producers[ring.id], ring.dropped()
        if dropped != producer.dropped:
            self.note({"note": "dropped", "ring": f"{ring.id:016x}", "dropped": dropped})
            producer.dropped = dropped

    def retire(self, ring: Ring) -> None:
        """Note that the producer of a ring has ended, which is empty."""
        outcome = RingOutcome(ring, self._producers[ring.id].caller)
        self._ends.note(outcome, self.note)
        self._noted = None  # the end of the run is the last note, so it comes again
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

    def end(self) -> bool:
        """Note how the run ended, once no producer is left that says anything; again where an exit code says otherwise. Returns whether it did."""
        news = self._ends.note_news(self.ended, self.note)
        if not self.rings or (self.live and not self._is_idle()):
            return False
        told = self._outcome()
        if told == self._noted and not news:
            return False
        status, why = told
        idle = {"idle": [f"{ring.id:016x}" for ring in self.live]} if self.live else {}
        self.note({"note": "run_ended", "status": status, "error": why, **idle, "time_ns": time.time_ns()})
        self._noted, self.status = told, status
        return True

    def awaits_exit(self) -> bool:
        """Return whether a process has said its last, but its exit code is still to come."""
        return any(outcome.is_open() for outcome in self.ended)

    def _is_idle(self) -> bool:
        """Return whether the owner has ended, and the others have said nothing for so long that the run ends without them."""
        owner = owner_of(self.ended)
        if owner is None or owner.may_be_daemon() or any(map(owns, self.live)):
            return False
        heard_at = max(self._producers[ring.id].moved_at for ring in self.live)
        idle_s = time.monotonic() - max(heard_at, owner.ended_at)
        return idle_s >= straggler_s(owner.ring)

    def _reopen(self) -> None:
        """Note that the run goes on, where it was said to have ended."""
        if self._noted is not None or self._had_ended:
            self.note({"note": "run_reopened", "time_ns": time.time_ns()})
            self.status = self._noted = None
            self._had_ended = False
            for ring in self.live:
                ring.words[DONE] = 0

    def _end_ring(self, outcome: RingOutcome) -> None:
        self.live.remove(outcome.ring)
        producer = self._producers.pop(outcome.ring.id)
        if not outcome.has_exited():
            self._mark_outlived()
        self.ended.insert(len(self.ended) if producer.outlived_at is None else producer.outlived_at, outcome)

    def _mark_outlived(self) -> None:
        """Note which processes are gone, though their rings are still live: a ring says at once that it ends, a dead process is looked for at times.

        Called at the word of a process that still lives. Once both have gone nobody can tell any more who was first; then the word counts as the earlier one.
        """
        for ring in self.live:
            producer = self._producers[ring.id]
            if producer.outlived_at is None and _is_gone(ring, producer.caller):
                producer.outlived_at = len(self.ended)

    def _outcome(self) -> tuple[str, str | None]:
        """Find how the run ended, and why."""
        owner = owner_of(self.ended)
        if owner is not None and not owner.is_blind():
            return run_outcome(self.ended)
        if self._earlier is None:  # an earlier worker has seen the owner's end: that stays
            self._earlier = earlier_end(self.path) or "unknown"
        return run_outcome(self.ended) if self._earlier == "unknown" else (self._earlier, None)

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
        self._remove_done()

    def _remove_done(self) -> None:
        """Remove the queues of processes that have ended, once all is delivered: a run that goes on may have thousands, one after the other.

        That of who opened the run stays: it says whose the run's backends are. So does that of the owner, where another has opened the run: by it the next
        worker knows who decides how the run ends. So do those of this very process, which has them mapped.
        """
        live, ours, owner = list(self.live), os.getpid(), owner_of(list(self.ended))
        for ring in list(self.rings):
            words = ring.words
            ended = ring not in live and words[DELIVERED] >= words[HEAD]
            stays = is_root(ring) or words[PID] == ours or (owner is not None and ring is owner.ring)
            if live and ended and not stays:
                words[DONE] = 1  # before the file goes: its process would take that for an accident
                ring.unlink()
                self.rings.remove(ring)
                ring.close()
                ring.let_go()

    def signal_done(self) -> None:
        """Tell the producers that there is nothing that they should wait for."""
        for ring in [ring for ring in self.rings if ring not in self.live]:
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

    def leave(self) -> None:
        """Let another worker of this process have the run, since this one has stopped in the middle of it."""
        if self._claim is not None:
            self._claim.leave()

    def close(self, *, done: bool) -> None:
        """Let go of the journal and the rings; `done` tells the producers that nothing is left to do."""
        if self.writer is not None:
            self.writer.close()
            self.sync()
        done = done or self._is_left
        heir = None if done else asking_host(self.path)
        for ring in self.rings:
            ring.words[DONE] = int(done)
            if not done:
                ring.words[WORKER_PID] = 0  # first: its process then does not take the missing file for an accident
            if not (heir is not None and _is_awaited(ring) and _pass_on(ring, heir)):
                ring.unlink()
        claim, self._claim = self._claim, None
        if claim is not None:
            claim.close()
        if heir is not None:
            wake_host(heir)


def _is_gone(ring: Ring, caller: Caller | None) -> bool:
    """Return whether a ring's process has ended, or is about to. What it loses first depends on its threads: the lock, or its children."""
    is_ours = ring.words[PID] == os.getpid()
    return (caller is not None and caller.is_ending()) or not (is_ours or ring.producer_lives())


def _is_awaited(ring: Ring) -> bool:
    """Return whether a ring's process lives, and may wait for what is not delivered yet. Threads of that process must not ask for its lock."""
    return ring.words[PID] == os.getpid() or ring.producer_lives()


def _pass_on(ring: Ring, heir: str) -> bool:
    """Leave a ring to the worker of another host directory, which goes on with the run; returns whether that could be done."""
    try:
        if not ring.is_there():
            return False
        hand_over(ring.path, heir)
    except OSError:  # it has left, or its directory is in another file system
        return False
    return True


def _goes_on(ring: Ring) -> bool:
    """Return whether a ring's process may put more into it; one that has just died is asked for now, not with the next scan."""
    is_ours = ring.words[PID] == os.getpid()  # threads of the caller: it must not ask for its own lock
    return not ring.words[END] and (is_ours or ring.producer_lives())
