"""Growth: waits in an asyncio loop for a run's journal to grow. Runs in the worker."""

from __future__ import annotations

import anyio


class Growth:
    """The event that readers of a journal wait for: it has grown. Belongs to one loop."""

    def __init__(self) -> None:
        self._waiters: list[anyio.Event] = []

    def notify(self) -> None:
        """Wake all who wait now."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.set()

    async def wait(self, seconds: float) -> None:
        """Wait until the journal has grown, but not for longer than told."""
        waiter = anyio.Event()
        self._waiters.append(waiter)
        with anyio.move_on_after(seconds):
            await waiter.wait()
        if waiter in self._waiters:  # the time was up first
            self._waiters.remove(waiter)
