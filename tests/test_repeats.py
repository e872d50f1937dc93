"""What a resumed run logged again is left out piece by piece as it is all at once, with the native core and without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from reading_versions import both, tries
from test_scan import MIXED, RESUMED, RESUMED_WITH_A_NAME_TWICE, made_run, sessions

from asynctrack._system.native import is_native
from asynctrack.journal.batch_records import BatchDecoder
from asynctrack.reading import scan
from asynctrack.reading.history import History, LeftOut, Repeats, without
from asynctrack.reading.reader import RunReader
from asynctrack.reading.repeats import count_sessions, find_repeats
from asynctrack.reading.session_records import session_records
from asynctrack.records.codec import Decoder
from asynctrack.testing import JournaledRun


def repeats_of(run: RunReader) -> Repeats | None:
    return find_repeats(run.path, run.manifest(), run._batches)


def rows_in_blocks(run: RunReader, history: History) -> list[tuple[int, list[tuple[str, Any]]]]:
    """Each row's step and values, read in blocks."""
    found: list[tuple[int, list[tuple[str, Any]]]] = []
    repeats, left_out = repeats_of(run) if history == "last" else None, LeftOut()
    for block in scan.blocks(
        run.path, run._batches(), lambda value: value, rows=True, repeats=repeats, left_out=left_out
    ):
        steps = memoryview(block.steps()).tolist()
        columns = [(name, block.aligned_objects(index)) for index, name in enumerate(block.names())]
        for at, step in enumerate(steps):
            found.append((step, sorted((name, values[at]) for name, values in columns if values[at] is not None)))
    counted = LeftOut()
    if repeats is not None:
        numbered = session_records(run.path, run._batches(), BatchDecoder(Decoder(run.path)), repeats.fixed)
        assert sum(1 for _ in without(numbered, repeats.cuts, counted)) == len(found)
    assert (left_out.rows, left_out.values) == (counted.rows, counted.values)
    return found


def _shortened(repeats: Repeats) -> Repeats:
    """Without the sessions at the end in which nothing is cut."""
    cuts = list(repeats.cuts)
    while cuts and not cuts[-1]:
        cuts.pop()
    return repeats._replace(cuts=cuts)


@tries(sessions, known=((MIXED,), (RESUMED,), (RESUMED_WITH_A_NAME_TWICE,)))
def test_repeats_are_the_same(sessions: list[Any]) -> None:
    with made_run(sessions) as run:
        native, plain = both(lambda: repeats_of(run))
        assert (native and _shortened(native)) == (plain and _shortened(plain))
        assert (native is None) == (len(sessions) == 1)
        assert count_sessions(run.path, run.manifest()) == len(sessions)


@pytest.mark.skipif(not is_native, reason="the native core is not built")
@pytest.mark.parametrize("history", ["all", "last"])
def test_blocks_of_a_few_rows_have_what_the_whole_has(monkeypatch: pytest.MonkeyPatch, history: History) -> None:
    monkeypatch.setattr(scan, "_BLOCK_ROWS", 2)
    monkeypatch.setattr(scan, "_MOST_KNOWN", 2)
    logged = [[(step, {f"k{step % 7}": step, "loss": 0.5 * step}) for step in range(30)] for _ in range(2)]
    cases: list[list[Any]] = [MIXED, RESUMED, [logged[0], logged[1][20:]], [logged[0], logged[1][:10], logged[0][5:]]]
    for case in cases:
        with made_run(case) as run:
            frame = run.to_arrow(history).to_pydict()
            whole = [
                (
                    frame["_step"][at],
                    sorted(
                        (name, values[at])
                        for name, values in frame.items()
                        if not name.startswith("_") and values[at] is not None
                    ),
                )
                for at in range(len(frame["_step"]))
            ]
            in_blocks = rows_in_blocks(run, history)
            assert [step for step, _ in in_blocks] == [step for step, _ in whole]
            if case is not MIXED:  # whose column of several types becomes texts in a frame
                assert in_blocks == whole


def test_batches_that_are_passed_over_count_for_the_sessions(tmp_path: Path, reading: str) -> None:
    with JournaledRun(tmp_path / "p" / "run") as made:
        other = made.join("other")
        for step in range(10):
            made.log({"a": step}, step)
            other.log({"a": step, "b": step}, step)
            other.journal()
        made.start()
        for step in range(5, 8):
            made.log({"a": 100 + step}, step)
            other.log({"c": step}, step)
            other.journal()
        made.end()
    run = RunReader(made.path)
    repeats = repeats_of(run)
    assert repeats is not None
    rings = {batch.header.ring for _, batch in run._batches()} - {0}
    for chosen in rings:
        numbered = session_records(
            run.path,
            run._batches(),
            BatchDecoder(Decoder(run.path)),
            repeats.fixed,
            lambda batch, chosen=chosen: batch.header.ring == chosen,  # type: ignore[misc]
        )
        alone = [record.step for record in without(numbered, repeats.cuts)]
        assert alone == [record.step for record in run.records("last") if record.ring == chosen]
        if reading == "native":
            blocks = scan.blocks(
                run.path,
                run._batches(),
                lambda value: value,
                repeats=repeats,
                takes=lambda batch, chosen=chosen: batch.header.ring == chosen,  # type: ignore[misc]
            )
            assert [step for block in blocks for step in memoryview(block.steps()).tolist()] == alone
    assert len(rings) == 2
    assert sorted(run.columns()["a"].steps) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 6, 7]
