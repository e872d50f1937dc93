"""Publisher: one process's way into a run's queue. It puts what the run records, and decides what becomes of what the queue does not take.

Runs in the caller, in any thread, signal handler or finaliser. `WriteGate` says whether a record may be written; here is what then happens.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from asynctrack._system import fork
from asynctrack._system.wording import counted
from asynctrack.client.child_queue import ChildQueue
from asynctrack.client.run_queue import RunQueue
from asynctrack.client.run_warnings import RunWarnings
from asynctrack.client.write_gate import (
    CLOSED,
    ENDED,
    FINISHED,
    FORKED,
    HOLDING,
    OPEN,
    REOPENING,
    PutHolder,
    WriteGate,
    WriteState,
)
from asynctrack.client.writer import Joining
from asynctrack.errors import FrameTooLarge, QueueFull, RunFinished
from asynctrack.queue.layout import FRAME_HEADER_BYTES, KIND_SHIFT, START
from asynctrack.queue.producer import Producer
from asynctrack.records.codec import coerce_step, encode_any, encode_update, merge
from asynctrack.records.snapshot import MOST_BYTES
from asynctrack.settings import Settings

# Between two tries to put what found no room.
ROOM_POLL_S: Final = 0.0002
# The same of `put_async`, which leaves the event loop to others meanwhile. Arbitrary.
_ASYNC_ROOM_POLL_S: Final = 0.01


class Publisher:
    """Puts a run's frames into this process's queue.

    Attributes:
        gate: says whether the run takes records.
        queue: of this process. A forked child gets one of its own with its first record.
        warnings: what is said of the run.
        settings: of the run.
        reported_drops: the number of records that were reported as dropped.

    Args:
        run_id: for people.
        path: the run's directory.
        settings: of the run.
        first: the number of the first record.
        joining: who this process is among several writers, see `RunQueue`.
    """

    def __init__(
        self, run_id: str, path: Path, settings: Settings, *, first: int = 0, joining: Joining | None = None
    ) -> None:
        self.settings = settings
        self.warnings: RunWarnings = RunWarnings(run_id, path)
        self.reported_drops: int = 0
        self.gate: WriteGate = WriteGate()
        self._run_id = run_id
        self._held: list[bytes] = []  # payloads of `log(commit=False)`, and never of a record that is complete
        self._holding = threading.RLock()
        self.queue: RunQueue = RunQueue(path, settings, joining)
        self._child = ChildQueue(self.queue, self.gate, self.warnings)
        # Before the ring is: after a fork, objects are told in this order, and the child's gate has to close before its ring does.
        fork.watch(self)
        self.queue.open(first)
        self.gate.lead_to(self.queue.producer.put)

    @property
    def state(self) -> WriteState:
        """Return the gate's state: the answer to "may I write?"."""
        return self.gate.state

    @property
    def producer(self) -> Producer:
        """Return the producer of this process's queue."""
        return self.queue.producer

    @property
    def offered(self) -> int:
        """Return the number of the next record."""
        return self.producer.number

    def on_child_begun(self, call: Callable[[], object]) -> None:
        """Have a function called when a forked child has something to do at its end; see `ChildQueue`."""
        self._child.begun.append(call)

    def start(self, payload: bytes, kind: int = START) -> None:
        """Put the frame that starts the run, or with which this process joins it.

        Raises:
            FrameTooLarge: the queue cannot carry it.
        """
        if not self.producer.put(payload, kind << KIND_SHIFT, 0):
            raise FrameTooLarge("config", len(payload), self.producer.largest, required_queue_bytes(len(payload)))

    def serve(self, holder: PutHolder) -> None:
        """Set the bound method by which a run puts its records, now and whenever it changes."""
        self.gate.serve(holder)

    def encode(self, data: Mapping[Any, Any], step: object) -> bytes:
        """Encode a record with values of any kind; tell of each key whose value becomes its `repr`, once.

        Raises:
            InvalidData: `data` is not a mapping.
            InvalidStep: `step` is not an integer.
        """
        payload, strange = encode_any(
            data, None if step is None else coerce_step(step), max(MOST_BYTES, self.settings.queue_bytes or 0)
        )
        if strange:
            self.warnings.note_encode_errors(data, strange)
        return payload

    def on_put_failed(self, payload: bytes) -> bool:
        """Decide what becomes of a record that was not put at once, and return whether it is accepted after all.

        Raises:
            RunFinished: the run has finished.
            QueueFull: there is no room, with `when_full="raise"`.
        """
        if self.gate.state is HOLDING:
            is_put, record, _ = self._put_with_held(payload)
            return is_put or self._put_alone(record)
        return self._put_alone(payload)

    async def put_async(self, payload: bytes) -> bool:
        """Put a record; where it has to wait for room, leave the event loop to others."""
        if self.gate.puts_at_once and self.producer.put(payload):
            return True
        if self.settings.when_full != "block" or not self.gate.is_writable:
            return self.on_put_failed(payload)
        import anyio

        deadline = time.monotonic() + self.settings.max_block_s
        is_put, record, held = self._put_with_held(payload)
        try:
            while not is_put and self.gate.is_writable and len(record) <= self.producer.largest:
                if time.monotonic() >= deadline:
                    return self.drop("full")
                await anyio.sleep(_ASYNC_ROOM_POLL_S)
                is_put = self.producer.put(record)
        except BaseException:  # the call is cancelled, not what was kept back before it
            if held:
                self._keep_back(before=held)
            raise
        return is_put or self._put_alone(record)

    def hold(self, payload: bytes) -> bool:
        """Keep a record back until the next, or the end; then both are put as one.

        Raises:
            RunFinished: the run has finished.
        """
        if self.gate.state is FORKED:  # without a queue nobody would put it when the child ends
            try:
                early = self._child.make()
            except Exception as error:
                return self._turn_away(error)
            self._put_early(early)
        if self.gate.state not in (OPEN, HOLDING):
            return (self.gate.puts_at_once and self.producer.put(payload)) or self.on_put_failed(payload)
        return self._keep_back(after=[payload])

    def put_held(self) -> bool:
        """Put what is kept back, as one record; see `on_put_failed`."""
        is_put, record, _ = self._put_with_held()
        return is_put or self._put_alone(record)

    def put_early(self) -> None:
        """Put what was accepted while a forked child's queue could not be made; what gets none now is counted as dropped."""
        if self._child.has_early:
            try:
                self._put_early(self._child.make(at_once=True))
            except Exception as error:
                self._child.turn_early_away(error)

    def report_turned_away(self) -> None:
        """Say how many records a forked child has dropped that got no queue."""
        self._child.report()

    def update(
        self,
        kind: int,
        what: str,
        fresh: Mapping[str, Any],
        deadline: float | None = None,
        removed: Sequence[str] = (),
    ) -> None:
        """Put a frame that is not a record; wait for room until the deadline, `max_block_s` by default.

        Raises:
            RunFinished: the run has finished.
            FrameTooLarge: the queue cannot carry it.
            QueueFull: there is no room.
        """
        payload = encode_update(fresh, removed)
        if self.gate.state in (FORKED, REOPENING):
            try:
                early = self._child.make()  # a child's config and summary need a queue of its own, as its records do
            except Exception as error:
                raise QueueFull(self.producer.capacity) from error
            self._put_early(early)
        if self.gate.state is FINISHED:
            raise self._finished(f"setting the {what}")
        if not self.queue.is_own:
            return  # this signal handler interrupts the call that makes the child's queue
        deadline = deadline or time.monotonic() + self.settings.max_block_s
        while not self._put_update(payload, kind, what):
            if time.monotonic() > deadline or self.producer.interrupted():
                raise QueueFull(self.producer.capacity)
            time.sleep(ROOM_POLL_S)

    def preempt(self) -> None:
        """Say that the end that follows is a preemption."""
        self.producer.preempt()

    def drop(self, reason: str) -> Literal[False]:
        """Count a record that is turned away."""
        self.producer.drop(reason)
        if reason == "full" and self.warnings.is_due("full"):
            dropped = self.producer.ring.dropped().get("full", 0)
            trouble = self.queue.trouble()
            why = f": the journal cannot be written ({trouble})" if trouble else ": the worker does not keep up"
            self.warnings.warn("full", f"{counted(dropped, 'record')} dropped so far, the queue is full{why}")
            self.reported_drops = dropped
        return False

    def exit(self) -> None:
        """Say that the end that follows is that of the process; from here on nothing is kept back."""
        self.gate.change("exit")
        if self.queue.is_own:
            self.producer.exit()

    def close(self, end: str) -> None:
        """Take no more, and tell the worker how the run ended. Where Ctrl-C breaks this off it can be called again."""
        self.gate.change("close")
        with self._holding:
            late, self._held = self._held, []
        if late:  # another thread kept it back after `put_held`
            self.producer.drop("closed")
        self.producer.close(end)

    def finish(self) -> None:
        """Say that the run is over in this process, and in those that it forks from here on."""
        self.gate.change("finish")
        self.gate.leave()
        self._child.begun.clear()

    def abandon(self) -> bool:
        """Give up a run that could not be opened, and return whether nobody knows of it; see `RunQueue.discard`."""
        self.gate.change("abandon")
        return self.queue.discard()

    def after_fork(self) -> None:
        """Begin anew in a forked child: what is kept back is the parent's to put, and it counts its own drops."""
        self._child.after_fork()
        self.gate.after_fork()
        self.reported_drops = 0
        self._held = []
        self._holding = threading.RLock()

    def _put_alone(self, payload: bytes) -> bool:
        """Decide as `on_put_failed` does, of a record that takes nothing along of what is kept back."""
        state = self.gate.state
        if state in (FORKED, REOPENING):
            return self._reopen(payload)
        if state is ENDED:
            return self.drop("closed")
        if state in (CLOSED, FINISHED):
            raise self._finished("log()")
        return self._put_when_there_is_room(payload)

    def _put_when_there_is_room(self, payload: bytes) -> bool:
        """Put a record that the queue of an open run did not take, as `when_full` says."""
        producer = self.producer
        if len(payload) > producer.largest:
            return self._drop_oversize(payload)
        # Another thread may have put what was kept back, or made room, since `put` refused.
        if not producer.is_known_to_be_full(len(payload)) and producer.put(payload):
            return True
        if self.settings.when_full == "block" and not producer.interrupted() and self._wait_for_room(payload):
            return True
        if not self.gate.is_writable:  # the run has finished meanwhile
            return self._put_alone(payload)
        self.drop("full")
        if self.settings.when_full == "raise":
            raise QueueFull(producer.capacity)
        return False

    def _wait_for_room(self, payload: bytes) -> bool:
        deadline = time.monotonic() + self.settings.max_block_s
        while time.monotonic() < deadline and self.gate.is_writable:
            time.sleep(ROOM_POLL_S)
            if self.producer.put(payload):
                return True
        return False

    def _drop_oversize(self, payload: bytes) -> Literal[False]:
        self.reported_drops = max(self.reported_drops, 1)
        self.warnings.warn(
            "oversize",
            f"a record of {len(payload)} bytes was dropped: the queue carries at most {self.producer.largest}; "
            f"{'open the run' if self.queue.is_root else 'attach'} with queue_bytes={required_queue_bytes(len(payload))}, or log a large image, page or artifact by the path of its file",
        )
        return self.drop("oversize")

    def _finished(self, call: str) -> RunFinished:
        return RunFinished(self._run_id, call, joined=not self.queue.is_root)

    def _put_update(self, payload: bytes, kind: int, what: str) -> bool:
        if not self.gate.is_writable:
            raise self._finished(f"setting the {what}")
        if self.producer.put(payload, kind << KIND_SHIFT, 0):
            return True
        if len(payload) > self.producer.largest:
            raise FrameTooLarge(f"this {what}", len(payload), self.producer.largest, required_queue_bytes(len(payload)))
        return False

    def _keep_back(self, before: Sequence[bytes] = (), after: Sequence[bytes] = ()) -> bool:
        with self._holding:
            self._held[:0] = before
            self._held.extend(after)
            if self.gate.change("hold") or self.gate.state is HOLDING:
                return True
        return self.put_held()  # the run ends: another thread may have put what was kept back

    def _put_with_held(self, *last: bytes) -> tuple[bool, bytes, list[bytes]]:
        """Try to put what is kept back, and the record that goes with it, as one; return whether it is put, the record, and what was kept back.

        It is put before anything else is kept back: so what a thread records stays in its order, whichever thread puts it. What finds no room waits
        outside of the lock, and may be overtaken there; nothing is added to it any more, since it is older than what is kept back meanwhile.
        """
        with self._holding:
            # On one line, so that no signal handler runs between the two assignments.
            held, self._held = self._held, []
            record = merge([*held, *last]) if held else b"".join(last)
            is_put = not record or self.producer.put(record)
            self._release()
        return is_put, record, held

    def _release(self) -> None:
        """Keep nothing back any more, but for what a signal handler has kept back meanwhile."""
        if not self._held:
            self.gate.change("release")
        if self._held:
            self.gate.change("hold")

    def _reopen(self, payload: bytes) -> bool:
        """Put the first record of a forked child: it gets a queue of its own, in the same run."""
        try:
            early = self._child.make_for(payload)
        except Exception as error:
            return self._turn_away(error)
        if early is None:  # the call that makes the queue will put it
            return True
        try:
            return self.producer.put(payload) or self.on_put_failed(payload)
        finally:
            self._put_early(early)

    def _put_early(self, early: Sequence[bytes]) -> None:
        """Put what was accepted while a forked child's queue was made; its callers are not told any more what becomes of it."""
        for payload in early:
            try:
                if not self.producer.put(payload):
                    self.on_put_failed(payload)
            except QueueFull:  # it is counted
                continue
            except RunFinished:
                self.drop("closed")

    def _turn_away(self, error: Exception) -> Literal[False]:
        self._child.turn_away(error)
        return False


def required_queue_bytes(size: int) -> int:
    """Say with which `queue_bytes` a payload of this size is carried: a frame takes at most half of them."""
    return 1 << (2 * size + 4 * FRAME_HEADER_BYTES - 1).bit_length()
