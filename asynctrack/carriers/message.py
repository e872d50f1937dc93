"""Message: whole batches of a host's journal as they travel to the merger: verbatim, and checked end to end. Pure functions.

====== ====== ====================================================================================
byte   size   meaning
====== ====== ====================================================================================
0      4      `MAGIC`
4      1      flags: `SETTLED`
5      3      zero
8      16     id of the host's journal: salts the checksums of the batches
24     ...    batches, one after the other, as they lie in the segments (see `journal.layout`)
====== ====== ====================================================================================
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from asynctrack.journal.frames import FrameBatch, unharmed
from asynctrack.journal.layout import HEADER_BYTES, bad_blocks, salt_of, unpack_batch_header

MAGIC: Final = b"ATM1"
HEADER: Final = struct.Struct("<4sB3x16s")
# What is damaged or missing in it is so in the host's journal, for good.
SETTLED: Final = 1


class Place(msgspec.Struct, frozen=True, order=True):
    """A place between two batches of a host's journal.

    Attributes:
        segment: its number; 0 for the journal's beginning.
        offset: of the byte in it.
        made_ns: when the segment was made: after a power cut another may have its number.
    """

    segment: int = 0
    offset: int = 0
    made_ns: int = 0


class BatchMessage(NamedTuple):
    """Holds the content of a message.

    Attributes:
        journal: the id of the host's journal.
        settled: whether what is damaged or missing is so for good.
        batches: as they lie in the journal.
    """

    journal: bytes
    settled: bool
    batches: memoryview


class Garbage(ValueError):
    """The bytes are no message."""


class Damaged(Garbage):
    """The bytes are a message, and a batch in it fails its checksums."""


def pack(journal: bytes, batches: bytes, *, settled: bool = False) -> bytes:
    """Return the bytes of a message."""
    return HEADER.pack(MAGIC, SETTLED if settled else 0, journal) + batches


def unpack(message: bytes | memoryview) -> BatchMessage:
    """Return what a message holds.

    Raises:
        Garbage: the bytes are no message.
    """
    if len(message) < HEADER.size:
        raise Garbage(f"expected a message of at least {HEADER.size} bytes, got {len(message)}")
    magic, flags, journal = HEADER.unpack_from(message)
    if magic != MAGIC or flags & ~SETTLED:
        raise Garbage(f"expected a message that begins with {MAGIC!r}, got {bytes(message[:5])!r}")
    return BatchMessage(journal, bool(flags & SETTLED), memoryview(message)[HEADER.size :])


def batches_in(message: BatchMessage) -> Iterator[tuple[FrameBatch, list[int]]]:
    """Yield each batch of a message, and which of its blocks fail their checksum: none, unless the message is settled.

    Raises:
        Garbage: what comes next is no batch of this journal.
        Damaged: it is one, and is damaged.
    """
    salt, data, at = salt_of(message.journal), message.batches, 0
    while at < len(data):
        found = unpack_batch_header(data[at : at + HEADER_BYTES], salt)
        size = found[0].size if found is not None else 0
        if found is None or at + size > len(data):
            raise Garbage(f"expected a batch of journal {message.journal.hex()} at byte {at}, and there is none")
        header, table_crc = found
        begin = at + size - header.length
        frames = data[begin : at + size]
        bad = bad_blocks(data[at + HEADER_BYTES : begin], table_crc, frames, salt)
        if bad and not message.settled:
            raise Damaged(f"{len(bad)} of the blocks of the batch at byte {at} fail their checksums")
        whole = unharmed(frames, bad) if bad else [(0, header.length)]
        yield FrameBatch(0, at, header, frames, whole), bad
        at += size
