"""PNG: writes PNG files, and reads their size. Runs in a delivery; standard library only.

Eight bits a channel, rows unfiltered (https://www.w3.org/TR/png-3/): the file depends on the pixels alone, and needs neither Pillow nor NumPy.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"

# The colour type by the number of channels: grey, grey and alpha, RGB, RGB and alpha.
_COLOUR_TYPES: Final = {1: 0, 2: 4, 3: 2, 4: 6}
# Of zlib.
_LEVEL: Final = 3


def encode(pixels: bytes, width: int, height: int) -> bytes:
    """Encode pixels as a PNG.

    Args:
        pixels: rows from the top, the channels of a pixel together, 8 bits each.
        width: in pixels.
        height: in pixels.

    Raises:
        ValueError: `pixels` is not 1 to 4 bytes for each pixel.
    """
    channels, rest = divmod(len(pixels), max(1, width * height))
    if rest or channels not in _COLOUR_TYPES:
        raise ValueError(f"{len(pixels)} bytes are no image of {width} x {height} pixels with 1 to 4 channels")
    stride = width * channels
    rows = b"".join(b"\0" + pixels[at : at + stride] for at in range(0, len(pixels), stride))
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    return SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows, _LEVEL)) + _chunk(b"IEND", b"")


def size_of(content: bytes) -> tuple[int, int] | None:
    """Return width and height of a PNG in pixels; None if it is none."""
    if len(content) < 24 or not content.startswith(SIGNATURE):
        return None
    width, height = struct.unpack_from(">II", content, 16)
    return width, height


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
