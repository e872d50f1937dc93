"""File threads: calls that touch files, on threads of their own, so that the loop and other runs go on while a disk hangs. Runs in the server of the page."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

T = TypeVar("T")

# Calls that work at once: they share one interpreter lock.
_AT_ONCE: Final = 4
# A call that takes longer lets another one begin: its disk may hang.
_SLOW_S: Final = 2.0
# For how long an answer is waited for.
PATIENCE_S: Final = 20.0
# Threads in all, those that hang included. Arbitrary.
_MOST_THREADS: Final = 64
_LATE: Final = (
    "its files have not been read in time: its disk does not answer, or there is very much to read; try again"
)

_Job = Callable[[], None]


class NoAnswer(Exception):
    """Raised where files have not been read in time: a disk hangs, or there is very much to read."""


class FileThreads:
    """Makes calls on threads. Those of one lane follow each other, so that a run whose disk hangs holds one thread.

    Args:
        patience_s: for how long a call is waited for. It goes on without who waits, and its lane refuses others until it has ended.
    """

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._free = asyncio.Semaphore(_AT_ONCE)
        self._lanes: dict[str, _Turn] = {}
        self._threads = _Threads()

    async def call(self, lane: str, do: Callable[[], T]) -> T:
        """Make a call, and return what it returns or raise what it raises.

        Args:
            lane: any text, such as the path of a run.
            do: touches the files.

        Raises:
            NoAnswer: it takes too long; or one before it in its lane does, or too many do.
        """
        turn = self._lanes.setdefault(lane, _Turn())
        if turn.is_late():
            raise NoAnswer(_LATE)
        turn.users += 1
        try:
            async with asyncio.timeout(self._patience_s), turn.lock:
                await turn.wait()
                return await self._made(turn, do)
        except TimeoutError:
            turn.give_up()
            raise NoAnswer(_LATE) from None
        finally:
            turn.users -= 1
            if not turn.users and not turn.is_busy():
                self._lanes.pop(lane, None)

    async def _made(self, turn: _Turn, do: Callable[[], T]) -> T:
        await self._free.acquire()
        loop, slot = asyncio.get_running_loop(), _Slot(self._free)
        slot.slow = loop.call_later(_SLOW_S, slot.give_back)
        done: asyncio.Future[T] = loop.create_future()
        done.add_done_callback(slot.give_back)
        try:
            self._threads.start(_job(loop, done, do))
        except NoAnswer:
            done.cancel()
            raise
        turn.begin(done)
        return await asyncio.shield(done)


class _Turn:
    """Calls that follow each other."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0
        self._done: asyncio.Future[Any] | None = None
        self._given_up: asyncio.Future[Any] | None = None

    def begin(self, done: asyncio.Future[Any]) -> None:
        """Note the call that is made."""
        self._done = done
        done.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be there to take it

    def give_up(self) -> None:
        """Note that the call that is made takes too long."""
        self._given_up = self._done

    def is_busy(self) -> bool:
        """Return whether a call is made."""
        return self._done is not None and not self._done.done()

    def is_late(self) -> bool:
        """Return whether a call is made that was given up."""
        return self.is_busy() and self._given_up is self._done

    async def wait(self) -> None:
        """Wait for a call whose caller has gone."""
        if self._done is not None and not self._done.done():
            await asyncio.wait([self._done])


class _Slot:
    """The right to work, which is given back once.

    Attributes:
        slow: gives it back where the call takes long.
    """

    def __init__(self, free: asyncio.Semaphore) -> None:
        self._free: asyncio.Semaphore | None = free
        self.slow: asyncio.TimerHandle | None = None

    def give_back(self, _: object = None) -> None:
        """Let another call begin."""
        if self.slow is not None:
            self.slow.cancel()
        free, self._free = self._free, None
        if free is not None:
            free.release()


class _Threads:
    """Threads that take jobs, of which no end of the process waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[queue.SimpleQueue[_Job]] = []
        self._count = 0

    def start(self, job: _Job) -> None:
        """Have a thread do a job.

        Raises:
            NoAnswer: all of them hang.
        """
        with self._lock:
            jobs = self._idle.pop() if self._idle else None
            if jobs is None and self._count >= _MOST_THREADS:
                raise NoAnswer(f"{self._count} calls wait for disks that do not answer")
            self._count += jobs is None
        if jobs is None:
            jobs = queue.SimpleQueue()
            threading.Thread(target=self._work, args=(jobs,), name="asynctrack-ui-files", daemon=True).start()
        jobs.put(job)

    def _work(self, jobs: queue.SimpleQueue[_Job]) -> None:
        while True:
            jobs.get()()
            with self._lock:
                self._idle.append(jobs)


def _job(loop: asyncio.AbstractEventLoop, done: asyncio.Future[T], do: Callable[[], T]) -> _Job:
    """Return what a thread does for a call."""

    def job() -> None:
        found: list[T] = []
        error: BaseException | None = None
        try:
            found.append(do())
        except BaseException as raised:  # it is the caller's
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(_settle, done, found, error)

    return job


def _settle(done: asyncio.Future[T], found: list[T], error: BaseException | None) -> None:
    if done.done():
        return
    if isinstance(error, Exception):
        done.set_exception(error)
    elif error is not None:
        done.cancel()
    else:
        done.set_result(found[0])
