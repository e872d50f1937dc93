"""The drop-in for DRYTorch, in real experiments."""

from __future__ import annotations

import csv
import functools
import logging
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import DEADLINE_S, manifest, records, run_child, start, wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]
drytorch = pytest.importorskip("drytorch", reason="needs the frameworks: tests/README.md", exc_type=ImportError)

from drytorch.core import exceptions, log_events, registering  # noqa: E402
from drytorch.core.tracking import Tracker  # noqa: E402
from drytorch.trackers.base_classes import BasePlotter, MetricLoader  # noqa: E402
from drytorch.trackers.csv import CSVDumper  # noqa: E402
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: E402

import asynctrack  # noqa: E402
from asynctrack.errors import InvalidSettings  # noqa: E402
from asynctrack.integrations.background_caller import BackgroundCaller  # noqa: E402
from asynctrack.integrations.drytorch import AsyncTracker  # noqa: E402
from integrations import examples  # noqa: E402
from integrations.drytorch_line import BATCH, SAMPLES, experiment, make_model, make_trainer, train  # noqa: E402

pytestmark.append(pytest.mark.usefixtures("shared_host"))


class Spy(Tracker):
    """Keeps each event, and the thread it came on."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Any] = []
        self.threads: set[str] = set()
        self.cleaned_up = 0

    @functools.singledispatchmethod
    def notify(self, event: Any) -> None:
        self.events.append(event)
        self.threads.add(threading.current_thread().name)
        return super().notify(event)

    def clean_up(self) -> None:
        self.cleaned_up += 1


class Failing(Spy):
    """Raises so many times when an epoch ends; the events that it has taken are kept."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    @functools.singledispatchmethod
    def notify(self, event: Any) -> None:
        return super().notify(event)

    @notify.register
    def _(self, event: log_events.EndEpochEvent) -> None:
        if self.times:
            self.times -= 1
            raise OSError("database is locked")
        return super().notify(event)


class Bars(Tracker):
    """Wants a call for each batch."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.error = error
        self.batches: list[dict[str, float]] = []
        self.threads: set[threading.Thread] = set()

    @functools.singledispatchmethod
    def notify(self, event: Any) -> None:
        return super().notify(event)

    @notify.register
    def _(self, event: log_events.IterateBatchEvent) -> None:
        self.threads.add(threading.current_thread())
        event.push_updates.append(self._update)

    def _update(self, metrics: dict[str, float], n_processes: int = 1) -> None:
        self.batches.append(dict(metrics))
        if self.error is not None:
            raise self.error


class Plots(BasePlotter[str]):
    """Plots as text."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.drawn: list[tuple[str, str, dict[str, list[list[float]]]]] = []

    def _plot_metric(self, model_name: str, metric_name: str, **sourced_array: Any) -> str:
        self.drawn.append((model_name, metric_name, {name: found.tolist() for name, found in sourced_array.items()}))
        return metric_name


@pytest.fixture(autouse=True)
def as_in_a_fresh_process() -> Iterator[None]:
    """DRYTorch counts names, and keeps trackers, runs and the ids of objects that are gone, for as long as a process lives."""
    for kind in (drytorch.Experiment, drytorch.Model, drytorch.Trainer, drytorch.Test):
        for base in kind.__mro__:
            if (name := vars(base).get("_name")) is not None:
                name._prefixes.clear()
    drytorch.Experiment.previous_runs.clear()
    registering.ALL_MODULES.clear()
    registering.ALL_ACTORS.clear()
    drytorch.remove_all_default_trackers()
    yield
    drytorch.remove_all_default_trackers()


def values_of(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values of each scalar in a directory of event files."""
    found = EventAccumulator(str(path)).Reload()
    return {tag: [(point.step, point.value) for point in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def named(run: Path) -> list[str]:
    """The names of the events of a run that are records of their own."""
    return [record.data["event"]["name"] for record in records(run) if "event" in record.data]


def all_events() -> list[Any]:
    """One of each kind but the first and the last, which DRYTorch makes itself."""
    from datetime import datetime

    now = datetime(2026, 1, 2, 3, 4, 5)
    return [
        log_events.ModelRegistrationEvent("m", now, "Linear()"),
        log_events.ActorRegistrationEvent("t", now, "m", now, {"batch_size": 4}),
        log_events.StartTrainingEvent("t", "m", 0, 2),
        log_events.StartEpochEvent("t", "m", 1, 2),
        log_events.IterateBatchEvent("t", 4, 4, 16),
        log_events.MetricEvent("m", "t", 1, {"MSE": 0.5, "a-b": float("nan")}),
        log_events.LearningRateEvent("m", "t", 1, {"body": 0.1, "head": 0.2}, "cosine"),
        log_events.LearningRateEvent("m", "t", 1, 0.1),
        log_events.EndEpochEvent("t", "m", 1),
        log_events.TerminatedTrainingEvent("t", "m", 1, "it is good enough"),
        log_events.EndTrainingEvent("t"),
        log_events.SaveModelEvent("m", "checkpoint", "here", 1),
        log_events.LoadModelEvent("m", "checkpoint", "here", 1),
        log_events.StartTestEvent("t", "m"),
        log_events.EndTestEvent("t", "m"),
    ]


def test_a_run_has_what_drytorchs_own_trackers_have(tmp_path: Path) -> None:
    from drytorch.trackers.sqlalchemy import SQLConnection
    from drytorch.trackers.tensorboard import TensorBoard
    from sqlalchemy import create_engine

    own_csv, own_board = CSVDumper(tmp_path), TensorBoard(tmp_path, start_server=False)
    own_sql = SQLConnection(create_engine(f"sqlite:///{tmp_path}/own.db"))
    ours = AsyncTracker(backends=["jsonl", asynctrack.TensorBoard()])
    line = experiment(tmp_path, own_csv, own_board, own_sql, ours)
    with line.create_run(run_id="run"):
        train(3, test=True, save=True)
        loaded = own_csv.load_metrics("linear")
        assert ours.load_metrics("linear") == loaded == own_sql.load_metrics("linear")
        assert ours.load_metrics("linear", 2) == own_csv.load_metrics("linear", 2)
        assert ours.load_metrics("linear", 0) == {}
        with pytest.raises(ValueError, match="Max epoch"):
            ours.load_metrics("linear", -2)
    assert set(loaded) == {"trainer", "Validation", "test"}
    assert loaded["trainer"][0] == [1, 2, 3]
    assert isinstance(ours, MetricLoader) and list(line.trackers.named_trackers)[-1] == "AsyncTracker"
    run = tmp_path / "asynctrack_runs" / line.name / "run"
    assert ours.path == run and ours.run is None
    assert values_of(run / "tensorboard") == values_of(tmp_path / "tensorboard" / line.name / "run")
    told = manifest(run)
    assert told["status"] == "finished" and told["name"] == f"{line.name}/run"
    assert told["config"]["lr"] == 0.1 and told["config"]["tags"] == ["lr=0.1"]
    assert "Linear(in_features=1" in told["config"]["drytorch/models/linear"]["architecture"]
    assert told["config"]["drytorch/actors/trainer"]["metadata"]["loader"]["batch_size"] == BATCH
    assert named(run) == ["StartTraining", "EndTraining", "SaveModel", "StartTest", "EndTest"]
    assert ours.load_metrics("linear") == loaded  # also when it is over


def test_every_kind_of_event_is_taken(tmp_path: Path) -> None:
    spy = Spy()
    ours = AsyncTracker(spy, backends=["jsonl"])
    with experiment(tmp_path, ours).create_run():
        events = all_events()
        assert ours.flush()
        loaded = ours.load_metrics("m")
    kinds = {
        kind for kind in vars(log_events).values() if isinstance(kind, type) and issubclass(kind, log_events.Event)
    }
    assert {type(event) for event in spy.events} == kinds - {log_events.Event}
    assert [*map(id, spy.events[1:-1])] == [*map(id, events)]  # not rebuilt: that would publish them again
    assert spy.cleaned_up == 1 and ours.lost == 0
    found = [record.data for record in records(ours.path)]
    assert [data["event"]["name"] for data in found if "event" in data] == [
        *("StartTraining", "TerminatedTraining", "EndTraining", "SaveModel", "LoadModel", "StartTest", "EndTest")
    ]
    terminated = {
        "name": "TerminatedTraining",
        "source_name": "t",
        "model_name": "m",
        "epoch": "1",
        "reason": "it is good enough",
    }
    assert terminated in [data.get("event") for data in found]
    rates = [data["m"] for data in found if "t-learning_rate" in data.get("m", {})]
    assert rates == [{"t-learning_rate": {"body": 0.1, "head": 0.2}, "t-scheduler": "cosine"}, {"t-learning_rate": 0.1}]
    assert loaded["t"][0] == [1] and list(loaded["t"][1]) == ["MSE", "a-b"]
    assert [record.step for record in records(ours.path)] == [0, 1, 1, 1, 1, 1, 1, 1, 1, 1]
    assert manifest(ours.path)["config"]["drytorch/actors/t"]["metadata"] == {"batch_size": 4}


def test_a_resumed_experiment_goes_on_with_its_run(tmp_path: Path) -> None:
    own, ours = CSVDumper(tmp_path), AsyncTracker()
    line = experiment(tmp_path, own, ours)
    with line.create_run(run_id="first"):
        model = make_model()
        trainer = make_trainer(model)
        trainer.train(2)
        trainer.save_checkpoint() if hasattr(trainer, "save_checkpoint") else model.save_state()
    first = ours.path
    with line.create_run(run_id="first", resume=True):
        log_events.MetricEvent("linear", "trainer", 2, {"MSE": 0.25})
        log_events.MetricEvent("linear", "trainer", 3, {"MSE": 0.125})
        assert ours.load_metrics("linear") == own.load_metrics("linear")
        assert ours.load_metrics("linear")["trainer"] == ([2, 3], {"MSE": [0.25, 0.125]})
    assert ours.path == first and manifest(first)["status"] == "finished"
    assert [record.step for record in records(first) if "linear" in record.data] == [1, 1, 2, 2, 2, 3]


def test_an_experiment_that_fails_leaves_a_failed_run(tmp_path: Path) -> None:
    ours = AsyncTracker()
    with pytest.raises(ZeroDivisionError), experiment(tmp_path, ours).create_run():
        1 / 0  # noqa: B018
    assert manifest(ours.path)["status"] == "failed"
    assert "ZeroDivisionError" in manifest(ours.path)["error"]
    try:
        raise KeyError("around it")
    except KeyError:
        with experiment(tmp_path, ours).create_run():
            train(1)
    assert manifest(ours.path)["status"] == "finished"


def test_a_wrapped_tracker_writes_the_same_files(tmp_path: Path) -> None:
    own, wrapped = CSVDumper(tmp_path / "own"), CSVDumper(tmp_path / "wrapped")
    ours = AsyncTracker(wrapped)
    line = experiment(tmp_path, own, ours)
    with line.create_run(run_id="run"):
        assert CSVDumper.get_current() is wrapped  # as with two of them: the last
        assert type(ours).get_current() is ours is AsyncTracker.get_current()
        train(3, test=True)
        assert ours.load_metrics("linear") == own.load_metrics("linear")
    assert ours.path is None and not (tmp_path / "asynctrack_runs").exists()
    files = [path.relative_to(tmp_path / "own") for path in (tmp_path / "own").rglob("*.csv")]
    assert len(files) == 3
    for file in files:
        assert (tmp_path / "wrapped" / file).read_bytes() == (tmp_path / "own" / file).read_bytes()
    for kind in (AsyncTracker, type(ours), CSVDumper):
        with pytest.raises(exceptions.TrackerNotUsedError):
            kind.get_current()


def test_a_wrapped_database_has_the_same_rows(tmp_path: Path) -> None:
    from drytorch.trackers.sqlalchemy import SQLConnection
    from sqlalchemy import create_engine

    own, wrapped = (SQLConnection(create_engine(f"sqlite:///{tmp_path}/{name}.db")) for name in ("own", "wrapped"))
    ours = AsyncTracker(wrapped)
    with experiment(tmp_path, own, ours).create_run():
        train(3, test=True)
        assert ours.load_metrics("linear") == own.load_metrics("linear") != {}
    assert ours.lost == 0


def test_a_wrapped_yaml_dumper_writes_the_same_files(tmp_path: Path) -> None:
    from drytorch.trackers.yaml import YamlDumper

    with experiment(
        tmp_path, YamlDumper(tmp_path / "own"), AsyncTracker(YamlDumper(tmp_path / "wrapped"))
    ).create_run():
        train(1)
    files = [path.relative_to(tmp_path / "own") for path in (tmp_path / "own").rglob("*.yaml")]
    assert len(files) >= 3
    for file in files:
        assert (tmp_path / "wrapped" / file).read_bytes() == (tmp_path / "own" / file).read_bytes()


def test_wrappers_have_names_of_their_own(tmp_path: Path) -> None:
    spy, bars, plain = Spy(), Bars(), AsyncTracker()
    drytorch.extend_default_trackers([AsyncTracker(spy), AsyncTracker(bars), plain])
    line = drytorch.Experiment(None, name="Defaults", par_dir=tmp_path)
    assert list(line.trackers.named_trackers) == ["AsyncSpy", "AsyncBars", "AsyncTracker"]
    with line.create_run():
        assert type(line.trackers.named_trackers["AsyncSpy"]).get_current().tracker is spy
        assert Spy.get_current() is spy
    with pytest.raises(exceptions.TrackerAlreadyRegisteredError):
        line.trackers.subscribe(AsyncTracker(Spy()))
    line.trackers.subscribe(another=AsyncTracker(Spy()))


def test_what_fails_is_tried_again_in_order(tmp_path: Path) -> None:
    failing = Failing(2)
    ours = AsyncTracker(failing)
    line = experiment(tmp_path, ours)
    with line.create_run():
        train(2)
    kinds = [type(event).__name__ for event in failing.events]
    assert kinds.count("EndEpochEvent") == 2 and ours.lost == 0
    assert kinds.index("EndEpochEvent") < kinds.index("StartEpochEvent", kinds.index("EndEpochEvent"))
    assert line.trackers.named_trackers == {"AsyncFailing": ours}


def test_what_fails_for_good_is_reported_and_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    failing = Failing(1_000)
    ours = AsyncTracker(failing)
    line = experiment(tmp_path, ours)
    with caplog.at_level(logging.WARNING, "asynctrack"), line.create_run():
        train(3)
    assert ours.lost == 3 and failing.times == 1_000 - 4 - 1 - 1  # the pauses are made once
    assert [type(event).__name__ for event in failing.events].count("MetricEvent") == 6
    assert line.trackers.named_trackers == {"AsyncFailing": ours}
    assert "Failing did not take EndEpochEvent" in caplog.text and "database is locked" in caplog.text


@pytest.mark.parametrize("make", [lambda: Failing(1), lambda: AsyncTracker(Failing(1), synchronous=True)])
def test_in_synchronous_mode_the_error_is_drytorchs(tmp_path: Path, make: Any) -> None:
    tracker = make()
    line = experiment(tmp_path, tracker)
    with line.create_run():
        with pytest.warns(exceptions.TrackerExceptionWarning, match="database is locked"):
            train(1)
        assert line.trackers.named_trackers == {}


def test_a_header_that_does_not_fit_is_told_by_the_same_call_in_synchronous_mode(tmp_path: Path) -> None:
    line = experiment(tmp_path)
    with line.create_run(run_id="run"):
        before = CSVDumper(tmp_path)
        line.trackers.subscribe(before)
        start_event(tmp_path, resumed=False)  # publishes itself
        log_events.MetricEvent("m", "s", 1, {"MSE": 1.0})
        line.trackers.remove_all()
        ours = AsyncTracker(CSVDumper(tmp_path), synchronous=True)
        ours.notify(start_event(tmp_path, resumed=True))
        with pytest.raises(exceptions.TrackerError, match="do not correspond"):
            ours.notify(log_events.MetricEvent("m", "s", 2, {"MAE": 1.0}))
        ours.clean_up()


def start_event(directory: Path, *, resumed: bool) -> Any:
    from datetime import datetime

    return log_events.StartExperimentEvent(None, "Line", datetime.now(), "run", resumed, directory)


def test_a_tracker_that_hangs_does_not_hold_the_training(tmp_path: Path) -> None:
    gate, trained = threading.Event(), threading.Event()

    class Hanging(Spy):
        @functools.singledispatchmethod
        def notify(self, event: Any) -> None:
            if isinstance(event, log_events.StartTrainingEvent):
                assert gate.wait(DEADLINE_S)
            return super().notify(event)

    hanging = Hanging()
    with experiment(tmp_path, AsyncTracker(hanging)).create_run():
        train(2)
        trained.set()
        assert [type(event).__name__ for event in hanging.events] == ["StartExperimentEvent", "ModelRegistrationEvent"]
        gate.set()
    assert len(hanging.events) > 10 and trained.is_set()


def test_a_tracker_that_never_comes_back_does_not_hold_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gate = threading.Event()

    class Stuck(Spy):
        @functools.singledispatchmethod
        def notify(self, event: Any) -> None:
            if isinstance(event, log_events.StartTrainingEvent):
                gate.wait(DEADLINE_S)
            return super().notify(event)

    stuck = Stuck()
    with caplog.at_level(logging.WARNING, "asynctrack"):
        with experiment(tmp_path, AsyncTracker(stuck, finish_timeout_s=0.05)).create_run():
            train(1)
        wait_until(lambda: "Stuck has not yet taken" in caplog.text, "it is said")  # on a thread of its own
    gate.set()
    wait_until(lambda: isinstance(stuck.events[-1], log_events.StopExperimentEvent), "it has had everything")


def test_a_batchs_callback_cannot_end_the_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bars = Bars(ValueError("no terminal"))
    ours = AsyncTracker(bars)
    with caplog.at_level(logging.WARNING, "asynctrack"), experiment(tmp_path, ours).create_run():
        train(2)
    batches = 2 * 2 * SAMPLES // BATCH  # epochs, training and validation
    assert len(bars.batches) == ours.lost == batches and "no terminal" in caplog.text
    assert bars.threads == {threading.main_thread()}
    with (
        pytest.raises(ValueError, match="no terminal"),
        experiment(tmp_path, Bars(ValueError("no terminal"))).create_run(),
    ):
        train(1)


def test_drytorchs_bars_are_the_same_behind_a_wrapper(tmp_path: Path) -> None:
    from io import StringIO

    from drytorch.trackers.tqdm import TqdmLogger

    streams = StringIO(), StringIO()
    with experiment(tmp_path, TqdmLogger(file=streams[0]), AsyncTracker(TqdmLogger(file=streams[1]))).create_run():
        train(1)
    own, ours = ([line.split("|")[0].strip() for line in stream.getvalue().splitlines()] for stream in streams)
    assert set(own) == set(ours) and own


def test_clean_up_again_does_nothing(tmp_path: Path) -> None:
    spy = Spy()
    ours = AsyncTracker(spy, backends=["jsonl"])
    line = experiment(tmp_path, ours)
    ours.clean_up()
    with line.create_run():
        assert spy.cleaned_up == 0
        ours.clean_up()
        ours.clean_up()
        assert spy.cleaned_up == 1 and manifest(ours.path)["status"] == "finished"
        log_events.MetricEvent("m", "s", 1, {"MSE": 1.0})  # nobody listens any more
    assert spy.cleaned_up == 1 and ours.run is None
    with pytest.raises(exceptions.AccessOutsideScopeError):
        AsyncTracker(spy).load_metrics("m")


def test_plotters_find_what_was_before_through_the_run(tmp_path: Path) -> None:
    ours = AsyncTracker()
    line = experiment(tmp_path, ours)
    with line.create_run(run_id="run"):
        train(2)
    plots, behind = Plots(metric_loader=ours), Plots(metric_loader=ours)
    line.trackers.subscribe(plots, AsyncTracker(behind))
    with line.create_run(run_id="run", resume=True):
        log_events.LoadModelEvent("linear", "checkpoint", "here", 1)
        log_events.MetricEvent("linear", "trainer", 2, {"MSE": 0.25})
        log_events.EndEpochEvent("trainer", "linear", 2)
        assert plots.plot("linear", ["trainer"]) == ["MSE"]
    first = records(ours.path)[1].data["linear"]["trainer-MSE"]
    assert plots.drawn[-1] == ("linear", "MSE", {"trainer": [[1.0, first], [2.0, 0.25]]})
    assert behind.drawn == plots.drawn[:1]


def test_a_metric_that_comes_later_keeps_the_columns_even(tmp_path: Path) -> None:
    ours = AsyncTracker()
    with experiment(tmp_path, ours).create_run():
        for epoch, metrics in ((1, {"MSE": 1.0}), (2, {"MSE": 0.5, "MAE": 0.7}), (3, {"MAE": 0.6})):
            log_events.MetricEvent("m", "s", epoch, metrics)
        epochs, columns = ours.load_metrics("m")["s"]
    assert epochs == [1, 2, 3]
    assert str(columns) == "{'MSE': [1.0, 0.5, nan], 'MAE': [nan, 0.7, 0.6]}"


def test_an_id_that_is_taken_gets_an_addition(tmp_path: Path) -> None:
    ours = AsyncTracker()
    with experiment(tmp_path, ours).create_run(run_id="run", record=False):
        first = ours.path
        start_event(tmp_path, resumed=False)  # publishes itself
        assert ours.path.parent.name == "Line" and ours.path != first


def test_disabled_leaves_no_run(tmp_path: Path) -> None:
    ours, spy = AsyncTracker(mode="disabled"), Spy()
    with experiment(tmp_path, ours, AsyncTracker(spy, backends=["jsonl"], mode="disabled")).create_run():
        train(1)
        assert ours.load_metrics("linear") == {}
    assert not (tmp_path / "asynctrack_runs").exists() and len(spy.events) > 5


def test_wrong_settings_are_all_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="tracker must be one of DRYTorch's") as found:
        AsyncTracker("jsonl", synchronous="yes", dir=tmp_path)
    assert len(found.value.problems) == 3
    with pytest.raises(InvalidSettings, match="id is not a setting"):
        AsyncTracker(id="mine")
    with pytest.raises(InvalidSettings, match="needs a tracker"):
        AsyncTracker(synchronous=True)
    with pytest.raises(InvalidSettings, match="backends"):
        AsyncTracker(backends=["nonsense"])


def test_the_example_runs(tmp_path: Path) -> None:
    said = examples.run("drytorch_training", tmp_path, cwd=tmp_path)
    assert "after 5 epochs" in said and len(list(tmp_path.glob("csv_metrics/Line/**/*.csv"))) == 2


FORKED = """
import json, os
from pathlib import Path
from integrations.drytorch_line import experiment, train
from drytorch.core import log_events
from asynctrack.integrations.drytorch import AsyncTracker
from drytorch.trackers.csv import CSVDumper
ours = AsyncTracker(CSVDumper(), backends=["jsonl"])
with experiment(Path(sys.argv[1]), ours).create_run():
    log_events.MetricEvent("m", "s", 1, {"MSE": 1.0})
    if not (child := os.fork()):
        log_events.MetricEvent("m", "s", 2, {"MSE": 1.0})
        ours.clean_up()
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    log_events.MetricEvent("m", "s", 3, {"MSE": 1.0})
    print(json.dumps([status, ours.load_metrics("m")["s"][0], str(ours.path)]))
"""


def test_a_forked_child_has_no_part_in_it(tmp_path: Path) -> None:
    status, epochs, path = run_child(FORKED, tmp_path, PYTHONPATH=python_path())
    assert (status, epochs) == (0, [1, 3]) and manifest(Path(path))["status"] == "finished"


UNSTOPPED = """
import json
from pathlib import Path
from integrations.drytorch_line import experiment, train
from asynctrack.integrations.drytorch import AsyncTracker
from drytorch.trackers.csv import CSVDumper
ours = AsyncTracker(CSVDumper(), backends=["jsonl"])
experiment(Path(sys.argv[1]), ours).create_run(run_id="run").start()
train(20)
print(json.dumps(str(ours.path)))
"""


def test_an_experiment_that_nobody_stops_ends_with_the_process(tmp_path: Path) -> None:
    path = Path(run_child(UNSTOPPED, tmp_path, PYTHONPATH=python_path()))
    assert manifest(path)["status"] == "finished"
    assert len((tmp_path / "csv_metrics" / "Line" / "run" / "linear" / "trainer.csv").read_text().splitlines()) == 21
    assert len([record for record in records(path) if "trainer-MSE" in record.data.get("linear", {})]) == 20


KILLED = """
from pathlib import Path
from integrations.drytorch_line import killed_experiment
from drytorch.trackers.csv import CSVDumper
from asynctrack.integrations.drytorch import AsyncTracker
makes = {
    "own": lambda path: CSVDumper(path),
    "run": lambda path: AsyncTracker(),
    "wrapped": lambda path: AsyncTracker(CSVDumper(path)),
    "both": lambda path: AsyncTracker(CSVDumper(path), backends=["jsonl"]),
}
killed_experiment(makes[sys.argv[1]], Path(sys.argv[2]), int(sys.argv[3]))
"""


def python_path() -> str:
    return f"{Path(__file__).parent.parent.parent}:{Path(__file__).parent.parent}"


@pytest.mark.parametrize("kind", ["own", "run", "wrapped", "both"])
def test_what_is_kept_when_the_process_is_killed(tmp_path: Path, kind: str) -> None:
    epochs = 20
    child = start(KILLED, kind, tmp_path, epochs, PYTHONPATH=python_path())
    _, errors = child.communicate(timeout=2 * DEADLINE_S)
    assert child.returncode == -signal.SIGKILL, errors
    run = tmp_path / "asynctrack_runs" / "Line" / "killed"
    if kind in ("run", "both"):
        wait_until(
            lambda: (run / "run.json").exists() and manifest(run)["status"] == "crashed", "the worker has ended the run"
        )
        found = [record.step for record in records(run) if "trainer-MSE" in record.data.get("linear", {})]
        assert found == list(range(1, epochs + 1))
    if kind != "run":
        (file,) = tmp_path.glob("csv_metrics/*/**/trainer.csv")
        rows = list(csv.reader(file.read_text().splitlines()))[1:]
        kept = [int(float(row[2])) for row in rows]
        assert kept == list(range(1, len(kept) + 1))
        assert len(kept) == epochs if kind == "own" else len(kept) <= epochs
    if kind == "run":
        resume(tmp_path, run, epochs)


def resume(directory: Path, run: Path, epochs: int) -> None:
    ours = AsyncTracker()
    with experiment(directory, ours).create_run(run_id="killed", resume=True):
        log_events.MetricEvent("linear", "trainer", epochs + 1, {"MSE": 0.0})
        assert ours.load_metrics("linear")["trainer"][0] == list(range(1, epochs + 2))
    assert ours.path == run and manifest(run)["status"] == "finished"


class TestHandover:
    def test_what_finds_no_room_is_lost(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("asynctrack.integrations.background_caller._MOST_WAITING", 3)
        gate, lost, given = threading.Event(), [], []
        handover = BackgroundCaller(
            lambda thing: (gate.wait(DEADLINE_S), given.append(thing)), "test", lambda *what: lost.append(what[0])
        )
        for number in range(5):
            handover.put(number)
        assert lost == [3, 4] and handover.waiting == 3
        gate.set()
        assert handover.end(DEADLINE_S) and given == [0, 1, 2]
