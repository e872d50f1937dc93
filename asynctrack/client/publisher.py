"""Publisher: one process's way into a run's queue. It makes the ring, another after a fork, and decides what becomes of what the queue
does not take. Runs in the caller, in any thread, signal handler or finaliser.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from asynctrack._system import fork, messages
from asynctrack._system.throttle import EVERY_S, ONCE
from asynctrack._system.wording import counted
from asynctrack.client import worker_registry
from asynctrack.client.encode_errors import EncodeErrors
from asynctrack.client.worker_handle import WorkerHandle
from asynctrack.errors import FrameTooLarge, QueueFull, RunFinished
from asynctrack.queue.layout import DONE, FRAME_HEADER_BYTES, HEAD, KIND_SHIFT, START, WORKER_PID
from asynctrack.queue.producer import FORKED, OPEN, Producer
from asynctrack.records.codec import coerce_step, encode_any, encode_update, merge
from asynctrack.records.snapshot import MOST_BYTES
from asynctrack.settings import Settings

# Between two tries to put what found no room.
ROOM_POLL_S: Final = 0.0002
# Between two tries to make a queue for a forked child. Arbitrary: it takes a fraction of a millisecond.
_JOIN_INTERVAL_S: Final = 1.0


class Publisher:
    """Puts a run's frames into this process's ring.

    Attributes:
        producer: of the ring. A forked child gets one of its own with its first record.
        host: whose worker empties the ring.
        held: payloads of records that are kept back until the next, and then make one with it.
        is_root: whether the run was opened in this process.
        reported_drops: how many of the records that were dropped were reported.
        over: the run has finished here; a forked child does not take it up again.
        quiet: the process is ending: what comes late is dropped without an exception.
        joined: called with the producer that a forked child has got.
        directory_id: device and inode of the run's directory as the run was opened.

    Args:
        run_id: for people.
        path: the run's directory.
        settings: of the run.
        first: the number of the first record.
    """

    def __init__(self, run_id: str, path: Path, settings: Settings, *, first: int = 0) -> None:
        self.settings = settings
        self.is_root: bool = True
        self.over = self.quiet = False
        self.reported_drops: int = 0
        self.held: list[bytes] = []
        self.joined: list[Callable[[Producer], object]] = []
        self._run_id = run_id
        self._path = path
        self._lock = threading.RLock()
        self._early: list[bytes] = []
        self._odd = EncodeErrors()
        self._reopening = False
        self._join_at = 0.0
        self._turned_away = 0
        found = os.stat(path)
        self.directory_id: tuple[int, int] = (found.st_dev, found.st_ino)
        self.host: WorkerHandle
        self.producer: Producer
        self.host, self.producer = self._open(root=True, first=first)
        fork.watch(self)

    def start(self, payload: bytes) -> None:
        """Put the frame that starts the run.

        Raises:
            FrameTooLarge: the queue cannot carry it.
        """
        if not self.producer.put(payload, START << KIND_SHIFT, 0):
            raise FrameTooLarge("config", len(payload), self.producer.largest, required_queue_bytes(len(payload)))

    def serve(self) -> None:
        """See to it that there is a worker."""
        messages.start()
        self.host.start(self._path / "worker.log", self.producer.ring)

    def abandon(self) -> bool:
        """Give up a run that could not be opened; whether nobody knows of it. Else it has failed, and the worker journals that.

        From its first frame on a worker may have it, and may be about to say so: then it is left to that.
        """
        ring = self.producer.ring
        self.producer.close("failed")
        unknown = not ring.words[HEAD]
        if unknown:
            ring.words[DONE] = 1  # so that nobody misses its file
            ring.unlink()
        elif not ring.words[WORKER_PID]:
            self.serve()
        self.host.release(ring)
        return unknown

    def encode(self, data: Mapping[Any, Any], step: object) -> bytes:
        """A record with values of any kind; tells of each key whose value becomes its `repr`, once.

        Raises:
            InvalidData: `data` is not a mapping.
            InvalidStep: `step` is not an integer.
        """
        payload, strange = encode_any(
            data, None if step is None else coerce_step(step), max(MOST_BYTES, self.settings.queue_bytes or 0)
        )
        if strange:
            self._odd.note(data, strange)
            self.report_encode_errors()
        return payload

    def report_encode_errors(self, *, last: bool = False) -> None:
        """Say which keys have had values that became their `repr`, those of a minute together, and the last as the run ends."""
        about = "last values" if last else "values"
        if self._odd.waiting and self._may_warn(about):
            self.warn(about, self._odd.take())

    def on_put_failed(self, payload: bytes) -> bool:
        """What becomes of a record that the queue did not take; whether it did after all.

        Raises:
            RunFinished: the run has finished.
            QueueFull: there is no room, with `when_full="raise"`.
        """
        producer = self.producer
        if self.held:
            self.held.append(payload)
            return self.put_held()
        if producer.state == FORKED and not self.over:
            return self._reopen(payload)
        if producer.state != OPEN:
            if self.quiet:  # a daemon thread that logs while the interpreter ends should not be told off
                return self.drop("closed")
            raise RunFinished(self._run_id, "log()")
        if not self._is_full(payload):
            self.reported_drops = max(self.reported_drops, 1)
            self.warn(
                "oversize",
                f"a record of {len(payload)} bytes was dropped: the queue carries at most {producer.largest}; open the run with "
                f"queue_bytes={required_queue_bytes(len(payload))}, or log a large image, page or artifact by the path of its file",
            )
            return self.drop("oversize")
        if self.settings.when_full == "block" and not producer.interrupted():
            if self._wait_for_room(payload):
                return True
            if producer.state != OPEN:  # the run has finished meanwhile
                return self.on_put_failed(payload)
        self.drop("full")
        if self.settings.when_full == "raise":
            raise QueueFull(producer.capacity)
        return False

    def after_fork(self) -> None:
        """In a forked child: what is kept back is the parent's to put."""
        self._lock = threading.RLock()
        self._reopening = False
        self._early = []
        self._join_at = 0.0
        self._turned_away = self.reported_drops = 0  # the parent counts its own
        self.held.clear()

    def put_held(self) -> bool:
        """Put what is kept back, as one record; see `on_put_failed`."""
        held: list[bytes] = []
        with contextlib.suppress(IndexError):  # one at a time: another thread may take them, too
            while True:
                held.append(self.held.pop(0))
        if not held:  # another thread has put it
            return True
        payload = merge(held)
        return self.producer.put(payload) or self.on_put_failed(payload)

    def waits_for_room(self, payload: bytes) -> bool:
        """Whether a record that the queue did not take is to wait for room."""
        return self.settings.when_full == "block" and self._is_full(payload) and not self.held

    def drop(self, reason: str) -> Literal[False]:
        """Count a record that is turned away."""
        self.producer.drop(reason)
        if reason == "full" and self._may_warn("full"):
            dropped = self.producer.ring.dropped().get("full", 0)
            why = self.trouble() or ": the worker does not keep up"
            self.warn("full", f"{counted(dropped, 'record')} dropped so far, the queue is full{why}")
            self.reported_drops = dropped
        return False

    def update(
        self,
        kind: int,
        what: str,
        fresh: Mapping[str, Any],
        deadline: float | None = None,
        removed: Sequence[str] = (),
    ) -> None:
        """Put a frame that is not a record; waits for room until the deadline, `max_block_s` by default.

        Raises:
            RunFinished: the run has finished.
            FrameTooLarge: the queue cannot carry it.
            QueueFull: there is no room.
        """
        payload = encode_update(fresh, removed)
        if self.producer.put(payload, kind << KIND_SHIFT, 0):
            return
        if self.producer.state == FORKED and not self.over and not self._reopening:
            with self._lock:
                try:
                    self._take_part()  # what a child sets is recorded as what it logs is
                except Exception as error:
                    raise QueueFull(self.producer.capacity) from error
        if self.producer.state == FORKED:
            return  # it has finished, or a signal handler has come in between
        if self.producer.state != OPEN:
            raise RunFinished(self._run_id, f"setting the {what}")
        if len(payload) > self.producer.largest:
            raise FrameTooLarge(f"this {what}", len(payload), self.producer.largest, required_queue_bytes(len(payload)))
        deadline = deadline or time.monotonic() + self.settings.max_block_s
        while not self.producer.put(payload, kind << KIND_SHIFT, 0):
            if self.producer.state != OPEN:
                raise RunFinished(self._run_id, f"setting the {what}")
            if time.monotonic() > deadline or self.producer.interrupted():
                raise QueueFull(self.producer.capacity)
            time.sleep(ROOM_POLL_S)

    def trouble(self) -> str:
        """What keeps the worker from journaling, in words; empty where nothing does."""
        what = self.producer.ring.trouble()
        return f": the journal cannot be written ({what})" if what else ""

    def hindrance(self) -> str | None:
        """What keeps the worker from the journal, in words; None where nothing does."""
        return None if self.producer.state == FORKED else self.producer.ring.trouble()

    def warn(self, about: str, message: str, *, once: bool = False) -> None:
        """Say something about the run, at most once a minute."""
        every_s = ONCE if once else EVERY_S
        messages.warn((self._path, about), f"asynctrack: run {self._run_id}: {message}", every_s=every_s)

    def _may_warn(self, about: str) -> bool:
        return messages.due((self._path, about))

    def _open(self, *, root: bool, first: int = 0) -> tuple[WorkerHandle, Producer]:
        meta = {
            "run": str(self._path),
            "disk": self.directory_id[0],
            "root": root,
            "linger_s": self.settings.linger_s,
            "sync_interval_s": self.settings.sync_interval_s,
        }
        return worker_registry.open_ring(self.settings.worker, meta, self.settings.queue_bytes, first=first)

    def _reopen(self, payload: bytes) -> bool:
        """The first record of a forked child: it gets a ring of its own, in the same run."""
        with self._lock:
            if self._reopening:  # a signal handler or finaliser that logs while the ring is made
                self._early.append(payload)
                return True
            try:
                self._take_part()
            except Exception as error:  # there is no room, or an audit hook is against it
                return self._turn_away(error)
        early, self._early = self._early, []
        results = [self.producer.put(late) or self.on_put_failed(late) for late in (payload, *early)]
        return results[0]

    def _take_part(self) -> None:
        """A forked child gets a ring of its own, in the same run, if it has none; with the lock."""
        if self.producer.state == FORKED:
            self._reopening = True
            try:
                self._join()
            finally:
                self._reopening = False

    def _join(self) -> None:
        if time.monotonic() < self._join_at:
            raise BlockingIOError(errno.EAGAIN, "it has just been tried")
        self.host, self.producer = self._open(root=False)
        self.is_root = False
        if self._turned_away:
            self.producer.drop("full", self._turned_away)
        for joined in self.joined:
            joined(self.producer)
        self.serve()

    def _turn_away(self, error: Exception) -> Literal[False]:
        """A record of a forked child that has no queue, because there is no room for one: it is counted when there is."""
        self._turned_away += 1
        if not isinstance(error, BlockingIOError):
            self._join_at = time.monotonic() + _JOIN_INTERVAL_S
            self.warn("full", f"{counted(self._turned_away, 'record')} of this process dropped so far: {error}")
        return False

    def _is_full(self, payload: bytes) -> bool:
        """Whether it was for want of room that the queue did not take a record."""
        return self.producer.state == OPEN and len(payload) <= self.producer.largest

    def _wait_for_room(self, payload: bytes) -> bool:
        deadline = time.monotonic() + self.settings.max_block_s
        while time.monotonic() < deadline and self.producer.state == OPEN:
            time.sleep(ROOM_POLL_S)
            if self.producer.put(payload):
                return True
        return False


def required_queue_bytes(size: int) -> int:
    """`queue_bytes` with which a payload of this size is carried: a frame takes at most half of them."""
    return 1 << (2 * size + 4 * FRAME_HEADER_BYTES - 1).bit_length()
