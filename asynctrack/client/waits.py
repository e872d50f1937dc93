"""Waits: a wait is a generator of pauses in seconds, so that a call and its async twin are one. Runs in the caller."""

from __future__ import annotations

import time
from collections.abc import Iterator


def wait(pauses: Iterator[float]) -> None:
    """Go through a wait on this thread."""
    for pause in pauses:
        time.sleep(pause)


async def wait_async(pauses: Iterator[float]) -> None:
    """Go through a wait, and leave the event loop to others meanwhile; under asyncio and trio."""
    import anyio

    for pause in pauses:
        await anyio.sleep(pause)
