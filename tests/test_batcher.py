"""Work in pieces: how much a delivery does between two moments at which others may have the interpreter. Counted, not timed.

A thread host shares the interpreter with the loop that logs. What one piece takes is a matter of bytes and records, which do not depend on the machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from delivery_support import cursor, journal

from asynctrack import Backend, JSONLines
from asynctrack.backends.base import BATCH_BYTES
from asynctrack.delivery import batcher as batchers
from asynctrack.delivery.batcher import Batcher
from asynctrack.testing import Scripted
from asynctrack.worker.run_journal import MOVE_BYTES

RECORDS = 30_000
SMALLEST_FRAME = 32  # of the records below: header, time, step and one number


@pytest.mark.parametrize("backend", [JSONLines(), Scripted(downsample_interval_s=1e6)], ids=["all", "downsampled"])
def test_a_piece_of_work_is_bounded_by_a_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: Backend
) -> None:
    run = journal(tmp_path / "p" / "a", RECORDS)
    batcher = Batcher(run.path, cursor(run.path), backend)
    decoded = given = 0
    pieces: list[int] = []
    take, decode, gather = batcher._batches.take, batcher._decode, Batcher._gather

    def taking(*arguments: Any) -> Any:
        nonlocal decoded
        found = take(*arguments)
        decoded += len(found.records)
        return found

    def decoding(*arguments: Any) -> Any:
        nonlocal decoded
        decoded += 1
        return decode(*arguments)

    def piece(self: Batcher, into: Any) -> None:
        before = decoded
        gather(self, into)
        pieces.append(decoded - before)

    monkeypatch.setattr(batcher._batches, "take", taking)
    monkeypatch.setattr(batcher, "_decode", decoding)
    monkeypatch.setattr(Batcher, "_gather", piece)
    expedite = False
    while not expedite:
        batcher.gather()
        expedite = batcher.at_end()
        if (cut := batcher.take(expedite=expedite)) is not None:
            assert len(cut.batch.records) <= backend.batch_records
            given += len(cut.batch.records) + cut.skipped.get("downsampled", 0)
    assert given == decoded == RECORDS
    most = batchers._PIECE_BYTES if backend.downsample_interval_s else min(backend.batch_bytes, BATCH_BYTES)
    assert max(pieces) <= min(backend.batch_records, most // SMALLEST_FRAME + 1)
    assert len(pieces) > 5
    batcher.close()


def test_what_is_moved_at_once_is_bounded() -> None:
    """Copy, checksum and write let go of the interpreter between each other; each has so much at most."""
    assert MOVE_BYTES <= 1 << 20
