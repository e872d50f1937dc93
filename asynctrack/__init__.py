"""asynctrack: background logging that makes experiment tracking free for the loop that calls it.

A script for W&B runs unchanged with one line: `import asynctrack.wandb as wandb`.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

from asynctrack import errors
from asynctrack._system import messages
from asynctrack._system.native import is_native
from asynctrack._system.suggestions import suggests, unknown_attribute
from asynctrack.backends.base import (
    ActionRequired,
    Backend,
    Batch,
    Context,
    Rejected,
    Resend,
    Retry,
    Sink,
    TooLarge,
    Update,
)
from asynctrack.backends.files.jsonl import JSONLines
from asynctrack.backends.registry import KINDS
from asynctrack.client import following
from asynctrack.client.current import current, current_backend, current_or_attached
from asynctrack.client.default_backends import extend_default_backends, reset_default_backends, set_default_backends
from asynctrack.client.following import followed
from asynctrack.client.open_runs import open_runs
from asynctrack.client.opening import init
from asynctrack.client.run import Run
from asynctrack.client.scope import Scope
from asynctrack.errors import AsynctrackError, NoCurrentRun, QueueFull
from asynctrack.reading.stats import BackendStats, RunStats
from asynctrack.records.codec import Array, Media, Record
from asynctrack.settings import Settings

if TYPE_CHECKING:
    from asynctrack.backends.console import Console
    from asynctrack.backends.files.csv import CSV
    from asynctrack.backends.files.json_columns import JSON
    from asynctrack.backends.files.parquet import Parquet
    from asynctrack.backends.files.yaml import YAML
    from asynctrack.backends.hydra_link import HydraLink
    from asynctrack.backends.memory import Memory
    from asynctrack.backends.mlflow import MLflow
    from asynctrack.backends.plots.live_plot import LivePlot
    from asynctrack.backends.plots.matplotlib import Matplotlib
    from asynctrack.backends.plots.plotly import Plotly
    from asynctrack.backends.sql import SQL
    from asynctrack.backends.subscriber import Subscriber
    from asynctrack.backends.tensorboard import TensorBoard
    from asynctrack.backends.trackio import Trackio
    from asynctrack.backends.visdom import Visdom
    from asynctrack.backends.wandb import WandB
    from asynctrack.client.attaching import attach
    from asynctrack.client.tracker import Tracker
    from asynctrack.collection.comparison import Comparison, compare
    from asynctrack.collection.group_curves import curve_of_runs
    from asynctrack.collection.query import query
    from asynctrack.collection.query_result import QueryResult
    from asynctrack.collection.runs import Runs, runs
    from asynctrack.curves.curve import CurveBuckets
    from asynctrack.curves.group import GroupCurve
    from asynctrack.reading.loading import load_metrics
    from asynctrack.reading.opening import open_run
    from asynctrack.reading.reader import RunReader
    from asynctrack.records.values import Artifact, Histogram, Html, Image, Table, Text
    from asynctrack.ui.notebook import show

__version__ = "0.1.0"
__native__ = is_native
"""Whether records are put by the native core; without it, by Python alone."""

# Imported when they are asked for.
_LATER = {
    **{path.rpartition(".")[2]: path.rpartition(".")[0] for path in KINDS.values()},
    **dict.fromkeys(("Artifact", "Histogram", "Html", "Image", "Table", "Text"), "asynctrack.records.values"),
    "Comparison": "asynctrack.collection.comparison",
    "CurveBuckets": "asynctrack.curves.curve",
    "GroupCurve": "asynctrack.curves.group",
    "QueryResult": "asynctrack.collection.query_result",
    "RunReader": "asynctrack.reading.reader",
    "Runs": "asynctrack.collection.runs",
    "Tracker": "asynctrack.client.tracker",
    "attach": "asynctrack.client.attaching",
    "curve_of_runs": "asynctrack.collection.group_curves",
    "compare": "asynctrack.collection.comparison",
    "load_metrics": "asynctrack.reading.loading",
    "open_run": "asynctrack.reading.opening",
    "query": "asynctrack.collection.query",
    "runs": "asynctrack.collection.runs",
    "show": "asynctrack.ui.notebook",
}


def log(data: Mapping[str, Any], step: int | None = None, commit: bool | None = None) -> bool:
    """Record values into the current run. A process that has none attaches to the run of a process from which it descends, as `attach()` does.

    A process that has attached follows: where the other has finished the run and opened its next one, this goes to the next one.

    Args:
        data: See `Run.log`.
        step: See `Run.log`.
        commit: See `Run.log`.

    Returns:
        True if the record was accepted, False if it was dropped and counted.

    Raises:
        NoCurrentRun: No run is open, here or in a process from which this one descends.
        UsageError: See `Run.log`.
    """
    run = open_runs.current()
    if run is None or (followed and monotonic() >= following.due_at):
        run = current_or_attached("log()")
    return run.log(data, step, commit)


@suggests
def finish(
    summary: Mapping[str, Any] | None = None, exit_code: int | None = None, *, wait: Literal["own", "all"] = "own"
) -> RunStats | None:
    """Finish the current run. Without one it warns and does nothing.

    Args:
        summary: See `Run.finish`.
        exit_code: See `Run.finish`.
        wait: See `Run.finish`.

    Returns:
        The final statistics of the run; None if no run was open.

    Raises:
        InvalidData: The summary is not a mapping.
    """
    run = current()
    if run is None:
        messages.warn_now("asynctrack: finish() without an open run is ignored")
        return None
    return run.finish(summary, exit_code, wait=wait)


if not TYPE_CHECKING:  # a type checker that saw it would let every name pass

    def __getattr__(name: str) -> Any:
        if name not in _LATER:
            raise unknown_attribute(globals(), name)
        import importlib

        return getattr(importlib.import_module(_LATER[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])


__all__ = [
    "CSV",
    "JSON",
    "SQL",
    "YAML",
    "ActionRequired",
    "Array",
    "Artifact",
    "AsynctrackError",
    "Backend",
    "BackendStats",
    "Batch",
    "Comparison",
    "Console",
    "Context",
    "CurveBuckets",
    "GroupCurve",
    "Histogram",
    "Html",
    "HydraLink",
    "Image",
    "JSONLines",
    "LivePlot",
    "MLflow",
    "Matplotlib",
    "Media",
    "Memory",
    "NoCurrentRun",
    "Parquet",
    "Plotly",
    "QueryResult",
    "QueueFull",
    "Record",
    "Rejected",
    "Resend",
    "Retry",
    "Run",
    "RunReader",
    "RunStats",
    "Runs",
    "Scope",
    "Settings",
    "Sink",
    "Subscriber",
    "Table",
    "TensorBoard",
    "Text",
    "TooLarge",
    "Tracker",
    "Trackio",
    "Update",
    "Visdom",
    "WandB",
    "attach",
    "compare",
    "current",
    "current_backend",
    "curve_of_runs",
    "errors",
    "extend_default_backends",
    "finish",
    "init",
    "load_metrics",
    "log",
    "open_run",
    "query",
    "reset_default_backends",
    "runs",
    "set_default_backends",
    "show",
]
