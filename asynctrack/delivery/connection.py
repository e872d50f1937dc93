"""Connection: a backend, and its sink while there is one. Runs with the driver."""

from __future__ import annotations

from typing import Any

from asynctrack.backends.base import Backend, Batch, Context, Outcome, Sink
from asynctrack.delivery.calls import Calls
from asynctrack.delivery.lease import Lease


class Connection(Calls):
    """A backend, and its sink while there is one.

    Args:
        backend: its settings.
        lease: see `Calls`.
    """

    def __init__(self, backend: Backend, lease: Lease) -> None:
        super().__init__(lease)
        self._backend = backend
        self._sink: Sink | None = None

    def __repr__(self) -> str:
        return f"<Connection to {type(self._backend).__name__}, {'open' if self.is_open else 'closed'}>"

    @property
    def is_open(self) -> bool:
        """Return True if there is a sink."""
        return self._sink is not None

    async def open(self, context: Context) -> None:
        """Open a sink."""
        self._sink = await self.call(self._backend.open, context)

    async def write(self, batch: Batch) -> object:
        """Give the sink a batch; returns its answer."""
        return await self.call(self._opened().write, batch)

    async def checkpoint(self) -> dict[str, Any] | None:
        """Have the sink make safe what it was given; returns what it wants to know when it is opened again."""
        state: dict[str, Any] | None = await self.call(self._opened().checkpoint)
        return state

    async def close(self, outcome: Outcome) -> None:
        """Close the sink; one that raises stays open."""
        await self.call(self._opened().close, outcome)
        self._sink = None

    async def abandon(self) -> None:
        """Close the sink, if there is one; one that raises is given up."""
        sink, self._sink = self._sink, None
        if sink is not None:
            await self.call(sink.close, "stopped")

    def _opened(self) -> Sink:
        assert self._sink is not None
        return self._sink
