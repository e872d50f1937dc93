"""CSV: a file per source that pandas, polars, DuckDB and Python's own reader take, with the right header at every moment."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import anyio
import duckdb
import numpy as np
import pandas
import polars
import pytest
from support import start

from asynctrack import CSV, Batch, Context, Record
from asynctrack.backends.files import csv_rows
from asynctrack.errors import InvalidRunId
from asynctrack.reading.without_journal import find_fallback
from asynctrack.testing import JournaledRun, deliver

Row = dict[str, Any]

# Logs with a new name now and then.
LOOP = """
import asynctrack, sys
with asynctrack.init("p", id="run", dir=sys.argv[1], backends=["csv"]) as run:
    for i in range(12_000):
        run.log({"train": {"loss": i, f"late{i // 2_000}": 'a "b",\\nc'}}, step=i)
"""


def written(path: Path, rows: Iterable[Row], **settings: Any) -> Path:
    """The directory of a run of these records, delivered."""
    with JournaledRun(path) as run:
        for step, data in enumerate(rows):
            run.log(data, step, time_ns=1_700_000_000_000_000_000 + step * 1_000_000_000)
        run.end()
        deliver(path, CSV(**settings))
    return path


def rows_of(path: Path) -> list[list[str]]:
    """Header and rows as Python's reader finds them."""
    with open(path, newline="") as file:
        return list(csv.reader(file, strict=True))


def context(run: Path, state: Row | None = None) -> Context:
    return Context(run_id="run", name="run", project="p", directory=run, config={}, state=state)


def batch(rows: Iterable[tuple[int, Row]]) -> Batch:
    return Batch([Record(step, step, step * 1_000_000_000, data, 1) for step, data in rows], [])


# What it writes


def test_a_file_per_source_with_step_and_time_first(tmp_path: Path) -> None:
    rows = [{"train/loss": 0.5, "val": {"acc": 1, "by/class": 2}, "lr": 0.1}, {"train/loss": 0.25}]
    run = written(tmp_path / "p" / "run", rows)
    assert sorted(os.listdir(run / "csv")) == ["metrics.csv", "train.csv", "val.csv"]
    assert (run / "csv" / "train.csv").read_bytes() == (
        b'"_step","_timestamp","loss"\r\n0,1700000000.0,0.5\r\n1,1700000001.0,0.25\r\n'
    )
    assert rows_of(run / "csv" / "val.csv") == [
        ["_step", "_timestamp", "acc", "by/class"],
        ["0", "1700000000.0", "1", "2"],
    ]
    assert rows_of(run / "csv" / "metrics.csv") == [["_step", "_timestamp", "lr"], ["0", "1700000000.0", "0.1"]]


def test_a_new_name_widens_the_header_and_every_row(tmp_path: Path) -> None:
    run = written(tmp_path / "p" / "run", [{"a": 1}, {"a": 2, "b": 3}, {"c": 'x,"y"\r\nz'}, {"b": 4}])
    assert rows_of(run / "csv" / "metrics.csv") == [
        ["_step", "_timestamp", "a", "b", "c"],
        ["0", "1700000000.0", "1", "", ""],
        ["1", "1700000001.0", "2", "3", ""],
        ["2", "1700000002.0", "", "", 'x,"y"\r\nz'],
        ["3", "1700000003.0", "", "4", ""],
    ]


def test_readers_of_the_ecosystem_find_the_same(tmp_path: Path) -> None:
    values = [0.5, math.nan, math.inf, -math.inf, 1e300, 5e-324]
    rows = [{"x": value, "n": n, "ok": n % 2 == 0, "t": f'"{n}", ö\n'} for n, value in enumerate(values)]
    path = written(tmp_path / "p" / "run", rows) / "csv" / "metrics.csv"
    frames = [
        pandas.read_csv(path),
        polars.read_csv(path).to_pandas(),
        duckdb.sql(f"SELECT * FROM read_csv('{path}', types={{'x': 'DOUBLE'}})").df(),
    ]
    for frame in frames:
        assert [*frame.columns] == ["_step", "_timestamp", "x", "n", "ok", "t"]
        np.testing.assert_array_equal(frame["x"].astype(float), values)
        assert frame["n"].tolist() == [0, 1, 2, 3, 4, 5]
        assert frame["ok"].tolist() == [True, False] * 3
        assert frame["t"].tolist() == [row["t"] for row in rows]
    with open(path, newline="") as file:  # numbers are without quotes, texts with them: its reader tells them apart
        dialect: Any = {"quoting": csv.QUOTE_NONNUMERIC}
        header = next(csv.reader(file, **dialect))
    assert header == ["_step", "_timestamp", "x", "n", "ok", "t"]


def test_what_is_no_number_or_text(tmp_path: Path) -> None:
    rows = [{"none": None, "empty": "", "list": [1, "a"], "array": np.arange(3), "big": 2**70, "nothing": {}}]
    run = written(tmp_path / "p" / "run", rows)
    row = polars.read_csv(run / "csv" / "metrics.csv", infer_schema=False).row(0, named=True)
    assert (row["none"], row["empty"]) == (None, "")
    assert [json.loads(row[key]) for key in ("list", "array", "big", "nothing")] == [[1, "a"], [0, 1, 2], 2**70, {}]


@pytest.mark.parametrize(
    "key",
    [
        "plain", "a/b", "a/b/c", "../../etc/passwd", "/x", "x/", "//", "", "metrics/x", ".hidden/x", "a b/c", "ö/ü", "_step",
        "train/_step", "__timestamp", "x" * 300 + "/y", "a-deadbeef/x", "nul\0/x", 'q"uote/com,ma', "new\nline", "..", "c/..",
    ],
)  # fmt: skip
def test_any_name_stays_in_the_folder_and_is_found_again(key: str, tmp_path: Path) -> None:
    run = written(tmp_path / "p" / "run", [{key: 1, "other/x": 2}, {key: 3}])
    assert {path.parent for path in tmp_path.rglob("*.csv")} == {run / "csv"}
    found = find_fallback(run, {})
    assert found is not None
    assert [record.data for record in found()] == [{key: 1, "other/x": 2}, {key: 3}]


def test_sources_never_share_a_file() -> None:
    sources = ["a b", "a_b", "a/b", "a\\b", "A_b", "a_b-1c291ca3", "metrics", "a.b", ".a_b", "a" * 101, "a" * 102]
    assert len({csv_rows.file_and_column(f"{source}/x") for source in sources}) == len(sources)


# While it is written, and after a crash


@pytest.mark.system
def test_it_is_whole_at_every_moment(own_host: Path, runs: Path) -> None:
    child, path, seen = start(LOOP, runs), runs / "p" / "run" / "csv" / "train.csv", 0
    while child.poll() is None:
        if path.exists():
            rows = [row for row in csv_rows.split_rows(path.read_bytes()) if csv_rows.is_whole(row)]
            found = list(csv.reader((row.decode() for row in rows), strict=True))
            assert {len(row) for row in found} == {len(found[0])}
            assert len(found) >= seen
            seen = len(found)
    child.communicate()
    assert child.returncode == 0
    assert [int(row[2]) for row in rows_of(path)[1:]] == list(range(12_000))


def test_a_file_that_was_widened_after_the_state_was_saved_goes_on(tmp_path: Path) -> None:
    async def work() -> None:
        sink: Any = CSV().open(context(tmp_path))
        await sink.write(batch((i, {"a": i, "t": "x\ny"}) for i in range(5)))
        state = json.loads(json.dumps(await sink.checkpoint()))
        later = [*((i, {"a": i}) for i in range(5, 8)), *((i, {"b": i, "new": 1}) for i in range(8, 12))]
        await sink.write(batch(later[:5]))
        await sink.close("stopped")  # killed: the state is that before
        again: Any = CSV().open(context(tmp_path, state))
        await again.write(batch(later[:1]))
        await again.write(batch(later[1:]))
        await again.close("finished")

    anyio.run(work)
    found = rows_of(tmp_path / "csv" / "metrics.csv")
    assert found[0] == ["_step", "_timestamp", "a", "t", "b", "new"]
    assert [int(row[0]) for row in found[1:]] == list(range(12))
    assert {len(row) for row in found} == {6}


@pytest.mark.parametrize("left", [1, 3, 10, 17, 22])
@pytest.mark.parametrize("zeros", [b"", b"\0" * 9])
def test_a_torn_row_is_completed(left: int, zeros: bytes, tmp_path: Path) -> None:
    async def work() -> None:
        sink: Any = CSV().open(context(tmp_path))
        await sink.write(batch([(0, {"a": 1.5}), (1, {"a": 2.5})]))
        state = await sink.checkpoint()
        await sink.write(batch([(10, {"a": 'q"\n"q', "b": 0.1})]))
        await sink.close("stopped")
        path = tmp_path / "csv" / "metrics.csv"
        path.write_bytes(path.read_bytes()[:-left] + zeros)
        again: Any = CSV().open(context(tmp_path, state))
        await again.write(batch([(10, {"a": 'q"\n"q', "b": 0.1}), (11, {"b": 1})]))
        await again.close("finished")

    anyio.run(work)
    assert [row[0] for row in rows_of(tmp_path / "csv" / "metrics.csv")[1:]] == ["0", "1", "10", "11"]


def test_a_batch_that_failed_half_way_is_there_once(tmp_path: Path) -> None:
    async def work() -> None:
        sink: Any = CSV().open(context(tmp_path))
        await sink.write(batch([(0, {"a/x": 0, "b/x": 0, "c/x": 0})]))
        for path in (tmp_path / "csv").iterdir():
            sink._tables[path.name].file.close()
        (tmp_path / "csv" / "c.csv").rename(tmp_path / "aside")
        (tmp_path / "csv" / "c.csv").mkdir()
        for _ in range(3):
            with pytest.raises(IsADirectoryError):
                await sink.write(batch([(1, {"a/x": 1, "b/x": 1, "c/x": 1})]))
        (tmp_path / "csv" / "c.csv").rmdir()
        (tmp_path / "aside").rename(tmp_path / "csv" / "c.csv")
        await sink.write(batch([(1, {"a/x": 1, "b/x": 1, "c/x": 1})]))
        await sink.close("finished")

    anyio.run(work)
    for source in "abc":
        assert [row[2] for row in rows_of(tmp_path / "csv" / f"{source}.csv")] == ["x", "0", "1"]


def test_many_sources_do_not_use_up_the_open_files(tmp_path: Path) -> None:
    def opened() -> int:
        links = [os.path.join("/proc/self/fd", fd) for fd in os.listdir("/proc/self/fd")]
        return sum(os.readlink(link).startswith(str(tmp_path)) for link in links if os.path.islink(link))

    async def work() -> None:
        sink: Any = CSV().open(context(tmp_path))
        for step in range(3):
            await sink.write(batch([(step, {f"source{number}/x": step for number in range(40)})]))
            assert opened() <= 16
        await sink.checkpoint()
        await sink.close("finished")

    anyio.run(work)
    assert len(os.listdir(tmp_path / "csv")) == 40
    assert [row[2] for row in rows_of(tmp_path / "csv" / "source39.csv")] == ["x", "0", "1", "2"]


@pytest.mark.system
def test_a_source_with_thousands_of_names_has_several_files(tmp_path: Path) -> None:
    rows = [{f"a/k{n}": n, "b/x": n} for n in range(2_500)] + [{"a/k0": 1, "a/k2499": 2}]
    run = written(tmp_path / "p" / "run", rows)
    assert sorted(os.listdir(run / "csv")) == ["a-00000002.csv", "a-00000003.csv", "a.csv", "b.csv"]
    assert sum(path.stat().st_size for path in (run / "csv").iterdir()) < 3_000_000  # 6 MB as one table
    assert len(rows_of(run / "csv" / "a.csv")[0]) == 1_000
    assert rows_of(run / "csv" / "a-00000002.csv")[0][:3] == ["_step", "_timestamp", "a/k998"]
    found = find_fallback(run, {})
    assert found is not None
    assert [record.data for record in found()] == rows


def test_names_find_their_files_again_after_a_crash(tmp_path: Path) -> None:
    rows = [(n, {f"k{n}": n}) for n in range(2_100)]

    async def work() -> None:
        sink: Any = CSV().open(context(tmp_path))
        await sink.write(batch(rows[:900]))
        state = json.loads(json.dumps(await sink.checkpoint()))
        await sink.write(batch(rows[900:2_000]))
        await sink.close("stopped")  # killed: the state is that before
        again: Any = CSV().open(context(tmp_path, state))
        for at in range(900, 2_100, 400):
            await again.write(batch(rows[at : at + 400]))
        await again.close("finished")

    anyio.run(work)
    found = find_fallback(tmp_path, {})
    assert found is not None
    assert [record.data for record in found()] == [data for _, data in rows]


def test_many_sources_cost_a_write_each_and_are_made_safe_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs: list[int] = []
    for name in ("fsync", "fdatasync"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda fd, real=real: (syncs.append(fd), real(fd)))

    async def work() -> None:
        sink: Any = CSV().open(context(tmp_path))
        for step in range(5):
            await sink.write(batch([(step, {f"source{number}/x": step for number in range(300)})]))
        assert syncs == []
        await sink.checkpoint()
        assert len(syncs) <= 2
        await sink.checkpoint()
        assert len(syncs) <= 2
        await sink.close("finished")

    anyio.run(work)
    assert len(rows_of(tmp_path / "csv" / "source299.csv")) == 6


def test_a_file_that_a_power_cut_has_emptied_before_it_was_safe_is_made_anew(tmp_path: Path) -> None:
    async def work() -> None:
        (tmp_path / "csv").mkdir()
        (tmp_path / "csv" / "a.csv").write_bytes(b"")
        (tmp_path / "csv" / "b.csv").write_bytes(bytes(100))
        sink: Any = CSV().open(context(tmp_path))
        await sink.write(batch([(0, {"a/x": 1, "b/x": 2})]))
        await sink.close("finished")

    anyio.run(work)
    assert [rows_of(tmp_path / "csv" / f"{name}.csv")[1][2] for name in "ab"] == ["1", "2"]


@pytest.mark.parametrize("harm", ["replaced", "emptied", "edited", "a longer header", "cut"])
def test_files_that_a_person_has_changed_are_left_alone(harm: str, tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "run") as run:
        for i in range(5):
            run.log({"a/x": i, "b/x": i}, i)
        run.journal()
        deliver(run.path, CSV())
        path = run.path / "csv" / "a.csv"
        content = path.read_bytes()
        path.write_bytes({
            "replaced": b"my notes\r\n", "emptied": b"", "edited": content + b"a note\r\n",
            "a longer header": b'"#",' + content, "cut": content[:-10],
        }[harm])  # fmt: skip
        harmed = path.read_bytes()
        run.log({"a/x": 5, "b/x": 5}, 5)
        run.end()
        deliver(run.path, CSV())
    assert path.read_bytes() == harmed
    for source in "ab":
        assert [row[2] for row in rows_of(run.path / "csv-2" / f"{source}.csv")[1:]] == ["0", "1", "2", "3", "4", "5"]


def test_a_folder_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    run = tmp_path / "p" / "run"
    (tmp_path / "elsewhere").mkdir()
    run.mkdir(parents=True)
    (run / "csv").symlink_to(tmp_path / "elsewhere")
    with JournaledRun(run) as journaled:
        journaled.log({"a": 1})
        journaled.end()
    with pytest.raises(TimeoutError):
        deliver(run, CSV(), timeout_s=0.3)
    assert os.listdir(tmp_path / "elsewhere") == []


@pytest.mark.parametrize("folder", ["..", "a/b", "", ".x"])
def test_a_folder_is_a_name_in_the_runs_directory(folder: str) -> None:
    with pytest.raises(InvalidRunId, match="folder"):
        CSV(folder=folder)
