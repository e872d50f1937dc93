"""SQL over runs: what each table has, that nothing else can be reached, and what is said of a wrong statement."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from cli_support import asynctrack_, said_here

import asynctrack
from asynctrack.collection.query import open_query
from asynctrack.errors import DamagedJournal, InvalidQuery, InvalidSettings
from asynctrack.testing import JournaledRun

pytest.importorskip("duckdb")


def make_run(path: Path, config: dict[str, object], summary: dict[str, object] | None = None) -> Path:
    with JournaledRun(path, config=config) as run:
        for step in range(3):
            run.log({"loss": 1.0 / (step + 1), "val": {"acc": step}, "phase": "fit"}, step)
        run.log({"loss": math.nan, "shape": [1, 2], "done": True, "nothing": None}, 3)
        run.update("summary", summary or {})
        run.end()
    return path


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    make_run(tmp_path / "p" / "one", {"lr": 0.1, "model": {"depth": 2}, "opt": "adam"}, {"best": 0.5})
    make_run(tmp_path / "q" / "two", {"lr": 0.01, "model": {"depth": 3}, "opt": "sgd"})
    return tmp_path


def asked(sql: str, runs: Path, **options: object) -> list[tuple[object, ...]]:
    return asynctrack.query(sql, runs, **options).fetchall()  # type: ignore[arg-type]


def test_each_table_has_what_its_name_says(runs: Path) -> None:
    assert asked("SELECT run, id, project, status, records, last_step FROM runs ORDER BY run", runs) == [
        ("p/one", "one", "p", "finished", 4, 3),
        ("q/two", "two", "q", "finished", 4, 3),
    ]
    assert asked("SELECT run, value, number FROM config WHERE key IN ('opt', 'model/depth') ORDER BY ALL", runs) == [
        ("p/one", "2", 2.0),
        ("p/one", "adam", None),
        ("q/two", "3", 3.0),
        ("q/two", "sgd", None),
    ]
    assert asked("FROM summary", runs) == [("p/one", "best", "0.5", 0.5)]
    assert asked(
        "SELECT count, not_finite, first, max, max_step FROM metric_stats WHERE run = 'p/one' AND key = 'val/acc'", runs
    ) == [(3, 0, 0.0, 2.0, 2)]
    assert asked("SELECT step, value FROM metrics WHERE run = 'q/two' AND key = 'loss' ORDER BY step", runs) == [
        (0, 1.0), (1, 0.5), (2, 1 / 3), (3, None),
    ]  # fmt: skip
    assert asked("SELECT key, value, text FROM metrics WHERE run = 'p/one' AND step = 3 ORDER BY key", runs) == [
        ("done", 1.0, None),
        ("loss", None, None),
        ("nothing", None, None),
        ("shape", None, "[1,2]"),
    ]
    assert asked("SELECT config.lr::DOUBLE, config.model.depth FROM runs ORDER BY 1", runs) == [(0.01, "3"), (0.1, "2")]


def test_times_are_utc_and_rows_are_found_by_them(runs: Path) -> None:
    ((made, first, last),) = asked(
        "SELECT created_at, min(time), max(time) FROM runs JOIN metrics USING (run) WHERE id = 'one' GROUP BY 1", runs
    )
    assert str(made)[:16] == asynctrack.open_run(runs / "p" / "one").manifest().created_at[:16].replace("T", " ")
    assert made <= first <= last  # type: ignore[operator]


def test_result_is_a_data_frame_with_numbers_that_compute(runs: Path) -> None:
    found = asynctrack.query(
        "SELECT project, sum(records) AS records, 1.5 AS half FROM runs GROUP BY ALL ORDER BY 1", runs
    )
    assert (found.columns, len(found), list(found)) == (
        ["project", "records", "half"],
        2,
        [("p", 4, 1.5), ("q", 4, 1.5)],
    )
    assert [str(kind) for kind in found.to_pandas().dtypes] == ["str", "int64", "float64"]
    assert found.to_polars()["records"].sum() == found.to_arrow()["records"][0].as_py() * 2 == 8
    assert repr(found).splitlines() == ["project  records  half", "p        4        1.5", "q        4        1.5"]
    assert "<td>p</td>" in found._repr_html_()


def test_only_runs_that_meet_a_condition_are_read(runs: Path) -> None:
    assert asked("SELECT DISTINCT run FROM metrics", runs, where="lr < 0.05") == [("q/two",)]
    options = ("--dir", runs, "--where", "max(val/acc) > 1 and opt == 'adam'", "--format", "csv")
    assert said_here("query", "SELECT id FROM runs", *options).stdout.split() == ["id", "one"]
    done = said_here("query", "FROM runs", "--dir", runs, "--where", "lr <")
    assert (done.returncode, done.stdout) == (2, "")
    assert "at character" in done.stderr


def test_statement_may_have_parameters_and_a_directory_must_be_there(runs: Path) -> None:
    assert asked("SELECT id FROM runs WHERE id = $id", runs, params={"id": "one"}) == [("one",)]
    with pytest.raises(InvalidSettings, match="there is none"):
        asked("FROM runs", runs / "nowhere")


def test_resumed_run_has_one_history_or_all(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "r") as run:
        for first in (0, 2):
            if first:
                run.start()
            for step in range(first, 4):
                run.log({"loss": step + first / 10}, step)
            run.end()
    sql = "SELECT value FROM metrics ORDER BY step, value"
    assert asked(sql, tmp_path) == [(0.0,), (1.0,), (2.2,), (3.2,)]
    assert asked(sql, tmp_path, history="all") == [(0.0,), (1.0,), (2.0,), (2.2,), (3.0,), (3.2,)]


def test_python_version_has_the_same_rows(runs: Path) -> None:
    script = (
        "import asynctrack, sys\n"
        "from asynctrack._system.native import is_native\n"
        "found = asynctrack.query('FROM metrics ORDER BY run, key, step', sys.argv[1]).fetchall()\n"
        "print([is_native, found])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(runs)],
        env={"ASYNCTRACK_PURE": "1"}, capture_output=True, text=True, timeout=50, check=True,
    )  # fmt: skip
    assert done.stdout == f"{[False, asked('FROM metrics ORDER BY run, key, step', runs)]}\n"


def test_no_progress_bar_comes_between_the_rows(runs: Path) -> None:
    """DuckDB has one, on stdout, where Python runs a text; a statement that takes two seconds shows it."""
    script = (
        "import asynctrack, sys\n"
        "print(asynctrack.query(\"SELECT current_setting('enable_progress_bar')\", sys.argv[1]).fetchall())"
    )
    done = subprocess.run([sys.executable, "-c", script, str(runs)], capture_output=True, text=True, timeout=50)
    assert (done.stdout, done.stderr) == ("[(False,)]\n", "")


def test_steps_that_the_core_cannot_hold_lose_no_value(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "r") as run:
        for at in range(30_000):
            run.log({"a": at, "b": "text"}, at)
            if at % 1000 == 0:
                run.journal()
        run.log({"a": -1, "c": 2}, 1 << 63)
        run.log({"d": 2}, -(1 << 63))
        run.end()
    assert asked("SELECT key, count(*), sum(value) FROM metrics GROUP BY key ORDER BY key", tmp_path) == [
        ("a", 30_001, sum(range(30_000)) - 1), ("b", 30_000, None), ("c", 1, 2.0), ("d", 1, 2.0),
    ]  # fmt: skip
    assert asked("SELECT step FROM metrics WHERE key = 'c'", tmp_path) == [(None,)]
    assert asked("SELECT step FROM metrics WHERE key = 'd'", tmp_path) == [(-(1 << 63),)]
    assert asked("SELECT last_step FROM runs", tmp_path) == [(-(1 << 63),)]


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELEC 1", "syntax error at or near"),
        ("SELECT nope FROM runs", 'Referenced column "nope" not found'),
        ("SELECT * FROM metric", 'Did you mean "metrics"'),
        ("SELECT ?", "Values were not provided"),
        ("SELECT sum(9223372036854775807) FROM metrics", "cast the sum to DOUBLE"),
    ],
)
def test_wrong_statement_is_said_in_one_line(runs: Path, sql: str, said: str) -> None:
    with pytest.raises(InvalidQuery, match=said) as raised:
        asynctrack.query(sql, runs)
    assert "\n" not in str(raised.value)
    done = said_here("query", sql, "--dir", runs)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "sql",
    [
        "FROM read_csv('/etc/passwd')",
        "FROM '/etc/passwd'",
        "FROM glob('/etc/*')",
        "COPY runs TO 'FILE'",
        "ATTACH 'FILE'",
        "EXPORT DATABASE 'FILE'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET temp_directory = 'FILE'",
        "FROM secret",
    ],
)
def test_statement_reaches_nothing_but_the_tables(runs: Path, sql: str) -> None:
    secret = [("the variables of who asks",)]  # noqa: F841  # DuckDB finds variables by their names where it may
    before = sorted(path for path in runs.rglob("*"))
    with pytest.raises(InvalidQuery):
        asynctrack.query(sql.replace("FILE", str(runs / "p" / "file")), runs)
    assert sorted(path for path in runs.rglob("*")) == before


def test_files_can_be_reached_where_that_is_asked_for(runs: Path) -> None:
    (runs / "labels.csv").write_text("id,label\none,good\ntwo,bad\n")
    sql = f"SELECT label FROM runs JOIN '{runs}/labels.csv' USING (id) ORDER BY 1"
    with pytest.raises(InvalidQuery):
        asynctrack.query(sql, runs)
    assert asked(sql, runs, external_access=True) == [("bad",), ("good",)]
    assert said_here("query", sql, "--dir", runs, "--external-access").stdout.split() == ["label", "bad", "good"]


def test_run_that_cannot_be_read_is_said_and_the_others_are_there(
    runs: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make_run(runs / "p" / "three", {})
    with open_query("SELECT DISTINCT run FROM metrics ORDER BY run", runs) as rows:
        (batch,) = rows.batches
    assert batch["run"].to_pylist() == ["p/one", "p/three", "q/two"]


def test_damaged_run_is_said_where_its_values_are_read(runs: Path) -> None:
    (segment,) = (runs / "q" / "two" / "journal").iterdir()
    data = segment.read_bytes()
    segment.write_bytes(data[: len(data) // 2] + bytes(8) + data[len(data) // 2 + 8 :])
    assert asked("SELECT DISTINCT run FROM metrics", runs, where="lr == 0.1") == [("p/one",)]
    with pytest.warns(DamagedJournal, match="q/two is damaged, and records may be missing"):
        asked("SELECT count(*) FROM metrics", runs)


def test_command_prints_tables_and_lines(runs: Path) -> None:
    sql = "SELECT id, records, status = 'failed' AS failed, tags FROM runs ORDER BY id"
    assert said_here("query", sql, "--dir", runs).stdout.splitlines() == [
        "id   records  failed  tags",
        "one        4  false   []",
        "two        4  false   []",
    ]
    assert said_here("query", sql, "--dir", runs, "--format", "csv").stdout == (
        "id,records,failed,tags\r\none,4,false,[]\r\ntwo,4,false,[]\r\n"
    )
    lines = said_here("query", sql, "--dir", runs, "--format", "jsonl").stdout.splitlines()
    rows = [{"id": name, "records": 4, "failed": False, "tags": []} for name in ("one", "two")]
    assert [json.loads(line) for line in lines] == rows
    assert json.loads(said_here("query", sql, "--dir", runs, "--json").stdout) == rows
    assert said_here("query", "SELECT 1 AS a, 2 AS a", "--dir", runs, "--json").stdout == '[{"a":1,"a_2":2}]\n'
    assert said_here("query", "SELECT 1", "--dir", runs / "no").stderr.endswith(
        f"there is no directory {runs / 'no'}\n"
    )


def test_long_tables_are_cut_and_say_so(runs: Path) -> None:
    lines = said_here("query", "SELECT range FROM range(1005)", "--dir", runs).stdout.splitlines()
    assert (len(lines), lines[-2]) == (1002, "  999")
    assert lines[-1].startswith("the first 1,000 rows; --format csv")
    assert (
        said_here("query", "SELECT range FROM range(1005)", "--dir", runs, "--format", "csv").stdout.count("\n") == 1006
    )


def test_cells_that_spreadsheets_compute_with_are_said(tmp_path: Path) -> None:
    make_run(tmp_path / "p" / "one", {"formula": "=1+1", "number": -1})
    done = said_here("query", "FROM config ORDER BY key", "--dir", tmp_path, "--format", "csv")
    assert "1 cells begin with =" in done.stderr.replace("2 cells", "1 cells")
    assert said_here("query", "SELECT number FROM config", "--dir", tmp_path, "--format", "csv").stderr == ""


def test_terminals_get_no_escapes_of_a_run(tmp_path: Path) -> None:
    make_run(tmp_path / "p" / "one", {"x": "\x1b[31mred"})
    for options in ([], ["--format", "jsonl"], ["--json"]):
        assert "\x1b" not in said_here("query", "FROM config", "--dir", tmp_path, *options).stdout


def test_process_ends_quietly_after_a_query(runs: Path) -> None:
    done = asynctrack_("query", "-", "--dir", runs, PYTHONWARNINGS="error")
    assert (done.returncode, done.stderr) == (0, "")


def test_missing_library_is_named_with_its_extra(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "lib" / "duckdb").mkdir(parents=True)
    (tmp_path / "lib" / "duckdb" / "__init__.py").write_text("raise ImportError('none here')")
    done = asynctrack_("query", "FROM runs", "--dir", runs, PYTHONPATH=str(tmp_path / "lib"))
    assert done.returncode == 1
    assert "query() needs duckdb" in done.stderr
    assert "pip install 'asynctrack[query]'" in done.stderr
