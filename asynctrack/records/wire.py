"""Wire: the one encoder of frames, and the extension types for what MessagePack cannot hold. Runs anywhere.

The encoder has no hook: it never calls code of ours for a value. It raises for a type that it does not know, and then `snapshot` makes a private,
plain copy. msgspec walks dicts and lists with borrowed references and the length it saw first. If Python code ran meanwhile, another thread could
change them: a crash, or a map whose header has another length.

Without a hook msgspec still runs Python for some values: `__getattr__` (it looks for `__dataclass_fields__`), properties of dataclasses, `_value_` of enums,
`astimezone` of a Python zone, `__iter__` of sets. On 3.11 any allocation may call the garbage collector. So only plain, private values come here.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

BIG_INTEGER: Final = 1
ARRAY: Final = 2
MEDIUM: Final = 3

encode = msgspec.msgpack.Encoder(decimal_format="number").encode
"""A frame's payload of plain values; raises `TypeError`, `OverflowError` or `ValueError` for others."""

Ext = msgspec.msgpack.Ext


def repaired(value: Any) -> Any:
    """Replace integers beyond 64 bits and texts that are not Unicode, so that the value can certainly be encoded.

    Args:
        value: of dicts, lists, numbers and texts that nobody else has.
    """
    kind = type(value)
    if kind is dict:
        return {repaired(key): repaired(item) for key, item in value.items()}
    if kind is list or kind is tuple:
        return [repaired(item) for item in value]
    if kind is str:
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if kind is int and not -(1 << 63) <= value < 1 << 64:
        return (
            Ext(BIG_INTEGER, b"%d" % value)
            if value.bit_length() <= _MOST_BITS
            else f"<int of {value.bit_length()} bits>"
        )
    return value


def encode_surely(value: Any) -> bytes:
    """Encode a private copy, whatever its integers and texts are."""
    try:
        return encode(value)
    except (OverflowError, ValueError):  # an integer beyond 64 bits, a lone surrogate
        return encode(repaired(value))


# Of an integer that is kept: Python refuses to read or write more than 4,300 digits.
_MOST_BITS: Final = 13_000
