"""The drop-in for Noether, against a stand-in of our own: its licence allows no other."""

from __future__ import annotations

import importlib
import logging
import math
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml
from support import DEADLINE_S, ROOT, ended, lines, manifest, records, start, values, wait_until

import asynctrack
from asynctrack.errors import InvalidSettings
from integrations import noether_stub
from integrations.noether_stub import Properties, Training, measured

pytestmark = pytest.mark.usefixtures("shared_host")

NAME = "asynctrack.integrations.noether"


@pytest.fixture(params=["without Noether", "with Noether"])
def drop_in(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module, imported where there is no Noether, and where there is a base class of its name."""
    if request.param == "with Noether":
        for name, module in noether_stub.base_modules().items():
            monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    yield importlib.import_module(NAME)
    sys.modules.pop(NAME, None)


def tracker_of(drop_in: Any, output: Path, **config: Any) -> Any:
    """A tracker as Noether builds it from the configuration."""
    settings = drop_in.AsyncTrackerConfig(kind=f"{NAME}.AsyncTracker", **config)
    return drop_in.AsyncTracker(tracker_config=settings, metric_property_provider=Properties(), path_provider=output)


def run_of(output: Path, project: str = "noether", run_id: str = "2026-11-21_ab12c") -> Path:
    return output / "asynctrack_runs" / project / run_id


def written(output: Path, file: str) -> Any:
    """The content of one of the tracker's files."""
    return yaml.safe_load((output / "tracker" / file).read_text())


def train(training: Training, updates: int, begin: int = 1) -> None:
    for update in range(begin, updates + 1):
        training.update(update)


def expected_summary(updates: int) -> dict[str, float]:
    losses, accuracies = (
        [measured(update)[key] for update in range(1, updates + 1)] for key in ("loss/train", "accuracy/test")
    )
    return {
        "num_params": 1234,
        "ds_stats/train/len": 100,
        "loss/train/min": min(losses),
        "loss/train/last": losses[-1],
        "accuracy/test/max": max(accuracies),
        "accuracy/test/last": accuracies[-1],
    }


def test_a_training_is_a_run_with_noethers_files(drop_in: Any, tmp_path: Path) -> None:
    tracker = tracker_of(drop_in, tmp_path, backends=["jsonl", {"kind": "tensorboard", "flush_s": 0.5}], project="cars")
    training = Training(tracker, tmp_path)
    training.begin("pretrain")
    train(training, 10)
    training.end(entries=b"")
    run = run_of(tmp_path, "cars", "2026-11-21_ab12c-pretrain")
    told = manifest(run)
    assert (told["status"], told["name"]) == ("finished", "ab-upt/pretrain")
    assert told["config"]["accelerator"] == "cpu" and told["config"]["hp"]["lr"] == 0.1
    assert told["config"] == written(tmp_path, "config.yaml")
    found = records(run)
    assert [record.step for record in found] == list(range(1, 11))
    assert [record.data["loss/train"] for record in found] == [
        measured(update)["loss/train"] for update in range(1, 11)
    ]
    assert found[4].data == {"epoch": 0.5, "update": 5, "sample": 20, **measured(5)}  # a copy
    assert told["summary"] == written(tmp_path, "summary.yaml") == expected_summary(10)
    assert list((run / "tensorboard").glob("*tfevents*")) and len(lines(run)) == 10


@pytest.mark.parametrize("entries", [None, b"", b"torn"])
def test_the_summary_of_values_needs_no_entries(drop_in: Any, tmp_path: Path, entries: bytes | None) -> None:
    training = Training(tracker_of(drop_in, tmp_path), tmp_path)
    training.begin()
    train(training, 10)
    training.end(entries=entries)
    assert manifest(run_of(tmp_path))["summary"] == written(tmp_path, "summary.yaml") == expected_summary(10)


def test_values_that_are_not_numbers_do_not_spoil_the_summary(drop_in: Any, tmp_path: Path) -> None:
    tracker = tracker_of(drop_in, tmp_path)
    training = Training(tracker, tmp_path)
    training.begin()
    for value in (2.0, math.nan, 1.0):
        tracker.log({"update": 1, "loss": value, "only": math.nan, "text": "a", "picture": object, "nested": {"x": 1}})
    training.end(entries=b"")
    summary = manifest(run_of(tmp_path))["summary"]
    assert (summary["loss/min"], summary["loss/last"]) == (1.0, 1.0)
    assert math.isnan(float(summary["only/min"])) and "text/last" not in summary


def test_what_a_failed_training_leaves(drop_in: Any, tmp_path: Path) -> None:
    tracker = tracker_of(drop_in, tmp_path)
    training = Training(tracker, tmp_path)
    training.begin()
    train(training, 3)
    assert written(tmp_path, "summary.yaml") == {"num_params": 1234, "ds_stats/train/len": 100}  # nobody closes it
    tracker.run.flush("journaled")
    assert asynctrack.open_run(run_of(tmp_path)).summary == {"num_params": 1234, "ds_stats/train/len": 100}
    tracker.close()


def test_a_run_that_is_opened_again_goes_on(drop_in: Any, tmp_path: Path) -> None:
    for updates, begin in ((3, 1), (5, 4)):
        training = Training(tracker_of(drop_in, tmp_path), tmp_path)
        training.begin()
        train(training, updates, begin)
        training.end(entries=b"")
    assert [record.step for record in records(run_of(tmp_path))] == [1, 2, 3, 4, 5]
    assert written(tmp_path, "summary.yaml") == expected_summary(5)


def test_stages_of_a_training_are_runs_of_their_own(drop_in: Any, tmp_path: Path) -> None:
    tracker = tracker_of(drop_in, tmp_path, dir=str(tmp_path / "all"))
    for stage in ("pretrain", "finetune"):
        training = Training(tracker, tmp_path)
        training.begin(stage)
        train(training, 2)
    tracker.close()
    names = {path.name for path in (tmp_path / "all" / "noether").iterdir()}
    assert names == {"2026-11-21_ab12c-pretrain", "2026-11-21_ab12c-finetune"}
    assert {manifest(path)["status"] for path in (tmp_path / "all" / "noether").iterdir()} == {"finished"}


def test_disabled_leaves_no_run(drop_in: Any, tmp_path: Path) -> None:
    training = Training(tracker_of(drop_in, tmp_path, mode="disabled"), tmp_path)
    training.begin()
    train(training, 3)
    training.end(entries=b"")
    assert not (tmp_path / "asynctrack_runs").exists()
    assert written(tmp_path, "summary.yaml") == {"num_params": 1234, "ds_stats/train/len": 100}


def test_other_ranks_do_nothing(drop_in: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if hasattr(drop_in.BaseTracker, "rank"):
        monkeypatch.setattr(drop_in.BaseTracker, "rank", 1)
    else:
        monkeypatch.setattr("asynctrack.integrations.noether_base._is_rank_0", lambda: False)
    training = Training(tracker_of(drop_in, tmp_path), tmp_path)
    training.begin()
    train(training, 3)
    training.tracker.summarize_logvalues()
    training.tracker.close()
    assert list(tmp_path.iterdir()) == []


def test_what_is_logged_outside_of_a_run_is_told_once(
    drop_in: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = tracker_of(drop_in, tmp_path)
    tracker.set_summary("early", 1)
    with caplog.at_level(logging.WARNING, "asynctrack"):
        tracker.log({"loss": 1.0})
        tracker.log({"loss": 1.0})
    assert len(caplog.records) == 1 and "without an open run" in caplog.text
    training = Training(tracker, tmp_path)
    training.begin()
    training.end(entries=b"")
    assert manifest(run_of(tmp_path))["summary"]["early"] == 1


def test_wrong_settings_are_told_when_it_is_built(drop_in: Any, tmp_path: Path) -> None:
    wrong = [{"kind": "tensorboard", "flsh_s": 1.0}, "nonsense"]
    with pytest.raises(InvalidSettings) as found:
        tracker_of(drop_in, tmp_path, mode="sometimes", settings={"nonsense": 1}, backends=wrong)
    assert len(found.value.problems) == 4 and "flush_s" in str(found.value)


def test_a_summary_that_yaml_cannot_hold_does_not_end_the_training(
    drop_in: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    numpy = pytest.importorskip("numpy")
    training = Training(tracker_of(drop_in, tmp_path), tmp_path)
    training.begin()
    training.tracker.set_summary("best", numpy.float32(0.5))
    training.end(entries=b"")
    assert manifest(run_of(tmp_path))["status"] == "finished"
    assert manifest(run_of(tmp_path))["summary"]["best"] == 0.5
    assert "summary.yaml cannot be written" in caplog.text


def test_the_example_is_a_configuration(drop_in: Any, tmp_path: Path) -> None:
    config = yaml.safe_load((ROOT / "examples" / "noether_config.yaml").read_text())["tracker"]
    module, _, name = config["kind"].rpartition(".")
    assert getattr(importlib.import_module(module), name) is drop_in.AsyncTracker
    settings = drop_in.AsyncTrackerConfig(**config)
    tracker = drop_in.AsyncTracker(settings, metric_property_provider=Properties(), path_provider=tmp_path)
    training = Training(tracker, tmp_path)
    training.begin()
    train(training, 2)
    training.end(entries=b"")
    assert list(run_of(tmp_path, "cars").glob("tensorboard/*tfevents*")) and len(lines(run_of(tmp_path, "cars"))) == 2


def test_the_configurations_class_is_found_by_the_constructors_hint(drop_in: Any) -> None:
    assert get_type_hints(drop_in.AsyncTracker.__init__)["tracker_config"] is drop_in.AsyncTrackerConfig


def test_the_configuration_may_be_pydantics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pydantic = pytest.importorskip("pydantic", reason="Noether brings it: tests/README.md")
    modules = noether_stub.base_modules()

    class Base(pydantic.BaseModel):  # type: ignore[misc]  # it may not be there when types are checked
        model_config = pydantic.ConfigDict(extra="forbid")
        kind: str | None = None

    modules["noether.core.schemas.trackers"].BaseTrackerConfig = Base  # type: ignore[attr-defined]  # a module of our own
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    drop_in = importlib.import_module(NAME)
    try:
        config = yaml.safe_load((ROOT / "examples" / "noether_config.yaml").read_text())["tracker"]
        training = Training(
            drop_in.AsyncTracker(
                drop_in.AsyncTrackerConfig(**config), metric_property_provider=None, path_provider=tmp_path
            ),
            tmp_path,
        )
        training.begin()
        train(training, 2)
        training.tracker.close()
        assert len(records(run_of(tmp_path, "cars"))) == 2
        with pytest.raises(pydantic.ValidationError):
            drop_in.AsyncTrackerConfig(nonsense=1)
    finally:
        sys.modules.pop(NAME, None)


KILLED = """
import os, signal
from pathlib import Path
from asynctrack.integrations.noether import AsyncTracker, AsyncTrackerConfig
from integrations.noether_stub import Properties, Training
output = Path(sys.argv[1])
training = Training(AsyncTracker(AsyncTrackerConfig(), metric_property_provider=Properties(), path_provider=output), output)
training.begin()
for update in range(1, 1001):
    training.update(update)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.system
def test_a_killed_training_keeps_its_values_and_its_summary(tmp_path: Path) -> None:
    here = Path(__file__).parent
    child = start(KILLED, tmp_path, PYTHONPATH=f"{here.parent.parent}:{here.parent}")
    _, errors = child.communicate(timeout=2 * DEADLINE_S)
    assert child.returncode == -signal.SIGKILL, errors
    run = run_of(tmp_path)
    wait_until(lambda: ended(run), "the worker has ended the run")
    assert manifest(run)["status"] == "crashed"
    assert values(run, "loss/train") == [measured(update)["loss/train"] for update in range(1, 1001)]
    assert (
        manifest(run)["summary"] == written(tmp_path, "summary.yaml") == {"num_params": 1234, "ds_stats/train/len": 100}
    )
