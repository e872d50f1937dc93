"""`export` of several runs to one file, and of runs that were resumed: `show`, `export` and data frames agree."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from cli_support import said_here
from reading_versions import both
from support import run_child
from test_scan import alike

import asynctrack
from asynctrack.cli import exporting
from asynctrack.reading.history import History
from asynctrack.testing import JournaledRun

# Runs a command, and prints the most memory that it took.
MEMORY = """
import sys, resource, asynctrack.cli as cli
assert cli.main(sys.argv[1:]) == 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.fixture
def some(tmp_path: Path) -> Path:
    """Runs with other columns each; one has keys like our own, and one has several writers."""
    with JournaledRun(tmp_path / "p" / "a") as run:
        for step in range(3):
            run.log({"loss": step, "val": {"acc": 0.5}}, step, time_ns=10**18)
        run.end()
    with JournaledRun(tmp_path / "p" / "b") as run:
        run.log(
            {"run": "mine", "_run": 1, "_writer": "me", "_step": 7, "loss": 0.5, "list": [1, None]}, 5, time_ns=10**18
        )
        run.log({"flag": True, "text": "=1+1", "loss": float("nan")}, 6, time_ns=10**18)
        run.end()
    with JournaledRun(tmp_path / "q" / "c") as run:
        other = run.join("rank1")
        run.log({"loss": 2**40}, 0, time_ns=10**18)
        run.journal()
        other.log({"loss": 3, "only": "here"}, 1, time_ns=10**18)
        other.journal()
        run.end()
    return tmp_path


def export(folder: Path, format: str, *arguments: object, runs: tuple[str, ...] = ("a", "b", "c")) -> str:
    done = said_here("export", *runs, "--dir", folder, "--format", format, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_lines_of_several_runs_begin_with_the_run(some: Path) -> None:
    lines = [json.loads(line) for line in export(some, "jsonl").splitlines()]
    assert [line["run"] for line in lines] == ["p/a"] * 3 + ["p/b"] * 2 + ["q/c"] * 2
    assert lines[0] == {"run": "p/a", "_step": 0, "_timestamp": 1e9, "loss": 0, "val/acc": 0.5}
    assert next(iter(lines[0])) == "run"
    assert lines[3] == {
        "run": "p/b", "_step": 5, "_timestamp": 1e9, "_run": "mine", "__run": 1, "__writer": "me", "__step": 7, "loss": 0.5, "list": [1, None],
    }  # fmt: skip
    assert lines[-1] == {"run": "q/c", "_step": 1, "_timestamp": 1e9, "loss": 3, "only": "here", "_writer": "rank1"}
    chosen = [json.loads(line) for line in export(some, "jsonl", "--keys", "_run,only").splitlines()]
    assert [list(line)[3:] for line in chosen] == [["__run"], ["only", "_writer"]]


def test_columns_of_several_runs_are_united(some: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(export(some, "csv"))))
    assert list(rows[0]) == [
        "run", "_step", "_timestamp", "_writer", "loss", "val/acc", "_run", "__run", "__writer", "__step", "list", "flag", "text", "only",
    ]  # fmt: skip
    assert [row["run"] for row in rows] == ["p/a"] * 3 + ["p/b"] * 2 + ["q/c"] * 2
    assert [row["loss"] for row in rows] == ["0", "1", "2", "0.5", "NaN", str(2**40), "3"]
    assert [row["_writer"] != "" for row in rows] == [False] * 5 + [True] * 2
    assert {row["only"] for row in rows[:-1]} == {""}


def test_export_of_several_runs_is_the_same_without_the_core(some: Path) -> None:
    for format in ("jsonl", "csv"):
        native, plain = both(lambda: export(some, format))  # noqa: B023
        assert native == plain


def test_one_run_has_no_column_for_it(some: Path) -> None:
    assert export(some, "csv", runs=("p/a",)).splitlines()[0] == "_step,_timestamp,loss,val/acc"
    assert (
        export(some, "csv", runs=("p/b",)).splitlines()[0].startswith("_step,_timestamp,run,_run,_writer,__step,loss")
    )


def test_run_that_is_given_twice_is_exported_once(some: Path) -> None:
    assert len(export(some, "jsonl", runs=("p/a", "a", str(some / "p" / "a"))).splitlines()) == 3


def test_runs_that_share_project_and_id_are_told_apart_by_their_paths(
    some: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(some)
    (some / "copy").mkdir()
    (some / "p").rename(some / "copy" / "p")
    with JournaledRun(some / "p" / "a") as run:
        run.log({"loss": 9})
        run.end()
    lines = export(some, "jsonl", runs=("p/a", "copy/p/a", "copy/p/b")).splitlines()
    assert list(dict.fromkeys(json.loads(line)["run"] for line in lines)) == ["p/a", "copy/p/a", "p/b"]


@pytest.mark.parametrize("keys", [(), ("--keys", "*")])
def test_parquet_has_a_type_for_each_column(
    some: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: tuple[str, ...]
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(exporting, "_GROUP_ROWS", 2)
    file = tmp_path / "runs.parquet"
    export(some, "parquet", "--output", file, *keys)
    table = parquet.read_table(file)
    assert {name: str(of) for name, of in zip(table.column_names, table.schema.types, strict=True)} == {
        "run": "string", "_step": "int64", "_timestamp": "double", "_writer": "string", "loss": "double", "val/acc": "double", "_run": "string",
        "__run": "int64", "__writer": "string", "__step": "int64", "list": "string", "flag": "bool", "text": "string", "only": "string",
    }  # fmt: skip
    columns = table.to_pydict()
    assert columns["run"] == ["p/a"] * 3 + ["p/b"] * 2 + ["q/c"] * 2
    assert alike(columns["loss"], [0.0, 1.0, 2.0, 0.5, float("nan"), float(2**40), 3.0])
    assert columns["list"][3] == "[1,null]" and columns["flag"] == [None] * 4 + [True] + [None] * 2
    assert parquet.ParquetFile(file).num_row_groups > 1


def test_parquet_of_one_run_is_the_table_of_arrow(some: Path, tmp_path: Path, reading: str) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "run.parquet"
    export(some, "parquet", "--output", file, runs=("p/a",))
    assert parquet.read_table(file).equals(asynctrack.open_run(some / "p" / "a").to_arrow())


def test_what_cannot_be_exported_is_said(some: Path, tmp_path: Path) -> None:
    for arguments, said in (
        (["a", "--where", "loss > 1", "--format", "csv"], "takes either RUN, once or several times, or --where"),
        (["--format", "csv"], "takes either RUN"),
        (["a", "--format", "parquet"], "--format parquet needs --output"),
        (["a", "b", "--format", "csv", "--writer", "nobody"], "none of the runs has a writer 'nobody'"),
        (["a", "nope", "--format", "csv"], "'nope' is neither"),
    ):
        done = said_here("export", "--dir", some, *arguments)
        assert (done.returncode, done.stdout) == (2, "") and said in done.stderr


def test_parquet_says_what_it_lacks(some: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from asynctrack.cli.commands import export as command

    monkeypatch.setattr(command, "find_spec", lambda name: None)
    done = said_here("export", "a", "--dir", some, "--format", "parquet", "--output", tmp_path / "a")
    assert done.returncode == 1 and "pip install 'asynctrack[parquet]'" in done.stderr


def test_only_runs_of_a_writer_are_exported(some: Path) -> None:
    lines = [json.loads(line) for line in export(some, "jsonl", "--writer", "rank1").splitlines()]
    assert [(line["run"], line["_writer"]) for line in lines] == [("q/c", "rank1")]


def test_damage_names_its_run(some: Path) -> None:
    (segment,) = (some / "p" / "a" / "journal").iterdir()
    content = bytearray(segment.read_bytes())
    content[-200] ^= 1
    segment.write_bytes(content)
    done = said_here("export", "a", "b", "--dir", some, "--format", "csv")
    assert done.returncode == 1 and "asynctrack: left out: p/a: " in done.stderr


@pytest.mark.system
def test_memory_does_not_grow_with_the_runs(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    most = {}
    for count in (2, 20):
        for number in range(count):
            with JournaledRun(tmp_path / f"{count}" / "p" / f"{number}") as run:
                for step in range(20_000):
                    run.log({"a": step / 7, "b": step / 3, "c": step / 11}, step)
                run.end()
        runs = [str(tmp_path / f"{count}" / "p" / f"{number}") for number in range(count)]
        for format in ("csv", "parquet"):
            output = str(tmp_path / f"{count}.{format}")
            most[format, count] = run_child(MEMORY, "export", *runs, "--format", format, "--output", output)
    for format in ("csv", "parquet"):
        assert most[format, 20] < most[format, 2] * 1.3, most


# Runs that were resumed


@pytest.fixture
def resumed(own_host: Path, tmp_path: Path) -> Path:
    """A run that was resumed twice, each time behind its last checkpoint."""
    path = None
    for begin, end in ((0, 10), (6, 15), (12, 20)):
        with asynctrack.init("p", id="night", dir=tmp_path / "runs", resume="allow", backends=["jsonl"]) as run:
            for step in range(begin, end):
                run.log({"loss": float(step), "begin": begin} | ({"first": 1} if begin == 0 else {}), step=step)
        path = run.path
    assert path is not None
    return path


def test_show_export_and_pandas_agree_on_a_resumed_run(resumed: Path, reading: str) -> None:
    pytest.importorskip("pandas")
    reader = asynctrack.open_run(resumed)
    cases: tuple[tuple[History, int, dict[str, int]], ...] = (
        ("last", 20, {"loss": 20, "begin": 20, "first": 10}),
        ("all", 27, {"loss": 27, "begin": 27, "first": 10}),
    )
    for history, rows, values in cases:
        frame = reader.to_pandas(history)
        lines = [
            json.loads(line)
            for line in said_here("export", resumed, "--format", "jsonl", "--history", history).stdout.splitlines()
        ]
        table = list(
            csv.DictReader(io.StringIO(said_here("export", resumed, "--format", "csv", "--history", history).stdout))
        )
        shown = json.loads(said_here("show", resumed, "--json", "--history", history).stdout)
        assert len(frame) == len(lines) == len(table) == rows + (4 if history == "last" else 0)
        assert frame["_step"].tolist() == [line["_step"] for line in lines] == [int(row["_step"]) for row in table]
        assert (
            {key: of["count"] for key, of in shown["metrics"].items()}
            == values
            == {key: int(frame[key].count()) for key in values}
        )


def test_what_is_left_out_is_said(resumed: Path, tmp_path: Path) -> None:
    told = "3 repeated rows and 8 repeated values of others left out (--history all {} them)"
    assert told.format("shows") in said_here("show", resumed).stdout
    done = said_here("export", resumed, "--format", "csv", "--output", tmp_path / "a.csv", "--json")
    assert done.stderr == f"asynctrack: {told.format('exports')}\n"
    assert json.loads(done.stdout)["left_out"] == {"rows": 3, "values": 8}
    assert said_here("export", resumed, "--format", "csv", "--history", "all").stderr == ""
    assert "left out" not in said_here("show", resumed, "--history", "all").stdout


def test_metrics_jsonl_has_all_of_a_resumed_run(resumed: Path) -> None:
    exported = said_here("export", resumed, "--format", "jsonl", "--history", "all").stdout
    assert (resumed / "metrics.jsonl").read_text() == exported


def test_repeats_of_a_writer_are_those_of_the_run(tmp_path: Path, reading: str) -> None:
    with JournaledRun(tmp_path / "p" / "run") as run:
        other = run.join("rank1")
        for step in range(4):
            run.log({"loss": step}, step)
            other.log({"loss": 10 * step, "mine": 1}, step)
            other.journal()
        run.start()
        run.log({"loss": 100}, 2)
        run.end()
    text = said_here("export", run.path, "--format", "jsonl", "--writer", "rank1").stdout
    assert [(line["_step"], line.get("loss")) for line in map(json.loads, text.splitlines())] == [
        (0, 0),
        (1, 10),
        (2, None),
        (3, None),
    ]
    shown = json.loads(said_here("show", run.path, "--writer", "rank1", "--json").stdout)
    assert {key: of["count"] for key, of in shown["metrics"].items()} == {"loss": 2, "mine": 4}


# Cells that a spreadsheet takes for formulas


def test_cells_that_begin_like_formulas_are_said_once(some: Path, tmp_path: Path) -> None:
    done = said_here("export", "p/b", "--dir", some, "--format", "csv", "--output", tmp_path / "b.csv")
    assert done.stderr.count("\n") == 1 and "1 cell begins as a formula" in done.stderr and "'text'" in done.stderr
    assert "=1+1" in (tmp_path / "b.csv").read_text()
    done = said_here(
        "export", "p/b", "--dir", some, "--format", "csv", "--output", tmp_path / "c.csv", "--for-spreadsheets"
    )
    assert done.stderr == "" and "'=1+1" in (tmp_path / "c.csv").read_text()
    assert said_here("export", "p/a", "--dir", some, "--format", "csv", "--output", tmp_path / "a.csv").stderr == ""


# A condition in place of names


def test_runs_that_meet_a_condition_are_exported(some: Path, tmp_path: Path) -> None:
    for condition, found in (
        ("max(loss) > 1", ["q/c", "p/a"]),
        ("project == 'p'", ["p/b", "p/a"]),
        ("id == 'c'", ["q/c"]),
    ):
        done = said_here("export", "--where", condition, "--dir", some, "--format", "jsonl")
        assert done.returncode == 0, done.stderr
        assert list(dict.fromkeys(json.loads(line)["run"] for line in done.stdout.splitlines())) == found
    said = said_here(
        "export",
        "--where",
        "project == 'q'",
        "--dir",
        some,
        "--format",
        "csv",
        "--output",
        tmp_path / "q.csv",
        "--json",
    )
    assert json.loads(said.stdout)["runs"] == [str(some / "q" / "c")]


def test_condition_that_no_run_meets_writes_nothing(some: Path, tmp_path: Path) -> None:
    done = said_here(
        "export", "--where", "loss > 1e30", "--dir", some, "--format", "csv", "--output", tmp_path / "none.csv"
    )
    assert (done.returncode, done.stdout) == (1, "") and "no run in" in done.stderr
    assert not (tmp_path / "none.csv").exists()
    done = said_here("export", "--where", "lsos < 1", "--dir", some, "--format", "csv")
    assert done.returncode == 1 and "did you mean `loss`" in done.stderr
    done = said_here("export", "--where", "loss >", "--dir", some, "--format", "csv")
    assert done.returncode == 2 and "at character" in done.stderr
    assert said_here("export", "--where", "loss > 1", "--dir", some / "nowhere", "--format", "csv").returncode == 2


def test_keys_that_nothing_has_are_said(some: Path) -> None:
    for words in (["export", "a", "--format", "csv"], ["show", "a"], ["show", "a", "--json"], ["compare", "a", "b"], ["compare", "a", "b", "--json"]):  # fmt: skip
        for keys, said in {"los,loss": "'los'; did you mean `loss`?\n", "x*": "'x*'\n", "l*,val/acc": ""}.items():
            done = said_here(*words, "--dir", some, "--keys", keys)
            assert (done.returncode, done.stderr.startswith("asynctrack: --keys: there is no ")) == (0, bool(said))
            assert done.stderr.endswith(said)
            assert done.stderr.count("--keys") == bool(said)
