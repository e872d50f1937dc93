"""asynctrack: background logging that makes experiment tracking free for the loop that calls it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asynctrack import errors
from asynctrack.backends.base import Backend, Batch, Context, Sink, Update
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

__version__ = "0.1.0"


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


__all__ = [
    "Array",
    "AsynctrackError",
    "Backend",
    "BackendStats",
    "Batch",
    "Context",
    "JSONLines",
    "Memory",
    "NoCurrentRun",
    "QueueFull",
    "Record",
    "Run",
    "RunReader",
    "Scope",
    "Settings",
    "Sink",
    "Stats",
    "Tracker",
    "Update",
    "current",
    "errors",
    "finish",
    "init",
    "log",
    "open_run",
]
