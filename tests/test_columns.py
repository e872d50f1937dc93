"""Columns: names that readers have for themselves, and the one type of a column whose values have several, in every frame and file."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas
import polars
import pyarrow.parquet as pq
import pytest
from cli_support import said_here

from asynctrack import CSV, JSON, SQL, JSONLines, Parquet, load_metrics, open_run
from asynctrack.backends.base import Backend
from asynctrack.backends.sql import read_records
from asynctrack.errors import InvalidSettings
from asynctrack.reading.reader import RunReader
from asynctrack.testing import JournaledRun, deliver

pytestmark = pytest.mark.usefixtures("own_state", "version")

NAN = math.nan
ROWS: list[dict[str, Any]] = [
    {"_step": 7, "_timestamp": 1.5, "loss": 0.5},
    {"__step": 8, "_step": 9, "___timestamp": "x"},
    {"nested": {"_step": 1}},
]
# What the rule makes of the values of a column: None where a record has none.
MIXED: dict[str, tuple[list[Any], list[Any]]] = {
    "bools": ([True, False], [True, False]),
    "bool, then int": ([True, 2], [1, 2]),
    "int, then bool": ([3, False], [3, 0]),
    "bool, then float": ([True, 0.5], [1.0, 0.5]),
    "int, then float": ([2**53, 0.5], [2.0**53, 0.5]),
    "all numbers, and nothing": ([True, None, 2, NAN], [1.0, None, 2.0, NAN]),
    "64 bits": ([2**63 - 1, -(2**63)], [2**63 - 1, -(2**63)]),
    "64 bits, and bool": ([2**60 + 1, True], [2**60 + 1, 1]),
    "64 bits, then float": ([2**53 + 1, 0.5], ["9007199254740993", "0.5"]),
    "float, then 64 bits": ([0.5, -(2**53) - 1], ["0.5", "-9007199254740993"]),
    "beyond 64 bits": ([2**63, 1], ["9223372036854775808", "1"]),
    "far beyond, and below": ([-(10**400), 1], ["-1" + "0" * 400, "1"]),
    "text, then number": (["a", 0.5], ["a", "0.5"]),
    "number, then text": ([1, "a"], ["1", "a"]),
    "bool, then text": ([True, ""], ["true", ""]),
    "NaN, then text": ([NAN, "a"], ["NaN", "a"]),
    "list, then number": ([[1, NAN], 2], ['[1,"NaN"]', "2"]),
}


def recorded(path: Path, rows: Sequence[dict[str, Any]], steps: Sequence[int] | None = None) -> RunReader:
    with JournaledRun(path) as run:
        for number, row in enumerate(rows):
            run.log(row, number if steps is None else steps[number])
        run.end()
    return open_run(path)


def same(one: Any, other: Any) -> bool:
    """Equal in value and type, NaN too."""
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    return repr(one) == repr(other)


def of_pandas(run: RunReader) -> dict[str, list[Any]]:
    frame = run.to_pandas()
    columns = {name: frame[name].tolist() for name in frame}
    return {
        name: [None if value is None or type(value).__name__ == "NAType" else value for value in values]
        for name, values in columns.items()
    }


def of_polars(run: RunReader) -> dict[str, list[Any]]:
    return dict(run.to_polars().to_dict(as_series=False))


def of_arrow(run: RunReader) -> dict[str, list[Any]]:
    return dict(run.to_arrow().to_pydict())


def of_parquet(run: RunReader, **settings: Any) -> dict[str, list[Any]]:
    deliver(run.path, Parquet(**settings))
    return dict(pq.read_table(run.path / "parquet" / "metrics.parquet").to_pydict())


FRAMES = {"pandas": of_pandas, "polars": of_polars, "arrow": of_arrow, "parquet": of_parquet}


@pytest.mark.parametrize("frame", FRAMES)
def test_users_keys_of_reserved_names_get_an_underscore_in_every_frame(frame: str, tmp_path: Path) -> None:
    columns = FRAMES[frame](recorded(tmp_path / "p" / "r", ROWS))
    assert columns["_step"] == [0, 1, 2]
    assert columns["__step"][:2] == [7, 9]
    assert columns["__timestamp"][0] == 1.5
    assert columns["___step"][1] == 8
    assert columns["____timestamp"][1] == "x"
    assert columns["nested/_step"][2] == 1
    assert all(seconds > 1e9 for seconds in columns["_timestamp"])


@pytest.mark.system
def test_users_keys_of_reserved_names_get_an_underscore_in_every_file(tmp_path: Path) -> None:
    path = recorded(tmp_path / "p" / "r", ROWS).path
    exported = [json.loads(line) for line in said_here("export", path, "--format", "jsonl").stdout.splitlines()]
    deliver(path, JSONLines(), name="jsonl")
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert exported == lines
    assert [(line["_step"], line.get("__step")) for line in lines] == [(0, 7), (1, 9), (2, None)]
    assert (lines[0]["__timestamp"], lines[1]["___step"], lines[2]["nested/_step"]) == (1.5, 8, 1)
    table = list(csv.DictReader(io.StringIO(said_here("export", path, "--format", "csv").stdout)))
    assert [(row["_step"], row["__step"], row["___step"]) for row in table] == [
        ("0", "7", ""),
        ("1", "9", "8"),
        ("2", "", ""),
    ]
    deliver(path, JSON(aligned=True), name="json")
    columns = json.loads((path / "metrics.json").read_text())
    assert (columns["_step"], columns["__step"], columns["___step"]) == ([0, 1, 2], [7, 9, None], [None, 8, None])


@pytest.mark.parametrize("backend", [JSONLines(), CSV(), Parquet(), SQL()], ids=lambda backend: type(backend).__name__)
def test_what_is_left_without_a_journal_has_the_users_names(backend: Backend, tmp_path: Path) -> None:
    path = recorded(tmp_path / "p" / "r", ROWS).path
    deliver(path, backend)
    shutil.rmtree(path / "journal")
    wanted = [*ROWS[:2], {"nested/_step": 1}]
    assert [record.data for record in open_run(path).records()] == wanted


def test_what_is_no_table_has_the_users_names(tmp_path: Path) -> None:
    run = recorded(tmp_path / "p" / "r", ROWS)
    assert run.columns()["_step"].values == [7, 9]
    assert run.arrays()["_step"].values.tolist() == [7, 9]
    assert load_metrics(run)[""][1]["_step"] == [7, 9]
    assert run.summarise("_step", "max") == 9


@pytest.mark.parametrize("frame", ["polars", "arrow", "parquet", "a part per record"])
def test_a_column_has_one_type_that_loses_nothing(frame: str, tmp_path: Path) -> None:
    most = max(len(values) for values, _ in MIXED.values())
    rows = [
        {name: values[at] for name, (values, _) in MIXED.items() if at < len(values) and values[at] is not None}
        for at in range(most)
    ]
    run = recorded(tmp_path / "p" / "r", rows)
    columns = FRAMES[frame](run) if frame in FRAMES else of_parquet(run, part_rows=1, part_age_s=0)
    wrong = {
        name: (columns[name], wanted)
        for name, (_, wanted) in MIXED.items()
        if not same(columns[name], wanted + [None] * (most - len(wanted)))
    }
    assert wrong == {}


def test_pandas_has_the_same_types_with_its_own_gaps(tmp_path: Path) -> None:
    run = recorded(tmp_path / "p" / "r", [
        {"i": 1, "whole": True, "b": True, "long": 2**60 + 1, "f": True, "t": 1, "big": 2**64},
        {"whole": 2, "f": 0.5, "t": "a", "b2": 1}
    ])  # fmt: skip
    frame = run.to_pandas()
    assert frame.dtypes.astype(str).to_dict() == {
        "_step": "int64", "_timestamp": "float64", "i": "float64", "whole": "int64", "b": "object", "long": "Int64", "f": "float64",
        "t": frame["t"].dtype.name, "big": frame["big"].dtype.name, "b2": "float64",
    }  # fmt: skip
    assert frame["whole"].tolist() == [1, 2]
    assert frame["long"][0] == 2**60 + 1
    assert frame["t"].tolist() == ["1", "a"]
    assert frame["big"][0] == str(2**64)


def test_columns_and_arrays_follow_the_rule_of_frames(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"n": True, "x": 1, "t": 1, "long": 2**53 + 1, "big": 2**70, "l": [1]},
            {"n": 2, "x": 0.5, "t": "a", "long": 0.5, "big": 1, "l": "a"}]  # fmt: skip
    run = recorded(tmp_path / "p" / "r", rows)
    columns = {name: column.values for name, column in run.columns().items()}
    assert columns == {
        "n": [1, 2], "x": [1.0, 0.5], "t": ["1", "a"], "long": ["9007199254740993", "0.5"], "big": [2**70, 1], "l": [[1], "a"]
    }  # fmt: skip
    assert (type(columns["n"][0]), type(columns["x"][0])) == (int, float)
    arrays = run.arrays()
    assert (arrays["n"].values.dtype, arrays["x"].values.dtype, arrays["t"].values.dtype.kind) == (
        np.int64,
        np.float64,
        "U",
    )
    assert arrays["big"].values.tolist() == [str(2**70), "1"]


def test_steps_beyond_63_bits_are_read_by_every_reader(tmp_path: Path) -> None:
    steps = [0, 2**63, 2**64 - 1]
    run = recorded(tmp_path / "p" / "r", [{"loss": 1.0}] * 3, steps)
    for read in (of_pandas, of_polars, of_arrow):
        assert read(run)["_step"] == steps
    assert run.arrays()["loss"].steps.tolist() == steps
    assert run.columns()["loss"].steps == steps
    below = recorded(tmp_path / "p" / "below", [{"loss": 1.0}] * 2, [-1, 2**63])
    for read in (of_pandas, of_polars, of_arrow):
        assert read(below)["_step"] == ["-1", str(2**63)]
    assert below.arrays()["loss"].steps.tolist() == [-1, 2**63]


def test_numbers_beyond_any_float_are_infinite_where_floats_are_asked_for(tmp_path: Path) -> None:
    run = recorded(tmp_path / "p" / "r", [{"n": 10**400}, {"n": -(10**400)}])
    assert load_metrics(run) == {"": ([0, 1], {"n": [math.inf, -math.inf]})}
    assert (run.summarise("n", "max"), run.summarise("n")) == (10**400, -(10**400))
    assert math.isnan(run.summarise("n", "mean"))


def test_a_database_keeps_each_value_as_it_was_logged(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"a": True, "b": 2**53 + 1, "c": 2**70}, {"a": 2, "b": 0.5, "c": "x"}]
    run = recorded(tmp_path / "p" / "r", rows)
    deliver(run.path, SQL())
    found = [record.data for record in read_records(f"sqlite:///{tmp_path / 'p' / 'metrics.db'}", "r")]
    assert same([dict(sorted(row.items())) for row in found], rows)


# JSON Lines in the readers that README names, with a first NaN behind all that any of them looks at to find a type


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("late") / "p" / "r"
    rows: list[dict[str, Any]] = [{"loss": 0.5 * n} for n in range(5_000)]
    run = recorded(path, [*rows, {"loss": NAN}, {"loss": -math.inf}, {"loss": 2.5, "list": [NAN, [1.0, math.inf]]}])
    for name, not_finite in (("jsonl", "text"), ("nulls", "null")):
        deliver(run.path, JSONLines(file=f"{name}.jsonl", not_finite=not_finite), name=name)  # type: ignore[arg-type]
    return path


def queried(query: str) -> Any:
    return duckdb.sql(query)


@pytest.mark.system
def test_a_late_nan_is_a_number_as_the_docs_say(late: Path) -> None:
    file, wanted = late / "jsonl.jsonl", [NAN, -math.inf, 2.5]
    by_text = polars.read_ndjson(file, schema_overrides={"loss": polars.String}).with_columns(
        polars.col("loss").cast(polars.Float64)
    )
    found = {
        "polars": by_text["loss"],
        "to_polars": open_run(late).to_polars()["loss"],
        "pandas": pandas.read_json(file, lines=True)["loss"],
        "duckdb": queried(f"SELECT loss::DOUBLE AS loss FROM read_json('{file}') ORDER BY _step").df()["loss"],
    }
    assert {
        name: same([float(value) for value in column[-3:]], wanted) for name, column in found.items()
    } == dict.fromkeys(found, True)


def test_nulls_in_place_of_what_is_not_finite_are_taken_by_every_reader(late: Path) -> None:
    file = late / "nulls.jsonl"
    assert polars.read_ndjson(file)["loss"].to_list()[-3:] == [None, None, 2.5]
    assert pandas.read_json(file, lines=True)["loss"].isna().tolist()[-3:] == [True, True, False]
    assert queried(f"SELECT loss FROM read_json('{file}') ORDER BY _step").fetchall()[-3:] == [
        (None,),
        (None,),
        (2.5,),
    ]
    assert json.loads(file.read_text().splitlines()[-1])["list"] == [None, [1.0, None]]


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
@pytest.mark.parametrize("name", ["jsonl", "nulls"])
def test_jq_reads_both(name: str, late: Path) -> None:
    done = subprocess.run(
        ["jq", "-s", "map(.loss) | length", late / f"{name}.jsonl"], capture_output=True, check=True, timeout=30
    )
    assert done.stdout.strip() == b"5003"


def test_what_stands_for_nan_is_one_of_two() -> None:
    with pytest.raises(InvalidSettings, match="not_finite must be 'text' or 'null'; got 'nan'"):
        JSONLines(not_finite="nan")  # type: ignore[arg-type]


def test_a_library_that_is_missing_is_named_with_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = recorded(tmp_path / "p" / "r", [{"loss": 1.0}])
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(
        ImportError, match=r"^to_polars\(\) needs polars, which cannot be imported here .*: pip install polars$"
    ):
        run.to_polars()
