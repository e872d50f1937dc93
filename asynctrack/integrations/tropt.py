"""TROPT: trackers for its optimisers. Runs in the caller.

    GCGOptimizer(..., tracker=AsyncTracker("exp", backends=["jsonl", "tensorboard"]))  # was: tracker=JSONTracker("exp")

Each of TROPT's own trackers has a twin here with its signature. A twin writes the same in the background, and also
records the run.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from asynctrack._system import messages
from asynctrack.backends.base import Backend
from asynctrack.backends.console import Console
from asynctrack.backends.files.json_columns import JSON
from asynctrack.backends.plots.live_plot import LivePlot
from asynctrack.backends.trackio import Trackio
from asynctrack.backends.wandb import WandB
from asynctrack.integrations.tropt_base import DEFAULT_EXPERIMENT_NAME, AsyncTracker

__all__ = [
    "AsyncTracker",
    "DictTracker",
    "DummyTracker",
    "JSONTracker",
    "LiveLossPlotTracker",
    "PrintTracker",
    "TrackioTracker",
    "WandbTracker",
]


class DummyTracker(AsyncTracker):
    """Records nothing."""

    def __init__(
        self,
        experiment_name: str = DEFAULT_EXPERIMENT_NAME,
        experiment_config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(experiment_name, experiment_config, mode="disabled")


class DictTracker(AsyncTracker):
    """Keeps all logged data in lists and dicts, and records it.

    Attributes:
        records: of the last run: the argument of each `log`.
        history: of the last run: the values of each key.
        config: of the last run.
        summary: of the last run.
    """

    def _init(self, config: Mapping[str, Any] | None = None) -> None:
        super()._init(config)
        self.records: list[dict[str, Any]] = []
        self.history: defaultdict[str, list[Any]] = defaultdict(list)
        self.config: Mapping[str, Any] = config or {}
        self.summary: Mapping[str, Any] = {}

    def _log(self, data: Mapping[str, Any]) -> None:
        self.records.append(dict(data))
        for key, value in data.items():
            self.history[key].append(value)
        super()._log(data)

    def _finish(self, summary: Mapping[str, Any] | None = None) -> None:
        self.summary = summary or {}
        super()._finish(summary)


class JSONTracker(AsyncTracker):
    """Writes each run to a JSON file in TROPT's layout. The file is there, and whole, while the run goes on.

    A second run does not overwrite the file but has one of its own beside it: `exp-2.json`.

    Args:
        experiment_name: the runs' project.
        experiment_config: of all its runs.
        log_file_path: of the file; `{experiment_name}` stands for that.

    Attributes:
        log_file_path: of the first run's file.
    """

    def __init__(
        self,
        experiment_name: str = DEFAULT_EXPERIMENT_NAME,
        experiment_config: Mapping[str, Any] | None = None,
        log_file_path: str = "./logs/{experiment_name}.json",
    ) -> None:
        self.log_file_path: str = log_file_path.format(experiment_name=experiment_name)
        path = os.path.abspath(os.path.expanduser(self.log_file_path))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        file = path.replace("{", "{{").replace("}", "}}")  # the backend's path has placeholders of its own
        super().__init__(experiment_name, experiment_config, backends=[JSON(file=file)])


class WandbTracker(AsyncTracker):
    """Sends each run to W&B. A tensor of several items is left out, as in TROPT.

    Args:
        experiment_name: the runs' name at W&B.
        experiment_config: of all its runs.
        project_name: at W&B.
        wandb_kwargs: the arguments of `wandb.init` that are fields of `asynctrack.WandB`; others are ignored with a
            warning.
    """

    def __init__(
        self,
        experiment_name: str = DEFAULT_EXPERIMENT_NAME,
        experiment_config: Mapping[str, Any] | None = None,
        project_name: str = DEFAULT_EXPERIMENT_NAME,
        **wandb_kwargs: Any,
    ) -> None:
        self.project_name = project_name
        settings = _fields_of(WandB, "WandbTracker", wandb_kwargs)
        backend = WandB(project=project_name, **{"name": experiment_name, **settings})
        super().__init__(experiment_name, experiment_config, name=experiment_name, backends=[backend])

    def _log(self, data: Mapping[str, Any]) -> None:
        super()._log(_without_tensors(data))


class TrackioTracker(AsyncTracker):
    """Writes each run to Trackio, with its summary in a last record, as `summary/KEY`.

    A tensor of several items is left out.

    Args:
        experiment_name: the runs' name.
        experiment_config: of all its runs.
        project_name: in Trackio.
        space_id: ignored with a warning: `server_url` is the address of a Trackio server.
        trackio_kwargs: fields of `asynctrack.Trackio`; others are ignored with a warning.
    """

    def __init__(
        self,
        experiment_name: str = DEFAULT_EXPERIMENT_NAME,
        experiment_config: Mapping[str, Any] | None = None,
        project_name: str = DEFAULT_EXPERIMENT_NAME,
        space_id: str | None = None,
        **trackio_kwargs: Any,
    ) -> None:
        self.project_name = project_name
        self.space_id = space_id
        settings = _fields_of(Trackio, "TrackioTracker", {"space_id": space_id, **trackio_kwargs})
        backend = Trackio(project=project_name, **settings)
        super().__init__(experiment_name, experiment_config, name=experiment_name, backends=[backend])

    def _log(self, data: Mapping[str, Any]) -> None:
        super()._log(_without_tensors(data))

    def _finish(self, summary: Mapping[str, Any] | None = None) -> None:
        if summary and not self._interrupted:
            super()._log({f"summary/{key}": value for key, value in summary.items()})
        super()._finish(summary)


class PrintTracker(AsyncTracker):
    """Prints each step, from a thread of its own, so that a slow terminal does not slow down the optimiser.

    Args:
        experiment_name: the runs' project.
        print_keys: names of the values to print.

    Attributes:
        history: the values of each key, of all runs.
    """

    def __init__(
        self,
        experiment_name: str = DEFAULT_EXPERIMENT_NAME,
        print_keys: Iterable[str] = ("loss", "best_trigger_str"),
    ) -> None:
        self.print_keys: tuple[str, ...] = tuple(print_keys)
        self.history: defaultdict[str, list[Any]] = defaultdict(list)
        super().__init__(experiment_name, backends=[Console(style="print", keys=list(self.print_keys))])

    def _log(self, data: Mapping[str, Any]) -> None:
        for key, value in data.items():
            self.history[key].append(value)
        super()._log(data)


class LiveLossPlotTracker(AsyncTracker):
    """Shows curves by livelossplot, drawn in another process.

    In a notebook they are below its cell, elsewhere in the run's `plots/live.png`.

    Args:
        experiment_name: the runs' project.
        focus_on_metrics: names of the metrics to show.
    """

    def __init__(
        self,
        experiment_name: str = DEFAULT_EXPERIMENT_NAME,
        focus_on_metrics: Iterable[str] = ("loss",),
    ) -> None:
        self.focus_on_metrics: tuple[str, ...] = tuple(focus_on_metrics)
        super().__init__(experiment_name, backends=[LivePlot(keys=list(self.focus_on_metrics))])


def _without_tensors(data: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out tensors of more than one item."""
    return {key: value for key, value in data.items() if not hasattr(value, "numel") or value.numel() == 1}


def _fields_of(backend: type[Backend], tracker: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a backend has; warn about the others, which are ignored."""
    known = set(backend.__struct_fields__)
    for name in (name for name, value in given.items() if name not in known and value is not None):
        messages.warn_once(f"asynctrack: {tracker}({name}=...) is not supported, and ignored")
    return {key: value for key, value in given.items() if key in known}
