"""DRYTorch, Noether and TensorBoard scripts in `bench.frameworks`: what one call takes from the training, with their own trackers and with ours.

DRYTorch: `notify` of a metric event with five metrics, one every 2 ms, as a validation of tiny batches has them. Noether: `log` of a dict of 20 floats and
its three counters. Noether's own trackers are not run, since its licence is not open source: in their place stands what they are known to call, a
`SummaryWriter.add_scalar` for each value. TensorBoard scripts: one `add_scalar`.
"""

from __future__ import annotations

import tempfile
import time
from array import array
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from bench.harness import Cell, Spread, percentiles_us, spread, spreads

PAUSE_S: Final = 0.002
METRICS: Final = {f"metric_{number}": 0.1 * number for number in range(5)}
VALUES: Final = {f"loss/{number}": 0.1 * number for number in range(20)}

Call = Callable[[int], object]
Rows = list[dict[str, Cell | Spread]]


def drytorch_rows(calls: int, rounds: int) -> Rows:
    """Return a row per tracker; none where DRYTorch is not installed."""
    try:
        import drytorch
        from drytorch.core import log_events
    except ImportError:
        return []
    drytorch.remove_all_default_trackers()
    log_events.Event.set_auto_publish(lambda _: None)
    events = [log_events.MetricEvent("model", "trainer", epoch, METRICS) for epoch in range(calls)]
    return _rows(
        "DRYTorch", _drytorch_trackers(), lambda made: lambda at: made.tracker.notify(events[at]), calls, rounds
    )


def noether_rows(calls: int, rounds: int) -> Rows:
    """Return the row of the stand-in for its TensorBoard tracker, where torch is installed, and ours."""
    makes: dict[str, Callable[[Path], Any]] = {"AsyncTracker(backends=[tensorboard])": _noether}
    if (own := _torchs_writer()) is not None:
        makes = {"SummaryWriter.add_scalar for each value": lambda folder: _Scalars(own(folder)), **makes}

    def call(tracker: Any) -> Call:
        return lambda at: tracker.log({"epoch": 1.0, "update": at, "sample": at * 8, **VALUES})

    return _rows("Noether", makes, call, calls, rounds)


def summary_writer_rows(calls: int, rounds: int) -> Rows:
    """Return the row of torch's writer, where it is installed, and ours."""
    from asynctrack.integrations.tensorboard import SummaryWriter

    makes: dict[str, Callable[[Path], Any]] = {"asynctrack's": lambda folder: SummaryWriter(folder / "log", dir=folder)}
    if (own := _torchs_writer()) is not None:
        makes = {"torch's": own, **makes}
    return _rows("SummaryWriter", makes, lambda made: lambda at: made.add_scalar("loss", 0.1 * at, at), calls, rounds)


def _rows(
    framework: str, makes: dict[str, Callable[[Path], Any]], call: Callable[[Any], Call], calls: int, rounds: int
) -> Rows:
    """Return a row for each subject; their rounds are taken in turns."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in makes}
    ends: dict[str, list[float]] = {name: [] for name in makes}
    for _ in range(rounds):
        for name, make in makes.items():
            with tempfile.TemporaryDirectory(prefix="asynctrack-bench-") as folder:
                made = make(Path(folder))
                found[name].append(_timed(call(made), calls))
                began = time.perf_counter()
                made.close()
                ends[name].append(1000 * (time.perf_counter() - began))
    return [
        {"framework": framework, "tracker": name, **spreads(figures, " us"), "end ms": spread(ends[name])}
        for name, figures in found.items()
    ]


def _torchs_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter


class _Scalars:
    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def log(self, data: dict[str, Any]) -> None:
        for key, value in data.items():
            self._writer.add_scalar(key, value, data["update"])

    def close(self) -> None:
        self._writer.close()


def _noether(folder: Path) -> Any:
    from asynctrack.integrations.noether import AsyncTracker, AsyncTrackerConfig

    tracker = AsyncTracker(
        AsyncTrackerConfig(backends=("tensorboard",)), metric_property_provider=None, path_provider=None
    )
    tracker.init("cpu", "bench", None, {}, "run", str(folder))
    return tracker


def _drytorch_trackers() -> dict[str, Callable[[Path], Any]]:
    from drytorch.trackers.csv import CSVDumper
    from drytorch.trackers.sqlalchemy import SQLConnection
    from drytorch.trackers.tensorboard import TensorBoard
    from sqlalchemy import create_engine

    from asynctrack.integrations.drytorch import AsyncTracker

    def sql(folder: Path) -> Any:
        return SQLConnection(create_engine(f"sqlite:///{folder}/metrics.db"))

    makes: dict[str, Callable[[Path], Any]] = {
        "CSVDumper": CSVDumper,
        "AsyncTracker(CSVDumper())": lambda folder: AsyncTracker(CSVDumper(folder)),
        "SQLConnection": sql,
        "AsyncTracker(SQLConnection())": lambda folder: AsyncTracker(sql(folder)),
        "TensorBoard": lambda folder: TensorBoard(folder, start_server=False),
        "AsyncTracker(backends=[tensorboard])": lambda _: AsyncTracker(backends=["tensorboard"]),
    }
    return {name: lambda folder, make=make: _Experiment(make(folder), folder) for name, make in makes.items()}


class _Experiment:
    """A tracker that has been told of an experiment's start."""

    def __init__(self, tracker: Any, folder: Path) -> None:
        from drytorch.core import log_events

        self._events = log_events
        self.tracker = tracker
        now = datetime.now()
        tracker.notify(log_events.StartExperimentEvent(None, "bench", now, "run", False, folder))
        tracker.notify(log_events.ActorRegistrationEvent("trainer", now, "model", now, {}))

    def close(self) -> None:
        self.tracker.notify(self._events.StopExperimentEvent("bench", "run"))


def _timed(call: Call, calls: int) -> dict[str, float]:
    """Return percentiles of a call, with a pause after each."""
    took = array("q", bytes(8 * calls))
    for at in range(calls):
        began = time.perf_counter_ns()
        call(at)
        took[at] = time.perf_counter_ns() - began
        time.sleep(PAUSE_S)
    return percentiles_us(took, 0.0)
