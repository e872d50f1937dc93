"""The drop-in for Hugging Face's Trainer, in real trainings of a tiny model."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
from support import manifest, records

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore"),
]  # torch and transformers have much to say
pytest.importorskip("transformers", reason="needs the frameworks: tests/README.md", exc_type=ImportError)

from transformers import TrainerCallback  # noqa: E402

from asynctrack.errors import InvalidSettings  # noqa: E402
from asynctrack.integrations.transformers import AsyncCallback  # noqa: E402
from integrations import examples  # noqa: E402

pytestmark.append(pytest.mark.usefixtures("shared_host"))


class Spy(TrainerCallback):  # type: ignore[misc]  # transformers'
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.logs: list[tuple[int, dict[str, Any]]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self.logs.append((state.global_step, dict(logs)))


def trainer(directory: Path, *callbacks: TrainerCallback) -> Any:
    return examples.load("transformers_training").make_trainer(directory / "out", *callbacks)


def renamed(logs: dict[str, Any]) -> dict[str, Any]:
    """As the Trainer's own trackers name them."""
    from transformers.integrations.integration_utils import rewrite_logs

    found: dict[str, Any] = rewrite_logs(logs)
    return found


def test_a_run_has_what_the_trainer_logs(tmp_path: Path) -> None:
    spy, ours = Spy(), AsyncCallback("llama", dir=tmp_path / "runs")
    made = trainer(tmp_path, ours, spy)
    made.train()
    run = ours.run.path
    told = manifest(run)
    assert (told["status"], told["name"]) == ("finished", "tiny")
    assert told["config"]["max_steps"] == 4 and told["config"]["model"]["vocab_size"] == 16
    made.evaluate()
    made.predict(made.eval_dataset)
    assert ours.run.path == run and manifest(run)["status"] == "finished"  # it went on, and has ended again
    found = [(record.step, record.data) for record in records(run)]
    assert found[:-1] == [(step, renamed(logs)) for step, logs in spy.logs]
    assert found[-1][0] == 4 and "test/loss" in found[-1][1]
    assert len([data for _, data in found if "train/loss" in data]) == 4


def test_each_training_is_a_run_of_its_own(tmp_path: Path) -> None:
    ours = AsyncCallback("llama", dir=tmp_path / "runs")
    for _ in range(2):
        trainer(tmp_path, ours).train()
    assert len(list((tmp_path / "runs" / "llama").iterdir())) == 2


def test_an_evaluation_alone_is_a_run(tmp_path: Path) -> None:
    ours = AsyncCallback("llama", dir=tmp_path / "runs")
    trainer(tmp_path, ours).evaluate()
    assert manifest(ours.run.path)["status"] == "finished" and "eval/loss" in records(ours.run.path)[0].data


def test_a_training_that_raises_leaves_a_failed_run(tmp_path: Path) -> None:
    class Failing(TrainerCallback):  # type: ignore[misc]  # transformers'
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 2:
                raise ZeroDivisionError("in the second step")

    ours = AsyncCallback("llama", dir=tmp_path / "runs")
    with pytest.raises(ZeroDivisionError):
        trainer(tmp_path, ours, Failing()).train()
    first = ours.run.path
    trainer(tmp_path, ours).train()
    assert manifest(first)["status"] == "failed" and manifest(ours.run.path)["status"] == "finished"
    del ours
    gc.collect()


def test_wrong_settings_are_told_when_it_is_built() -> None:
    with pytest.raises(InvalidSettings, match="mode must be one of"):
        AsyncCallback(mode="sometimes")


def test_the_example_runs(tmp_path: Path) -> None:
    assert "has the run" in examples.run("transformers_training", tmp_path / "runs", cwd=tmp_path)
    (run,) = (tmp_path / "runs" / "llama").iterdir()
    assert manifest(run)["status"] == "finished"
