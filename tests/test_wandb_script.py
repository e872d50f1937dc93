"""`import asynctrack.wandb as wandb`: a script for W&B runs unchanged, and records what W&B itself would have recorded."""

from __future__ import annotations

import argparse
import copy
import importlib
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
from support import lines, manifest, records, run_child

import asynctrack
import asynctrack.wandb as wandb
from asynctrack._system import messages
from asynctrack._system.throttle import Throttle
from asynctrack.errors import InvalidSettings
from asynctrack.wandb import Run, notices

# What many scripts do, in the words of W&B's own examples: not a line of it knows of asynctrack.
SCRIPT = """
import argparse, math, os

import numpy

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--epochs", type=int, default=3)
args = parser.parse_args([])

def train(config):
    wandb.watch(None) if config.watched else None
    for epoch in range(config.epochs):
        for batch in range(4):
            wandb.log({"batch/loss": math.exp(-config["lr"] * (4 * epoch + batch)), "nested": {"lr": config.lr}})
        wandb.log({"val/acc": 0.5 + epoch / 10}, commit=False)
        wandb.log({"val/loss": 1 / (epoch + 1), "epoch": epoch})
    best = 1 / config.epochs
    wandb.run.summary["best_loss"] = best
    wandb.summary.update({"note": "done", "nested": {"deep": [1, 2.5, None]}})
    return best

run = wandb.init(project="demo", entity=None, name="baseline", group="sweep-1", job_type="train", tags=["a", "b"], notes="a note",
                 config=vars(args), reinit=True, settings=wandb.Settings(silent=True, console="off"))
assert wandb.run is run and run.id and run.name == "baseline" and run.project == "demo"
wandb.config.update({"layers": [64, 64], "model": {"depth": 3}, "watched": False})
wandb.config.seed = 7
wandb.config.update({"lr": 0.05}, allow_val_change=True)
assert wandb.config.lr == wandb.config["lr"] == 0.05 and wandb.config.get("nothing", 1) == 1 and "seed" in wandb.config
wandb.define_metric("epoch", hidden=True)
wandb.define_metric("val/*", step_metric="epoch")
train(wandb.config)
assert wandb.summary["val/loss"] == 1 / 3 and run.summary["best_loss"] == 1 / 3
wandb.log({
    "image": wandb.Image(numpy.eye(4), caption="eye"),
    "images": [wandb.Image(numpy.ones((2, 3, 3)))],
    "weights": wandb.Histogram([1, 2, 2, 3], num_bins=4),
    "table": wandb.Table(columns=["x", "y"], data=[[1, "a"], [2, "b"]]),
    "page": wandb.Html("<p>hello</p>"),
})
os.makedirs(wandb.run.dir, exist_ok=True)
with open(os.path.join(wandb.run.dir, "model.txt"), "w") as file:
    file.write("weights")
artifact = wandb.Artifact("model", type="model", metadata={"acc": 0.7})
artifact.add_file(os.path.join(wandb.run.dir, "model.txt"))
run.log_artifact(artifact, aliases=["best"])
wandb.save(os.path.join(wandb.run.dir, "model.txt"))
wandb.alert(title="over", text="it is over")
wandb.finish(exit_code=0)
assert wandb.run is None
wandb.finish()
"""
OURS = (
    "import asynctrack.wandb as wandb\n"
    + SCRIPT
    + """
import json
print(json.dumps(str(run.asynctrack.path)))
"""
)
THEIRS = (
    "import wandb\n"
    + SCRIPT
    + """
import glob, json
from pathlib import Path
from asynctrack.backends.wandb.files import WandbFile
from wandb.proto.wandb_internal_pb2 import Record
(path,) = glob.glob("wandb/offline-run-*/run-*.wandb")
found = {"rows": [], "config": {}, "summary": {}}

def nested(items):
    row = {}
    for item in items:
        *outer, last = item.nested_key or [item.key]
        inner = row
        for key in outer:
            inner = inner.setdefault(key, {})
        inner[last] = json.loads(item.value_json)
    return row

for payload in WandbFile(Path(path))._payloads():
    record = Record()
    record.ParseFromString(payload)
    kind = record.WhichOneof("record_type")
    if kind == "history":
        found["rows"].append(nested(record.history.item))
    elif kind == "run":
        found["run"] = {"name": record.run.display_name, "group": record.run.run_group, "job_type": record.run.job_type, "tags": list(record.run.tags), "notes": record.run.notes}
        found["config"].update({item.key: json.loads(item.value_json) for item in record.run.config.update})
    elif kind in ("config", "summary"):
        updates = getattr(record, kind).update
        found[kind].update(nested(updates))
print(json.dumps(found))
"""
)
# W&B's own fields, and the words in which each says what a value is.
KINDS = {"image-file": "image", "table-file": "table", "html-file": "html", "images/separated": "images"}


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has just begun."""
    monkeypatch.setattr(messages, "_throttle", Throttle())
    monkeypatch.setattr(notices, "_throttle", Throttle())


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what W&B and we add to it, flat, with the kinds of its values in place of these."""
    shown = {}
    for key, value in row.items():
        if isinstance(value, dict) and "_type" in value:
            value = KINDS.get(value["_type"], value["_type"])
        elif isinstance(value, dict):
            shown.update({f"{key}/{name}": item for name, item in plain(value).items()})
            continue
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            value = f"{value[0]['_type']}s"
        if not key.startswith("_"):
            shown[key] = value
    return shown


def run_theirs(folder: Path) -> dict[str, Any]:
    """What W&B records of the script."""
    environment = {
        **os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false", "HOME": str(folder),
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }  # fmt: skip
    environment.pop("WANDB_SERVICE", None)
    done = subprocess.run(
        [sys.executable, "-c", THEIRS], cwd=folder, env=environment, capture_output=True, text=True, timeout=55
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.system
def test_script_records_what_it_records_with_wandb(
    own_host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb.sdk", reason="wandb is not installed")
    theirs = run_theirs(tmp_path)
    monkeypatch.chdir(tmp_path)
    run = Path(run_child(OURS))
    ours = manifest(run)
    assert [plain(line) for line in lines(run)] == [plain(row) for row in theirs["rows"]]
    assert [line["_step"] for line in lines(run)] == [row["_step"] for row in theirs["rows"]]
    assert {key: value for key, value in ours["config"].items() if key != "_metrics"} == {
        key: value for key, value in theirs["config"].items() if key != "_wandb"
    }
    said = {key: value for key, value in ours["summary"].items() if not key.startswith("artifacts/")}
    flat = plain(theirs["summary"])
    assert plain(said).items() <= flat.items()
    recorded = asynctrack.open_run(run)
    assert all(
        recorded.summarise(key) == value for key, value in flat.items() if key in ("batch/loss", "epoch", "val/acc")
    )
    facts = {"name": ours["name"], **ours["labels"]}
    assert facts == theirs["run"]
    assert ours["status"] == "finished"


@pytest.mark.system
def test_script_leaves_its_files_with_the_run(own_host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    run = Path(run_child(OURS))
    assert run.parent == tmp_path / "asynctrack_runs" / "demo"
    summary = manifest(run)["summary"]
    assert (summary["artifacts/model"]["type"], summary["artifacts/model"]["metadata"]) == (
        "model",
        {"acc": 0.7, "aliases": ["best"]},
    )
    for name in ("model", "model.txt"):
        assert (run / summary[f"artifacts/{name}"]["path"] / "model.txt").read_text() == "weights"


# Each name by itself


@pytest.fixture
def run(shared_host: Path, runs: Path) -> Iterator[Run]:
    with wandb.init(dir=runs) as run:
        yield run
    assert wandb.run is None


def told(run: Run) -> dict[str, Any]:
    """What is recorded of a run, beside its records."""
    run.finish()
    return manifest(run.asynctrack.path)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage().removeprefix("asynctrack: ") for record in caplog.records]


def test_module_knows_the_current_run(run: Run) -> None:
    assert wandb.run is run
    assert wandb.config is run.config
    assert wandb.summary is run.summary
    run.finish()
    assert wandb.run is None


def test_module_without_a_run_says_so() -> None:
    assert wandb.run is None
    assert repr(wandb.config) == "<config of no run>"
    for use in (
        lambda: wandb.config.lr,
        lambda: wandb.config["lr"],
        lambda: wandb.summary.update({"a": 1}),
        lambda: wandb.define_metric("x"),
        lambda: wandb.log({}),
    ):
        with pytest.raises(wandb.Error, match="needs an open run, and there is none"):
            use()
    with pytest.raises(AttributeError, match=r"module 'asynctrack.wandb' has no attribute 'nonsense'"):
        _ = wandb.nonsense  # type: ignore[attr-defined]  # the mistake


@pytest.mark.parametrize("name", ["Api", "agent", "sweep", "controller"])
def test_name_that_asks_the_server_is_sent_to_the_package_that_has_it(name: str) -> None:
    assert not hasattr(wandb, name)
    with pytest.raises(AttributeError, match=f"take it from W&B's own package, by `from wandb import {name}`"):
        getattr(wandb, name)


def test_the_package_itself_knows_nothing_of_it() -> None:
    for name in ("run", "config", "summary", "login", "watch", "plot", "nonsense"):
        assert not hasattr(asynctrack, name)
        with pytest.raises(ImportError):
            importlib.import_module(f"asynctrack.{name}")
    assert type(asynctrack) is type(importlib)


def test_records_that_are_kept_back_are_one_with_the_next(run: Run) -> None:
    run.log({"a": 1, "b": {"c": 1}}, commit=False)
    wandb.log({"a": 2, "image": asynctrack.Text("x")}, step=7, commit=False)
    run.log({"d": 3})
    run.log({"e": 4}, commit=True)
    run.log({"f": 5}, commit=False)
    run.finish()
    found = [
        (record.step, {key: str(value) for key, value in record.data.items()})
        for record in records(run.asynctrack.path)
    ]
    assert found == [(7, {"a": "2", "b": "{'c': 1}", "image": "text", "d": "3"}), (1, {"e": "4"}), (2, {"f": "5"})]
    assert run.asynctrack.stats().accepted == 3


def test_records_that_are_kept_back_are_recorded_when_the_script_ends(own_host: Path, runs: Path) -> None:
    script = """
import asynctrack, json, os, sys
run = asynctrack.init("p", dir=sys.argv[1])
run.log({"a": 1}, commit=False)
if os.fork() == 0:
    run.log({"child": 1})
    os._exit(0)
os.wait()
print(json.dumps(str(run.path)))
"""
    found = [record.data for record in records(Path(run_child(script, runs)))]
    assert sorted(found, key=str) == [{"a": 1}, {"child": 1}]


def test_steps_below_the_last_are_kept(run: Run) -> None:
    for step in (5, 3, 5, 4):
        wandb.log({"x": step}, step=step)
    run.finish()
    assert [record.step for record in records(run.asynctrack.path)] == [5, 3, 5, 4]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (None, 2.0),
        ("min", 1.0),
        ("max", 3.0),
        ("mean", 2.0),
        ("first", 3.0),
        ("last", 2.0),
        ("min,max", {"min": 1.0, "max": 3.0}),
    ],
)
def test_summary_of_asynctrack_itself_has_one_value_or_several_by_name(
    run: Run, how: str | None, expected: object
) -> None:
    own = run.asynctrack
    if how is not None:
        own.define_metric("val/loss", summary=how)
    for value in (3.0, 1.0, 2.0):
        run.log({"val": {"loss": value}})
    assert own.summary["val/loss"] == expected == own.summary.get("val/loss")
    assert own.summary.get("nothing") is None
    with pytest.raises(KeyError, match="nothing"):
        _ = own.summary["nothing"]
    own.summary["val/loss"] = 7
    assert own.summary["val/loss"] == 7
    assert "val/acc" not in own.summary
    with pytest.raises(InvalidSettings, match=r"summary must be one of 'last'.*; got 'best'"):
        own.define_metric("x", summary="best")
    with pytest.raises(InvalidSettings, match="goal must be one of 'minimize', 'maximize'; got 'up'"):
        own.define_metric("x", goal="up")  # type: ignore[arg-type]  # the mistake


def test_summary_is_a_mapping_that_knows_what_was_logged(run: Run) -> None:
    run.define_metric("loss", summary="min,max")
    run.define_metric("v.*", summary="mean")
    run.define_metric("hidden", summary="none")
    for value in (3, 1, 2):
        run.log({"loss": value, "v": {"acc": value}, "hidden": value, "last": value})
    summary = run.summary
    assert (summary["last"], summary["loss"]["min"], summary.v.acc.mean) == (2, 1, 2)
    assert set(summary) == {"loss", "v", "last"} == set(summary.keys()) == set(dict(summary))
    assert "hidden" not in summary and "v" in summary and summary.get("nothing", 5) == 5
    summary["v"]["note"] = "set"
    summary.update({"w": {"a": {"b": 1}}})
    summary.best = 1
    run.log({"later": 0})
    assert dict(summary["v"]) == {"acc": {"mean": 2}, "note": "set"}
    assert {"best", "w", "later"} <= summary.keys()
    del summary["w"]["a"]
    del summary.best
    run.log({"w": 7})
    assert (summary["w"], "best" in summary) == (7, False)
    assert told(run)["summary"] == {"v": {"note": "set"}}


def test_metric_without_a_number_has_no_least_one_and_leaves_the_others_theirs(run: Run) -> None:
    run.define_metric("*", summary="MIN")
    run.log({"phase": "train", "loss": 1.0, "nan": math.nan})
    run.log({"phase": "eval", "loss": 0.5, "nan": math.nan})
    run.asynctrack.flush()
    assert run.summary["loss"]["min"] == 0.5
    assert "phase" not in run.summary
    assert "nan" not in run.summary


def test_define_metric_refuses_what_wandb_refuses(run: Run) -> None:
    for wrong in ({"name": "a*b"}, {"name": ""}, {"name": "x", "summary": "least"}):
        with pytest.raises(wandb.Error, match=r"define_metric|summary must be one of"):
            run.define_metric(**wrong)


def test_config_keeps_what_is_set_unless_it_may_change(run: Run) -> None:
    config = wandb.config
    config.update(argparse.Namespace(lr=0.1, model="mlp"))
    config.lr = 0.1
    for change in (lambda: config.update({"lr": 0.2}), lambda: setattr(config, "lr", 0.2)):
        with pytest.raises(wandb.Error, match=r"config has 'lr' already, as 0.1.*allow_val_change=True"):
            change()
    config.update({"lr": 0.2}, allow_val_change=True)
    config.layers = [1, 2]
    config.setdefaults({"lr": 5, "seed": 7})
    assert (config.lr, config["model"], config.layers, config.get("no", 1)) == (0.2, "mlp", [1, 2], 1)
    assert isinstance(config, wandb.Config) and "lr" in config and dict(config) == config.as_dict()
    with pytest.raises(AttributeError, match="config has no 'nothing'"):
        _ = config.nothing
    assert not hasattr(config, "__array__")
    assert told(run)["config"] == {"lr": 0.2, "model": "mlp", "layers": [1, 2], "seed": 7}


def test_a_copy_of_the_config_writes_nothing(run: Run) -> None:
    run.config.update({"lr": 0.1, "net": {"depth": 3}})
    for copied in (copy.copy(run.config), copy.deepcopy(run.config), dict(run.config), run.config.as_dict()):
        copied["lr"] = 5
        copied["new"] = 1
    copy.deepcopy(run.config)["net"]["depth"] = 4
    assert run.config.lr == 0.1
    assert told(run)["config"] == {"lr": 0.1, "net": {"depth": 3}}


def test_a_config_that_is_assigned_is_that_of_the_run(shared_host: Path, runs: Path, tmp_path: Path) -> None:
    (tmp_path / "conf.json").write_text('{"of_file": {"value": 1, "desc": "as W&B has it"}, "wandb_version": 1}')
    wandb.config = {"before": 1}  # type: ignore[assignment]  # as scripts have it
    run = wandb.init(dir=runs, config=str(tmp_path / "conf.json"))
    assert (wandb.config.before, wandb.config.of_file) == (1, 1)
    wandb.config = argparse.Namespace(lr=0.1, before=2)  # type: ignore[assignment]  # as scripts have it
    wandb.log({"x": 1})
    assert wandb.config is run.config
    wandb.config = {"late": 1}  # type: ignore[assignment]  # as scripts have it
    assert told(run)["config"] == {"before": 2, "of_file": 1, "lr": 0.1, "late": 1}


def test_names_of_a_run_are_kept_with_it_and_may_change(shared_host: Path, runs: Path) -> None:
    with wandb.init(
        project="p", dir=runs, entity="team", group="g", job_type="eval", tags=("a", "b"), notes="n", name="pretty"
    ) as run:
        assert (run.entity, run.group, run.job_type, run.tags, run.notes) == ("team", "g", "eval", ("a", "b"), "n")
        assert (run.name, run.dir, run.url, run.get_url()) == ("pretty", str(run.asynctrack.path), None, None)
        assert run.path == f"team/p/{run.id}"
    found = manifest(run.asynctrack.path)
    assert found["labels"] == {"entity": "team", "group": "g", "job_type": "eval", "notes": "n", "tags": ["a", "b"]}
    with wandb.init(project="p", id=run.id, dir=runs, resume=True, notes="again") as run:
        assert (run.name, run.group, run.notes, run.resumed) == ("pretty", "g", "again", True)
        run.tags += ("x",)
        run.notes, run.name = "better", "prettier"
        assert (run.tags, run.notes, run.name) == (("a", "b", "x"), "better", "prettier")
        run.asynctrack.flush("journaled")
        assert asynctrack.open_run(run.asynctrack.path).manifest().name == "prettier"
    found = manifest(run.asynctrack.path)
    assert (found["name"], found["labels"]["tags"], found["labels"]["notes"]) == ("prettier", ["a", "b", "x"], "better")
    with pytest.raises(InvalidSettings, match="each of the tags must be a text; got 7"):
        wandb.init(project="p", dir=runs, tags=[7])  # type: ignore[list-item]  # the mistake
    with pytest.raises(wandb.UsageError, match="finished"):
        run.name = "late"


def test_facts_of_a_run_are_there(shared_host: Path, runs: Path) -> None:
    with wandb.init(project="p", dir=runs, mode="offline") as run:
        assert (run.step, run.starting_step, run.resumed, run.disabled, run.offline) == (0, 0, False, False, True)
        assert (run.project_url, run.sweep_id, run.settings.mode, run.settings.run_id) == (
            None,
            None,
            "offline",
            run.id,
        )
        assert abs(run.start_time - time.time()) < 60
        run.log({"a": 1})
        run.log({"a": 1}, commit=False)
        run.log({"a": 2})
        assert run.step == 2
        run.log({"a": 3}, step=9)
        assert run.step == 9
        run.log({"a": 3}, step=19)
        assert copy.deepcopy(run) is run
    assert manifest(run.asynctrack.path)["offline"]
    with wandb.init(project="p", dir=runs, id=run.id, resume="must") as run:
        assert (run.resumed, run.step, run.starting_step) == (True, 20, 20)
        assert run.summary["a"] == 3


VARIABLES = {
    "WANDB_PROJECT": "of-env", "WANDB_ENTITY": "team", "WANDB_NAME": "named", "WANDB_RUN_ID": "job-7", "WANDB_RUN_GROUP": "g",
    "WANDB_JOB_TYPE": "eval", "WANDB_TAGS": "a, b", "WANDB_NOTES": "n", "WANDB_RESUME": "allow",
}  # fmt: skip


def test_the_environment_says_what_the_script_does_not(
    shared_host: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in {**VARIABLES, "WANDB_DIR": str(runs)}.items():
        monkeypatch.setenv(variable, value)
    for resumed in (False, True):  # a job that is begun again goes on with its run
        with wandb.init() as run:
            assert (run.resumed, run.id, run.project, run.name) == (resumed, "job-7", "of-env", "named")
            assert (run.entity, run.group, run.job_type, run.tags, run.notes) == ("team", "g", "eval", ("a", "b"), "n")
            assert run.asynctrack.path == runs / "of-env" / "job-7"
    with wandb.init(project="given", settings=wandb.Settings(run_group="set", run_name="set"), name="given") as run:
        assert (run.project, run.name, run.group) == ("given", "given", "set")
    assert asynctrack.init("own", dir=runs, mode="disabled").project == "own"
    asynctrack.finish()


@pytest.mark.parametrize(
    ("variable", "value", "mode"),
    [
        ("WANDB_MODE", "disabled", "disabled"),
        ("WANDB_MODE", "offline", "offline"),
        ("WANDB_MODE", "dryrun", "offline"),
        ("WANDB_DISABLED", "true", "disabled"),
        ("WANDB_DISABLED", "false", "online"),
    ],
)
def test_the_environment_says_the_mode(
    shared_host: Path, runs: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, mode: str
) -> None:
    monkeypatch.setenv(variable, value)
    with wandb.init(dir=runs) as run:
        assert (run.disabled, run.offline, run.settings.mode) == (mode == "disabled", mode == "offline", mode)
    monkeypatch.setenv("ASYNCTRACK_MODE", "disabled")
    with wandb.init(dir=runs) as run:
        assert run.disabled


def test_a_silent_environment_is_told_nothing(
    run: Run, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb.termlog("word")
    wandb.termwarn("of warning", repeat=False)
    wandb.termwarn("of warning", repeat=False)
    wandb.termerror("of error")
    assert wandb.init() is run
    heard = capfd.readouterr().err.splitlines()
    assert heard[:3] == ["wandb: word", "wandb: WARNING of warning", "wandb: ERROR of error"]
    assert heard[3].startswith(f"wandb: init() while run {run.id} is open: that is returned")
    monkeypatch.setenv("WANDB_SILENT", "true")
    wandb.termlog("word")
    assert wandb.init() is run
    assert capfd.readouterr().err == ""


@pytest.mark.system
def test_auto_resume_goes_on_with_the_last_run_that_has_not_finished(
    own_host: Path, runs: Path, tmp_path: Path
) -> None:
    script = """
import asynctrack.wandb as wandb, json, os, sys
run = wandb.init(project="p", dir=sys.argv[1], resume="auto")
run.log({"x": 1})
run.asynctrack.flush("journaled")
print(json.dumps([run.id, run.resumed]), flush=True)
if sys.argv[2] == "killed":
    os.kill(os.getpid(), 9)
"""
    found = []
    for end in ("killed", "finished", "finished"):  # the last of them opens a run of its own
        done = subprocess.run(
            [sys.executable, "-c", script, str(runs), end], capture_output=True, text=True, timeout=50
        )
        found.append(json.loads(done.stdout))
    assert [resumed for _, resumed in found] == [False, True, False]
    assert found[0][0] == found[1][0] != found[2][0]


@pytest.mark.system
def test_auto_resume_leaves_a_run_that_lives_alone(own_host: Path, runs: Path) -> None:
    script = """
import asynctrack.wandb as wandb, json, sys
run = wandb.init(project="p", dir=sys.argv[1], resume="auto")
print(json.dumps([run.id, run.resumed]))
"""
    with wandb.init(project="p", dir=runs, resume="auto") as run:
        found, resumed = run_child(script, runs)
    assert found != run.id and not resumed


def test_a_forked_child_logs_to_the_run_or_opens_its_own(own_host: Path, runs: Path) -> None:
    script = """
import asynctrack.wandb as wandb, json, os, sys
run = wandb.init(project="p", dir=sys.argv[1])
run.log({"parent": 1})
if os.fork() == 0:
    wandb.log({"child": 1})
    with wandb.init(project="p", dir=sys.argv[1]) as own:
        own.log({"own": 1})
        print(json.dumps(str(own.asynctrack.path)), flush=True)
    os._exit(0)
os.wait()
run.finish()
print(json.dumps(str(run.asynctrack.path)))
"""
    run = Path(run_child(script, runs))
    (own,) = (path for path in run.parent.iterdir() if path != run)
    assert sorted(key for record in records(run) for key in record.data) == ["child", "parent"]
    assert [record.data for record in records(own)] == [{"own": 1}]


def test_run_without_a_project_has_one(shared_host: Path, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    with wandb.init(dir=runs, mode="disabled") as run:
        assert run.project == "uncategorized"
        assert run.dir == run.dir
        Path(run.dir).rmdir()  # a script may write there
    monkeypatch.setenv("WANDB_PROJECT", "of the environment")
    for given, project in ((None, "of the environment"), ("given", "given")):
        with wandb.init(project=given, dir=runs, mode="disabled") as run:
            assert run.project == project
    with asynctrack.init(dir=runs, mode="disabled") as own:
        assert own.project == "uncategorized", "it is W&B's variable"


def test_a_disabled_run_checks_nothing_and_keeps_its_summary_to_itself(runs: Path) -> None:
    run = wandb.init(mode="disabled", dir=runs, config={"lr": 1})
    run.log({"a": 1, "b": {"c": 2}})
    run.summary["q"] = 2
    assert (dict(run.summary).keys(), run.summary["q"], run.summary["b"]["c"]) == ({"a", "b", "q"}, 2, 2)
    run.log_artifact("nofile").wait().download()
    assert run.use_artifact("nothing:latest").version()
    assert (run.disabled, run.step, run.config.lr) == (True, 0, 1)
    run.finish(1)
    assert wandb.run is None
    assert not runs.exists()


# A second init


@pytest.mark.parametrize("reinit", [None, "default", "return_previous", False])
def test_second_init_returns_the_first_run(run: Run, runs: Path, reinit: Any) -> None:
    assert wandb.init(project="other", dir=runs, reinit=reinit) is run
    with pytest.raises(wandb.Error, match="to be resumed while another is open"):
        wandb.init(project="other", dir=runs, resume="must", id="x")


@pytest.mark.parametrize("reinit", [True, "finish_previous"])
def test_second_init_may_finish_all_that_are_open(run: Run, runs: Path, reinit: Any) -> None:
    beside = wandb.init(dir=runs, reinit="create_new")
    with wandb.init(dir=runs, reinit=reinit) as second:
        assert wandb.run is second
        assert [manifest(each.asynctrack.path)["status"] for each in (run, beside)] == ["finished", "finished"]
        with pytest.raises(wandb.UsageError):
            run.log({"x": 1})


def test_second_init_may_open_a_run_beside_the_first(run: Run, runs: Path) -> None:
    with wandb.init(dir=runs, reinit="create_new") as second:
        assert wandb.run is run is not second
        assert wandb.init() is second
        wandb.log({"first": 1})
        second.log({"second": 1})
    run.finish()
    assert [[*record.data] for each in (run, second) for record in records(each.asynctrack.path)] == [
        ["first"],
        ["second"],
    ]


def test_asynctracks_own_second_init_opens_a_second_run(run: Run, runs: Path) -> None:
    own = run.asynctrack
    assert asynctrack.init(dir=runs, reinit="return_previous") is own
    with asynctrack.init(dir=runs) as second:
        assert own.log({"x": 1})
    with asynctrack.init(dir=runs, reinit="finish_previous") as third:
        assert second is not third
        assert manifest(own.path)["status"] == "finished"
    assert wandb.run is None
    with pytest.raises(InvalidSettings, match=r"reinit must be one of 'default'.*; got True"):
        asynctrack.init(dir=runs, reinit=True)  # type: ignore[arg-type]  # W&B's


def test_config_may_be_parsed_arguments_and_be_filtered(shared_host: Path, runs: Path) -> None:
    config: Any = argparse.Namespace(lr=0.1, secret="x", other=1)
    with wandb.init(dir=runs, config=config, config_exclude_keys=["secret"]) as run:
        assert dict(run.config) == {"lr": 0.1, "other": 1}
    with wandb.init(dir=runs, config=config, config_include_keys=["lr"]) as run:
        assert dict(run.config) == {"lr": 0.1}


def test_settings_may_be_made_before(runs: Path) -> None:
    for settings in (
        wandb.Settings(dir=runs, mode="disabled"),
        wandb.Settings(root_dir=str(runs), mode="disabled"),
        {"dir": runs, "mode": "disabled"},
        asynctrack.Settings(dir=runs, mode="disabled"),
    ):
        with wandb.init(project="p", settings=settings) as run:
            assert run.disabled and run.asynctrack.path.parent == runs / "p"
    with asynctrack.init("p", settings={"mode": "disabled"}, dir=runs / "own") as own:
        assert own.path.parent == runs / "own" / "p"
    with pytest.raises(InvalidSettings, match=r"settings must be of `asynctrack\.Settings`"):
        asynctrack.init("p", settings=7)  # type: ignore[arg-type]  # the mistake
    for kind in (wandb.Settings, asynctrack.Settings):
        with pytest.raises(TypeError, match="nonsense"):
            kind(nonsense=1)


@pytest.mark.parametrize(("exit_code", "status"), [(0, "finished"), (1, "failed"), (None, "finished")])
def test_exit_code_says_how_the_run_ended(run: Run, exit_code: int | None, status: str) -> None:
    run.finish(exit_code)
    assert manifest(run.asynctrack.path)["status"] == status


def test_what_is_not_supported_says_so_by_name_and_once(run: Run, runs: Path, caplog: pytest.LogCaptureFixture) -> None:
    plots: Any = wandb.plot
    for _ in range(2):
        assert wandb.watch(None, log="all") == ()
        wandb.unwatch()
        wandb.alert(title="over", text="it is over", level=wandb.AlertLevel.INFO)
        wandb.Settings(start_method="thread", _disable_stats=True)
        assert wandb.login(key="secret") and wandb.login()
        wandb.require("core")
        run.log({"video": wandb.Video("x.mp4", fps=4), "plot": plots.line(None, "x", "y")})
        wandb.init(
            dir=runs, mode="disabled", reinit="create_new", save_code=True, sync_tensorboard=False, resume_from=None
        ).finish()
    assert sorted(said(caplog)) == sorted([
        "watch() is not supported, and ignored; log gradients as arrays or asynctrack.Histogram",
        "alert() is not supported, and ignored; what it says is only logged",
        *["alert: over: it is over"] * 2,
        "Settings(start_method=...) is not supported, and ignored",
        "Settings(_disable_stats=...) is not supported, and ignored",
        "login(key=...) is not supported, and ignored; the W&B backend takes its key from WANDB_API_KEY or `wandb login`",
        "wandb.Video is not supported, and ignored",
        "wandb.plot.line is not supported, and ignored",
        "init(save_code=...) is not supported, and ignored",
    ])  # fmt: skip
    assert "secret" not in caplog.text
    run.finish()
    (first, _) = records(run.asynctrack.path)
    assert first.data["video"].read() == b"wandb.Video is not supported"


def test_names_of_wandbs_are_there_for_annotations_and_excepts() -> None:
    def annotated(run: wandb.sdk.wandb_run.Run, video: wandb.Video | None, config: wandb.Config) -> None: ...

    assert annotated.__annotations__
    assert issubclass(wandb.CommError, wandb.Error) and issubclass(wandb.UsageError, wandb.Error)
    assert issubclass(asynctrack.AsynctrackError, wandb.Error)
    assert wandb.__version__ >= "0.20"
    assert len(wandb.util.generate_id()) == 8
    assert isinstance(wandb.Object3D.from_point_cloud([]), wandb.Object3D)
    assert isinstance(wandb.Molecule.from_smiles("CO"), wandb.Molecule)


def test_a_figure_of_plotly_or_matplotlib_is_a_page(run: Run) -> None:
    plotly = pytest.importorskip("plotly.graph_objects")
    pyplot = pytest.importorskip("matplotlib.pyplot")
    run.log({"plotly": wandb.Plotly(plotly.Figure()), "drawn": wandb.Plotly(pyplot.figure())})
    pyplot.close("all")
    with pytest.raises(wandb.Error, match="a figure of plotly or matplotlib"):
        wandb.Plotly(7)
    run.finish()
    (record,) = records(run.asynctrack.path)
    assert b"plotly" in record.data["plotly"].read()
    assert b"data:image/png;base64" in record.data["drawn"].read()


def test_an_artifact_has_wandbs_names_and_is_found_again(run: Run, runs: Path, tmp_path: Path) -> None:
    artifact = wandb.Artifact("model", type="model", metadata={"acc": 1})
    with artifact.new_file("notes/a.txt") as file:
        file.write("words")
    artifact.add(wandb.Table(columns=["x"], data=[[1]]), "table")
    artifact.add_reference("s3://bucket/file", name="far")
    assert run.log_artifact(artifact, aliases=["best"]).wait() is artifact
    assert (artifact.version, artifact.aliases, artifact.qualified_name) == ("v0", ["best"], "model:v0")
    assert (Path(artifact.download(tmp_path / "copy")) / "notes" / "a.txt").read_text() == "words"
    run.finish()
    with wandb.init(dir=runs) as later:
        found = later.use_artifact("team/uncategorized/model:latest")
        assert (found.type, found.metadata["acc"], found.metadata["references"]) == (
            "model",
            1,
            {"far": "s3://bucket/file"},
        )
        folder = Path(found.download(tmp_path / "again"))
        assert json.loads((folder / "table.table.json").read_text()) == {"columns": ["x"], "data": [[1]]}
        with pytest.raises(wandb.CommError, match="has kept an artifact 'other'"):
            wandb.use_artifact("other:v3")


def test_save_keeps_files_with_the_run(run: Run, tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(name)
    found = wandb.save(str(tmp_path / "*.txt"), base_path=str(tmp_path))
    assert found == [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]
    assert wandb.save(str(tmp_path / "nothing*")) == []
    run.log_artifact(tmp_path / "a.txt", name="own", type="text")
    summary = told(run)["summary"]
    assert sorted(summary) == ["artifacts/a.txt", "artifacts/b.txt", "artifacts/own"]
    assert (run.asynctrack.path / summary["artifacts/own"]["path"] / "a.txt").read_text() == "a.txt"


@pytest.mark.system
def test_values_and_names_arrive_at_wandb(
    own_host: Path, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the backend of that name, offline, as the real SDK writes it."""
    pytest.importorskip("wandb.sdk", reason="wandb is not installed")
    monkeypatch.setenv("HOME", str(tmp_path))
    with asynctrack.init(
        "demo",
        dir=runs,
        backends=[asynctrack.WandB(mode="offline")],
        group="g",
        tags=["a"],
        notes="n",
        job_type="train",
    ) as run:
        run.define_metric("loss", step_metric="epoch", summary="min")
        image = asynctrack.Image(numpy.eye(3), caption="c")
        for loss in (2.0, 1.0, 3.0):
            run.log({"loss": loss, "epoch": loss})
        run.log({"image": image, "images": [image, image], "text": asynctrack.Text("<long>"), "page": asynctrack.Html("<p>"),
                 "table": asynctrack.Table(["n", "seen"], [[1, image]]), "h": asynctrack.Histogram([1, 2])})  # fmt: skip
        run.name, run.tags, run.notes = "renamed", ["a", "b"], "changed"
        run.flush(timeout_s=40)
    assert run.stats().backends["wandb"].behind == 0
    found = run_child(THEIRS.split(SCRIPT)[1].replace('glob.glob("', f'glob.glob("{run.path}/'))
    assert [row["loss"] for row in found["rows"][:3]] == [2.0, 1.0, 3.0]
    kinds = {"image": "image", "images": "images", "text": "html", "page": "html", "table": "table", "h": "histogram"}
    assert {key: value for key, value in plain(found["rows"][3]).items() if key in kinds} == kinds
    assert found["rows"][3]["image"]["caption"] == "c"
    changed = {"name": "renamed", "tags": ["a", "b"], "notes": "changed"}
    assert found["run"] == {"group": "g", "job_type": "train", **changed}
    assert found["summary"]["loss"]["min"] == 1.0


@pytest.mark.slow
def test_server_without_artifacts_gets_tables_as_pages(
    own_host: Path, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb.sdk", reason="wandb is not installed")
    from wandb_server import KEY, WandbServer

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with WandbServer() as server, asynctrack.init(dir=runs, backends=[asynctrack.WandB(base_url=server.url)]) as run:
        run.log({"loss": 1.0, "image": asynctrack.Image(numpy.eye(3))})
        run.log({"loss": 0.5, "table": asynctrack.Table(["a"], [["<x>"]])})
        run.finish()
        (stored,) = server.runs.values()
        first, second = stored.rows()
    assert (first["loss"], first["image"]["_type"]) == (1, "image-file")
    assert (second["loss"], second["table"]["_type"]) == (0.5, "html-file")
