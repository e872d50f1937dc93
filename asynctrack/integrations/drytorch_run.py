"""DRYTorch's run: record its events in a run, and load its metrics from there. Runs in the caller.

Each event becomes the following; the step is the epoch:

    StartExperiment                        opens the run: config and tags; a resumed experiment goes on with its run
    Metric                                 a record: MODEL/SOURCE-METRIC, the name that DRYTorch's own TensorBoard and W&B trackers give it
    LearningRate                           a record: MODEL/SOURCE-learning_rate, MODEL/SOURCE-scheduler
    ModelRegistration, ActorRegistration   config: `drytorch/models/NAME`, `drytorch/actors/NAME`
    StartTraining, EndTraining, TerminatedTraining, StartTest, EndTest, SaveModel, LoadModel
                                           a record: `event/name`, and its fields as text
    StartEpoch, EndEpoch, IterateBatch     nothing: the other events have the same facts
    StopExperiment                         ends the run; failed, when an exception ended the experiment

The config has the metrics of each source as `drytorch/metrics/MODEL/SOURCE`: the records' names alone may be ambiguous.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from asynctrack.client.opening import init
from asynctrack.client.run import Run
from asynctrack.errors import FrameworkMissing, RunExists, RunIsRunning
from asynctrack.integrations.naming import directory_name, project_name
from asynctrack.reading.opening import open_run
from asynctrack.settings import DEFAULT_DIR

try:
    from drytorch.core import log_events
    from drytorch.utils.repr_utils import recursive_repr
except ImportError as _error:
    raise FrameworkMissing("DRYTorch", "drytorch==0.1.0rc11", _error) from _error

_METRICS: Final = "drytorch/metrics/"
# Depth of a user's config, as in DRYTorch's own tracker for W&B.
_CONFIG_DEPTH: Final = 1000
_AS_EVENTS: Final = (
    log_events.StartTrainingEvent,
    log_events.EndTrainingEvent,
    log_events.TerminatedTrainingEvent,
    log_events.StartTestEvent,
    log_events.EndTestEvent,
    log_events.SaveModelEvent,
    log_events.LoadModelEvent,
)

History = tuple[list[int], dict[str, list[float]]]
"""Epochs, and the values of each metric in them."""


class ExperimentRun:
    """Holds the run of an experiment that has started.

    Args:
        event: of its start.
        project: of the run; None for the experiment's name.
        settings: the arguments of `asynctrack.init` that the experiment does not give.

    Attributes:
        run: the run.

    Raises:
        AsynctrackError: the run cannot be opened.
    """

    def __init__(
        self, event: log_events.StartExperimentEvent, project: str | None, settings: Mapping[str, Any]
    ) -> None:
        self.run: Run = _open(event, project or project_name(event.exp_name), settings)
        self._epoch = 0
        self._metrics = _declared(self.run.config)

    def record(self, event: log_events.Event) -> None:
        """Record an event.

        Raises:
            AsynctrackError: there is no room for it.
        """
        self._epoch = getattr(event, "epoch", getattr(event, "start_epoch", self._epoch))
        match event:
            case log_events.MetricEvent():
                self._declare(event)
                self._log(event, event.metrics)
            case log_events.LearningRateEvent():
                about = {"learning_rate": event.base_lr, "scheduler": event.scheduler_name}
                self._log(event, {name: value for name, value in about.items() if value is not None})
            case log_events.ModelRegistrationEvent():
                about = {"created_at": str(event.model_ts), "architecture": str(event.architecture_repr)}
                self.run.config[f"drytorch/models/{event.model_name}"] = about
            case log_events.ActorRegistrationEvent():
                about = {"created_at": str(event.actor_ts), "model": event.model_name, "metadata": event.metadata}
                self.run.config[f"drytorch/actors/{event.actor_name}"] = about
            case _ if isinstance(event, _AS_EVENTS):
                about = {"name": type(event).__name__.removesuffix("Event"), **vars(event)}
                self.run.log(
                    {"event": {key: str(value) for key, value in about.items()}}, self._epoch
                )  # as texts, so that they are not drawn as curves

    def _log(self, event: Any, values: Mapping[str, Any]) -> None:
        tags = {f"{event.source_name}-{name}": value for name, value in values.items()}
        self.run.log({event.model_name: tags}, event.epoch)

    def _declare(self, event: log_events.MetricEvent) -> None:
        key = event.model_name, event.source_name
        known = self._metrics.setdefault(key, [])
        if fresh := [name for name in event.metrics if name not in known]:
            known += fresh
            about = {"model": event.model_name, "source": event.source_name, "metrics": list(known)}
            self.run.config[f"{_METRICS}{event.model_name}/{event.source_name}"] = about


def load(path: Path, model_name: str, max_epoch: int) -> dict[str, History]:
    """Load the history of each of a model's sources from the directory of a run.

    Where epochs were trained again, after a resume, only the last values count. All metrics of a source are as long as
    its epochs: NaN where one has no value.

    Args:
        path: of the run.
        model_name: of the model.
        max_epoch: the last epoch to take, -1 for all.

    Returns:
        Epochs and values by source.
    """
    reader = open_run(path)
    declared = {source: names for (model, source), names in _declared(reader.config).items() if model == model_name}
    histories: dict[str, History] = {source: ([], {}) for source in declared}
    for record in reader.records():
        tags = record.data.get(model_name)
        if isinstance(tags, Mapping):
            for source, names in declared.items():
                if values := {name: tags[tag] for name in names if (tag := f"{source}-{name}") in tags}:
                    _add(histories[source], record.step, values, max_epoch)
    return histories


def _add(history: History, epoch: int, values: Mapping[str, float], max_epoch: int) -> None:
    epochs, columns = history
    if epochs and epochs[-1] >= epoch:
        epochs.clear()
        columns.clear()
    if max_epoch == -1 or epoch <= max_epoch:
        for name in values:
            columns.setdefault(name, [math.nan] * len(epochs))
        for name, column in columns.items():
            column.append(float(values.get(name, math.nan)))
        epochs.append(epoch)


def _declared(config: Mapping[str, Any]) -> dict[tuple[str, str], list[str]]:
    """Return the metrics of each model and source."""
    found = [value for key, value in config.items() if key.startswith(_METRICS)]
    return {(about["model"], about["source"]): list(about["metrics"]) for about in found}


def _open(event: log_events.StartExperimentEvent, project: str, settings: Mapping[str, Any]) -> Run:
    opening = functools.partial(
        init,
        project,
        name=f"{event.exp_name}/{event.run_id}",
        config={**_config_of(event.config), **({"tags": list(event.tags)} if event.tags else {})},
        resume="allow" if event.resumed else "never",
        **{"dir": Path(event.par_dir) / DEFAULT_DIR, **settings},
    )
    run_id = directory_name(event.run_id)
    try:
        return opening(id=run_id)
    except (RunExists, RunIsRunning):  # DRYTorch's ids are times in seconds, so two may be the same
        return opening(id=f"{run_id}-{os.urandom(3).hex()}")


def _config_of(config: object) -> dict[str, Any]:
    if config is None or isinstance(config, Mapping):
        return dict(config or {})
    plain = recursive_repr(config, depth=_CONFIG_DEPTH)
    return plain if isinstance(plain, dict) else {"config": plain}
