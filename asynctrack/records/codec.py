"""Codec: converts values to one frame's payload, and back. `encode` and `encode_any` run in the caller, the rest in the worker and in readers.

A payload is MessagePack. Of a record: `[time_ns, step or nil, data]`; of a config or summary: `[time_ns, data]`; of a start: a map.
Three extension types keep what MessagePack cannot: 1 is an integer beyond 64 bits as decimal digits, 2 an array as
MessagePack `[dtype, shape, bytes]` (little-endian, C order), 3 an image, table or other medium as `[kind, format, meta, content, files, seal]`,
which `media_types.Media` describes.
"""

from __future__ import annotations

import gc
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from time import time_ns
from typing import Any, Final, TypeVar

import msgspec

from asynctrack._system.private import has_interpreter_lock
from asynctrack.errors import InvalidData, InvalidStep
from asynctrack.records.media_types import MAX_DEPTH, Array, LoggedFile, Media, from_json, light, media_in, to_json
from asynctrack.records.snapshot import MOST_BYTES, Snapshot, copied, encode_quickly, is_mapping, plain_key, safe_repr
from asynctrack.records.wire import ARRAY, BIG_INTEGER, MEDIUM, encode, encode_surely, repaired

__all__ = [
    "Array",
    "Decoder",
    "Media",
    "Record",
    "coerce_step",
    "decode_as",
    "decode_record",
    "decode_update",
    "encode",
    "encode_any",
    "encode_quickly",
    "encode_update",
    "flatten",
    "from_json",
    "is_mapping",
    "light",
    "make_plain",
    "media_in",
    "merge",
    "short_repr",
    "split_source",
    "string_keys",
    "to_json",
]

T = TypeVar("T")

_TEXT: Final = frozenset({str})
_LEAVES: Final = frozenset({float, int, str, bool})

_MAX_REPR: Final = 1000


class Record(msgspec.Struct, frozen=True):
    """Holds one logged record. Run, ring and number identify it; `step` need not be unique or in order.

    Attributes:
        number: of this record in the process that logged it, from 0; a gap is a record that was dropped.
        step: the step that was given, or the number where none was.
        time_ns: wall clock when it was logged, nanoseconds since the epoch, for people.
        data: names to values, nested as they were logged; arrays as `Array`, images and the like as `Media`.
        ring: the random 64-bit id of the queue that it came through: one for each process that logs.
        writer: the label of the process that logged it, such as `rank3`; None as long as the run has had one writer alone, its forks included.
    """

    number: int
    step: int
    time_ns: int
    data: dict[str, Any]
    ring: int = 0
    writer: str | None = None


class _Update(msgspec.Struct, array_like=True):
    """The payload of a frame that updates a config or summary."""

    time_ns: int
    data: dict[Any, Any]
    removed: list[Any] = []


class Decoder:
    """Decodes the frames of a run.

    Args:
        run: the run's directory, where its media lie.

    Attributes:
        met_media: True once a decoded frame had media; who reads it may reset it.
    """

    def __init__(self, run: Path | None = None) -> None:
        self.met_media = False
        self._run = run
        self._record = msgspec.msgpack.Decoder(tuple[int, int | None, dict[str, Any]], ext_hook=self.extension)
        self._any_keys = msgspec.msgpack.Decoder(tuple[int, int | None, dict[Any, Any]], ext_hook=self.extension)
        self._update = msgspec.msgpack.Decoder(_Update, ext_hook=self.extension)
        self._any = msgspec.msgpack.Decoder(ext_hook=self.extension)

    def record(self, payload: memoryview | bytes, number: int, ring: int = 0, writer: str | None = None) -> Record:
        """Decode the record in a payload.

        Raises:
            ValueError: the payload holds no record, or a medium in it is malformed.
        """
        try:
            time, step, data = self._record.decode(payload)
        except msgspec.ValidationError:  # keys that are not strings
            time, step, data = self._any_keys.decode(payload)
            data = string_keys(data)
        return Record(number, number if step is None else step, time, data, ring, writer)

    def update(self, payload: memoryview | bytes) -> tuple[int, dict[str, Any], tuple[str, ...]]:
        """Decode an update of a config or summary: its time in nanoseconds, what was set, and the names that were removed before that.

        Raises:
            ValueError: the payload holds no update.
        """
        found = self._update.decode(payload)
        return found.time_ns, string_keys(found.data), tuple(map(plain_key, found.removed))

    def extension(self, code: int, payload: memoryview) -> Any:
        """Decode a value of an extension type. One of an unknown type, or with malformed bytes, becomes its `repr`."""
        try:
            return self._known(code, payload)
        except (ValueError, TypeError, LookupError, OverflowError):
            return repr(bytes(payload[:_MAX_REPR]))

    def _known(self, code: int, payload: memoryview) -> Any:
        if code == BIG_INTEGER:
            return int(bytes(payload))
        if code == ARRAY:
            return msgspec.msgpack.decode(payload, type=Array)
        if code == MEDIUM:
            kind, format, meta, content, files, seal, *_ = self._any.decode(payload)
            if all(name.isalnum() or not name for name in (kind, format)):  # it is a part of its file's name
                self.met_media = True
                files = msgspec.convert(files, list[LoggedFile])
                return Media(kind, format, meta, content, files, seal, self._run)
        return repr(bytes(payload[:_MAX_REPR]))


def encode_any(
    data: Mapping[Any, Any], step: int | None = None, most_bytes: int = MOST_BYTES
) -> tuple[bytes, list[str]]:
    """Encode a record whatever its values are: a value that cannot be made plain becomes its `repr`.

    Args:
        data: of the record.
        step: of the record.
        most_bytes: the record is cut beyond that size.

    Returns:
        The payload, and the keys of the values that became a `repr`, or were cut.

    Raises:
        InvalidData: `data` is not a mapping.
    """
    if type(data) is not dict and not is_mapping(data):
        raise InvalidData(data)
    now = time_ns()
    lost: list[str] = []
    return encode_surely((now, step, Snapshot(most_bytes).of(data, lost))), lost


def encode_update(fresh: Mapping[Any, Any], removed: Sequence[Any] = (), *, at_ns: int | None = None) -> bytes:
    """Encode an update of a config, a summary or a checkpoint: what is set, the names that are removed before that, and when: now, unless it is given."""
    names = [list(map(plain_key, removed))] if removed else []
    return encode_surely((time_ns() if at_ns is None else at_ns, make_plain(fresh), *names))


def make_plain(data: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a private copy whose values can certainly be encoded."""
    plain: dict[str, Any] = repaired(Snapshot().of(data, []))
    return plain


def merge(payloads: Sequence[bytes]) -> bytes:
    """Merge several payloads to that of one record: the time of the last, the last step that was given, and all data, the later over the earlier."""
    records = [msgspec.msgpack.decode(payload) for payload in payloads]
    steps = [step for _, step, _ in records if step is not None]
    data: dict[Any, Any] = {}
    for _, _, fresh in records:
        data.update(fresh)
    return encode((records[-1][0], steps[-1] if steps else None, data))


def coerce_step(step: object) -> int | None:
    """Convert a step to a plain integer.

    Raises:
        InvalidStep: it is not an integer of 64 bits, with or without a sign; a bool is not one.
    """
    if step is None:
        return None
    if isinstance(step, bool) or type(step).__name__ in ("bool_", "bool"):
        raise InvalidStep(step)
    try:
        whole = operator.index(step)  # type: ignore[arg-type]  # it raises if it is no integer
    except TypeError:
        raise InvalidStep(step) from None
    if not -(1 << 63) <= whole < 1 << 64:
        raise InvalidStep(step)
    return whole


def string_keys(data: Any, depth: int = 0) -> Any:
    """Return `data` with strings as keys, also where it is nested.

    MessagePack keeps integers as keys, and looking for them takes a fifth of a delivery's time. What is nested more than 64 levels deep stays as it is.
    """
    if depth > MAX_DEPTH:
        return data
    if isinstance(data, dict):
        if _LEAVES.issuperset(map(type, data.values())) and _TEXT.issuperset(map(type, data)):
            return data
        depth += 1
        return {key if isinstance(key, str) else str(key): string_keys(item, depth) for key, item in data.items()}
    if isinstance(data, list):
        return [string_keys(item, depth + 1) for item in data]
    return data


def decode_as(payload: memoryview | bytes, kind: type[T]) -> T:
    """Decode a struct of this type, with values as `encode` wrote them."""
    return msgspec.msgpack.decode(payload, type=kind, ext_hook=_decoder.extension)


def short_repr(data: Mapping[Any, Any], key: str) -> str:
    """Return the beginning of the `repr` of the value that was recorded as `key`, whatever its code raises."""
    found = next((value for name, value in copied(data).items() if plain_key(name) == key), None)
    return safe_repr(found)[:100]


def flatten(data: Mapping[str, Any], parent: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield values by names joined by `/`, as users of all trackers expect. An empty mapping stays one, and so does the 65th level."""
    for key, value in data.items():
        # Most values are floats, and `isinstance` of an abstract class takes 0.2 us.
        if type(value) is not float and isinstance(value, Mapping) and value and depth < MAX_DEPTH:
            yield from flatten(value, f"{parent}{key}/", depth + 1)
        else:
            yield f"{parent}{key}", value


def split_source(name: str) -> tuple[str, str]:
    """Split a flat name into its source and its name there: `train/loss` into "train" and "loss".

    The source is "" where there is no `/` inside the name.
    """
    source, _, key = name.partition("/")
    return (source, key) if source and key else ("", name)


HOLDS_OTHERS: Final[Callable[[Any], bool]] = gc.is_tracked if has_interpreter_lock() else bool
"""Whether a dict may hold containers, or objects with code of their own. Python does not track a dict for its collector while all it holds are numbers, texts and other
values that refer to nothing: such a one an encoder may walk as it is. To ask takes 20 ns; to look at each value would take 0.3 us a record. Where there is no interpreter
lock, no dict is, and Python 3.14 tracks every dict: there each record takes the careful way.
"""

_decoder = Decoder()
decode_record = _decoder.record
decode_update = _decoder.update
