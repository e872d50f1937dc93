"""Saved: keeps the pyramids of long runs in the user's cache, and finds them again. Runs anywhere.

A file is of one run at one place, and says how far its journal was read. It is used only where the journal still is the same up to there: by its id, the sizes
of its segments and the header of the batch that was read last. Anything else is as if there were no file.

The file: `MAGIC`, the length of the head and its CRC-32 (16 bytes), the head as MessagePack, then the rows and entries of all lanes, as in `layout`.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
import zlib
from pathlib import Path
from typing import Final

import msgspec

from asynctrack._system import user_cache
from asynctrack.curves.cuts import CutCounts, Cuts, History
from asynctrack.curves.lanes import JournalPlace, Lane
from asynctrack.curves.layout import ENTRY, ROW, ROW_RECORDS
from asynctrack.curves.media_counts import NamedMedium
from asynctrack.curves.progress import Progress
from asynctrack.curves.pyramid import Pyramid
from asynctrack.curves.totals import MetricTotals
from asynctrack.journal.layout import HEADER_BYTES, Position, segment_name
from asynctrack.journal.reader import Damage, segments

KIND: Final = "curves"
MAGIC: Final = b"ATCURV3" + (b"<" if sys.byteorder == "little" else b">")
# Shorter runs are read in less time than anyone notices.
LEAST_RECORDS: Final = 1_000_000

_BEGIN: Final = struct.Struct("=8sII")
# A file is written again when so much of the run is new.
_GROWN: Final = 1.25


class _LaneHead(msgspec.Struct, array_like=True):
    ring: int
    session: int
    steps_in_order: bool
    times_in_order: bool
    end: tuple[int, int, int]
    rows: list[tuple[int, int]]  # the first byte of each level, and how many
    entries: dict[str, list[tuple[int, int]]]


class _Head(msgspec.Struct, array_like=True):
    history: str
    journal: bytes
    position: tuple[int, int, int]
    sizes: dict[int, int]
    last_batch: tuple[int, int, bytes]
    ends: dict[int, int]
    last: int
    begun: bool
    firsts: list[dict[str, int]]
    cuts: Cuts
    fixed: dict[int, int]
    left_out: tuple[int, int]
    media: dict[str, int]
    newest: list[tuple[str, str, str]]
    damage: list[tuple[str, int, int, str]]
    rounded: bool
    lanes: list[_LaneHead]
    totals: dict[str, MetricTotals]


def is_kept(run: Path, history: History) -> bool:
    """Say if something may be kept of a run."""
    return user_cache.has(KIND, _key(run, history))


def is_worth_saving(pyramid: Pyramid, saved: int) -> bool:
    """Say if a pyramid should be saved, of which so many records are."""
    records = count(pyramid)
    return records >= LEAST_RECORDS and records >= saved * _GROWN


def count(pyramid: Pyramid) -> int:
    """Return about how many records a pyramid has."""
    return ROW_RECORDS * sum(lane.count() for lane in pyramid.lanes)


def save(pyramid: Pyramid) -> bool:
    """Keep a pyramid; return whether it is kept."""
    progress, at = pyramid.progress, pyramid.last_batch
    if at is None:
        return False
    content = bytearray()
    try:
        lanes = [_put(lane, content) for lane in _closed(pyramid)]
        totals = {name: found for name in pyramid.names() if (found := pyramid.totals(name)) is not None}
        head = _Head(
            pyramid.history,
            progress.journal,
            (progress.position[0], progress.position[1], 0),
            _sizes(pyramid.run),
            (*at, _batch_header(pyramid.run, at)),
            progress.ends,
            progress.last,
            progress.begun,
            progress.firsts,
            progress.cuts,
            progress.fixed,
            (*progress.left_out,),
            progress.media,
            [(*one,) for one in progress.newest],
            [(*one,) for one in progress.damage],
            progress.rounded,
            lanes,
            totals,
        )
        packed = msgspec.msgpack.encode(head)
    except (OSError, ValueError, OverflowError):  # a journal that goes away; a name that is no Unicode
        return False
    begin = _BEGIN.pack(MAGIC, len(packed), zlib.crc32(packed))
    return user_cache.write(KIND, _key(pyramid.run, pyramid.history), begin + packed + content)


def load(pyramid: Pyramid) -> bool:
    """Have a pyramid go on from what was kept of its run; return whether there is something."""
    content = user_cache.mapped(KIND, _key(pyramid.run, pyramid.history))
    if content is None or len(content) < _BEGIN.size:
        return False
    magic, length, checksum = _BEGIN.unpack_from(content)
    packed, rest = content[_BEGIN.size : _BEGIN.size + length], content[_BEGIN.size + length :]
    if magic != MAGIC or zlib.crc32(packed) != checksum:
        return False
    try:
        head = msgspec.msgpack.decode(packed, type=_Head)
        if not _is_same(pyramid.run, head):
            return False
        lanes = [_take(lane, rest) for lane in head.lanes]
    except (OSError, ValueError):
        return False
    progress = Progress(
        head.journal,
        Position(*head.position),
        head.ends,
        head.last,
        head.begun,
        head.firsts,
        head.cuts,
        head.fixed,
        CutCounts(*head.left_out),
        head.media,
        [NamedMedium(*one) for one in head.newest],
        [Damage(*one) for one in head.damage],
        head.rounded,
    )
    pyramid.resume(progress, lanes, head.totals)
    return True


def _key(run: Path, history: History) -> str:
    return f"{history} {os.path.realpath(run)}"


def _closed(pyramid: Pyramid) -> list[Lane]:
    """Return the lanes with their open rows closed."""
    opened = {id(found.lane): found for found in pyramid.open_rows()}
    lanes = []
    for lane in pyramid.lanes:
        of = Lane(lane.ring, lane.session)
        of.steps_in_order, of.times_in_order, of.end = lane.steps_in_order, lane.times_in_order, lane.end
        for name in lane.entries:
            lane.lift(name)
        of.rows = [bytearray(rows) for rows in lane.rows]
        of.entries = {name: [bytearray(entries) for entries in levels] for name, levels in lane.entries.items()}
        if (found := opened.get(id(lane))) is not None:
            row = of.count()
            of.add(found.row, {name: ENTRY.pack(*ENTRY.unpack(e)[:6], row, 0) for name, e in found.entries.items()})
        for name in of.entries:
            of.lift(name)
        if of.count():
            lanes.append(of)
    return lanes


def _put(lane: Lane, content: bytearray) -> _LaneHead:
    def put(level: bytes | bytearray | memoryview) -> tuple[int, int]:
        content.extend(level)
        return len(content) - len(level), len(level)

    rows = [put(level) for level in lane.rows]
    entries = {name: [put(level) for level in levels] for name, levels in lane.entries.items()}
    return _LaneHead(lane.ring, lane.session, lane.steps_in_order, lane.times_in_order, (*lane.end,), rows, entries)


def _take(head: _LaneHead, content: memoryview) -> Lane:
    """Make a lane of what was kept.

    Raises:
        ValueError: the file is cut short.
    """

    def take(place: tuple[int, int], size: int) -> memoryview:
        begin, length = place
        if begin < 0 or length < 0 or length % size or begin + length > len(content):
            raise ValueError("rows that are not there")
        return content[begin : begin + length]

    lane = Lane(head.ring, head.session)
    lane.steps_in_order, lane.times_in_order = head.steps_in_order, head.times_in_order
    lane.end = JournalPlace(*head.end)
    lane.rows = [take(place, ROW.size) for place in head.rows]
    lane.entries = {name: [take(place, ENTRY.size) for place in places] for name, places in head.entries.items()}
    return lane


def _sizes(run: Path) -> dict[int, int]:
    journal = run / "journal"
    return {number: os.stat(journal / segment_name(number)).st_size for number in segments(str(journal))}


def _batch_header(run: Path, at: tuple[int, int]) -> bytes:
    with open(run / "journal" / segment_name(at[0]), "rb") as file:
        return os.pread(file.fileno(), HEADER_BYTES, at[1])


def _is_same(run: Path, head: _Head) -> bool:
    """Say if a run's journal still is what was read, up to where it was read."""
    sizes, last = _sizes(run), head.position[0]
    for number, size in head.sizes.items():
        found = sizes.get(number, -1)
        if (number < last and found != size) or (number == last and found < head.position[1]):
            return False
    segment, offset, header = head.last_batch
    with contextlib.suppress(OSError):
        return _batch_header(run, (segment, offset)) == header
    return False
