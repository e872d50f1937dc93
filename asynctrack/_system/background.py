"""Background: threads of ours, for work that must not run on the user's thread: files, streams, other people's code. Runs in the caller.

`log()` hands such work over and returns. It may do little before it returns, so `ask` makes no call that raises an audit event and takes no
lock. `ask` can be called in a signal handler, in a finaliser and by any thread. Starting a thread does raise an audit event, so threads are
started before the first record is accepted: by `init`, and in a forked child before its first record.

The threads are real ones even where gevent or eventlet have replaced Python's. They block all signals: a process that waits for a signal with
`sigwait` must get it.
"""

from __future__ import annotations

import _thread
import contextlib
import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, Generic, TypeAlias, TypeVar

from asynctrack._system import fork, private
from asynctrack._system.native_threads import allocate_lock, replaced_by, start_new_thread

if TYPE_CHECKING:
    from queue import Empty, SimpleQueue
else:
    SimpleQueue, Empty = private.simple_queue()

T = TypeVar("T")
_Mark: TypeAlias = "SimpleQueue[None]"  # gets its one item when all items before it are done

# Between two checks that a thread is done. Arbitrary: printing a line takes about 0.1 ms.
_POLL_S: Final = 0.0005
# Between two looks of who waits for a thread whether a signal handler has forked. Arbitrary.
_FORK_POLL_S: Final = 0.1
# After a failure: what fails again at once would keep a core busy. Arbitrary.
_REST_S: Final = 0.001
_set_mask, _signals = private.signal_masks()
_load_what_threads_end_with = functools.cache(private.load_what_threads_end_with)
# A thread keeps the others for its own faults, and `faulthandler` has to see them.
_OF_THE_PROCESS: Final = _signals() - {
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGABRT,
    signal.SIGTRAP,
    signal.SIGSYS,
}


class BackgroundThread(Generic[T]):
    """A thread that handles queued items one at a time, from `start` to the end of the process.

    Attributes:
        started: True once there is a thread.

    Args:
        do: handles one item.
        most: how many items may wait.
        failed: called on the thread with what an item, or the wait for the next, has raised; then the thread goes on.
        idle: called when no item has come for `idle_after()` seconds.
        idle_after: returns that time in seconds; None means for ever.
    """

    started: bool

    def __init__(
        self,
        do: Callable[[T], object],
        most: int,
        *,
        failed: Callable[[BaseException], object],
        idle: Callable[[], object] = lambda: None,
        idle_after: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._do = do
        self._most = most
        self._failed = failed
        self._idle = idle
        self._idle_after = idle_after
        self.after_fork()
        fork.watch(self)

    def start(self) -> bool:
        """Start the thread unless it runs, and return True if there is one."""
        try:
            started, self.started = self.started, True  # on one line, so that no other thread comes in between
            if not started:
                _start_thread(self._work, self._waiting, self._turn)
                _load_what_threads_end_with()
        except Exception:  # there are too many, the interpreter ends, or an audit hook is against it
            self.started = False
        except BaseException:  # Ctrl-C, and whether there is a thread is not known: the next call starts one, which ends at once where there is
            self.started = False
            raise
        return self.started

    def ask(self, thing: T) -> bool:
        """Queue an item. Return False where too many wait. Never blocks, and never raises."""
        if self._waiting.qsize() >= self._most:
            return False
        self._waiting.put(thing)
        return True

    def until_done(self, timeout_s: float) -> Iterator[float]:
        """Wait until all items queued so far are done, at most `timeout_s`, and no longer than a single item may take.

        Yields:
            Seconds to pause before asking again.
        """
        if not self.started or self._ident == _thread.get_ident():
            return
        mark: _Mark = SimpleQueue()
        self._waiting.put(mark)
        deadline = min(time.monotonic(), self._busy_since or float("inf")) + timeout_s
        while mark.empty() and time.monotonic() < deadline:
            yield _POLL_S

    def let(self, timeout_s: float) -> None:
        """Release the interpreter until all items queued so far are done, at most `timeout_s`: a busy loop would release it only every 5 ms."""
        busy_since = self._busy_since
        if self.started and (busy_since is None or time.monotonic() < busy_since + timeout_s):
            mark: _Mark = SimpleQueue()
            self._waiting.put(mark)
            with contextlib.suppress(Empty):
                mark.get(timeout=timeout_s)

    def take_back(self) -> Iterator[T]:
        """Remove and yield the items that are not begun, for a caller that handles them itself where no thread can be started."""
        with contextlib.suppress(Empty):
            while True:
                thing = self._waiting.get_nowait()
                if not isinstance(thing, SimpleQueue):
                    yield thing

    @property
    def waits(self) -> bool:
        """Return True if an item is not begun."""
        return not self._waiting.empty()

    @property
    def busy(self) -> bool:
        """Return True if an item is being handled at this moment."""
        return self._busy_since is not None

    def after_fork(self) -> None:
        """Forget the thread and its queue in a forked child: both belong to the parent."""
        self._waiting: SimpleQueue[T | _Mark] = SimpleQueue()
        self._turn = [True]  # the first thread takes it
        self.started = False
        self._ident = 0
        self._busy_since: float | None = None

    def _work(self, waiting: SimpleQueue[T | _Mark], turn: list[bool]) -> None:
        try:
            turn.pop()
        except IndexError:
            return
        self._ident = _thread.get_ident()
        rest = allocate_lock()
        rest.acquire()
        while True:
            try:
                self._survive_next(waiting, rest)
            except BaseException:  # there was no memory to say what has failed; there may be some for the next item
                pass

    def _survive_next(self, waiting: SimpleQueue[T | _Mark], rest: _thread.LockType) -> None:
        try:
            self._handle_next(waiting)
        # Other people's code may raise anything, and memory may be short at any line. The items that wait are to be handled all the same.
        except BaseException as error:
            self._failed(error)
            rest.acquire(timeout=_REST_S)  # `time.sleep` may be of a library that has replaced Python's threads

    def _handle_next(self, waiting: SimpleQueue[T | _Mark]) -> None:
        """Wait for the next item, and handle it. No reference to it is left: a waiting thread must not keep a finished run alive."""
        try:
            thing = waiting.get(timeout=self._idle_after())
        except Empty:
            self._while_busy(self._idle)
            return
        if isinstance(thing, SimpleQueue):
            thing.put(None)
        else:
            self._while_busy(self._do, thing)

    def _while_busy(self, do: Callable[..., object], *things: T) -> None:
        self._busy_since = time.monotonic()
        try:
            do(*things)
        finally:
            self._busy_since = None


def start_thread(work: Callable[[], object]) -> None:
    """Call a function on a thread of its own, which blocks all signals and which the interpreter does not join at its end.

    Raises:
        RuntimeError: no thread can be started.
    """
    _start_thread(work)


def call_undisturbed(do: Callable[[], T]) -> T:
    """Call a function where no Ctrl-C comes into it, and wait for it: on a thread of its own, if this is the main thread. Ctrl-C ends the wait.

    For what starts threads: Ctrl-C in `threading.Thread.start` leaves a thread that runs, and that nobody knows of.
    """
    if replaced_by() is not None or _thread.get_ident() != threading.main_thread().ident:
        return do()
    found: list[T] = []
    errors: list[BaseException] = []
    done = allocate_lock()
    done.acquire()

    def call() -> None:
        try:
            found.append(do())
        except BaseException as error:  # it is the caller's
            errors.append(error)
        finally:
            done.release()

    try:
        start_new_thread()(call, ())
    except Exception:  # none can be had
        return do()
    pid = os.getpid()
    while not done.acquire(timeout=_FORK_POLL_S):
        if os.getpid() != pid:  # a signal handler has forked, and no thread but this one has come along
            return do()
    if errors:
        raise errors.pop()
    return found.pop()


def _start_thread(work: Callable[..., object], *arguments: object) -> None:
    """Start a thread that blocks all signals."""
    before = _set_mask(signal.SIG_BLOCK, set())  # asked for first: Ctrl-C may come with the return of what sets it
    try:
        _set_mask(signal.SIG_BLOCK, _OF_THE_PROCESS)  # the thread inherits its maker's mask
        start_new_thread()(work, arguments)
    finally:
        _set_mask(signal.SIG_SETMASK, before)
