"""Opening: turn the arguments of `wandb.init` and W&B's environment into a run."""

from __future__ import annotations

import copyreg
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import asynctrack
from asynctrack._system.suggestions import suggests
from asynctrack.backends.base import Backend
from asynctrack.client.banner import cell
from asynctrack.client.init_arguments import DEFAULT_PROJECT
from asynctrack.client.left_runs import keep
from asynctrack.errors import AsynctrackError, RunIsRunning
from asynctrack.settings import DEFAULT_DIR, WhenFull, WorkerKind
from asynctrack.wandb import environment as variables
from asynctrack.wandb import state, tensorboard
from asynctrack.wandb.errors import Error
from asynctrack.wandb.notices import termlog, warn_unsupported
from asynctrack.wandb.sdk.wandb_config import config_of
from asynctrack.wandb.sdk.wandb_run import Run
from asynctrack.wandb.settings import Settings, arguments_of
from asynctrack.wandb.sharing import next_run_of_ancestors, run_of_ancestors, take_sharing

Reinit = Literal["default", "return_previous", "finish_previous", "create_new"]
Resume = Literal["allow", "never", "must", "auto"]

_MODES: Final[dict[Any, str]] = {"dryrun": "offline", "run": "online"}
_RESUME_FILE: Final = "wandb-resume.json"


@suggests
def init(
    entity: str | None = None,
    project: str | None = None,
    dir: str | os.PathLike[str] | None = None,
    id: str | None = None,
    name: str | None = None,
    notes: str | None = None,
    tags: Sequence[str] | None = None,
    config: Any = None,
    config_exclude_keys: Sequence[str] | None = None,
    config_include_keys: Sequence[str] | None = None,
    allow_val_change: bool | None = None,
    group: str | None = None,
    job_type: str | None = None,
    mode: Literal["online", "offline", "disabled", "shared", "dryrun"] | None = None,
    force: bool | None = None,
    reinit: Reinit | bool | None = None,
    resume: Resume | bool | None = None,
    resume_from: str | None = None,
    fork_from: str | None = None,
    save_code: bool | None = None,
    tensorboard: bool | None = None,
    sync_tensorboard: bool | None = None,
    monitor_gym: bool | None = None,
    settings: Settings | asynctrack.Settings | Mapping[str, Any] | None = None,
    anonymous: object = None,
    magic: object = None,
    *,
    backends: Iterable[Backend | str] | None = None,
    worker: WorkerKind | None = None,
    when_full: WhenFull | None = None,
    max_block_s: float | None = None,
    queue_bytes: int | None = None,
    finish_timeout_s: float | None = None,
    exit_timeout_s: float | None = None,
    linger_s: float | None = None,
    sync_interval_s: float | None = None,
    after_exit_max_s: float | None = None,
    straggler_s: float | None = None,
    environment: bool | None = None,
    diff: bool | None = None,
) -> Run:
    """Open a run, as `wandb.init` does.

    Arguments that are missing come from `settings`, and then from W&B's environment.

    Where a run is open already, that run is returned; `reinit` changes this. In a notebook the open run is finished,
    and another is opened.

    Args:
        entity: owner of the run at W&B, a user or a team.
        project: of the run.
        dir: folder of all runs.
        id: of the run.
        name: for people.
        notes: for people.
        tags: for people.
        config: as in `asynctrack.init`.
        config_exclude_keys: names that are left out of the config.
        config_include_keys: if given, only these names of the config are kept.
        allow_val_change: ignored.
        group: of runs that belong together.
        job_type: the run's part in its group, such as "train".
        mode: "online", "offline" or "disabled"; or "shared", where several processes of one machine write to the run of
            one id. Then `Settings(x_label=...)` is the label of this process, and the run ends as that with
            `x_primary=True` does.
        force: ignored.
        reinit: "finish_previous" or True finishes the open runs, "create_new" leaves them open and `wandb.run` as it
            is, "return_previous" or False returns the one that was opened last.
        resume: "allow" goes on with a run of this id, "must" refuses to begin one, "auto" or True goes on with the last
            run of this directory, if that has not finished.
        resume_from: ignored.
        fork_from: ignored.
        save_code: ignored.
        tensorboard: the older name of `sync_tensorboard`.
        sync_tensorboard: whether the values that every `SummaryWriter` writes are recorded, too; see
            `asynctrack.wandb.tensorboard`.
        monitor_gym: ignored.
        settings: W&B's or ours.
        anonymous: ignored.
        magic: ignored.
        backends: as in `asynctrack.init`, like all arguments that follow, which W&B does not have.
        worker: as in `asynctrack.init`.
        when_full: as in `asynctrack.init`.
        max_block_s: as in `asynctrack.init`.
        queue_bytes: as in `asynctrack.init`.
        finish_timeout_s: as in `asynctrack.init`.
        exit_timeout_s: as in `asynctrack.init`.
        linger_s: as in `asynctrack.init`.
        sync_interval_s: as in `asynctrack.init`.
        after_exit_max_s: as in `asynctrack.init`.
        straggler_s: as in `asynctrack.init`.
        environment: as in `asynctrack.init`.
        diff: as in `asynctrack.init`.

    Returns:
        The run.

    Raises:
        Error: a run is to be resumed while another is open, or an error of `asynctrack.init`.
    """
    told = {
        "entity": entity, "project": project, "dir": dir, "id": id, "name": name, "notes": notes, "tags": tags, "group": group,
        "job_type": job_type, "mode": mode, "reinit": reinit, "resume": resume, "sync_tensorboard": sync_tensorboard or tensorboard,
        "backends": backends, "worker": worker, "when_full": when_full, "max_block_s": max_block_s, "queue_bytes": queue_bytes,
        "finish_timeout_s": finish_timeout_s, "exit_timeout_s": exit_timeout_s, "linger_s": linger_s, "sync_interval_s": sync_interval_s,
        "after_exit_max_s": after_exit_max_s, "straggler_s": straggler_s, "environment": environment, "diff": diff,
    }  # fmt: skip
    ignored = {
        "force": force, "resume_from": resume_from, "fork_from": fork_from, "save_code": save_code, "monitor_gym": monitor_gym,
        "anonymous": anonymous, "allow_val_change": allow_val_change, "magic": magic,
    }  # fmt: skip
    warn_unsupported("init", {what: value or None for what, value in ignored.items()})
    chosen = {**variables.given(), **_set(arguments_of(settings)), **_set(told)}
    silent = bool(chosen.pop("silent", False)) or variables.is_silent()
    reinit = chosen.pop("reinit", "default")
    if (previous := _previous(reinit, chosen.get("resume"), silent)) is not None:
        return previous
    config = _only(config_of(config), config_include_keys, config_exclude_keys)
    return _open(chosen, config, silent=silent, alone=reinit == "create_new")


def current_or_attached() -> Run | None:
    """Return the current run; in a process that has never had one the run of a process from which it descends; None where there is none.

    Where the current run is that of such a process, which has gone on to another, that becomes the current one: pools are kept from one run to the next.

    Raises:
        Error: there is one, and it cannot be attached to; see `asynctrack.attach`.
    """
    run: Run | None = state.current()
    if run is None and not state.had_one() and (found := run_of_ancestors()) is not None:
        return arrive(found)
    if run is not None and (next_run := next_run_of_ancestors(run.asynctrack)) is not None:
        run = _by_names(next_run)
        state.enter_attached(run)
    return run


def arrive(found: asynctrack.Run) -> Run:
    """Return the run by W&B's names in a process that has attached to it, where it becomes `wandb.run` if there is none."""
    before: Run | None = state.current()
    if before is not None and before.asynctrack is found:
        return before
    run = _by_names(found)
    if before is None:
        state.enter_attached(run)
    return run


def _by_names(found: asynctrack.Run) -> Run:
    return Run(found, settings_of(found, {"dir": found.path.parent.parent}))


def run_of_the_moment() -> Run | None:
    """Return `wandb.run`: the current run; in a child that multiprocessing has spawned that of its parent, as in one that it has forked.

    A program that was started by another has none until it calls `init`, or logs: many ask for `wandb.run` before they call `init`.
    """
    run: Run | None = state.current()
    if run is None and (state.had_one() or _is_no_child()):
        return None
    try:
        run = current_or_attached()
    except Error:  # the run is out of reach, which the first `log` says
        return run
    if run is not None:
        keep(run.asynctrack)  # the script may hold it
    return run


def _is_no_child() -> bool:
    multiprocessing = sys.modules.get("multiprocessing.process")
    return multiprocessing is None or multiprocessing.parent_process() is None


def _set(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}


def _only(config: dict[Any, Any], only: Sequence[str] | None, without: Sequence[str] | None) -> dict[Any, Any]:
    return {key: value for key, value in config.items() if (not only or key in only) and key not in (without or ())}


def _previous(reinit: Any, resume: Any, silent: bool) -> Run | None:
    """Return the open run that `init` returns again; None where it opens another.

    Raises:
        Error: a run is to be resumed while another is open.
    """
    previous: Run | None = next(reversed(state.open_runs()), None)
    if previous is None or reinit == "create_new":
        return None
    if reinit in (True, "finish_previous") or (reinit == "default" and cell() is not None):
        for run in state.open_runs():
            run.finish()
        return None
    if resume == "must":
        raise Error(
            "a run is to be resumed while another is open: finish that with run.finish(), or open this with reinit='create_new'"
        )
    if not silent:
        termlog(f"init() while run {previous.id} is open: that is returned; reinit='finish_previous' finishes it")
    return previous


def _open(chosen: dict[str, Any], config: dict[Any, Any], *, silent: bool, alone: bool) -> Run:
    follows = chosen.pop("sync_tensorboard", False)
    sharing = take_sharing(chosen)
    mode = chosen.get("mode")
    chosen["mode"] = _MODES.get(mode, mode)
    resume_file = _resume_file(chosen)
    given = _set({**chosen, **sharing.arguments(chosen)})
    fixed: dict[str, Any] = {"config": config, "quiet": silent, "reinit": "create_new" if alone else "default"}
    with sharing.role():
        try:
            run = asynctrack.init(**{"id": _unfinished(resume_file, given), **given, **fixed})
        except RunIsRunning:
            if resume_file is None or "id" in given:
                raise
            run = asynctrack.init(**given, **fixed)  # the last run of the directory is still running
    opened = Run(run, settings_of(run, given, **sharing.settings()))
    if resume_file is not None and not opened.disabled:
        _remember(resume_file, run)
    state.enter(opened, alone=alone)
    opened.take_assigned()
    if follows and not opened.disabled:
        tensorboard.follow(opened)
    return opened


def settings_of(run: asynctrack.Run, given: Mapping[str, Any], **shared: Any) -> Settings:
    """Return the settings that a run has in the end."""
    labels = run.labels
    return Settings(**{"mode": run.mode, **shared}, project=run.project, run_id=run.id, run_name=run.name,
        entity=labels.get("entity"), run_group=labels.get("group"), run_job_type=labels.get("job_type"), run_notes=labels.get("notes"),
        run_tags=tuple(labels.get("tags", ())), root_dir=str(given.get("dir", DEFAULT_DIR)), resume=given.get("resume"),
    )  # fmt: skip


def _resume_file(chosen: dict[str, Any]) -> Path | None:
    """Translate W&B's `resume` into ours.

    Returns:
        With "auto", the path of the file that names the last run of the directory; else None.
    """
    resume = chosen.pop("resume", None)
    if resume not in (True, "auto"):
        chosen["resume"] = resume or "never"
        return None
    chosen["resume"] = "allow"
    return Path(chosen.get("dir", DEFAULT_DIR)) / _RESUME_FILE


def _unfinished(path: Path | None, given: Mapping[str, Any]) -> str | None:
    """Return the id of the run that a file names, if that run is of the same project and has not finished."""
    if path is None:
        return None
    try:
        noted = json.loads(path.read_text())
        same = noted["project"] == given.get("project", DEFAULT_PROJECT)
        return noted["run_id"] if same and asynctrack.open_run(noted["path"]).status != "finished" else None
    except (OSError, ValueError, KeyError, TypeError, AsynctrackError):
        return None


def _remember(path: Path, run: asynctrack.Run) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"run_id": run.id, "project": run.project, "path": str(run.path)}))


def _reduce(run: Run) -> tuple[Callable[..., Run], tuple[Any, ...]]:
    """Return what is kept of a run where it is pickled."""
    return arrive, (run.asynctrack,)


copyreg.pickle(Run, _reduce)
