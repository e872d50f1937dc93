"""A part of a batch has the frames that the whole batch has there, also where a block is damaged."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from asynctrack.journal.batch_part import BatchParts
from asynctrack.journal.layout import BLOCK_BYTES, HEADER_BYTES
from asynctrack.journal.reader import Reader
from asynctrack.testing import JournaledRun


def make_journal(folder: Path) -> Path:
    """A journal with a batch of several blocks."""
    with JournaledRun(folder / "p" / "r") as run:
        for step in range(60):
            run.log({"text": f"{step}" * 5000, "loss": step}, step)
        run.end()
    return run.path / "journal"


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_part_of_a_batch_has_the_frames_of_the_whole(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        journal = make_journal(Path(folder))
        with contextlib.closing(Reader(journal)) as reader:
            long = max(reader, key=lambda batch: batch.header.length)
        assert long.header.length > 4 * BLOCK_BYTES
        block = data.draw(st.none() | st.integers(0, long.header.length // BLOCK_BYTES), label="damaged block")
        if block is not None:
            with open(journal / "000001.atj", "r+b") as file:
                file.seek(long.offset + HEADER_BYTES + long.header.table_bytes + block * BLOCK_BYTES + 5)
                file.write(b"damaged")
        with contextlib.closing(Reader(journal)) as reader:
            whole = max(reader, key=lambda batch: batch.header.length)
        boundaries = [0, *(frame.end for frame in long.frames())]
        first, behind = sorted(data.draw(st.tuples(*2 * [st.sampled_from(boundaries)]), label="part"))
        wanted = [
            bytes(frame.payload)
            for frame in whole.frames(first)
            if frame.end <= behind  # not those behind the part
        ]
        with contextlib.closing(BatchParts(journal)) as parts:
            part, stretches = parts.read(whole.segment, whole.offset, first, behind)
            found = part._replace(whole=stretches).frames()
            assert [bytes(frame.payload) for frame in found] == wanted


def test_place_without_a_batch_has_nothing(tmp_path: Path) -> None:
    journal = make_journal(tmp_path)
    with contextlib.closing(BatchParts(journal)) as parts:
        assert parts.read(1, 128, 0, 1 << 20)[1] == []
        assert parts.read(2, 64, 0, 1 << 20)[1] == []
