"""W&B's names: with `import asynctrack.wandb as wandb` a script for W&B runs unchanged, without an account.

| W&B | here |
| --- | --- |
| `init, log, finish, run, config, summary` | the same; `run.asynctrack` is the run that records |
| `define_metric, log_artifact, save, alert, ...` | methods of the current run |
| `Image, Histogram, Table, Html, Artifact, Settings` | those of asynctrack, with W&B's arguments |
| rows with the same `step=` | each call is a record; steps may come in any order, and none is dropped |
| `init(mode="shared")` | the processes of one machine that give the same `id` write to one run |
| the summary | values that are set; for other names the last logged value, or the aggregates of `define_metric` |

Any other name of W&B's own `wandb` raises an `AttributeError`. Kinds of values that asynctrack does not have are
recorded as a text that says so.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

import asynctrack
from asynctrack._system.suggestions import unknown_attribute
from asynctrack.client import following
from asynctrack.client.following import followed
from asynctrack.errors import NoCurrentRun
from asynctrack.wandb import sdk as sdk
from asynctrack.wandb import state, util
from asynctrack.wandb.alerts import AlertLevel
from asynctrack.wandb.artifacts import Artifact
from asynctrack.wandb.errors import CommError, Error, UsageError
from asynctrack.wandb.notices import termerror, termlog, termwarn, unsupported
from asynctrack.wandb.opening import current_or_attached, init, run_of_the_moment
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
    # Names of W&B's package that ask W&B's server.
    _NEED_A_SERVER = frozenset({"Api", "agent", "apis", "controller", "sweep"})

    def __getattr__(name: str) -> Any:
        """Return `run`, or its `config` or `summary`, as they are at this moment.

        Raises:
            AttributeError: there is no such name.
        """
        if name in _NEED_A_SERVER:
            raise AttributeError(
                f"module {__name__!r} has no {name!r}, which asks W&B's server: take it from W&B's own package, by `from wandb import {name}`"
            )
        if name not in _OF_THE_MOMENT:
            raise unknown_attribute(globals(), name, more=_OF_THE_MOMENT)
        current = run_of_the_moment()
        if name == "run":
            return current
        return state.NoRun(name) if current is None else getattr(current, name)


def _current(call: str) -> Run:
    run: Run | None = state.current()
    if run is None or (followed and monotonic() >= following.due_at):
        run = current_or_attached()
    if run is None:
        raise NoCurrentRun(call, "wandb.init()")
    return run


def log(data: Mapping[str, Any], step: int | None = None, commit: bool | None = None, sync: bool | None = None) -> None:
    """Call `Run.log` of the current run.

    Args:
        data: names to values.
        step: of the record; None for the record's number.
        commit: False keeps `data` back until the next call.
        sync: ignored.

    Raises:
        NoCurrentRun: no run is open.
        InvalidData: `data` is not a mapping.
        InvalidStep: `step` is not an integer.
    """
    _current("log()").log(data, step, commit)


def finish(exit_code: int | None = None, quiet: bool | None = None) -> None:
    """Call `Run.finish` of the current run; without one do nothing.

    Args:
        exit_code: of the run; other than 0 it has failed.
        quiet: ignored.
    """
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
    """Call `Run.define_metric` of the current run.

    Args:
        name: of the metric, or a pattern with `*` at its end.
        step_metric: name of the metric on its x-axis.
        step_sync: ignored: each record has its step.
        hidden: whether W&B hides it.
        summary: "min", "max", "mean", "first", "last", or several with commas between; or "none".
        goal: "minimize" or "maximize".
        overwrite: replace the earlier description.

    Raises:
        NoCurrentRun: no run is open.
        Error: the name has a `*` elsewhere, or there is no such summary.
    """
    _current("define_metric()").define_metric(name, step_metric, step_sync, hidden, summary, goal, overwrite)


def log_artifact(
    artifact_or_path: asynctrack.Artifact | str | os.PathLike[str],
    name: str | None = None,
    type: str | None = None,
    aliases: Sequence[str] | None = None,
    tags: Sequence[str] | None = None,
) -> Any:
    """Call `Run.log_artifact` of the current run.

    Args:
        artifact_or_path: an artifact, or the path of a file or folder.
        name: of an artifact that is made from a path. Default: the path's last part.
        type: of an artifact that is made from a path. Default: "file".
        aliases: for people.
        tags: for people.

    Returns:
        The artifact.

    Raises:
        NoCurrentRun: no run is open.
        InvalidValue: there is no such file or folder.
    """
    return _current("log_artifact()").log_artifact(artifact_or_path, name, type, aliases, tags)


def use_artifact(*args: Any, **kwargs: Any) -> Any:
    """Call `Run.use_artifact` of the current run.

    Args:
        args: of that method.
        kwargs: of that method.

    Returns:
        The artifact.

    Raises:
        NoCurrentRun: no run is open.
    """
    return _current("use_artifact()").use_artifact(*args, **kwargs)


def link_artifact(*args: Any, **kwargs: Any) -> Any:
    """Call `Run.link_artifact` of the current run.

    Args:
        args: of that method.
        kwargs: of that method.

    Returns:
        The artifact.

    Raises:
        NoCurrentRun: no run is open.
    """
    return _current("link_artifact()").link_artifact(*args, **kwargs)


def log_model(path: str | os.PathLike[str], name: str | None = None, aliases: Sequence[str] | None = None) -> Any:
    """Call `Run.log_model` of the current run.

    Args:
        path: of a file or folder.
        name: of the artifact. Default: the path's last part.
        aliases: for people.

    Returns:
        The artifact.

    Raises:
        NoCurrentRun: no run is open.
        InvalidValue: there is no such file or folder.
    """
    return _current("log_model()").log_model(path, name, aliases)


def log_code(*args: Any, **kwargs: Any) -> None:
    """Call `Run.log_code` of the current run.

    Args:
        args: of that method.
        kwargs: of that method.

    Raises:
        NoCurrentRun: no run is open.
    """
    _current("log_code()").log_code(*args, **kwargs)


def save(
    glob_str: str | os.PathLike[str] | None = None,
    base_path: str | os.PathLike[str] | None = None,
    policy: str = "live",
    **older: Any,
) -> list[str]:
    """Call `Run.save` of the current run.

    Args:
        glob_str: a path, in which `*` may stand for names.
        base_path: folder at which the names of the files begin. Default: each name is the path's last part.
        policy: ignored: later changes need another call.
        older: older names of the arguments.

    Returns:
        The paths of the files that were found.

    Raises:
        NoCurrentRun: no run is open.
    """
    return _current("save()").save(glob_str, base_path, policy, **older)


def alert(title: str, text: str = "", level: str | AlertLevel | None = None, wait_duration: object = None) -> None:
    """Call `Run.alert` of the current run.

    Args:
        title: of the alert.
        text: of the alert.
        level: ignored.
        wait_duration: ignored.

    Raises:
        NoCurrentRun: no run is open.
    """
    _current("alert()").alert(title, text, level, wait_duration)


def mark_preempting() -> None:
    """Call `Run.mark_preempting` of the current run.

    Raises:
        NoCurrentRun: no run is open.
    """
    _current("mark_preempting()").mark_preempting()


def watch(*args: Any, **kwargs: Any) -> tuple[()]:
    """Call `Run.watch` of the current run.

    Args:
        args: of that method.
        kwargs: of that method.

    Returns:
        An empty tuple, for there is nothing to unhook.

    Raises:
        NoCurrentRun: no run is open.
    """
    return _current("watch()").watch(*args, **kwargs)


def unwatch(models: object = None) -> None:
    """Call `Run.unwatch` of the current run.

    Args:
        models: ignored.

    Raises:
        NoCurrentRun: no run is open.
    """
    _current("unwatch()").unwatch(models)


def login(*args: object, **kwargs: object) -> bool:
    """Do nothing: a run here needs no account.

    The W&B backend finds its key in the environment, or where `wandb login` has stored it.

    Args:
        args: ignored; a key is ignored with a warning.
        kwargs: ignored; a key is ignored with a warning.

    Returns:
        True.
    """
    if kwargs.get("key") or args:
        unsupported("login(key=...)", "the W&B backend takes its key from WANDB_API_KEY or `wandb login`")
    return True


def setup(*args: object, **kwargs: object) -> None:
    """Do nothing: there is nothing to set up.

    Args:
        args: ignored.
        kwargs: ignored.
    """


teardown = setup
require = setup


__all__ = [
    "AlertLevel", "Artifact", "Audio", "CommError", "Config", "Error", "Graph", "Histogram", "Html", "Image", "JoinedTable", "Molecule",
    "Object3D", "Plotly", "Run", "Settings", "Table", "UsageError", "Video", "alert", "define_metric", "finish", "init", "link_artifact",
    "log", "log_artifact", "log_code", "log_model", "login", "mark_preempting", "plot", "require", "save", "setup", "teardown", "termerror",
    "termlog", "termwarn", "unwatch", "use_artifact", "util", "watch",
]  # fmt: skip
