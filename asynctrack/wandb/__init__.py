"""W&B's names: `import asynctrack.wandb as wandb`, and a script for W&B runs unchanged, without an account.

| W&B | here |
| --- | --- |
| `init, log, finish, run, config, summary` | the same; `run.asynctrack` is the run that records it |
| `define_metric, log_artifact, save, alert, ...` | methods of the current run |
| `Image, Histogram, Table, Html, Artifact, Settings` | those of asynctrack, with W&B's arguments |
| rows with the same `step=` | each call is a record; steps may come in any order, none is thrown away |
| the summary | what is set; the last value of all else that was logged, or what `define_metric` says |

What W&B's own `wandb` has and this has not is an `AttributeError`, but for kinds of values: these are recorded as a text that says so.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import asynctrack
from asynctrack._system.suggestions import unknown_attribute
from asynctrack.errors import NoCurrentRun
from asynctrack.wandb import sdk as sdk
from asynctrack.wandb import state, util
from asynctrack.wandb.alerts import AlertLevel
from asynctrack.wandb.artifacts import Artifact
from asynctrack.wandb.errors import CommError, Error, UsageError
from asynctrack.wandb.notices import termerror, termlog, termwarn, unsupported
from asynctrack.wandb.opening import init
from asynctrack.wandb.sdk.wandb_config import Config
from asynctrack.wandb.sdk.wandb_run import Run
from asynctrack.wandb.sdk.wandb_summary import Summary
from asynctrack.wandb.settings import Settings
from asynctrack.wandb.values import (
    Audio,
    Graph,
    Histogram,
    Html,
    Image,
    JoinedTable,
    Molecule,
    Object3D,
    Plotly,
    Plots,
    Table,
    Video,
)

# The version of W&B's SDK that this imitates: scripts check it.
__version__ = "0.31.0"

plot: Plots = Plots()

if TYPE_CHECKING:
    run: Run | None
    config: Config
    summary: Summary
else:
    _OF_THE_MOMENT = ("run", "config", "summary")

    def __getattr__(name: str) -> Any:
        """`run`, and its `config` and `summary`: an import sees those of the moment."""
        if name not in _OF_THE_MOMENT:
            raise unknown_attribute(globals(), name, more=_OF_THE_MOMENT)
        current = state.current()
        if name == "run":
            return current
        return _Nothing(name) if current is None else getattr(current, name)


def _current(call: str) -> Run:
    run: Run | None = state.current()
    if run is None:
        raise NoCurrentRun(call)
    return run


def log(data: Mapping[str, Any], step: int | None = None, commit: bool | None = None, sync: bool | None = None) -> None:
    """`Run.log` of the current run."""
    _current("log()").log(data, step, commit)


def finish(exit_code: int | None = None, quiet: bool | None = None) -> None:
    """`Run.finish` of the current run; without one it does nothing."""
    if (run := state.current()) is not None:
        run.finish(exit_code)


def define_metric(
    name: str,
    step_metric: str | None = None,
    step_sync: bool | None = None,
    hidden: bool | None = None,
    summary: str | None = None,
    goal: str | None = None,
    overwrite: bool | None = None,
) -> None:
    """`Run.define_metric` of the current run."""
    _current("define_metric()").define_metric(name, step_metric, step_sync, hidden, summary, goal, overwrite)


def log_artifact(
    artifact_or_path: asynctrack.Artifact | str | os.PathLike[str],
    name: str | None = None,
    type: str | None = None,
    aliases: Sequence[str] | None = None,
    tags: Sequence[str] | None = None,
) -> Any:
    """`Run.log_artifact` of the current run."""
    return _current("log_artifact()").log_artifact(artifact_or_path, name, type, aliases, tags)


def use_artifact(*args: Any, **kwargs: Any) -> Any:
    """`Run.use_artifact` of the current run."""
    return _current("use_artifact()").use_artifact(*args, **kwargs)


def link_artifact(*args: Any, **kwargs: Any) -> Any:
    """`Run.link_artifact` of the current run."""
    return _current("link_artifact()").link_artifact(*args, **kwargs)


def log_model(path: str | os.PathLike[str], name: str | None = None, aliases: Sequence[str] | None = None) -> Any:
    """`Run.log_model` of the current run."""
    return _current("log_model()").log_model(path, name, aliases)


def log_code(*args: Any, **kwargs: Any) -> None:
    """`Run.log_code` of the current run."""
    _current("log_code()").log_code(*args, **kwargs)


def save(
    glob_str: str | os.PathLike[str] | None = None,
    base_path: str | os.PathLike[str] | None = None,
    policy: str = "live",
    **older: Any,
) -> list[str]:
    """`Run.save` of the current run."""
    return _current("save()").save(glob_str, base_path, policy, **older)


def alert(title: str, text: str = "", level: str | AlertLevel | None = None, wait_duration: object = None) -> None:
    """`Run.alert` of the current run."""
    _current("alert()").alert(title, text, level, wait_duration)


def mark_preempting() -> None:
    """`Run.mark_preempting` of the current run."""
    _current("mark_preempting()").mark_preempting()


def watch(*args: Any, **kwargs: Any) -> tuple[()]:
    """`Run.watch` of the current run."""
    return _current("watch()").watch(*args, **kwargs)


def unwatch(models: object = None) -> None:
    """`Run.unwatch` of the current run."""
    _current("unwatch()").unwatch(models)


def login(*args: object, **kwargs: object) -> bool:
    """Nothing: a run here needs no account. What the W&B backend needs it has from the environment, or from `wandb login`."""
    if kwargs.get("key") or args:
        unsupported("login(key=...)", "the W&B backend takes its key from WANDB_API_KEY or `wandb login`")
    return True


def setup(*args: object, **kwargs: object) -> None:
    """Nothing: there is nothing to set up."""


teardown = setup
require = setup


class _Nothing:
    """The config or summary where there is no run: says so whatever is done with it."""

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "_name", name)

    def _refuse(self, *args: object) -> NoReturn:
        raise NoCurrentRun(object.__getattribute__(self, "_name"))

    __getattr__ = __setattr__ = __getitem__ = __setitem__ = __iter__ = __len__ = __contains__ = _refuse

    def __repr__(self) -> str:
        return f"<{object.__getattribute__(self, '_name')} of no run>"


__all__ = [
    "AlertLevel", "Artifact", "Audio", "CommError", "Config", "Error", "Graph", "Histogram", "Html", "Image", "JoinedTable", "Molecule",
    "Object3D", "Plotly", "Run", "Settings", "Table", "UsageError", "Video", "alert", "define_metric", "finish", "init", "link_artifact",
    "log", "log_artifact", "log_code", "log_model", "login", "mark_preempting", "plot", "require", "save", "setup", "teardown", "termerror",
    "termlog", "termwarn", "unwatch", "use_artifact", "util", "watch",
]  # fmt: skip
