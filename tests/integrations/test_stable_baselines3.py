"""Stable-Baselines3: what its own outputs write of a training is recorded by ours as well."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from support import ended, manifest, records, start, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore::DeprecationWarning")]
pytest.importorskip("stable_baselines3", reason="needs the frameworks: tests/README.md", exc_type=ImportError)

import numpy as np  # noqa: E402
import torch  # noqa: E402
from matplotlib import figure  # noqa: E402
from stable_baselines3.common.callbacks import BaseCallback  # noqa: E402
from stable_baselines3.common.logger import Figure, HParam, Image, Logger, Video, configure  # noqa: E402
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: E402

from asynctrack import TensorBoard  # noqa: E402
from asynctrack.errors import InvalidSettings  # noqa: E402
from asynctrack.integrations.stable_baselines3 import AsyncCallback, AsyncWriter  # noqa: E402
from integrations import examples  # noqa: E402

pytestmark.append(pytest.mark.usefixtures("shared_host"))


class Stop(BaseCallback):
    """Fails at a step."""

    def _on_step(self) -> bool:
        if self.n_calls == 200:
            raise FloatingPointError("diverged")
        return True


def points(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values by tag, as TensorBoard reads them."""
    events = EventAccumulator(str(directory)).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_a_training_is_recorded_as_by_its_own_outputs(tmp_path: Path) -> None:
    """PPO on CartPole, with the outputs of Stable-Baselines3 and ours on one logger."""
    backends = ["jsonl", TensorBoard(dir=tmp_path / "ours", flat=True)]
    track = AsyncCallback("ppo", dir=tmp_path / "runs", excluded=["tensorboard"], backends=backends)
    model = examples.load("sb3_ppo").make_model()
    model.set_logger(configure(str(tmp_path / "theirs"), ["json", "tensorboard"]))
    model.learn(600, callback=track)
    model.logger.close()
    assert track.run is not None
    progress = [json.loads(line) for line in (tmp_path / "theirs/progress.json").read_text().splitlines()]
    kept = records(track.run.path)
    assert len(kept) == len(progress) == 5
    for record, line in zip(kept, progress, strict=True):
        assert record.step == line["time/total_timesteps"]
        assert record.data == {key: value for key, value in line.items() if key in record.data}
    assert points(tmp_path / "ours") == points(tmp_path / "theirs")
    config = manifest(track.run.path)["config"]
    assert (config["algorithm"], config["n_steps"], config["gamma"], config["seed"]) == ("PPO", 128, 0.99, 0)
    assert manifest(track.run.path)["status"] == "finished"


def test_by_itself_nothing_is_left_out(tmp_path: Path) -> None:
    track = AsyncCallback("ppo", dir=tmp_path)
    model = examples.load("sb3_ppo").make_model()
    configs = {}
    for _ in range(2):
        model.learn(128, callback=track)
        assert track.run is not None
        assert records(track.run.path)[0].data["time/iterations"] == 1
        configs[track.run.path] = manifest(track.run.path)["config"]
    first, second = configs.values()
    assert first == second, "how far a training is, and when it began, is no setting"
    assert not any(isinstance(output, AsyncWriter) for output in model.logger.output_formats)


def test_the_writer_alone_is_an_output(tmp_path: Path) -> None:
    writer = AsyncWriter("ppo", dir=tmp_path)
    model = examples.load("sb3_ppo").make_model()
    model.set_logger(Logger(folder=None, output_formats=[writer]))
    model.learn(256)
    model.logger.close()
    assert [record.step for record in records(writer.run.path)] == [128, 256]
    assert manifest(writer.run.path)["status"] == "finished"


def test_values_of_every_kind(tmp_path: Path) -> None:
    writer = AsyncWriter("ppo", dir=tmp_path, backends=[TensorBoard(dir=tmp_path / "tb", flat=True)])
    logger = Logger(folder=None, output_formats=[writer])
    drawn = figure.Figure(figsize=(2, 1), dpi=50)
    pixels = torch.zeros(3, 4, 5)
    values: dict[str, Any] = {
        "text": "hello",
        "f4": np.float32(0.5),
        "weights": torch.arange(3.0),
        "curve": Figure(drawn, close=True),
        "picture": Image(pixels, "CHW"),
        "grey": Image(np.zeros((4, 5), np.uint8), "HW"),
        "film": Video(torch.zeros(1, 2, 3, 4, 5), fps=10),
        "hparams": HParam({"lr": 0.1}, {"reward": 7}),
    }
    for key, value in values.items():
        logger.record(key, value)
    logger.record("hidden", 1, exclude="asynctrack")
    logger.record("shown", 1, exclude="tensorboard")
    logger.dump(step=3)
    pixels += 1
    logger.close()
    (record,) = records(writer.run.path)
    data = record.data
    assert (record.step, data["text"], data["f4"], data["shown"], data["reward"]) == (3, "hello", 0.5, 1, 7)
    assert data["weights"].tolist() == [0, 1, 2]
    assert data["film"].shape == (1, 2, 3, 4, 5)
    assert "hidden" not in data
    assert manifest(writer.run.path)["config"] == {"lr": 0.1}
    events = EventAccumulator(str(tmp_path / "tb")).Reload()
    sizes = {tag: events.Images(tag)[0] for tag in events.Tags()["images"]}
    assert {tag: (image.width, image.height) for tag, image in sizes.items()} == {
        "curve": (100, 50),
        "picture": (5, 4),
        "grey": (5, 4),
    }


def test_a_failed_training_leaves_a_failed_run(tmp_path: Path) -> None:
    track = AsyncCallback("ppo", dir=tmp_path)
    model = examples.load("sb3_ppo").make_model()
    with pytest.raises(FloatingPointError):
        model.learn(500, callback=[track, Stop()])
    first = track.run
    model.learn(128, callback=track)
    assert first is not None and track.run is not None
    assert (manifest(first.path)["status"], manifest(track.run.path)["status"]) == ("failed", "finished")
    assert len(records(track.run.path)) == 1


def test_settings_are_refused_at_once() -> None:
    with pytest.raises(InvalidSettings, match="no_such"):
        AsyncCallback("ppo", no_such=1)


def test_a_killed_training_keeps_what_was_dumped(tmp_path: Path) -> None:
    script = """
import os, signal, sys
from stable_baselines3.common.callbacks import BaseCallback
from tests.integrations import examples
from asynctrack.integrations.stable_baselines3 import AsyncCallback
class Kill(BaseCallback):
    def _on_step(self):
        if self.n_calls == 400:
            os.kill(os.getpid(), signal.SIGKILL)
        return True
examples.load("sb3_ppo").make_model().learn(1000, callback=[AsyncCallback("ppo", dir=sys.argv[1]), Kill()])
"""
    child = start(
        script.replace("from tests", f"sys.path[:0] = [{str(Path(__file__).parents[1])!r}]\nfrom tests"), tmp_path
    )
    assert child.wait() == -signal.SIGKILL, child.stderr and child.stderr.read()
    child.communicate()
    (run,) = (tmp_path / "ppo").iterdir()
    wait_until(lambda: ended(run), "the worker has noted the end")
    assert manifest(run)["status"] == "crashed"
    assert [record.step for record in records(run)] == [128, 256, 384]


def test_the_example_runs(tmp_path: Path) -> None:
    assert "has the run" in examples.run("sb3_ppo", 300, cwd=tmp_path)


def test_ranks_above_0_record_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    track = AsyncCallback("ppo", dir=tmp_path / "runs")
    model = examples.load("sb3_ppo").make_model()
    model.learn(200, callback=track)
    writer = AsyncWriter("ppo", dir=tmp_path / "runs")
    writer.write({"loss": 0.5}, {}, 1)
    writer.close()
    assert track.run is not None and track.run.config["algorithm"] == "PPO"
    assert list(tmp_path.iterdir()) == []
