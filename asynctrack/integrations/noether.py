"""Noether: its tracker interface (2026.4.0) on a run. Runs in the caller.

    tracker:
      kind: asynctrack.integrations.noether.AsyncTracker
      backends: [jsonl, {kind: tensorboard, flush_s: 5}]

Noether's licence is not open source. So this module is written against its interface alone, can be imported without it,
and is tested against a stand-in of our own. `tracker/config.yaml` and `tracker/summary.yaml` are written by Noether's
base class where Noether is installed, elsewhere by a base class with the same interface.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from asynctrack._system import messages
from asynctrack._system.throttle import ONCE, Throttle
from asynctrack.client.config_file import tracker_arguments
from asynctrack.client.opening import init
from asynctrack.client.run import Run
from asynctrack.errors import AsynctrackError
from asynctrack.integrations.naming import directory_name
from asynctrack.reading.opening import open_run
from asynctrack.settings import DEFAULT_DIR

try:
    from noether.core.schemas.trackers import BaseTrackerConfig
    from noether.core.trackers import BaseTracker
except ImportError:
    from asynctrack.integrations.noether_base import BaseTracker, BaseTrackerConfig

# Counters in each record; they are no metrics.
_COUNTERS: Final = ("epoch", "update", "sample")


class AsyncTrackerConfig(BaseTrackerConfig):  # type: ignore[misc]  # Noether is not there when types are checked
    """Holds the settings below `tracker:`.

    Attributes:
        backends: a list of their names, or of mappings of `kind` and settings; as in `asynctrack.Tracker.from_config`.
        project: of the runs.
        mode: "online", "offline" or "disabled"; None for the environment's, else "online".
        dir: folder of all runs; None for `asynctrack_runs` in the output directory of each.
        settings: other arguments of `asynctrack.init`.
    """

    backends: Any = ("jsonl",)
    project: str = "noether"
    mode: str | None = None
    dir: str | None = None
    settings: dict[str, Any] = {}  # noqa: RUF012  # pydantic and msgspec copy it


class AsyncTracker(BaseTracker):  # type: ignore[misc]  # see above
    """Tracks a Noether training, which does not wait for it.

    Each stage of a training is a run. `log` records the dict as it is then, with Noether's update counter as the step.
    The summary is in the run at once, and survives SIGKILL with all records. `tracker/summary.yaml` is written after
    each change of the summary, so it is there also when the training fails. Where Noether's `tracker/entries.th` is
    missing or cannot be read, `summarize_logvalues` takes the least, greatest and last values from the run. A run that
    is opened again under the same id goes on. On other ranks than 0 no call does anything.

    Args:
        tracker_config: the settings below `tracker:`.
        kwargs: `metric_property_provider` and `path_provider`, for Noether.

    Attributes:
        run: the open run, None where there is none.

    Raises:
        InvalidSettings: a setting cannot be used; all of them are named.
    """

    def __init__(self, tracker_config: AsyncTrackerConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._properties = kwargs.get("metric_property_provider")
        given = {name: getattr(tracker_config, name) for name in ("project", "backends", "mode", "dir")}
        self._settings = tracker_arguments(
            {name: value for name, value in {**given, **tracker_config.settings}.items() if value is not None}
        )
        self._project = self._settings.pop("project")
        self.run: Run | None = None
        self._path: Path | None = None
        self._output = Path()
        self._throttle = Throttle()

    def __repr__(self) -> str:
        return f"<AsyncTracker of {self._project}, {self.run!r}>"

    def summarize_logvalues(self) -> Any:
        """Add `KEY/max` or `KEY/min`, and `KEY/last`, of each scalar to the summary.

        Returns:
            The return value of Noether's `summarize_logvalues` or `update_summary`; None without an open run.
        """
        if self.run is None:
            return None
        if (self._output / "tracker" / "entries.th").exists():
            try:
                return super().summarize_logvalues()
            except Exception as error:  # perhaps torn; the run has the same values
                messages.warn_now(
                    f"asynctrack: tracker/entries.th cannot be read ({error}): the run's values are used instead"
                )
        return self.update_summary(self._extremes())

    def close(self) -> None:
        """Write the summary and finish the run."""
        try:
            super().close()
        except (
            Exception
        ) as error:  # such as a value that YAML cannot hold; the training is over, and the run has the summary
            messages.warn_now(f"asynctrack: tracker/summary.yaml cannot be written ({error}): the run has the summary")
        finally:
            self._close()

    def _init(self, config: Mapping[str, Any], output_uri: str | os.PathLike[str], run_id: str) -> None:
        self._close()  # ends an earlier stage
        self._output = Path(output_uri)
        stage = config.get("stage_name", "default")
        given = {"dir": self._output / DEFAULT_DIR, "name": f"{config.get('run_name')}/{stage}", **self._settings}
        given["config"] = {**config, **(self._settings.get("config") or {})}
        run_id = directory_name(run_id if stage == "default" else f"{run_id}-{stage}")
        self.run = init(self._project, id=run_id, resume="allow", **given)
        self._path = self.run.path
        if self.summary:
            self._update_summary(data=self.summary)

    def _log(self, data: Mapping[str, Any]) -> None:
        run = self.run
        if run is None:
            return self._warn("log() is called without an open run: its data is not recorded; call init() first")
        step = data.get("update")
        run.log(data, step if type(step) is int else None)
        return None

    def _set_summary(self, key: str, value: Any) -> None:
        self._update_summary(data={key: value})

    def _update_summary(self, data: Mapping[str, Any]) -> None:
        if self.run is None:
            return  # `_init` records it later
        try:
            self.run.summary.update(data)
        except AsynctrackError as error:  # such as no room in the queue; the training goes on
            self._warn(f"a part of the summary is not recorded: {error}")
        self._write_summary()

    def _close(self) -> None:
        run, self.run = self.run, None
        if run is not None:
            run.finish()

    def _write_summary(self) -> None:
        """Write the summary's file now.

        Noether writes it only when it closes its tracker, which it does not do when a training fails.
        """
        folder = self._output / "tracker"
        if folder.is_dir():
            with contextlib.suppress(Exception):  # the file is written again at the end, and the run has the summary
                import yaml

                written = folder / ".summary.yaml.new"
                written.write_text(yaml.safe_dump(self.summary))
                os.replace(written, folder / "summary.yaml")

    def _extremes(self) -> dict[str, Any]:
        if self.run is None or self._path is None or not self._path.is_dir():
            return {}
        self.run.flush("journaled")
        found = {}
        for key, column in open_run(self._path).columns().items():
            values = [value for value in column.values if isinstance(value, int | float)]
            if values and key not in _COUNTERS and not self._is_neutral(key):
                name, best = ("max", max) if self._higher_is_better(key) else ("min", min)
                numbers = [value for value in values if not math.isnan(value)]
                found[f"{key}/{name}"] = best(numbers) if numbers else math.nan
                found[f"{key}/last"] = values[-1]
        return found

    def _is_neutral(self, key: str) -> bool:
        asked = getattr(self._properties, "is_neutral_key", None)
        return bool(asked(key)) if callable(asked) else False

    def _higher_is_better(self, key: str) -> bool:
        asked = getattr(self._properties, "higher_is_better", None)
        return bool(asked(key)) if callable(asked) else True

    def _warn(self, text: str) -> None:
        if self._throttle.admit(text, ONCE):
            messages.warn_now(f"asynctrack: {text}")
