"""`asynctrack ls` of many runs: which are listed, in which order, with which columns, in groups; and how it looks at a terminal."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from cli_support import on_terminal, plain, said_here

from asynctrack import cli
from asynctrack.cli import output
from asynctrack.collection.short_ids import short_ids
from asynctrack.journal.manifest import save
from asynctrack.reading.reader import RunReader
from asynctrack.testing import JournaledRun


def make_run(path: Path, at: int, values: list[dict[str, Any]], **config: Any) -> Path:
    with JournaledRun(path, config=config) as run:
        for step, data in enumerate(values):
            run.log(data, step)
        run.end()
    manifest = RunReader(path).manifest()
    manifest.created_at = f"2026-01-01T00:00:{at:02}.000+00:00"
    manifest.name = f"name {at}"
    save(path, manifest)
    return path


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Six runs: three learning rates with two seeds each, and one that has no metric."""
    for at, (lr, seed) in enumerate((lr, seed) for lr in (0.1, 0.01, 0.001) for seed in (1, 2)):
        values = [{"val/acc": acc, "loss": lr * seed} for acc in (0.5, 1 - lr - seed / 100, 0.25)]
        make_run(tmp_path / "sweep" / f"r{at}", at, values, lr=lr, seed=seed, model={"depth": 2}, opt="adam")
    make_run(tmp_path / "other" / "empty", 9, [], lr=0.5)
    return tmp_path


def listed(*arguments: object) -> list[dict[str, Any]]:
    done = said_here("ls", *arguments, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def ids(*arguments: object) -> list[str]:
    return [run["id"] for run in listed(*arguments)]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--where", "lr < 0.05"], ["r5", "r4", "r3", "r2"]),
        (["--where", "max(val/acc) > 0.98 and seed == 1"], ["r4"]),
        (["--where", "opt == 'adam'", "-n", "2"], ["r5", "r4"]),
        (["--sort", "-max(val/acc)"], ["r4", "r2", "r5", "r3", "r0", "r1", "empty"]),
        (["--sort=-max(val/acc)", "-n", "1"], ["r4"]),
        (["--sort", "max(val/acc)", "-n", "2"], ["r1", "r0"]),
        (["--sort", "-lr", "--project", "sweep", "-n", "1"], ["r1"]),
        (["--sort", "-seed,lr", "-n", "2"], ["r5", "r3"]),
        (["--sort", "name", "--where", "status == finished", "-n", "1"], ["r0"]),
    ],
)
def test_runs_are_chosen_and_sorted(sweep: Path, options: list[str], found: list[str]) -> None:
    assert ids(sweep, *options) == found


def test_columns_are_names_aggregates_and_patterns(sweep: Path) -> None:
    lines = said_here("ls", sweep / "sweep", "--columns", "lr, max(val/acc), best", "--sort", "lr").stdout.splitlines()
    assert lines[0].split()[:7] == ["run", "name", "status", "age", "lr", "max(val/acc)", "best"]
    assert "0.98" in lines[2]
    (run,) = listed(sweep, "-n", "1", "--sort", "lr", "--columns", "seed,last(loss),config.model.depth,tag")
    assert list(run["columns"].values()) == [2, 0.002, 2, []]
    (run,) = listed(sweep, "-n", "1", "--sort", "lr", "--columns", "max(val/*),l*")
    assert list(run["columns"]) == ["max(val/acc)", "last(loss)"]


def test_json_has_config_summary_and_labels(sweep: Path) -> None:
    (run,) = listed(sweep, "-n", "1", "--sort", "lr")
    assert run["config"] == {"lr": 0.001, "seed": 2, "model": {"depth": 2}, "opt": "adam"}
    assert run.keys() >= {
        "summary",
        "tags",
        "group",
        "job_type",
        "notes",
        "error",
        "dropped",
        "behind",
        "last",
        "bytes",
    }
    assert "columns" not in run


def test_without_columns_the_config_that_differs_and_last_values_are_shown(sweep: Path) -> None:
    title = said_here("ls", sweep / "sweep").stdout.splitlines()[0].split()
    assert title == ["run", "name", "status", "age", "lr", "seed", "val/acc", "loss", "records", "step", "size", "rate"]
    assert "val/acc" not in said_here("ls", sweep, "--keys", "loss").stdout


def test_groups_have_means_deviations_and_extremes(sweep: Path) -> None:
    lines = said_here("ls", sweep, "--group", "lr", "--columns", "max(val/acc)").stdout.splitlines()
    assert [line.split() for line in lines[:5]] == [
        ["lr", "runs", "max(val/acc)", "min", "to", "max"],
        ["0.001", "2", "0.984", "±", "0.007071", "0.979", "to", "0.989"],
        ["0.01", "2", "0.975", "±", "0.007071", "0.97", "to", "0.98"],
        ["0.1", "2", "0.885", "±", "0.007071", "0.88", "to", "0.89"],
        ["0.5", "1", "-"],
    ]
    first, *_, last = listed(sweep, "--group", "lr", "--columns", "max(val/acc),opt")
    assert (first["key"], first["value"], first["count"], first["runs"]) == ("lr", 0.001, 2, ["sweep/r5", "sweep/r4"])
    spread = first["columns"]["max(val/acc)"]
    assert spread == {
        "count": 2, "mean": pytest.approx(0.984), "std": pytest.approx(0.01 / math.sqrt(2)), "min": 0.979, "max": 0.989,
    }  # fmt: skip
    assert (first["columns"]["opt"], last["columns"]) == ("adam", {"max(val/acc)": None, "opt": None})
    groups = listed(sweep, "--group", "lr", "--sort", "-max(val/acc)", "-n", "2")
    assert [group["value"] for group in groups] == [0.001, 0.01]
    assert [group["value"] for group in listed(sweep, "--group", "seed")] == [1, 2, None]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--where", "max(val/ac) > 0"], "no run has `val/ac`; did you mean `val/acc`?"),
        (["--sort", "-lrr"], "no run has `lrr`; did you mean `lr`?"),
        (["--columns", "lr,sed"], "no run has `sed`; did you mean `seed`?"),
        (["--group", "dept"], "no run has `dept`"),
    ],
)
def test_name_that_no_run_has_is_said_with_the_one_that_was_meant(sweep: Path, options: list[str], said: str) -> None:
    done = said_here("ls", sweep, *options)
    assert done.returncode == 0
    assert done.stderr.startswith(f"asynctrack: {said}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("options", [["--where", "lr <"], ["--sort", "max("], ["--columns", "a b"], ["--group", ""]])
def test_wrong_expression_is_refused_with_its_place(sweep: Path, options: list[str]) -> None:
    done = said_here("ls", sweep, *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert "at character" in done.stderr
    assert "Traceback" not in done.stderr


def test_disk_usage_is_told_in_total(sweep: Path) -> None:
    assert said_here("ls", sweep).stdout.splitlines()[-1].startswith("7 runs, ")
    assert said_here("ls", sweep, "--where", "lr < 0.05").stdout.splitlines()[-1].startswith("4 of 7 runs, ")
    one = said_here("ls", sweep, "--where", "lr == 0.01 and seed == 1")
    assert one.stdout.splitlines()[-1].startswith("1 of 7 runs, ")


def test_marks_tell_of_dropped_records(sweep: Path) -> None:
    path = sweep / "sweep" / "dropping"
    with JournaledRun(path) as run:
        run.log({"loss": 1})
        run.journal()
        run._note({"note": "ring_ended", "ring": f"{run._ring:016x}", "end": "finished", "dropped": {"full": 12}})
        run.end()
    text = said_here("ls", sweep).stdout
    assert [line.split()[1:3] for line in text.splitlines() if line.startswith("sweep/dropping")] == [["finished", "*"]]
    assert "* dropped records: sweep/dropping: 12 full" in text


@pytest.mark.system
@pytest.mark.parametrize("columns", [60, 80, 200])
def test_names_and_metrics_are_seen_at_a_terminal(sweep: Path, columns: int) -> None:
    code, text = on_terminal(columns, "ls", sweep)
    lines = plain(text).splitlines()
    assert code == 0
    assert all(output.width_of(line) <= columns for line in lines)
    title = lines[0].split()
    assert title[:4] == ["run", "name", "status", "age"]
    assert set(title) >= ({"lr", "val/acc"} if columns >= 80 else {"lr"})
    assert ("size" in title) is (columns == 200)


def test_ids_are_as_short_as_they_stay_unique() -> None:
    made = ["20261129-034347-2c5a5b", "20261129-034347-2d5a5b", "20261129-034501-000000", "20261201-000000-000000"]
    assert list(short_ids([*made, "job", "job42"]).values()) == [
        "20261129-034347-2c", "20261129-034347-2d", "20261129-0345", "20261201", "job", "job42",
    ]  # fmt: skip
    assert short_ids(["20261129-034347-2c5a5b"]) == {"20261129-034347-2c5a5b": "20261129"}
    assert short_ids(made[:1] * 2) == {made[0]: made[0]}


def test_what_is_no_run_and_what_is_half_a_run_is_no_failure(sweep: Path) -> None:
    (sweep / "foreign" / "photos").mkdir(parents=True)
    (sweep / "foreign" / "photos" / "a.jpg").write_bytes(b"x")
    (sweep / "sweep" / "copied" / "journal").mkdir(parents=True)
    (sweep / "sweep" / "copied" / "run.json").write_text('{"id":')
    newer = make_run(sweep / "sweep" / "newer", 1, [{"loss": 1}])
    content = json.loads((newer / "run.json").read_text())
    (newer / "run.json").write_text(json.dumps({**content, "version": 99}))
    done = said_here("ls", sweep, "--sort", "-max(val/acc)", "--where", "status in ('damaged', 'unreadable') or lr < 1")
    assert (done.returncode, done.stderr) == (0, "")
    statuses = {line.split()[0]: line for line in done.stdout.splitlines() if line.startswith("sweep/")}
    assert "damaged" in statuses["sweep/copied"]
    assert "unreadable" in statuses["sweep/newer"]


def test_every_command_takes_a_value_that_begins_with_a_minus_behind_a_blank(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["ls", "--sort", "-lr"]) == 0
    with pytest.raises(SystemExit):
        cli.main(["ls", "--sort"])
    assert "expected one argument" in capsys.readouterr().err
