"""asynctrack: background logging that makes experiment tracking free for the loop that calls it.

A script for W&B runs unchanged with one line: `import asynctrack.wandb as wandb`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from asynctrack import errors
from asynctrack._system import messages
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
from asynctrack.client.current import current, current_backend
from asynctrack.client.default_backends import extend_default_backends, reset_default_backends, set_default_backends
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
    from asynctrack.client.tracker import Tracker
    from asynctrack.reading.loading import load_metrics
    from asynctrack.reading.opening import open_run
    from asynctrack.reading.reader import RunReader
    from asynctrack.records.values import Artifact, Histogram, Html, Image, Table, Text

__version__ = "0.1.0"

# Imported when they are asked for.
_LATER = {
    **{path.rpartition(".")[2]: path.rpartition(".")[0] for path in KINDS.values()},
    **dict.fromkeys(("Artifact", "Histogram", "Html", "Image", "Table", "Text"), "asynctrack.records.values"),
    "RunReader": "asynctrack.reading.reader",
    "Tracker": "asynctrack.client.tracker",
    "load_metrics": "asynctrack.reading.loading",
    "open_run": "asynctrack.reading.opening",
}


def log(data: Mapping[str, Any], step: int | None = None, commit: bool | None = None) -> bool:
    """Record values into the current run.

    Args:
        data: See `Run.log`.
        step: See `Run.log`.
        commit: See `Run.log`.

    Returns:
        True if the record was accepted, False if it was dropped and counted.

    Raises:
        NoCurrentRun: No run is open.
        UsageError: See `Run.log`.
    """
    run = current()
    if run is None:
        raise NoCurrentRun("log()")
    return run.log(data, step, commit)


@suggests
def finish(summary: Mapping[str, Any] | None = None, exit_code: int | None = None) -> RunStats | None:
    """Finish the current run. Without one it warns and does nothing.

    Args:
        summary: See `Run.finish`.
        exit_code: See `Run.finish`.

    Returns:
        The final statistics of the run; None if no run was open.

    Raises:
        InvalidData: The summary is not a mapping.
    """
    run = current()
    if run is None:
        messages.warn_now("asynctrack: finish() without an open run is ignored")
        return None
    return run.finish(summary, exit_code)


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
    "Console",
    "Context",
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
    "QueueFull",
    "Record",
    "Rejected",
    "Resend",
    "Retry",
    "Run",
    "RunReader",
    "RunStats",
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
    "current",
    "current_backend",
    "errors",
    "extend_default_backends",
    "finish",
    "init",
    "load_metrics",
    "log",
    "open_run",
    "reset_default_backends",
    "set_default_backends",
]
