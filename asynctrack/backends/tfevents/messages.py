"""Protobuf messages by hand: encode the few wire types that event files need. Runs anywhere; standard library only.

A field is its number and wire type in one varint, then its value (protobuf.dev/programming-guides/encoding): 0 is a
varint, 1 a double, 2 bytes after their length, 5 a float.
"""

from __future__ import annotations

from struct import pack


def varint(number: int) -> bytes:
    """Encode an int64: seven bits a byte, the lowest first; a negative one as two's complement."""
    if 0 <= number < 1 << 7:
        return bytes((number,))
    if 0 <= number < 1 << 14:
        return bytes((number & 127 | 128, number >> 7))
    number &= (1 << 64) - 1
    packed = bytearray()
    while number > 127:
        packed.append(number & 127 | 128)
        number >>= 7
    packed.append(number)
    return bytes(packed)


def block(field: int, *parts: bytes) -> bytes:
    """Encode a field that is a message, a text or packed numbers."""
    content = b"".join(parts)
    return varint(field << 3 | 2) + varint(len(content)) + content


def text(field: int, content: str) -> bytes:
    """Encode a field that is a text."""
    return block(field, content.encode())


def number(field: int, value: int) -> bytes:
    """Encode a field that is an integer, a bool or a member of an enumeration."""
    return varint(field << 3) + varint(value)


def double(field: int, value: float) -> bytes:
    """Encode a field that is a double."""
    return varint(field << 3 | 1) + pack("<d", value)
