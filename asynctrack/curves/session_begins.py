"""Session begins: where each session of a run that was resumed begins. Runs anywhere."""

from __future__ import annotations

import msgspec

from asynctrack.curves.layout import BucketRow, row_at
from asynctrack.curves.pyramid import Pyramid


class SessionBegin(msgspec.Struct, frozen=True):
    """The first records of a session.

    Attributes:
        step: the least of them.
        time_ns: the first, nanoseconds since the epoch.
    """

    step: int
    time_ns: int


def sessions_of(pyramid: Pyramid) -> list[SessionBegin]:
    """Return where each session begins that has a number: by the first rows of its lanes."""
    firsts: dict[int, list[BucketRow]] = {}
    opened = {id(one.lane): one.row for one in pyramid.open_rows()}
    for lane in pyramid.lanes:
        rows = lane.rows[0] if lane.count() else opened.get(id(lane))
        if rows is not None:
            firsts.setdefault(lane.session, []).append(row_at(rows, 0))
    return [
        SessionBegin(min(row.step_low for row in rows), min(row.time_low for row in rows))
        for _, rows in sorted(firsts.items())
    ]
