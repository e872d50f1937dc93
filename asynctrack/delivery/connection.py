"""Connection: calls a backend and its sink, one call at a time. Runs with the driver, plain functions on a thread."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from typing import Any

import anyio

from asynctrack._system.loop_thread import in_thread
from asynctrack.backends.base import Backend, Batch, Context, Outcome, Sink
from asynctrack.delivery.lease import Lease


class Connection:
    """A backend, and its sink while there is one.

    Args:
        backend: its settings.
        lease: that a call keeps while it goes on, also when nobody waits for it any more.

    Attributes:
        busy_since: since when a call goes on, monotonic seconds; None while there is none.
    """

    def __init__(self, backend: Backend, lease: Lease) -> None:
        self.busy_since: float | None = None
        self._backend = backend
        self._lease = lease
        self._sink: Sink | None = None
        # Of its own: a hundred sinks that hang must not use up the others' threads.
        self._limiter = anyio.CapacityLimiter(1)

    def __repr__(self) -> str:
        return f"<Connection to {type(self._backend).__name__}, {'open' if self.is_open else 'closed'}>"

    @property
    def is_open(self) -> bool:
        """Return True if there is a sink."""
        return self._sink is not None

    async def open(self, context: Context) -> None:
        """Open a sink."""
        self._sink = await self._call(self._backend.open, context)

    async def write(self, batch: Batch) -> object:
        """Give the sink a batch; returns its answer."""
        return await self._call(self._opened().write, batch)

    async def checkpoint(self) -> dict[str, Any] | None:
        """Have the sink make safe what it was given; returns what it wants to know when it is opened again."""
        state: dict[str, Any] | None = await self._call(self._opened().checkpoint)
        return state

    async def close(self, outcome: Outcome) -> None:
        """Close the sink; one that raises stays open."""
        await self._call(self._opened().close, outcome)
        self._sink = None

    async def abandon(self) -> None:
        """Close the sink, if there is one; one that raises is given up."""
        sink, self._sink = self._sink, None
        if sink is not None:
            await self._call(sink.close, "stopped")

    async def in_thread(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call a function of ours that works for this backend, and may hang as its sink may."""
        await in_thread(function, *arguments, abandon_on_cancel=True, limiter=self._limiter)

    async def _call(self, method: Callable[..., Any], *arguments: Any) -> Any:
        """Call a method: a plain function in a thread, so that it cannot hold the loop, a coroutine function here."""
        self.busy_since = time.monotonic()
        try:
            if inspect.iscoroutinefunction(method):
                return await method(*arguments)
            return await in_thread(self._lease.call, method, arguments, abandon_on_cancel=True, limiter=self._limiter)
        except (SystemExit, KeyboardInterrupt) as error:  # a library that wants to end the process: it is not its own
            raise RuntimeError(f"the backend raised {type(error).__name__}: {error}") from error
        finally:
            self.busy_since = None

    def _opened(self) -> Sink:
        assert self._sink is not None
        return self._sink
