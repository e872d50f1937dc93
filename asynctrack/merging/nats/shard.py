"""Shard: merges the runs of one shard as long as this collector has its lease. Runs in its loop.

It begins with what the stream and the merged runs say, and begins so again whenever anything is in doubt: the consumer is gone or has lost something, the
connection was, the stream was set back. The last message of each part says how far the host has sent, the merged run how far it is: from the first
message of those that are behind on, all that the stream has is taken, and what was merged before is known by its position.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from asynctrack.backends.base import ActionRequired, Retry
from asynctrack.carriers import wire
from asynctrack.carriers.message import Place
from asynctrack.carriers.nats import wire as nats_wire
from asynctrack.carriers.nats.errors import JetStreamError
from asynctrack.carriers.nats.link import NATSLink
from asynctrack.carriers.nats.wire import ROOT, SHARDS
from asynctrack.carriers.wire import PartName
from asynctrack.journal.layout import Position
from asynctrack.merging.host_places import load_places
from asynctrack.merging.nats.cancelling import ended
from asynctrack.merging.nats.directory import MergedDirectory
from asynctrack.merging.nats.feed import FedMessage, Feed, FeedLost
from asynctrack.merging.nats.file_answers import answer_about_files
from asynctrack.merging.nats.leases import Leases
from asynctrack.merging.nats.stream_part import StreamPart, first_of
from asynctrack.merging.nats.words import Words
from asynctrack.merging.server.guarded_merger import Sign
from asynctrack.merging.server.limits import ServerLimits
from asynctrack.merging.server.served_runs import ServedRuns

# Between two looks for what is to be read again, or forgotten.
_TICK_S: Final = 0.25
# The stream forgets what is merged after so long at least, and so that a collector asks for it so often at most. Arbitrary.
_FORGET_S: Final = 1.0
_FORGET_RATE: Final = 400
# After something was in doubt. Arbitrary.
_AGAIN_S: Final = 0.2
_AGAIN_AT_MOST_S: Final = 5.0
# Parts that are read again, or forgotten, at once.
_AT_ONCE: Final = 8
# Requests about files that are answered at once; who comes beyond that comes again.
_MOST_FILES: Final = 32
# A sign of life of a host is passed on so often, or four times while it is not yet lost: each is a turn of its run.
_HEARD_S: Final = 10.0
# What JetStream says that passes by itself.
_PASSING: Final = ("nothing_there", "no_stream", "moved", "not_now")
_NO_END: Final = Position(1 << 62, 0)

_log = logging.getLogger("asynctrack.collector")


class Shard:
    """The runs of one shard.

    Args:
        shard: as subjects have it.
        link: the connection.
        directory: of the merged runs.
        leases: of the collector.
        runs: that are merged.
        limits: of the collector.
        tell: is told why a part is refused, when that has changed; None where it is no more.
        tell_trouble: is told what a person has to mend at the servers.
    """

    def __init__(
        self,
        shard: str,
        link: NATSLink,
        directory: MergedDirectory,
        leases: Leases,
        runs: ServedRuns,
        limits: ServerLimits,
        tell: Callable[[PartName, str | None], None],
        tell_trouble: Callable[[str], None],
    ) -> None:
        self._shard = shard
        self._leases = leases
        self._tell_trouble = tell_trouble
        self._link = link
        self._directory = directory
        self._runs = runs
        self._limits = limits
        self._tell = tell
        self._words = Words(link, shard, directory.id)
        self._parts: dict[PartName, StreamPart] = {}
        self._heard_at: dict[PartName, float] = {}
        self._answering: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Shard {self._shard}, {len(self._parts)} parts>"

    async def follow(self) -> None:
        """Merge what is there and what comes, until cancelled.

        Raises:
            Retry: there is no connection.
            ActionRequired: the server does not let this user do what it takes.
        """
        subscriptions, pause_s = [], _AGAIN_S
        try:
            for below, take in ((nats_wire.ALIVE, self._on_alive), (nats_wire.FILES, self._on_files)):
                subscriptions.append(await self._link.client.subscribe(f"{ROOT}.{self._shard}.*.*.*.{below}", cb=take))
            while True:
                began_at = time.monotonic()
                try:
                    await self._follow_once()
                except (FeedLost, JetStreamError) as error:
                    _log.debug("shard %s begins anew: %s", self._shard, error)
                    if isinstance(error, JetStreamError) and error.meaning not in _PASSING:
                        self._tell_trouble(self._link.describe(f"says no: {error}"))
                except (Retry, ActionRequired):
                    raise
                except Exception:  # of what a stranger has sent, and nobody has foreseen: the other shards go on
                    _log.exception("shard %s begins anew", self._shard)
                is_well = time.monotonic() - began_at > _AGAIN_AT_MOST_S
                pause_s = _AGAIN_S if is_well else min(2 * pause_s, _AGAIN_AT_MOST_S)
                await asyncio.sleep(pause_s)
        finally:
            for task in self._answering:
                task.cancel()
            for one in subscriptions:
                with contextlib.suppress(Exception):  # the connection may be gone
                    await one.unsubscribe()

    async def _follow_once(self) -> None:
        self._parts.clear()
        await self._words.load()
        feed = Feed(self._link, self._subjects, await self._begin())
        tending: asyncio.Task[None] | None = None
        try:
            await feed.open()
            tending = asyncio.create_task(self._tend())
            while not tending.done():
                await self._take(await feed.next())
            tending.result()
        finally:
            if tending is not None:
                await ended([tending])
            await feed.close()

    @property
    def _subjects(self) -> str:
        return f"{ROOT}.{self._shard}.*.*.*"

    async def _begin(self) -> int:
        """Return the number of the first message that is to be taken: that of the part that is behind the furthest, or of the next that comes."""
        feed = Feed(self._link, self._subjects, headers_only=True)
        state = (await self._link.api(f"STREAM.INFO.{nats_wire.STREAM}"))["state"]
        try:
            await feed.open()
            last = await feed.all()
        finally:
            await feed.close()
        behind = [one for one in last if self._is_behind(one)]
        firsts = [await first_of(self._link, one.subject) for one in behind]
        return min([int(state["last_seq"]) + 1, *(one for one in firsts if one is not None)])

    def _is_behind(self, last: FedMessage) -> bool:
        name = nats_wire.part_in(last.subject)
        if name is None:
            return False
        if last.sent is None:
            return True
        where = self._words.merged_in(name, last.sent.place)
        if where == self._directory.id:
            if not (self._directory.path / name.project / name.run).exists():
                return False  # somebody has removed the run
        elif where in self._leases.directories:
            return False  # another collector has all of it, and lives
        return self._part(name).place < last.sent.place

    def _part(self, name: PartName) -> StreamPart:
        found = self._parts.get(name)
        if found is None:
            places = load_places(self._directory.path / name.project / name.run, _NO_END)
            place = places.get(name.host, Place())
            found = self._parts[name] = StreamPart(name, place, self._runs, self._words, self._limits, self._tell)
        return found

    async def _take(self, messages: Sequence[FedMessage]) -> None:
        """Merge what has come: of each part in its order, of all at once."""
        of_parts: dict[PartName, list[FedMessage]] = {}
        for message in messages:
            name = nats_wire.part_in(message.subject)
            if name is not None:  # else a stranger's
                of_parts.setdefault(name, []).append(message)
        await _all([self._part(name).take(found) for name, found in of_parts.items()])

    async def _tend(self) -> None:
        """Read again what could not be merged, and have the stream forget what is."""
        while True:
            await asyncio.sleep(_TICK_S)
            parts = list(self._parts.values())
            for part in parts:
                part.look()
            due = [part.read_again(self._link) for part in parts if part.is_due()]
            after_s = max(_FORGET_S, len(parts) * SHARDS / _FORGET_RATE)
            due += [part.forget(self._link) for part in parts if part.is_to_forget(after_s)]
            for at in range(0, len(due), _AT_ONCE):
                await _all(due[at : at + _AT_ONCE])

    # What comes beside the stream

    async def _on_alive(self, message: Any) -> None:
        """Take note of a sign of life."""
        name, alive = nats_wire.part_in(message.subject), nats_wire.alive_in(bytes(message.data))
        now = time.monotonic()
        least_s = min(_HEARD_S, self._limits.lost_after_s / 4)
        if name is None or alive is None or now - self._heard_at.get(name, -least_s) < least_s:
            return
        journal = wire.journal_in(alive.journal)
        if journal is None:
            return
        self._heard_at[name] = now
        with contextlib.suppress(Exception):  # of one part, whose messages say what is wrong
            await self._runs.place_of(name, Sign(name.host, alive.time_ns, time.time_ns(), alive.behind_bytes), journal)

    async def _on_files(self, message: Any) -> None:
        """Answer a request about files, beside others."""
        if len(self._answering) < _MOST_FILES:
            task = asyncio.create_task(answer_about_files(self._link, self._runs, message))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)


async def _all(work: Sequence[Any]) -> None:
    """Wait for all of some calls; raise what the first that failed has raised."""
    for outcome in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
