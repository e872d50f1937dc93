"""Session: a process's part in a run that it has open, but for logging: worker and deliveries, waits for them, and the end. Runs in the caller.

Waits are generators of pauses in seconds; see `waits`.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from asynctrack._system import fork
from asynctrack._system.background import start_thread
from asynctrack._system.disk_timeout import DiskTimeout
from asynctrack._system.masking import mask_text
from asynctrack._system.private import threads_are_over
from asynctrack.backends.base import Backend
from asynctrack.backends.registry import execution_of
from asynctrack.backends.stored_settings import lives_in_caller
from asynctrack.client import health, shutdown
from asynctrack.client.health import HealthMonitor
from asynctrack.client.publisher import Publisher
from asynctrack.client.run_lock import RunLock
from asynctrack.client.session_reports import SessionReports, read_now
from asynctrack.client.session_stats import STATS_WAIT_S, SessionStats
from asynctrack.client.write_gate import FINISHED, FORKED
from asynctrack.errors import FrameTooLarge, InvalidSettings, QueueFull, RunFinished
from asynctrack.queue.layout import DELIVERED, DONE, FAILURE, START, SUMMARY, SYNCED, TAIL
from asynctrack.reading.stats import RunStats
from asynctrack.settings import FinishWait, Settings, Until

# A wait looks again after 0.2 ms, then ever less often, at most every 10 ms.
_FIRST_POLL_S: Final = 0.0002
_LONGEST_POLL_S: Final = 0.01
# The part of a wait that is not spent on processes that do not come. Arbitrary.
_KEPT_FOR_DELIVERY: Final = 0.25
# Which of the worker's words a wait looks at.
_WORDS: Final = {"journaled": TAIL, "synced": SYNCED, "delivered": DELIVERED}

if TYPE_CHECKING:
    from asynctrack.client.other_processes import OtherProcesses

T = TypeVar("T")


class RunSession:
    """A run that this process has open.

    Args:
        path: the run's directory.
        settings: of the run.
        backends: of the run, by their names.
        publisher: into the queue.
        run_lock: of the run.
        joined: the stored settings of the run's backends, where this process has joined the run and another has opened them.

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
        joined: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.path = path
        self.backends = backends
        self.publisher = publisher
        self.result: RunStats | None = None
        self.unrecorded: list[Callable[[], object]] = []
        self._settings = settings
        self._run_lock = run_lock
        self._lock = threading.RLock()
        self._in_threads = settings.worker == "thread" and not threads_are_over()
        self._local: Any = None
        # Offline, remote backends are to wait.
        awaited = {
            name: backend for name, backend in backends.items() if settings.mode != "offline" or not backend.remote
        }
        self._stats = SessionStats(path, publisher, list(backends if joined is None else joined))
        known = {} if joined is None or settings.mode == "offline" else joined
        elsewhere_stored = {name: stored for name, stored in known.items() if not lives_in_caller(stored)}
        self._reports = SessionReports(path, publisher, awaited, elsewhere_stored)
        # Those that run here speak for themselves.
        elsewhere = [name for name, backend in awaited.items() if execution_of(backend) != "caller"]
        self._watch = HealthMonitor(
            path,
            elsewhere,
            self._reports.backend_gets_nothing,
            publisher.queue.trouble,
            self._reports.journal_is_hindered,
        )
        publisher.on_child_begun(lambda: shutdown.register(self))

    def after_fork(self) -> None:
        """Begin anew in a forked child: another thread of the parent may have been in the middle of something."""
        self._lock = threading.RLock()
        self._stats.after_fork()
        self._local = None

    def open(self, first: bytes, kind: int = START) -> None:
        """Begin: have the worker and the deliveries. Where this raises, `give_up` is to be called.

        Args:
            first: the payload of the frame that starts the run, or with which this process joins it.
            kind: of that frame.

        Raises:
            FrameTooLarge: the queue cannot carry what the run is started with.
        """
        self._deliver_here()  # first: threads that are the worker may have the run from its first frame on
        self.publisher.start(first, kind)
        self.publisher.queue.serve()
        self._watch.start()
        fork.watch(self)
        shutdown.register(self)

    @property
    def needs_threads(self) -> bool:
        """Tell whether threads of this process deliver."""
        return self._in_threads or self._local is not None or self.publisher.queue.host.worker.serves_here

    def stats(self) -> RunStats:
        """Take the statistics as they stand; those of its end once the run has finished."""
        return self._stats.take() if self.result is None else self.result

    def read_in_time(self, read: Callable[[], T], timeout_s: float) -> T:
        """Read the run's files.

        Raises:
            TimeoutError: their disk does not answer.
        """
        return self._stats.read_in_time(read, timeout_s)

    def flushing(self, until: Until, timeout_s: float) -> Iterator[float]:
        """Wait until what is in the queue has got so far.

        Raises:
            InvalidSettings: `until` is none of its words, or `timeout_s` is no number.
        """
        producer = self.publisher.producer
        if until not in _WORDS:
            raise InvalidSettings([f"until must be one of {', '.join(map(repr, _WORDS))}; got {until!r:.80}"])
        if not isinstance(timeout_s, int | float):
            raise InvalidSettings([f"timeout_s must be a number of seconds; got {timeout_s!r:.80}"])
        if not producer.is_open:
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
        self,
        error: BaseException | None,
        summary: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
        wait: FinishWait = "own",
    ) -> Generator[float, None, None]:
        """Take no more records, and wait for delivery. A wait that is closed early leaves the run closed too.

        Args:
            error: what has ended the run; None where nothing went wrong.
            summary: the last of it.
            timeout_s: seconds to wait at most. Default: `finish_timeout_s`.
            wait: "all" also waits until as many processes have come as are expected, those that write to the run have ended, and all of them is
                delivered.
        """
        if self.publisher.state is FINISHED or self.publisher.queue.is_released:
            return
        timeout_s = self._settings.finish_timeout_s if timeout_s is None else timeout_s
        deadline = time.monotonic() + timeout_s
        try:
            if wait == "all":  # before this process's part ends: the run would end with it
                yield from self._others().until_come(deadline - timeout_s * _KEPT_FOR_DELIVERY)
            self._put_rest()
            while not self.publisher.producer.settle() and time.monotonic() < deadline:
                yield _LONGEST_POLL_S
        except GeneratorExit:
            deadline = 0.0  # the time is up: do not wait for what follows either
            self._put_rest()
            with self._lock:
                self._close(error, summary or {}, deadline)
            raise
        with self._lock:
            self._close(error, summary or {}, deadline)
        if self.publisher.queue.is_own:
            yield from self._until(self._is_done, deadline - time.monotonic())
        if wait == "all":
            yield from self._others().until_done(deadline)

    def settle(self, *, waited: bool = True) -> RunStats:
        """Take the result of `finish`, once; `waited` is False where the wait was broken off, which says nothing of the worker."""
        with self._lock:
            if self.result is None:
                stats = self.stats()
                self.result = self.result or stats  # a signal handler may have finished the run meanwhile
                self.publisher.finish()
                self.unrecorded.clear()
                self._watch.stop()
                if waited:
                    self._report(stats)
                if not self.needs_threads or self._is_done():
                    self._let_go()  # else the end of the process waits for it once more
            return self.result

    def exiting(self, error: BaseException | None) -> Iterator[float]:
        """Finish because the process ends. Nobody reads the statistics any more."""
        if self.publisher.state is FINISHED:
            yield from self._until(self._is_done, self._settings.exit_timeout_s)
        else:
            self.publisher.put_early()  # a child that gets its queue only now ends like the others
            self.publisher.exit()
            yield from self.finishing(error, timeout_s=self._settings.exit_timeout_s)
            self._reports.report_queue()
            yield from health.reading(self._report_at_exit)
        self._leave()  # the ring stays mapped: an exit handler behind this one may ask for the statistics

    def _report(self, stats: RunStats) -> None:
        def read_files(read: Callable[[], T]) -> T:
            return self.read_in_time(read, STATS_WAIT_S)

        self._reports.report_queue()
        self._reports.report_backends(stats, read_files)
        self._reports.report_late(lambda: stats)
        self._reports.report_others(read_files)

    def _report_at_exit(self) -> None:
        if not self._is_done() or self._reports.any_has_failed():
            self._reports.report_backends(self.stats(), read_now)
        self._reports.report_late(self.stats)
        self._reports.report_others(read_now)

    def _others(self) -> OtherProcesses:
        from asynctrack.client.other_processes import OtherProcesses  # rarely needed

        return OtherProcesses(self.path, self.publisher, self._stats)

    def _put_rest(self) -> None:
        """Put what was kept back, and what has changed without a word. To do it again changes nothing."""
        self.publisher.put_early()
        self._record_changes()
        with contextlib.suppress(QueueFull, RunFinished):  # it is counted
            self.publisher.put_held()

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
            self.publisher.queue.host.worker.local[str(self.path)] = self.backends
            return
        here = {name: backend for name, backend in self.backends.items() if execution_of(backend) == "caller"}
        if here and threads_are_over():
            self.publisher.warnings.warn(
                "late", f"{', '.join(here)} cannot be served any more: the main thread has ended"
            )
        elif here:
            from asynctrack.client.caller_delivery import CallerDeliveries

            self._local = CallerDeliveries(self.path, here, self.publisher.producer.ring.id)
            self._local.start()

    def _close(self, error: BaseException | None, summary: Mapping[str, Any], deadline: float) -> None:
        status, said = _outcome(error)
        publisher = self.publisher
        if not (publisher.producer.is_open or (publisher.state is FORKED and summary)):
            return
        try:
            if summary:
                publisher.update(SUMMARY, "summary", summary, deadline)
            if said:
                who = {} if publisher.queue.is_root else {"pid": os.getpid()}
                self._record_failure({**said, **who}, deadline)
        except (FrameTooLarge, QueueFull) as lost:  # no room for it: the run ends all the same
            publisher.warnings.warn("end", f"its end is recorded without summary or error: {lost}")
        except RunFinished:  # Ctrl-C has broken off an earlier close
            pass
        publisher.close(status)
        self._release_run_lock()

    def _record_failure(self, said: dict[str, Any], deadline: float) -> None:
        """Record why the run has failed; without a traceback where the queue has no room for that."""
        try:
            self.publisher.update(FAILURE, "error", said, deadline)
        except (FrameTooLarge, QueueFull):
            if "traceback" not in said:
                raise
            self.publisher.update(
                FAILURE, "error", {name: said[name] for name in said if name != "traceback"}, deadline
            )

    def _release_run_lock(self) -> None:
        """Release the run. To close a file may hang: it is closed when the disk answers, or with the process."""
        # RuntimeError: as the interpreter ends, no thread can be started.
        with contextlib.suppress(TimeoutError, RuntimeError):
            if self._stats.disk_hangs():
                start_thread(self._run_lock.release)
            else:
                DiskTimeout().call(self._run_lock.release, STATS_WAIT_S)

    def _is_done(self) -> bool:
        """Say whether nothing is left to deliver."""
        return bool(self.publisher.producer.ring.words[DONE]) and (self._local is None or self._local.done)

    def _let_go(self) -> None:
        self._leave()
        if self.publisher.queue.is_own:
            self.publisher.producer.let_go()

    def _leave(self) -> None:
        self._watch.stop()
        shutdown.unregister(self)
        self.publisher.queue.release()
        self._stats.close()
        if self._local is not None:
            self._local.stop()

    def _until(self, reached: Callable[[], object], timeout_s: float) -> Iterator[float]:
        deadline = time.monotonic() + timeout_s
        pause = _FIRST_POLL_S
        host, ring = self.publisher.queue.host, self.publisher.producer.ring
        host.wake()
        while not reached():
            left = deadline - time.monotonic()
            if left <= 0:
                return
            host.poll_ring(ring, wake=False)
            yield min(pause, left)
            pause = min(pause * 1.5, _LONGEST_POLL_S)


def _outcome(error: BaseException | None) -> tuple[str, dict[str, Any]]:
    """Say how a run ends that ends by this: its status, and the "error" in words, with its "traceback" where it has one.

    Who leaves a loop over a generator closes it, which is no failure. A task that is cancelled has not come to its end, whoever wanted that.
    """
    if error is None or isinstance(error, GeneratorExit) or (isinstance(error, SystemExit) and not error.code):
        return "finished", {}
    try:
        text = f"{type(error).__name__}: {error}".removesuffix(": ")
    except KeyboardInterrupt:
        raise
    except BaseException:  # the exception's own code failed, perhaps by SystemExit
        text = type(error).__name__
    said = {"error": mask_text(text[:1000])}
    if error.__traceback__ is not None and not isinstance(error, SystemExit):
        from asynctrack._system.tracebacks import format_traceback  # a run that ends well does without

        with contextlib.suppress(TimeoutError):  # the disk with the source hangs
            if (lines := DiskTimeout().call(lambda: format_traceback(error), STATS_WAIT_S)) is not None:
                said["traceback"] = lines
    return "failed", said
