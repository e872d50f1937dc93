"""NATS wire: how a host and a collector talk by NATS JetStream: subjects, headers and words. Pure functions, for both sides.

| Subject | By | Content |
| --- | --- | --- |
| `asynctrack.v1.SHARD.PROJECT.RUN.HOST` | host; kept by the stream | a message, or a part of one, with `Sent` in its headers. The last one is the host's cursor |
| `asynctrack.v1.SHARD.PROJECT.RUN.HOST.alive` | host; not kept | `Alive` as JSON: a sign of life |
| `asynctrack.v1.SHARD.PROJECT.RUN.HOST.files` | host; a request, not kept | what `file_wire` describes, with `FileRequest` in its headers |
| `$KV.ASYNCTRACK_V1.SHARD.PROJECT.RUN.HOST` | collector; the last one is kept | `Word` as JSON: what the collector has, and wants |

`SHARD` is CRC-32 of the run, modulo 64, in two hexadecimal digits. Of names, each byte but letters, digits, `_` and `-` is `=XX`, as subjects and keys allow both.
A message has no `Nats-Msg-Id`: what a host sends again, since it was asked or the stream was purged, must not be swallowed as a duplicate. What comes twice is
known by its position, and each message but the first names the sequence of the one before (`Nats-Expected-Last-Subject-Sequence`), so that none comes late.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import urlencode

import msgspec

from asynctrack.carriers import wire
from asynctrack.carriers.message import Place
from asynctrack.carriers.wire import PartName

ROOT: Final = "asynctrack.v1"
SHARDS: Final = 64
STREAM: Final = "ASYNCTRACK_V1"
SUBJECTS: Final = f"{ROOT}.*.*.*.*"
# The bucket of words, the stream behind it, and the subjects of its keys.
WORDS: Final = "ASYNCTRACK_V1"
WORDS_STREAM: Final = f"KV_{WORDS}"
WORDS_ROOT: Final = f"$KV.{WORDS}"
ALIVE: Final = "alive"
FILES: Final = "files"
ALIVE_S: Final = 5.0

EXPECTED_HEADER: Final = "Nats-Expected-Last-Subject-Sequence"
_PLACES: Final = "Asynctrack-Places"
_PART: Final = "Asynctrack-Part"
_ENCODING: Final = "Asynctrack-Encoding"
_ANSWERS: Final = "Asynctrack-Answers"
_TIME: Final = "Asynctrack-Time"
_BEHIND: Final = "Asynctrack-Behind"
METHOD_HEADER: Final = "Asynctrack-Method"
BELOW_HEADER: Final = "Asynctrack-Below"
QUERY_HEADER: Final = "Asynctrack-Query"
STATUS_HEADER: Final = "Asynctrack-Status"
# What a server counts beside the bytes of a message: its headers. More than they ever take; arbitrary.
HEADER_ROOM: Final = 1024

_UNSAFE: Final = re.compile(rb"[^A-Za-z0-9_-]")
_TOKEN: Final = re.compile(r"(?:[A-Za-z0-9_-]|=[0-9A-F]{2}){1,400}", re.ASCII)
_PLACES_TEXT: Final = re.compile(r"([0-9a-f]{32}):([0-9:]{5,59})-([0-9:]{5,59})", re.ASCII)
_PART_TEXT: Final = re.compile(r"([0-9]{1,6})/([0-9]{1,6})", re.ASCII)
_NUMBER: Final = re.compile(r"[0-9]{1,19}", re.ASCII)


class Sent(NamedTuple):
    """Says what a message is, in its headers.

    Attributes:
        journal: the id of the host's journal.
        after: the place before its first batch.
        upto: the place behind its last.
        part: which part of it this is, from 1 on.
        parts: in how many it came.
        is_deflated: whether the parts together are to be inflated.
        answers: the number of the last want that the host has answered, with this message or one before; 0 for none.
        time_ns: when it was sent, by the host's clock.
        behind_bytes: how many bytes the host's journal has behind it; None where it does not say.
    """

    journal: bytes
    after: Place
    upto: Place
    part: int = 1
    parts: int = 1
    is_deflated: bool = False
    answers: int = 0
    time_ns: int = 0
    behind_bytes: int | None = None

    @property
    def place(self) -> Place:
        """Return up to where the journal is sent: a message of which parts are missing is to come again."""
        return self.upto if self.part == self.parts else self.after

    @property
    def whole(self) -> Sent:
        """Return what all parts of a message have in common, whenever they were sent."""
        return self._replace(part=1, time_ns=0, behind_bytes=None)


class Alive(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Is a sign of a host's life.

    Attributes:
        time_ns: when it was sent, by the host's clock.
        journal: its journal's id, as hexadecimal digits.
        behind_bytes: how many bytes the journal has that are not in the stream.
    """

    time_ns: int
    journal: str
    behind_bytes: int = 0


class Missing(msgspec.Struct, frozen=True):
    """Says what is missing before a batch that came.

    Attributes:
        ring: whose bytes are missing; None where a batch is damaged.
        seen: up to where the ring is merged.
        why: a sentence for people.
    """

    ring: int | None
    seen: int
    why: str


class Word(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Says what a collector has of a host's part, and wants.

    Attributes:
        journal: the id of the journal that it has, as hexadecimal digits.
        have: up to where it is merged and safe.
        want: from where the host is to send again; it does so once for each `number`.
        number: of the want; it grows with each.
        missing: why it wants it, where something was missing.
        refused: why it takes no more of this part: for people, and for good, or until they have mended it.
        by: names the directory of the merged run, for collectors.
    """

    journal: str
    have: Place = Place()
    want: Place | None = None
    number: int = 0
    missing: Missing | None = None
    refused: str | None = None
    by: str = ""


def token_of(name: str) -> str:
    """Return a name as a token of a subject or a key."""
    return _UNSAFE.sub(lambda found: b"=%02X" % found[0][0], name.encode()).decode()


def name_in(token: str) -> str | None:
    """Return the name that a token stands for; None where it is no token that `token_of` makes."""
    if not _TOKEN.fullmatch(token):
        return None
    try:
        name = re.sub(rb"=(..)", lambda found: bytes.fromhex(found[1].decode()), token.encode()).decode()
    except UnicodeDecodeError:
        return None
    return name if token_of(name) == token else None


def shard_of(run: str) -> str:
    """Return the shard of a run, as subjects have it."""
    return f"{zlib.crc32(run.encode()) % SHARDS:02x}"


def key_of(name: PartName) -> str:
    """Return the key of a host's part in the bucket of words: what its subject has behind `ROOT`."""
    return ".".join([shard_of(name.run), *map(token_of, name)])


def subject_of(name: PartName, below: str = "") -> str:
    """Return the subject of a host's part.

    Args:
        name: of the part.
        below: `ALIVE` or `FILES`, for these.
    """
    return f"{ROOT}.{key_of(name)}{below and '.'}{below}"


def part_in(subject: str) -> PartName | None:
    """Return which part a subject, or one below it, names; None where it names none."""
    tokens = subject.removeprefix(f"{ROOT}.").split(".")
    if not subject.startswith(f"{ROOT}.") or not 4 <= len(tokens) <= 5 or tokens[4:] not in ([], [ALIVE], [FILES]):
        return None
    names = [name_in(token) for token in tokens[1:4]]
    if None in names:
        return None
    name = PartName(*map(str, names))
    return name if wire.is_name(name) and shard_of(name.run) == tokens[0] else None


def headers_of(sent: Sent) -> dict[str, str]:
    """Return the headers of a message, without the sequence that it expects."""
    found = {
        _PLACES: f"{sent.journal.hex()}:{wire.place_text(sent.after)}-{wire.place_text(sent.upto)}",
        _TIME: str(sent.time_ns),
    }
    if sent.parts > 1:
        found[_PART] = f"{sent.part}/{sent.parts}"
    if sent.is_deflated:
        found[_ENCODING] = wire.DEFLATE
    if sent.answers:
        found[_ANSWERS] = str(sent.answers)
    if sent.behind_bytes is not None:
        found[_BEHIND] = str(sent.behind_bytes)
    return found


def sent_in(headers: Mapping[str, str] | None) -> Sent | None:
    """Return what headers say of a message; None where they are not those of one."""
    given = headers or {}
    places = _PLACES_TEXT.fullmatch(given.get(_PLACES, ""))
    part = _PART_TEXT.fullmatch(given.get(_PART, "1/1"))
    numbers = [given.get(name, "0") for name in (_ANSWERS, _TIME, _BEHIND)]
    encoding = given.get(_ENCODING, "")
    if places is None or part is None or encoding not in ("", wire.DEFLATE) or not all(map(_NUMBER.fullmatch, numbers)):
        return None
    after, upto, at, parts = wire.place_in(places[2]), wire.place_in(places[3]), int(part[1]), int(part[2])
    if after is None or upto is None or not 1 <= at <= parts:
        return None
    answers, time_ns, behind_bytes = map(int, numbers)
    behind = behind_bytes if _BEHIND in given else None
    return Sent(bytes.fromhex(places[1]), after, upto, at, parts, bool(encoding), answers, time_ns, behind)


def pieces(body: bytes, most: int) -> list[bytes]:
    """Cut the bytes of a message into parts.

    Args:
        body: of the message, perhaps deflated.
        most: bytes of a part.
    """
    return [body[at : at + most] for at in range(0, max(1, len(body)), most)]


class Joiner:
    """Joins the parts of messages of one subject, in the order of the stream.

    Args:
        most: bytes of a message; one of more is not kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._parts: list[bytes] = []
        self._first: Sent | None = None
        self._size = 0

    def add(self, sent: Sent, body: bytes) -> bytes | None:
        """Return the whole message with its last part; None as long as parts are missing.

        A first part begins anew. A part that does not go on with those before is dropped with them: the host sends all of them again.

        Raises:
            wire.InflatesTooFar: it has more bytes than are kept.
        """
        if sent.part == 1:
            self._begin(sent)
        elif self._first is None or not self._follows(sent):
            self._begin(None)
            return None
        self._size += len(body)
        if self._size > self._most:
            self._begin(None)
            raise wire.InflatesTooFar(f"expected a message of at most {self._most} bytes, and its parts have more")
        self._parts.append(body)
        if sent.part < sent.parts:
            return None
        whole = b"".join(self._parts)
        self._begin(None)
        return whole

    def _begin(self, sent: Sent | None) -> None:
        self._parts, self._first, self._size = [], sent, 0

    def _follows(self, sent: Sent) -> bool:
        first = self._first
        assert first is not None
        return sent.part == len(self._parts) + 1 and sent.whole == first.whole


def file_headers(method: str, below: str, query: Mapping[str, str], time_ns: int) -> dict[str, str]:
    """Return the headers of a request about files."""
    return {METHOD_HEADER: method, BELOW_HEADER: below, QUERY_HEADER: urlencode(query), _TIME: str(time_ns)}


def time_in(headers: Mapping[str, str] | None) -> int:
    """Return when something was sent, by the host's clock; 0 where it does not say."""
    found = (headers or {}).get(_TIME, "")
    return int(found) if _NUMBER.fullmatch(found) else 0


def word_in(data: bytes) -> Word | None:
    """Return the word that a key holds; None where it holds none."""
    try:
        return msgspec.json.decode(data, type=Word)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def alive_in(data: bytes) -> Alive | None:
    """Return a sign of life; None where it is none."""
    try:
        return msgspec.json.decode(data, type=Alive)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
