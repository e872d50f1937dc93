"""W&B's session: hold one run of its SDK, from `init` to its end. All calls come from one thread of the sink's.

The SDK's `run.step` and `step=` are never used: `run.step` waits for `wandb-core` for up to 30 s, and with `step=` W&B
drops rows that come late.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from asynctrack.backends.base import ActionRequired, Outcome, Retry
from asynctrack.backends.wandb import core as core
from asynctrack.backends.wandb.files import WandbFile, offline_files
from asynctrack.backends.wandb.media import as_objects, has_tables
from asynctrack.backends.wandb.rows import STEP

if TYPE_CHECKING:
    from asynctrack.backends.wandb.settings import WandBSettings

# Seconds that opening a run, closing it, and a question to the server may take.
INIT_TIMEOUT_S: Final = 30
FINISH_TIMEOUT_S: Final = 20
ASK_TIMEOUT_S: Final = 5.0

# A library that logs for others wants no streams, hooks, statistics or files that nobody asked for. The intervals must be whole seconds: otherwise W&B takes
# its default, 15. The transaction log keeps rows that were not sent. Here the journal does that, and sending the log later would double rows.
_SETTINGS: Final[dict[str, Any]] = {
    "console": "off",
    "silent": True,
    "symlink": False,
    "disable_git": True,
    "disable_code": True,
    "disable_job_creation": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
    "x_file_stream_transmit_interval": 1,
    "x_file_stream_retry_wait_max_seconds": 15,
    "x_transaction_log_flush_interval": 1,
    "init_timeout": INIT_TIMEOUT_S,
    "finish_timeout": FINISH_TIMEOUT_S,
    "finish_timeout_raises": True,
}
_EXIT_CODES: Final = {"finished": 0, "failed": 1, "crashed": 255, "preempted": 1}
# W&B computes `starting_step` from the same line.
_LAST_ROW: Final = """
query RunResumeStatus($project: String, $entity: String, $name: String!) {
    model(name: $project, entityName: $entity) { bucket(name: $name, missingOk: true) { historyTail } }
}
"""

_log = logging.getLogger("asynctrack.delivery")
_open: weakref.WeakValueDictionary[str, Session] = weakref.WeakValueDictionary()


class Session:
    """An open run of the SDK.

    Args:
        settings: of the backend.
        run_id: at W&B.
        directory: of the run.
        facts: further arguments of `wandb.init`.

    Attributes:
        rows: the number of rows at W&B, or in an offline run's files, when this was opened.

    Raises:
        Retry, ActionRequired: the run cannot be opened now.
    """

    def __init__(self, settings: WandBSettings, run_id: str, directory: Path, facts: Mapping[str, Any]) -> None:
        self._id = run_id
        self._directory = directory
        self._offline = settings.mode == "offline"
        self._make_way()
        self._files = [WandbFile(path) for path in offline_files(directory, run_id)] if self._offline else []
        self._wandb = wandb = core.library()
        try:
            with core.hooks_kept():
                if not self._offline:
                    core.find_key(settings.base_url)
                self._core = core.start()
                self._run = wandb.init(
                    id=run_id,
                    mode=settings.mode,
                    dir=str(directory),
                    reinit="create_new",
                    settings=wandb.Settings(**self._settings(settings)),
                    **facts,
                )
        except BaseException as error:  # also SystemExit, by which wandb would end the process
            self.leave()
            raise core.classify_error(error) from error
        _open[run_id] = self
        self._run.define_metric("*", step_metric=STEP, step_sync=False)
        if self._offline:
            self.rows: int = self.count()
            self._files.append(WandbFile(Path(self._run.settings.sync_file)))
        else:
            self.rows = int(self._run.starting_step)
            self._api = importlib.import_module("wandb.apis.public.service_api").ServiceApi(self._run.settings)

    def __repr__(self) -> str:
        return f"<Session of {self._id} in {self._directory}>"

    @property
    def lives(self) -> bool:
        """Return whether its `wandb-core` is alive."""
        return core.is_alive(self._core)

    def define(self, metrics: Mapping[str, Mapping[str, Any]]) -> None:
        """Pass on `define_metric`, except for aggregates, which we compute ourselves."""
        for name, facts in metrics.items():
            told = {"step_metric": STEP, **{key: facts[key] for key in ("step_metric", "hidden") if key in facts}}
            summary = "none" if "summary" in facts else None
            try:
                self._run.define_metric(name, **told, step_sync=False, summary=summary)
            except (
                self._wandb.errors.Error,
                TypeError,
                ValueError,
            ) as error:  # the metric is then drawn like the others
                _log.warning("W&B does not take define_metric(%r): %s", name, error)

    def log(self, row: dict[str, Any]) -> None:
        """Hand a row to `wandb-core`; one call is one row."""
        try:
            self._run.log(as_objects(row))
        except Exception as error:
            if not has_tables(row) or not isinstance(core.classify_error(error), ActionRequired):
                raise
            _log.info("%s takes no tables, which become pages: %s", self._id, error)
            self._run.log(as_objects(row, tables=False))

    def label(self, fresh: Mapping[str, Any]) -> None:
        """Give the run another name, other tags or notes."""
        for label in ("name", "tags", "notes"):
            if label in fresh:
                setattr(self._run, label, fresh[label])

    def configure(self, config: dict[str, Any]) -> None:
        """Change the run's config."""
        self._run.config.update(config, allow_val_change=True)

    def summarise(self, summary: dict[str, Any]) -> None:
        """Change the run's summary."""
        self._run.summary.update(summary)

    def count(self) -> int:
        """Return the number of rows at W&B, or in an offline run's files, by now.

        Raises:
            Retry, ActionRequired: W&B does not answer.
        """
        if self._offline:
            return sum(file.rows() for file in self._files)
        names = {"entity": self._run.entity, "project": self._run.project, "name": self._id}
        try:
            bucket = (self._api.execute_graphql(_LAST_ROW, names, timeout=ASK_TIMEOUT_S)["model"] or {}).get("bucket")
        except Exception as error:  # any network error, or an answer of W&B's
            raise core.classify_error(error) from error
        tail = json.loads((bucket or {}).get("historyTail") or "[]")
        return int(json.loads(tail[-1]).get("_step", -1)) + 1 if tail else 0

    def sync(self) -> None:
        """Make offline files survive a power cut."""
        for file in self._files[-1:]:
            file.sync()

    def finish(self, outcome: Outcome) -> None:
        """End the run at W&B.

        Raises:
            Retry, ActionRequired: it has not ended in time.
        """
        try:
            with core.hooks_kept():
                if outcome == "preempted":
                    self._run.mark_preempting()
                self._run.finish(exit_code=_EXIT_CODES.get(outcome, 1))
        except BaseException as error:
            self.leave()
            raise core.classify_error(error) from error
        self._forget()

    def leave(self) -> None:
        """Leave the run without ending it: rows that are not yet at W&B stay unsent."""
        self._forget()
        if not _open:
            core.kill()
            return
        with contextlib.suppress(Exception):  # the service is gone, or was never started
            setup = importlib.import_module("wandb.sdk.wandb_setup").singleton()
            setup.assert_service().inform_finish(run_id=self._id)

    def _forget(self) -> None:
        if _open.get(self._id) in (self, None):
            _open.pop(self._id, None)

    def _make_way(self) -> None:
        """Make way for this run where it is open here already.

        A sink that was dropped without `close` may hold it; then the `wandb-core` is killed.

        Raises:
            Retry: another run has the same id at W&B.
        """
        other = _open.get(self._id)
        if other is not None and other._directory != self._directory:
            raise Retry(
                f"another run of this process is open at W&B under the id {self._id!r}; this one waits for its end"
            )
        if other is not None:
            core.kill()
            other._forget()

    def _settings(self, settings: WandBSettings) -> dict[str, Any]:
        chosen = {**_SETTINGS, "x_skip_transaction_log": not self._offline}
        if settings.base_url is not None:
            chosen["base_url"] = settings.base_url
        if (pid := settings.watched_pid()) is not None:
            wanted = {"x_disable_stats": False, "x_disable_machine_info": False, "x_stats_pid": pid}
            chosen.update(wanted, x_stats_track_process_tree=True)
        if self._offline:
            chosen["x_sync_dir_suffix"] = f"-{len(offline_files(self._directory, self._id)):04}"
        return {**chosen, **settings.settings}
