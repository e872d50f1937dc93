"""asynctrack: background logging that makes experiment tracking free for the loop that calls it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from asynctrack import errors
from asynctrack.backends.base import Backend, Batch, Context, Paused, Refused, Retry, Sink, StartOver, TooLarge, Update
from asynctrack.backends.jsonl import JSONLines
from asynctrack.backends.memory import Memory
from asynctrack.books import BackendStats, Stats
from asynctrack.current import current
from asynctrack.errors import AsynctrackError, NoCurrentRun, QueueFull
from asynctrack.opening import init
from asynctrack.reader import RunReader, open_run
from asynctrack.record import Array, Record
from asynctrack.run import Run
from asynctrack.scope import Scope
from asynctrack.settings import Settings
from asynctrack.tracker import Tracker

if TYPE_CHECKING:
    from asynctrack.backends.mlflow import MLflow
    from asynctrack.backends.tensorboard import TensorBoard
    from asynctrack.backends.trackio import Trackio

__version__ = "0.1.0"

# Imported when they are asked for.
_LATER = {"MLflow": "mlflow", "TensorBoard": "tensorboard", "Trackio": "trackio"}


def log(data: Mapping[str, Any], step: int | None = None) -> bool:
    """`Run.log` of the current run."""
    run = current()
    if run is None:
        raise NoCurrentRun("log()")
    return run.log(data, step)


def finish(summary: Mapping[str, Any] | None = None) -> Stats:
    """`Run.finish` of the current run."""
    run = current()
    if run is None:
        raise NoCurrentRun("finish()")
    return run.finish(summary)


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'asynctrack' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"asynctrack.backends.{_LATER[name]}"), name)


__all__ = [
    "Array",
    "AsynctrackError",
    "Backend",
    "BackendStats",
    "Batch",
    "Context",
    "JSONLines",
    "MLflow",
    "Memory",
    "NoCurrentRun",
    "Paused",
    "QueueFull",
    "Record",
    "Refused",
    "Retry",
    "Run",
    "RunReader",
    "Scope",
    "Settings",
    "Sink",
    "StartOver",
    "Stats",
    "TensorBoard",
    "TooLarge",
    "Tracker",
    "Trackio",
    "Update",
    "current",
    "errors",
    "finish",
    "init",
    "log",
    "open_run",
]
