"""Layout: what the bytes of a ring and of a frame mean: the whole protocol between producer and worker.

A ring is one file: a header of `HEADER_BYTES`, then `capacity` bytes (a power of two) of frames. Everything is
little-endian 8-byte words, stored and loaded whole, so that no reader ever sees half of one.

Header words (index: name, who writes):

====== ============ ======== ==================================================================================
index  name         writer   meaning
====== ============ ======== ==================================================================================
0      MAGIC        creator  `RING_MAGIC`; stored last, so a file without it is still being made
1      VERSION      creator  `RING_VERSION`
2      CAPACITY     creator  bytes of frames the ring holds
3      RING         creator  random id of this ring, never 0: with the run's id and a number it names a record
4      FIRST        creator  number of the first record
5      PID          creator  the producer's process, for people
6      META_BYTES   creator  length of the text at `META_OFFSET`: lines of `name=value`, and last `run=` with the run's
                             directory: what the worker needs first
8      HEAD         producer position after the last whole frame; stored after the frame's bytes
9      END          producer how the producer ended: one of `ENDS`
10     WANTED       producer position that somebody waits for (`flush`)
11..   DROPPED      producer one count per reason in `DROP_REASONS`
14     PREEMPTED    producer 1 when the end that follows, whatever it is, is a preemption
15     EXITING      producer 1 when the end that follows is that of the process, whose exit code may say more
32..47 MARKS        producer for each sixteenth of the ring the position of some frame's start in it, as of its last lap or
                             this one: where the worker may cut what it journals at once
16     TAIL         worker   position up to which the journal holds everything: the room before it is free
17     SYNCED       worker   position up to which the journal survives a power cut
18     DELIVERED    worker   position up to which every backend in the worker has it
19     SLEEPING     worker   1 while the worker waits for the wake pipe
20     WORKER_PID   worker   its process
21     HEARTBEAT    worker   monotonic nanoseconds of its last look
22     LAST_ERRNO   worker   errno of the last failed write to the journal, 0 when it works; `NO_ANSWER` while its disk hangs
23     DONE         worker   1 when the run is closed: run.json says how it ended, every backend has all
====== ============ ======== ==================================================================================

Positions count bytes since the ring was made and only grow; a byte lies at `position % capacity`.
The producer's words and the worker's lie on different cache lines.

A frame is 16 bytes of header and its payload, padded to 8. It never wraps: the rest of the ring before its end
is skipped with a frame of kind `PAD`.

====== ====== ===========================================================================================
byte   size   meaning
====== ====== ===========================================================================================
0      4      length of the payload
4      4      records the producer had dropped before this one (modulo 2**32)
8      7      number: of this record in its process, drops counted, so that a drop is a gap; other kinds bear
              the number of the record that comes next
15     1      kind
16     length payload
====== ====== ===========================================================================================
"""

from __future__ import annotations

import errno

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    from typing import Final


RING_MAGIC: Final = int.from_bytes(b"ATRING\0\1", "little")
RING_VERSION: Final = 1

HEADER_BYTES: Final = 8192
META_OFFSET: Final = 1024
META_MAX: Final = HEADER_BYTES - META_OFFSET

MAGIC: Final = 0
VERSION: Final = 1
CAPACITY: Final = 2
RING: Final = 3
FIRST: Final = 4
PID: Final = 5
META_BYTES: Final = 6
HEAD: Final = 8
END: Final = 9
WANTED: Final = 10
DROPPED: Final = 11
PREEMPTED: Final = 14
EXITING: Final = 15
TAIL: Final = 16
SYNCED: Final = 17
DELIVERED: Final = 18
SLEEPING: Final = 19
WORKER_PID: Final = 20
HEARTBEAT: Final = 21
LAST_ERRNO: Final = 22
DONE: Final = 23
MARKS: Final = 32
MARK_COUNT: Final = 16

# The trouble of a disk that does not answer: the error with which a network's disk gives up.
NO_ANSWER: Final = errno.ETIMEDOUT

DROP_REASONS: Final = ("full", "oversize", "closed")
ENDS: Final = ("open", "finished", "failed", "left")

FRAME_HEADER_BYTES: Final = 16
NUMBER_MASK: Final = (1 << 56) - 1
KIND_SHIFT: Final = 56
LENGTH_MASK: Final = (1 << 32) - 1
LOST_SHIFT: Final = 32

# Kinds of frame. The producer's payloads are MessagePack (see `records.codec`); a NOTE is the worker's own, in JSON.
RECORD: Final = 0
START: Final = 1
CONFIG: Final = 2
SUMMARY: Final = 3
FAILURE: Final = 4
CHECKPOINT: Final = 5
LABELS: Final = 6
JOIN: Final = 7
NOTE: Final = 8
PAD: Final = 255


def frame_size(length: int) -> int:
    """Return how many bytes a frame with a payload of `length` bytes takes in a ring and in the journal."""
    return (length + FRAME_HEADER_BYTES + 7) & -8
