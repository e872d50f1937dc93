"""NATS loop: an asyncio loop on a thread of its own, for a connection that is used by plain calls, and must answer the server between them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from asynctrack.backends.base import Retry

T = TypeVar("T")

# All that is called has limits of its own, which are shorter.
_CALL_S: Final = 120.0
_START_S: Final = 10.0
_STOP_S: Final = 5.0


class NATSLoop:
    """Runs coroutines for plain calls. Its thread starts with the first of them.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None

    def __repr__(self) -> str:
        return f"<NATSLoop {self._name}>"

    @property
    def is_running(self) -> bool:
        """Return whether its thread has started, and not been stopped."""
        return self._loop is not None

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end, and return or raise what it does."""
        try:
            loop = self._loop or self._start()
        except BaseException:
            work.close()
            raise
        running = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            return running.result(_CALL_S)
        except TimeoutError as error:
            if running.done():
                raise
            raise Retry(f"NATS has not been done with a call after {_CALL_S:g} s") from error
        finally:
            running.cancel()

    def stop(self) -> None:
        """End the loop and its thread; what runs there is cancelled."""
        thread, loop, stopping = self._thread, self._loop, self._stopping
        self._thread = self._loop = self._stopping = None
        if thread is not None and loop is not None and stopping is not None:
            loop.call_soon_threadsafe(stopping.set)
            thread.join(_STOP_S)

    def _start(self) -> asyncio.AbstractEventLoop:
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), name=self._name, daemon=True)
        self._thread.start()
        if not started.wait(_START_S) or self._loop is None:
            raise Retry("the thread for NATS has not started")
        return self._loop

    def _run(self, started: threading.Event) -> None:
        # `python -X dev` is about the user's loops.
        with asyncio.Runner(debug=False) as runner:
            runner.run(self._wait(started))

    async def _wait(self, started: threading.Event) -> None:
        stopping = asyncio.Event()
        self._loop, self._stopping = asyncio.get_running_loop(), stopping
        started.set()
        await stopping.wait()
