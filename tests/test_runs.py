"""Many runs: `asynctrack.runs()`, a lazy sequence of their readers, and what is known of each."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

import asynctrack
from asynctrack.errors import InvalidExpression, InvalidSettings, RunsLeftOut
from asynctrack.journal.manifest import save
from asynctrack.records.expressions import Term
from asynctrack.testing import JournaledRun


def make_run(path: Path, created_s: int = 0, **config: object) -> Path:
    with JournaledRun(path, config=config) as run:
        for step in range(3):
            run.log({"loss": 1.0 / (step + 1), "note": "text"}, step)
        run.end()
    manifest = asynctrack.open_run(path).manifest()
    manifest.created_at = f"2026-01-01T00:00:{created_s:02}.000+00:00"
    save(path, manifest)
    return path


def test_runs_are_readers_the_newest_first(tmp_path: Path) -> None:
    made = [make_run(tmp_path / "p" / f"r{at}", at, lr=at) for at in range(4)]
    found = asynctrack.runs(tmp_path)
    assert [run.path for run in found] == made[::-1]
    assert len(found) == 4
    assert found[0].config == {"lr": 3}
    assert found[-1].path == made[0]
    assert [run.path for run in found[1:3]] == [made[2], made[1]]
    assert [summary.config["lr"] for summary in found.summaries()] == [3, 2, 1, 0]
    assert len(asynctrack.runs(tmp_path, limit=2)) == 2
    assert len(asynctrack.runs(tmp_path, limit=10**30)) == len(asynctrack.runs(tmp_path))
    assert asynctrack.runs(tmp_path / "p")[0].path == made[-1]


def test_runs_are_chosen_and_sorted_by_expressions(tmp_path: Path) -> None:
    for at in range(4):
        make_run(tmp_path / "p" / f"r{at}", at, lr=10.0**-at)
    make_run(tmp_path / "p" / "without", 9)
    found = asynctrack.runs(tmp_path, where="lr < 0.5 or name == 'without'", sort="-lr")
    assert [run.id for run in found] == ["r1", "r2", "r3", "without"]
    assert [run.id for run in asynctrack.runs(tmp_path, sort="lr", limit=2)] == ["r3", "r2"]
    assert [run.id for run in asynctrack.runs(tmp_path, where="min(loss) < 0.4 and lr == 1")] == ["r0"]
    assert len(asynctrack.runs(tmp_path, where="min(loss) > 0.4")) == 0
    with pytest.raises(InvalidExpression):
        asynctrack.runs(tmp_path, where="lr <")


def test_run_that_a_newer_version_wrote_is_left_out(tmp_path: Path) -> None:
    make_run(tmp_path / "p" / "old")
    new = make_run(tmp_path / "p" / "new")
    said = json.loads((new / "run.json").read_text())
    (new / "run.json").write_text(json.dumps({**said, "version": 99}))
    with pytest.warns(RunsLeftOut, match="1 run that a newer asynctrack wrote: left out"):
        assert [run.path.name for run in asynctrack.runs(tmp_path)] == ["old"]


def test_wrong_arguments_are_all_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match=r"(?s)dir must be.*sort must be a text.*limit must be.*history must be"):
        asynctrack.runs(tmp_path / "missing", sort=5, limit=-1, history="first")  # type: ignore[arg-type]


def test_what_is_no_run_and_what_was_half_copied_does_no_harm(tmp_path: Path) -> None:
    make_run(tmp_path / "p" / "whole")
    (tmp_path / "p" / "notes").mkdir()
    (tmp_path / "p" / "file.txt").write_text("x")
    (tmp_path / "other" / "deep" / "deeper").mkdir(parents=True)
    (tmp_path / "paper" / "journal").mkdir(parents=True)  # somebody's journal
    without_json = make_run(tmp_path / "p" / "without_json")
    (without_json / "run.json").unlink()
    without_journal = make_run(tmp_path / "p" / "without_journal")
    (without_journal / "journal" / "000001.atj").unlink()
    cut = make_run(tmp_path / "p" / "cut")
    (cut / "journal" / "000001.atj").write_bytes((cut / "journal" / "000001.atj").read_bytes()[:200])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = {run.path.name for run in asynctrack.runs(tmp_path)}
        frame_rows = len(list(asynctrack.runs(tmp_path).summaries()))
    assert {"whole", "without_json"} <= found and "notes" not in found and "paper" not in found
    assert frame_rows == len(found)
    assert any("1 run that cannot be read" in str(one.message) for one in told)


def test_thousands_of_empty_runs_are_listed(tmp_path: Path) -> None:
    for at in range(1000):
        (tmp_path / "p" / f"r{at:04}" / "journal").mkdir(parents=True)
    with pytest.warns(RunsLeftOut, match="1,000 runs that cannot be read"):
        assert len(asynctrack.runs(tmp_path)) == 0


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_frame_has_a_row_for_each_run_and_columns_that_are_expressions(tmp_path: Path, library: str) -> None:
    pytest.importorskip(library)
    for at in range(3):
        make_run(tmp_path / "p" / f"r{at}", at, **({"lr": at} if at < 2 else {"lr": 0.5, "model": {"a b": "x"}}))
    found = asynctrack.runs(tmp_path)
    if library == "pandas":
        frame: dict[str, list[Any]] = found.to_pandas().to_dict("list")
        assert found.to_pandas()["config.lr"].dtype == "float64"
    else:
        frame = found.to_polars().to_dict(as_series=False) if library == "polars" else found.to_arrow().to_pydict()
    assert frame["id"] == ["r2", "r1", "r0"] and frame["config.lr"] == [0.5, 1.0, 0.0]
    assert frame["min(loss)"] == [1 / 3] * 3 and frame["first(loss)"] == [1.0] * 3
    assert frame["config.`model/a b`"][0] == "x" and frame["created_at"][0].year == 2026
    for name in ("config.lr", "min(loss)", "config.`model/a b`"):
        assert next(Term(name).of(subject) for subject in found.subjects()) == frame[name][0]


def test_frame_of_no_runs_is_empty(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    assert len(asynctrack.runs(tmp_path).to_pandas()) == 0
