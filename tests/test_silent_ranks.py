"""Drop-ins on ranks above 0: what stands for the run there takes every call, and leaves nothing."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
from support import records, run_child

import asynctrack
from asynctrack.errors import InvalidSettings
from asynctrack.integrations.ranks import SilentRun, init_on_first, rank, silent_run


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({}, 0), ({"RANK": "0", "LOCAL_RANK": "1"}, 0), ({"RANK": "3"}, 3), ({"LOCAL_RANK": "1"}, 1), ({"RANK": "x"}, 0)],
)
def test_rank_is_that_of_the_launcher(
    environment: dict[str, str], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert rank() == expected


def test_silent_run_takes_every_call_and_leaves_nothing(runs: Path) -> None:
    run = silent_run("demo", id="one", dir=runs, config={"lr": 0.1}, tags=["a"])
    assert asynctrack.current() is run and isinstance(run, asynctrack.Run)
    assert (run.id, run.project, run.path, run.config["lr"], run.tags) == (
        "one",
        "demo",
        runs / "demo" / "one",
        0.1,
        ("a",),
    )
    assert run.log({"loss": 0.5}) and asynctrack.log({"loss": 0.5})
    run.config["x"], run.summary["y"] = 1, 2
    run.scope("deep").log({"loss": 0.5})
    run.bind({"rank": 1}).log({"loss": 0.5})
    run.log_artifact("no such file")
    run.checkpoint(step=1)
    run.flush()
    assert run.add_image("grid", None, global_step=1) is None
    run["x"]["y"].append(1)
    run["x"] = 1
    for twin in (copy.deepcopy(run), pickle.loads(pickle.dumps(run))):
        assert isinstance(twin, SilentRun) and twin.path == run.path
    run.finish()
    assert asynctrack.current() is None and not run.is_open and not runs.exists()


def test_settings_are_refused_on_every_rank(runs: Path) -> None:
    with pytest.raises(InvalidSettings, match="queue_bytes"):
        silent_run("demo", dir=runs, queue_bytes=-1)


def test_others_than_the_first_join_where_they_are_told_to(
    runs: Path, monkeypatch: pytest.MonkeyPatch, shared_host: Path
) -> None:
    monkeypatch.setenv("RANK", "0")
    script = """
import sys
from asynctrack.integrations.ranks import init_on_first
with init_on_first("demo", id="one", dir=sys.argv[1], join=sys.argv[2] == "True") as run:
    run.log({"loss": 1})
"""
    with init_on_first("demo", id="one", dir=runs, join=True) as run:
        run.log({"loss": 0})
        for joins in (True, False):
            run_child(script, runs, joins, RANK="3")
    assert sorted((record.writer, record.data["loss"]) for record in records(run.path)) == [("rank0", 0), ("rank3", 1)]
