"""Lightning: a logger of its trainers. Runs in the caller.

Trainer(logger=AsyncLogger("mnist", backends=["jsonl", "tensorboard"]))
"""

from __future__ import annotations

import importlib
import os
import sys
from argparse import Namespace
from collections.abc import Iterable, Mapping
from typing import Any, Unpack

from asynctrack._system.paths import expanded
from asynctrack.backends.base import Backend
from asynctrack.client.attaching import attach
from asynctrack.client.disabled_run import DisabledRun
from asynctrack.client.init_arguments import Config, check_settings
from asynctrack.client.opening import fresh_id, init
from asynctrack.client.run import Run
from asynctrack.client.run_arguments import RunOptions
from asynctrack.errors import FrameworkMissing, NoRunToAttach, NotARun, RunHasEnded
from asynctrack.integrations.ranks import silent_run
from asynctrack.settings import DEFAULT_DIR, check_name, project_directory


def _import(module: str) -> Any:
    """Import a module of Lightning, which has two names: by the one in use, else by the one that is installed."""
    names = sorted(("lightning.pytorch", "pytorch_lightning"), key=lambda name: name not in sys.modules)
    for name in names:
        try:
            return importlib.import_module(f"{name}.{module}")
        except ImportError as error:
            missing = error
    raise FrameworkMissing("Lightning", "lightning>=2.5", missing) from missing


_Logger: Any = _import("loggers.logger").Logger
_rank_zero_only: Any = _import("utilities.rank_zero").rank_zero_only


class _Settings(RunOptions, total=False):
    name: str | None
    config: Config | None


class AsyncLogger(_Logger):  # type: ignore[misc]  # known only where Lightning is
    """Logs for Lightning; the training does not wait for it.

    Each logger is one run. It opens at the first call that logs on rank 0, and has its config from the model's
    `save_hyperparameters()`. Other ranks open nothing, and no call does anything there. It ends with the stage (failed, if the stage raised) and goes on with the next: `fit`,
    then `test`. Lightning's checkpoints are written to the run's directory.

    Args:
        project: of the run; Lightning's `name`.
        id: of the run; Lightning's `version`. Default: time and a random part. Where there is a run with this id it
            goes on.
        prefix: of all names; a slash follows it.
        dir: folder of all runs; Lightning's `save_dir`.
        backends: of the run. Default: JSON Lines.
        settings: the other keyword arguments of `asynctrack.init`.

    Raises:
        InvalidSettings: a setting is out of range.
        InvalidRunId: project or id cannot be a directory's name.
    """

    def __init__(
        self,
        project: str = "lightning",
        *,
        id: str | None = None,
        prefix: str = "",
        dir: str | os.PathLike[str] = DEFAULT_DIR,
        backends: Iterable[Backend | str] | None = None,
        **settings: Unpack[_Settings],
    ) -> None:
        super().__init__()
        self._settings: dict[str, Any] = {
            **settings,
            "dir": dir,
            "backends": backends if backends is None else list(backends),
        }
        check_settings(
            project, {key: value for key, value in self._settings.items() if key != "config"}, settings.get("config")
        )
        self._project = project
        self._id = fresh_id() if id is None else check_name("id", id)
        self._prefix = f"{prefix}/" if prefix else ""
        self._run: Run | None = None
        self._original: str | None = None

    def __repr__(self) -> str:
        return f"<AsyncLogger of {self._project}/{self._id}, {self._run!r}>"

    @property
    def experiment(self) -> Run:
        """Return the run, which this opens; on other ranks than 0 an object that takes every call and does nothing."""
        if self._run is None or not self._run.is_open:
            self._run = self._open()
        return self._run

    @property
    def name(self) -> str:
        """Return the project."""
        return self._project

    @property
    def version(self) -> str:
        """Return the run's id."""
        return self._id

    @property
    def save_dir(self) -> str:
        """Return the folder of all runs."""
        return str(expanded(self._settings["dir"]))

    @property
    def root_dir(self) -> str:
        """Return the folder of this project's runs."""
        return os.path.join(self.save_dir, project_directory(self._project))

    @property
    def log_dir(self) -> str:
        """Return the run's directory."""
        return os.path.join(self.root_dir, self._id)

    @_rank_zero_only  # type: ignore[untyped-decorator]  # see above
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Record metrics.

        Args:
            metrics: names to values.
            step: of the record; None for the record's number.
        """
        named = {f"{self._prefix}{key}": value for key, value in metrics.items()} if self._prefix else metrics
        self.experiment.log(named, None if step is None else int(step))

    @_rank_zero_only  # type: ignore[untyped-decorator]  # see above
    def log_hyperparams(
        self, params: Mapping[str, Any] | Namespace | None, metrics: Mapping[str, Any] | None = None, *_: Any, **__: Any
    ) -> None:
        """Add to the run's config and summary.

        Args:
            params: for the config.
            metrics: for the summary, as in Lightning's TensorBoard logger.
        """
        run = self.experiment
        run.config.update(vars(params) if isinstance(params, Namespace) else dict(params or {}))
        run.summary.update(metrics or {})

    def finalize(self, status: str) -> None:
        """End the run as the stage has ended; a later call that logs goes on with it.

        Args:
            status: "success", or any other text for a failure.
        """
        run, self._run = self._run, None
        if run is not None:
            error = None if status == "success" else sys.exception() or RuntimeError(status)
            run.__exit__(type(error) if error else None, error, None)

    def _open(self) -> Run:
        settings = {**self._settings, "id": self._id, "resume": "allow"}
        if (_rank_zero_only.rank or 0) > 0:
            return silent_run(self._project, **settings)
        return _attached(self._original) or init(self._project, **settings)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the run out of the copies for other processes that train: it stays here, and they attach to it."""
        is_open = self._run is not None and self._run.is_open and not isinstance(self._run, DisabledRun)
        return {**self.__dict__, "_run": None, "_original": self.log_dir if is_open else None}


def _attached(path: str | None) -> Run | None:
    """Return the run in this directory, which the process that has made this copy of its logger had open; None where it has ended since."""
    if path is None:
        return None
    try:
        return attach(path, timeout_s=0.0)
    except (NoRunToAttach, NotARun, RunHasEnded):
        return None
