"""Tianshou: what its own TensorboardLogger writes of a training is there from ours as well, and what that loses is kept."""

from __future__ import annotations

import json
import pickle
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import DEADLINE_S, ended, manifest, records, start, stopped, the_worker, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
pytest.importorskip("tianshou", reason="tests/README.md says how to get the frameworks")

import numpy as np  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: E402
from tianshou.utils import BaseLogger, TensorboardLogger  # noqa: E402
from torch.utils.tensorboard import SummaryWriter  # noqa: E402

from asynctrack import JSONLines  # noqa: E402
from asynctrack.integrations.tianshou import AsyncLogger, AsyncLoggerFactory, DataScope, LazyLogger  # noqa: E402
from integrations import examples  # noqa: E402

INTERVALS = {
    "training_interval": 100,
    "test_interval": 1,
    "update_interval": 10,
    "info_interval": 1,
    "save_interval": 1,
}
# What depends on the machine's mood.
TIMES = ("time", "speed")
SCOPES = {
    "training": "training/env_step",
    "test": "test/env_step",
    "update": "update/update_step",
    "info": "info/epoch",
}


@pytest.fixture(scope="module")
def trained(shared_host: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Log directories of the same training, once with Tianshou's own logger and once with ours."""
    directory = tmp_path_factory.mktemp("trained")
    found = {"theirs": directory / "theirs", "ours": directory / "ours"}
    train = examples.load("tianshou_dqn").train
    for logger in (stock(found["theirs"], **INTERVALS), AsyncLogger(found["ours"], **INTERVALS)):
        train(logger, save_checkpoint_fn=lambda *steps: "saved")
        logger.finalize()
    return found


@pytest.fixture
def logger(shared_host: Path, tmp_path: Path) -> Iterator[AsyncLogger]:
    logger = AsyncLogger(tmp_path / "log", **INTERVALS)
    yield logger
    logger.finalize()


def stock(log_dir: Path, **intervals: Any) -> TensorboardLogger:
    return TensorboardLogger(SummaryWriter(str(log_dir)), **intervals)


def flat(nested: dict[str, Any], parent: str = "") -> dict[str, list[float]]:
    """What `restore_logged_data` gives, by tag."""
    found: dict[str, list[float]] = {}
    for key, value in nested.items():
        found |= flat(value, f"{parent}{key}/") if isinstance(value, dict) else {f"{parent}{key}": value.tolist()}
    return found


def points(log_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values by tag, as TensorBoard reads them."""
    events = EventAccumulator(str(log_dir), size_guidance={"scalars": 0}).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def is_time(tag: str) -> bool:
    return any(word in tag for word in TIMES)


def test_event_files_have_the_same_tags_steps_and_values(trained: dict[str, Path]) -> None:
    theirs, ours = points(trained["theirs"]), points(trained["ours"])
    assert ours.keys() == theirs.keys()
    assert {"save/save/epoch", "training/env_step", "update/update_step", "info/epoch"} <= ours.keys()
    for tag in ours:
        assert [step for step, _ in ours[tag]] == [step for step, _ in theirs[tag]]
        assert ours[tag] == theirs[tag] or is_time(tag)


def test_tianshous_loader_reads_what_ours_wrote(trained: dict[str, Path]) -> None:
    ours, theirs = (flat(TensorboardLogger.restore_logged_data(str(trained[which]))) for which in ("ours", "theirs"))
    assert {tag: values for tag, values in ours.items() if not is_time(tag)} == {
        tag: values for tag, values in theirs.items() if not is_time(tag)
    }


def test_our_loader_reads_the_same_and_more_exactly(trained: dict[str, Path]) -> None:
    ours = flat(AsyncLogger.restore_logged_data(str(trained["ours"])))
    theirs = flat(TensorboardLogger.restore_logged_data(str(trained["ours"])))
    assert {tag: np.float32(values).tolist() for tag, values in ours.items()} == theirs


def test_restoring_gives_the_last_saved_epoch(trained: dict[str, Path], shared_host: Path) -> None:
    ours = AsyncLogger(trained["ours"], mode="disabled")
    assert ours.restore_data() == stock(trained["theirs"]).restore_data() == (2, 1000, 100)
    ours.finalize()


def test_the_run_has_one_record_a_call(trained: dict[str, Path]) -> None:
    (run,) = (trained["ours"] / "tianshou").iterdir()
    assert manifest(run)["status"] == "finished"
    first = records(run)[0]
    assert (first.step, first.data["test/env_step"]) == (0, 0)
    assert first.data["test/lens_stat/mean"] > 0


@pytest.mark.parametrize("exclude_arrays", [True, False])
def test_dicts_are_flattened_by_the_same_rules(logger: AsyncLogger, tmp_path: Path, exclude_arrays: bool) -> None:
    data = {
        "whole": 3,
        "real": {"f4": np.float32(0.5), "i8": np.int64(7), "none": None, 5: {"deep": 1.5}},
        "/slashed": {"//twice": 1},
        "true": True,
        "array": np.arange(3),
        "point": np.array(2.0),
        "np_bool": np.bool_(True),
        "text": "text",
        "list": [1],
        "empty": {},
        "complex": 1j,
    }
    theirs = stock(tmp_path / "theirs").prepare_dict_for_logging(data, exclude_arrays=exclude_arrays)
    logger.exclude_arrays = exclude_arrays
    ours = logger.prepare_dict_for_logging(data)
    assert list(ours) == list(theirs)
    assert all(ours[key] is theirs[key] for key in ours)
    below = stock(tmp_path / "theirs").prepare_dict_for_logging(data, "a", ".")
    assert list(logger.prepare_dict_for_logging(data, "a", ".", True)) == list(below)


@pytest.mark.parametrize("scope", SCOPES)
def test_each_scope_is_gated_as_in_tianshou(shared_host: Path, tmp_path: Path, scope: str) -> None:
    kept = {}
    for which in ("ours", "theirs"):
        intervals = {f"{scope}_interval": 100}
        log_dir = tmp_path / which
        logger = AsyncLogger(log_dir, **intervals) if which == "ours" else stock(log_dir, **intervals)
        for step in (0, 50, 98, 99, 99, 150, 198, 199, 500):
            getattr(logger, f"log_{scope}_data")({"x": step}, step)
        logger.finalize()
        kept[which] = points(log_dir)
        assert getattr(logger, f"last_log_{scope}_step") == 500
    assert kept["ours"] == kept["theirs"]
    assert [step for step, _ in kept["ours"][f"{scope}/x"]] == [99, 199, 500]


@pytest.mark.parametrize("step_type", ["training", "a/b/c"])
def test_a_step_type_has_exactly_one_slash(logger: AsyncLogger, step_type: str) -> None:
    with pytest.raises(ValueError, match="unpack"):
        logger.write(step_type, 1, {"x": 1})


def test_arrays_and_figures_are_what_they_were_at_the_call(logger: AsyncLogger) -> None:
    array = np.arange(10.0)
    figure = Figure(figsize=(2, 1), dpi=50)
    line = figure.subplots().plot([1, 2])[0]
    logger.write("test/env_step", 5, {"weights": array, "point": np.array(2.0), "curve": figure})
    array[:] = 0
    line.set_ydata([0, 0])
    logger.finalize()
    events = EventAccumulator(logger.log_dir).Reload()
    tags = events.Tags()
    assert {*tags["histograms"]} == {"test/weights", "test/point"}
    (histogram,) = events.Histograms("test/weights")
    assert (histogram.step, histogram.histogram_value.num, histogram.histogram_value.sum) == (5, 10, 45)
    assert tags["images"] == ["test/curve"]
    (image,) = events.Images("test/curve")
    assert (image.width, image.height, image.encoded_image_string[:4]) == (100, 50, b"\x89PNG")


def test_a_name_that_is_its_step_type_has_both_points(logger: AsyncLogger, tmp_path: Path) -> None:
    theirs = stock(tmp_path / "theirs")
    for each in (logger, theirs):
        each.write("test/env_step", 5, {"env_step": 7})
        each.finalize()
    assert points(tmp_path / "log") == points(tmp_path / "theirs") == {"test/env_step": [(5, 5.0), (5, 7.0)]}


@pytest.mark.parametrize("save_interval", [None, 1, 2])
def test_state_is_saved_before_it_is_remembered(shared_host: Path, tmp_path: Path, save_interval: int | None) -> None:
    logger = AsyncLogger(tmp_path / "log", save_interval=save_interval)
    seen = []

    def save(*steps: int) -> str:
        logger.run.flush("journaled")
        seen.append((steps, AsyncLogger.restore_logged_data(logger.log_dir).get("save", {}).get("epoch", np.array([]))))
        return "path"

    for epoch in (1, 2, 3):
        logger.save_data(epoch, epoch * 100, epoch * 10, save)
        logger.save_data(epoch, 0, 0, None)
    logger.finalize()
    epochs = [] if save_interval is None else list(range(save_interval, 4, save_interval))
    epochs = [1, 3] if save_interval == 2 else epochs
    assert [steps for steps, _ in seen] == [(epoch, epoch * 100, epoch * 10) for epoch in epochs]
    assert [before.tolist() for _, before in seen] == [epochs[:count] for count in range(len(epochs))]
    assert logger.restore_data() == ((3, 300, 30) if epochs else (0, 0, 0))


def test_a_save_is_over_when_the_journal_is_on_disk(shared_host: Path, logger: AsyncLogger) -> None:
    logger.run.flush("synced")
    saving = threading.Thread(target=logger.save_data, args=(1, 100, 10, lambda *steps: "path"))
    with stopped(the_worker(shared_host)):
        saving.start()
        saving.join(0.3)
        assert saving.is_alive()
    saving.join(DEADLINE_S)
    assert not saving.is_alive()
    assert logger.restore_data() == (1, 100, 10)


def test_a_failing_save_stops_the_training_and_is_not_remembered(logger: AsyncLogger) -> None:
    def save(*steps: int) -> str:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        logger.save_data(1, 100, 10, save)
    assert logger.restore_data() == (0, 0, 0)


def test_gating_of_all_scopes_goes_on_where_the_saved_state_was(shared_host: Path, tmp_path: Path) -> None:
    first = AsyncLogger(tmp_path / "log", training_interval=100, test_interval=150, update_interval=10, save_interval=1)
    for step in range(0, 500, 50):
        first.log_training_data({"x": 1}, step)
        first.log_test_data({"x": 1}, step)
        first.log_update_data({"x": 1}, step // 10)
        if step == 300:
            first.save_data(3, 300, 30, lambda *_: "path")
            first.log_info_data({"x": 1}, 3)
    first.finalize()
    second = AsyncLogger(tmp_path / "log")
    assert second.restore_data() == (3, 300, 30)
    assert second.last_save_step == second.last_log_info_step == 3
    # A grid of 100, 150 and 10 steps, that begins at 100, 150 and 10.
    assert second.last_log_training_step == 300
    assert second.last_log_test_step == 300
    assert second.last_log_update_step == 30
    second.finalize()


def test_twelve_thousand_points_are_all_restored(logger: AsyncLogger) -> None:
    for step in range(12_000):
        logger.write("training/env_step", step, {"x": step * 0.1})
    logger.finalize()
    restored = AsyncLogger.restore_logged_data(logger.log_dir)["training"]
    assert restored["x"].tolist() == [step * 0.1 for step in range(12_000)]
    assert len(TensorboardLogger.restore_logged_data(logger.log_dir)["training"]["x"]) == 10_000


def test_what_is_being_logged_is_restored_at_once(logger: AsyncLogger) -> None:
    for step in range(5):
        logger.write("training/env_step", step, {"x": step})
        assert AsyncLogger.restore_logged_data(logger.log_dir)["training"]["x"].tolist() == list(range(step + 1))


def test_nothing_to_restore(shared_host: Path, tmp_path: Path) -> None:
    (tmp_path / "tianshou/killed/journal").mkdir(parents=True)
    assert AsyncLogger.restore_logged_data(str(tmp_path)) == {}


@pytest.mark.parametrize("run_id", [None, "night"])
def test_a_training_that_is_killed_goes_on_from_its_saved_state(
    shared_host: Path, tmp_path: Path, run_id: str | None
) -> None:
    script = """
import os, signal, sys
from asynctrack.integrations.tianshou import AsyncLogger
logger = AsyncLogger(sys.argv[1], 1, save_interval=1, run_id=sys.argv[2] or None)
for step in range(1, 1001):
    logger.log_training_data({"x": step}, step)
    if step % 300 == 0:
        logger.save_data(step // 300, step, step, lambda *steps: "path")
os.kill(os.getpid(), signal.SIGKILL)
"""
    child = start(script, tmp_path / "log", run_id or "")
    assert child.wait() == -signal.SIGKILL, child.stderr and child.stderr.read()
    child.communicate()
    second = AsyncLogger(tmp_path / "log", 1, run_id=run_id)
    assert second.restore_data() == (3, 900, 900)
    assert second.last_log_training_step == 900
    second.log_training_data({"x": 901}, 901)
    second.finalize()
    assert len(list((tmp_path / "log/tianshou").iterdir())) == (1 if run_id else 2)
    values = AsyncLogger.restore_logged_data(tmp_path / "log")["training"]["x"].tolist()
    assert values == [*range(1, 1001), 901]


@pytest.mark.parametrize("flush", [True, False])
def test_what_each_logger_keeps_of_a_killed_training(shared_host: Path, tmp_path: Path, flush: bool) -> None:
    script = """
import os, signal, sys
from torch.utils.tensorboard import SummaryWriter
from tianshou.utils import TensorboardLogger
from asynctrack.integrations.tianshou import AsyncLogger
for logger in (TensorboardLogger(SummaryWriter(sys.argv[1]), 1, write_flush=sys.argv[3] == "True"), AsyncLogger(sys.argv[2], 1)):
    for step in range(1000):
        logger.log_training_data({"x": step}, step)
os.kill(os.getpid(), signal.SIGKILL)
"""
    child = start(script, tmp_path / "theirs", tmp_path / "ours", flush)
    assert child.wait() == -signal.SIGKILL
    child.communicate()
    (run,) = (tmp_path / "ours/tianshou").iterdir()
    wait_until(lambda: ended(run), "the worker has noted the end")
    assert manifest(run)["status"] == "crashed"
    wait_until(lambda: len(points(tmp_path / "ours").get("training/x", [])) >= 1000, "the event file has all")
    assert [value for _, value in points(tmp_path / "ours")["training/x"]] == list(range(1000))
    theirs = len(points(tmp_path / "theirs").get("training/x", []))
    assert theirs == 1000 if flush else theirs <= 1000


def test_a_trainer_resumes_from_the_log(trained: dict[str, Path], shared_host: Path, tmp_path: Path) -> None:
    train = examples.load("tianshou_dqn").train
    for epochs in (1, 3):
        logger = AsyncLogger(tmp_path / "log", **INTERVALS)
        train(logger, epochs, save_checkpoint_fn=lambda *steps: "saved", resume_from_log=True)
        logger.finalize()
    assert flat(AsyncLogger.restore_logged_data(tmp_path / "log"))["info/epoch"] == [1, 2, 3]
    assert [step for step, _ in points(tmp_path / "log")["info/epoch"]] == [1, 2, 3]


def test_a_high_level_experiment_with_our_factory(shared_host: Path, tmp_path: Path) -> None:
    script = """
import sys
from tianshou.highlevel.config import OffPolicyTrainingConfig
from tianshou.highlevel.env import EnvFactoryRegistered, VectorEnvType
from tianshou.highlevel.experiment import DQNExperimentBuilder, ExperimentConfig
from asynctrack.integrations.tianshou import AsyncLoggerFactory
experiment = (
    DQNExperimentBuilder(
        EnvFactoryRegistered(task="CartPole-v1", venv_type=VectorEnvType.DUMMY),
        ExperimentConfig(persistence_base_dir=sys.argv[1], watch=False, train=True, device="cpu"),
        OffPolicyTrainingConfig(
            max_epochs=1, epoch_num_steps=200, num_training_envs=1, num_test_envs=1, buffer_size=500,
            collection_step_num_env_steps=10, test_step_num_episodes=1, batch_size=16, start_timesteps=0,
        ),
    )
    .with_logger_factory(AsyncLoggerFactory(training_interval=50, backends=["jsonl"]))
    .with_name("a/b=c")
    .build()
)
experiment.run()
"""
    examples.run_script(script, tmp_path)
    (pickled,) = tmp_path.rglob("experiment.pkl")
    experiment = pickle.loads(pickled.read_bytes())
    cls = experiment.logger_factory.get_logger_class()
    assert cls is AsyncLogger
    data = cls.restore_logged_data(str(pickled.parent))
    assert data[DataScope.TRAINING]["env_step"].size and data[DataScope.TEST]["returns_stat"]["mean"].size
    (run,) = (pickled.parent / "tianshou").iterdir()
    assert manifest(run)["name"] == "a/b=c"
    assert manifest(run)["config"]["experiment_config"]["device"] == "cpu"
    assert manifest(run)["status"] == "finished"


def test_the_factory_is_pickled_with_its_settings(shared_host: Path, tmp_path: Path) -> None:
    factory = pickle.loads(pickle.dumps(AsyncLoggerFactory(training_interval=7, backends=[JSONLines(file="x.jsonl")])))
    logger = factory.create_logger(str(tmp_path / "log"), "name", "id", {"lr": 0.1})
    assert (logger.training_interval, logger.save_interval, logger.run.id) == (7, None, "id")
    assert (logger.run.name, logger.run.config) == ("name", {"lr": 0.1})
    logger.write("a/b", 1, {"x": 1})
    logger.finalize()
    (line,) = (logger.run.path / "x.jsonl").read_text().splitlines()
    assert json.loads(line)["a/x"] == 1


def test_names_of_both_versions(logger: AsyncLogger) -> None:
    assert DataScope.TRAIN is DataScope.TRAINING == "training"
    logger.train_interval = 5
    assert logger.training_interval == logger.train_interval == 5
    logger.log_train_data({"x": 1}, 4)
    assert logger.last_log_train_step == logger.last_log_training_step == 4
    other = AsyncLogger(logger.log_dir, train_interval=3, mode="disabled")
    assert other.training_interval == 3
    other.finalize()


def test_a_logger_is_true_and_is_tianshous(logger: AsyncLogger) -> None:
    assert isinstance(logger, BaseLogger)
    assert bool(logger) and not hasattr(logger, "__len__")


def test_the_lazy_logger_records_nothing() -> None:
    lazy = LazyLogger()
    lazy.write("a/b", 1, {})
    assert (lazy.restore_data(), lazy.restore_logged_data("")) == ((0, 0, 0), {})


def test_the_example_runs(tmp_path: Path) -> None:
    said = examples.run("tianshou_dqn", cwd=tmp_path)
    assert "best reward" in said
    assert points(tmp_path / "log/dqn")["training/env_step"]


def test_ranks_above_0_record_nothing_and_restore_what_rank_0_has_saved(
    shared_host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        logger = AsyncLogger(tmp_path / "log", save_interval=1)
        logger.write("training/env_step", 10, {"loss": 0.5})
        logger.save_data(1, 10, 5, lambda *steps: "saved")
        assert logger.restore_data() == (1, 10, 5)
        logger.finalize()
    assert len(list((tmp_path / "log" / "tianshou").iterdir())) == 1
    assert len(list((tmp_path / "log").glob("events.out.tfevents.*"))) == 1
