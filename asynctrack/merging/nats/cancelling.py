"""Cancelling: ends tasks for sure. Runs in a collector's loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

# Arbitrary: nobody waits for longer than the task takes.
_AGAIN_S: Final = 0.2


async def ended(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks, and wait until they have ended.

    They are cancelled again and again: before Python 3.12 `asyncio.wait_for`, which nats-py uses, forgets a cancellation that comes with an answer.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_AGAIN_S)
