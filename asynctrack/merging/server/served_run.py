"""Served run: one merged run in a collector's loop. What requests want of its merger is done in turns on a thread, and each turn has one sync for all of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any, NamedTuple, TypeVar

from asynctrack.carriers.message import Place
from asynctrack.journal.host_list import HostList
from asynctrack.merging.server.group_sync import GroupSync
from asynctrack.merging.server.guarded_merger import BatchPost, FileAccess, GuardedMerger, Sign
from asynctrack.merging.server.received_files import ReceivedFiles
from asynctrack.merging.server.refused import Refused

T = TypeVar("T")


class RunNews(NamedTuple):
    """Tells how a merged run is.

    Attributes:
        hosts: that have a part of it.
        has_ended: whether all of them have ended, or are lost.
        trouble: why it cannot be written; None where it can.
    """

    hosts: HostList
    has_ended: bool
    trouble: str | None


class _Wish(NamedTuple):
    """Holds what is to be done with the merger, and who waits for it."""

    act: Callable[[], Any]
    future: asyncio.Future[Any]
    post: BatchPost | None


class ServedRun:
    """A merged run. Used from one loop.

    Args:
        merger: of the run.
        threads: on which it works, one at a time.
        tell: is told how the run is when that has changed; from a thread.
        syncs: shared with other runs.
    """

    def __init__(
        self,
        merger: GuardedMerger,
        threads: Executor,
        tell: Callable[[GuardedMerger, RunNews], None],
        syncs: GroupSync | None = None,
    ) -> None:
        self._merger = merger
        self._syncs = syncs
        self._threads = threads
        self._tell = tell
        self._wishes: list[_Wish] = []
        self._task: asyncio.Task[None] | None = None
        self._told: RunNews | None = None
        self._is_over = False

    def __repr__(self) -> str:
        return f"<ServedRun {self._merger.path}, {len(self._wishes)} waiting>"

    @property
    def is_at_rest(self) -> bool:
        """Return whether nothing is open or waited for."""
        return not self._merger.is_open and self._task is None and not self._wishes

    async def place_of(self, sign: Sign, journal: bytes) -> Place:
        """Return up to where a host's journal is merged and safe; it is a sign of life, too."""
        self._merger.used_at = time.monotonic()
        return await self._do(lambda: self._merger.place_of(sign, journal))

    async def take(self, post: BatchPost) -> None:
        """Merge what a host has sent; returns when it is safe."""
        self._merger.used_at = time.monotonic()
        await self._do(lambda: self._merger.take(post), post)

    async def with_files(self, asked: FileAccess, act: Callable[[ReceivedFiles], T], threads: Executor) -> T:
        """Do something with the files of the run, beside its turns.

        Args:
            asked: for whom.
            act: what to do.
            threads: where to do it: the hash of a large file takes seconds, for which no run shall wait.
        """
        await self.place_of(asked.sign, asked.journal)  # which a host may whose part it is
        return await asyncio.get_running_loop().run_in_executor(threads, self._merger.with_files, asked.size, act)

    async def look(self) -> None:
        """Name the hosts that are lost, and close the run if it has ended and nobody needs it."""
        await self._do(self._merger.look)

    async def close(self) -> None:
        """Sync and close, for good."""
        self._is_over = True
        while self._task is not None:
            await asyncio.wait([self._task])
        await asyncio.get_running_loop().run_in_executor(self._threads, self._merger.close)

    # On the loop

    async def _do(self, act: Callable[[], T], post: BatchPost | None = None) -> T:
        if self._is_over:
            raise Refused("not_now", "the collector ends; try again")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._wishes.append(_Wish(act, future, post))
        if self._task is None:
            self._task = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        """Take turns until nobody waits."""
        try:
            while self._wishes:
                wishes, self._wishes = self._wishes, []
                outcomes = await self._done(wishes)
                for wish, outcome in zip(wishes, outcomes, strict=True):
                    if wish.future.done():  # who waited for it has gone
                        continue
                    if isinstance(outcome, Exception):
                        wish.future.set_exception(outcome)
                    else:
                        wish.future.set_result(outcome)
        finally:
            self._task = None

    async def _done(self, wishes: Sequence[_Wish]) -> list[Any]:
        """Have done what is wished, with a sync of its own, or one with other runs where many have turns at once; returns what came of each."""
        run, syncs = partial(asyncio.get_running_loop().run_in_executor, self._threads), self._syncs
        if syncs is None:
            return await run(self._turn, wishes)
        with syncs.turn():
            if not syncs.is_crowded:
                return await run(self._turn, wishes)
            outcomes, is_over = await run(self._do_all, wishes)
            if is_over:
                return outcomes
            told = await run(_outcome, self._merger.tell)
            is_on_disk = told is None and await syncs.sync(self._merger.device)
            return await run(self._settle, wishes, outcomes, is_on_disk)

    # On a thread

    def _turn(self, wishes: Sequence[_Wish]) -> list[Any]:
        """Do what is wished, sync once, and return what came of each: what it returns, or what it raised."""
        outcomes, is_over = self._do_all(wishes)
        return outcomes if is_over else self._settle(wishes, outcomes)

    def _do_all(self, wishes: Sequence[_Wish]) -> tuple[list[Any], bool]:
        """Do what is wished; returns what came of each, and whether that is all, as there is nothing to sync."""
        merger = self._merger
        try:
            if not merger.is_there():
                found = [self._begins(wish) for wish in wishes]
                if None not in found:
                    return found, True
            merger.open()
        except Exception as error:  # of one run: the others go on
            self._report(RunNews([], False, str(error)))
            return [error] * len(wishes), True
        return [_outcome(wish.act) for wish in wishes], False

    def _settle(self, wishes: Sequence[_Wish], outcomes: Sequence[Any], is_on_disk: bool = False) -> list[Any]:
        """Sync, and return what came of each wish."""
        merger = self._merger
        failure = _outcome(partial(merger.sync, is_on_disk=is_on_disk))
        trouble = next((str(one) for one in (failure, *outcomes) if _is_trouble(one)), None)
        if merger.is_open:
            self._report(RunNews(merger.hosts, merger.has_ended, trouble))
        merger.discard_nothing()
        if failure is None:
            return list(outcomes)
        return [_worse(outcome, failure, wish) for wish, outcome in zip(wishes, outcomes, strict=True)]

    def _begins(self, wish: _Wish) -> Any:
        """Return None if a wish begins a run that is not there: it brings whole batches. Else what comes of it."""
        post = wish.post
        return Place() if post is None else _outcome(lambda: self._merger.check_beginning(post))

    def _report(self, news: RunNews) -> None:
        if news != self._told:
            self._told = news
            self._tell(self._merger, news)


def _is_trouble(outcome: Any) -> bool:
    """Return whether what came of a wish is for who runs the collector to mend."""
    return isinstance(outcome, OSError) or (isinstance(outcome, Refused) and outcome.refusal.code == "disk_full")


def _outcome(act: Callable[[], Any]) -> Any:
    """Return what a call returns, or what it raises."""
    try:
        return act()
    except Exception as error:  # of one request: the others of the turn go on
        return error


def _worse(outcome: Any, failure: Exception, wish: _Wish) -> Any:
    """Return what came of a wish where the sync behind it has failed: nothing that is not safe is acknowledged."""
    return failure if wish.post is not None and not isinstance(outcome, Exception) else outcome
