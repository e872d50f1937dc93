"""Run arguments: the keyword arguments of `init` that integrations pass on, as type checkers and completion see them. Runs in the caller."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypedDict

from asynctrack.client.init_arguments import Config, Reinit
from asynctrack.settings import Mode, Resume, Settings, WhenFull, WorkerKind

# What `RunArguments` has and `Settings` and the labels have not: it is checked when a run opens.
OF_ONE_RUN: Final = frozenset({"id", "config", "resume", "join", "writer", "expected"})


class RunOptions(TypedDict, total=False):
    """The arguments that say how a run is recorded, and its labels; see `asynctrack.init`."""

    mode: Mode | None
    worker: WorkerKind
    when_full: WhenFull
    max_block_s: float
    queue_bytes: int | None
    finish_timeout_s: float
    exit_timeout_s: float
    linger_s: float
    sync_interval_s: float
    after_exit_max_s: float
    straggler_s: float
    environment: bool | None
    diff: bool | None
    entity: str | None
    group: str | None
    job_type: str | None
    tags: Sequence[str] | None
    notes: str | None
    reinit: Reinit
    settings: Settings | Mapping[str, Any] | None
    quiet: bool


class TrackerArguments(RunOptions, total=False):
    """The arguments of those that open run after run, which have an id each."""

    name: str | None
    dir: str | os.PathLike[str] | None


class RunArguments(TrackerArguments, total=False):
    """The arguments of those that open one run."""

    id: str | None
    config: Config | None
    resume: Resume
    join: bool
    writer: str | None
    expected: int | None
    collect: str | os.PathLike[str] | None
