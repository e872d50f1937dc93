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
from asynctrack.journal.frames import FrameBatch
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
    for batch, of in _batches(pyramid, wanted):
        for stretch in of:
            if stretch.lane.session != session:
                session = stretch.lane.session
                feed.begin_session(pyramid.cuts[session] if session < len(pyramid.cuts) else {})
            for _ in feed.read(batch, _within(batch, stretch), lambda damage: None):
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


def _batches(pyramid: Pyramid, wanted: list[LaneStretch]) -> Iterator[tuple[FrameBatch, list[LaneStretch]]]:
    """Yield the batches in which stretches lie, each with those, in the order of the journal."""
    at = 0
    while at < len(wanted):
        behind, end = at + 1, wanted[at].end
        while behind < len(wanted) and wanted[behind].begin[:2] <= end[:2]:
            end = max(end, wanted[behind].end)
            behind += 1
        by_ring: dict[int, list[LaneStretch]] = {}
        for stretch in wanted[at:behind]:
            by_ring.setdefault(stretch.lane.ring, []).append(stretch)
        position = Position(wanted[at].begin.segment, wanted[at].begin.offset)
        with contextlib.closing(Reader(pyramid.run / "journal", position)) as reader:
            for batch in reader:
                place = (batch.segment, batch.offset)
                if place > end[:2]:
                    break
                of = [
                    each
                    for each in by_ring.get(batch.header.ring, ())
                    if each.begin[:2] <= place and (place, 0) < (each.end[:2], each.end.inner)
                ]
                if of:
                    yield batch, of
        at = behind


def _within(batch: FrameBatch, stretch: LaneStretch) -> Iterator[tuple[int, int]]:
    place = (batch.segment, batch.offset)
    first = stretch.begin.inner if stretch.begin[:2] == place else 0
    behind = stretch.end.inner if stretch.end[:2] == place else batch.header.length
    for start, end in batch.whole:
        if max(start, first) < min(end, behind):
            yield max(start, first), min(end, behind)
