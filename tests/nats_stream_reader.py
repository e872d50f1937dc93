"""What the stream of messages has, read as plainly as a collector could."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from collector_server import ask, name_of

from asynctrack.carriers import wire
from asynctrack.carriers.message import batches_in, unpack
from asynctrack.carriers.nats import wire as nats_wire
from asynctrack.carriers.nats.errors import JetStreamError
from asynctrack.carriers.nats.link import NATSLink
from asynctrack.carriers.nats.stream import StoredMessage, stored_in
from asynctrack.carriers.nats.wire import Joiner, Word
from asynctrack.journal.layout import NOTES_RING

LIMIT = 64 << 20


def with_link(url: str, act: Callable[[NATSLink], Awaitable[Any]]) -> Any:
    """Do something with a connection to servers."""

    async def main() -> Any:
        link = NATSLink(url, "test")
        await link.open()
        try:
            return await act(link)
        finally:
            await link.close()

    return asyncio.run(main())


def api(url: str, verb: str, what: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask JetStream."""
    found: dict[str, Any] = with_link(url, lambda link: link.api(verb, what))
    return found


def messages_of(url: str, part: Path) -> list[StoredMessage]:
    """The messages that the stream keeps of a part, in order."""
    subject = nats_wire.subject_of(name_of(part))

    async def read(link: NATSLink) -> list[StoredMessage]:
        """Ask for each number: a server of version 2.9 may crash where it is asked for the next message of a subject."""
        found: list[StoredMessage] = []
        state = (await link.api(f"STREAM.INFO.{nats_wire.STREAM}"))["state"]
        for sequence in range(state["first_seq"], state["last_seq"] + 1):
            try:
                answer = await link.api(f"STREAM.MSG.GET.{nats_wire.STREAM}", {"seq": sequence})
            except JetStreamError as error:
                if error.meaning != "nothing_there":
                    raise
            else:
                if answer["message"]["subject"] == subject:
                    found.append(stored_in(answer))
        return found

    result: list[StoredMessage] = with_link(url, read)
    return result


def stream_rings(url: str, part: Path) -> dict[int, bytes]:
    """The bytes of each ring of a part that the stream has; what comes twice is dropped by its position, and nothing is missing."""
    rings: dict[int, bytes] = {}
    joiner = Joiner(LIMIT)
    for message in messages_of(url, part):
        sent = message.sent
        assert sent is not None
        whole = joiner.add(sent, message.data)
        if whole is None:
            continue
        for batch, bad in batches_in(unpack(wire.inflated(whole, LIMIT) if sent.is_deflated else whole)):
            header, known = batch.header, rings.get(batch.header.ring, b"")
            assert not bad
            if header.ring == NOTES_RING or header.end <= len(known):
                continue
            assert header.start == len(known), f"ring {header.ring:016x} has a gap"
            rings[header.ring] = known + bytes(batch.data)
    return rings


def say(url: str, part: Path, word: Word) -> None:
    """Say something to a host, as a collector does; the bucket is made where it is not there."""
    subject = f"{nats_wire.WORDS_ROOT}.{nats_wire.key_of(name_of(part))}"
    settings = {
        "name": nats_wire.WORDS_STREAM,
        "subjects": [f"{nats_wire.WORDS_ROOT}.>"],
        "max_msgs_per_subject": 1,
        "storage": "file",
        "discard": "new",
        "allow_rollup_hdrs": True,
        "deny_delete": True,
    }

    async def act(link: NATSLink) -> None:
        await link.api(f"STREAM.CREATE.{nats_wire.WORDS_STREAM}", settings)
        link.answer_in((await link.ask(subject, msgspec.json.encode(word))).data)

    with_link(url, act)


def purge(url: str, **what: Any) -> None:
    api(url, f"STREAM.PURGE.{nats_wire.STREAM}", what or None)


def restore(url: str, messages: list[StoredMessage], subject: str) -> None:
    """Have the stream keep messages again, as an older state of it."""

    async def act(link: NATSLink) -> None:
        for message in messages:
            headers = {name: value for name, value in message.headers.items() if name != nats_wire.EXPECTED_HEADER}
            link.answer_in((await link.ask(subject, message.data, headers)).data)

    with_link(url, act)


def sequences(messages: list[StoredMessage]) -> list[tuple[int, int]]:
    return list(itertools.pairwise(message.sequence for message in messages))


@contextlib.contextmanager
def file_bridge(url: str, collector_url: str) -> Iterator[list[int]]:
    """Hand what hosts ask about files to a collector that listens by HTTP; yields the sizes of what they have sent."""
    sizes: list[int] = []
    ready, ending = threading.Event(), threading.Event()

    async def on_request(message: Any) -> None:
        name = nats_wire.part_in(message.subject)
        headers = message.headers
        assert name is not None
        sizes.append(len(message.data))
        target = f"{wire.path_of(name)}{headers[nats_wire.BELOW_HEADER]}?{headers[nats_wire.QUERY_HEADER]}"
        answer = await asyncio.to_thread(
            ask, collector_url, headers[nats_wire.METHOD_HEADER], target, bytes(message.data)
        )
        await message._client.publish(message.reply, answer.body, headers={nats_wire.STATUS_HEADER: str(answer.status)})

    async def serve(link: NATSLink) -> None:
        await link.client.subscribe(f"{nats_wire.ROOT}.*.*.*.*.{nats_wire.FILES}", cb=on_request)
        await link.client.flush()
        ready.set()
        while not ending.is_set():
            await asyncio.sleep(0.01)

    thread = threading.Thread(target=with_link, args=(url, serve))
    thread.start()
    try:
        assert ready.wait(30)
        yield sizes
    finally:
        ending.set()
        thread.join(30)
