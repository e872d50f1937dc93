"""Layout: what a pyramid consists of, in memory and in the user's cache. Numbers are in the order of this machine's bytes.

A row is 64 consecutive records of a lane, which is one ring in one session; the last may have fewer. A row of the next level is four of this one. Records
without a number do not count. An entry is the numbers of one metric in a row; a metric has none for a row in which it was not logged.

A row, 48 bytes: least and greatest step, least and greatest time in ns since the epoch; where its first record stands in the journal: number of the segment,
the offset of the batch in it, and the offset of the frame in that; and the count of records.

An entry, 48 bytes: least, greatest, sum and last of the finite numbers; their count, the count of the others, and the index of the row in its lane and level.
The last is NaN, and least and greatest are infinite, where there is none.

A cell, 72 bytes, is what is drawn at one place: least and greatest x, least, greatest, sum and last of the finite numbers, the x of the last, their count,
and the count of the others. All is zero where there is nothing.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

ROW: Final = struct.Struct("=4q4I")
ENTRY: Final = struct.Struct("=4d4I")
CELL: Final = struct.Struct("=7d2Q")

ROW_RECORDS: Final = 64
FACTOR: Final = 4
# Metrics that are kept: a run may make up a name per record. As in `collection.metric_stats`.
MOST_METRICS: Final = 10_000


class BucketRow(NamedTuple):
    """Consecutive records of a lane."""

    step_low: int
    step_high: int
    time_low: int
    time_high: int
    segment: int
    offset: int
    inner: int
    records: int


class BucketEntry(NamedTuple):
    """The numbers of a metric in a row."""

    low: float
    high: float
    total: float
    last: float
    finite: int
    broken: int
    row: int
    unused: int = 0


class DrawnCell(NamedTuple):
    """Holds what is drawn at one place."""

    x_low: float
    x_high: float
    low: float
    high: float
    total: float
    last: float
    last_x: float
    finite: int
    broken: int


Bytes = bytes | bytearray | memoryview


def row_at(rows: Bytes, index: int) -> BucketRow:
    """Return a row."""
    return BucketRow._make(ROW.unpack_from(rows, index * ROW.size))


def entry_at(entries: Bytes, index: int) -> BucketEntry:
    """Return an entry."""
    return BucketEntry._make(ENTRY.unpack_from(entries, index * ENTRY.size))
