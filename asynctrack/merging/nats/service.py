"""Service: a collector of what hosts send by NATS, from its start to a clean end. Runs in `asynctrack collect nats://...`.

What is safe where: a host goes on when the stream has its message; the stream forgets a message when it is merged and synced; a run is
merged by the collector that has the lease of its shard, and by nobody else. So everything is found again from the stream and the merged runs, whoever was killed:
consumers, places in the stream and what was acknowledged are never relied on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Collection, Coroutine, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from asynctrack.backends.base import ActionRequired, Backend, Retry
from asynctrack.carriers.nats.errors import JetStreamError
from asynctrack.carriers.nats.link import NATSLink
from asynctrack.carriers.nats.wire import shard_of
from asynctrack.carriers.wire import PartName
from asynctrack.merging.nats.buckets import make_streams
from asynctrack.merging.nats.cancelling import ended
from asynctrack.merging.nats.directory import MergedDirectory
from asynctrack.merging.nats.leases import TURN_S, Leases
from asynctrack.merging.nats.shard import Shard
from asynctrack.merging.server.deliveries import Deliveries
from asynctrack.merging.server.limits import ServerLimits
from asynctrack.merging.server.served_runs import RunChange, ServedRuns
from asynctrack.merging.server.upkeep import upkeep

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
# Between two tries to connect: soon, since leases end; what a person has to mend takes longer. Arbitrary.
_CONNECT_AGAIN_S: Final = 0.3
_MEND_AGAIN_S: Final = 5.0
# Between two looks whether the streams are there. Arbitrary.
_MAKE_S: Final = 2.0
# Between two looks whether a lease has ended.
_WATCH_S: Final = 0.1
# A connection on which leases are not renewed for so long is made again.
_DEAD_S: Final = 6.0
# Between two looks for runs that go on, and that nobody asks of. Arbitrary.
_RESUME_S: Final = 30.0


class NATSSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what a collector is started with.

    Attributes:
        url: of the servers.
        directory: for the merged runs.
        limits: of what it takes.
        backends: to which merged runs are delivered.
    """

    url: str
    directory: Path
    limits: ServerLimits = ServerLimits()
    backends: dict[str, Backend] = {}


class CollectorNews(msgspec.Struct, frozen=True, kw_only=True):
    """Tells of the collector, or of one part, when something has changed.

    Attributes:
        shards: how many it merges; None where that is not what has changed.
        collectors: how many there are.
        part: of which this is said; None where it is of the collector.
        trouble: what is wrong; None where nothing is, any more.
    """

    shards: int | None = None
    collectors: int = 1
    part: PartName | None = None
    trouble: str | None = None


class NATSCollector:
    """Collects until a signal comes.

    Args:
        settings: what it is started with.
        host: the directory of this process's handshake, for delivery processes.
        tell: is told how a merged run is when that has changed.
        tell_news: is told what has changed beside that.

    Raises:
        OSError: the directory cannot be written.
    """

    def __init__(
        self,
        settings: NATSSettings,
        host: str,
        tell: Callable[[RunChange], None],
        tell_news: Callable[[CollectorNews], None],
    ) -> None:
        self._settings = settings
        self._host = host
        self._directory = MergedDirectory.at(settings.directory)
        self._tell = tell
        self._tell_news = tell_news
        self._leases = Leases(self._directory.id)
        self._deliveries: Deliveries | None = None
        self._runs = ServedRuns(
            settings.directory,
            settings.limits,
            settings.backends,
            self._on_change,
            may_write=lambda run: self._leases.may_write(shard_of(run)),
        )
        self._stop = asyncio.Event()
        self._shards: dict[str, asyncio.Task[None]] = {}
        self._mine: set[str] = set()  # shards of which runs may be open
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._resuming: asyncio.Task[None] | None = None
        self._resumed_at, self._resumed = 0.0, set[str]()
        self._refused: dict[PartName, str] = {}
        self._told = (0, 1)
        self._trouble: str | None = None

    def __repr__(self) -> str:
        return f"<NATSCollector of {self._settings.url}, {self._leases!r}>"

    def collect(self) -> None:
        """Collect until SIGTERM or SIGINT; what is merged is safe then.

        Raises:
            ActionRequired: the servers do not let it, at the beginning.
        """
        asyncio.run(self._collect())

    async def _collect(self) -> None:
        if self._settings.backends:
            self._deliveries = Deliveries(self._settings.backends, self._host)
        with _ending(self._stop):
            link = await self._connect(is_first=True)
            async with upkeep(self._runs, self._deliveries, self._settings.directory):
                watching = asyncio.create_task(self._watch_leases())
                try:
                    while link is not None:
                        try:
                            await self._work(link)
                        finally:
                            await link.close()
                        link = await self._connect()
                finally:
                    await ended([watching])

    async def _connect(self, *, is_first: bool = False) -> NATSLink | None:
        """Connect; None once it is to end. Servers that are away are waited for; what a person has to mend ends it only at the beginning."""
        while not self._stop.is_set():
            link, again_s = NATSLink(self._settings.url, "asynctrack collect"), _CONNECT_AGAIN_S
            try:
                await link.open()
                await make_streams(link)
                self._say_trouble(None)
                return link
            except ActionRequired as error:
                if is_first:
                    await link.close()
                    raise
                self._say_trouble(str(error))
                again_s = _MEND_AGAIN_S
            except (Retry, JetStreamError) as error:
                self._say_trouble(str(error))
            await link.close()
            await self._pause(again_s)
        return None

    async def _work(self, link: NATSLink) -> None:
        """Collect until it is to end, or until something is wrong with the connection."""
        renewed_at = made_at = time.monotonic()
        try:
            while not self._stop.is_set():
                try:
                    if time.monotonic() - made_at > _MAKE_S:  # somebody may have deleted it
                        await make_streams(link)
                        made_at = time.monotonic()
                    await self._leases.turn(link)
                    renewed_at = time.monotonic()
                except (Retry, JetStreamError) as error:
                    if not link.is_open or time.monotonic() - renewed_at > _DEAD_S:
                        return self._say_trouble(str(error))
                self._arrange(link)
                if not self._is_well():
                    return None
                await self._pause(TURN_S)
            await self._leave_all(link)
        except ActionRequired as error:
            self._say_trouble(str(error))
            await self._pause(_MEND_AGAIN_S)
        finally:
            await ended(self._shards.values())
            self._shards.clear()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)

    # Shards

    async def _watch_leases(self) -> None:
        """Let go of shards whose lease has ended, whatever the connection does: the runs' locks are for others then. Until cancelled."""
        while True:
            held = self._leases.held
            for shard in self._mine - held - self._leaving.keys():
                self._begin_leaving(shard, None)
            self._tell_shards(len(held))
            await asyncio.sleep(_WATCH_S)

    def _arrange(self, link: NATSLink) -> None:
        """Begin with shards that it has, and give back those that others should have."""
        for shard in self._leases.surplus(self._is_idle):
            self._leases.begin_giving(shard)
            self._begin_leaving(shard, link)
        for shard in self._leases.held - self._shards.keys() - self._leaving.keys():
            self._mine.add(shard)
            self._shards[shard] = asyncio.create_task(self._follow(shard, link))
        self._resume()

    def _tell_shards(self, held: int) -> None:
        told = held, self._leases.collectors
        if told != self._told:
            self._told = told
            self._tell_news(CollectorNews(shards=told[0], collectors=told[1]))

    def _follow(self, shard: str, link: NATSLink) -> Coroutine[Any, Any, None]:
        found = self._settings
        told = self._on_part, self._say_trouble
        return Shard(shard, link, self._directory, self._leases, self._runs, found.limits, *told).follow()

    def _is_well(self) -> bool:
        """Return whether the shards go on. One that has failed does so by the connection."""
        for task in self._shards.values():
            if task.done() and not task.cancelled():
                error = task.exception()
                if isinstance(error, Retry):
                    self._say_trouble(str(error))
                    return False
                if error is not None:
                    raise error
        return True

    def _is_idle(self, shard: str) -> bool:
        return shard in self._mine and shard not in self._leaving and not self._runs.is_busy(_of({shard}))

    def _begin_leaving(self, shard: str, giving: NATSLink | None) -> None:
        task = self._leaving[shard] = asyncio.create_task(self._leave({shard}, giving))
        task.add_done_callback(lambda _: self._leaving.pop(shard, None))

    async def _leave(self, shards: Collection[str], giving: NATSLink | None) -> None:
        """Close the runs of some shards, and give these back where that is to be."""
        mine = _of(shards)
        await ended([task for shard in shards if (task := self._shards.pop(shard, None)) is not None])
        await self._runs.let_go(mine)
        if self._deliveries is not None:
            await self._deliveries.leave(mine)
        self._mine.difference_update(shards)
        if giving is not None:
            with contextlib.suppress(Retry, JetStreamError):  # it ends by itself
                await self._leases.give(giving, shards)

    async def _leave_all(self, link: NATSLink) -> None:
        await asyncio.gather(*self._leaving.values(), return_exceptions=True)
        await self._leave(set(self._mine), None)
        with contextlib.suppress(Retry, JetStreamError):  # they end by themselves
            await self._leases.leave(link)

    def _resume(self) -> None:
        """Now and then open the runs that go on: their hosts may be lost, or another process may have let go of them."""
        self._resumed &= self._mine
        is_due = time.monotonic() - self._resumed_at > _RESUME_S or self._mine - self._resumed
        if (self._resuming is None or self._resuming.done()) and is_due and self._mine:
            self._resumed_at, self._resumed = time.monotonic(), set(self._mine)
            self._resuming = asyncio.create_task(self._runs.resume(_of(self._mine)))

    # What is told

    def _on_change(self, change: RunChange) -> None:
        run = Path(change.path)
        if self._deliveries is not None and change.hosts and self._leases.may_write(shard_of(run.name)):
            self._deliveries.note(run, has_ended=change.has_ended)
        self._tell(change)

    def _on_part(self, name: PartName, why: str | None) -> None:
        if self._refused.get(name) != why:
            if why is None:
                del self._refused[name]
            else:
                self._refused[name] = why
            self._tell_news(CollectorNews(part=name, trouble=why))

    def _say_trouble(self, trouble: str | None) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            self._tell_news(CollectorNews(trouble=trouble))


def _of(shards: Collection[str]) -> Callable[[str], bool]:
    """Return what says of a run by its id whether it is one of some shards."""
    return lambda run: shard_of(run) in shards


@contextlib.contextmanager
def _ending(stop: asyncio.Event) -> Iterator[None]:
    """Have a signal set an event; a second one ends the process."""
    loop = asyncio.get_running_loop()

    def end(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    for one in _SIGNALS:
        loop.add_signal_handler(one, end, one)
    try:
        yield
    finally:
        for one in _SIGNALS:
            loop.remove_signal_handler(one)
