"""Leases: which shards of runs a collector merges. Runs in its loop; `may_write` is asked on any thread.

A lease is a key of a bucket whose keys last 3 s: `SHARD` with the collector's id. Who makes the key has the shard, and renews it long before it ends; who finds
none makes it. The holder counts by its own clock, from before it asked, and stops writing at 2.4 s: so a collector that was stopped, or that
no answer reaches, writes nothing once another may. A second key for each collector says how many there are, and which directories they have. One that has
more than its share gives shards back of which no run is open; runs that go on stay where they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from collections.abc import Callable, Collection, Coroutine, Iterable
from typing import Any, Final

from asynctrack.backends.base import Retry
from asynctrack.carriers.nats.errors import JetStreamError
from asynctrack.carriers.nats.link import NATSLink
from asynctrack.carriers.nats.wire import EXPECTED_HEADER, SHARDS
from asynctrack.merging.nats.buckets import LEASE_S, LEASES, LEASES_ROOT, last_of

# Of the time that a lease lasts, the part for which its holder relies on it: the rest is for clocks that run differently, and a write that has begun.
_RELIED_ON: Final = 0.8
# Between two times that leases are renewed. Arbitrary: a lease is renewed four times before it is not relied on.
_RENEW_S: Final = 0.5
# Between two looks for free ones. Arbitrary: what it adds to the time after which another takes over.
TURN_S: Final = 0.2
# Of a request: the next turn asks again.
_ANSWER_S: Final = 1.0
# A shard that nobody takes is taken by one that has its share already.
_LEFT_S: Final = 1.5
_STREAM: Final = f"KV_{LEASES}"
_COLLECTORS: Final = "collector-"

ALL_SHARDS: Final = tuple(f"{at:02x}" for at in range(SHARDS))


class Leases:
    """The leases of one collector.

    Attributes:
        collectors: how many there are, as far as is known.
        directories: of those, by their names.

    Args:
        directory: names the one in which this collector merges.
    """

    def __init__(self, directory: str) -> None:
        self.collectors = 1
        self.directories = {directory}
        self._id = secrets.token_hex(8)
        self._presence = f"{_COLLECTORS}{directory}-{self._id}"
        self._numbers: dict[str, int] = {}  # of the key's message, for each shard that is held
        self._until: dict[str, float] = {}
        self._free_since: dict[str, float] = {}
        self._giving: set[str] = set()
        self._renewed_at = 0.0

    def __repr__(self) -> str:
        return f"<Leases of {self._id}, {len(self.held)} of {SHARDS} shards, {self.collectors} collectors>"

    @property
    def held(self) -> set[str]:
        """Return the shards that it has now."""
        return {shard for shard in list(self._numbers) if self.may_write(shard)} - self._giving

    def may_write(self, shard: str) -> bool:
        """Return whether a run of a shard may be written right now."""
        return time.monotonic() < self._until.get(shard, 0.0)

    async def turn(self, link: NATSLink) -> None:
        """Renew what it has, if it is time to, and take what is free.

        Raises:
            Retry: the servers do not answer; what it has ends soon.
        """
        if (now := time.monotonic()) - self._renewed_at >= _RENEW_S:
            await link.ask(f"{LEASES_ROOT}.{self._presence}", b"", timeout_s=_ANSWER_S)
            await _all(self._renew(link, shard) for shard in list(self._numbers))
            self._renewed_at = now
        state = (await link.api(f"STREAM.INFO.{_STREAM}", {"subjects_filter": ">"}, timeout_s=_ANSWER_S))["state"]
        keys = {subject.removeprefix(f"{LEASES_ROOT}.") for subject in state.get("subjects") or {}}
        present = {self._presence, *(key for key in keys if key.startswith(_COLLECTORS))}
        self.collectors, self.directories = len(present), {key.split("-")[1] for key in present}
        await _all(self._take(link, shard) for shard in self._wanted(keys))

    def surplus(self, is_idle: Callable[[str], bool]) -> list[str]:
        """Return the shards that others should have, of those that are idle."""
        held = sorted(self.held)
        more = len(held) - self._share
        return [shard for shard in held if is_idle(shard)][: max(0, more)]

    def begin_giving(self, shard: str) -> None:
        """Hold a shard no more, though it may still be written until `give` is called."""
        self._giving.add(shard)

    async def give(self, link: NATSLink, shards: Collection[str]) -> None:
        """Give shards back, of which all runs are closed."""
        mine = [shard for shard in shards if shard in self._numbers and self.may_write(shard)]
        for shard in shards:
            self._drop(shard)
            self._free_since[shard] = time.monotonic()
        await _all(_purge(link, f"{LEASES_ROOT}.{shard}") for shard in mine)

    async def leave(self, link: NATSLink) -> None:
        """Give all back, at the end."""
        await self.give(link, list(self._numbers))
        with contextlib.suppress(Retry, JetStreamError):
            await _purge(link, f"{LEASES_ROOT}.{self._presence}")

    @property
    def _share(self) -> int:
        return -(-SHARDS // self.collectors)

    def _wanted(self, keys: set[str]) -> list[str]:
        """Return the free shards to take: up to its share, and what nobody takes."""
        now = time.monotonic()
        free = [shard for shard in ALL_SHARDS if shard not in keys and shard not in self._numbers]
        self._free_since = {shard: self._free_since.get(shard, now) for shard in free}
        random.shuffle(free)
        room = max(0, self._share - len(self._numbers))
        return [*free[:room], *(shard for shard in free[room:] if now - self._free_since[shard] > _LEFT_S)]

    async def _renew(self, link: NATSLink, shard: str) -> None:
        asked_at = time.monotonic()
        try:
            self._hold(shard, asked_at, await self._put(link, shard, self._numbers[shard]))
        except JetStreamError as error:
            if error.meaning != "moved":
                return
            found = await last_of(link, _STREAM, f"{LEASES_ROOT}.{shard}")
            if found is not None and found[1].decode("ascii", "replace") == self._id:
                self._numbers[shard] = found[0]  # its own, of which the answer was lost
            else:
                self._drop(shard)

    async def _take(self, link: NATSLink, shard: str) -> None:
        asked_at = time.monotonic()
        try:
            self._hold(shard, asked_at, await self._put(link, shard, 0))
        except JetStreamError:  # another was quicker
            return

    async def _put(self, link: NATSLink, shard: str, before: int) -> int:
        """Write the key if its last message is still the one before; returns the number of the message."""
        headers = {EXPECTED_HEADER: str(before)}
        answer = await link.ask(f"{LEASES_ROOT}.{shard}", self._id.encode(), headers, timeout_s=_ANSWER_S)
        return int(link.answer_in(answer.data)["seq"])

    def _hold(self, shard: str, asked_at: float, number: int) -> None:
        self._numbers[shard], self._until[shard] = number, asked_at + _RELIED_ON * LEASE_S

    def _drop(self, shard: str) -> None:
        self._numbers.pop(shard, None)
        self._until.pop(shard, None)
        self._giving.discard(shard)


async def _purge(link: NATSLink, subject: str) -> None:
    await link.api(f"STREAM.PURGE.{_STREAM}", {"filter": subject}, timeout_s=_ANSWER_S)


async def _all(tasks: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Wait for all, and raise what the first that failed has raised."""
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
