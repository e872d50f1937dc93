"""Runs that are chosen and sorted by expressions, in `asynctrack.runs` and by the commands that take `--where`."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from cli_support import Logger, on_terminal, said_here
from support import wait_until

import asynctrack
from asynctrack.cli import output
from asynctrack.client.run_state import activity_of
from asynctrack.collection.run_summary import bytes_of
from asynctrack.errors import InvalidExpression, UnknownGoal
from asynctrack.journal import manifest
from asynctrack.reading import catalog


@pytest.fixture(scope="module")
def sweep(shared_host: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four runs: three of a sweep, the second of which has failed, and an older one without a goal."""
    directory = tmp_path_factory.mktemp("sweep") / "runs"
    with asynctrack.init("old", id="zero", dir=directory, config={"lr": 1}, backends=[], quiet=True) as run:
        run.log({"other": 1.0})
    for at, (lr, losses) in enumerate([(0.1, [3.0, 1.0, 2.0]), (0.01, [4.0, 5.0]), (0.001, [2.0, 0.5, 0.75])]):
        tags = ["base"] if at < 2 else ["new", "small"]
        config = {"lr": lr, "optimizer": {"name": "adam" if at else "sgd"}, "fixed": 3}
        run = asynctrack.init("p", id=f"r{at}", dir=directory, config=config, tags=tags, name=f"try-{at}", backends=[], quiet=True)  # fmt: skip
        run.define_metric("loss", goal="minimize")
        for step, loss in enumerate(losses):
            run.log({"loss": loss, "val/acc": 1 / loss}, step=step)
        run.finish(exit_code=int(at == 1))
    return directory


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        ("lr < 0.05", ["r2", "r1"]), ("best(loss) < 2", ["r2", "r0"]), ("status == failed", ["r1"]), ("tag == 'base' and not status == failed", ["r0"]),
        ("optimizer.name in ('sgd', 'x')", ["r0"]), ("max(val/acc) > 1.5", ["r2"]), ("loss == 0.75", ["r2"]), ("name == 'try-1'", ["r1"]),
        ("project == 'old'", ["zero"]), ("age > 1h", []), ("duration < 1h and size > 10", ["r2", "r1", "r0", "zero"]), ("records == 3", ["r2", "r0"]),
        ("step == 1", ["r1"]), ("nothing == 1", []), ("created_at > '2020'", ["r2", "r1", "r0", "zero"]), ("error != null", ["r1"]), ("error == null and lr < 1", ["r2", "r0"]), ("group == null and loss == null", ["zero"]),
    ],
)  # fmt: skip
def test_runs_are_chosen_by_a_condition(sweep: Path, where: str, ids: list[str]) -> None:
    assert [run.id for run in asynctrack.runs(sweep, where=where)] == ids


def test_runs_are_sorted_and_those_that_lack_it_come_last(sweep: Path) -> None:
    def ids(sort: str, **more: Any) -> list[str]:
        return [run.id for run in asynctrack.runs(sweep, sort=sort, **more)]

    assert ids("min(loss)") == ["r2", "r0", "r1", "zero"]
    assert ids("-max(val/acc)", limit=2) == ["r2", "r0"]
    assert ids("-lr") == ["zero", "r0", "r1", "r2"]
    assert ids("status,-best(loss)", where="lr < 1") == ["r1", "r0", "r2"]


def test_a_wrong_condition_or_order_of_runs_is_refused_at_once(sweep: Path) -> None:
    with pytest.raises(InvalidExpression, match="at character 4 "):
        asynctrack.runs(sweep, where="lr = 1")
    with pytest.raises(InvalidExpression, match="at character 4 "):
        asynctrack.runs(sweep, sort="lr <")
    with pytest.raises(UnknownGoal, match=r"min\(other\) or max\(other\)"):
        list(asynctrack.runs(sweep, where="best(other) < 1"))


# rm


@pytest.fixture
def copied(sweep: Path, tmp_path: Path) -> Path:
    """The runs of `sweep`, to be removed; the first of them is old."""
    directory = shutil.copytree(sweep, tmp_path / "runs")
    found = manifest.load(directory / "p/r0")
    found.created_at = "2020-01-01T00:00:00.000+00:00"
    manifest.save(directory / "p/r0", found)
    return directory


@pytest.mark.parametrize(
    ("words", "gone"),
    [
        (["--where", "status in (failed, crashed)"], "r1"), (["--where", "max(val/acc) < 1.5 and tag == 'base'"], "r0 r1"), (["--older", "30d"], "r0"),
        (["--older", "30d", "--where", "lr < 0.05"], ""), (["--where", "project == 'p'", "--keep-best", "1", "loss"], "r0 r1"),
        (["--where", "project == 'p'", "--keep-best", "2", "max(loss)"], "r2"), (["--older", "0s", "--keep-best", "2", "min(loss)"], "r1 zero"),
        (["--where", "project == 'p'", "--keep-best", "9", "loss"], ""), (["--where", "lr < 1", "--keep-best", "0", "loss"], "r0 r1 r2"),
        (["--where", "other == null"], "r0 r1 r2"),
    ],
)  # fmt: skip
def test_rm_removes_the_runs_that_are_chosen(copied: Path, words: list[str], gone: str) -> None:
    there = {run.name: run for run in catalog.runs_under(copied)}
    sizes = {str(there[name]): bytes_of(there[name]) for name in gone.split()}
    would = said_here("rm", *words, "--dir", copied, "--dry-run")
    assert (would.returncode, would.stderr) == (0, "")
    assert len(would.stdout.splitlines()) == len(sizes) + 1
    assert would.stdout.endswith("no such runs\n" if not gone else f", {output.size(sum(sizes.values()))}\n")
    told = json.loads(said_here("rm", *words, "--dir", copied, "--dry-run", "--json").stdout)
    assert {one["path"]: one["bytes"] for one in told["would_remove"]} == sizes
    assert (told["removed"], told["bytes"], told["errors"], told["left_out"]) == ([], sum(sizes.values()), {}, {})
    assert len(catalog.runs_under(copied)) == 4
    done = said_here("rm", *words, "--dir", copied, "--yes", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert {one["path"]: one["bytes"] for one in json.loads(done.stdout)["removed"]} == sizes
    assert {run.name for run in catalog.runs_under(copied)} == {*there} - {*gone.split()}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--where", "not lss < 1"], "no run has `lss`; did you mean `loss`?; nothing was removed"), (["--where", "lr = 1"], "at character 4 "),
        (["--where", "lr > 0", "--keep-best", "1", "min(los)"], "did you mean `loss`?; nothing was removed"),
        (["--where", "lr > 0", "--keep-best", "1", "val/acc"], "write min(val/acc) or max(val/acc)"), (["--keep-best", "1", "loss"], "--where or --older"),
        (["--where", "lr > 0", "--keep-best", "x", "loss"], "a whole number"), (["--older", "30"], "an age with its unit"), (["--older", "-3d"], "expected"),
        (["r0", "--where", "lr > 0"], "not both"), ([], "rm takes runs"), (["--where", "lr > 0", "--keep-best", "1", "loss >"], "at character 6 "),
    ],
)  # fmt: skip
def test_rm_removes_nothing_where_it_is_not_sure_what_is_meant(copied: Path, words: list[str], said: str) -> None:
    done = said_here("rm", *words, "--dir", copied, "--yes")
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert len(catalog.runs_under(copied)) == 4


@pytest.mark.system
def test_rm_leaves_out_a_chosen_run_that_runs_and_aborts_for_a_named_one(own_host: Path, copied: Path) -> None:
    logger = Logger(copied)
    try:
        logger.log(0, 3)
        done = said_here(
            "rm", "--where", "created_at > '2000' and project in ('live', 'old')", "--dir", copied, "--yes", "--json"
        )
        told = json.loads(done.stdout)
        assert (done.returncode, [Path(one["path"]).name for one in told["removed"]]) == (0, ["zero"])
        assert [*told["left_out"]] == [str(logger.run)]
        assert (
            said_here("rm", "--where", "project == 'live'", "--dir", copied, "--yes").stdout == "nothing was removed\n"
        )
        assert f"left out: live/run is running (process {logger.process.pid}); --force removes it anyway" in done.stderr
        would = said_here("rm", "run", "r0", "--dir", copied, "--dry-run")
        assert (would.returncode, would.stdout) == (1, "")
        assert "nothing would be removed" in would.stderr
        assert (
            said_here("rm", "--older", "0s", "--keep-best", "0", "i", "--dir", copied, "--yes").returncode == 2
        )  # the only run that has it runs
        assert len(catalog.runs_under(copied)) == 4
    finally:
        logger.end()
    wait_until(lambda: not activity_of(logger.run).is_active, "the worker has let go of the run")
    assert said_here("rm", "--where", "status == finished and half >= 0", "--dir", copied, "--yes").stdout.startswith(
        "removed live/run, "
    )


@pytest.mark.system
def test_rm_asks_before_it_removes_what_it_has_chosen(copied: Path) -> None:
    words = ("rm", "--where", "lr < 1", "--dir", copied)
    code, text = on_terminal(100, *words, answers="n\n")
    assert code == 1
    assert "remove these 3 runs, " in text
    assert len(catalog.runs_under(copied)) == 4
    code, text = on_terminal(100, *words, answers="y\n")
    assert code == 0
    assert text.count("removed p/r") == 3
    assert "3 runs, " in text.splitlines()[-1]


# best


def test_best_lists_runs_with_the_value_its_step_and_the_config_that_differs(sweep: Path) -> None:
    found = json.loads(said_here("best", "loss", sweep, "--json").stdout)
    assert [(run["id"], run["metric"], run["value"], run["step"]) for run in found] == [
        ("r2", "min(loss)", 0.5, 1), ("r0", "min(loss)", 1.0, 1), ("r1", "min(loss)", 4.0, 0),
    ]  # fmt: skip
    assert found[0]["config"] == {"lr": 0.001, "optimizer/name": "adam"}
    assert {key: found[2][key] for key in ("project", "name", "status", "path")} == {
        "project": "p", "name": "try-1", "status": "failed", "path": str(sweep / "p/r1"),
    }  # fmt: skip
    table = said_here("best", "loss", sweep, "-n", "2").stdout.splitlines()
    assert table[0].split() == ["run", "name", "status", "min(loss)", "step", "lr", "optimizer/name"]
    assert [line.split() for line in table[1:]] == [
        ["p/r2", "try-2", "finished", "0.5", "1", "0.001", "adam"], ["p/r0", "try-0", "finished", "1", "1", "0.1", "sgd"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        (["loss"], "r2"), (["best(loss)"], "r2"), (["max(loss)"], "r1"), (["min(val/acc)"], "r1"), (["last(loss)"], "r2"), (["mean(loss)", "-n", "2"], "r2 r0"),
        (["min(other)"], "zero"), (["loss", "--where", "tag == 'base'"], "r0"), (["loss", "--where", "lr > 0.005", "-n", "9"], "r0 r1"), (["min(loss)"], "r2"),
    ],
)  # fmt: skip
def test_best_prints_ids_for_scripts(sweep: Path, words: list[str], ids: str) -> None:
    done = said_here("best", words[0], sweep, *words[1:], "--id")
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ids.split(), "")


def test_the_directory_may_stand_behind_the_options(sweep: Path) -> None:
    assert said_here("best", "loss", "--where", "tag == 'base'", sweep, "--id").stdout == "r0\n"
    assert said_here("best", "loss", "--id", sweep).stdout == "r2\n"
    assert "expected a directory, but " in said_here("best", "loss", "--id", sweep / "p/r0/run.json").stderr
    assert "unrecognized arguments: more" in said_here("best", "loss", sweep, "--id", "more").stderr


def test_best_of_a_metric_without_a_goal_offers_min_and_max(sweep: Path) -> None:
    done = said_here("best", "val/acc", sweep)
    assert (done.returncode, done.stdout) == (2, "")
    assert "write min(val/acc) or max(val/acc)" in done.stderr
    for metric, at in (("lr(", 1), ("config.lr", 1), ("status", 1), ("max(loss) > 1", 11)):
        done = said_here("best", metric, sweep)
        assert done.returncode == 2
        assert f"at character {at} " in done.stderr
        assert done.stderr.splitlines()[-2:] == [f"  {metric}", " " * (at + 1) + "^"]


def test_best_says_why_it_finds_none(sweep: Path, tmp_path: Path) -> None:
    for words, said in {
        ("min(los)",): "has numbers of `los`; did you mean `loss`?",
        ("loss", "--where", "lrr < 1"): "no such runs in",
        ("min(other)", "--where", "lr < 1"): "no such run in",
    }.items():
        done = said_here("best", *words, "--dir", sweep)
        assert (done.returncode, done.stdout) == (1, "")
        assert said in done.stderr
    assert "did you mean `lr`?" in said_here("best", "loss", sweep, "--where", "lrr < 1").stderr
    assert json.loads(said_here("best", "loss", tmp_path, "--json").stdout) == []
    assert said_here("best", "loss", tmp_path / "nowhere").returncode == 2
    with asynctrack.init("q", id="nan", dir=tmp_path, backends=[], quiet=True) as run:
        run.log({"loss": math.nan})
    assert said_here("best", "min(loss)", tmp_path).stderr.endswith("has finite numbers of `loss`\n")


def test_best_ranks_integers_beyond_any_float(shared_host: Path, tmp_path: Path) -> None:
    for at, number in enumerate((10**400, 3.0, -(10**400), math.inf)):
        with asynctrack.init("p", id=f"r{at}", dir=tmp_path, backends=[], quiet=True) as run:
            run.log({"n": number})
    assert said_here("best", "last(n)", tmp_path).returncode == 2
    assert said_here("best", "min(n)", tmp_path, "--id", "-n", str(10**30)).stdout.split() == ["r2", "r1", "r0"]
    assert said_here("best", "max(n)", tmp_path, "--id", "-n", "2").stdout.split() == ["r0", "r1"]


def test_goals_that_contradict_each_other_are_said(shared_host: Path, tmp_path: Path) -> None:
    for at, goal in enumerate(["minimize", "maximize"]):
        with asynctrack.init("p", id=f"g{at}", dir=tmp_path, backends=[], quiet=True) as run:
            run.define_metric("s*", goal=goal)  # type: ignore[arg-type]  # mypy widens it to str
            run.log({"score": float(at)})
    done = said_here("best", "score", tmp_path)
    assert done.returncode == 2
    assert "expected min(score) or max(score)" in done.stderr
    assert said_here("best", "score", tmp_path, "--where", "best(score) == 0", "--id").stdout == "g0\n"


def test_an_id_that_two_projects_have_comes_with_its_project(shared_host: Path, tmp_path: Path) -> None:
    for at, project in enumerate(["a", "b"]):
        with asynctrack.init(project, id="same", dir=tmp_path, backends=[], quiet=True) as run:
            run.log({"loss": float(at)})
    assert said_here("best", "min(loss)", tmp_path, "--id").stdout == "a/same\n"
    assert said_here("show", "a/same", "--dir", tmp_path).returncode == 0
