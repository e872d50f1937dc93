"""TROPT: its life cycle and guards, its seven trackers beside ours, and what an optimiser leaves that fails or is killed."""

from __future__ import annotations

import gc
import inspect
import json
import math
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import ended, manifest, records, run_child, start, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore::DeprecationWarning")]
pytest.importorskip("tropt.tracker", reason="needs the frameworks: tests/README.md", exc_type=ImportError)

import torch  # noqa: E402
import tropt.tracker as theirs  # noqa: E402
from wandb_server import KEY, WandbServer  # noqa: E402

from asynctrack.errors import DirectoryNotWritable, InvalidData, InvalidSettings  # noqa: E402
from asynctrack.integrations import tropt as ours  # noqa: E402
from asynctrack.integrations.naming import directory_name  # noqa: E402
from asynctrack.integrations.tropt import AsyncTracker  # noqa: E402
from integrations import examples  # noqa: E402

pytestmark.append(pytest.mark.usefixtures("shared_host"))

# What a child does that runs a real optimiser; `argv[1]` is where the model lies.
OPTIMISER = """
import logging, sys
logging.disable(logging.INFO)
from integrations import examples, tropt_line
tropt_line.allow_slices()
from asynctrack.integrations.tropt import AsyncTracker
optimize = examples.load("tropt_gcg").optimize
model, directory = sys.argv[1:3]
"""


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Trackers write to the current folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny language model."""
    path = tmp_path_factory.mktemp("model")
    examples.run_script("from integrations import tropt_line\ntropt_line.make_model(sys.argv[1])", path)
    return path


def runs_of(directory: Path) -> list[Path]:
    """Runs in the order in which they were opened."""
    found = [path.parent for path in directory.rglob("run.json")]
    return sorted(found, key=lambda run: manifest(run)["created_at"])


@pytest.mark.parametrize("make", [theirs.DictTracker, AsyncTracker])
class TestLifeCycle:
    """What holds for TROPT's own trackers holds for ours."""

    def test_the_optimisers_config_goes_over_the_users(self, make: Callable[..., Any]) -> None:
        tracker = make("exp", {"lr": 1, "model": "m"})
        tracker.init({"lr": 2})
        config = tracker.config if make is theirs.DictTracker else tracker.run.config
        assert config == {"lr": 2, "model": "m"}
        tracker.finish()

    def test_log_without_a_run_is_an_assertion_error(self, make: Callable[..., Any]) -> None:
        tracker = make("exp")
        with pytest.raises(AssertionError, match=r"log\(\) called on inactive tracker"):
            tracker.log({"loss": 1})
        tracker.init()
        tracker.finish()
        with pytest.raises(AssertionError):
            tracker.log({"loss": 1})

    def test_finish_without_a_run_warns(self, make: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
        make("exp").finish({"best": 1})
        assert [record.getMessage() for record in caplog.records if record.name == "tropt.tracker.base"] == [
            "finish() called on inactive tracker — ignoring."
        ]

    def test_init_twice_warns_and_ends_the_first(
        self, make: Callable[..., Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        tracker = make("exp")
        tracker.init()
        tracker.log({"loss": 1})
        tracker.init()
        tracker.log({"loss": 2})
        tracker.finish()
        said = [record.getMessage() for record in caplog.records if record.name == "tropt.tracker.base"]
        assert len(said) == 1 and said[0].startswith("init() called on already-active tracker")

    def test_it_can_be_used_again(self, make: Callable[..., Any]) -> None:
        tracker = make("exp")
        for loss in (1, 2):
            tracker.init()
            tracker.log({"loss": loss})
            tracker.finish({"best": loss})


def test_each_optimisation_is_a_run(tmp_path: Path) -> None:
    tracker = AsyncTracker("exp/one", {"model": "m"}, dir=tmp_path / "runs")
    for lr in (0.1, 0.2):
        tracker.init({"lr": lr})
        tracker.log({"loss": lr, "nan": math.nan})
        tracker.finish({"best": lr})
    first, second = (manifest(run) for run in runs_of(tmp_path))
    assert (first["project"], first["config"], first["summary"]) == (
        directory_name("exp/one"),
        {"model": "m", "lr": 0.1},
        {"best": 0.1},
    )
    assert (second["config"]["lr"], second["status"]) == (0.2, "finished")
    assert math.isnan(records(runs_of(tmp_path)[0])[0].data["nan"])


def test_log_without_a_run_is_an_error_in_optimised_python_too(tmp_path: Path) -> None:
    script = """
import json
from asynctrack.integrations.tropt import AsyncTracker
try:
    AsyncTracker("exp").log({"loss": 1})
except AssertionError as error:
    print(json.dumps([__debug__, str(error)]))
"""
    debug, said = run_child(script, PYTHONOPTIMIZE="1")
    assert (debug, said) == (False, "log() called on inactive tracker (missing init()?)")


def test_a_run_whose_optimiser_failed_has_failed_when_the_next_begins(tmp_path: Path) -> None:
    tracker = AsyncTracker("exp", dir=tmp_path)
    tracker.init()
    tracker.log({"loss": 1})
    tracker.init()
    tracker.log({"loss": 2})
    tracker.finish()
    first, second = runs_of(tmp_path)
    assert (manifest(first)["status"], manifest(second)["status"]) == ("failed", "finished")
    assert "finish() was never called" in manifest(first)["error"]
    assert [record.data for run in (first, second) for record in records(run)] == [{"loss": 1}, {"loss": 2}]


def test_a_run_whose_tracker_is_forgotten_has_failed(tmp_path: Path) -> None:
    tracker = AsyncTracker("exp", dir=tmp_path)
    tracker.init()
    tracker.log({"loss": 1})
    del tracker
    gc.collect()
    (run,) = wait_until(lambda: runs_of(tmp_path), "the run is told of")
    wait_until(lambda: ended(run), "the run has ended")
    assert (manifest(run)["status"], len(records(run))) == ("failed", 1)


@pytest.mark.parametrize("logs", [True, False])
def test_a_tracker_that_is_forgotten_in_a_forked_child_goes_on(tmp_path: Path, logs: bool) -> None:
    script = """
import faulthandler, os, sys
from asynctrack.integrations.tropt import AsyncTracker
tracker = AsyncTracker("exp", dir=sys.argv[1])
tracker.init()
faulthandler.cancel_dump_traceback_later()  # its thread is not there in the child, which would wait for it
if (child := os.fork()) == 0:
    if sys.argv[2] == "True":
        tracker.log({"child": 1})
    del tracker
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
tracker.log({"parent": 1})
tracker.finish({"best": 1})
"""
    run_child(script, tmp_path, logs)
    (run,) = runs_of(tmp_path)
    assert manifest(run)["status"] == "finished"
    assert sorted(key for record in records(run) for key in record.data) == ["child", "parent"][not logs :]


@pytest.mark.parametrize("caught", [True, False])
def test_a_failed_real_optimiser_leaves_a_failed_run(tmp_path: Path, model: Path, caught: bool) -> None:
    script = """
class Tracker(AsyncTracker):
    def log(self, data):
        super().log(data)
        if data["loss"] and self.run._publisher.producer.number == 3:
            raise FloatingPointError("diverged")
tracker = Tracker("gcg", dir=directory)
try:
    optimize(model, tracker, 4)
except FloatingPointError:
    if sys.argv[3] == "False":
        raise
"""
    examples.run_script(OPTIMISER + script, model, tmp_path / "runs", caught, fails=not caught)
    (run,) = runs_of(tmp_path)
    wait_until(lambda: ended(run), "the run has ended")
    assert manifest(run)["status"] == "failed"
    assert manifest(run)["error"].startswith(
        "NeverFinished: the optimiser" if caught else "FloatingPointError: diverged"
    )
    assert len(records(run)) == 3


def test_a_real_optimiser_is_recorded_as_by_tropts_own_tracker(tmp_path: Path, model: Path) -> None:
    script = """
import json
from tropt.tracker import DictTracker
own = DictTracker("gcg", {"who": "me"})
optimize(model, own, 4)
optimize(model, AsyncTracker("gcg", {"who": "me"}, dir=directory), 4)
print(json.dumps([own.records, own.config, own.summary], default=str))
"""
    rows, config, summary = json.loads(examples.run_script(OPTIMISER + script, model, tmp_path / "runs"))
    (run,) = runs_of(tmp_path)
    assert [record.data for record in records(run)] == rows
    assert [record.step for record in records(run)] == list(range(5))
    assert {key: value for key, value in manifest(run)["config"].items() if "hparam" not in key} == {
        key: value for key, value in config.items() if "hparam" not in key
    }
    assert manifest(run)["config"]["hparam/num_steps"] == 4
    assert manifest(run)["summary"] == summary
    assert manifest(run)["status"] == "finished"


def test_the_example_runs(tmp_path: Path, model: Path) -> None:
    script = "import runpy\nsys.argv[1:] = [model, '2']\nrunpy.run_path(directory, run_name='__main__')"
    assert "is the best loss" in examples.run_script(OPTIMISER + script, model, examples.EXAMPLES / "tropt_gcg.py")


def test_what_each_tracker_keeps_of_a_killed_optimisation(tmp_path: Path) -> None:
    script = """
import os, signal, sys
from tropt.tracker import JSONTracker
from asynctrack.integrations import tropt
for tracker in (JSONTracker("theirs"), tropt.JSONTracker("ours"), tropt.AsyncTracker("plain")):
    tracker.init({"lr": 1})
    for step in range(1000):
        tracker.log({"loss": step})
os.kill(os.getpid(), signal.SIGKILL)
"""
    child = start(script)
    assert child.wait() == -signal.SIGKILL, child.stderr and child.stderr.read()
    child.communicate()
    assert not Path("logs/theirs.json").exists()
    written = Path("logs/ours.json")
    wait_until(lambda: written.exists() and '"loss"' in written.read_text(), "the worker has written the file")
    wait_until(lambda: len(json.loads(written.read_text())["loss"]) == 1000, "all of it")
    assert json.loads(written.read_text())["config"] == {"lr": 1}
    (run,) = runs_of(Path("asynctrack_runs/plain"))
    wait_until(lambda: ended(run), "the run has ended")
    assert manifest(run)["status"] == "crashed"
    assert [record.data["loss"] for record in records(run)] == list(range(1000))


class Unspeakable:
    def __repr__(self) -> str:
        raise ValueError("not even that")


def test_values_of_every_kind_leave_the_optimiser_alone(tmp_path: Path) -> None:
    tracker = AsyncTracker("exp", dir=tmp_path)
    tracker.init()
    weights = torch.arange(3.0, requires_grad=True)
    data = {
        "loss": weights.sum(),
        "one": weights[:1],
        "weights": weights,
        "strange": Unspeakable(),
        "config": 1,
        "out": sys.stdout,
    }
    tracker.log(data)
    with torch.no_grad():
        weights *= 0
    data["loss"] = None
    tracker.finish()
    (record,) = records(runs_of(tmp_path)[0])
    assert (record.data["loss"], record.data["one"], record.data["config"]) == (3.0, 0.0, 1)
    assert record.data["weights"].tolist() == [0.0, 1.0, 2.0]


def test_a_tracker_is_never_stuck(tmp_path: Path) -> None:
    tracker = AsyncTracker("exp", dir=tmp_path / "runs")
    tracker.init()
    with pytest.raises(InvalidData):
        tracker.finish("a text")
    assert manifest(runs_of(tmp_path)[0])["status"] == "failed"
    (tmp_path / "file").write_text("")
    tracker._settings["dir"] = tmp_path / "file"
    with pytest.raises(DirectoryNotWritable):
        tracker.init()
    tracker._settings["dir"] = tmp_path / "runs"
    tracker.init()
    tracker.finish({"best": 1})
    assert manifest(runs_of(tmp_path)[-1])["summary"] == {"best": 1}


def test_settings_are_refused_at_once() -> None:
    with pytest.raises(InvalidSettings, match="no_such"):
        AsyncTracker("exp", no_such=1)


def feed(tracker: Any, *, summary: bool = True) -> None:
    """An optimisation of three steps."""
    tracker.init({"lr": 0.5})
    for step in range(3):
        tracker.log({"loss": 0.5 * step, "trigger_str": f"say {step}", "only": step} if step else {"loss": 0.0})
    tracker.finish({"best_loss": 0.25, "best_trigger_str": "x"} if summary else None)


class TestTwins:
    """Each of TROPT's trackers beside its twin."""

    def test_every_tracker_has_a_twin_with_its_arguments(self) -> None:
        names = [name for name in dir(theirs) if name.endswith("Tracker") and name != "BaseTracker"]
        assert len(names) == 7
        for name in names:
            their, our = (inspect.signature(getattr(module, name)).parameters for module in (theirs, ours))
            assert list(our)[: len(their)] == list(their)
            assert [our[key].default for key in their] == [each.default for each in their.values()]
            assert issubclass(getattr(ours, name), theirs.BaseTracker)

    def test_the_dummy_tracker_records_nothing(self, tmp_path: Path) -> None:
        feed(ours.DummyTracker("exp"))
        assert list(tmp_path.iterdir()) == []

    def test_the_dict_tracker_has_the_same_attributes(self) -> None:
        their, our = theirs.DictTracker("exp", {"a": 1}), ours.DictTracker("exp", {"a": 1})
        assert not hasattr(our, "records")
        for tracker in (their, our):
            feed(tracker, summary=False)
            feed(tracker)
        for name in ("records", "history", "config", "summary"):
            assert getattr(our, name) == getattr(their, name)
        assert our.history["missing"] == []
        assert len(records(our.run.path)) == 3

    def test_the_dict_trackers_records_stay_what_they_were(self) -> None:
        tracker = ours.DictTracker()
        tracker.init()
        data = {"loss": 1}
        tracker.log(data)
        data["loss"] = 2
        assert tracker.records == [{"loss": 1}]
        tracker.finish()

    def test_the_json_tracker_writes_the_same_file(self) -> None:
        for module, name in ((theirs, "theirs"), (ours, "ours")):
            feed(module.JSONTracker("exp", {"a": {"b": 1}}, f"deep/{name}/{{experiment_name}}.json"))
        written = [json.loads(Path(f"deep/{name}/exp.json").read_text()) for name in ("theirs", "ours")]
        assert written[0] == written[1]
        assert list(written[1]) == list(written[0])

    def test_the_json_tracker_keeps_what_is_there(self) -> None:
        tracker = ours.JSONTracker("exp")
        for _ in range(2):
            feed(tracker)
        assert {path.name for path in Path("logs").glob("*.json")} == {"exp.json", "exp-2.json"}

    def test_the_print_tracker_prints_the_same(self, capfd: pytest.CaptureFixture[str]) -> None:
        printed = []
        for module in (theirs, ours):
            tracker = module.PrintTracker("exp", ("loss", "trigger_str"))
            feed(tracker)
            feed(tracker, summary=False)
            printed.append(capfd.readouterr().out)
            assert tracker.history["loss"] == [0.0, 0.5, 1.0] * 2
        assert printed[1] == printed[0]
        assert "step=   2 | loss=0.5000 | trigger_str='say 1'" in printed[1]

    def test_the_live_loss_plot_tracker_draws_where_no_notebook_is(self) -> None:
        pytest.importorskip("livelossplot", reason="needs the frameworks: tests/README.md")
        tracker = ours.LiveLossPlotTracker("exp")
        feed(tracker)
        assert (tracker.run.path / "plots/live.png").read_bytes().startswith(b"\x89PNG")

    def test_the_wandb_tracker_sends_the_same_rows(self, tmp_path: Path) -> None:
        pytest.importorskip("wandb", reason="needs the frameworks: tests/README.md")
        script = """
import sys
from tropt import tracker as theirs
from asynctrack.integrations import tropt as ours
import torch
which = theirs if sys.argv[1] == "theirs" else ours
tracker = which.WandbTracker("exp", {"a": 1}, "project", group="g", tags=["t"])
tracker.init({"lr": 0.5})
for step in range(3):
    tracker.log({"loss": torch.tensor(0.5 * step), "text": f"say {step}", "weights": torch.ones(3)})
tracker.finish({"best_loss": 0.25})
"""
        with WandbServer() as server:
            found = {}
            for name in ("theirs", "ours"):
                keys = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": server.url, "HOME": str(tmp_path)}
                examples.run_script(script, name, **keys, WANDB_ERROR_REPORTING="false")
                (found[name],) = (run for key, run in server.runs.items() if run not in found.values())
        for run in found.values():
            rows = [{key: row[key] for key in row if key in ("loss", "text", "weights")} for row in run.rows()]
            assert rows == [{"loss": 0.5 * step, "text": f"say {step}"} for step in range(3)]
            assert (run.facts["displayName"], run.facts["groupName"], run.facts["tags"]) == ("exp", "g", ["t"])
            assert (run.project, run.config["lr"]["value"], run.config["a"]["value"]) == ("project", 0.5, 1)
            assert run.summary["best_loss"] == 0.25

    def test_the_trackio_tracker_writes_the_same_rows(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        pytest.importorskip("trackio", reason="needs the frameworks: tests/README.md")
        rows = {}
        for name in ("theirs", "ours"):
            script = """
import sys
from tropt import tracker as theirs
from asynctrack.integrations import tropt as ours
import torch
tracker = (theirs if sys.argv[1] == "theirs" else ours).TrackioTracker("exp", {"a": 1}, "project")
tracker.init({"lr": 0.5})
for step in range(3):
    tracker.log({"loss": torch.tensor(0.5 * step), "text": f"say {step}", "weights": torch.ones(3)})
tracker.finish({"best_loss": 0.25})
"""
            examples.run_script(script, name, TRACKIO_DIR=str(tmp_path / name), GRADIO_ANALYTICS_ENABLED="False")
            (file,) = (tmp_path / name).glob("*.db")
            with sqlite3.connect(file) as database:
                rows[name] = [
                    (run, step, json.loads(metrics))
                    for run, step, metrics in database.execute(
                        "select run_name, step, metrics from metrics order by id"
                    )
                ]
            database.close()
        assert rows["ours"] == rows["theirs"]
        assert rows["ours"][-1] == ("exp", 3, {"summary/best_loss": 0.25})


def test_ranks_above_0_record_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        for tracker in (ours.JSONTracker("exp", log_file_path="exp.json"), ours.DictTracker("exp")):
            tracker.init({"steps": 1})
            tracker.log({"loss": 0.5})
            tracker.finish({"best": 0.5})
        assert (tracker.records, tracker.summary) == ([{"loss": 0.5}], {"best": 0.5})
    assert len(runs_of(tmp_path)) == 2 and [path.name for path in tmp_path.glob("*.json")] == ["exp.json"]
