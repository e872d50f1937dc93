"""Loop thread: an asyncio loop on a thread of ours, for deliveries, and the threads that they call. Runs in the caller and in the worker.

Three libraries meet in this module:

| Library | What it does here | Why |
| --- | --- | --- |
| asyncio | the loop: it is made, woken from other threads and ended | a loop that is woken by `call_soon_threadsafe`, and whose executor is ours |
| anyio | all that runs in it: tasks in groups, deadlines, shields; and `in_thread`, for a backend's plain functions | one thread a call, limited for each backend, and abandoned where the call hangs |
| aiofiles | `in_file_thread`, for the file that every run has, `metrics.jsonl` | it asks the loop's executor, whose threads are there from the beginning: the file is written to its end also where no thread can be started any more |

A loop has to go on after the main thread has ended. Python 3.12 starts no thread then, so the loop starts its threads at its beginning. Its imports
happen with this module, on the thread that makes the loop: CPython forgets that Ctrl-C has ended the main thread, and with which status, where
another thread executes source text meanwhile, as making a data class does.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, Final, ParamSpec, TypeVar

import aiofiles.ospath
import anyio
import anyio.to_thread

from asynctrack._system.background import call_undisturbed
from asynctrack._system.private import load_asyncio_backend

__all__ = ["LoopThread", "in_file_thread", "in_thread"]

load_asyncio_backend()

# What aiofiles calls from a loop of ours. Arbitrary: files that hang hold up the others of such a loop when there are so many.
_FILE_THREADS: Final = 4

P = ParamSpec("P")
T = TypeVar("T")


class LoopThread:
    """Runs a coroutine in a loop and on a thread of its own.

    Args:
        name: of the thread.
        main: makes the coroutine; called on the thread.
    """

    def __init__(self, name: str, main: Callable[[], Coroutine[Any, Any, object]]) -> None:
        self._main = main
        call_undisturbed(functools.partial(self._start, name))

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def _start(self, name: str) -> None:
        self._files = _FileThreads()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        # `python -X dev` is about the user's loops: asyncio would tell them of each step of ours that a busy machine holds up.
        runner = asyncio.Runner(debug=False)
        runner.get_loop().set_default_executor(self._files)
        try:
            runner.run(self._main())
        finally:
            with contextlib.suppress(RuntimeError):  # to wait for its executor it starts a thread
                runner.close()
            self._files.shutdown()


async def in_thread(
    function: Callable[..., T],
    *arguments: Any,
    abandon_on_cancel: bool = False,
    limiter: anyio.CapacityLimiter | None = None,
) -> T:
    """Call a function that may block in a thread; in this one where none can be started."""
    begun = False

    def call() -> T:
        nonlocal begun
        begun = True
        return function(*arguments)

    try:
        return await anyio.to_thread.run_sync(call, abandon_on_cancel=abandon_on_cancel, limiter=limiter)
    except RuntimeError:
        if begun:
            raise
        return function(*arguments)


async def in_file_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function that writes a run's file on one of the loop's own threads; one that hangs is left behind."""
    called: T = await aiofiles.ospath.wrap(function)(*arguments)
    return called


class _FileThreads(ThreadPoolExecutor):
    """An executor that starts its threads when it is made, and that the interpreter does not join at its end: a file may hang."""

    def __init__(self) -> None:
        super().__init__(_FILE_THREADS)
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        for _ in range(_FILE_THREADS):
            threading.Thread(target=self._work, name="asynctrack-files", daemon=True).start()

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()

        def call() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function(*args, **kwargs))
                except BaseException as error:  # it is the caller's
                    future.set_exception(error)

        self._calls.put(call)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        for _ in range(_FILE_THREADS):
            self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
