"""Parquet: parts that DuckDB, polars and pyarrow read while the run is live, and one table when it has ended."""

from __future__ import annotations

import errno
import math
import os
import random
import signal
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars
import pyarrow.parquet as pq
import pytest
from support import start

from asynctrack import ActionRequired, Batch, Context, Parquet, Record
from asynctrack.backends.files import parquet_table
from asynctrack.errors import InvalidSettings
from asynctrack.testing import JournaledRun, deliver

Row = dict[str, Any]

# Writes parts of so many records, says so, and merges them.
MERGE = """
import sys
from pathlib import Path
from asynctrack import Batch, Context, Parquet, Record
run, parts, rows = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
sink = Parquet().open(Context(run_id="run", name="run", project="p", directory=run, config={}))
for part in range(parts):
    numbers = range(part * rows, (part + 1) * rows)
    sink.write(Batch([Record(i, i, i * 1000, {"i": i, f"new{part % 5}": i / 7}, 1) for i in numbers], []))
print("written", flush=True)
sink.close("finished")
"""


def context(run: Path, state: Row | None = None) -> Context:
    return Context(run_id="run", name="run", project="p", directory=run, config={}, state=state)


def batch(numbers: Iterable[int], **more: Any) -> Batch:
    return Batch([Record(i, i, i * 1_000_000_000, {"i": i, **more}, 1) for i in numbers], [])


def open_sink(run: Path, state: Row | None = None) -> Any:
    return Parquet().open(context(run, state))


def names(run: Path) -> list[str]:
    return sorted(os.listdir(run / "parquet"))


def duck(run: Path, query: str) -> Any:
    """What DuckDB finds in all there is now."""
    return duckdb.sql(query.format(f"read_parquet('{run}/parquet/*.parquet', union_by_name=true)")).fetchall()


def frame(run: Path) -> polars.DataFrame:
    """What polars finds there."""
    parts = [polars.scan_parquet(path) for path in sorted((run / "parquet").glob("*.parquet"))]
    return polars.concat(parts, how="diagonal_relaxed").collect()


# What it writes


def test_a_live_run_can_be_read_and_a_new_key_is_a_new_column(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "run") as run:
        for part in range(3):
            for i in range(part * 10, part * 10 + 10):
                run.log({"loss": math.nan if i == 7 else i / 2, **({"val": {"acc": i}} if part else {})}, i)
            run.journal()
            deliver(run.path, Parquet())
            count = 10 * (part + 1)
            assert len(names(run.path)) == part + 1
            assert duck(run.path, "SELECT count(*), max(_step), max(_number) FROM {}") == [
                (count, count - 1, count - 1)
            ]
            assert frame(run.path)["loss"].is_nan().sum() == 1
            if part:
                assert duck(run.path, 'SELECT count("val/acc") FROM {}') == [(count - 10,)]
                assert frame(run.path)["val/acc"].null_count() == 10
        run.end()
        deliver(run.path, Parquet())
    assert names(run.path) == ["metrics.parquet"]
    table = pq.read_table(run.path / "parquet" / "metrics.parquet")
    assert table.column_names == ["_step", "_timestamp", "_number", "loss", "val/acc"]
    assert [str(field.type) for field in table.schema] == ["int64", "double", "int64", "double", "int64"]
    assert table["_step"].to_pylist() == list(range(30))


def test_a_value_that_does_not_fit_its_column_widens_it(tmp_path: Path) -> None:
    rows: list[Row] = [{"x": True, "y": 1, "z": 0.5}, {"x": 2, "y": 2**63, "z": None}, {"x": 0.5, "z": "text"}]
    with JournaledRun(tmp_path / "p" / "run") as run:
        for step, row in enumerate(rows):
            run.log(row, step)
            run.journal()
            deliver(run.path, Parquet())
        assert duck(run.path, "SELECT typeof(x), typeof(y), typeof(z) FROM {} LIMIT 1") == [
            ("DOUBLE", "VARCHAR", "VARCHAR")
        ]
        assert frame(run.path)["x"].to_list() == [1.0, 2.0, 0.5]
        run.end()
        deliver(run.path, Parquet())
    table = pq.read_table(run.path / "parquet" / "metrics.parquet")
    assert table["x"].to_pylist() == [1.0, 2.0, 0.5]
    assert table["y"].to_pylist() == ["1", str(2**63), None]
    assert table["z"].to_pylist() == ["0.5", None, "text"]


def test_what_no_column_holds_is_text_and_names_are_kept_apart(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "run") as run:
        run.log({"l": [1, math.nan], "a": np.arange(2), "_step": 5, "__number": 6, "n": None, "e": {}}, 3)
        run.log({}, 2**63)
        run.log({"x": 1}, -(2**63))
        run.end()
        assert deliver(run.path, Parquet()).skipped == {"a step beyond 63 bits": 1}
    (row, other) = pq.read_table(run.path / "parquet" / "metrics.parquet").to_pylist()
    assert (row["l"], row["a"], row["__step"], row["___number"], row["e"]) == ('[1,"NaN"]', "[0,1]", 5, 6, "{}")
    assert (row["_step"], other["_step"], other["x"]) == (3, -(2**63), 1)
    assert "n" not in row


def test_a_part_is_written_by_rows(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "run") as run:
        for i in range(100):
            run.log({"i": i}, i)
        run.journal()
        deliver(run.path, Parquet(part_rows=30))
        assert [pq.read_metadata(run.path / "parquet" / name).num_rows for name in names(run.path)] == [30, 30, 30, 10]


# After a crash, and while the table is made


def test_what_is_given_again_replaces_what_was_not_saved(tmp_path: Path) -> None:
    sink = open_sink(tmp_path)
    sink.write(batch(range(10)))
    state = sink.checkpoint()
    for part in (range(10, 12), range(12, 15), range(15, 18)):
        sink.write(batch(part))
    again = open_sink(tmp_path, state)
    assert len(frame(tmp_path)) == 18, "nothing is removed before it comes again"
    again.write(batch(range(10, 30)))
    assert frame(tmp_path)["i"].to_list() == list(range(30))
    again.close("finished")
    assert frame(tmp_path)["i"].to_list() == list(range(30))


def test_a_run_that_goes_on_adds_to_its_table(tmp_path: Path) -> None:
    state = None
    for session in range(3):
        sink = open_sink(tmp_path, state)
        for part in range(2):
            sink.write(batch([session * 2 + part], **{f"new{session}": 1}))
        state = sink.checkpoint()
        sink.close("crashed")
        assert names(tmp_path) == ["metrics.parquet"]
    assert frame(tmp_path)["i"].to_list() == list(range(6))


def test_parts_that_somebody_has_removed_are_written_again(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "run") as run:
        for i in range(3):
            run.log({"i": i}, i)
            run.journal()
            deliver(run.path, Parquet())
        (run.path / "parquet" / parquet_table.part_name(1)).unlink()
        run.log({"i": 3}, 3)
        run.end()
        deliver(run.path, Parquet())
    assert frame(run.path)["i"].to_list() == [0, 1, 2, 3]


@pytest.mark.system
def test_no_reader_finds_a_record_in_both_parts_and_table(tmp_path: Path) -> None:
    child = start(MERGE, tmp_path, 40, 500)
    assert child.stdout is not None
    assert child.stdout.readline() == "written\n"
    counts = {20_000}
    while child.poll() is None:
        try:
            counts.add(duck(tmp_path, "SELECT count(*) FROM {}")[0][0])
        except duckdb.IOException:  # it had listed the parts before
            pass
    child.communicate()
    assert child.returncode == 0
    assert counts == {20_000}
    assert duck(tmp_path, "SELECT count(*), count(DISTINCT i), count(new3) FROM {}") == [(20_000, 20_000, 4_000)]
    assert names(tmp_path) == ["metrics.parquet"]


@pytest.mark.system
@pytest.mark.parametrize("after_s", [0.0, 0.1])
def test_killed_while_the_table_is_made_it_is_made_again(after_s: float, tmp_path: Path) -> None:
    child = start(MERGE, tmp_path, 40, 500)
    assert child.stdout is not None
    assert child.stdout.readline() == "written\n"
    threading.Event().wait(after_s * random.random())
    child.send_signal(signal.SIGKILL)
    child.communicate()
    sink = open_sink(tmp_path, {"parts": 40, "rows": 20_000, "kinds": {}})
    assert duck(tmp_path, "SELECT count(*) FROM {}") == [(20_000,)]
    sink.close("finished")
    assert duck(tmp_path, "SELECT count(*), count(DISTINCT i) FROM {}") == [(20_000, 20_000)]
    assert names(tmp_path) == ["metrics.parquet"]
    assert os.listdir(tmp_path) == ["parquet"]


@pytest.mark.parametrize("cut_at", ["before the second rename", "after it"])
def test_where_names_cannot_be_exchanged_it_is_found_again(
    cut_at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_table.ctypes, "CDLL", lambda *_, **__: object())  # a C library without renameat2
    sink = open_sink(tmp_path)
    for part in range(3):
        sink.write(batch([part]))
    rename, renames = os.rename, []

    def dying(source: Any, target: Any) -> None:
        renames.append(source)
        if len(renames) == 2 and cut_at == "before the second rename":
            raise OSError(errno.EIO, "killed")
        rename(source, target)
        if len(renames) == 2 and cut_at == "after it":
            raise OSError(errno.EIO, "killed")

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", dying)
        with pytest.raises(OSError, match="killed"):
            sink.close("finished")
    again = open_sink(tmp_path, {"parts": 3, "rows": 3, "kinds": {}})
    assert frame(tmp_path)["i"].to_list() == [0, 1, 2]
    again.close("finished")
    assert names(tmp_path) == ["metrics.parquet"]
    assert os.listdir(tmp_path) == ["parquet"]


def test_a_file_of_a_persons_stays(tmp_path: Path) -> None:
    sink = open_sink(tmp_path)
    for part in range(3):
        sink.write(batch([part]))
    (tmp_path / "parquet" / "notes.txt").write_text("mine")
    sink.close("finished")
    assert names(tmp_path) == ["metrics.parquet", "notes.txt"]


@pytest.mark.slow
def test_making_the_table_takes_bounded_memory(tmp_path: Path) -> None:
    script = MERGE.replace(
        'sink.close("finished")',
        """
import os, resource
from asynctrack.backends.files.parquet_table import files, part_name
(part,) = files(run / "parquet")
for number in range(1, 200):
    os.link(part, run / "parquet" / part_name(number))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
sink.close("finished")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
""",
    )
    child = start(script, tmp_path, 1, 50_000)
    out, err = child.communicate(timeout=100)
    assert child.returncode == 0, err
    assert int(out.splitlines()[-1]) < 200, "MiB, for a table that takes 400 MiB"
    table = pq.read_metadata(tmp_path / "parquet" / "metrics.parquet")
    assert table.num_rows == 10_000_000


# What it is told


@pytest.mark.parametrize("settings", [{"part_rows": 0}, {"part_rows": 1.5}, {"part_age_s": -1}, {"part_age_s": None}])
def test_settings_that_cannot_be_used_are_told_at_once(settings: Row) -> None:
    with pytest.raises(InvalidSettings, match=next(iter(settings))):
        Parquet(**settings)


def test_a_missing_library_is_said_with_what_brings_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ActionRequired, match=r"pip install 'asynctrack\[parquet\]'"):
        open_sink(tmp_path)
