"""Upkeep: what a collector does beside taking what comes: looks at its runs, delivers them, and ends so that all that was acknowledged is safe. In its loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from asynctrack.merging.server.deliveries import Deliveries
from asynctrack.merging.server.served_runs import ServedRuns


@contextlib.asynccontextmanager
async def upkeep(runs: ServedRuns, deliveries: Deliveries | None, directory: Path) -> AsyncIterator[None]:
    """Do it, as long as the block goes on.

    Args:
        runs: that are merged.
        deliveries: of them; None where there are no backends.
        directory: of the runs.
    """
    work = [asyncio.create_task(runs.watch())]
    if deliveries is not None:
        work.append(asyncio.create_task(deliveries.watch()))
        work.append(asyncio.create_task(deliveries.resume(directory)))
    try:
        yield
    finally:
        await runs.close()
        if deliveries is not None:
            await deliveries.stop()
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
