"""YAML: what a run is and was told, as `yaml.safe_load` reads it."""

from __future__ import annotations

import datetime
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from support import run_child

from asynctrack import YAML, ActionRequired, Context
from asynctrack.testing import JournaledRun, deliver

CONFIG = {
    "lr": 3e-4,
    "model": {"layers": [64, {"size": 32, "act": "relu"}], "empty": {}, "none": None},
    "clip": math.inf,
    "seed": 2**70,
    "weights": np.arange(4).reshape(2, 2),
    "text": 'a: "b"\n- ö \x07 🙂',
    "looks like": {"yes": "yes", "null": "null", "1": "1e3", "date": "2026-01-01"},
    "when": datetime.date(2026, 1, 2),
    "path": Path("/data"),
    "same": [[1], [1]],
}


def loaded(run: Path, name: str) -> Any:
    return yaml.safe_load((run / f"{name}.yaml").read_text())


def test_nested_and_odd_values_are_read_back(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "run") as run:
        run.update("config", CONFIG)
        run.update("summary", {"best": {"loss": math.nan, "step": 7}})
        run.end()
        deliver(run.path, YAML())
    found = loaded(run.path, "config")
    assert {key: found[key] for key in ("lr", "model", "clip", "seed", "text", "looks like")} == {
        key: CONFIG[key] for key in ("lr", "model", "clip", "seed", "text", "looks like")
    }
    assert found["weights"] == [[0, 1], [2, 3]]
    assert (found["when"], found["path"]) in [("2026-01-02", "/data"), (datetime.date(2026, 1, 2), "/data")]
    assert found["same"] == [[1], [1]]
    assert "*" not in (run.path / "config.yaml").read_text(), "no references that a person has to follow"
    assert [*found] == [*CONFIG], "in the order in which they were set"
    summary = loaded(run.path, "summary")
    assert math.isnan(summary["best"]["loss"])
    assert summary["best"]["step"] == 7


def test_changes_come_as_they_are_made(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "run", config={"lr": 0.1, "seed": 1}) as run:
        deliver(run.path, YAML())
        assert loaded(run.path, "config") == {"lr": 0.1, "seed": 1}
        assert not (run.path / "summary.yaml").exists()
        assert loaded(run.path, "metadata")["status"] == "running"
        run.update("config", {"lr": 0.2, "clip": -math.inf})
        run.update("summary", {"best": 1})
        run.log({"loss": 1})
        run.journal()
        cursor = deliver(run.path, YAML())
        assert loaded(run.path, "config") == {"lr": 0.2, "seed": 1, "clip": -math.inf}
        assert loaded(run.path, "summary") == {"best": 1}
        assert (cursor.delivered, sum(cursor.skipped.values())) == (0, 1)
        run.update("config", {}, removed=["clip"])
        run.update("summary", {}, removed=["best", "never there"])
        run.journal()
        deliver(run.path, YAML())
        assert loaded(run.path, "config") == {"lr": 0.2, "seed": 1}
        assert loaded(run.path, "summary") == {}
        run.end("failed")
        deliver(run.path, YAML())
    assert loaded(run.path, "metadata") == {
        "id": "run",
        "name": "run",
        "project": "p",
        "created_at": run.manifest.created_at,
        "status": "failed",
        "environment": {},
    }


def test_a_real_run_has_its_environment(own_host: Path, runs: Path) -> None:
    script = """
import asynctrack, sys
with asynctrack.init("p", id="run", dir=sys.argv[1], backends=["yaml"], config={"lr": 0.1}) as run:
    run.config["late"] = {"a": [1]}
    run.summary["best"] = float("nan")
"""
    run_child(script, runs)
    run = runs / "p" / "run"
    assert loaded(run, "config") == {"lr": 0.1, "late": {"a": [1]}}
    assert math.isnan(loaded(run, "summary")["best"])
    metadata = loaded(run, "metadata")
    assert metadata["status"] == "finished"
    assert metadata["environment"]["python"] == ".".join(map(str, sys.version_info[:3]))


def test_a_missing_library_is_said_with_what_brings_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ActionRequired, match=r"pip install 'asynctrack\[yaml\]'"):
        YAML().open(Context(run_id="run", name="run", project="p", directory=tmp_path, config={}))
