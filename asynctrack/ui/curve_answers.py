"""Curve answers: the blocks of curves that a page has asked for, run by run. Runs in the server of the page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Final

import msgspec

from asynctrack.curves.cuts import History
from asynctrack.curves.group import group_curve, group_extent
from asynctrack.curves.run_curves import RunCurves
from asynctrack.errors import AsynctrackError
from asynctrack.journal.manifest import UNREADABLE
from asynctrack.ui.curve_wire import block_of_curve, block_of_group
from asynctrack.ui.file_threads import FileThreads, NoAnswer
from asynctrack.ui.run_document import metrics_of
from asynctrack.ui.run_list import ListedRun
from asynctrack.ui.run_shelf import RunShelf

# Runs that are drawn ahead of what the page has taken.
_AHEAD: Final = 8
_AXES: Final = ("step", "time", "relative")
# What one run's files may raise: the others are answered all the same.
_OF_ONE_RUN: Final = (NoAnswer, AsynctrackError, OSError, *UNREADABLE)


class CurveWindow(msgspec.Struct, frozen=True, kw_only=True):
    """Says what is asked for of each run.

    Attributes:
        keys: the metrics; none for the first of the run.
        x: "step", "time", "relative", or another metric.
        x0: the first x; None for that of each metric.
        x1: the last x.
        buckets: how many, at most.
        history: of resumed runs.
    """

    keys: tuple[str, ...]
    x: str = "step"
    x0: float | None = None
    x1: float | None = None
    buckets: int = 300
    history: History = "last"


class CurveAnswers:
    """Draws curves for the page.

    Args:
        shelf: has the curves.
        threads: on which they are read and drawn.
    """

    def __init__(self, shelf: RunShelf, threads: FileThreads) -> None:
        self._shelf = shelf
        self._threads = threads

    async def curves(self, runs: Sequence[ListedRun], window: CurveWindow) -> AsyncIterator[bytes]:
        """Yield the blocks of each run, as they are ready: a run whose disk hangs comes never, and holds up none of the others."""
        waiting = iter(runs)
        pending: set[asyncio.Task[bytes]] = set()
        try:
            while True:
                while len(pending) < _AHEAD and (run := next(waiting, None)) is not None:
                    pending.add(asyncio.create_task(self._blocks(run, window)))
                if not pending:
                    return
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                if found := b"".join(task.result() for task in done):
                    yield found
        finally:
            for task in pending:
                task.cancel()

    async def groups(self, runs: Sequence[ListedRun], window: CurveWindow) -> bytes:
        """Return a block for each metric, of all runs."""
        found = await asyncio.gather(*(self._grown(run, window.history) for run in runs))
        curves = [one for one in found if one is not None]
        return await self._threads.call("groups", lambda: b"".join(_group_blocks(curves, window)))

    async def totals(self, runs: Sequence[ListedRun]) -> dict[str, Any]:
        """Return what each metric of each run comes to."""
        found = await asyncio.gather(*(self._grown(run, "last") for run in runs))
        goals = [run.look.summary.goals if run.look is not None else {} for run in runs]
        known = [
            (run.key, curves, of) for run, curves, of in zip(runs, found, goals, strict=True) if curves is not None
        ]
        return await self._threads.call("totals", lambda: {key: metrics_of(curves, of) for key, curves, of in known})

    async def _blocks(self, run: ListedRun, window: CurveWindow) -> bytes:
        def draw() -> bytes:
            curves, _ = self._shelf.curves_of(run.path, window.history)
            return b"".join(_blocks_of(run.key, curves, window))

        try:
            return await self._threads.call(run.path, draw)
        except _OF_ONE_RUN:
            return b""

    async def _grown(self, run: ListedRun, history: History) -> RunCurves | None:
        try:
            curves, _ = await self._threads.call(run.path, lambda: self._shelf.curves_of(run.path, history))
            return curves
        except _OF_ONE_RUN:
            return None


def _blocks_of(run: str, curves: RunCurves, window: CurveWindow) -> Iterator[bytes]:
    names = curves.names()
    known = {*names}
    if window.x not in (*_AXES, *known):
        return
    keys = [key for key in window.keys if key in known] if window.keys else names[:1]
    found = curves.curves(keys, window.x, window.x0, window.x1, window.buckets)
    for key, curve in found.items():
        yield block_of_curve(run, curve, curves.extent(key, window.x))


def _group_blocks(curves: Sequence[RunCurves], window: CurveWindow) -> Iterator[bytes]:
    for key in window.keys:
        found = group_curve(curves, key, window.x, window.x0, window.x1, window.buckets)
        yield block_of_group(found, group_extent(curves, key, window.x))
