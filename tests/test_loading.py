"""Loading: what is left of a run without its journal, one history after a resume, and curves as DRYTorch and Tianshou load them."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import run_child

import asynctrack
from asynctrack import CSV, JSONLines, Parquet, load_metrics, open_run
from asynctrack.backends.base import Backend
from asynctrack.errors import BackendUnavailable, InvalidSettings, NotARun
from asynctrack.testing import JournaledRun, deliver

Row = dict[str, Any]

pytestmark = pytest.mark.usefixtures("own_state", "reading")

ROWS: list[Row] = [
    {"train": {"loss": 0.5, "acc": math.nan}, "lr": 0.1},
    {"train/loss": -math.inf, "phase": "warm"},
    {"val/acc": 1, "ok": True, "phase": ""},
    {"train": {"loss": 0.25}, "val": {"acc": 3}},
]


def flat(row: Row) -> Row:
    return {
        f"{name}/{key}" if isinstance(value, dict) else name: inner
        for name, value in row.items()
        for key, inner in (value.items() if isinstance(value, dict) else [("", value)])
    }


def same(one: Any, other: Any) -> bool:
    """Whether they are equal, NaN and types too; the order of keys does not count."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return repr(one) == repr(other)


def sessions(path: Path, *of: Iterable[tuple[int, Row]], backends: Iterable[Backend] = ()) -> Path:
    """A run of several sessions, of these steps and records."""
    with JournaledRun(path) as run:
        for number, rows in enumerate(of):
            if number:
                run.start()
            for step, data in rows:
                run.log(data, step)
            run.end("crashed")
        for backend in backends:
            deliver(path, backend, name=type(backend).__name__.lower())
    return path


def losses(steps: Iterable[int], sign: int = 1, name: str = "train/loss") -> list[tuple[int, Row]]:
    return [(step, {name: sign * step / 2}) for step in steps]


# What is left of a run


@pytest.mark.system
@pytest.mark.parametrize("kind", ["jsonl", "parquet", "sql", "csv"])
@pytest.mark.parametrize("manifest", [True, False], ids=["run.json", "no run.json"])
def test_a_run_whose_journal_is_gone_is_read_from_its_files(
    kind: str, manifest: bool, own_host: Path, runs: Path
) -> None:
    if kind == "sql":
        pytest.importorskip("sqlalchemy", reason="it reads the database")
    with asynctrack.init("p", id="run", dir=runs, backends=[kind], config={"lr": 0.1}, worker="thread") as run:
        for step, row in enumerate(ROWS):
            run.log(row, step * 10)
    before = open_run(run.path)
    steps, times = zip(*((record.step, record.time_ns) for record in before.records()), strict=True)
    frame, arrays, metrics = before.to_polars(), before.arrays(), load_metrics(before)
    shutil.rmtree(run.path / "journal")
    if not manifest:
        (run.path / "run.json").unlink()
    left = open_run(run.path)
    found = list(left.records())
    assert same([record.data for record in found], [flat(row) for row in ROWS])
    assert tuple(record.step for record in found) == steps
    assert all(abs(record.time_ns - time) < 1000 for record, time in zip(found, times, strict=True))
    assert (left.id, left.status) == ("run", "finished" if manifest else "crashed")
    assert left.config == ({"lr": 0.1} if manifest else {})
    assert same(left.arrays()["train"], arrays["train"])
    assert {*left.to_polars().columns} == {*frame.columns}
    assert same(load_metrics(left), metrics)
    assert left.summarise("train/loss") == 0.25
    assert repr(left).endswith("4 records>")


def test_the_most_faithful_comes_first(tmp_path: Path) -> None:
    path = sessions(tmp_path / "p" / "run", [(0, {"list": [1, 2]})], backends=[CSV(), Parquet(), JSONLines()])
    shutil.rmtree(path / "journal")
    assert open_run(path).columns()["list"].values == [[1, 2]]
    (path / "metrics.jsonl").unlink()
    assert open_run(path).columns()["list"].values == ["[1,2]"]
    shutil.rmtree(path / "parquet")
    assert open_run(path).columns()["list"].values == ["[1,2]"]
    shutil.rmtree(path / "csv")
    with pytest.raises(NotARun):
        open_run(path)


def test_a_downsampled_file_comes_last_and_one_of_another_name_is_found(own_host: Path, runs: Path) -> None:
    backends = [JSONLines(file="thin.jsonl", downsample_interval_s=10.0), JSONLines(file="all.jsonl"), CSV()]
    with asynctrack.init("p", dir=runs, backends=backends, worker="thread") as run:
        for i in range(100):
            run.log({"i": i})
    shutil.rmtree(run.path / "journal")
    assert open_run(run.path).columns()["i"].values == list(range(100))
    (run.path / "all.jsonl").unlink()
    assert open_run(run.path).columns()["i"].values == list(range(100)), "from CSV"
    shutil.rmtree(run.path / "csv")
    assert 0 < len(open_run(run.path).columns()["i"]) < 100


def test_what_was_built_anew_beside_an_edited_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "p" / "run"
    with JournaledRun(path) as run:
        run.log({"a/i": 0}, 0)
        run.journal()
        for backend in (JSONLines(), CSV()):
            deliver(path, backend, name=type(backend).__name__)
        for file in (path / "metrics.jsonl", path / "csv" / "a.csv"):
            file.write_text("mine\n")
        run.log({"a/i": 1}, 1)
        run.end()
        for backend in (JSONLines(), CSV()):
            deliver(path, backend, name=type(backend).__name__)
    shutil.rmtree(path / "journal")
    assert open_run(path).columns()["a/i"].values == [0, 1]
    (path / "metrics-2.jsonl").unlink()
    (path / "metrics.jsonl").unlink()
    assert open_run(path).columns()["a/i"].values == [0, 1]


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_torn_and_strange_lines_are_left_out(kind: str, tmp_path: Path) -> None:
    backend = {"jsonl": JSONLines(), "csv": CSV()}[kind]
    path = sessions(tmp_path / "p" / "run", losses(range(3)), backends=[backend])
    shutil.rmtree(path / "journal")
    file = path / "metrics.jsonl" if kind == "jsonl" else path / "csv" / "train.csv"
    with open(file, "ab") as out:
        out.write(b'my note\n\n{"a": 1}\n7,')
    assert open_run(path).columns()["train/loss"].steps == [0, 1, 2]


def test_a_database_that_another_names_is_not_asked(tmp_path: Path) -> None:
    path = sessions(tmp_path / "p" / "run", losses(range(3)), backends=[CSV()])
    shutil.rmtree(path / "journal")
    settings = {"kind": "sql", "url": "postgresql://user@127.0.0.1:1/stolen"}
    manifest = {"id": "run", "name": "run", "project": "p", "created_at": "", "backends": {"sql": settings}}
    (path / "run.json").write_text(json.dumps(manifest))
    assert open_run(path).columns()["train/loss"].steps == [0, 1, 2]


def test_what_needs_a_library_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = sessions(tmp_path / "p" / "run", losses(range(3)), backends=[Parquet(), CSV()])
    shutil.rmtree(path / "journal")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "asynctrack.backends.files.parquet_table")
    monkeypatch.delattr("asynctrack.backends.files.parquet_table")
    assert open_run(path).columns()["train/loss"].steps == [0, 1, 2], "from CSV"
    shutil.rmtree(path / "csv")
    with pytest.raises(BackendUnavailable, match=r"asynctrack\[parquet\]"):
        open_run(path)


def test_an_empty_folder_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "metrics.db").write_bytes(b"")  # that of the other runs of its project
    (tmp_path / "empty").mkdir()
    for path in (tmp_path, tmp_path / "none", tmp_path / "empty"):
        with pytest.raises(NotARun):
            open_run(path)


# One history


def test_after_a_resume_there_is_one_history_of_each_key(tmp_path: Path) -> None:
    path = sessions(
        tmp_path / "p" / "run",
        [*losses(range(10)), *losses(range(3), name="val/epoch_loss"), (9, {"note": "crashed"})],
        [*losses(range(6, 12), -1), *losses([2], -1, "val/epoch_loss")],
        [*losses(range(11, 13), 3)],
    )
    run = open_run(path)
    column = run.columns()["train/loss"]
    assert column.steps == list(range(13))
    assert column.values == [*(s / 2 for s in range(6)), *(-s / 2 for s in range(6, 11)), 16.5, 18.0]
    assert run.columns()["val/epoch_loss"].values == [0, 0.5, -1]
    assert run.columns()["note"].values == ["crashed"], "what was not logged again stays"
    assert run.columns("all")["train/loss"].steps == [*range(10), *range(6, 12), 11, 12]
    assert len(list(run.records())) == len(list(run.records("all"))) == 23
    assert run.to_polars()["train/loss"].drop_nulls().len() == 13
    assert run.arrays()["train"]["loss"].steps.tolist() == list(range(13))
    assert run.summarise("train/loss", "min") == -5.0


def test_another_history_is_told_at_once(tmp_path: Path) -> None:
    run = open_run(sessions(tmp_path / "p" / "run", losses(range(3))))
    with pytest.raises(InvalidSettings, match="'all' or 'last'; got 'first'"):
        run.columns("first")  # type: ignore[arg-type]  # on purpose


def test_a_record_that_is_superseded_in_part_keeps_the_rest(tmp_path: Path) -> None:
    path = sessions(tmp_path / "p" / "run", [(5, {"a": {"x": 1, "y": 2}}), (6, {})], [(5, {"a": {"x": 3}})])
    assert [record.data for record in open_run(path).records("last")] == [{"a/y": 2}, {}, {"a": {"x": 3}}]


def test_within_a_session_all_values_count(tmp_path: Path) -> None:
    path = sessions(tmp_path / "p" / "run", losses([5, 3, 3, 9, 0]), losses([10, 10]))
    assert open_run(path).columns()["train/loss"].steps == [5, 3, 3, 9, 0, 10, 10]


@pytest.mark.system
def test_a_real_run_that_is_killed_and_resumed_has_one_history(own_host: Path, runs: Path) -> None:
    script = """
import asynctrack, os, signal, sys
run = asynctrack.init("p", id="run", dir=sys.argv[1], resume="allow")
start = (run.last_checkpoint() or {"step": 0})["step"]
for step in range(start, start + 10):
    if step == start + 6:
        run.checkpoint(step=step)
    run.log({"train/loss": step, "session": start}, step=step)
print(start, flush=True)
if start < 12:
    run.flush("journaled")
    os.kill(os.getpid(), signal.SIGKILL)
run.finish()
"""
    for _ in range(2):
        with pytest.raises(AssertionError, match="exit status -9"):
            run_child(script, runs)
    assert run_child(script, runs) == 12
    run = open_run(runs / "p" / "run")
    assert run.columns()["train/loss"].values == list(range(22))
    assert run.columns()["session"].values == [0] * 6 + [6] * 6 + [12] * 10
    assert run.columns("all")["train/loss"].values == [*range(10), *range(6, 16), *range(12, 22)]


# As DRYTorch loads


def test_metrics_by_source(tmp_path: Path) -> None:
    rows = [
        (1, {"train": {"loss": 0.5, "acc": 1}, "lr": 0.1, "name": "x"}),
        (2, {"train/loss": 0.25}),
        (2, {"train/acc": 2}),
    ]
    path = sessions(tmp_path / "p" / "run", [*rows, (3, {"train/loss": 0.125, "val/by/class": True})])
    found = load_metrics(path)
    assert same(
        found,
        {
            "train": ([1, 2, 3], {"loss": [0.5, 0.25, 0.125], "acc": [1.0, 2.0, math.nan]}),
            "": ([1], {"lr": [0.1]}),
            "val": ([3], {"by/class": [1.0]}),
        },
    )
    assert load_metrics(str(path), 2)["train"] == ([1, 2], {"loss": [0.5, 0.25], "acc": [1.0, 2.0]})
    assert load_metrics(open_run(path), max_step=0) == {}
    with pytest.raises(ValueError, match="max_step"):
        load_metrics(path, -2)


def test_metrics_of_a_model(tmp_path: Path) -> None:
    path = sessions(tmp_path / "p" / "run", [(1, {"net/train/loss": 1, "net2/train/loss": 2, "net": 3})])
    assert load_metrics(path, within="net") == {"train": ([1], {"loss": [1.0]})}


def test_only_the_last_rising_steps_are_given(tmp_path: Path) -> None:
    path = sessions(
        tmp_path / "p" / "run", [*losses([1, 2, 3, 4, 5]), *losses([1, 2], name="val/loss")], losses([4, 5, 6], -1)
    )
    assert load_metrics(path) == {
        "train": ([4, 5, 6], {"loss": [-2.0, -2.5, -3.0]}),
        "val": ([1, 2], {"loss": [0.5, 1.0]}),
    }
    assert load_metrics(path, 5)["train"] == ([4, 5], {"loss": [-2.0, -2.5]})
    back = sessions(tmp_path / "p" / "back", losses([5, 6, 1, 2]))
    assert load_metrics(back)["train"] == ([1, 2], {"loss": [0.5, 1.0]})
    again = sessions(tmp_path / "p" / "again", losses([1, 2, 3]), losses([3, 4], -1))
    assert load_metrics(again)["train"] == ([3, 4], {"loss": [-1.5, -2.0]})


# As Tianshou loads


def test_arrays_are_nested_and_have_their_steps(tmp_path: Path) -> None:
    rows = [
        (10 * i, {"train": {"returns": {"mean": i / 2}, "lens": np.arange(3) + i}, "n": i, "ok": i > 1, "s": "x" * i})
        for i in range(4)
    ]
    path = sessions(
        tmp_path / "p" / "run", rows, [(100, {"mixed": 1}), (101, {"mixed": "two"}), (102, {"mixed": None})]
    )
    found = open_run(path).arrays()
    assert [*found] == ["train", "n", "ok", "s", "mixed"]
    mean = found["train"]["returns"]["mean"]
    assert (mean.steps.tolist(), mean.values.tolist()) == ([0, 10, 20, 30], [0.0, 0.5, 1.0, 1.5])
    assert found["train"]["lens"].values.tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5]]
    assert {key: found[key].values.dtype.kind for key in ("n", "ok", "s", "mixed")} == {
        "n": "i", "ok": "b", "s": "U", "mixed": "O",
    }  # fmt: skip


def test_arrays_leave_nothing_out(tmp_path: Path) -> None:
    path = sessions(tmp_path / "p" / "run", ((i, {"x": i}) for i in range(30_000)))
    found = open_run(path).arrays()["x"]
    assert np.array_equal(found.values, np.arange(30_000))
    assert np.array_equal(found.steps, found.values)


def test_a_name_that_begins_another_has_its_curve_below(tmp_path: Path) -> None:
    for number, order in enumerate([["a", "a/b", "a/b/c"], ["a/b/c", "a/b", "a"]]):
        path = sessions(tmp_path / "p" / str(number), [(1, {key: len(key)}) for key in order])
        found = open_run(path).arrays()
        values = [found["a"][""], found["a"]["b"][""], found["a"]["b"]["c"]]
        assert [curve.values.tolist() for curve in values] == [[1], [3], [5]]
