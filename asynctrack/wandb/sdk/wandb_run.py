"""Run: W&B's methods on one of asynctrack's runs."""

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
    """Records a run, from `init()` to `finish()`.

    Args:
        run: of asynctrack.
        settings: with which it was opened.

    Attributes:
        asynctrack: the run that records.
        settings: with which it was opened.
        offline: whether nothing is sent while it runs.
        disabled: whether nothing is recorded.
        config: of the run.
        summary: of the run.
        start_time: seconds since the epoch.
        starting_step: step of the first `log` here.
        url: None, as are `project_url`, `sweep_id` and `sweep_url`: there is no page and no sweep.
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
        """Return the run's id."""
        return self.asynctrack.id

    @property
    def name(self) -> str:
        """Return the run's name, for people; it can be set."""
        return self.asynctrack.name

    @name.setter
    def name(self, name: str) -> None:
        self.asynctrack.name = name

    @property
    def tags(self) -> tuple[str, ...]:
        """Return the run's tags; they can be set."""
        return self.asynctrack.tags

    @tags.setter
    def tags(self, tags: Sequence[str]) -> None:
        self.asynctrack.tags = tags

    @property
    def notes(self) -> str | None:
        """Return the run's notes; they can be set."""
        return self.asynctrack.notes

    @notes.setter
    def notes(self, notes: str) -> None:
        self.asynctrack.notes = notes

    @property
    def project(self) -> str:
        """Return the run's project."""
        return self.asynctrack.project

    @property
    def entity(self) -> str:
        """Return the run's owner at W&B, "" where none is set."""
        return str(self.asynctrack.labels.get("entity", ""))

    @property
    def group(self) -> str:
        """Return the run's group, "" where none is set."""
        return str(self.asynctrack.labels.get("group", ""))

    @property
    def job_type(self) -> str:
        """Return the run's part in its group, "" where none is set."""
        return str(self.asynctrack.labels.get("job_type", ""))

    @property
    def path(self) -> str:
        """Return entity, project and id, joined by slashes."""
        return "/".join(part for part in (self.entity, self.project, self.id) if part)

    @property
    def resumed(self) -> bool:
        """Return whether the run had been opened before."""
        return self.asynctrack.resumed

    @property
    def step(self) -> int:
        """Return the step of the next record."""
        return 0 if self.disabled else self._step

    @property
    def dir(self) -> str:
        """Return a directory that stays with the run; a temporary one where nothing is recorded."""
        if not self.disabled:
            return str(self.asynctrack.path)
        self._dir = self._dir or tempfile.mkdtemp(prefix="asynctrack-disabled-")
        return self._dir

    @property
    def sync_dir(self) -> str:
        """Return the same as `dir`."""
        return self.dir

    def get_url(self) -> None:
        """Return None: there is no page."""

    def log(
        self, data: Mapping[str, Any], step: int | None = None, commit: bool | None = None, sync: bool | None = None
    ) -> None:
        """Record `data`; see `asynctrack.Run.log`. Each call with a step is a record of its own.

        Args:
            data: names to values.
            step: of the record; None for the record's number.
            commit: False keeps `data` back until the next call.
            sync: ignored.

        Raises:
            InvalidData: `data` is not a mapping.
            InvalidStep: `step` is not an integer.
            RunFinished: the run has finished.
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
        """Record a value that was assigned to `wandb.config` as a whole."""
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
        """Describe a metric: its look at W&B, and its aggregates in the summary.

        With aggregates, the summary has a mapping of their names to values in place of the metric's last value.

        Args:
            name: of the metric, or a pattern with `*` at its end.
            step_metric: name of the metric on its x-axis.
            step_sync: ignored: each record has its step.
            hidden: whether W&B hides it.
            summary: "min", "max", "mean", "first", "last", or several with commas between; or "none".
            goal: "minimize" or "maximize".
            overwrite: replace the earlier description.

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
        """Keep an artifact with the run; see `asynctrack.Run.log_artifact`.

        Args:
            artifact_or_path: an artifact, or the path of a file or folder.
            name: of an artifact that is made from a path. Default: the path's last part.
            type: of an artifact that is made from a path. Default: "file".
            aliases: for people.
            tags: for people.

        Returns:
            The artifact.

        Raises:
            InvalidValue: there is no such file or folder.
        """
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
        """Keep an artifact of the type "model" with the run.

        Args:
            path: of a file or folder.
            name: of the artifact. Default: the path's last part.
            aliases: for people.

        Returns:
            The artifact.

        Raises:
            InvalidValue: there is no such file or folder.
        """
        return self.log_artifact(path, name, "model", aliases)

    def use_artifact(self, artifact_or_name: Any, *args: object, **kwargs: object) -> Any:
        """Return an artifact: the given one, or by its name the last one that a run of this project has kept.

        Args:
            artifact_or_name: an artifact, "NAME" or "NAME:latest".
            args: ignored.
            kwargs: ignored.

        Raises:
            CommError: no run of this project has kept one of that name.
        """
        if self.disabled:
            return Nothing()
        if not isinstance(artifact_or_name, str):
            return artifact_or_name
        return artifacts.find(artifact_or_name, self.asynctrack.path.parent)

    def link_artifact(self, artifact: Any, *args: object, **kwargs: object) -> Any:
        """Do nothing but warn: links are not supported.

        Args:
            artifact: returned as it is.
            args: ignored.
            kwargs: ignored.
        """
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
            base_path: folder at which the names of the files begin. Default: each name is the path's last part.
            policy: ignored: later changes need another call.
            older: older names of the arguments.

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
        """Log an alert as a warning in this process. No message is sent.

        Args:
            title: of the alert.
            text: of the alert.
            level: ignored.
            wait_duration: ignored.
        """
        unsupported("alert()", "what it says is only logged")
        messages.warn_now(f"asynctrack: alert: {title}" + (f": {text}" if text else ""))

    def mark_preempting(self) -> None:
        """Call `asynctrack.Run.mark_preempted`."""
        self.asynctrack.mark_preempted()

    def watch(self, models: object = None, *args: object, **kwargs: object) -> tuple[()]:
        """Do nothing but warn: log gradients yourself, as arrays or histograms.

        Args:
            models: ignored.
            args: ignored.
            kwargs: ignored.

        Returns:
            An empty tuple.
        """
        unsupported("watch()", "log gradients as arrays or asynctrack.Histogram")
        return ()

    def unwatch(self, models: object = None) -> None:
        """Do nothing: nothing is watched.

        Args:
            models: ignored.
        """

    def log_code(self, *args: object, **kwargs: object) -> None:
        """Do nothing but warn: log a folder as an `Artifact`.

        Args:
            args: ignored.
            kwargs: ignored.
        """
        unsupported("log_code()", "log a folder with log_artifact()")

    def finish(self, exit_code: int | None = None, quiet: bool | None = None) -> None:
        """End the run.

        Args:
            exit_code: other than 0 the run has failed.
            quiet: ignored.
        """
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
    """Return the step after the last one that an earlier session has logged."""
    run.flush("journaled")
    last = asynctrack.open_run(run.path).last_record()
    return 0 if last is None else last.step + 1
