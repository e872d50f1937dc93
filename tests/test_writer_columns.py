"""The column `_writer`: frames and files say who has logged a record, where a run has several writers, and are what they were where it has one."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from reading_versions import read_in_python

import asynctrack
from asynctrack._system.native import is_native
from asynctrack.backends.base import Backend
from asynctrack.cli import main
from asynctrack.testing import JournaledRun, deliver

Row = tuple[int, str | None, dict[str, Any]]


@pytest.fixture(params=["native", "python"] if is_native else ["python"])
def reads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "python":
        read_in_python(monkeypatch)


def several(path: Path) -> tuple[JournaledRun, list[Row]]:
    """A run that others join after its first records, and the rows that it has."""
    run = JournaledRun(path, environment={"host": "node", "pid": 1})
    rows: list[Row] = []

    def log(writer: JournaledRun, label: str | None, step: int, data: dict[str, Any]) -> None:
        writer.log(data, step, time_ns=10**9 * len(rows))
        writer.journal()
        rows.append((step, label, data))

    log(run, None, 0, {"train/loss": 0.5, "lr": 0.1})
    one, two = run.join("rank1", 1), run.join("rank2", 2)
    for step in range(1, 4):
        log(run, "node:1", step, {"train/loss": 0.5 + step})
        log(one, "rank1", step, {"train/loss": 10.5 + step, "note": "a,b"})
        log(two, "rank2", step, {"train/loss": 20.5 + step, "_writer": "mine"})
    run.end()
    run.close()
    return run, rows


def shown(rows: list[Row]) -> list[Row]:
    """The rows with a user's key of the same name as a table has it."""
    return [
        (step, label, {("__writer" if key == "_writer" else key): value for key, value in data.items()})
        for step, label, data in rows
    ]


def of_table(names: list[str], rows: list[dict[str, Any]]) -> list[Row]:
    assert names[:3] == ["_step", "_timestamp", "_writer"]
    return [
        (row["_step"], row["_writer"] or None, {key: row[key] for key in names[3:] if row[key] not in (None, "")})
        for row in rows
    ]


def test_records_have_the_label(tmp_path: Path, reads: None) -> None:
    run, rows = several(tmp_path / "p" / "r")
    found = [(record.step, record.writer, record.data) for record in asynctrack.open_run(run.path).records()]
    assert found == rows


def test_polars_has_the_column(tmp_path: Path, reads: None) -> None:
    run, rows = several(tmp_path / "p" / "r")
    frame = asynctrack.open_run(run.path).to_polars()
    assert of_table(frame.columns, frame.to_dicts()) == shown(rows)


def test_arrow_has_the_column(tmp_path: Path, reads: None) -> None:
    run, rows = several(tmp_path / "p" / "r")
    table = asynctrack.open_run(run.path).to_arrow()
    assert of_table(table.column_names, table.to_pylist()) == shown(rows)


def test_pandas_has_the_column(tmp_path: Path, reads: None) -> None:
    run, rows = several(tmp_path / "p" / "r")
    frame = asynctrack.open_run(run.path).to_pandas()
    assert list(frame.columns) == ["_step", "_timestamp", "_writer", "train/loss", "lr", "note", "__writer"]
    assert [label if isinstance(label, str) else None for label in frame["_writer"]] == [label for _, label, _ in rows]
    assert list(frame["train/loss"]) == [data["train/loss"] for _, _, data in rows]
    assert list(frame.groupby("_writer")["train/loss"].count()) == [3, 3, 3]


def test_labels_stay_with_their_rows_where_a_resumed_run_cuts_some(tmp_path: Path, reads: None) -> None:
    run = JournaledRun(tmp_path / "p" / "r", environment={"writer": "rank0"})
    other = run.join("rank1", 1)
    for step in range(4):
        for writer in (run, other):
            writer.log({"a": step}, step)
            writer.journal()
    run.start()
    run.log({"a": 100}, 2)
    run.end()
    run.close()
    frame = asynctrack.open_run(run.path).to_polars()
    found = [(row["_writer"], row["a"]) for row in frame.to_dicts() if row["a"] is not None]
    assert found == [("rank0", 0), ("rank1", 0), ("rank0", 1), ("rank1", 1), ("rank0", 100)]


@pytest.mark.parametrize("library", ["polars", "arrow", "pandas"])
def test_frames_of_a_run_of_one_writer_are_what_they_were(tmp_path: Path, reads: None, library: str) -> None:
    with JournaledRun(tmp_path / "p" / "r") as run:
        run.log({"loss": 1.0, "_writer": "mine"})
        run.end()
        frame = getattr(asynctrack.open_run(run.path), f"to_{library}")()
        names = frame.column_names if library == "arrow" else list(frame.columns)
        assert names == ["_step", "_timestamp", "loss", "_writer"]


def csv_rows(run: Path) -> list[Row]:
    with open(run / "csv" / "train.csv", newline="") as file:
        reader = csv.DictReader(file)
        return [(int(row["_step"]), row["_writer"] or None, {"train/loss": float(row["loss"])}) for row in reader]


def json_rows(run: Path) -> list[Row]:
    columns = json.loads((run / "metrics.json").read_text())
    labels = columns.pop("_writer")
    steps, _ = columns.pop("_step"), columns.pop("_timestamp")
    return [
        (step, label, {key: its[at] for key, its in columns.items() if its[at] is not None})
        for at, (step, label) in enumerate(zip(steps, labels, strict=True))
    ]


def parquet_rows(run: Path) -> list[Row]:
    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(run / "parquet" / "metrics.parquet").to_pylist()
    return [
        (
            row["_step"],
            row["_writer"],
            {
                key: value
                for key, value in row.items()
                if value is not None and key not in ("_step", "_timestamp", "_number", "_writer")
            },
        )
        for row in rows
    ]


def json_lines(content: str) -> list[Row]:
    found = []
    for line in map(json.loads, content.splitlines()):
        assert "_writer" not in line or list(line)[-1] == "_writer"
        step, label = line.pop("_step"), line.pop("_writer", None)
        line.pop("_timestamp")
        found.append((step, label, line))
    return found


@pytest.mark.parametrize("settings", [{}, {"not_finite": "null"}, {"downsample_interval_s": 1000.0}], ids=str)
def test_json_lines_have_it_at_their_end(tmp_path: Path, reads: None, settings: Any) -> None:
    run, rows = several(tmp_path / "p" / "r")
    deliver(run.path, asynctrack.JSONLines(**settings), name="jsonl")
    found = json_lines((run.path / "metrics.jsonl").read_text())
    if "downsample_interval_s" in settings:
        assert {label for _, label, _ in found} >= {"rank1", "rank2"}
    else:
        assert found == shown(rows)


def test_lines_that_the_core_makes_are_those_of_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = JournaledRun(tmp_path / "p" / "r", environment={"writer": "rank0"})
    for step in range(50):
        run.log({"a": step / 7, "t": 'x"}\n{"y', "n": None if step % 3 else [1, {"b": step}], "e\n": True}, step)
        run.log({}, step)
        if step % 20 == 7:
            run.log({"__writer": step}, step)
            run.journal()
    run.end()
    run.close()
    deliver(run.path, asynctrack.JSONLines(), name="one")
    with monkeypatch.context() as patch:
        read_in_python(patch)
        deliver(run.path, asynctrack.JSONLines(file="two.jsonl"), name="two")
    lines = (run.path / "metrics.jsonl").read_bytes()
    assert lines == (run.path / "two.jsonl").read_bytes()
    assert lines.count(b"\n") == 103 == lines.count(b',"_writer":"rank0"}\n')


@pytest.mark.parametrize("keys", [None, "train/*"])
def test_exports_have_it(tmp_path: Path, reads: None, keys: str | None) -> None:
    run, rows = several(tmp_path / "p" / "r")
    chosen = [] if keys is None else ["--keys", keys]
    text = run_cli("export", str(run.path), *chosen, "--format", "jsonl")
    wanted = shown(rows)
    if keys is not None:
        wanted = [(step, label, {"train/loss": data["train/loss"]}) for step, label, data in wanted]
    assert json_lines(text) == wanted
    table = list(csv.DictReader(run_cli("export", str(run.path), *chosen, "--format", "csv").splitlines()))
    assert list(table[0])[:3] == ["_step", "_timestamp", "_writer"]
    assert [(int(row["_step"]), row["_writer"] or None, float(row["train/loss"])) for row in table] == [
        (step, label, data["train/loss"]) for step, label, data in wanted
    ]


def run_cli(*arguments: str) -> str:
    out = io.TextIOWrapper(io.BytesIO())
    with contextlib.redirect_stdout(out):
        assert main(list(arguments)) == 0
    out.flush()
    return out.buffer.getvalue().decode()  # type: ignore[attr-defined]  # of the type above


@pytest.mark.parametrize("cut", [1, 4, 100])
def test_csv_has_the_column(tmp_path: Path, cut: int) -> None:
    run, rows = several(tmp_path / "p" / "r")
    deliver(run.path, in_batches(asynctrack.CSV, cut)(), name="csv")
    assert csv_rows(run.path) == [(step, label, {"train/loss": data["train/loss"]}) for step, label, data in rows]


def test_csv_of_a_run_that_was_opened_for_several_has_it_beside_the_time(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "r", environment={"writer": "rank0"}) as run:
        run.log({"train/loss": 1.0}, 0, time_ns=0)
        run.end()
        deliver(run.path, asynctrack.CSV(), name="csv")
        assert (
            run.path / "csv" / "train.csv"
        ).read_text() == '"_step","_timestamp","_writer","loss"\n0,0.0,"rank0",1.0\n'


def test_aligned_json_has_the_column(tmp_path: Path) -> None:
    run, rows = several(tmp_path / "p" / "r")
    deliver(run.path, asynctrack.JSON(aligned=True), name="json")
    assert json_rows(run.path) == shown(rows)


def test_parquet_has_the_column(tmp_path: Path) -> None:
    run, rows = several(tmp_path / "p" / "r")
    deliver(run.path, asynctrack.Parquet(part_rows=3, part_age_s=0), name="parquet")
    assert parquet_rows(run.path) == shown(rows)


@pytest.mark.parametrize("selection", ["owner", "prefix", "mean"])
@pytest.mark.parametrize("backend", [asynctrack.CSV, asynctrack.Parquet, asynctrack.JSONLines])
def test_only_all_records_have_labels(tmp_path: Path, backend: type[Backend], selection: Any) -> None:
    run = JournaledRun(tmp_path / "p" / "r", environment={"writer": "rank0", "rank": 0, "expected": 1})
    run.log({"loss": 1})
    run.end()
    run.close()
    deliver(run.path, backend(writers=selection), name="b")
    files = [*(run.path).glob("csv/*.csv"), *(run.path).glob("parquet/*.parquet"), *(run.path).glob("*.jsonl")]
    assert files and not any(b"_writer" in file.read_bytes() for file in files)


@pytest.mark.parametrize(
    "backend",
    [asynctrack.CSV(), asynctrack.Parquet(part_rows=3, part_age_s=0), asynctrack.JSONLines(), asynctrack.SQL()],
    ids=["csv", "parquet", "jsonl", "sql"],
)
def test_without_the_journal_the_files_say_it(tmp_path: Path, backend: Backend) -> None:
    run, rows = several(tmp_path / "p" / "r")
    deliver(run.path, backend, name="b")
    shutil.rmtree(run.path / "journal")
    found = [(r.step, r.writer, r.data) for r in asynctrack.open_run(run.path).records()]
    if isinstance(backend, asynctrack.SQL):  # the label is the queue's, and so of all its records
        rows[0] = (0, "node:1", rows[0][2])
    assert len(found) == len(rows) and all(row in rows for row in found)


def in_batches(backend: type[Backend], size: int) -> Callable[[], Backend]:
    """A class with batches of so many records."""
    made: Any = type(
        f"{backend.__name__}{size}",
        (backend,),
        {"batch_records": size, "__module__": __name__},
        frozen=True,
        kw_only=True,
        tag=f"b{size}",
    )
    return made
