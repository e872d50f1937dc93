"""Run: one open run, as users hold it. Runs in the caller."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import time_ns
from typing import Any, Final, Literal

from asynctrack import ending
from asynctrack import host as hosts
from asynctrack.backends.base import Backend
from asynctrack.backends.registry import place_of
from asynctrack.books import Books, Stats
from asynctrack.current import leave
from asynctrack.errors import FrameTooLarge, InvalidData, InvalidSettings, QueueFull, RunFinished
from asynctrack.fields import Fields
from asynctrack.manifest import Manifest, start_payload
from asynctrack.queue.layout import (
    CHECKPOINT,
    CONFIG,
    DELIVERED,
    DONE,
    FAILURE,
    KIND_SHIFT,
    START,
    SUMMARY,
    SYNCED,
    TAIL,
    TROUBLE,
)
from asynctrack.queue.producer import FORKED, OPEN, Producer
from asynctrack.record import coerce_step, encode, encode_any, make_plain, short_repr
from asynctrack.scope import Scope
from asynctrack.settings import Settings, Until

# Between two warnings about the same thing.
_WARN_INTERVAL_S: Final = 60.0
# A wait looks again after 0.2 ms, then ever less often, at most every 10 ms.
_FIRST_POLL_S: Final = 0.0002
_LONGEST_POLL_S: Final = 0.01
# Which of the worker's words a wait looks at.
_WORDS: Final = {"journaled": TAIL, "synced": SYNCED, "delivered": DELIVERED}

_log = logging.getLogger("asynctrack")
_runs: weakref.WeakSet[Run] = weakref.WeakSet()


class Run:
    """One open run.

    `log` may be called from any thread, task, signal handler or finaliser, and in forked children. Get one from `init()`.

    Attributes:
        id: unique in the project.
        name: for people.
        project: the directory above the run's.
        path: the run's directory.
        config: of the run; what is set later is recorded too.
        summary: of the run as a whole.
    """

    log: Callable[..., bool]

    def __init__(
        self, manifest: Manifest, path: Path, settings: Settings, backends: dict[str, Backend], *, first: int = 0
    ) -> None:
        self.id = manifest.id
        self.name = manifest.name
        self.project = manifest.project
        self.path = path
        self.config = Fields(manifest.config, lambda fresh: self._update(CONFIG, "config", fresh))
        self.summary = Fields(manifest.summary, lambda fresh: self._update(SUMMARY, "summary", fresh))
        self._settings = settings
        self._backends = backends
        self._lock = threading.RLock()
        self._early: list[bytes] = []
        self._reopening = False
        self._warned: dict[str, float] = {}
        self._books = Books(path)
        self._result: Stats | None = None
        self._local: Any = None
        self._ended_quietly = False
        self._checkpoint = manifest.checkpoint
        self._producer = self._open(root=True, first=first)
        self._put = self._producer.put
        self._start(manifest)

    def __repr__(self) -> str:
        state = "open" if self._producer.state == OPEN else "finished"
        return f"<Run {self.project}/{self.id}, {state}, {self._producer.number} offered>"

    def log(self, data: Mapping[str, Any], step: int | None = None) -> bool:  # type: ignore[no-redef]  # see above
        """Record `data` as it is now. Never waits for I/O (but see `when_full="block"`).

        Args:
            data: names to values: numbers, strings, arrays, nested dicts. What cannot be encoded is recorded as its `repr`.
            step: steps may repeat and come in any order; without one it is the number of the record.

        Returns:
            True: accepted, it survives the process. False: dropped and counted, see `when_full`.

        Raises:
            InvalidData: `data` is not a mapping.
            InvalidStep: `step` is not an integer.
            RunFinished: the run has finished.
            QueueFull: there is no room, with `when_full="raise"`.
        """
        if type(data) is not dict or (step is not None and type(step) is not int):
            data, step = _coerce(data, step)
        try:
            payload = encode((time_ns(), step, data))
        except Exception:  # a value that MessagePack cannot hold, or whose own code failed
            payload = self._encode_any(data, step)
        return self._put(payload) or self._not_put(payload)

    async def alog(self, data: Mapping[str, Any], step: int | None = None) -> bool:
        """`log`, but with `when_full="block"` it waits for room without holding the event loop."""
        payload = self._encode_any(*_coerce(data, step))
        if self._put(payload):
            return True
        if self._settings.when_full != "block" or not self._is_full(payload):
            return self._not_put(payload)
        import anyio

        deadline = time.monotonic() + self._settings.max_block_s
        while time.monotonic() < deadline:
            await anyio.sleep(_LONGEST_POLL_S)
            if self._put(payload):
                return True
        return self._drop("full")

    def bind(self, fields: Mapping[str, Any]) -> Scope:
        """A light child of this run that adds constant fields to each record."""
        return Scope(self).bind(fields)

    def scope(self, prefix: str, every: int = 1) -> Scope:
        """A light child of this run whose keys get `prefix/`, and which records every so many steps only."""
        return Scope(self).scope(prefix, every)

    def stats(self) -> Stats:
        """The books as they stand. Reads files: not for the hot loop."""
        if self._result is not None:
            return self._result
        with self._lock:
            books, self._books = self._books, Books(self.path)  # a signal handler that comes in between takes its own
            try:
                own = [self._producer.ring] if self._producer.state != FORKED else []
                return books.take(own, self._host.others(), self._backends)
            finally:
                self._books = books

    def flush(self, until: Until = "delivered", timeout_s: float = 30.0) -> Stats:
        """Wait until what was logged so far is delivered, synced or journaled; returns the books, late or not.

        Args:
            until: "journaled": it survives this process and the container's memory; "synced": a power cut too; "delivered": every
                backend has it.
            timeout_s: seconds to wait at most.
        """
        for pause in self._flushing(until, timeout_s):
            time.sleep(pause)
        return self.stats()

    async def aflush(self, until: Until = "delivered", timeout_s: float = 30.0) -> Stats:
        """`flush` that leaves the event loop to others; under asyncio and trio."""
        import anyio

        for pause in self._flushing(until, timeout_s):
            await anyio.sleep(pause)
        return self.stats()

    def checkpoint(self, **counters: Any) -> Stats:
        """Make sure that everything logged before this is on disk and survives a power cut, and remember where you are.

        Call it when you save your own state. `last_checkpoint()` gives the counters back when the run is resumed.

        Raises:
            RunFinished: the run has finished.
        """
        self._mark(counters)
        return self.flush("synced")

    async def acheckpoint(self, **counters: Any) -> Stats:
        """`checkpoint` that leaves the event loop to others; under asyncio and trio."""
        self._mark(counters)
        return await self.aflush("synced")

    def last_checkpoint(self) -> dict[str, Any] | None:
        """The counters of the last `checkpoint`, of this run or of the one it resumes; None if there was none."""
        return None if self._checkpoint is None else dict(self._checkpoint)

    def mark_preempted(self) -> None:
        """Say that the machine is being taken away: however the run ends from here, its status is "preempted"."""
        self._producer.preempt()

    def finish(self, summary: Mapping[str, Any] | None = None) -> Stats:
        """End the run: take no more records, wait for delivery, return the books. Calling it again returns the same.

        It returns by `finish_timeout_s`. What is not delivered then is on disk, and the worker goes on with it.
        """
        for pause in self._finishing("finished", summary):
            time.sleep(pause)
        return self._settled()

    async def afinish(self, summary: Mapping[str, Any] | None = None) -> Stats:
        """`finish` that leaves the event loop to others; under asyncio and trio."""
        return await self._afinish("finished", summary)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        for pause in self._finishing(*_outcome(error)):
            time.sleep(pause)
        self._settled()

    async def __aenter__(self) -> Run:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        await self._afinish(*_outcome(error))

    @property
    def needs_threads(self) -> bool:
        """For `ending` only: whether threads of this process deliver."""
        return self._settings.worker == "thread" or self._local is not None

    # Opening

    @property
    def _host(self) -> hosts.Host:
        return self._joined

    def _open(self, *, root: bool, first: int = 0) -> Producer:
        """A ring for this run in this process."""
        meta = {
            "run": str(self.path),
            "root": root,
            "linger_s": self._settings.linger_s,
            "sync_interval_s": self._settings.sync_interval_s,
        }
        kind = self._settings.worker
        while True:
            self._joined = hosts.host_for(kind)
            try:
                return self._joined.open_ring(meta, self._settings.queue_bytes, first=first)
            except FileNotFoundError:
                hosts.forget(self._joined)  # the worker has left; the next try makes a new host

    def _start(self, manifest: Manifest) -> None:
        payload = start_payload(manifest)
        if not self._put(payload, START << KIND_SHIFT, 0):
            limit = self._producer.largest
            self._producer.ring.unlink()
            self._producer.close("finished")
            self._host.release(self._producer.ring)
            raise FrameTooLarge("config", len(payload), limit)
        if self._settings.worker == "thread":
            self._host.local[str(self.path)] = self._backends
        else:
            self._start_local()
        self._host.start(self.path / "worker.log", self._producer.ring)
        _runs.add(self)
        ending.opened(self)

    def _start_local(self) -> None:
        """Deliver on a thread here to the backends that need this process."""
        here = {name: backend for name, backend in self._backends.items() if place_of(backend) == "caller"}
        if here:
            from asynctrack.local import LocalDeliveries

            self._local = LocalDeliveries(self.path, here)

    def _reopen(self, payload: bytes) -> bool:
        """The first record of a forked child: it gets a ring of its own, in the same run."""
        with self._lock:
            if self._reopening:  # a signal handler or finaliser that logs while the ring is made
                self._early.append(payload)
                return True
            if self._producer.state == FORKED:
                self._reopening = True
                try:
                    self._producer = self._open(root=False)
                    self._put = self._producer.put
                    self._host.start(self.path / "worker.log", self._producer.ring)
                    ending.opened(self)
                finally:
                    self._reopening = False
        early, self._early = self._early, []
        results = [self._put(late) or self._not_put(late) for late in (payload, *early)]
        return results[0]

    # Recording

    def _encode_any(self, data: Mapping[Any, Any], step: int | None) -> bytes:
        payload, strange = encode_any(data, coerce_step(step))
        for key in strange:
            if (about := f"value {key}") not in self._warned:
                text = short_repr(data, key)
                self._warn(
                    about, f"the value of {key!r} cannot be encoded and is recorded as its repr: {text}", once=True
                )
        return payload

    def _not_put(self, payload: bytes) -> bool:
        """What `log` does with a record that the queue did not take."""
        producer = self._producer
        if producer.state == FORKED and self._result is None:
            return self._reopen(payload)
        if producer.state != OPEN:
            if self._ended_quietly:  # the interpreter is ending; a daemon thread should not be told off
                return self._drop("closed")
            raise RunFinished(self.id, "log()")
        if not self._is_full(payload):
            self._warn(
                "oversize",
                f"a record of {len(payload)} bytes was dropped: the queue carries at most {producer.largest}",
            )
            return self._drop("oversize")
        if self._settings.when_full == "block" and not producer.interrupted() and self._wait_for_room(payload):
            return True
        self._drop("full")
        if self._settings.when_full == "raise":
            raise QueueFull(producer.capacity)
        return False

    def _is_full(self, payload: bytes) -> bool:
        return self._producer.state == OPEN and len(payload) <= self._producer.largest

    def _wait_for_room(self, payload: bytes) -> bool:
        deadline = time.monotonic() + self._settings.max_block_s
        while time.monotonic() < deadline:
            time.sleep(_FIRST_POLL_S)
            if self._put(payload):
                return True
        return False

    def _drop(self, reason: str) -> Literal[False]:
        self._producer.drop(reason)
        if reason == "full":
            trouble = self._producer.ring.words[TROUBLE]
            why = (
                f"the journal cannot be written ({os.strerror(trouble)})" if trouble else "the worker does not keep up"
            )
            dropped = self._producer.ring.dropped().get("full", 0)
            self._warn("full", f"{dropped} records dropped so far, the queue is full: {why}")
        return False

    def _mark(self, counters: dict[str, Any]) -> None:
        self._update(CHECKPOINT, "checkpoint", counters)
        self._checkpoint = counters

    def _update(self, kind: int, what: str, fresh: Mapping[str, Any], deadline: float | None = None) -> None:
        payload = _encode_update(fresh)
        if self._put(payload, kind << KIND_SHIFT, 0):
            return
        if self._producer.state == FORKED:
            return  # what a child sets is its own
        if self._producer.state != OPEN:
            raise RunFinished(self.id, f"setting the {what}")
        if len(payload) > self._producer.largest:
            raise FrameTooLarge(f"this {what}", len(payload), self._producer.largest)
        deadline = deadline or time.monotonic() + self._settings.max_block_s
        while not self._put(payload, kind << KIND_SHIFT, 0):
            if time.monotonic() > deadline or self._producer.interrupted():
                raise QueueFull(self._producer.capacity)
            time.sleep(_FIRST_POLL_S)

    def _warn(self, about: str, message: str, *, once: bool = False) -> None:
        now = time.monotonic()
        if now >= self._warned.get(about, 0.0):
            self._warned[about] = float("inf") if once else now + _WARN_INTERVAL_S
            _log.warning("asynctrack: run %s: %s", self.id, message)

    # Waiting. Generators of pauses, so that the sync and the async twin are one.

    def _flushing(self, until: Until, timeout_s: float) -> Iterator[float]:
        producer = self._producer
        if until not in _WORDS:
            raise InvalidSettings([f"until must be one of {', '.join(map(repr, _WORDS))}; got {until!r:.80}"])
        if producer.state != OPEN:
            return
        word = _WORDS[until]
        wanted = producer.want()
        local = self._local if until == "delivered" else None
        yield from self._until(
            lambda: producer.ring.words[word] >= wanted and (local is None or local.has(producer.ring.id, wanted)),
            timeout_s,
        )

    def _finishing(
        self,
        status: str,
        summary: Mapping[str, Any] | None = None,
        error: str | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[float]:
        if summary is not None and not isinstance(summary, Mapping):
            raise InvalidData(summary, "summary")
        if self._result is not None:
            return
        deadline = time.monotonic() + (self._settings.finish_timeout_s if timeout_s is None else timeout_s)
        while not self._producer.settle() and time.monotonic() < deadline:
            yield _LONGEST_POLL_S
        with self._lock:
            producer = self._producer
            if producer.state == OPEN:
                try:
                    if summary:
                        dict.update(self.summary, summary)
                        self._update(SUMMARY, "summary", summary, deadline)
                    if error:
                        self._update(FAILURE, "error", {"error": error}, deadline)
                except (FrameTooLarge, QueueFull) as lost:  # no room for it: the run ends all the same
                    self._warn("end", f"its end is recorded without summary or error: {lost}")
                producer.close(status)
        if producer.state != FORKED:
            yield from self._until(self._is_done, deadline - time.monotonic())

    def _settled(self) -> Stats:
        """The result of `finish`, taken once; then the ring is let go."""
        with self._lock:
            if self._result is None:
                self._result = self.stats()
                leave(self)
                if not self.needs_threads or self._is_done():
                    self._let_go()  # else it is waited for once more when the interpreter ends
            return self._result

    def _is_done(self) -> bool:
        """Whether nothing is left to deliver."""
        return bool(self._producer.ring.words[DONE]) and (self._local is None or self._local.done)

    def _let_go(self) -> None:
        ending.closed(self)
        if self._producer.state != FORKED:
            self._host.release(self._producer.ring)
        self._books.close()
        if self._local is not None:
            self._local.stop()

    async def _afinish(self, status: str, summary: Mapping[str, Any] | None = None, error: str | None = None) -> Stats:
        import anyio

        pauses = self._finishing(status, summary, error)
        try:
            for pause in pauses:
                await anyio.sleep(pause)
        finally:
            result = self._settled()
        return result

    def _until(self, reached: Callable[[], object], timeout_s: float) -> Iterator[float]:
        deadline = time.monotonic() + timeout_s
        pause = _FIRST_POLL_S
        ring = self._producer.ring
        self._host.wake()
        while not reached():
            left = deadline - time.monotonic()
            if left <= 0:
                return
            self._host.look(ring, wake=False)
            yield min(pause, left)
            pause = min(pause * 1.5, _LONGEST_POLL_S)

    def exiting(self, error: BaseException | None) -> Iterator[float]:
        """For `ending` only: finish because the process ends. Nobody reads the books any more."""
        self._ended_quietly = True
        if self._result is None:
            status, _, text = _outcome(error)
            yield from self._finishing(status, None, text, timeout_s=self._settings.exit_timeout_s)
        else:
            yield from self._until(self._is_done, self._settings.exit_timeout_s)
        self._let_go()


def _coerce(data: Mapping[str, Any], step: object) -> tuple[Mapping[str, Any], int | None]:
    if not isinstance(data, Mapping):
        raise InvalidData(data)
    return data, coerce_step(step)


def _encode_update(fresh: Mapping[str, Any]) -> bytes:
    try:
        return encode((time_ns(), dict(fresh)))
    except Exception:  # a value that MessagePack cannot hold, or whose own code failed
        return encode((time_ns(), make_plain(fresh)))


def _outcome(error: BaseException | None) -> tuple[str, None, str | None]:
    """How a run ends whose block or process ends so: status, no summary, and the error in words."""
    if error is None or (isinstance(error, SystemExit) and not error.code):
        return "finished", None, None
    try:
        text = f"{type(error).__name__}: {error}".removesuffix(": ")
    except Exception:  # its own code failed
        text = type(error).__name__
    return "failed", None, text[:1000]


def _after_fork_in_child() -> None:
    for run in list(_runs):
        run._lock = threading.RLock()
        run._books = Books(run.path)  # another thread may have been reading
        run._local = None
        run._reopening = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
