"""NATS: the carrier to a stream of JetStream, from which `asynctrack collect nats://...` takes what hosts send. Runs on a host, in its delivery process.

The last message of the host's subject says how far its journal is in the stream, and each message names the one before: so nothing is lost or comes late, whoever was
killed, and whatever the stream has lost. One message is under way at a time, and anything but the server's word that it is kept counts as not kept.

| What JetStream says | Raised |
| --- | --- |
| the subject's last message is another: another publisher, or an answer that was lost | `Retry`, at once |
| the stream is full | `Retry`: the journal keeps what waits |
| there is no stream | it is made; `Unreachable` where only the collector may, `ActionRequired` where JetStream does not |
| no JetStream, no permission, all else | `ActionRequired` |
| nothing, or the connection ends | `Retry`; `SlowCollector` where it only takes too long |

| What the collector says (`nats_wire.Word`) | What happens |
| --- | --- |
| `want` | it is sent again from there, once for each number |
| `missing` | `PartIncomplete` |
| `refused` | `PartRefused` |
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import msgspec

from asynctrack.backends.base import ActionRequired, Retry, TooLarge, Unreachable
from asynctrack.carriers import wire
from asynctrack.carriers.base import SlowCollector
from asynctrack.carriers.cutter import bytes_behind
from asynctrack.carriers.message import Place
from asynctrack.carriers.nats import wire as nats_wire
from asynctrack.carriers.nats.errors import JetStreamError, MayNotMake, NobodyThere, TookTooLong
from asynctrack.carriers.nats.failures import AT_ONCE_S, fail_of_files, fail_of_stream
from asynctrack.carriers.nats.link import NATSLink
from asynctrack.carriers.nats.loop import NATSLoop
from asynctrack.carriers.nats.setup import make_stream
from asynctrack.carriers.nats.stream import StoredMessage, stored_in
from asynctrack.carriers.nats.wire import Alive, Sent, Word
from asynctrack.errors import PartIncomplete, PartRefused

T = TypeVar("T")

# A server keeps a message within milliseconds, or has no leader for it. Arbitrary: beyond what a slow disk takes.
_KEEP_S: Final = 5.0
# Until it has come, this slowly; more slowly it is cut smaller. What comes through says how fast the line is. Arbitrary.
_LEAST_RATE: Final = 25 * 1024
_MEASURED_BYTES: Final = 16 * 1024
# By so much a line may become slower, from one message to the next, before one is given up. Arbitrary.
_SLOWER: Final = 4
# Of a chunk of a file, which the collector writes.
_FILE_S: Final = 30.0
# Parts of messages are not cut smaller than this, whatever the stream's limit. Arbitrary.
_LEAST_PART_BYTES: Final = 4096
# Whatever the server's limit: half of the smallest that is of use, since headers have about 300 bytes.
_LEAST_PIECE_BYTES: Final = 512


class NATSCarrier:
    """The way from one host's journal to the stream.

    Args:
        url: of the servers; `nats_address.address_problems` has found none in it.
        name: of the host's part.
        journal: the directory of its journal, of which the collector is told how much is still to come; None where it is not.
    """

    def __init__(self, url: str, name: wire.PartName, journal: Path | None = None) -> None:
        self._name = name
        self._directory = journal
        self._subject = nats_wire.subject_of(name)
        self._key = f"{nats_wire.WORDS_ROOT}.{nats_wire.key_of(name)}"
        self._link = NATSLink(url, f"asynctrack {name.project}/{name.run}@{name.host}"[:200])
        self._loop = NATSLoop("asynctrack-nats")
        self._journal = b""
        self._sequence = 0  # of the subject's last message
        self._answers = 0  # number of the want that is answered
        self._told_missing = 0  # number of the want for which `PartIncomplete` was raised
        self._most_part = 1 << 62
        self._keeps = False  # whether the stream has shown, by this connection, that it keeps what it takes
        self._kept: tuple[Sent, int] | None = None  # the last part of a message that is not whole yet, and its hash
        self._has_word = False
        self._behind_bytes = 0
        self._rate: float = _LEAST_RATE  # in bytes a second
        self._alive: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<NATSCarrier of {self._name.host} by {self._link!r}>"

    @property
    def merges(self) -> bool:
        """Return False: the stream keeps what a collector takes later."""
        return False

    @property
    def asks_again(self) -> bool:
        """Return whether the collector has said something, or the connection has ended: the stream may have been set back meanwhile."""
        return self._has_word or (bool(self._journal) and not self._link.is_open)

    def locate(self, journal: bytes) -> Place:
        """Ask the stream for the last message, and for the collector's word."""
        self._journal = journal
        return self._call(self._locate(journal))

    def send(self, after: Place, upto: Place, message: bytes) -> None:
        """Have the stream keep a message, deflated where that gains something, in parts where the server takes less."""
        deflated = wire.deflated(message)
        behind = None if self._directory is None else bytes_behind(self._directory, upto)
        self._behind_bytes = (behind or 0) + len(message)
        sent = Sent(
            self._journal, after, upto, is_deflated=deflated is not None, answers=self._answers, behind_bytes=behind
        )
        self._call(self._send(sent, message if deflated is None else deflated))
        self._behind_bytes = behind or 0

    def ask_of_files(self, method: str, below: str, query: Mapping[str, str], body: bytes) -> bytes:
        """Ask the collector that merges this run."""
        return self._call(self._ask_of_files(method, below, {wire.JOURNAL: self._journal.hex(), **query}, body))

    def close(self) -> None:
        """Close the connection, and end its thread."""
        if self._loop.is_running:
            with contextlib.suppress(Exception):  # it is ended all the same
                self._loop.call(self._close())
            self._loop.stop()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.call(self._guarded(work))

    # In the loop

    async def _guarded(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something; what raises closes the connection."""
        try:
            return await work
        except JetStreamError as error:
            await self._close()
            fail_of_stream(self._link, error)
        except BaseException:
            await self._close()
            raise

    async def _close(self) -> None:
        if self._alive is not None:
            self._alive.cancel()
            self._alive = None
        await self._link.close()

    async def _open(self) -> None:
        if self._link.is_open:
            return
        await self._close()
        await self._link.open()
        self._keeps = False
        # A server that does not allow it says so, and the word is asked for now and then.
        await self._link.client.subscribe(self._key, cb=self._on_word)
        self._alive = asyncio.create_task(self._live())

    async def _on_word(self, message: Any) -> None:
        word = nats_wire.word_in(message.data)
        self._has_word = self._has_word or (word is not None and self._is_news(word))

    def _is_news(self, word: Word) -> bool:
        return word.refused is not None or word.journal != self._journal.hex() or word.number > self._answers

    async def _live(self) -> None:
        """Give signs of life, until cancelled."""
        while True:
            sign = Alive(time_ns=time.time_ns(), journal=self._journal.hex(), behind_bytes=self._behind_bytes)
            with contextlib.suppress(Exception):  # the next call finds out what is wrong
                await self._link.client.publish(f"{self._subject}.{nats_wire.ALIVE}", msgspec.json.encode(sign))
            await asyncio.sleep(nats_wire.ALIVE_S)

    async def _locate(self, journal: bytes) -> Place:
        await self._open()
        self._has_word = False
        word = await self._word()
        last = await self._last()
        sent = None if last is None else last.sent
        if last is not None and sent is None:
            self._refuse(
                f"the last message of {self._subject} in the stream is none that a host has sent; remove it, or give this host another name"
            )
        if sent is not None and sent.journal != journal:
            self._refuse(
                "the stream has messages of another journal of this host; give this part another name by ASYNCTRACK_HOST, or purge its subject"
            )
        if word is not None and word.journal != journal.hex():
            self._refuse(
                "the collector has another journal of this host; give this part another name by ASYNCTRACK_HOST"
            )
        if word is not None and word.refused is not None:
            self._refuse(word.refused)
        if self._kept is not None and (
            sent is None or (sent.whole, sent.part) != (self._kept[0].whole, self._kept[0].part)
        ):
            self._kept = None
        self._sequence = 0 if last is None else last.sequence
        self._answers = 0 if sent is None else sent.answers
        place = sent.place if sent is not None else Place() if word is None else word.have
        return place if word is None or word.number <= self._answers else self._answer(word, place)

    def _answer(self, word: Word, place: Place) -> Place:
        """Return from where to send, as the collector wants it.

        Raises:
            PartIncomplete: something is missing there; once for each want, then the journal is searched for it.
        """
        missing = word.missing
        if missing is not None and word.number != self._told_missing:
            self._told_missing = word.number
            raise PartIncomplete(self._run, self._name.host, missing.why, missing.ring, missing.seen)
        self._answers = word.number
        return place if word.want is None else min(place, max(word.want, word.have))

    async def _last(self) -> StoredMessage | None:
        """Return the subject's last message, from the stream's leader: others may lag behind."""
        found = await self._stored(nats_wire.STREAM, self._subject)
        if isinstance(found, JetStreamError) and found.meaning == "no_stream":
            await self._make_stream()
            found = await self._stored(nats_wire.STREAM, self._subject)
        if isinstance(found, JetStreamError):
            raise found
        return found

    async def _make_stream(self) -> None:
        try:
            await make_stream(self._link)
        except MayNotMake as error:  # this host came first: a collector makes it when it starts
            raise Unreachable(f"{error}, or start a collector that may") from error

    async def _word(self) -> Word | None:
        found = await self._stored(nats_wire.WORDS_STREAM, self._key)
        if isinstance(found, JetStreamError):
            raise found
        return None if found is None else nats_wire.word_in(found.data)

    async def _stored(self, stream: str, subject: str) -> StoredMessage | JetStreamError | None:
        """Return the last message of a subject, or what was said of a stream that is not there; None where there is no message."""
        try:
            return stored_in(await self._link.api(f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject}))
        except JetStreamError as error:
            if error.meaning == "nothing_there" or (error.meaning == "no_stream" and stream != nats_wire.STREAM):
                return None
            return error
        except ValueError as error:
            raise Retry(self._link.describe(f"answered with something else than a message: {error}")) from error

    async def _send(self, sent: Sent, body: bytes) -> None:
        if not self._link.is_open:
            raise Unreachable(self._link.describe("has closed the connection"), AT_ONCE_S)
        most = max(_LEAST_PIECE_BYTES, self._link.max_payload - nats_wire.HEADER_ROOM)
        parts = nats_wire.pieces(body, min(most, self._most_part))
        sent, found, kept = sent._replace(parts=len(parts)), hash(body), self._kept
        # Of a long message it goes on: a full stream would fill with beginnings of it.
        begin = kept[0].part if kept is not None and (kept[0].whole, kept[1]) == (sent.whole, found) else 0
        for at, part in enumerate(parts[begin:], begin + 1):
            one = sent._replace(part=at, time_ns=time.time_ns())
            await self._publish(one, part)
            self._kept = (one, found) if at < len(parts) else None

    async def _publish(self, sent: Sent, body: bytes) -> None:
        """Have the stream keep a message, behind the one that it was said to have last."""
        headers = {**nats_wire.headers_of(sent), nats_wire.EXPECTED_HEADER: str(self._sequence)}
        begun = time.monotonic()
        try:
            answer = await self._link.ask(self._subject, body, headers, timeout_s=_KEEP_S + len(body) / self._rate)
        except NobodyThere as error:  # no stream keeps this subject, or nobody leads it now
            raise Retry(str(error), AT_ONCE_S) from error
        except TookTooLong as error:
            self._rate = max(_LEAST_RATE, self._rate / _SLOWER)
            raise SlowCollector(str(error)) from error
        if len(body) >= _MEASURED_BYTES:
            self._rate = max(_LEAST_RATE, len(body) / (time.monotonic() - begun) / _SLOWER)
        try:
            kept = self._link.answer_in(answer.data)
        except JetStreamError as error:
            if error.meaning == "too_large" and len(body) > _LEAST_PART_BYTES:
                self._most_part = max(_LEAST_PART_BYTES, len(body) // 2)
                raise Retry(self._link.describe(f"takes smaller messages: {error}"), AT_ONCE_S) from error
            raise
        if kept.get("stream") != nats_wire.STREAM or not isinstance(kept.get("seq"), int):
            raise ActionRequired(
                self._link.describe(
                    f"keeps {self._subject} in the stream {kept.get('stream')!r:.100}, and not in {nats_wire.STREAM}; remove that stream, or its subjects"
                )
            )
        self._sequence = kept["seq"]
        await self._check_kept()

    async def _check_kept(self) -> None:
        """See that the stream has what it said to have: one with another retention forgets what no consumer wants."""
        if self._keeps:
            return
        last = await self._last()
        if last is None or last.sequence < self._sequence:
            raise Retry(
                self._link.describe(
                    f"has taken a message of {self._subject}, and does not have it: the retention of the stream {nats_wire.STREAM} must be limits"
                )
            )
        self._keeps = True

    async def _ask_of_files(self, method: str, below: str, query: Mapping[str, str], body: bytes) -> bytes:
        await self._open()
        if len(body) > self._link.max_payload - nats_wire.HEADER_ROOM:
            raise TooLarge(self._link.describe(f"takes messages of at most {self._link.max_payload} bytes"))
        headers = nats_wire.file_headers(method, below, query, time.time_ns())
        try:
            answer = await self._link.ask(f"{self._subject}.{nats_wire.FILES}", body, headers, timeout_s=_FILE_S)
        except NobodyThere as error:
            raise Retry(
                self._link.describe(
                    "has no collector that merges this run now, and this part names a file, which waits for one"
                )
            ) from error
        except TookTooLong as error:
            raise SlowCollector(str(error)) from error
        status = (answer.headers or {}).get(nats_wire.STATUS_HEADER, "")
        data = bytes(answer.data)
        if status.startswith("2"):
            return data
        fail_of_files(self._link, self._name, status, wire.refusal_in(data))

    # What goes wrong

    @property
    def _run(self) -> str:
        return f"{self._name.project}/{self._name.run}"

    def _refuse(self, why: str) -> NoReturn:
        raise PartRefused(self._run, self._name.host, why)
