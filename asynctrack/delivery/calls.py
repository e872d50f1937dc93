"""Calls: calls what may hang, one call at a time. Runs with the driver, plain functions on a thread."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from typing import Any

import anyio

from asynctrack._system.loop_thread import in_thread
from asynctrack.delivery.lease import Lease


class Calls:
    """The calls of one delivery.

    Args:
        lease: that a call keeps while it goes on, also when nobody waits for it any more.

    Attributes:
        busy_since: since when a call goes on, monotonic seconds; None while there is none.
    """

    def __init__(self, lease: Lease) -> None:
        self.busy_since: float | None = None
        self._lease = lease
        # A limiter for each delivery: a hundred sinks that hang must not use up the threads of the others.
        self._limiter = anyio.CapacityLimiter(1)

    async def call(self, method: Callable[..., Any], *arguments: Any) -> Any:
        """Call a method: a plain function in a thread, so that it cannot hold the loop, a coroutine function here."""
        self.busy_since = time.monotonic()
        try:
            if inspect.iscoroutinefunction(method):
                return await method(*arguments)
            return await in_thread(self._lease.call, method, arguments, abandon_on_cancel=True, limiter=self._limiter)
        except (SystemExit, KeyboardInterrupt) as error:
            # A backend's library must not end the process that delivers to the others too.
            raise RuntimeError(f"the backend raised {type(error).__name__}: {error}") from error
        finally:
            self.busy_since = None

    async def in_thread(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call a function of ours that works for the backend, and may hang as its sink may."""
        await in_thread(function, *arguments, abandon_on_cancel=True, limiter=self._limiter)
