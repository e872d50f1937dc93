"""What a script sees of W&B 0.31's SDK, and of `asynctrack.wandb`: the same, line by line. The real SDK runs offline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import own_shared_memory

pytestmark = pytest.mark.system  # each process that runs these starts W&B's

# What each line sees is kept in `seen` by a name; both packages run all of it, each as `wandb`.
SCRIPT = """
import copy, json, os, sys, time
seen = {}

def see(name, look):
    try:
        seen[name] = json.loads(json.dumps(look(), default=repr))
    except wandb.Error:
        seen[name] = "Error"
    except Exception as error:
        seen[name] = type(error).__name__

def plain(value):
    return {key: plain(value[key]) for key in sorted(value.keys()) if not key.startswith("_")} if hasattr(value, "keys") else value

# The environment
run = wandb.init()
see("what the environment says", lambda: [run.id, run.name, run.project, run.group, run.job_type, run.notes, run.tags, run.offline, run.disabled])
see("facts", lambda: [run.step, run.starting_step, run.resumed, run.sweep_id, run.url, run.settings.run_id, run.settings.mode, abs(run.start_time - time.time()) < 60])

# Names that change
run.tags += ("x",)
run.notes = "changed"
run.name = "changed, too"
see("names that were changed", lambda: [run.tags, run.notes, run.name])

# The summary
for kind in ("min", "max", "mean", "first", "last", "copy", "none", "min,max", "last,min"):
    run.define_metric(kind.replace(",", "_and_"), summary=kind)
run.define_metric("many*", summary="min")
run.define_metric("nested.deep", summary="max")
see("a metric that is none", lambda: run.define_metric("a*b"))
see("a summary that is none", lambda: run.define_metric("a", summary="least"))
for value in (3, 1, 2):
    kinds = ("min", "max", "mean", "first", "last", "copy", "none", "min_and_max", "last_and_min")
    run.log({**{kind: value for kind in kinds}, "many_a": value, "many_b": value, "nested": {"deep": value, "other": value}, "flat/name": value, "undefined": value})
see("steps", lambda: run.step)
summary = run.summary
see("the summary", lambda: plain(summary))
see("its names", lambda: sorted(name for name in summary.keys() if not name.startswith("_")))
see("a name of it", lambda: summary["undefined"])
see("a nested name of it", lambda: [summary["nested"]["other"], summary.nested.other, summary["nested"]["deep"]["max"]])
see("a nested name by a slash", lambda: summary["nested/other"])
see("a name that is not there", lambda: summary["nothing"])
see("the default of one", lambda: summary.get("nothing", 5))
summary["best"] = 1
summary["nested"]["set"] = 7
summary.update({"w": {"a": {"b": 1}}})
summary["undefined"] = 9
del summary["many_b"]
see("what was set in it", lambda: plain(summary))
run.log({"undefined": 4})
see("what was logged behind that", lambda: summary["undefined"])

# The config
config = run.config
config.lr = 1
see("the same again", lambda: config.update({"lr": 1}))
see("another value", lambda: config.update({"lr": 2}))
see("another value by an attribute", lambda: setattr(config, "lr", 2))
see("another value by an item", lambda: config.__setitem__("lr", 2))
see("another that may be", lambda: config.update({"lr": 3}, allow_val_change=True))
see("defaults", lambda: config.setdefaults({"lr": 9, "seed": 4}))
see("a name with dashes", lambda: config.update({"--dash": 1}))
see("the config", lambda: dict(config))
see("a config's name that is not there", lambda: [config.get("nothing"), config["nothing"]])
see("a config's attribute that is not there", lambda: config.nothing)
copied = config.as_dict()
copied["lr"] = 77
dict(config)["seed"] = 77
see("the config after its copies were changed", lambda: [config.lr, config.seed, "lr" in config, sorted(config.keys())])

# A second init
see("a second init", lambda: wandb.init(project="other") is run)
see("a second init that is to return the first", lambda: wandb.init(project="other", reinit="return_previous") is run)
see("a second init that is to resume", lambda: wandb.init(project="other", resume="must"))
beside = wandb.init(project="other", id="beside", name="beside", reinit="create_new")
see("a run beside it", lambda: [wandb.run is run, wandb.config is run.config, wandb.init() is beside])
beside.finish()
wandb.log({"undefined": 5})
second = wandb.init(project="other", id="second", name="second", reinit=True)
see("a run in its place", lambda: [wandb.run is second, second.id])
see("log to the first", lambda: run.log({"late": 1}))
second.finish(1)
see("no run", lambda: wandb.run)
see("log without a run", lambda: wandb.log({"late": 1}))
see("config without a run", lambda: wandb.config.lr)
see("summary without a run", lambda: wandb.summary["x"])
see("finish without a run", lambda: wandb.finish())

# A run that records nothing
disabled = wandb.init(mode="disabled", config={"a": 1}, project="p", id="d", name="n")
disabled.log({"a": 1})
disabled.summary["q"] = 2
see("a disabled run", lambda: [disabled.disabled, disabled.offline, disabled.step, disabled.resumed, disabled.url, disabled.config.a, disabled.settings.mode])
see("its summary", lambda: [dict(disabled.summary), sorted(disabled.summary.keys()), disabled.summary["q"]])
see("an artifact of nothing", lambda: bool(disabled.log_artifact("nofile")))
see("how it ends", lambda: [disabled.finish(), wandb.run])
see("names", lambda: [wandb.AlertLevel.WARN.value, issubclass(wandb.CommError, wandb.Error), isinstance(config, wandb.Config), isinstance(run, wandb.sdk.wandb_run.Run), copy.deepcopy(run) is run])
"""
OURS = f"""
import asynctrack.wandb as wandb
{SCRIPT}
from asynctrack import open_run
found = open_run(run.asynctrack.path).manifest()
recorded = {{"name": found.name, **found.labels, "config": {{key: value for key, value in found.config.items() if key != "_metrics"}}}}
print(json.dumps([seen, recorded]))
"""
THEIRS = f"""
import wandb
{SCRIPT}
import glob
from pathlib import Path
from asynctrack.backends.wandb.files import WandbFile
from wandb.proto.wandb_internal_pb2 import Record
(path,) = glob.glob("wandb/offline-run-*/run-job-7.wandb")
recorded = {{"config": {{}}}}
for payload in WandbFile(Path(path))._payloads():
    record = Record()
    record.ParseFromString(payload)
    kind = record.WhichOneof("record_type")
    if kind == "run":
        fields = record.run
        recorded.update(name=fields.display_name, group=fields.run_group, job_type=fields.job_type, tags=list(fields.tags), notes=fields.notes)
    elif kind == "config":
        recorded["config"].update({{item.key: json.loads(item.value_json) for item in record.config.update if item.key != "_wandb"}})
print(json.dumps([seen, recorded]))
"""
ENVIRONMENT = {
    "WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false", "WANDB_RUN_ID": "job-7", "WANDB_NAME": "named",
    "WANDB_PROJECT": "p", "WANDB_RUN_GROUP": "g", "WANDB_JOB_TYPE": "eval", "WANDB_TAGS": "a,b", "WANDB_NOTES": "n",
}  # fmt: skip
# The words of which each begins a line that both see.
LINES = [line.split('"')[1] for line in SCRIPT.splitlines() if line.startswith('see("')]


def run_script(script: str, folder: Path, **more: str) -> Any:
    environment = {**os.environ, **ENVIRONMENT, "HOME": str(folder), "PYTHONPATH": str(Path(__file__).parent.parent)}
    environment.pop("WANDB_SERVICE", None)
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env={**environment, **more},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """What the script has seen, and what is recorded: with W&B's SDK, and with ours."""
    pytest.importorskip("wandb.sdk", reason="wandb is not installed")
    theirs = run_script(THEIRS, tmp_path_factory.mktemp("theirs"))
    with own_shared_memory():
        ours = run_script(OURS, tmp_path_factory.mktemp("ours"))
    return theirs, ours


@pytest.mark.parametrize("line", LINES)
def test_a_line_sees_the_same(both: tuple[Any, Any], line: str) -> None:
    (theirs, _), (ours, _) = both
    assert ours[line] == theirs[line]


def test_names_and_config_are_recorded_as_they_were_changed(both: tuple[Any, Any]) -> None:
    (_, theirs), (_, ours) = both
    assert ours == theirs
    assert (theirs["name"], theirs["tags"]) == ("changed, too", ["a", "b", "x"])
