"""JSON: TROPT's layout, valid at every moment, in a file that is this run's and no other's."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from support import INSTALLED, run_child, start

import asynctrack
from asynctrack import JSON, ActionRequired, Batch, Context, Record
from asynctrack.backends.base import Resend
from asynctrack.backends.files import json_columns
from asynctrack.backends.registry import from_stored, stored
from asynctrack.errors import BackendUnavailable, InvalidSettings
from asynctrack.testing import JournaledRun, deliver

# Logs as fast as it can, and says when it has.
LOOP = """
import asynctrack, sys
with asynctrack.init("p", id="run", dir=sys.argv[1], backends=["json"], config={"lr": 0.1}) as run:
    for i in range(50_000):
        run.log({"loss": i, "name": "a"}, step=i)
    run.summary["best"] = 1
"""


def content(run: Path, file: str = "metrics.json") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / file).read_text())
    return found


def run_with(path: Path, records: Iterable[dict[str, Any]], config: dict[str, Any] | None = None) -> JournaledRun:
    """A run of these records that is still open."""
    run = JournaledRun(path, config=config)
    for step, data in enumerate(records):
        run.log(data, step)
    run.journal()
    return run


def batch(numbers: Iterable[int]) -> Batch:
    return Batch([Record(number, number, number * 1000, {"i": number}, 1) for number in numbers], [])


def context(run: Path, state: dict[str, Any] | None = None, name: str = "first") -> Context:
    return Context(run_id="run", name=name, project="p", directory=run, config={}, state=state)


# What it writes


def test_the_layout_is_that_of_tropts_tracker(tmp_path: Path) -> None:
    rows = [{"loss": 0.5, "trigger_str": "a"}, {"loss": math.nan, "trigger_str": "ö"}, {"loss": 1, "lr": {"x": [1]}}]
    with run_with(tmp_path / "p" / "run", rows, config={"hparam/_best_loss": math.inf}) as run:
        run.update("config", {"more": True})
        run.update("summary", {"best_loss": 0.5})
        run.end()
        deliver(run.path, JSON())
    found = content(run.path)
    assert found == {
        "config": {"hparam/_best_loss": "Infinity", "more": True},
        "loss": [0.5, "NaN", 1],
        "trigger_str": ["a", "ö"],
        "lr/x": [[1]],
        "run_summary": {"best_loss": 0.5},
    }
    assert [*found] == ["config", "loss", "trigger_str", "lr/x", "run_summary"]
    assert os.listdir(run.path).count("metrics.json") == 1
    assert not [path for path in run.path.iterdir() if path.name.startswith(".")]


def test_config_and_summary_are_left_out_where_they_have_nothing(tmp_path: Path) -> None:
    with run_with(tmp_path / "p" / "run", []) as run:
        run.end()
        deliver(run.path, JSON())
    assert content(run.path) == {}


def test_users_keys_of_these_names_are_kept_apart(tmp_path: Path) -> None:
    rows = [{"config": 1, "run_summary": 2, "_config": 3, "config/lr": 4, "_step": 5}]
    with run_with(tmp_path / "p" / "run", rows, config={"lr": 0.1}) as run:
        run.end()
        deliver(run.path, JSON())
    assert content(run.path) == {
        "config": {"lr": 0.1}, "_config": [1], "_run_summary": [2], "__config": [3], "config/lr": [4], "_step": [5],
    }  # fmt: skip


def test_aligned_columns_are_a_data_frame(tmp_path: Path) -> None:
    with run_with(tmp_path / "p" / "run", [{"loss": 0.5}, {"acc": 1, "_step": 7}, {}, {"loss": 0.25}]) as run:
        run.end()
        deliver(run.path, JSON(aligned=True))
    frame = pandas.DataFrame(content(run.path))
    assert [*frame.columns] == ["_step", "_timestamp", "loss", "acc", "__step"]
    assert frame["_step"].tolist() == [0, 1, 2, 3]
    assert frame["loss"].isna().tolist() == [False, True, True, False]
    assert frame["__step"].dropna().tolist() == [7]


def test_arrays_are_lists(tmp_path: Path) -> None:
    with run_with(tmp_path / "p" / "run", [{"h": np.array([[1.0, math.nan]]), "scalar": np.float32(0.5)}]) as run:
        run.end()
        deliver(run.path, JSON())
    assert content(run.path) == {"h": [[[1.0, "NaN"]]], "scalar": [0.5]}


# While it is written


@pytest.mark.system
def test_it_is_valid_at_every_moment_and_only_grows(own_host: Path, runs: Path) -> None:
    child, lengths = start(LOOP, runs), [0]
    path = runs / "p" / "run" / "metrics.json"
    while child.poll() is None:
        if path.exists():
            found = json.loads(path.read_text())
            lengths.append(len(found.get("loss", [])))
            assert len(found.get("name", [])) == lengths[-1]
    child.communicate()
    assert child.returncode == 0
    assert lengths == sorted(lengths)
    assert content(path.parent)["loss"] == list(range(50_000))
    assert content(path.parent)["run_summary"] == {"best": 1}


def test_a_large_file_is_written_five_times_in_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_columns, "_SMALL_BYTES", 1)  # as if a second were nothing
    written: list[int] = []
    replace = json_columns.ColumnFile.replace

    def counted(file: json_columns.ColumnFile, *arguments: Any) -> None:
        replace(file, *arguments)
        written.append(file.size)

    monkeypatch.setattr(json_columns.ColumnFile, "replace", counted)
    sink: Any = JSON().open(context(tmp_path))
    for at in range(0, 20_000, 50):
        sink.write(batch(range(at, at + 50)))
        sink.checkpoint()
    sink.close("finished")
    assert content(tmp_path)["i"] == list(range(20_000))
    assert len(written) < 60, "of 400 saves"
    assert sum(written) < 6 * written[-1]


def test_a_small_file_is_whole_after_each_flush(own_host: Path, runs: Path) -> None:
    with asynctrack.init("p", dir=runs, backends=["json"]) as run:
        for i in range(10):
            run.log({"i": i})
            run.flush()
            assert content(run.path)["i"] == list(range(i + 1))


def test_what_waits_survives_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_columns, "_SMALL_BYTES", 1)
    monkeypatch.setattr(json_columns, "_GROWTH", 0)
    sink: Any = JSON().open(context(tmp_path))
    sink.write(batch(range(10)))
    sink.checkpoint()
    sink.write(batch(range(10, 20)))
    state = sink.checkpoint()
    assert content(tmp_path)["i"] == list(range(10))
    sink.write(batch(range(20, 30)))  # not saved: it comes again
    again: Any = JSON().open(context(tmp_path, state))
    again.write(batch(range(20, 25)))
    again.close("finished")
    assert content(tmp_path)["i"] == list(range(25))
    assert sorted(os.listdir(tmp_path)) == ["metrics.json"]
    sink._waiting.close()


# Whose file it is


@pytest.mark.parametrize("harm", ["not JSON", '{"i": 5}', "", "[]", '{"i": [1, 2]}'])
def test_a_file_that_another_has_changed_is_left_alone(harm: str, tmp_path: Path) -> None:
    with run_with(tmp_path / "p" / "run", [{"i": i} for i in range(5)]) as run:
        deliver(run.path, JSON())
        (run.path / "metrics.json").write_text(harm)
        run.log({"i": 5}, 5)
        run.end()
        deliver(run.path, JSON())
    assert (run.path / "metrics.json").read_text() == harm
    assert content(run.path, "metrics-2.json") == {"i": [0, 1, 2, 3, 4, 5]}


def test_a_file_that_is_changed_while_it_is_open_is_left_alone(tmp_path: Path) -> None:
    sink: Any = JSON().open(context(tmp_path))
    sink.write(batch(range(5)))
    sink.checkpoint()
    (tmp_path / "metrics.json").write_text('{"mine": 1}')
    sink.write(batch(range(5, 6)))
    with pytest.raises(Resend) as told:
        sink.checkpoint()
    sink._waiting.close()
    assert (content(tmp_path), told.value.state) == ({"mine": 1}, {"file": "metrics-2.json"})


def test_rows_that_another_has_changed_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_columns, "_SMALL_BYTES", 1)
    monkeypatch.setattr(json_columns, "_GROWTH", 0)
    sink: Any = JSON().open(context(tmp_path))
    for at in (0, 5):
        sink.write(batch(range(at, at + 5)))
        sink.checkpoint()
    (tmp_path / ".metrics.json.waiting").write_bytes(b'{"i":7}\n')
    with pytest.raises(Resend):
        sink.close("finished")
    assert content(tmp_path)["i"] == list(range(5))


def test_the_same_backend_twice_loses_nothing(own_host: Path, runs: Path) -> None:
    with asynctrack.init("p", dir=runs, backends=["json", "json"], worker="thread") as run:
        for i in range(5):
            run.log({"i": i})
            run.flush()
    files = [
        path for path in run.path.glob("metrics*.json") if content(run.path, path.name).get("i") == [0, 1, 2, 3, 4]
    ]
    assert files
    assert run.stats().behind == 0


def test_a_file_that_was_removed_is_made_again(tmp_path: Path) -> None:
    with run_with(tmp_path / "p" / "run", [{"i": i} for i in range(5)]) as run:
        deliver(run.path, JSON())
        (run.path / "metrics.json").unlink()
        run.log({"i": 5}, 5)
        run.end()
        deliver(run.path, JSON())
    assert content(run.path) == {"i": [0, 1, 2, 3, 4, 5]}


def test_each_run_has_a_file_of_its_own_where_they_lie_together(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "first.json").write_text("a person's")
    for number in range(3):
        with run_with(tmp_path / "runs" / "p" / f"run{number}", [{"i": number}]) as run:
            run.end()
            deliver(run.path, JSON(file=f"{logs}/first.json"))
    assert (logs / "first.json").read_text() == "a person's"
    assert [content(logs, f"first-{number + 2}.json")["i"] for number in range(3)] == [[0], [1], [2]]


def test_a_changed_file_among_others_is_left_alone(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    backend = JSON(file=f"{logs}/run.json")
    with run_with(tmp_path / "p" / "run", [{"i": 0}]) as run:
        deliver(run.path, backend)
        (logs / "run.json").write_text("mine")
        (logs / "run-2.json").write_text("another run's")
        run.log({"i": 1}, 1)
        run.end()
        deliver(run.path, backend)
    assert ((logs / "run.json").read_text(), (logs / "run-2.json").read_text()) == ("mine", "another run's")
    assert content(logs, "run-3.json") == {"i": [0, 1]}
    assert os.readlink(run.path / "run.json.link") == str(logs / "run-3.json")


def test_the_file_is_found_again_without_a_state(tmp_path: Path) -> None:
    run, logs = tmp_path / "run", tmp_path / "logs"
    run.mkdir()
    backend = JSON(file=f"{logs}/{{project}}-{{id}}.json")
    for _ in range(3):  # killed before anything was saved
        sink: Any = backend.open(context(run))
        sink.write(batch(range(3)))
        sink._replace()
        sink._waiting.close()
    assert os.listdir(logs) == ["p-run.json"]
    assert content(logs, "p-run.json") == {"i": [0, 1, 2]}
    assert os.readlink(run / "p-run.json.link") == str(logs / "p-run.json")


def test_a_name_that_leads_elsewhere_stays_below(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    sink: Any = JSON(file=f"{tmp_path}/logs/{{name}}.json").open(context(run, name="../../etc/pass wd"))
    sink.close("finished")
    assert os.listdir(tmp_path / "logs") == ["_.._etc_pass wd.json"]


@pytest.mark.system
def test_a_path_is_that_of_where_the_run_is_opened(own_host: Path, tmp_path: Path) -> None:
    script = """
import asynctrack, os, sys
os.chdir(sys.argv[1])
with asynctrack.init("p", name="tropt", backends=[asynctrack.JSON(file="./logs/{name}.json")]) as run:
    run.log({"loss": 0.5})
"""
    for number in range(2):
        run_child(script, tmp_path)
        assert sorted(os.listdir(tmp_path / "logs")) == ["tropt.json", "tropt-2.json"][: number + 1][::-1]
    assert content(tmp_path / "logs", "tropt-2.json") == {"loss": [0.5]}


def test_a_path_of_sync_is_that_of_where_it_is_called(own_host: Path, own_state: Path, tmp_path: Path) -> None:
    with asynctrack.init("p", id="run", dir=tmp_path / "runs", worker="thread") as run:
        run.log({"i": 0})
    command = [sys.executable, "-m", "asynctrack", "sync", run.path, "--to", "json", "file=logs/{id}.json"]
    subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(INSTALLED)}, check=True, capture_output=True
    )
    assert content(tmp_path / "logs", "run.json") == {"i": [0]}
    assert asynctrack.open_run(run.path).status == "finished"


def test_names_that_no_file_can_have(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(ActionRequired, match="choose another name"):
        JSON(file="{name}.json").open(context(run, name="run"))
    sink: Any = JSON(file="{name}.json").open(context(run, name="ö" * 300))
    sink.close("finished")
    assert os.listdir(run) == ["ö" * 100 + ".json"]


def test_a_copy_of_a_run_does_not_go_on_in_the_originals_file(tmp_path: Path) -> None:
    backend = JSON(file=f"{tmp_path}/logs/run.json")
    with run_with(tmp_path / "p" / "run", [{"i": 0}]) as run:
        deliver(run.path, backend)
        run.log({"i": 1}, 1)
        run.end()
    shutil.copytree(run.path, tmp_path / "p" / "copy")
    with pytest.raises(TimeoutError):
        deliver(tmp_path / "p" / "copy", backend, timeout_s=0.3)
    deliver(run.path, backend)
    assert content(tmp_path / "logs", "run.json") == {"i": [0, 1]}


def test_it_must_be_trusted_where_it_leads_out_of_the_run() -> None:
    outside = stored(JSON(file="logs/{name}.json").prepare(), "run", "json")
    with pytest.raises(BackendUnavailable, match="logs"):
        from_stored(outside, trusted=False)
    assert from_stored(stored(JSON(aligned=True), "run", "json"), trusted=False) == JSON(aligned=True)


@pytest.mark.parametrize("file", ["", "logs/", "{nme}.json", "{name.json", "{0}.json", "run.json", None, 5])
def test_what_cannot_be_a_file_is_told_at_once(file: Any) -> None:
    with pytest.raises(InvalidSettings, match="file must be"):
        JSON(file=file)


def test_the_tracker_of_each_run_is_new(own_host: Path, runs: Path) -> None:
    tracker = asynctrack.Tracker("p", dir=runs, backends=["json"])
    for number in range(2):
        tracker.init()
        tracker.log({"number": number})
        tracker.finish()
    assert sorted(content(run)["number"] for run in (runs / "p").iterdir()) == [[0], [1]]
