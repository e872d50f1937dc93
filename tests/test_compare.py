"""Comparing runs: what differs in config and environment, metrics side by side, and curves on one axis."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cli_support import on_terminal, plain, said_here

import asynctrack
from asynctrack.cli import output
from asynctrack.collection.differences import differing
from asynctrack.errors import InvalidSettings, NoSuchRun
from asynctrack.journal import environment_file
from asynctrack.journal.environment_file import Environment, GitState, Gpu
from asynctrack.journal.manifest import save
from asynctrack.testing import JournaledRun

GOALS: dict[str, Any] = {"_metrics": {"val/acc": {"goal": "maximize"}, "loss": {"goal": "minimize"}}}


def make_run(
    path: Path,
    losses: dict[int, float],
    *,
    name: str | None = None,
    environment: Environment | None = None,
    **config: Any,
) -> Path:
    with JournaledRun(path, config=config) as run:
        for step, loss in losses.items():
            run.log({"loss": loss, "val/acc": 1 - loss, "word": "x"}, step, time_ns=step * 10**9)
        run.end()
    if name is not None:
        manifest = asynctrack.open_run(path).manifest()
        manifest.name = name
        save(path, manifest)
    if environment is not None:
        (path / environment_file.FILE_NAME).write_bytes(msgspec.json.encode(environment))
    return path


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs that differ, and one that has other steps and no environment."""
    known = [
        Environment(
            git=GitState(commit=commit * 40, branch="main", dirty=False), python="3.11.7", gpus=[Gpu(name="H200")] * 2,
            packages={"torch": torch, "numpy": "2.0"}, collected_at=commit,
        )
        for commit, torch in (("a", "2.1"), ("b", "2.2"))
    ]  # fmt: skip
    make_run(
        tmp_path / "p" / "one", {0: 0.5, 1: 0.25, 2: 0.125}, lr=0.1, model={"depth": 2}, environment=known[0], **GOALS
    )
    make_run(tmp_path / "p" / "two", {0: 0.75, 2: 0.0625}, lr=0.01, model={"depth": 2}, environment=known[1], **GOALS)
    make_run(
        tmp_path / "p" / "three", {1: math.nan, 3: 0.5, 4: 0.5}, name="third", lr=0.1, model={"depth": 2}, extra=[1]
    )
    return tmp_path


def test_what_differs_in_config_and_environment_is_told_and_what_is_the_same_is_not(runs: Path) -> None:
    found = asynctrack.compare(["one", "two"], runs)
    assert found.labels == ["one", "two"]
    assert found.config == {"lr": {"one": 0.1, "two": 0.01}}
    assert found.environment == {
        "git/commit": {"one": "a" * 40, "two": "b" * 40},
        "packages/torch": {"one": "2.1", "two": "2.2"},
    }
    with_third = asynctrack.compare(["one", "two", "third"], runs)
    assert with_third.config == {"lr": {"one": 0.1, "two": 0.01, "third": 0.1}, "extra": {"third": [1]}}
    assert with_third.environment == found.environment
    assert "lr: one=0.1, two=0.01" in repr(found)


def test_metrics_stand_side_by_side_with_the_best_by_their_goal(runs: Path) -> None:
    found = asynctrack.compare(asynctrack.runs(runs, sort="id"))
    assert {label: (stats.first, stats.last, stats.min) for label, stats in found.metrics["loss"].items()} == {
        "one": (0.5, 0.125, 0.125),
        "third": (pytest.approx(math.nan, nan_ok=True), 0.5, 0.5),
        "two": (0.75, 0.0625, 0.0625),
    }
    assert found.goals == {"loss": "minimize", "val/acc": "maximize"}
    assert (found.best("loss"), found.best("val/acc"), found.best("nothing")) == ("two", "two", None)


def test_curves_are_aligned_on_the_steps_that_any_run_has(runs: Path) -> None:
    found = asynctrack.compare(["one", "two", "third"], runs)
    curve = found.curve("loss")
    assert curve.at.tolist() == [0, 1, 2, 3, 4]
    assert [f"{value:.4g}" for value in curve.values["one"]] == ["0.5", "0.25", "0.125", "nan", "nan"]
    assert [f"{value:.4g}" for value in curve.values["two"]] == ["0.75", "nan", "0.0625", "nan", "nan"]
    assert [f"{value:.4g}" for value in curve.values["third"]] == ["nan", "nan", "nan", "0.5", "0.5"]
    frame = curve.to_pandas()
    assert (frame.index.name, list(frame.columns), len(frame)) == ("step", ["one", "two", "third"], 5)
    assert curve.to_polars().columns == ["step", "one", "two", "third"]
    assert list(curve.as_dict()) == ["step", "one", "two", "third"]
    assert found.curve("loss", x="time").at.tolist() == [0.0, 1.0, 2.0, 3.0]
    with pytest.raises(KeyError):
        found.curve("word")
    with pytest.raises(InvalidSettings, match="x must be"):
        found.curve("loss", x="epoch")  # type: ignore[arg-type]


def test_of_several_values_at_one_step_the_last_counts_and_resumed_runs_have_one_history(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "r") as run:
        for step, loss in ((0, 1.0), (1, 2.0), (1, 3.0), (2, 4.0)):
            run.log({"loss": loss}, step)
        run.end()
        run.start()
        run.log({"loss": 5.0}, 2)
        run.end()
    assert asynctrack.compare(["r"], tmp_path).curve("loss").values["r"].tolist() == [1.0, 3.0, 5.0]
    assert asynctrack.compare(["r"], tmp_path, history="all").metrics["loss"]["r"].count == 5


def test_python_version_aligns_alike(runs: Path) -> None:
    script = (
        "import asynctrack, sys\n"
        "found = asynctrack.compare(['one', 'two', 'third'], sys.argv[1])\n"
        "print(*(found.curve('val/acc', x).to_polars().write_csv() for x in ('step', 'time')))"
    )
    found = asynctrack.compare(["one", "two", "third"], runs)
    done = subprocess.run(
        [sys.executable, "-c", script, str(runs)],
        env={"ASYNCTRACK_PURE": "1"}, capture_output=True, text=True, timeout=50, check=True,
    )  # fmt: skip
    assert (
        done.stdout.split()
        == " ".join(
            found.curve("val/acc", x).to_polars().write_csv()
            for x in ("step", "time")  # type: ignore[arg-type]
        ).split()
    )


def test_steps_that_the_core_cannot_hold_lose_no_value(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "r") as run:
        run.log({"loss": 1.0}, 1)
        run.log({"loss": 2.0}, 1 << 63)
        run.end()
    assert list(asynctrack.compare(["r"], tmp_path).curve("loss").values["r"]) == [1.0, 2.0]


def test_data_frame_has_a_row_for_each_run(runs: Path) -> None:
    frame = asynctrack.compare(["one", "two"], runs).to_pandas()
    assert list(frame.index) == ["one", "two"]
    assert frame["config.lr"].tolist() == [0.1, 0.01]
    assert frame["environment.packages/torch"].tolist() == ["2.1", "2.2"]
    assert frame["min(loss)"].idxmin() == "two"


def test_runs_are_given_as_they_are_at_hand(runs: Path) -> None:
    reader = asynctrack.open_run(runs / "p" / "one")
    assert asynctrack.compare([reader, runs / "p" / "two", "third"], runs).labels == ["one", "two", "third"]
    assert asynctrack.compare([reader, reader]).labels == ["p/one", "p/one (2)"]
    with pytest.raises(InvalidSettings, match="in a list"):
        asynctrack.compare("one", runs)
    with pytest.raises(InvalidSettings, match="given none"):
        asynctrack.compare([], runs)
    with pytest.raises(NoSuchRun):
        asynctrack.compare(["four"], runs)


def test_labels_are_ids_where_names_are_alike(tmp_path: Path) -> None:
    for at in ("a", "b"):
        make_run(tmp_path / "p" / at, {0: 1.0}, name="same")
    make_run(tmp_path / "q" / "c", {0: 1.0}, name="other")
    assert asynctrack.compare(["a", "b", "c"], tmp_path).labels == ["a", "b", "other"]


def test_a_value_that_one_run_lacks_differs_and_numbers_of_two_kinds_do_not() -> None:
    assert differing([{"a": 1, "b": 2}, {"a": 1.0}, {"a": 1, "b": 2}]) == ["b"]
    assert differing([{"a": 1}, {"a": True}]) == ["a"]
    assert differing([{"a": math.nan}, {"a": math.nan}]) == []
    assert differing([{}, {"z": 1, "a": 2}]) == ["z", "a"]
    assert differing([]) == []


# The command


def test_command_shows_what_differs_and_a_curve_for_each_run(runs: Path) -> None:
    lines = said_here("compare", "one", "two", "--dir", runs).stdout.splitlines()
    assert lines[0].split() == ["one", "two"]
    assert ["lr", "0.1", "0.01"] in [line.split() for line in lines]
    assert ["packages/torch", "2.1", "2.2"] in [line.split() for line in lines]
    assert not any("depth" in line or "numpy" in line for line in lines)
    at = lines.index("loss (minimize)")
    assert lines[at + 3].split()[-5:] == ["0.75", "0.0625", "0.0625", "0.75", "best"]
    assert not any("branch" in line for line in lines)
    everything = said_here("compare", "one", "two", "--dir", runs, "--all").stdout
    assert "model/depth" in everything and "packages/numpy" in everything and "git/branch" in everything


def test_command_has_a_row_for_each_of_many_runs(tmp_path: Path) -> None:
    for at in range(20):
        make_run(tmp_path / "p" / f"r{at:02}", {0: 1.0, 1: at / 100}, lr=at, opt="adam", **GOALS)
    done = said_here("compare", "--where", "lr >= 5", "--dir", tmp_path)
    lines = done.stdout.splitlines()
    assert lines[0].split()[:6] == ["run", "status", "age", "lr", "min(loss)", "max(val/acc)"]
    assert [line.split()[0] for line in lines[1:16]] == [f"p/r{at:02}" for at in reversed(range(5, 20))]
    assert "best loss: r05" in lines
    assert done.returncode == 0


def test_json_has_all_of_it(runs: Path) -> None:
    found = json.loads(said_here("compare", "one", "two", "--dir", runs, "--json").stdout)
    assert [run["label"] for run in found["runs"]] == ["one", "two"]
    assert found["config"] == {"lr": {"one": 0.1, "two": 0.01}}
    assert found["metrics"]["loss"]["two"]["min_step"] == 2
    assert found["best"] == {"loss": "two", "val/acc": "two"}
    found = json.loads(said_here("compare", "one", "two", "--dir", runs, "--json", "--keys", "l*").stdout)
    assert list(found["metrics"]) == ["loss"]


def test_not_every_metric_is_shown_unless_it_is_asked_for(tmp_path: Path) -> None:
    for at in range(2):
        with JournaledRun(tmp_path / "p" / f"r{at}") as run:
            run.log({f"m{number}": number for number in range(10)}, 0)
            run.end()
    short = said_here("compare", "r0", "r1", "--dir", tmp_path).stdout
    assert "and 4 more: --all, or --keys" in short and "m7" not in short
    assert "the config of all of them is the same" in short
    assert "m9" in said_here("compare", "r0", "r1", "--dir", tmp_path, "--all").stdout
    assert "m9" in said_here("compare", "r0", "r1", "--dir", tmp_path, "--keys", "m9").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "give runs, or --where"),
        (["nope"], 2, "nope"),
        (["--where", "lr > 9"], 1, "no such runs in"),
        (["--where", "lrr > 0"], 1, "no run has `lrr`; did you mean `lr`?"),
        (["--where", "lr >"], 2, "at character"),
    ],
)
def test_wrong_use_is_told_in_one_line(runs: Path, arguments: list[str], code: int, said: str) -> None:
    done = said_here("compare", *arguments, "--dir", runs)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.system
@pytest.mark.parametrize("names", [["one", "two", "third"], ["one"]])
def test_nothing_is_wider_than_the_terminal(runs: Path, names: list[str]) -> None:
    code, text = on_terminal(80, "compare", *names, "--dir", runs, "--all")
    assert code == 0
    assert [line for line in plain(text).splitlines() if output.width_of(line) > 80] == []


def test_terminals_get_no_escapes_of_a_run(runs: Path) -> None:
    make_run(runs / "p" / "evil", {0: 1.0}, name="\x1b[31mred", **{"\x1b]0;title\x07": "\x1b[2J"})
    for options in ([], ["--json"], ["--all"]):
        assert "\x1b" not in said_here("compare", "one", "evil", "--dir", runs, *options).stdout
