"""Run by W&B's names: it has one of asynctrack's, and says to it what it is told."""

from __future__ import annotations

import glob
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import asynctrack
from asynctrack._system import messages
from asynctrack.client.metrics import SUMMARIES
from asynctrack.journal.manifest import METRICS
from asynctrack.wandb import artifacts, state
from asynctrack.wandb.alerts import AlertLevel
from asynctrack.wandb.artifacts import Artifact, Nothing
from asynctrack.wandb.errors import Error
from asynctrack.wandb.notices import unsupported
from asynctrack.wandb.sdk.wandb_config import Config
from asynctrack.wandb.sdk.wandb_summary import LocalSummary, Summary
from asynctrack.wandb.settings import Settings

_OTHER_SUMMARIES: Final = frozenset({"copy"})


class Run:
    """One open run.

    Args:
        run: of asynctrack.
        settings: that it was opened with.

    Attributes:
        asynctrack: the run that records what this is told.
        settings: that it was opened with.
        offline: whether nothing is sent while it runs.
        disabled: whether nothing is recorded.
        config: of the run.
        summary: of the run.
        start_time: seconds since the epoch.
        starting_step: of the first `log` here.
    """

    sweep_id = None
    sweep_url = None
    url = None
    project_url = None

    def __init__(self, run: asynctrack.Run, settings: Settings) -> None:
        self.asynctrack = run
        self.start_time: float = time.time()
        self.offline: bool = run.mode == "offline"
        self.disabled: bool = run.mode == "disabled"
        self.settings = settings
        known = {name: value for name, value in run.config.as_dict().items() if name != METRICS}
        self.config: Config = Config(known, run.config.update)
        self.summary: Summary | LocalSummary = LocalSummary() if self.disabled else Summary(run)
        self.starting_step: int = _next_step(run) if run.resumed else 0
        self._step = self.starting_step
        self._dir: str | None = None
        self._put = run.log
        self._package = vars(sys.modules["asynctrack.wandb"])

    def __repr__(self) -> str:
        return repr(self.asynctrack)

    def __copy__(self) -> Run:
        return self

    def __deepcopy__(self, memo: object) -> Run:
        return self

    @property
    def id(self) -> str:
        return self.asynctrack.id

    @property
    def name(self) -> str:
        return self.asynctrack.name

    @name.setter
    def name(self, name: str) -> None:
        self.asynctrack.name = name

    @property
    def tags(self) -> tuple[str, ...]:
        return self.asynctrack.tags

    @tags.setter
    def tags(self, tags: Sequence[str]) -> None:
        self.asynctrack.tags = tags

    @property
    def notes(self) -> str | None:
        return self.asynctrack.notes

    @notes.setter
    def notes(self, notes: str) -> None:
        self.asynctrack.notes = notes

    @property
    def project(self) -> str:
        return self.asynctrack.project

    @property
    def entity(self) -> str:
        return str(self.asynctrack.labels.get("entity", ""))

    @property
    def group(self) -> str:
        return str(self.asynctrack.labels.get("group", ""))

    @property
    def job_type(self) -> str:
        return str(self.asynctrack.labels.get("job_type", ""))

    @property
    def path(self) -> str:
        """Entity, project and id."""
        return "/".join(part for part in (self.entity, self.project, self.id) if part)

    @property
    def resumed(self) -> bool:
        return self.asynctrack.resumed

    @property
    def step(self) -> int:
        """Of the next record."""
        return 0 if self.disabled else self._step

    @property
    def dir(self) -> str:
        """A directory that stays with the run; a temporary one where nothing is recorded."""
        if not self.disabled:
            return str(self.asynctrack.path)
        self._dir = self._dir or tempfile.mkdtemp(prefix="asynctrack-disabled-")
        return self._dir

    @property
    def sync_dir(self) -> str:
        return self.dir

    def get_url(self) -> None:
        """None: there is no page."""

    def log(
        self, data: Mapping[str, Any], step: int | None = None, commit: bool | None = None, sync: bool | None = None
    ) -> None:
        """Record `data`; see `asynctrack.Run.log`. Each call with a step is a record of its own.

        Args:
            data: names to values.
            step: of the record.
            commit: False keeps `data` back until the next call.
            sync: has no meaning.
        """
        if "config" in self._package:
            self.take_assigned()
        self._put(data, step, commit)
        if step is None:
            self._step += commit is not False
        elif step >= self._step:
            self._step = step + (commit is True)
        self.summary.logged(data)

    def take_assigned(self) -> None:
        """Record what was assigned to `wandb.config` as a whole."""
        if (given := state.take_assigned()) is not None:
            self.config.update(given, allow_val_change=True)

    def define_metric(
        self,
        name: str,
        step_metric: str | None = None,
        step_sync: bool | None = None,
        hidden: bool | None = None,
        summary: str | None = None,
        goal: str | None = None,
        overwrite: bool | None = None,
    ) -> None:
        """Say how W&B is to show a metric, and what the summary has of it: by the names of these, in a mapping.

        Args:
            name: of the metric, or a pattern with `*` at its end.
            step_metric: what its x-axis is.
            step_sync: has no meaning: each record has its step.
            hidden: whether W&B hides it.
            summary: "min", "max", "mean", "first", "last", or several with commas between; or "none".
            goal: "minimize" or "maximize".
            overwrite: forget what was said before.

        Raises:
            Error: the name has a `*` elsewhere, or there is no such summary.
        """
        if not name or "*" in name[:-1]:
            raise Error(f"define_metric() takes a name, with a * at its end at most; got {name!r:.80}")
        kinds = [kind.strip().lower() for kind in (summary or "").split(",") if kind.strip()]
        if strange := [kind for kind in kinds if kind not in SUMMARIES and kind not in _OTHER_SUMMARIES]:
            raise Error(f"summary must be one of {', '.join(SUMMARIES)}; got {strange[0]!r:.80}")
        told = ",".join(kind for kind in kinds if kind in SUMMARIES) or None
        self.asynctrack.define_metric(name, step_metric, hidden, told, goal, bool(overwrite))  # type: ignore[arg-type]  # it is checked there

    def log_artifact(
        self,
        artifact_or_path: asynctrack.Artifact | str | os.PathLike[str],
        name: str | None = None,
        type: str | None = None,
        aliases: Sequence[str] | None = None,
        tags: Sequence[str] | None = None,
    ) -> Any:
        """Keep an artifact with the run; see `asynctrack.Run.log_artifact`."""
        if self.disabled:
            return Nothing()
        if not isinstance(artifact_or_path, asynctrack.Artifact):
            path = Path(artifact_or_path)
            artifact_or_path = Artifact(name or path.name, type=type or "file", path=path)
        return self.asynctrack.log_artifact(
            artifact_or_path, aliases=artifacts.names(aliases), tags=artifacts.names(tags)
        )

    finish_artifact = log_artifact
    upsert_artifact = log_artifact

    def log_model(
        self, path: str | os.PathLike[str], name: str | None = None, aliases: Sequence[str] | None = None
    ) -> Any:
        """`log_artifact` of the type "model"."""
        return self.log_artifact(path, name, "model", aliases)

    def use_artifact(self, artifact_or_name: Any, *args: object, **kwargs: object) -> Any:
        """An artifact as it is; by its name that which a run of this project has kept last.

        Raises:
            CommError: none has.
        """
        if self.disabled:
            return Nothing()
        if not isinstance(artifact_or_name, str):
            return artifact_or_name
        return artifacts.find(artifact_or_name, self.asynctrack.path.parent)

    def link_artifact(self, artifact: Any, *args: object, **kwargs: object) -> Any:
        """Not supported."""
        unsupported("link_artifact()")
        return artifact

    def save(
        self,
        glob_str: str | os.PathLike[str] | None = None,
        base_path: str | os.PathLike[str] | None = None,
        policy: str = "live",
        **older: Any,
    ) -> list[str]:
        """Keep files with the run, as they are now, as artifacts of the type "saved".

        Args:
            glob_str: a path, in which `*` may stand for names.
            base_path: the names of the files begin below it. Default: they are their last parts.
            policy: has no meaning: what changes later is saved by another call.
            older: names of the arguments.

        Returns:
            The paths of the files that were found.
        """
        pattern = os.fspath(glob_str or older.get("glob") or "")
        found = sorted(path for path in glob.glob(pattern) if os.path.isfile(path))
        for path in found if not self.disabled else ():
            name = os.path.relpath(path, base_path) if base_path else os.path.basename(path)
            self.log_artifact(Artifact(name, type="saved", path=path))
        return found

    def alert(
        self, title: str, text: str = "", level: str | AlertLevel | None = None, wait_duration: object = None
    ) -> None:
        """Say something to people: in the log of this process, as a warning. Nobody is written to."""
        unsupported("alert()", "what it says is only logged")
        messages.warn_now(f"asynctrack: alert: {title}" + (f": {text}" if text else ""))

    def mark_preempting(self) -> None:
        """`asynctrack.Run.mark_preempted`."""
        self.asynctrack.mark_preempted()

    def watch(self, models: object = None, *args: object, **kwargs: object) -> tuple[()]:
        """Not supported: log the gradients that you want to see, as arrays or `Histogram`s."""
        unsupported("watch()", "log gradients as arrays or asynctrack.Histogram")
        return ()

    def unwatch(self, models: object = None) -> None:
        """Nothing: nothing is watched."""

    def log_code(self, *args: object, **kwargs: object) -> None:
        """Not supported: log a folder as an `Artifact`."""
        unsupported("log_code()", "log a folder with log_artifact()")

    def finish(self, exit_code: int | None = None, quiet: bool | None = None) -> None:
        """End the run; with an exit code other than 0 it has failed."""
        self.take_assigned()
        try:
            self.asynctrack.finish(exit_code=exit_code)
        finally:
            state.leave(self)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        try:
            self.asynctrack.__exit__(kind, error, traceback)
        finally:
            state.leave(self)


def _next_step(run: asynctrack.Run) -> int:
    """The step behind the last that an earlier session has logged."""
    run.flush("journaled")
    last = asynctrack.open_run(run.path).last_record()
    return 0 if last is None else last.step + 1
