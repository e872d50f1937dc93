"""Stream part: brings what the stream has of one host's part to its merged run. Runs in a collector's loop.

What has become of a message decides on what follows:

| Message | What happens |
| --- | --- |
| merged, and synced | the stream may forget it, but for the last one, which is the host's cursor |
| something before it is missing | it is left; the host is asked for what is missing, once, and the stream keeps what came until that is there |
| garbage, too large, another's | it is left, and said once, to the host too; what comes behind it is tried, but nothing is asked for |
| the run cannot be written now | it is read again from the stream, and what came behind it; others of the shard go on meanwhile |
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Final, NamedTuple

from asynctrack.carriers.message import Place
from asynctrack.carriers.nats.link import NATSLink
from asynctrack.carriers.nats.wire import STREAM, Joiner, Missing, Sent, Word, subject_of
from asynctrack.carriers.wire import InflatesTooFar, PartName, Refusal
from asynctrack.errors import AsynctrackError
from asynctrack.merging.nats.feed import FedMessage, Feed
from asynctrack.merging.nats.words import Words
from asynctrack.merging.server.guarded_merger import BatchPost, Sign
from asynctrack.merging.server.limits import ServerLimits
from asynctrack.merging.server.refused import Refused, refusal_of
from asynctrack.merging.server.served_runs import ServedRuns

# Between two tries of what could not be written; of what was refused, which a person may have mended. Arbitrary.
_AGAIN_S: Final = 1.0
_REFUSED_AGAIN_S: Final = 60.0
# What a gap has held up is read again where nothing has come for so long: the host does not bring it again. Arbitrary.
_QUIET_S: Final = 10.0
# The stream forgets what is merged after so many bytes. Arbitrary.
_FORGET_BYTES: Final = 1 << 20
# What a refusal says that is none of the message's doing.
_NOT_NOW: Final = ("not_now", "disk_full")


class _Whole(NamedTuple):
    """Holds a message with all its parts."""

    first: int
    last: FedMessage
    sent: Sent
    body: bytes


class _Gap(NamedTuple):
    """Says what the stream keeps, though it cannot be merged yet.

    Attributes:
        first: number of its first message.
        after: the place before that.
        upto: the place behind the last.
    """

    first: int
    after: Place
    upto: Place


class StreamPart:
    """One host's part.

    Args:
        name: of the part.
        place: up to where it is merged, as far as is known.
        runs: that are merged.
        words: of the shard.
        limits: of the collector.
        tell: is told why the part is refused, when that has changed; None where it is no more.
    """

    def __init__(
        self,
        name: PartName,
        place: Place,
        runs: ServedRuns,
        words: Words,
        limits: ServerLimits,
        tell: Callable[[PartName, str | None], None],
    ) -> None:
        self.name = name
        self._place = place
        self._runs = runs
        self._words = words
        self._most_bytes = limits.message_bytes
        self._tell = tell
        self._joiner = Joiner(self._most_bytes)
        self._begun = 0  # number of the first part of the message that is being joined
        self._merged = 0  # number of the last message that is merged
        self._journal = b""
        self._to_forget = 0  # bytes of the stream that are merged
        self._forgot_at = time.monotonic()
        self._gap: _Gap | None = None
        self._refused_from: int | None = None  # number of the first message that is refused
        self._told: str | None = None
        self._again_from: int | None = None  # number from which it is read again
        self._again_at = 0.0
        self._seen = 0  # number of the last message that has come
        self._came_at = 0.0
        self._turn = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<StreamPart {self.name.run}@{self.name.host}, merged up to message {self._merged}>"

    @property
    def place(self) -> Place:
        """Return up to where it is merged, as far as is known."""
        return self._place

    async def take(self, messages: Sequence[FedMessage]) -> None:
        """Merge messages that have come, in their order."""
        self._seen, self._came_at = messages[-1].sequence, time.monotonic()
        if self._again_from is None:
            async with self._turn:
                await self._take(messages)

    def is_due(self) -> bool:
        """Return whether it is time to read something again."""
        is_held = self._again_from is not None or self._refused_from is not None
        return is_held and time.monotonic() >= self._again_at

    async def read_again(self, link: NATSLink) -> None:
        """Read from the stream what could not be merged, and what has come since; of what was refused only the first message, if that is again."""
        first = self._again_from if self._again_from is not None else self._refused_from
        assert first is not None
        self._again_from = first  # what comes from now on is only noted
        async with self._turn:
            self._refused_from, self._joiner = None, Joiner(self._most_bytes)
            async with contextlib.aclosing(_messages_of(link, subject_of(self.name), first)) as messages:
                async for message in messages:
                    if message.sequence > self._seen:
                        break
                    if not await self._take([message]):
                        return
                    if self._refused_from is not None or message.sequence >= self._seen:
                        break
            self._again_from = None

    def look(self) -> None:
        """Read again what a gap has held up, where the host does not bring all of it again."""
        gap, now = self._gap, time.monotonic()
        if gap is None or self._again_from is not None or now - self._came_at < _QUIET_S:
            return
        if gap.after <= self._place < gap.upto:
            self._again_from, self._again_at = gap.first, now

    def is_to_forget(self, after_s: float) -> bool:
        """Return whether the stream should forget something."""
        is_long = time.monotonic() - self._forgot_at > after_s
        return self._to_forget > _FORGET_BYTES or (self._to_forget > 0 and is_long)

    async def forget(self, link: NATSLink) -> None:
        """Have the stream forget what is merged, but for the last message."""
        self._forgot_at, size, self._to_forget = time.monotonic(), self._to_forget, 0
        upto = min(self._merged, self._gap.first if self._gap is not None else self._merged)
        try:
            said = self._words.of(self.name)
            number = said.number if said is not None else 0
            if self._gap is None and self._refused_from is None:
                await self._words.say(self.name, Word(journal=self._journal.hex(), have=self._place, number=number))
            await link.api(f"STREAM.PURGE.{STREAM}", {"filter": subject_of(self.name), "seq": upto})
        except BaseException:
            self._to_forget += size
            raise

    async def _take(self, messages: Sequence[FedMessage]) -> bool:
        """Merge messages; returns whether the next may come."""
        whole = [found for message in messages if (found := await self._join(message)) is not None]
        takes = [self._runs.take(self.name, _post(self.name, one)) for one in whole]
        outcomes = await asyncio.gather(*takes, return_exceptions=True)
        for one, outcome in zip(whole, outcomes, strict=True):
            if outcome is None:
                await self._on_merged(one)
            elif not isinstance(outcome, Exception):
                raise outcome
            elif not await self._on_error(one, outcome):
                self._again_from, self._again_at = one.first, time.monotonic() + _AGAIN_S
                return False
        return True

    async def _join(self, message: FedMessage) -> _Whole | None:
        sent = message.sent
        if sent is None:
            await self._refuse(message.sequence, None, "something else than a host's message came on its subject")
            return None
        if sent.part == 1:
            self._begun = message.sequence
        try:
            body = self._joiner.add(sent, message.body)
        except InflatesTooFar as error:
            await self._refuse(self._begun, sent, f"{error} (--max-message of the collector)")
            return None
        return None if body is None else _Whole(self._begun, message, sent, body)

    async def _on_merged(self, one: _Whole) -> None:
        self._journal, self._merged = one.sent.journal, one.last.sequence
        self._place = max(self._place, one.sent.upto)
        self._to_forget += len(one.body)
        if self._gap is not None and self._place >= self._gap.upto:
            self._gap = None
        self._refused_from = None
        self._say(None)
        await self._words.clear(self.name)

    async def _on_error(self, one: _Whole, error: Exception) -> bool:
        """Do what an error asks for; returns False where the same message is to come again."""
        refusal = refusal_of(error, self.name)
        if refusal.code in _NOT_NOW:
            return False
        if refusal.code == "incomplete":
            return await self._on_gap(one, refusal)
        await self._refuse(one.first, one.sent, refusal.error)
        return True

    async def _on_gap(self, one: _Whole, refusal: Refusal) -> bool:
        """Ask the host for what is missing, unless it was asked since it has sent this, or something of it is refused; returns False where that is not known now."""
        sent, gap = one.sent, self._gap
        self._gap = (
            _Gap(one.first, sent.after, sent.upto) if gap is None else gap._replace(upto=max(gap.upto, sent.upto))
        )
        said = self._words.of(self.name)
        number = said.number if said is not None else 0
        if self._refused_from is not None or sent.answers < number:
            return True
        try:
            self._place = place = await self._runs.place_of(self.name, _sign(self.name, one), sent.journal)
        except (AsynctrackError, OSError, Refused):
            return False
        is_before = sent.after > place
        missing = None if is_before else Missing(refusal.ring, refusal.seen, refusal.error)
        number = max(number, sent.answers) + 1
        word = Word(journal=sent.journal.hex(), have=place, want=place, number=number, missing=missing)
        await self._words.say(self.name, word)
        return True

    async def _refuse(self, first: int, sent: Sent | None, why: str) -> None:
        """Say once that something of the part is refused."""
        self._say(why)
        if sent is None:  # a stranger's, who is in no journal
            return
        if self._refused_from is None:
            self._refused_from, self._again_at = first, time.monotonic() + _REFUSED_AGAIN_S
        said = self._words.of(self.name)
        if said is None or said.journal == sent.journal.hex():
            number, have = (0, self._place) if said is None else (said.number, said.have)
            await self._words.say(self.name, Word(journal=sent.journal.hex(), have=have, number=number, refused=why))

    def _say(self, why: str | None) -> None:
        if why != self._told:
            self._told = why
            self._tell(self.name, why)


def _sign(name: PartName, one: _Whole) -> Sign:
    """Return the sign of life that a message is: when it was sent, and for how long it has waited in the stream since."""
    waited_ns = max(0, time.time_ns() - one.last.stored_ns)
    return Sign(name.host, one.sent.time_ns + waited_ns, None, one.sent.behind_bytes)


def _post(name: PartName, one: _Whole) -> BatchPost:
    sent = one.sent
    return BatchPost(_sign(name, one), sent.after, sent.upto, one.body, sent.is_deflated)


async def first_of(link: NATSLink, subject: str) -> int | None:
    """Return the number of the first message of a subject; None where there is none."""
    async with contextlib.aclosing(_messages_of(link, subject, 1, headers_only=True)) as messages:
        async for message in messages:
            return message.sequence
    return None


async def _messages_of(
    link: NATSLink, subject: str, begin: int, *, headers_only: bool = False
) -> AsyncGenerator[FedMessage, None]:
    """Yield the messages of a subject from a number on, by a consumer: servers of version 2.9 may crash where they are asked for the next of a subject.

    Raises:
        FeedLost: the consumer is gone.
    """
    feed = Feed(link, subject, begin, headers_only=headers_only)
    try:
        await feed.open()
        while feed.pending:
            for message in await feed.next():
                yield message
    finally:
        await feed.close()
