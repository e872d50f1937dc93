"""Values to one frame's payload, and back. `encode` runs in the caller on the hot path, the rest in the worker and in readers.

A payload is MessagePack. Of a record: `[time_ns, step or nil, data]`; of a config or summary: `[time_ns, data]`; of a start: a map.
Two extension types keep what MessagePack cannot: 1 is an integer beyond 64 bits as decimal digits, 2 an array as
MessagePack `[dtype, shape, bytes]` (little-endian, C order).
"""

from __future__ import annotations

import math
import operator
import os
import struct
import sys
from collections.abc import Iterator, Mapping
from time import time_ns
from typing import Any, Final, TypeVar

import msgspec

from asynctrack.errors import InvalidData, InvalidStep

__all__ = [
    "Array",
    "Record",
    "coerce_step",
    "decode_as",
    "decode_record",
    "decode_update",
    "encode",
    "encode_any",
    "flatten",
    "make_plain",
    "short_repr",
    "string_keys",
]

T = TypeVar("T")

_TEXT: Final = frozenset({str})
_LEAVES: Final = frozenset({float, int, str, bool})

_BIG_INTEGER: Final = 1
_ARRAY: Final = 2
# Deeper than any real record, shallow enough for every recursion below. Arbitrary.
_MAX_DEPTH: Final = 64
_MAX_REPR: Final = 1000

# Formats that `struct` reads, by NumPy's kind and size.
_FORMATS: Final = {
    "f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i", "i2": "h", "i1": "b",
    "u8": "Q", "u4": "I", "u2": "H", "u1": "B", "b1": "?",
}  # fmt: skip


class Record(msgspec.Struct, frozen=True):
    """One logged record. Its identity is run, ring and number; `step` need not be unique or in order.

    Attributes:
        number: of this record in the process that logged it, from 0; a gap is a record that was dropped.
        step: the caller's, or the number where none was given.
        time_ns: wall clock when it was logged, nanoseconds since the epoch, for people.
        data: names to values, nested as they were logged.
        ring: which process's queue it came through: a random 64-bit id.
    """

    number: int
    step: int
    time_ns: int
    data: dict[str, Any]
    ring: int = 0


class Array(msgspec.Struct, frozen=True, array_like=True):
    """An array as it was logged. `numpy.asarray` takes it; `tolist` needs no NumPy.

    Attributes:
        dtype: NumPy's name without the byte order, such as "f4".
        shape: lengths of the dimensions.
        buffer: the items, little-endian, last dimension fastest.
    """

    dtype: str
    shape: tuple[int, ...]
    buffer: bytes

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        import numpy

        array = numpy.frombuffer(self.buffer, "<" + self.dtype).reshape(self.shape)
        return array if dtype is None else array.astype(dtype)

    def tolist(self) -> Any:
        """Nested lists of Python numbers; a single number where the array has no dimension."""
        items: Any = [item for (item,) in struct.iter_unpack("<" + _FORMATS[self.dtype], self.buffer)]
        for length in reversed(self.shape[1:]):
            items = [items[at : at + length] for at in range(0, len(items), length)] if length else []
        return items if self.shape else items[0]


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


def decode_record(payload: memoryview | bytes, number: int, ring: int = 0) -> Record:
    """The record in a payload."""
    try:
        time, step, data = _record_decoder.decode(payload)
    except msgspec.ValidationError:  # keys that are not strings
        time, step, data = _any_decoder.decode(payload)
        data = string_keys(data)
    return Record(number, number if step is None else step, time, data, ring)


def string_keys(data: Any, depth: int = 0) -> Any:
    """`data` with strings as keys, also of what is nested: MessagePack keeps integers, and looking for them takes a fifth
    of a delivery's time. What is nested more than 64 levels deep stays as it is.
    """
    if depth > _MAX_DEPTH:
        return data
    if isinstance(data, dict):
        if _LEAVES.issuperset(map(type, data.values())) and _TEXT.issuperset(map(type, data)):
            return data
        depth += 1
        return {key if isinstance(key, str) else str(key): string_keys(item, depth) for key, item in data.items()}
    if isinstance(data, list):
        return [string_keys(item, depth + 1) for item in data]
    return data


def decode_update(payload: memoryview | bytes) -> tuple[int, dict[str, Any]]:
    """When a config or summary was updated, and with what."""
    time, data = _any_decoder.decode(payload)
    return time, string_keys(data)


def decode_as(payload: memoryview | bytes, kind: type[T]) -> T:
    """A struct of this type, with values as `encode` wrote them."""
    return msgspec.msgpack.decode(payload, type=kind, ext_hook=_extension)


def short_repr(data: Mapping[Any, Any], key: str) -> str:
    """The beginning of the `repr` of the value that was recorded as `key`, whatever its code raises."""
    found = next((value for name, value in data.items() if _plain_key(name) == key), None)
    return _repr_or(repr, found)[:100]


def flatten(data: Mapping[str, Any], parent: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Nested names joined by `/`, as every tracker's users expect; an empty mapping stays one, and so does the 65th level."""
    for key, value in data.items():
        if isinstance(value, Mapping) and value and depth < _MAX_DEPTH:
            yield from flatten(value, f"{parent}{key}/", depth + 1)
        else:
            yield f"{parent}{key}", value


def to_json(value: Any, depth: int = 0) -> Any:
    """A value as JSON can hold it: what is not finite becomes "NaN", "Infinity" or "-Infinity" (protobuf's JSON mapping).

    What is nested more than 64 levels deep becomes "...": JSON readers give up soon after.
    """
    if depth > _MAX_DEPTH:
        return "..."
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(key): to_json(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item, depth + 1) for item in value]
    if isinstance(value, Array):
        return to_json(value.tolist(), depth)
    return value


_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def from_json(value: Any) -> Any:
    """The inverse of `to_json` for the three strings that stand for what is not finite."""
    if isinstance(value, str):
        return _NOT_FINITE.get(value, value)
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if isinstance(value, dict):
        return {key: from_json(item) for key, item in value.items()}
    return value


def _known(value: object) -> Any:
    """What MessagePack does not know by itself, as something it does (msgspec calls it).

    Raises:
        TypeError: not known here either.
    """
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
    if hasattr(value, "__array__") or hasattr(value, "detach"):
        return _array(value)
    raise TypeError(f"cannot encode {type(value).__name__}")


def _array(value: Any) -> Any:
    """A NumPy, torch or JAX array or scalar: a number where it has no dimension."""
    if hasattr(value, "detach"):  # torch: may need a gradient, may lie on a device
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":
            value = value.float()
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        item = value.item()
        return float(item) if type(item) is type(value) else item
    numpy = sys.modules.get("numpy")
    if numpy is None:
        raise TypeError("an array without NumPy")
    array = numpy.asarray(value)
    dtype = array.dtype.str.lstrip("<>|=")
    if dtype not in _FORMATS:
        return array.astype("float32").tolist() if array.dtype.kind == "V" else array.tolist()
    little = numpy.ascontiguousarray(array, dtype="<" + dtype)
    return msgspec.msgpack.Ext(_ARRAY, msgspec.msgpack.encode([dtype, array.shape, little.tobytes()]))


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
    if depth < _MAX_DEPTH and isinstance(value, Mapping):
        return {_plain_key(key): _plain(item, strange, depth + 1) for key, item in value.items()}
    if depth < _MAX_DEPTH and isinstance(value, list | tuple | set | frozenset):
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


def _extension(code: int, payload: memoryview) -> Any:
    if code == _BIG_INTEGER:
        return int(bytes(payload))
    if code == _ARRAY:
        return msgspec.msgpack.decode(payload, type=Array)
    return repr(bytes(payload))


encode = msgspec.msgpack.Encoder(enc_hook=_known).encode
"""The payload of a record `(time_ns, step, data)`; raises whatever a value's own code raises, then `encode_any` takes over."""

_record_decoder = msgspec.msgpack.Decoder(tuple[int, int | None, dict[str, Any]], ext_hook=_extension)
_any_decoder = msgspec.msgpack.Decoder(ext_hook=_extension)
