"""`import asynctrack as wandb`: a script for W&B runs unchanged, and records what W&B itself would have recorded."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
from support import lines, manifest, records, run_child

import asynctrack
from asynctrack import Run
from asynctrack.errors import InvalidSettings, NoCurrentRun
from asynctrack.wandb_api.unsupported import _said

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
    "import asynctrack as wandb\n"
    + SCRIPT
    + """
import json
print(json.dumps(str(run.path)))
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
    _said.clear()


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
    assert {key: value for key, value in ours["config"].items() if key != "_wandb"} == {
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
def run(shared_host: Path, runs: Path) -> Any:
    with asynctrack.init(dir=runs) as run:
        yield run


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage().removeprefix("asynctrack: ") for record in caplog.records]


def test_module_knows_the_current_run(run: Run) -> None:
    assert asynctrack.run is run
    assert asynctrack.config is run.config
    assert asynctrack.summary is run.summary
    run.finish()
    assert asynctrack.run is None


def test_module_without_a_run_says_so() -> None:
    import asynctrack.run as nothing  # it is the current run, as `wandb.run` is

    assert nothing is None
    assert asynctrack.run is None
    assert repr(asynctrack.config) == "<config of no run>"
    for use in (
        lambda: asynctrack.config.lr,
        lambda: asynctrack.config["lr"],
        lambda: asynctrack.summary.update({"a": 1}),
        lambda: asynctrack.define_metric("x"),
        lambda: asynctrack.log({}),
    ):
        with pytest.raises(NoCurrentRun, match="needs an open run, and none is"):
            use()
    with pytest.raises(AttributeError, match="module 'asynctrack' has no attribute 'nonsense'"):
        _ = asynctrack.nonsense


def test_records_that_are_kept_back_are_one_with_the_next(run: Run) -> None:
    assert run.log({"a": 1, "b": {"c": 1}}, commit=False)
    assert asynctrack.log({"a": 2, "image": asynctrack.Text("x")}, step=7, commit=False)
    run.log({"d": 3})
    run.log({"e": 4}, commit=True)
    run.log({"f": 5}, commit=False)
    run.finish()
    found = [(record.step, {key: str(value) for key, value in record.data.items()}) for record in records(run.path)]
    assert found == [(7, {"a": "2", "b": "{'c': 1}", "image": "text", "d": "3"}), (1, {"e": "4"}), (2, {"f": "5"})]
    assert run.stats().accepted == 3


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
        assert asynctrack.log({"x": step}, step=step)
    run.finish()
    assert [record.step for record in records(run.path)] == [5, 3, 5, 4]


@pytest.mark.parametrize(
    ("how", "expected"), [(None, 2.0), ("min", 1.0), ("max", 3.0), ("mean", 2.0), ("first", 3.0), ("last", 2.0)]
)
def test_summary_has_what_was_logged(run: Run, how: str | None, expected: float) -> None:
    if how is not None:
        asynctrack.define_metric("val/loss", summary=how)
    for value in (3.0, 1.0, 2.0):
        run.log({"val": {"loss": value}})
    assert run.summary["val/loss"] == expected == run.summary.get("val/loss")
    assert run.summary.get("nothing") is None
    with pytest.raises(KeyError, match="nothing"):
        _ = run.summary["nothing"]
    run.summary["val/loss"] = 7
    assert run.summary["val/loss"] == 7
    assert "val/acc" not in run.summary


def test_config_is_a_dict_and_its_names_are_attributes(run: Run) -> None:
    config = asynctrack.config
    config.update(argparse.Namespace(lr=0.1, model="mlp"))
    config.update({"lr": 0.2}, allow_val_change=True)
    config.layers = [1, 2]
    config.setdefault("lr", 5)
    assert (config.lr, config["model"], config.layers, dict(config)) == (0.2, "mlp", [1, 2], config.as_dict())
    with pytest.raises(AttributeError, match="'nothing' is not set"):
        _ = config.nothing
    assert not hasattr(config, "__array__")
    run.finish()
    assert manifest(run.path)["config"] == {"lr": 0.2, "model": "mlp", "layers": [1, 2]}


def test_names_of_a_run_are_kept_with_it(shared_host: Path, runs: Path) -> None:
    with asynctrack.init(
        "p", dir=runs, entity="team", group="g", job_type="eval", tags=("a", "b"), notes="n", name="pretty"
    ) as run:
        assert (run.entity, run.group, run.job_type, run.tags, run.notes) == ("team", "g", "eval", ("a", "b"), "n")
        assert (run.name, run.dir, run.url, run.get_url()) == ("pretty", str(run.path), None, None)
    assert manifest(run.path)["labels"] == {
        "entity": "team", "group": "g", "job_type": "eval", "notes": "n", "tags": ["a", "b"],
    }  # fmt: skip
    with asynctrack.init("p", id=run.id, dir=runs, resume=True, notes="again") as run:
        assert (run.group, run.notes) == ("g", "again")
    with pytest.raises(InvalidSettings, match="each of the tags must be texts; got 7"):
        asynctrack.init("p", dir=runs, tags=[7])  # type: ignore[list-item]  # the mistake


def test_run_without_a_project_has_one(shared_host: Path, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    with asynctrack.init(dir=runs, mode="disabled") as run:
        assert run.project == "uncategorized"
        assert run.dir == run.dir
        Path(run.dir).rmdir()  # a script may write there
    monkeypatch.setenv("WANDB_PROJECT", "of the environment")
    assert asynctrack.init(dir=runs, mode="disabled").project == "of the environment"
    assert asynctrack.init(project="given", dir=runs, mode="disabled").project == "given"
    while asynctrack.run is not None:
        asynctrack.finish()


@pytest.mark.parametrize("reinit", [None, "default", "create_new", False])
def test_second_init_opens_a_second_run(run: Run, runs: Path, reinit: Any) -> None:
    with asynctrack.init(dir=runs, reinit=reinit) as second:
        assert second is not run
        assert run.log({"x": 1})


def test_second_init_may_finish_the_first_or_return_it(run: Run, runs: Path) -> None:
    assert asynctrack.init(dir=runs, reinit="return_previous") is run
    with asynctrack.init(dir=runs, reinit=True) as second:
        assert second is not run
        assert manifest(run.path)["status"] == "finished"


def test_config_may_be_parsed_arguments_and_be_thinned(shared_host: Path, runs: Path) -> None:
    config: Any = argparse.Namespace(lr=0.1, secret="x", other=1)
    with asynctrack.init(dir=runs, config=config, config_exclude_keys=["secret"]) as run:
        assert dict(run.config) == {"lr": 0.1, "other": 1}
    with asynctrack.init(dir=runs, config=config, config_include_keys=["lr"]) as run:
        assert dict(run.config) == {"lr": 0.1}


def test_settings_may_be_made_before(runs: Path) -> None:
    settings = asynctrack.Settings(dir=runs, mode="disabled")
    assert asynctrack.init("p", settings=settings).path.parent == runs / "p"
    assert asynctrack.init("p", settings={"mode": "disabled"}, dir=runs / "own").path.parent == runs / "own" / "p"
    with pytest.raises(InvalidSettings, match=r"settings must be of `asynctrack\.Settings`"):
        asynctrack.init("p", settings=7)  # type: ignore[arg-type]  # the mistake
    with pytest.raises(TypeError, match="nonsense"):
        asynctrack.Settings(nonsense=1)
    while asynctrack.run is not None:
        asynctrack.finish()


@pytest.mark.parametrize(("exit_code", "status"), [(0, "finished"), (1, "failed"), (None, "finished")])
def test_exit_code_says_how_the_run_ended(run: Run, exit_code: int | None, status: str) -> None:
    asynctrack.finish(exit_code)
    assert manifest(run.path)["status"] == status


def test_what_is_not_supported_says_so_by_name_and_once(run: Run, runs: Path, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        assert asynctrack.watch(None, log="all") == ()
        asynctrack.unwatch()
        asynctrack.alert(title="over", text="it is over", level="INFO")
        asynctrack.Settings(start_method="thread", _disable_stats=True)
        assert asynctrack.login(key="secret") and asynctrack.login()
        run.log({"video": asynctrack.Video("x.mp4", fps=4), "plot": asynctrack.plot.line(None, "x", "y")})
        asynctrack.init(dir=runs, mode="disabled", save_code=True, sync_tensorboard=False, resume_from=None).finish()
        asynctrack.use_artifact("model:latest")
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
        "use_artifact() is not supported, and ignored; nothing is fetched",
    ])  # fmt: skip
    assert "secret" not in caplog.text
    run.finish()
    (first, _) = records(run.path)
    assert first.data["video"].read() == b"wandb.Video is not supported"


def test_mode_of_wandb_is_taken(runs: Path, caplog: pytest.LogCaptureFixture, shared_host: Path) -> None:
    with asynctrack.init(dir=runs, mode="dryrun", resume="auto") as run:  # type: ignore[arg-type]  # as old scripts have it
        assert manifest(run.path)["offline"] if (run.path / "run.json").exists() else True
    assert manifest(run.path)["offline"]
    assert said(caplog) == ["init(mode='dryrun') is not supported, and ignored; mode='offline' is used"]


def test_save_keeps_files_with_the_run(run: Run, tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(name)
    found = asynctrack.save(str(tmp_path / "*.txt"), base_path=str(tmp_path))
    assert found == [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]
    assert asynctrack.save(str(tmp_path / "nothing*")) == []
    run.log_artifact(tmp_path / "a.txt", name="own", type="text")
    run.finish()
    summary = manifest(run.path)["summary"]
    assert sorted(summary) == ["artifacts/a.txt", "artifacts/b.txt", "artifacts/own"]
    assert (run.path / summary["artifacts/own"]["path"] / "a.txt").read_text() == "a.txt"


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
        run.flush(timeout_s=40)
    assert run.stats().backends["wandb"].behind == 0
    found = run_child(THEIRS.split(SCRIPT)[1].replace('glob.glob("', f'glob.glob("{run.path}/'))
    assert [row["loss"] for row in found["rows"][:3]] == [2.0, 1.0, 3.0]
    kinds = {"image": "image", "images": "images", "text": "html", "page": "html", "table": "table", "h": "histogram"}
    assert {key: value for key, value in plain(found["rows"][3]).items() if key in kinds} == kinds
    assert found["rows"][3]["image"]["caption"] == "c"
    assert found["run"] == {"name": run.name, "group": "g", "job_type": "train", "tags": ["a"], "notes": "n"}
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
