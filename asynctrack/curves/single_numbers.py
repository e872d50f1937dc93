"""Single numbers: reads the records of some rows again, from the journal, for exact values. Runs anywhere."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from asynctrack._system.native import is_native
from asynctrack.curves.lanes import JournalPlace, Lane
from asynctrack.curves.native_parts import new_points
from asynctrack.curves.pyramid import Pyramid
from asynctrack.curves.record_feed import RecordFeed
from asynctrack.journal.batch_part import BatchParts
from asynctrack.journal.layout import Position
from asynctrack.journal.reader import Reader


class LaneStretch(NamedTuple):
    """Records of a lane that follow each other.

    Attributes:
        begin: the place of the first.
        end: the place behind the last.
        lane: whose they are.
    """

    begin: JournalPlace
    end: JournalPlace
    lane: Lane


class XAxis(NamedTuple):
    """Says what x is.

    Attributes:
        name: as users say it.
        kind: of steps or times.
        origin: what is 0.
        metric: that is the axis; None for steps and times.
    """

    name: str
    kind: int
    origin: int
    metric: str | None


def read_points(
    pyramid: Pyramid,
    stretches: Iterable[LaneStretch],
    keys: tuple[str, ...],
    axis: XAxis,
    begin: float,
    end: float,
    *,
    native: bool = is_native,
) -> list[bytes]:
    """Read the numbers of some stretches.

    Args:
        pyramid: of the run.
        stretches: of its lanes.
        keys: the metrics to read.
        axis: their x.
        begin: the least x to take.
        end: the greatest.
        native: False has Python read them.

    Returns:
        For each key pairs of x and number, in the order of the journal.
    """
    wanted = _joined(stretches)
    feed = RecordFeed(pyramid.run, native=native)
    points = new_points(feed.scan, keys, axis.metric, axis.kind, axis.origin, begin, end)
    session = -1
    with contextlib.closing(BatchParts(pyramid.run / "journal")) as parts:
        for place, length, of in _batches(pyramid, wanted):
            for stretch in of:
                if stretch.lane.session != session:
                    session = stretch.lane.session
                    feed.begin_session(pyramid.cuts[session] if session < len(pyramid.cuts) else {})
                part, frames = parts.read(*place, *_within(place, length, stretch))
                for _ in feed.read(part, frames, lambda damage: None):
                    pass
    return [points.take(index) for index in range(len(keys))]


def _joined(stretches: Iterable[LaneStretch]) -> list[LaneStretch]:
    """Join what overlaps of each lane."""
    found: list[LaneStretch] = []
    for stretch in sorted(stretches, key=lambda each: (each.lane.ring, each.lane.session, each.begin)):
        before = found[-1] if found else None
        if (
            before is not None
            and before.lane.ring == stretch.lane.ring
            and before.lane.session == stretch.lane.session
            and stretch.begin <= before.end
        ):
            found[-1] = before._replace(end=max(before.end, stretch.end))
        else:
            found.append(stretch)
    return sorted(found, key=lambda each: each.begin)


def _batches(pyramid: Pyramid, wanted: list[LaneStretch]) -> Iterator[tuple[tuple[int, int], int, list[LaneStretch]]]:
    """Yield the places of the batches in which stretches lie, in the order of the journal, each with the length of its frames and those stretches."""
    at = 0
    while at < len(wanted):
        behind, end = at + 1, wanted[at].end
        while behind < len(wanted) and wanted[behind].begin[:2] <= end[:2]:
            end = max(end, wanted[behind].end)
            behind += 1
        begin, group = wanted[at].begin[:2], wanted[at:behind]
        at = behind
        if begin == end[:2]:
            yield begin, end.inner, group
        else:
            yield from _batches_between(pyramid, begin, end[:2], group)


def _batches_between(
    pyramid: Pyramid, begin: tuple[int, int], end: tuple[int, int], wanted: list[LaneStretch]
) -> Iterator[tuple[tuple[int, int], int, list[LaneStretch]]]:
    by_ring: dict[int, list[LaneStretch]] = {}
    for stretch in wanted:
        by_ring.setdefault(stretch.lane.ring, []).append(stretch)
    with contextlib.closing(Reader(pyramid.run / "journal", Position(*begin), bodies=False)) as reader:
        for batch in reader:
            place = (batch.segment, batch.offset)
            if place > end:
                break
            of = [
                each
                for each in by_ring.get(batch.header.ring, ())
                if each.begin[:2] <= place and (place, 0) < (each.end[:2], each.end.inner)
            ]
            if of:
                yield place, batch.header.length, of


def _within(place: tuple[int, int], length: int, stretch: LaneStretch) -> tuple[int, int]:
    """Return the first byte of a batch's frames that is of a stretch, and the byte behind the last."""
    first = stretch.begin.inner if stretch.begin[:2] == place else 0
    return first, stretch.end.inner if stretch.end[:2] == place else length
