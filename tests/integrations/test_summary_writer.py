"""The drop-in for TensorBoard's `SummaryWriter`, read back with TensorBoard itself, and beside torch's own."""

from __future__ import annotations

import inspect
import io
import logging
import math
import signal
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from support import DEADLINE_S, ended, manifest, outcome, records, start, wait_until
from tensorboard.backend.event_processing.event_accumulator import STORE_EVERYTHING_SIZE_GUIDANCE, EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

import asynctrack
from asynctrack.backends.base import Backend
from asynctrack.errors import InvalidSettings, InvalidValue
from asynctrack.integrations.log_dir import LogDir
from asynctrack.integrations.tensorboard import SummaryWriter
from asynctrack.reading.stats import StatsCollector
from asynctrack.testing import BackendContract
from integrations import examples

pytestmark = pytest.mark.usefixtures("shared_host")


@pytest.mark.system
class TestContract(BackendContract):
    exactly_once = True
    keeps = frozenset({"float", "int", "nan", "inf"})
    nested = False

    def make_backend(self, run: Path) -> Backend:
        return LogDir(dir=str(run / "board"), flush_s=0)

    def read(self, run: Path) -> Iterable[tuple[int, str, Any]]:
        for folder, of in scalars(run / "board").items():
            for tag, points in of.items():
                yield from ((step, tag if folder == "." else f"{folder}: {tag}", value) for step, value in points)

    def same(self, given: Any, found: Any) -> bool:
        return super().same(in_32_bits(given) if isinstance(given, int | float) else given, found)


def in_32_bits(value: float) -> float:
    try:
        return float(struct.unpack("f", struct.pack("f", value))[0])
    except (OverflowError, struct.error):
        return math.inf if value > 0 else -math.inf


def accumulators(log_dir: Path) -> dict[str, EventAccumulator]:
    """What TensorBoard finds in a directory and in those below it."""
    folders = sorted({path.parent for path in log_dir.rglob("*tfevents*")})
    return {
        str(folder.relative_to(log_dir)): EventAccumulator(str(folder), STORE_EVERYTHING_SIZE_GUIDANCE).Reload()
        for folder in folders
    }


def scalars(log_dir: Path) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Steps and values of each scalar, by folder."""
    return {
        folder: {tag: [(point.step, point.value) for point in found.Scalars(tag)] for tag in found.Tags()["scalars"]}
        for folder, found in accumulators(log_dir).items()
    }


def texts(found: EventAccumulator) -> dict[str, list[tuple[int, str]]]:
    """Steps and values of each text."""
    return {
        tag: [(event.step, event.tensor_proto.string_val[0].decode()) for event in found.Tensors(tag)]
        for tag in found.Tags()["tensors"]
        if tag.endswith("/text_summary")
    }


def hparams(found: EventAccumulator) -> tuple[dict[str, Any], int]:
    """The parameters of a row of the HParams table, and its status."""
    told = found.summary_metadata
    begin, end = (plugin_data_pb2.HParamsPluginData() for _ in range(2))
    begin.ParseFromString(told["_hparams_/session_start_info"].plugin_data.content)
    end.ParseFromString(told["_hparams_/session_end_info"].plugin_data.content)
    params = {
        name: getattr(value, value.WhichOneof("kind")) for name, value in begin.session_start_info.hparams.items()
    }
    return params, end.session_end_info.status


def images(found: EventAccumulator) -> dict[str, list[tuple[int, Any]]]:
    """Steps and pixels of each image."""
    return {
        tag: [
            (event.step, np.asarray(PIL.Image.open(io.BytesIO(event.encoded_image_string)).convert("RGB")))
            for event in found.Images(tag)
        ]
        for tag in found.Tags()["images"]
    }


def histograms(found: EventAccumulator) -> dict[str, list[Any]]:
    """Steps, figures and buckets of each histogram; the sums of what was counted before are estimates."""
    return {
        tag: [
            (event.step, figures(event.histogram_value)[: 3 if tag == "counted" else 5], filled(event.histogram_value))
            for event in found.Histograms(tag)
        ]
        for tag in found.Tags()["histograms"]
    }


def figures(histogram: Any) -> list[float]:
    return [round(getattr(histogram, name), 3) for name in ("min", "max", "num", "sum", "sum_squares")]


def filled(histogram: Any) -> list[tuple[float, float]]:
    pairs = zip(histogram.bucket_limit, histogram.bucket, strict=True)
    return [(round(limit, 6), count) for limit, count in pairs if count]


def picture() -> Any:
    """Channels, height, width."""
    ramp = np.arange(3 * 4 * 5, dtype="f4") / 60
    return ramp.reshape(3, 4, 5)


def call_all(writer: Any) -> None:
    """What scripts call, with values of all kinds."""
    for step in range(5):
        writer.add_scalar("loss/train", 1 / (step + 1), step)
        writer.add_scalar("loss/train", np.float32(0.25), np.int64(step + 10))
    writer.add_scalar("no step", 7)
    writer.add_scalar("array of one", np.array([0.5]), 3)
    writer.add_scalar("extremes", math.inf, 0)
    writer.add_scalar("extremes", 1e-30, 1, walltime=1e9)
    writer.add_scalar(tag="by name", scalar_value=2, global_step=4)
    writer.add_scalars("both", {"train": 0.5, "test/small": 0.75}, 1)
    writer.add_scalars("both", {"train": 0.25, "test/small": 0.5}, 2)
    writer.add_text("hyperparameters", "|param|value|\n|-|-|\n|lr|0.1|")
    writer.add_histogram("weights", np.linspace(-2, 3, 1000, dtype="f8"), 2)
    writer.add_histogram("counted", np.arange(10), 3, bins="auto")
    writer.add_image("image", picture(), 1)
    writer.add_image("rows", (picture() * 255).astype("u1").transpose(1, 2, 0), 1, dataformats="HWC")
    writer.add_image("grey", picture()[0], 1, dataformats="HW")
    writer.add_images("grid", np.stack([picture() * part for part in (0.2, 0.5, 1.0)]), 2)
    writer.add_images("large grid", np.stack([picture()] * 11), 2)
    writer.add_hparams({"lr": 0.1, "optimizer": "adam", "nesterov": True}, {"hparam/loss": 0.5}, run_name="first")
    writer.flush()


def test_scripts_find_their_values_in_log_dir(tmp_path: Path) -> None:
    log_dir = tmp_path / "runs" / "CartPole-v1__dqn__lr=0.1"
    with SummaryWriter(log_dir, dir=tmp_path / "all") as writer:
        call_all(writer)
        found = scalars(log_dir)  # flush() has brought it there
        assert writer.log_dir == writer.get_logdir() == str(log_dir)
        run = writer.run.path
    assert run.parent == tmp_path / "all" / "runs" and manifest(run)["name"] == log_dir.name
    losses = [(step, in_32_bits(1 / (step + 1))) for step in range(5)]
    assert sorted(found["."]["loss/train"]) == losses + [(step + 10, 0.25) for step in range(5)]
    assert found["."]["no step"] == [(0, 7.0)] and found["."]["extremes"] == [(0, math.inf), (1, in_32_bits(1e-30))]
    assert found["both_train"] == {"both": [(1, 0.5), (2, 0.25)]}
    assert found["both_test/small"] == {"both": [(1, 0.75), (2, 0.5)]}
    assert found["first"] == {"hparam/loss": [(0, 0.5)]}
    boards = accumulators(log_dir)
    assert texts(boards["."]) == {"hyperparameters/text_summary": [(0, "|param|value|\n|-|-|\n|lr|0.1|")]}
    assert hparams(boards["first"]) == ({"lr": 0.1, "optimizer": "adam", "nesterov": True}, 1)
    assert [event.wall_time for event in boards["."].Scalars("extremes")][1] == 1e9
    assert images(boards["."])["grid"][0][1].shape == (4, 15, 3)
    assert images(boards["."])["large grid"][0][1].shape == (8, 40, 3)
    assert manifest(run)["status"] == "finished"
    assert {record.data["no step"] for record in records(run) if "no step" in record.data} == {7}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_it_writes_what_torchs_own_writes(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs the frameworks: tests/README.md")
    from torch.utils.tensorboard import SummaryWriter as TorchWriter

    with SummaryWriter(tmp_path / "ours", dir=tmp_path / "all") as ours, TorchWriter(tmp_path / "torch") as own:
        for writer in (ours, own):
            call_all(writer)
            writer.add_scalar("tensor", torch.tensor(0.5, requires_grad=True), 1)
            writer.add_histogram("tensor", torch.linspace(0, 1, 100).to(torch.float64), 1)
            writer.add_image("tensor", torch.from_numpy(picture()), 1)
    assert scalars(tmp_path / "ours") == scalars(tmp_path / "torch")
    ours_found, torch_found = (accumulators(tmp_path / name)["."] for name in ("ours", "torch"))
    assert texts(ours_found) == texts(torch_found)
    assert histograms(ours_found) == histograms(torch_found)
    ours_images, torch_images = images(ours_found), images(torch_found)
    assert ours_images.keys() == torch_images.keys()
    for tag, drawn in ours_images.items():
        for (step, pixels), (other_step, other) in zip(drawn, torch_images[tag], strict=True):
            if tag not in ("grid", "large grid"):  # torch pads its grids
                assert step == other_step and np.array_equal(pixels, other), tag
    of_torch = hparams(accumulators(tmp_path / "torch")["first"])
    assert hparams(accumulators(tmp_path / "ours")["first"]) == of_torch


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_its_signatures_are_those_of_torchs_own() -> None:
    pytest.importorskip("torch", reason="needs the frameworks: tests/README.md")
    from torch.utils.tensorboard import SummaryWriter as TorchWriter

    for name, method in inspect.getmembers(SummaryWriter, inspect.isfunction):
        if name.startswith("add_") or name == "__init__":
            own = list(inspect.signature(getattr(TorchWriter, name)).parameters)
            ours = list(inspect.signature(method).parameters.values())
            assert [each.name for each in ours if each.kind is each.POSITIONAL_OR_KEYWORD] == own, name
    others = {name for name in vars(TorchWriter) if name.startswith("add_")} - set(vars(SummaryWriter))
    writer = SummaryWriter.__new__(SummaryWriter)
    writer._left_out = set(others)
    assert all(getattr(writer, name)() is None for name in others)


def test_skrls_names_are_known(tmp_path: Path) -> None:
    writer = SummaryWriter(tmp_path / "log", queue_size=10, flush_seconds=0.1, dir=tmp_path / "all")
    writer.add_scalar(tag="Reward / Total reward (mean)", value=1.5, timestep=100)
    writer.close()
    assert scalars(tmp_path / "log") == {".": {"Reward / Total reward (mean)": [(100, 1.5)]}}


@pytest.mark.system
def test_figures_are_drawn_at_the_call(tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib", reason="it is not needed elsewhere")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    with SummaryWriter(tmp_path / "log", dir=tmp_path / "all") as writer:
        figure, axes = pyplot.subplots()
        axes.plot([1, 2])
        writer.add_figure("kept", figure, 1, close=False)
        assert pyplot.get_fignums()
        writer.add_figure("several", [figure, pyplot.figure()], 2)
        assert not pyplot.get_fignums()
    found = images(accumulators(tmp_path / "log")["."])
    assert found["kept"][0][0] == 1 and found["kept"][0][1].shape == (480, 640, 3)
    assert set(found) == {"kept", "several/0", "several/1"}


def test_an_image_of_megabytes_fits_the_queue(tmp_path: Path) -> None:
    many = np.linspace(0, 1, 64 * 3 * 128 * 128, dtype="f4").reshape(64, 3, 128, 128)
    with SummaryWriter(tmp_path / "log", dir=tmp_path / "all") as writer:
        writer.add_images("faces", many, 1)
    assert images(accumulators(tmp_path / "log")["."])["faces"][0][1].shape == (1024, 1024, 3)


def test_a_value_is_recorded_as_it_is_at_the_call(tmp_path: Path) -> None:
    values, image = np.ones(4), np.zeros((3, 2, 2), "u1")
    with SummaryWriter(tmp_path / "log", dir=tmp_path / "all") as writer:
        writer.add_histogram("values", values, 1)
        writer.add_image("image", image, 1)
        values[:], image[:] = 5, 255
    board = accumulators(tmp_path / "log")["."]
    assert board.Histograms("values")[0].histogram_value.max == 1
    assert not images(board)["image"][0][1].any()


@pytest.mark.parametrize("values", [3.0, [3.0], np.array([[3.0]])])
def test_one_value_is_a_histogram_too(tmp_path: Path, values: Any) -> None:
    with SummaryWriter(tmp_path / "log", dir=tmp_path / "all") as writer:
        writer.add_histogram("one", np.asarray(values), 1)
    (event,) = accumulators(tmp_path / "log")["."].Histograms("one")
    assert figures(event.histogram_value) == [3, 3, 1, 3, 9]


def test_many_values_are_counted_at_the_call(tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(size=200_000)
    values[7] = math.nan
    with SummaryWriter(tmp_path / "log", dir=tmp_path / "all") as writer:
        writer.add_histogram("normal", values, 1)
        writer.add_histogram("few", values[:100], 1, bins=50, max_bins=10)
    board = accumulators(tmp_path / "log")["."]
    many, few = (board.Histograms(tag)[0].histogram_value for tag in ("normal", "few"))
    assert many.num == 199_999 and math.isclose(many.sum_squares / many.num, 1, rel_tol=0.02)
    assert few.num == 99 and len(few.bucket) == 10


def test_after_close_the_next_call_opens_another_run(tmp_path: Path) -> None:
    writer = SummaryWriter(tmp_path / "log", dir=tmp_path / "all")
    writer.add_scalar("loss", 1.0, 0)
    writer.close()
    writer.close()
    writer.flush()
    assert writer.run is None
    writer.add_scalar("loss", 2.0, 1)
    writer.close()
    assert scalars(tmp_path / "log") == {".": {"loss": [(0, 1.0), (1, 2.0)]}}
    assert len(list((tmp_path / "all").glob("*/*"))) == 2


def test_what_a_resumed_script_does_again_replaces_what_was_there(tmp_path: Path) -> None:
    for begin, offset in ((0, 0.0), (5, 0.5)):
        with SummaryWriter(tmp_path / "log", purge_step=begin or None, dir=tmp_path / "all") as writer:
            for step in range(begin, begin + 7):
                writer.add_scalar("loss", step + offset, step)
    found = scalars(tmp_path / "log")["."]["loss"]
    assert found == [(step, float(step)) for step in range(5)] + [(step, step + 0.5) for step in range(5, 12)]
    writer.add_scalar("loss", 12.5, 12)
    writer.close()
    assert scalars(tmp_path / "log")["."]["loss"] == [*found, (12, 12.5)]


def test_other_backends_get_the_values_too(tmp_path: Path) -> None:
    memory = asynctrack.Memory()
    with SummaryWriter(tmp_path / "log", dir=tmp_path / "all", backends=[memory]) as writer:
        writer.add_scalar("loss", 0.1, 3)
        writer.add_scalars("both", {"a": 1}, 4)
    assert (memory.records, memory.steps) == ([{"loss": 0.1}, {"both": {"a": 1}}], [3, 4])


def test_other_records_of_the_run_are_shown_too(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path / "log", dir=tmp_path / "all") as writer:
        writer.run.log({"grads": {"body": {"norm": 1.0}}, "loss": 0.5}, 1)
        writer.run.log({"hparams": 0.25}, 2)
        writer.run.log({"hparams": {"lr": 0.5}}, 3)
    found = scalars(tmp_path / "log")
    assert found == {
        ".": {"grads/body/norm": [(1, 1.0)], "loss": [(1, 0.5)], "hparams": [(2, 0.25)], "hparams/lr": [(3, 0.5)]}
    }


def call_some(writer: SummaryWriter, steps: range) -> None:
    for step in steps:
        writer.add_scalar("loss", step, step)
        writer.add_scalars("both", {"a": step, "b": -step}, step)


def expected(steps: range) -> dict[str, dict[str, list[tuple[int, float]]]]:
    both = [[(step, float(sign * step)) for step in steps] for sign in (1, -1)]
    return {".": {"loss": both[0]}, "both_a": {"both": both[0]}, "both_b": {"both": both[1]}}


def test_a_folder_that_fails_makes_no_repeats_in_the_others(tmp_path: Path) -> None:
    log_dir = tmp_path / "log"
    log_dir.mkdir()
    (log_dir / "both_b").write_text("in the way")
    with SummaryWriter(log_dir, flush_secs=0, dir=tmp_path / "all") as writer:
        call_some(writer, range(50))
        wait_until(lambda: scalars(log_dir).get("both_a"), "the others have it")
        (log_dir / "both_b").unlink()
        call_some(writer, range(50, 60))
    assert scalars(log_dir) == expected(range(60))


@pytest.mark.parametrize("folder", [".", "both_a"])
def test_a_file_that_was_removed_is_written_anew_and_the_others_stay(tmp_path: Path, folder: str) -> None:
    log_dir = tmp_path / "log"
    with SummaryWriter(log_dir, dir=tmp_path / "all") as writer:
        call_some(writer, range(50))
        writer.flush()
        (file,) = (log_dir / folder).glob("*tfevents*")
        others = {path: path.stat().st_ino for path in log_dir.rglob("*tfevents*") if path != file}
        file.unlink()
        call_some(writer, range(50, 60))
    assert scalars(log_dir) == expected(range(60))
    assert {path: path.stat().st_ino for path in log_dir.rglob("*tfevents*") if path in others} == others


def test_the_default_directory_is_torchs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with SummaryWriter(comment="_lr_0.1") as writer:
        writer.add_scalar("loss", 0.5, 0)
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.endswith("_lr_0.1") and writer.log_dir == f"runs/{folder.name}"
    assert scalars(folder)["."] == {"loss": [(0, 0.5)]}


def test_disabled_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCTRACK_MODE", "disabled")
    with SummaryWriter(tmp_path / "log", dir=tmp_path / "all") as writer:
        writer.add_scalar("loss", 0.5, 0, walltime=1.0)
        writer.add_hparams({"lr": 0.1}, {"loss": 0.5})
        writer.flush()
    assert list(tmp_path.iterdir()) == []


def test_a_name_cannot_lead_out_of_the_directory(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path / "log", dir=tmp_path / "all") as writer:
        writer.add_scalars("../../out", {"../a": 1.0}, 0)
        writer.add_hparams({"lr": 0.1}, {"loss": 0.5}, run_name="../../out")
        writer.add_hparams({"lr": 0.1}, {"loss": 0.5}, run_name="/./")
    assert sorted(scalars(tmp_path / "log")) == [".._.._out", ".._.._out_../a", "_"]


def test_what_cannot_be_shown_is_refused_at_the_call(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with SummaryWriter(tmp_path / "log", dir=tmp_path / "all") as writer:
        for wrong in ("0.5", None, [1, 2], np.ones(2), object()):
            with pytest.raises(InvalidValue, match="add_scalar takes a number"):
                writer.add_scalar("loss", wrong, 0)
        with pytest.raises(InvalidValue, match="dataformats"):
            writer.add_image("image", picture(), 0, dataformats="HW")
        with pytest.raises(InvalidValue, match="hparam_dict"):
            writer.add_hparams(["lr"], {})
        with pytest.raises(InvalidValue, match="numbers"):
            writer.add_histogram("weights", ["a"])
        with caplog.at_level(logging.WARNING, "asynctrack"):
            writer.add_graph(object())
            writer.add_graph(object(), 1)
        assert len(caplog.records) == 1 and "add_graph() is not supported" in caplog.text
        assert not hasattr(writer, "add_nonsense")
    with pytest.raises(InvalidSettings) as found:
        SummaryWriter(tmp_path / "log", flush_secs=-1, filename_suffix="a/b", purge_step=0.5)
    assert len(found.value.problems) == 3


@pytest.mark.system
def test_the_example_runs(tmp_path: Path) -> None:
    assert "degrees" in examples.run("summary_writer", cwd=tmp_path)
    found = scalars(tmp_path / "runs" / "throw")
    assert len(found["."]["throw/distance"]) == len(found["angle_best"]["angle"]) == 2_000
    assert set(found) == {".", "angle_best", "angle_tried", "result"}


def is_delivered(run: Path) -> bool:
    stats = StatsCollector(run).collect([], [], ["log_dir"])
    return stats.journaled > 0 and not stats.backends["log_dir"].behind


KILLED = """
import os, signal
from asynctrack.integrations.tensorboard import SummaryWriter
writer = SummaryWriter(sys.argv[1] + "/log", dir=sys.argv[1] + "/all")
for step in range(1_000):
    writer.add_scalar("loss", step / 8, step)
    writer.add_scalars("both", {"a": step, "b": -step}, step)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.system
def test_what_was_added_survives_sigkill(tmp_path: Path) -> None:
    child = start(KILLED, tmp_path)
    _, errors = child.communicate(timeout=2 * DEADLINE_S)
    assert child.returncode == -signal.SIGKILL, errors
    (run,) = (tmp_path / "all").glob("*/*")
    wait_until(lambda: ended(run) and is_delivered(run), "the worker has delivered everything")
    found = scalars(tmp_path / "log")
    assert found["."] == {"loss": [(step, step / 8) for step in range(1_000)]}
    assert found["both_b"] == {"both": [(step, float(-step)) for step in range(1_000)]}


def test_each_rank_that_makes_a_writer_has_an_event_file_in_the_same_directory(runs: Path, tmp_path: Path) -> None:
    script = """
import os, sys
from asynctrack.integrations.tensorboard import SummaryWriter
with SummaryWriter(sys.argv[1], dir=sys.argv[2]) as writer:
    writer.add_scalar("loss", float(os.environ["RANK"]), 1)
"""
    children = [start(script, tmp_path / "board", runs, RANK=str(rank)) for rank in range(2)]
    for child in children:
        outcome(child)
    assert len(list((tmp_path / "board").glob("events.out.tfevents.*"))) == 2
    assert sorted(record.data["loss"] for run in runs.glob("*/*") for record in records(run)) == [0.0, 1.0]
