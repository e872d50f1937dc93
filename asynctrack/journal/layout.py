"""Layout: what the bytes of the journal mean.

A journal is a directory of segments `000001.atj`, `000002.atj`, ..., written one after the other; all numbers are
little-endian.

========================== ========== =====================================================================
limit                      value      why
========================== ========== =====================================================================
a segment                  64 MiB     can be checked whole in a fraction of a second; a batch never spans two
a batch                    1 GiB      the largest ring
a checked block            64 KiB     a flipped bit costs one block, not a batch; per frame costs ten times more
========================== ========== =====================================================================

Segment header, 64 bytes:

====== ====== ====================================================================================
byte   size   meaning
====== ====== ====================================================================================
0      8      `SEGMENT_MAGIC`
8      4      `VERSION`
12     4      number of the segment, as in its name
16     16     id of the journal: random, the same in all its segments; salts every checksum, so that
              stale bytes of another journal are never taken for its own
32     8      wall clock when it was made, nanoseconds since the epoch
40     20     zero
60     4      CRC-32 of the bytes before
====== ====== ====================================================================================

Then batches. A batch is what the worker found in a ring at one look:

====== ====== ====================================================================================
byte   size   meaning
====== ====== ====================================================================================
0      4      `BATCH_MAGIC`
4      4      length of the frames in bytes; always `end - start`
8      8      id of the ring they come from (0: the worker's own notes)
16     8      start: position in that ring of the first byte
24     8      end: position after the last byte
32     8      record_offset: records that this ring had put before these
40     8      wall clock when it was journaled, nanoseconds since the epoch
48     8      zero
56     4      CRC-32 of the table
60     4      CRC-32 of the bytes before
64     4 * n  table: CRC-32 of each block of 64 KiB of the frames, the last one shorter
...    length frames, as they lay in the ring (see `queue.layout`)
====== ====== ====================================================================================

Every CRC starts from the CRC of the journal's id. A batch is one `write`; a torn one is a proper prefix of these bytes at
the end of a segment, or, after a power cut, bytes that fail a checksum. Nobody appends behind a torn batch: recovery
cuts it off, with all batches behind the last of which anything is whole, and the next segment begins; a last segment of
zeros never was. After a failed fsync the batches not yet known to be safe are written again to a new segment: a batch whose
`end` is not beyond the last seen of its ring is such a repeat, and is skipped. The worker's notes have no ring; the positions
of a writer's notes begin at the number of its first segment times 2**40, so they grow from writer to writer too.
"""

from __future__ import annotations

import struct
import zlib
from collections import namedtuple

from asynctrack._system.native import is_native

if is_native:
    from asynctrack._native import pack_batch as pack_natively

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final


SEGMENT_MAGIC: Final = b"ATJOURN1"
BATCH_MAGIC: Final = b"ATB1"
VERSION: Final = 1
SUFFIX: Final = ".atj"

SEGMENT_HEADER: Final = struct.Struct("<8sII16sQ20xI")
BATCH_HEADER: Final = struct.Struct("<4sIQQQQQ8xII")
HEADER_BYTES: Final = 64
BLOCK_BYTES: Final = 64 * 1024
SEGMENT_BYTES: Final = 64 << 20
MAX_BATCH_BYTES: Final = 1 << 30
# A segment that has one batch only, the largest. Bytes beyond this are not ours.
LONGEST_SEGMENT: Final = 2 * HEADER_BYTES + MAX_BATCH_BYTES + 4 * (MAX_BATCH_BYTES // BLOCK_BYTES)

NOTES_RING: Final = 0


if TYPE_CHECKING:  # which has the types of the fields
    from typing import NamedTuple

    class _Position(NamedTuple):
        segment: int = 0
        offset: int = 0
        inner: int = 0

else:
    _Position = namedtuple("Position", "segment offset inner", defaults=(0, 0, 0))


class Position(_Position):
    """A place in a journal: before the frame at byte `inner` of the batch at byte `offset` of a segment."""

    __slots__ = ()

    if not TYPE_CHECKING:  # msgspec decodes by these: `run.json` and cursors may come from anyone
        segment: int
        offset: int
        inner: int


if TYPE_CHECKING:

    class _BatchHeader(NamedTuple):
        length: int
        ring: int
        start: int
        end: int
        record_offset: int
        time_ns: int

else:
    _BatchHeader = namedtuple("BatchHeader", "length ring start end record_offset time_ns")


class BatchHeader(_BatchHeader):
    """The header of a batch, without its magic and checksums."""

    __slots__ = ()

    @property
    def table_bytes(self) -> int:
        """Return the bytes of the table of the blocks' checksums."""
        return 4 * (-(-self.length // BLOCK_BYTES))

    @property
    def size(self) -> int:
        """Return the bytes of the whole batch: header, table and frames."""
        return HEADER_BYTES + self.table_bytes + self.length


def segment_name(number: int) -> str:
    """Return the file name of a segment."""
    return f"{number:06d}{SUFFIX}"


def segment_number(name: str) -> int | None:
    """Return the number of the segment with this file name, None if it is not one."""
    digits = name.removesuffix(SUFFIX)
    right = name.endswith(SUFFIX) and 6 <= len(digits) <= 12 and digits.isascii() and digits.isdigit()
    return int(digits) if right else None


def salt_of(journal_id: bytes) -> int:
    """Return what the checksums of a journal's batches begin with."""
    return zlib.crc32(journal_id)


def pack_segment_header(number: int, journal_id: bytes, time_ns: int) -> bytes:
    """Return the bytes of a segment's header."""
    unsigned = SEGMENT_HEADER.pack(SEGMENT_MAGIC, VERSION, number, journal_id, time_ns, 0)[:-4]
    return unsigned + zlib.crc32(unsigned, salt_of(journal_id)).to_bytes(4, "little")


def unpack_segment_header(header: bytes) -> tuple[int, int, bytes] | None:
    """Return version, number and journal id, or None where the header is torn or damaged."""
    if len(header) < HEADER_BYTES:
        return None
    magic, version, number, journal_id, _, crc = SEGMENT_HEADER.unpack(header)
    if magic != SEGMENT_MAGIC or crc != zlib.crc32(header[:-4], salt_of(journal_id)):
        return None
    return version, number, journal_id


def pack_batch(header: BatchHeader, parts: tuple[bytes | memoryview, ...], salt: int) -> bytes:
    """Return the bytes of a whole batch.

    The core does it without the interpreter lock, which others may not give back for a while.

    Args:
        header: of the batch.
        parts: of the frames, one or two: what lies in a ring may go beyond its end.
        salt: of the journal.
    """
    if is_native:
        return pack_natively(BATCH_HEADER.pack(BATCH_MAGIC, *header, 0, 0), parts, BLOCK_BYTES, salt)
    view = memoryview(b"".join(parts))
    blocks = [zlib.crc32(view[at : at + BLOCK_BYTES], salt) for at in range(0, len(view), BLOCK_BYTES)]
    table = struct.pack(f"<{len(blocks)}I", *blocks)
    unsigned = BATCH_HEADER.pack(BATCH_MAGIC, *header, zlib.crc32(table, salt), 0)[:-4]
    return b"".join((unsigned, zlib.crc32(unsigned, salt).to_bytes(4, "little"), table, view))


def mark_damage(blob: bytes, header: BatchHeader, blocks: Sequence[int], salt: int) -> bytes:
    """Return a whole batch with blocks that fail their checksum, as they did in the journal that they come from.

    Args:
        blob: the batch, as `pack_batch` makes it.
        header: of the batch.
        blocks: the indices of those that are damaged.
        salt: of the journal.
    """
    table = bytearray(blob[HEADER_BYTES : HEADER_BYTES + header.table_bytes])
    for block in blocks:
        table[4 * block] ^= 1
    unsigned = BATCH_HEADER.pack(BATCH_MAGIC, *header, zlib.crc32(table, salt), 0)[:-4]
    signed = unsigned + zlib.crc32(unsigned, salt).to_bytes(4, "little")
    return b"".join((signed, table, memoryview(blob)[HEADER_BYTES + header.table_bytes :]))


def unpack_batch_header(header: bytes | memoryview, salt: int) -> tuple[BatchHeader, int] | None:
    """Return a batch's header and the checksum of its table, or None where the bytes are not a batch's header."""
    if len(header) < HEADER_BYTES or header[:4] != BATCH_MAGIC:
        return None
    _, *fields, table_crc, crc = BATCH_HEADER.unpack(header)
    if crc != zlib.crc32(header[:-4], salt):
        return None
    found = BatchHeader(*fields)
    if found.length != found.end - found.start or found.length > MAX_BATCH_BYTES:
        return None
    return found, table_crc


def bad_blocks(table: bytes | memoryview, table_crc: int, frames: memoryview, salt: int) -> list[int]:
    """Return the indices of the blocks that fail their checksum; all of them where the table itself does."""
    count = -(-len(frames) // BLOCK_BYTES)
    if zlib.crc32(table, salt) != table_crc:
        return list(range(count))
    wanted = struct.unpack(f"<{count}I", table)
    return [i for i, crc in enumerate(wanted) if zlib.crc32(frames[i * BLOCK_BYTES :][:BLOCK_BYTES], salt) != crc]
