"""Values to one frame's payload, and back. `encode` runs in the caller on the hot path, the rest in the worker and in readers.

A payload is MessagePack. Of a record: `[time_ns, step or nil, data]`; of a config or summary: `[time_ns, data]`; of a start: a map.
Three extension types keep what MessagePack cannot: 1 is an integer beyond 64 bits as decimal digits, 2 an array as
MessagePack `[dtype, shape, bytes]` (little-endian, C order), 3 an image, table or other medium as `[kind, format, meta, content, files, seal]`,
of which `logged.Media` tells.
"""

from __future__ import annotations

import operator
import os
import sys
from collections.abc import Callable, Iterator, Mapping, MutableSequence, Sequence
from pathlib import Path
from time import time_ns
from typing import Any, Final, TypeVar

import msgspec

from asynctrack.errors import InvalidData, InvalidStep
from asynctrack.logged import FORMATS, MAX_DEPTH, Array, LoggedFile, Media, Value, from_json, light, media_in, to_json

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
    "encode_update",
    "flatten",
    "from_json",
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

_BIG_INTEGER: Final = 1
_ARRAY: Final = 2
_MEDIUM: Final = 3
_MAX_REPR: Final = 1000


class Record(msgspec.Struct, frozen=True):
    """One logged record. Its identity is run, ring and number; `step` need not be unique or in order.

    Attributes:
        number: of this record in the process that logged it, from 0; a gap is a record that was dropped.
        step: the caller's, or the number where none was given.
        time_ns: wall clock when it was logged, nanoseconds since the epoch, for people.
        data: names to values, nested as they were logged; arrays as `Array`, images and the like as `Media`.
        ring: which process's queue it came through: a random 64-bit id.
    """

    number: int
    step: int
    time_ns: int
    data: dict[str, Any]
    ring: int = 0


class _Update(msgspec.Struct, array_like=True):
    """The payload of a frame that updates a config or summary."""

    time_ns: int
    data: dict[Any, Any]
    removed: list[Any] = []


class Decoder:
    """Decodes the frames of a run.

    Args:
        run: its directory, where its media lie.

    Attributes:
        met_media: whether there were media in what has been decoded; for who asks to set back.
    """

    def __init__(self, run: Path | None = None) -> None:
        self.met_media = False
        self._run = run
        self._record = msgspec.msgpack.Decoder(tuple[int, int | None, dict[str, Any]], ext_hook=self.extension)
        self._any_keys = msgspec.msgpack.Decoder(tuple[int, int | None, dict[Any, Any]], ext_hook=self.extension)
        self._update = msgspec.msgpack.Decoder(_Update, ext_hook=self.extension)
        self._any = msgspec.msgpack.Decoder(ext_hook=self.extension)

    def record(self, payload: memoryview | bytes, number: int, ring: int = 0) -> Record:
        """The record in a payload.

        Raises:
            ValueError: there is none; what its media raise, too.
        """
        try:
            time, step, data = self._record.decode(payload)
        except msgspec.ValidationError:  # keys that are not strings
            time, step, data = self._any_keys.decode(payload)
            data = string_keys(data)
        return Record(number, number if step is None else step, time, data, ring)

    def update(self, payload: memoryview | bytes) -> tuple[int, dict[str, Any], tuple[str, ...]]:
        """When a config or summary was updated, with what, and which names were removed before that.

        Raises:
            ValueError: it is no such frame.
        """
        found = self._update.decode(payload)
        return found.time_ns, string_keys(found.data), tuple(map(_plain_key, found.removed))

    def extension(self, code: int, payload: memoryview) -> Any:
        """A value of an extension type; of one that is not known its `repr`."""
        if code == _BIG_INTEGER:
            return int(bytes(payload))
        if code == _ARRAY:
            return msgspec.msgpack.decode(payload, type=Array)
        if code == _MEDIUM:
            kind, format, meta, content, files, seal, *_ = self._any.decode(payload)
            if all(name.isalnum() or not name for name in (kind, format)):  # it is a part of its file's name
                self.met_media = True
                files = msgspec.convert(files, list[LoggedFile])
                return Media(kind, format, meta, content, files, seal, self._run)
        return repr(bytes(payload[:_MAX_REPR]))


def encode_update(fresh: Mapping[Any, Any], removed: Sequence[Any] = ()) -> bytes:
    """The payload of an update of a config or summary: what is set, and which names are removed before that."""
    names = [list(map(_plain_key, removed))] if removed else []
    try:
        return encode((time_ns(), dict(fresh), *names))
    except Exception:  # a value that MessagePack cannot hold, or whose own code failed
        return encode((time_ns(), make_plain(fresh), *names))


def encode_any(data: Mapping[Any, Any], step: int | None = None) -> tuple[bytes, list[str]]:
    """A record's payload whatever its values are: what cannot be encoded becomes its `repr`.

    Returns:
        The payload, and the keys of the values that became a `repr`.

    Raises:
        InvalidData: `data` is not a mapping.
    """
    if not isinstance(data, Mapping):
        raise InvalidData(data)
    lost: list[str] = []
    return encode((time_ns(), step, make_plain(data, lost))), lost


def make_plain(data: Mapping[Any, Any], lost: list[str] | None = None) -> dict[str, Any]:
    """The same with values that certainly can be encoded; the keys of those that became a `repr` are added to `lost`."""
    plain = {}
    for key, value in data.items():
        strange: list[object] = []
        plain[_plain_key(key)] = _plain(value, strange)
        if strange and lost is not None:
            lost.append(_plain_key(key))
    return plain


def merge(payloads: Sequence[bytes]) -> bytes:
    """One record's payload of several: the time of the last, the last step that was given, and all data, the later over the earlier."""
    records = [msgspec.msgpack.decode(payload) for payload in payloads]
    steps = [step for _, step, _ in records if step is not None]
    data: dict[Any, Any] = {}
    for _, _, fresh in records:
        data.update(fresh)
    return encode((records[-1][0], steps[-1] if steps else None, data))


def coerce_step(step: object) -> int | None:
    """A step as a plain integer.

    Raises:
        InvalidStep: not an integer of 64 bits, with or without a sign; a bool is not one.
    """
    if step is None:
        return None
    if isinstance(step, bool) or type(step).__name__ in ("bool_", "bool"):
        raise InvalidStep(step)
    try:
        whole = operator.index(step)  # type: ignore[arg-type]  # it says itself whether it can
    except TypeError:
        raise InvalidStep(step) from None
    if not -(1 << 63) <= whole < 1 << 64:
        raise InvalidStep(step)
    return whole


def string_keys(data: Any, depth: int = 0) -> Any:
    """`data` with strings as keys, also of what is nested: MessagePack keeps integers, and looking for them takes a fifth
    of a delivery's time. What is nested more than 64 levels deep stays as it is.
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
    """A struct of this type, with values as `encode` wrote them."""
    return msgspec.msgpack.decode(payload, type=kind, ext_hook=_decoder.extension)


def short_repr(data: Mapping[Any, Any], key: str) -> str:
    """The beginning of the `repr` of the value that was recorded as `key`, whatever its code raises."""
    found = next((value for name, value in data.items() if _plain_key(name) == key), None)
    return _repr_or(repr, found)[:100]


def flatten(data: Mapping[str, Any], parent: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Nested names joined by `/`, as every tracker's users expect; an empty mapping stays one, and so does the 65th level."""
    for key, value in data.items():
        if isinstance(value, Mapping) and value and depth < MAX_DEPTH:
            yield from flatten(value, f"{parent}{key}/", depth + 1)
        else:
            yield f"{parent}{key}", value


def split_source(name: str) -> tuple[str, str]:
    """What a flat name is from, and what it is called there: "train" and "loss" of `train/loss`.

    What has no `/` but at an end is from "".
    """
    source, _, key = name.partition("/")
    return (source, key) if source and key else ("", name)


def _known(value: object) -> Any:
    """What MessagePack does not know by itself, as something it does (msgspec calls it).

    Raises:
        TypeError: not known here either.
    """
    if (plain := _numpy_types.get(type(value))) is not None:
        return plain(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, MutableSequence):  # OmegaConf's lists, deques
        return list(value)
    # Streams can be detached, too, and must not be.
    if hasattr(value, "__array__") or (hasattr(value, "detach") and hasattr(value, "cpu")):
        return _array(value)
    if isinstance(value, Value):
        return _medium(value)
    if hasattr(value, "savefig") or hasattr(value, "getbands"):  # a figure of matplotlib, an image of Pillow
        from asynctrack.values import Image

        return _medium(Image(value))
    raise TypeError(f"cannot encode {type(value).__name__}")


def _array(value: Any) -> Any:
    """A NumPy, torch or JAX array or scalar: a number where it has no dimension."""
    if hasattr(value, "detach"):  # torch: may need a gradient, may lie on a device
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":
            value = value.float()
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return _scalar(value)
    numpy = sys.modules.get("numpy")
    if numpy is None:
        raise TypeError("an array without NumPy")
    if type(value) is numpy.ndarray:
        _numpy_types[numpy.ndarray] = _ndarray
    return _ndarray(numpy.asarray(value))


def _ndarray(array: Any) -> Any:
    if not array.shape:
        return _scalar(array)
    order, dtype = array.dtype.str[0], array.dtype.str[1:]
    if dtype not in FORMATS:
        return array.astype("float32").tolist() if array.dtype.kind == "V" else array.tolist()
    little = array.astype("<" + dtype) if order == ">" else array
    return msgspec.msgpack.Ext(_ARRAY, encode((dtype, array.shape, little.tobytes())))


def _scalar(value: Any) -> Any:
    item = value.item()
    plain = float(item) if type(item) is type(value) else item
    numpy = sys.modules.get("numpy")
    # Not of NumPy's times, which are whole numbers or not by their unit.
    if numpy is not None and isinstance(value, numpy.generic) and value.dtype.kind in "biuf":
        _numpy_types[type(value)] = type(plain)
    return plain


def _medium(value: Value) -> msgspec.msgpack.Ext:
    wire = value.wire()
    try:
        payload = encode(wire)
    except Exception:  # a cell of a table that MessagePack cannot hold: it becomes its `repr`, not the table
        payload = encode(_plain(wire, []))
    return msgspec.msgpack.Ext(_MEDIUM, payload)


def _plain(value: Any, strange: list[object], depth: int = 0) -> Any:
    """A value that certainly can be encoded; what cannot becomes its `repr` and is noted in `strange`."""
    try:
        encode(value)
        return value
    except Exception:  # any value's own code may have raised anything; what is left of it is made below
        pass
    if isinstance(value, int) and not isinstance(value, bool):
        return msgspec.msgpack.Ext(_BIG_INTEGER, b"%d" % value) if abs(value) < 10**4000 else _repr(value, strange)
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if depth < MAX_DEPTH and isinstance(value, Mapping):
        return {_plain_key(key): _plain(item, strange, depth + 1) for key, item in value.items()}
    if depth < MAX_DEPTH and isinstance(value, MutableSequence | tuple | set | frozenset):
        return [_plain(item, strange, depth + 1) for item in value]
    return _repr(value, strange)


def _plain_key(key: object) -> str:
    text = key if isinstance(key, str) else _repr_or(str, key)
    return text.encode("utf-8", "backslashreplace").decode()


def _repr(value: object, strange: list[object]) -> str:
    strange.append(value)
    return _repr_or(repr, value).encode("utf-8", "backslashreplace").decode()[:_MAX_REPR]


def _repr_or(make: Any, value: object) -> str:
    try:
        return str(make(value))
    except Exception:  # a broken __repr__ must not stop the run
        return f"<{type(value).__name__}>"


_numpy_types: Final[dict[type, Callable[[Any], Any]]] = {}
"""What makes a value of NumPy's own types plain, for those that were met: to look a type up takes a sixth of asking what it is."""

encode = msgspec.msgpack.Encoder(enc_hook=_known).encode
"""The payload of a record `(time_ns, step, data)`; raises whatever a value's own code raises, then `encode_any` takes over."""

_decoder = Decoder()
decode_record = _decoder.record
decode_update = _decoder.update
