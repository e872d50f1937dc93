"""CRC-32C: compute the checksum of event files, by google-crc32c where it is installed, else by tables.

Runs anywhere.

The polynomial is that of RFC 3720, B.4. The mask is TensorFlow's (`tsl/lib/hash/crc32c.h`): a checksum of data that
have checksums in them is weak. Python has none of its own. For 100 bytes google-crc32c takes 0.1 us, these tables 4.6
us, and a table of 256 entries 9 us.
"""

from __future__ import annotations

import functools
from array import array
from collections.abc import Callable
from struct import Struct, unpack_from

_POLYNOMIAL = 0x82F63B78
_PACK = Struct("<I").pack


def find() -> Callable[[bytes], int]:
    """Return the fastest checksum function that is available here."""
    try:
        import google_crc32c
    except ImportError:
        return by_tables
    if google_crc32c.implementation != "c":  # its own Python is slower than ours
        return by_tables
    value: Callable[[bytes], int] = google_crc32c.value
    return value


def masked(checksum: int) -> bytes:
    """Return a checksum as event files have it."""
    return _PACK(((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def by_tables(data: bytes) -> int:
    """Compute the checksum, four bytes at a step through two tables of 65,536 entries."""
    low, high, single = _tables()
    crc = 0xFFFFFFFF
    words = len(data) >> 2
    for word in unpack_from(f"<{words}I", data):
        crc ^= word
        crc = low[crc & 0xFFFF] ^ high[crc >> 16]
    for byte in data[words << 2 :]:
        crc = single[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


@functools.cache
def _tables() -> tuple[array[int], array[int], list[int]]:
    """Build tables by the two lower and the two higher bytes of a word, and by a byte: 0.5 MB, made in 10 ms."""
    last = [_eight_bits_on(byte) for byte in range(256)]
    third = [crc >> 8 ^ last[crc & 0xFF] for crc in last]
    second = [crc >> 8 ^ last[crc & 0xFF] for crc in third]
    first = [crc >> 8 ^ last[crc & 0xFF] for crc in second]
    low = array("I", [two ^ one for two in second for one in first])
    high = array("I", [four ^ three for four in last for three in third])
    return low, high, last


def _eight_bits_on(crc: int) -> int:
    for _ in range(8):
        crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
    return crc
