"""Growth: waits in an asyncio loop for a run's journal to grow. Runs in the worker."""

from __future__ import annotations

import anyio
import anyio.lowlevel


class Growth:
    """Tells those who read a journal that it has grown. Belongs to one loop."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def listen(self) -> Listener:
        """Return a wait for one reader."""
        self._listeners.append(Listener())
        return self._listeners[-1]

    def forget(self, listener: Listener) -> None:
        """Forget a wait that is not needed any more."""
        self._listeners.remove(listener)

    def notify(self) -> None:
        """Wake all who wait, and keep the others from waiting."""
        for listener in self._listeners:
            listener.hear()


class Listener:
    """The wait of one reader. What grows while that is at work, perhaps behind its last look, ends its next wait at once."""

    def __init__(self) -> None:
        self._has_grown = anyio.Event()

    def hear(self) -> None:
        """Take note that the journal has grown."""
        self._has_grown.set()

    async def wait(self, seconds: float) -> None:
        """Wait until the journal has grown since the last wait, but not for longer than told."""
        with anyio.move_on_after(seconds):
            await self._has_grown.wait()
        await anyio.lowlevel.checkpoint()
        self._has_grown = anyio.Event()
