"""Sync rules: decide from facts alone what is done so that a journal survives a power cut. Pure functions; standard library only."""

from __future__ import annotations

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    from typing import Literal

    SyncStep = Literal["nothing", "fsync", "write again"]
    FsyncOutcome = Literal["safe", "write again", "replaced"]


def next_sync(*, is_suspect: bool, batches: int) -> SyncStep:
    """Decide what a sync does.

    A failed fsync is never repeated on the same file, whose pages may be marked clean although they are not on disk: what was not
    known to be safe is written again.

    Args:
        is_suspect: whether the open segments may have lost what they hold.
        batches: that are not known to be safe.
    """
    if is_suspect:
        return "write again"
    return "fsync" if batches else "nothing"


def after_fsync(*, is_suspect: bool, is_replaced: bool) -> FsyncOutcome:
    """Decide what an fsync without an error has brought.

    Args:
        is_suspect: whether somebody has removed an open segment.
        is_replaced: whether some of what was synced was replaced meanwhile, and the descriptors may be another's by now.
    """
    if is_suspect:
        return "write again"
    return "replaced" if is_replaced else "safe"
