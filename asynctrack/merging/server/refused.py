"""Refused: why a request is not done, in a collector, and how it is told to the host."""

from __future__ import annotations

import errno
from typing import Final

from asynctrack.carriers.message import Garbage
from asynctrack.carriers.parts import part_name
from asynctrack.carriers.wire import Code, InflatesTooFar, Limit, PartName, Refusal
from asynctrack.errors import MergedElsewhere, NotAMergedRun, PartIncomplete, PartRefused

_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)


class Refused(Exception):
    """A request is not done.

    Attributes:
        refusal: what its host is told.
    """

    def __init__(self, code: Code, error: str, limit: Limit | None = None, *, seen: int = 0) -> None:
        super().__init__(error)
        self.refusal = Refusal(error=error, code=code, seen=seen, limit=limit)


def refusal_of(error: Exception, name: PartName) -> Refusal:
    """Return what a host is told of an error. No path of this machine is in it.

    Args:
        error: what went wrong.
        name: of the host's part.
    """
    if isinstance(error, Refused):
        return error.refusal
    what = f"{name.project}/{part_name(name.run, name.host)}"
    if isinstance(error, PartIncomplete):
        return Refusal(error=error.why, code="incomplete", ring=error.ring, seen=error.seen)
    if isinstance(error, PartRefused):
        return Refusal(error=error.why, code="refused")
    if isinstance(error, InflatesTooFar):
        return Refusal(error=str(error), code="too_large", limit="inflated")
    if isinstance(error, Garbage):
        return Refusal(error=f"{what}: {error}", code="garbage")
    if isinstance(error, NotAMergedRun):
        return Refusal(error="another run, which nobody merged, lies where the merged one should", code="refused")
    if isinstance(error, MergedElsewhere):
        return Refusal(error=f"{what} is not merged now: another process writes to the merged run", code="not_now")
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return Refusal(error=f"{what} is not merged now: the collector's disk is full", code="disk_full")
    return Refusal(
        error=f"{what} is not merged now: the merged run cannot be written; the collector says why", code="not_now"
    )
