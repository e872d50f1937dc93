"""Session: what a process has to do with a run that it has open, but for logging: the worker and the deliveries behind it, the waits for
them, the statistics, and the end. Runs in the caller.

Waits are generators of pauses in seconds, so that a call and its async twin are one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import msgspec

from asynctrack._system import fork, messages
from asynctrack._system.background import start_thread
from asynctrack._system.disk_timeout import DiskTimeout
from asynctrack._system.masking import mask_text
from asynctrack._system.private import threads_are_over
from asynctrack._system.wording import counted
from asynctrack.backends.base import Backend
from asynctrack.backends.registry import execution_of
from asynctrack.client import final_report, health, shutdown
from asynctrack.client.health import HealthMonitor
from asynctrack.client.publisher import Publisher
from asynctrack.client.run_lock import RunLock
from asynctrack.errors import AsynctrackError, FrameTooLarge, InvalidSettings, QueueFull, RunFinished
from asynctrack.journal.cursor import Cursor, load_cursor
from asynctrack.journal.manifest import Manifest, start_payload
from asynctrack.queue.layout import DELIVERED, DONE, FAILURE, LAST_ERRNO, NO_ANSWER, SUMMARY, SYNCED, TAIL
from asynctrack.queue.producer import FORKED, OPEN
from asynctrack.reading.stats import BackendStats, RunStats, StatsCollector
from asynctrack.settings import Settings, Until

# A wait looks again after 0.2 ms, then ever less often, at most every 10 ms.
_FIRST_POLL_S: Final = 0.0002
_LONGEST_POLL_S: Final = 0.01
# How long who reads the statistics may stand still beyond the deadline of who asks for them: they lie in files, whose disk may hang. Arbitrary: a run of days takes 20 ms.
_STATS_WAIT_S: Final = 1.0
# Which of the worker's words a wait looks at.
_WORDS: Final = {"journaled": TAIL, "synced": SYNCED, "delivered": DELIVERED}

T = TypeVar("T")


class ReadFiles(Protocol):
    """Reads files of a run."""

    def __call__(self, read: Callable[[], T]) -> T: ...


_has_forked = False


class RunSession:
    """A run that this process has open.

    Attributes:
        path: the run's directory.
        backends: of the run, by their names.
        publisher: into the queue.
        result: what `finish` has returned, None before.
        unrecorded: called before a wait and the end, to record what has changed without a word.
    """

    def __init__(
        self,
        path: Path,
        settings: Settings,
        backends: dict[str, Backend],
        *,
        publisher: Publisher,
        run_lock: RunLock,
    ) -> None:
        self.path = path
        self.result: RunStats | None = None
        self.unrecorded: list[Callable[[], object]] = []
        self._settings = settings
        self.backends = backends
        self._run_lock = run_lock
        self._lock = threading.RLock()
        self._waited_for_disk = False
        self._collector = StatsCollector(path)
        self._directory_id = publisher.directory_id
        self._disk_timeout = DiskTimeout()
        self._last = RunStats(backends={name: BackendStats() for name in backends})
        self._in_threads = settings.worker == "thread" and not threads_are_over()
        self._local: Any = None
        # Those that run here speak for themselves.
        here = {name for name, backend in backends.items() if execution_of(backend) == "caller"}
        names = [name for name in self._awaited() if name not in here]
        self.publisher = publisher
        self._watch = HealthMonitor(path, names, self._gets_nothing, self.publisher.hindrance, self._is_hindered)
        self.publisher.joined.append(lambda _: shutdown.register(self))

    def after_fork(self) -> None:
        """In a forked child: what another thread of the parent may have been at is begun anew."""
        self._lock = threading.RLock()
        self._collector = StatsCollector(self.path)
        self._disk_timeout = DiskTimeout()
        self._local = None

    def open(self, manifest: Manifest) -> None:
        """Begin: have the worker and the deliveries. Where this raises, `give_up` is to be called.

        Raises:
            FrameTooLarge: the queue cannot carry what the run is started with.
        """
        self.publisher.start(start_payload(manifest))
        self._deliver_here()
        self.publisher.serve()
        self._watch.start()
        fork.watch(self)
        shutdown.register(self)

    @property
    def needs_threads(self) -> bool:
        """Whether threads of this process deliver."""
        return self._in_threads or self._local is not None or self.publisher.host.serves_here

    def read_in_time(self, do: Callable[[], T], timeout_s: float) -> T:
        """What `do` finds in the run's files.

        Raises:
            TimeoutError: their disk does not answer.
        """
        return self._disk_timeout.call(do, timeout_s)

    def stats(self) -> RunStats:
        """The statistics as they stand; where the disk does not answer, the last that could be read, and what the queue says."""
        if self.result is not None:
            return self.result
        with self._lock:
            # A signal handler that comes in between takes its own.
            collector, self._collector = self._collector, StatsCollector(self.path)
            try:
                self._last = self._take_in_time(collector)
                self._collector = collector
            except TimeoutError as error:  # the collector is left with who waits for the disk
                return self._last_known(error)
            except OSError:  # too many open files, perhaps; what it has read may be half of something
                collector.close()
                self._last = self._take_or_last(self._collector)
            return self._last

    def _take_in_time(self, collector: StatsCollector) -> RunStats:
        if not self._disk_answers():
            raise TimeoutError("its disk does not answer")  # the worker waits for it already
        return self._disk_timeout.call(lambda: self._take(collector), _STATS_WAIT_S)

    def _disk_hangs(self) -> bool:
        """Whether the worker says so; who has delivered everything waits for it no more, and may not say anything else."""
        if self.publisher.producer.state == FORKED:
            return False
        words = self.publisher.producer.ring.words
        return words[LAST_ERRNO] == NO_ANSWER and not words[DONE]

    def _disk_answers(self) -> bool:
        """Whether the worker does not wait for the disk. One that is only slow is waited for a little, but once while it hangs."""
        deadline = time.monotonic() + (0.0 if self._waited_for_disk else _STATS_WAIT_S)
        while (hangs := self._disk_hangs()) and time.monotonic() < deadline:
            time.sleep(_LONGEST_POLL_S)
        self._waited_for_disk = hangs
        return not hangs

    def _without_files(self) -> RunStats:
        """The last statistics, and what this process's queue says since."""
        producer, last = self.publisher.producer, self._last
        if producer.state == FORKED:
            return last
        ring = producer.ring
        queued = final_report.not_journaled(producer)
        dropped = {**last.dropped, **ring.dropped()}
        accepted = max(last.accepted, final_report.accepted(producer))
        return msgspec.structs.replace(
            last, accepted=accepted, journaled=accepted - queued, queued=queued, dropped=dropped
        )

    def _take_or_last(self, collector: StatsCollector) -> RunStats:
        try:
            return self._take_in_time(collector)
        except TimeoutError as error:
            return self._last_known(error)
        except OSError as error:
            self.publisher.warn(
                "stats", f"the statistics cannot be read: {error}; what is known is what the queue says"
            )
            unknown = {name: BackendStats(known=False) for name in self.backends}
            return msgspec.structs.replace(self._without_files(), backends=unknown)

    def _last_known(self, error: TimeoutError) -> RunStats:
        self.publisher.warn("stats", f"the statistics cannot be read: {error}; these are the last that could be")
        return self._without_files()

    def _take(self, collector: StatsCollector) -> RunStats:
        # Elsewhere the path leads to the statistics of another run, or to empty ones.
        if _which(self.path) != self._directory_id:
            raise FileNotFoundError(errno.ENOENT, "this process sees the run's directory no more", str(self.path))
        producer = self.publisher.producer
        own = [producer.ring] if producer.state != FORKED else []
        return collector.collect(own, self.publisher.host.others(), self.backends)

    def flushing(self, until: Until, timeout_s: float) -> Iterator[float]:
        """Wait until what is in the queue has got so far."""
        producer = self.publisher.producer
        if until not in _WORDS:
            raise InvalidSettings([f"until must be one of {', '.join(map(repr, _WORDS))}; got {until!r:.80}"])
        if producer.state != OPEN:
            return
        self._record_changes()
        word = _WORDS[until]
        wanted = producer.want()
        local = self._local if until == "delivered" else None
        yield from self._until(
            lambda: producer.ring.words[word] >= wanted and (local is None or local.has(producer.ring.id, wanted)),
            timeout_s,
        )

    def finishing(
        self, error: BaseException | None, summary: Mapping[str, Any] | None = None, timeout_s: float | None = None
    ) -> Iterator[float]:
        """Take no more records, and wait for delivery.

        Args:
            error: what has ended the run; None where nothing went wrong.
            summary: the last of it.
            timeout_s: seconds to wait at most. Default: `finish_timeout_s`.
        """
        if self.result is not None:
            return
        self._record_changes()
        if self.publisher.held:
            with contextlib.suppress(QueueFull, RunFinished):  # it is counted
                self.publisher.put_held()
        deadline = time.monotonic() + (self._settings.finish_timeout_s if timeout_s is None else timeout_s)
        while not self.publisher.producer.settle() and time.monotonic() < deadline:
            yield _LONGEST_POLL_S
        with self._lock:
            self._close(error, summary or {}, deadline)
        if self.publisher.producer.state != FORKED:
            yield from self._until(self._is_done, deadline - time.monotonic())

    def settle(self, *, waited: bool = True) -> RunStats:
        """The result of `finish`, taken once; `waited` is False where the wait was broken off, which says nothing of the worker."""
        with self._lock:
            if self.result is None:
                stats = self.stats()
                self.result = self.result or stats  # a signal handler that came in between was first
                self.publisher.over = True
                self.unrecorded.clear()
                self._watch.stop()
                self.publisher.joined.clear()  # so that nothing of a run that has finished waits for the garbage collector
                if waited:
                    self._report_queue()
                    self._report_backends(stats, lambda read: self.read_in_time(read, _STATS_WAIT_S))
                    self._report_failed_children(lambda read: self.read_in_time(read, _STATS_WAIT_S))
                if not self.needs_threads or self._is_done():
                    self._let_go()  # else it is waited for once more when the process ends
            return self.result

    def _report_queue(self) -> None:
        """Say what of this process is not journaled. Reads memory only."""
        self.publisher.report_encode_errors(last=True)
        producer = self.publisher.producer
        if producer.state == FORKED:
            return
        lost, said = final_report.dropped(producer)
        if lost > self.publisher.reported_drops:
            self.publisher.reported_drops = lost
            self.publisher.warn("dropped", said)
        if count := final_report.not_journaled(producer):
            what = f"{counted(count, 'record is', 'records are')} not journaled"
            self.publisher.warn("queued", what + final_report.recovery_hint(self.path, producer))

    def _report_backends(self, stats: RunStats, read_files: ReadFiles) -> None:
        """Say which backends do not have everything, but for those that are to wait; `read_files` reads files."""
        producer = self.publisher.producer
        if producer.state == FORKED:
            return
        alone = not any(self.publisher.host.others_of(str(self.path)))
        awaited = self._awaited()
        try:
            found = read_files(lambda: list(final_report.undelivered(self.path, stats, awaited, producer, alone=alone)))
        except OSError as error:  # the disk fails, or does not answer
            found = final_report.unknown(self.path, stats, error)
        for name, text in found:
            self.publisher.warn(f"behind {name}", text)

    def _report_at_exit(self) -> None:
        if not self._is_done() or any(load_cursor(self.path, name).last_error for name in self._awaited()):
            self._report_backends(self.stats(), _now)
        self._report_failed_children(_now)

    def _report_failed_children(self, read_files: ReadFiles) -> None:
        """Say which forked children have failed, as far as the worker knows by now; `read_files` reads a file."""
        if _has_forked and self.publisher.is_root:
            with contextlib.suppress(AsynctrackError, OSError):
                if said := read_files(lambda: final_report.failed_children(self.path)):
                    self.publisher.warn("children", said, once=True)

    def _awaited(self) -> dict[str, Backend]:
        """The backends that are to have everything in the end: offline, remote ones are to wait."""
        offline = self._settings.mode == "offline"
        return {name: backend for name, backend in self.backends.items() if not (offline and backend.remote)}

    def _gets_nothing(self, name: str, cursor: Cursor) -> None:
        """A backend has failed for some seconds. On the health monitor's thread."""
        if not messages.due((self.path, f"lacks {name}")):  # it was said as the run was opened
            return
        delivery_hint = final_report.delivery_hint(self.path, name, self.backends[name], cursor.paused)
        self.publisher.warn(f"failing {name}", f"{name} gets nothing ({cursor.last_error}); {delivery_hint}", once=True)

    def _is_hindered(self, what: str) -> None:
        """The journal could not be written for some seconds. On the health monitor's thread."""
        self.publisher.warn("hindered", final_report.hindered(what, self.publisher.producer))

    def exiting(self, error: BaseException | None) -> Iterator[float]:
        """Finish because the process ends. Nobody reads the statistics any more."""
        self.publisher.quiet = True
        if self.result is None:
            self.publisher.producer.exit()
            yield from self.finishing(error, timeout_s=self._settings.exit_timeout_s)
            self._report_queue()
            yield from health.reading(self._report_at_exit)
        else:
            yield from self._until(self._is_done, self._settings.exit_timeout_s)
        self._let_go()

    def _record_changes(self) -> None:
        for record in self.unrecorded:
            with contextlib.suppress(QueueFull, FrameTooLarge, RunFinished):  # what is waited for is the rest
                record()

    def give_up(self) -> None:
        """Leave a run that could not be opened, but for its queue and its lock."""
        self._watch.stop()
        shutdown.unregister(self)
        if self._local is not None:
            self._local.stop()

    def _deliver_here(self) -> None:
        """Deliver on threads here where that is asked for, and to the backends that need this process."""
        if self._settings.worker == "thread":
            self.publisher.host.local[str(self.path)] = self.backends
            return
        here = {name: backend for name, backend in self.backends.items() if execution_of(backend) == "caller"}
        if here and threads_are_over():
            self.publisher.warn("late", f"{', '.join(here)} cannot be served any more: the main thread has ended")
        elif here:
            from asynctrack.client.caller_delivery import CallerDeliveries

            self._local = CallerDeliveries(self.path, here, self.publisher.producer.ring.id)

    def _close(self, error: BaseException | None, summary: Mapping[str, Any], deadline: float) -> None:
        status, text = _outcome(error)
        publisher = self.publisher
        if publisher.producer.state != OPEN and not (publisher.producer.state == FORKED and summary):
            return
        try:
            if summary:
                publisher.update(SUMMARY, "summary", summary, deadline)
            if text:
                who = {} if publisher.is_root else {"pid": os.getpid()}
                publisher.update(FAILURE, "error", {"error": text, **who}, deadline)
        except (FrameTooLarge, QueueFull) as lost:  # no room for it: the run ends all the same
            publisher.warn("end", f"its end is recorded without summary or error: {lost}")
        if publisher.producer.state == OPEN:
            publisher.producer.close(status)
        self._release_run_lock()

    def _release_run_lock(self) -> None:
        """To close a file may hang; it is closed when the disk answers, or with the process."""
        with contextlib.suppress(TimeoutError, RuntimeError):  # no thread can be had as the interpreter ends
            if self.publisher.producer.state == FORKED or self.publisher.producer.ring.words[LAST_ERRNO] != NO_ANSWER:
                DiskTimeout().call(self._run_lock.release, _STATS_WAIT_S)
            else:
                start_thread(self._run_lock.release)

    def _is_done(self) -> bool:
        """Whether nothing is left to deliver."""
        return bool(self.publisher.producer.ring.words[DONE]) and (self._local is None or self._local.done)

    def _let_go(self) -> None:
        self._watch.stop()
        shutdown.unregister(self)
        if self.publisher.producer.state != FORKED:
            self.publisher.host.release(self.publisher.producer.ring)
            self.publisher.producer.let_go()
        if not self._disk_timeout.is_over:  # else to close a file may hang, too
            self._collector.close()
        if self._local is not None:
            self._local.stop()

    def _until(self, reached: Callable[[], object], timeout_s: float) -> Iterator[float]:
        deadline = time.monotonic() + timeout_s
        pause = _FIRST_POLL_S
        host, ring = self.publisher.host, self.publisher.producer.ring
        host.wake()
        while not reached():
            left = deadline - time.monotonic()
            if left <= 0:
                return
            host.poll_ring(ring, wake=False)
            yield min(pause, left)
            pause = min(pause * 1.5, _LONGEST_POLL_S)


def _now(read: Callable[[], T]) -> T:
    """Reads where it is called: on a thread that may wait."""
    return read()


def _which(path: Path) -> tuple[int, int] | None:
    """Which directory lies at a path; None where there is none, as for who has called `chroot` since."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _outcome(error: BaseException | None) -> tuple[str, str | None]:
    """How a run ends that ends by this: its status, and the error in words.

    Who leaves a loop over a generator closes it, which is no failure. A task that is cancelled has not come to its end, whoever wanted that.
    """
    if error is None or isinstance(error, GeneratorExit) or (isinstance(error, SystemExit) and not error.code):
        return "finished", None
    try:
        text = f"{type(error).__name__}: {error}".removesuffix(": ")
    except Exception:  # its own code failed
        text = type(error).__name__
    return "failed", mask_text(text[:1000])


@fork.in_parent
def _after_fork_in_parent() -> None:
    global _has_forked
    _has_forked = True
