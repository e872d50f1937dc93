"""What a journal's writer decides so that a power cut takes nothing, from facts alone. No process, no disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynctrack.journal.backlog import Backlog
from asynctrack.journal.sync_rules import after_fsync, next_sync

if TYPE_CHECKING:
    from asynctrack.journal.sync_rules import FsyncOutcome, SyncStep


@pytest.mark.parametrize(
    ("is_suspect", "batches", "step"),
    [
        (False, 0, "nothing"),
        (False, 1, "fsync"),
        (True, 1, "write again"),
        (True, 0, "write again"),  # what is appended next must not go behind what may be lost
    ],
)
def test_no_fsync_is_made_of_files_that_may_have_lost_something(is_suspect: bool, batches: int, step: SyncStep) -> None:
    assert next_sync(is_suspect=is_suspect, batches=batches) == step


@pytest.mark.parametrize(
    ("is_suspect", "is_replaced", "outcome"),
    [
        (False, False, "safe"),
        (False, True, "replaced"),
        (True, False, "write again"),
        (True, True, "write again"),
    ],
)
def test_batches_are_safe_only_where_the_files_that_were_synced_are_still_the_journals(
    is_suspect: bool, is_replaced: bool, outcome: FsyncOutcome
) -> None:
    assert after_fsync(is_suspect=is_suspect, is_replaced=is_replaced) == outcome


@given(st.lists(st.tuples(st.integers(1, 3), st.binary(min_size=1, max_size=20))), st.data())
def test_backlog_forgets_the_oldest_batches_and_tells_up_to_where_each_ring_is_safe(
    batches: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    backlog, synced = Backlog(), dict[int, int]()
    for end, (ring, blob) in enumerate(batches):
        backlog.append(ring, end, blob)
    safe = data.draw(st.integers(0, len(batches)))
    backlog.forget(safe, synced)
    assert list(backlog) == [blob for _, blob in batches[safe:]]
    assert backlog.bytes == sum(map(len, backlog))
    assert synced == {ring: end for end, (ring, _) in enumerate(batches[:safe])}
