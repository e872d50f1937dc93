"""The drop-in for Lightning, in real trainings."""

from __future__ import annotations

import copy
import csv
import pickle
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from support import manifest, records

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore"),
]  # Lightning has much to say
pytest.importorskip("lightning.pytorch", reason="needs the frameworks: tests/README.md", exc_type=ImportError)

import lightning.pytorch as pl  # noqa: E402
from lightning.pytorch.loggers import CSVLogger  # noqa: E402

import asynctrack  # noqa: E402
from asynctrack.errors import InvalidRunId, InvalidSettings  # noqa: E402
from asynctrack.integrations.lightning import AsyncLogger  # noqa: E402
from integrations import examples  # noqa: E402

pytestmark.append(pytest.mark.usefixtures("shared_host"))


def test_a_run_has_what_lightnings_own_logger_has(tmp_path: Path) -> None:
    own = CSVLogger(tmp_path, "own", flush_logs_every_n_steps=1)
    ours = AsyncLogger("line", dir=tmp_path / "runs")
    trainer = examples.load("lightning_training").train([ours, own], default_root_dir=tmp_path)
    with open(Path(own.log_dir, "metrics.csv")) as file:
        rows = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    found = [{**record.data, "step": record.step} for record in records(Path(ours.log_dir))]
    assert merged(found) == pytest.approx(merged(rows)) and len(found) > 12
    told = manifest(Path(ours.log_dir))
    assert told["status"] == "finished" and told["config"]["lr"] == 0.1
    assert {"train/loss", "val/loss", "test/loss", "epoch"} <= {key for record in found for key in record}
    assert Path(trainer.checkpoint_callback.best_model_path).is_relative_to(ours.log_dir)
    assert (ours.name, ours.root_dir) == ("line", str(tmp_path / "runs" / "line"))


def merged(rows: list[dict[str, Any]]) -> dict[tuple[int, str], float]:
    """Values by step and name."""
    return {(int(row["step"]), key): value for row in rows for key, value in row.items() if key != "step"}


def test_a_training_that_raises_leaves_a_failed_run(tmp_path: Path) -> None:
    class Failing(pl.Callback):
        def on_train_epoch_end(self, trainer: Any, model: Any) -> None:
            raise ZeroDivisionError("in the second epoch")

    ours = AsyncLogger("line", dir=tmp_path / "runs")
    with pytest.raises(ZeroDivisionError):
        examples.load("lightning_training").train(ours, callbacks=[Failing()], default_root_dir=tmp_path)
    told = manifest(Path(ours.log_dir))
    assert (told["status"], told["error"]) == ("failed", "ZeroDivisionError: in the second epoch")


def test_other_ranks_open_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    monkeypatch.setattr(rank_zero_only, "rank", 1)
    ours = AsyncLogger("line", dir=tmp_path / "runs")
    ours.log_metrics({"loss": 0.5}, 1)
    ours.log_hyperparams({"lr": 0.1})
    ours.experiment.log({"loss": 0.5}, step=1)
    ours.experiment.add_image("grid", None, global_step=1)
    ours.experiment["x"].anything(1)
    assert (ours.experiment.id, str(ours.experiment.path)) == (ours.version, ours.log_dir)
    assert (ours.save_dir, ours.name) == (str(tmp_path / "runs"), "line")
    for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        twin.log_metrics({"loss": 0.5}, 1)
    ours.finalize("success")
    assert list(tmp_path.iterdir()) == []


def test_a_copy_of_a_logger_whose_run_is_open_logs_to_the_same_run(tmp_path: Path) -> None:
    ours = AsyncLogger("line", dir=tmp_path / "runs")
    ours.log_metrics({"a": 0.0}, 0)
    copied, sent = copy.deepcopy(ours), pickle.dumps(ours)
    copied.log_metrics({"a": 1.0}, 1)
    script = "import pickle, sys; logger = pickle.loads(bytes.fromhex(sys.argv[1])); logger.log_metrics({'a': 2.0}, 2); logger.finalize('success')"
    examples.run_script(script, sent.hex())
    ours.log_metrics({"a": 3.0}, 3)
    ours.finalize("success")
    late = pickle.loads(sent)  # when the run has ended
    late.log_metrics({"a": 4.0}, 4)
    late.finalize("success")
    assert [record.data["a"] for record in records(Path(ours.log_dir))] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert manifest(Path(ours.log_dir))["status"] == "finished"


def test_what_is_logged_has_its_name_step_and_place(tmp_path: Path) -> None:
    ours = AsyncLogger("line", id="mine", prefix="net", dir=tmp_path, backends=[memory := asynctrack.Memory()])
    ours.log_hyperparams(Namespace(lr=0.1, layers=[1, 2]), {"best": 0.25})
    ours.log_metrics({"loss": 0.5}, 3.0)
    other = pickle.loads(pickle.dumps(AsyncLogger("line", id="other", dir=tmp_path)))
    assert (other.name, other.version) == ("line", "other")
    ours.finalize("success")
    assert (memory.records, memory.steps) == ([{"net/loss": 0.5}], [3])
    told = manifest(tmp_path / "line" / "mine")
    assert told["config"] == {"lr": 0.1, "layers": [1, 2]} and told["summary"] == {"best": 0.25}


def test_wrong_settings_are_told_when_it_is_built() -> None:
    with pytest.raises(InvalidSettings, match="mode must be one of"):
        AsyncLogger(mode="sometimes")
    with pytest.raises(InvalidRunId):
        AsyncLogger(id="../out")


def test_the_example_runs(tmp_path: Path) -> None:
    assert "has the run" in examples.run("lightning_training", tmp_path / "runs", cwd=tmp_path)
