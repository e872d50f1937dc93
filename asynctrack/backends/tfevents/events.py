"""Events: encode records as event files have them. Runs in a delivery.

A file is TFRecord frames (`tensorflow/core/lib/io/record_writer.cc`), little-endian:

    bytes  content
    8      length of the event
    4      masked CRC-32C of these 8 bytes
    n      the event: a message `Event` of `tensorflow/core/util/event.proto`
    4      its masked CRC-32C

The first event says "brain.Event:2": TensorBoard then takes steps in any order. A record is one event with its wall
clock and its step. The event's summary has a value for each name; nested names are joined by `/`. A number is a
`simple_value`, a 32-bit float (a number beyond its range is an infinity); an array or histogram is a `histo`; an image
is an `image`. Any other value is text, with the tag NAME/text_summary as in TensorFlow and tensorboardX, so that a name
that is sometimes a number and sometimes a text stays readable. None and empty mappings have no value.

The bytes of a record depend on nothing but the record: `file` relies on that.
"""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from asynctrack.backends.tfevents import crc32c
from asynctrack.backends.tfevents.histogram import encode_histogram
from asynctrack.backends.tfevents.messages import block, double, number, text, varint
from asynctrack.backends.tfevents.pictures import picture, words
from asynctrack.records.codec import Array, Media, Record, to_json

HEADER_BYTES: Final = 12
FOOTER_BYTES: Final = 4
VERSION: Final = "brain.Event:2"

NOTHING: Final = "nothing that TensorBoard can show"
STEP: Final = "a step beyond 63 bits"

# Entries of each cache. Arbitrary: more than a run needs, and a few megabytes at most.
_REMEMBERED: Final = 1024
# A text of this many characters or less is likely to come again. Arbitrary.
_SHORT: Final = 64
# As deep as `record.flatten` goes.
_MAX_DEPTH: Final = 64

_NUMBERS: Final = frozenset({float, int, bool})
# Errors of `struct` for a number beyond 32 bits; the second is for integers.
_TOO_LARGE: Final = (OverflowError, struct.error)
_FLOAT: Final = struct.Struct("<f").pack
_LENGTH: Final = struct.Struct("<Q")
_TIME: Final = struct.Struct("<cd").pack


class Events:
    """Encodes records as events. Its caches save time and change no byte."""

    def __init__(self) -> None:
        self._checksum = crc32c.find()
        self._head = functools.lru_cache(_REMEMBERED)(self._make_head)
        self._plans: dict[tuple[Any, ...], _Plan] = {}

    def version(self, created_s: float) -> bytes:
        """Encode the first event of a file."""
        return b"".join(self._frame(double(1, created_s) + text(3, VERSION)))

    def restart(self, wall_s: float, step: int) -> bytes:
        """Encode an event that hides this step and later ones of other files in the directory."""
        return b"".join(self._frame(double(1, wall_s) + number(2, step) + block(7, number(1, 1))))

    def of_records(self, records: Sequence[Record]) -> tuple[bytes, dict[str, int]]:
        """Encode the events of these records, and count the records that have none, by reason."""
        frames: list[bytes] = []
        skipped: dict[str, int] = {}
        for record in records:
            summary = self.summary(record.data)
            if summary and record.step < 1 << 63:
                frames += self._event(record.time_ns / 1e9, record.step, summary)
            else:
                reason = STEP if summary else NOTHING
                skipped[reason] = skipped.get(reason, 0) + 1
        return b"".join(frames), skipped

    def event(self, wall_s: float, step: int, summary: bytes) -> bytes:
        """Encode an event with a summary."""
        return b"".join(self._event(wall_s, step, summary))

    def summary(self, data: Mapping[str, Any], prefix: str = "", depth: int = 0) -> bytes:
        """Encode a value for each name of a mapping: numbers first, then the others."""
        key = (prefix, *data, *map(type, data.values()))
        plan = self._plans.get(key) or self._new_plan(key)
        parts = plan.parts
        parts[1::2] = [data[name] for name in plan.numbers] if plan.others else data.values()
        try:
            packed = plan.pack(*parts)
        except _TOO_LARGE:
            parts[1::2] = map(_within_32_bits, parts[1::2])
            packed = plan.pack(*parts)
        for name in plan.others:
            packed += self._other(f"{prefix}{name}", data[name], depth)
        return packed

    def is_whole(self, frame: bytes) -> bool:
        """Return whether the checksums of a frame are right."""
        end = len(frame) - FOOTER_BYTES
        event = frame[HEADER_BYTES:end]
        return frame[:HEADER_BYTES] == self._head(len(event)) and frame[end:] == crc32c.masked(self._checksum(event))

    def has_header(self, frame: bytes) -> bool:
        """Return whether these bytes begin as a frame does."""
        return frame[:HEADER_BYTES] == self._make_head(_LENGTH.unpack_from(frame)[0])

    def _other(self, name: str, value: Any, depth: int) -> bytes:
        """Encode a value that is not a number; empty where TensorBoard cannot show it."""
        if isinstance(value, str):
            return _short_text(name, value) if len(value) <= _SHORT else text_value(name, value)
        if isinstance(value, Mapping) and value and depth < _MAX_DEPTH:
            return self.summary(value, f"{name}/", depth + 1)
        if isinstance(value, Array):
            message = encode_histogram(value)
            return b"" if message is None else block(1, text(1, name), block(5, message))
        if isinstance(value, Media):
            return _medium(name, value)
        if value is None or value == {}:
            return b""
        if isinstance(value, list) and any(isinstance(item, Media) for item in value):
            return b"".join(self._other(f"{name}/{at}", item, depth) for at, item in enumerate(value))
        return text_value(name, msgspec.json.encode(to_json(value)).decode())

    def _event(self, wall_s: float, step: int, summary: bytes) -> tuple[bytes, bytes, bytes]:
        event = b"".join((_TIME(b"\x09", wall_s), b"\x10", varint(step), b"\x2a", varint(len(summary)), summary))
        return self._frame(event)

    def _frame(self, event: bytes) -> tuple[bytes, bytes, bytes]:
        return self._head(len(event)), event, crc32c.masked(self._checksum(event))

    def _new_plan(self, key: tuple[Any, ...]) -> _Plan:
        if len(self._plans) >= _REMEMBERED:
            self._plans.clear()
        plan = self._plans[key] = _Plan(key)
        return plan

    def _make_head(self, size: int) -> bytes:
        length = _LENGTH.pack(size)
        return length + crc32c.masked(self._checksum(length))


class _Plan:
    """Packs the values of mappings that share names and types: their numbers all at once.

    Args:
        key: the prefix of the names, the names, and the types of their values.
    """

    __slots__ = ("numbers", "others", "pack", "parts")

    def __init__(self, key: tuple[Any, ...]) -> None:
        half = len(key) // 2 + 1
        kinds = dict(zip(key[1:half], key[half:], strict=True))
        self.numbers = [name for name, kind in kinds.items() if kind in _NUMBERS]
        self.others = [name for name, kind in kinds.items() if kind not in _NUMBERS]
        self.parts: list[Any] = [part for name in self.numbers for part in (_before_number(f"{key[0]}{name}"), 0.0)]
        self.pack = struct.Struct("<" + "".join(f"{len(part)}sf" for part in self.parts[::2])).pack


def size_of(frame: bytes, at: int) -> int:
    """Return the size of the frame that begins here, according to its header."""
    return HEADER_BYTES + int(_LENGTH.unpack_from(frame, at)[0]) + FOOTER_BYTES


def stamp_of(frame: bytes) -> bytes:
    """Return wall clock and step of an event, as encoded."""
    end = HEADER_BYTES + 10
    while frame[end] > 127:
        end += 1
    return frame[HEADER_BYTES : end + 1]


def text_value(name: str, content: str) -> bytes:
    """Encode a summary's value that the text dashboard shows."""
    tensor = block(8, number(1, 7), block(2), text(8, content))  # a string without dimensions
    metadata = block(9, block(1, text(1, "text")), number(4, 2))
    return block(1, text(1, f"{name}/text_summary"), tensor, metadata)


def _medium(name: str, media: Media) -> bytes:
    if media.kind in ("image", "histogram"):
        return picture(name, media)
    shown = words(media)
    return b"" if shown is None else text_value(name, shown)


def _before_number(name: str) -> bytes:
    """Encode a summary's value up to its float."""
    tag = text(1, name)
    return b"\x0a" + varint(len(tag) + 5) + tag + b"\x15"


def _within_32_bits(value: float) -> float:
    try:
        _FLOAT(value)
    except _TOO_LARGE:
        return math.inf if value > 0 else -math.inf
    return value


_short_text: Callable[[str, str], bytes] = functools.lru_cache(_REMEMBERED)(text_value)
