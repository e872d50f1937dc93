"""Feed: the messages of some subjects of the stream, as they come. Runs in a collector's loop.

A consumer only says that something has come: it acknowledges nothing, lives in the server's memory, and is forgotten with the connection. What raises is begun
anew by whoever reads, from what the stream and the merged runs say.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final, NamedTuple

import msgspec

from asynctrack.carriers.nats.errors import JetStreamError
from asynctrack.carriers.nats.link import NATSLink
from asynctrack.carriers.nats.wire import STREAM, Sent, sent_in

# Of one answer: so much of a shard is in memory, twice. Arbitrary.
_BATCH: Final = 256
_BATCH_BYTES: Final = 4 << 20
# For how long the server keeps a question, and by then it has said something.
_ASK_S: Final = 5.0
_LATE_S: Final = 3.0
# For how long the server keeps a consumer that nobody asks.
_FORGOTTEN_S: Final = 30.0
# Of a status: that a question was answered in full, or has ended. All others mean that the consumer is gone.
_ENDS: Final = {"404", "408"}
_ENDING_WORDS: Final = ("batch completed", "exceeds maxbytes", "exceeded maxrequestmaxbytes")


class FeedLost(Exception):
    """The consumer is gone, or something of it was lost."""


class FedMessage(NamedTuple):
    """Holds a message of the stream.

    Attributes:
        subject: of it.
        sequence: its number in the stream.
        stored_ns: when the stream took it, by the server's clock.
        sent: what its headers say; None where no host has sent it.
        body: of it; empty where only headers were asked for.
    """

    subject: str
    sequence: int
    stored_ns: int
    sent: Sent | None
    body: bytes


class Feed:
    """Reads from a consumer of its own.

    Args:
        link: the connection.
        subjects: of the messages.
        begin: the number of the first message; None for only the last of each subject.
        stream: that has them.
        headers_only: whether their bodies are left out.
    """

    def __init__(
        self,
        link: NATSLink,
        subjects: str,
        begin: int | None = None,
        *,
        stream: str = STREAM,
        headers_only: bool = False,
    ) -> None:
        self._link = link
        self._stream = stream
        self._headers_only = headers_only
        self._subjects = subjects
        self._begin = begin
        self._name = ""
        self._inbox = ""
        self._subscription: Any = None
        self._came: asyncio.Queue[Any] = asyncio.Queue()
        self._asked = 0  # messages that the last question may still bring
        self._number = 0  # of the last message, as the consumer counts
        self.pending = 0

    def __repr__(self) -> str:
        return f"<Feed of {self._subjects} from {self._begin}, {self.pending} to come>"

    async def open(self) -> None:
        """Make the consumer.

        Raises:
            FeedLost: there is no stream.
            Retry: the server does not answer.
        """
        where = (
            {"deliver_policy": "last_per_subject"}
            if self._begin is None
            else {"deliver_policy": "by_start_sequence", "opt_start_seq": max(1, self._begin)}
        )
        config = {
            **where,
            "headers_only": self._headers_only,
            "ack_policy": "none",
            "replay_policy": "instant",
            "filter_subject": self._subjects,
            "inactive_threshold": round(_FORGOTTEN_S * 1e9),
            "mem_storage": True,
            "num_replicas": 1,
            "description": f"asynctrack collect: {self._subjects}",
        }
        client = self._link.client
        self._inbox = client.new_inbox()
        self._subscription = await client.subscribe(self._inbox, cb=self._on_message)
        try:
            made = await self._link.api(
                f"CONSUMER.CREATE.{self._stream}", {"stream_name": self._stream, "config": config}
            )
        except JetStreamError as error:
            if error.meaning in ("no_stream", "not_now"):
                raise FeedLost(str(error)) from error
            raise
        self._name, self.pending = made["name"], int(made.get("num_pending", 0))

    async def close(self) -> None:
        """Let the consumer go."""
        with contextlib.suppress(Exception):  # the server forgets it anyway
            if self._subscription is not None:
                await self._subscription.unsubscribe()
            if self._name:
                await self._link.client.publish(f"$JS.API.CONSUMER.DELETE.{self._stream}.{self._name}")

    async def all(self) -> list[FedMessage]:
        """Return all that is there."""
        found: list[FedMessage] = []
        while self.pending:
            found += await self.next()
        return found

    async def next(self) -> list[FedMessage]:
        """Wait for messages; returns those that are here. None have come where it returns none: the consumer is well.

        Raises:
            FeedLost: it is gone, or has lost something.
            Retry: there is no connection.
        """
        if not self._asked:
            await self._ask()
        try:
            async with asyncio.timeout(_ASK_S + _LATE_S):
                came = [await self._came.get()]
        except TimeoutError:
            raise FeedLost(f"the consumer of {self._subjects} says nothing") from None
        while not self._came.empty():
            came.append(self._came.get_nowait())
        found = [message for one in came if (message := self._read(one)) is not None]
        if not self._asked:
            await self._ask()  # what it brings comes while this is worked on
        return found

    async def _ask(self) -> None:
        size = max(_BATCH_BYTES, self._link.max_payload + (64 << 10))
        what = {"batch": _BATCH, "max_bytes": size, "expires": round(_ASK_S * 1e9)}
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._name}"
        await self._link.client.publish(subject, msgspec.json.encode(what), reply=self._inbox)
        self._asked = _BATCH

    async def _on_message(self, message: Any) -> None:
        self._came.put_nowait(message)

    def _read(self, message: Any) -> FedMessage | None:
        headers = message.headers or {}
        if message.subject == self._inbox:
            said = {str(getattr(name, "value", name)): str(value) for name, value in headers.items()}
            self._take_status(said.get("Status", ""), said.get("Description", ""))
            return None
        facts = message.metadata
        if facts.sequence.consumer != self._number + 1:
            raise FeedLost(f"the consumer of {self._subjects} has lost messages")
        self._number, self.pending = facts.sequence.consumer, facts.num_pending
        self._asked -= 1
        stored_ns = round(facts.timestamp.timestamp() * 1e9)
        return FedMessage(message.subject, facts.sequence.stream, stored_ns, sent_in(headers), bytes(message.data))

    def _take_status(self, status: str, said: str) -> None:
        if status in _ENDS and self._asked == _BATCH:
            self.pending = 0  # what was to come has been purged meanwhile
        if status in _ENDS or any(word in said.lower() for word in _ENDING_WORDS):
            self._asked = 0
        elif status != "100":
            raise FeedLost(f"the consumer of {self._subjects} is gone: {status} {said}".strip())
