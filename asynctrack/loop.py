"""Loop: an asyncio loop on a thread of ours, for deliveries, and the threads that they call. Runs in the caller and in the worker.

What it needs is imported with this module, before the thread is there: CPython forgets that Ctrl-C has ended the main thread, and
with what status, where another executes text meanwhile, as the making of data classes does.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import aiofiles.ospath
import aiofiles.threadpool
import anyio._backends._asyncio
import anyio.to_thread

__all__ = ["in_thread", "run_loop"]

assert aiofiles.threadpool and anyio._backends._asyncio

# What aiofiles calls from a loop of ours. Arbitrary: files that hang hold up the others of such a loop when there are so many.
_FILE_THREADS: Final = 4

T = TypeVar("T")


def run_loop(main: Coroutine[Any, Any, object]) -> None:
    """`asyncio.run` that gets on where no thread can be started any more, as on Python 3.12 when the main thread has ended."""
    runner = asyncio.Runner()
    runner.get_loop().set_default_executor(_started_executor())
    try:
        runner.run(main)
    finally:
        with contextlib.suppress(RuntimeError):  # to end its executor it starts a thread
            runner.close()


async def in_thread(function: Callable[..., T], *arguments: Any, abandon_on_cancel: bool = False) -> T:
    """Call a function that may block in a thread; here and now where none can be started."""
    begun = False

    def call() -> T:
        nonlocal begun
        begun = True
        return function(*arguments)

    try:
        return await anyio.to_thread.run_sync(call, abandon_on_cancel=abandon_on_cancel)
    except RuntimeError:
        if begun:
            raise
        return function(*arguments)


def _started_executor() -> ThreadPoolExecutor:
    """An executor that never starts another thread."""
    executor = ThreadPoolExecutor(_FILE_THREADS, "asynctrack-files")
    all_started = threading.Barrier(_FILE_THREADS)
    for _ in range(_FILE_THREADS):
        executor.submit(all_started.wait)
    return executor
