"""Optuna: a callback that records the trials of a study. Runs in the caller, in the threads that run the trials.

    study.optimize(objective, n_trials=100, callbacks=[AsyncCallback("tuning")])

It imports nothing of Optuna, and uses only the objects that it is given.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Unpack

from asynctrack.backends.base import Backend
from asynctrack.client.init_arguments import check_settings
from asynctrack.client.opening import init
from asynctrack.client.run import Run
from asynctrack.client.run_arguments import OF_ONE_RUN, TrackerArguments
from asynctrack.integrations.naming import project_name
from asynctrack.settings import Resume

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial


class _Settings(TrackerArguments, total=False):
    id: str | None
    resume: Resume
    join: bool
    writer: str | None
    expected: int | None


class AsyncCallback:
    """Records each trial of a study when it has ended, in one run, without making the next trial wait.

    A record has the trial's number as its step, and its `value` (several objectives: `values/0`, ...), `state`,
    `duration_s`, `params/NAME`, `user_attrs/NAME` and `intermediate_values/STEP`. Where there is one objective, the
    summary has the best value so far with its trial and params.

    The run opens with the first trial. It ends with `finish`, with the `with` block, or with the process. Each process
    that runs trials of a study records its own, on every rank: in a run of its own, or in one run of all with
    `join=True` and an `id`.

    Args:
        project: of the run. Default: the name of the study.
        value_name: name of the objective's value in records.
        config: of the run, besides the study's name and directions.
        backends: of the run. Default: JSON Lines.
        settings: the other keyword arguments of `asynctrack.init`.

    Attributes:
        run: None before the first trial has ended.

    Raises:
        InvalidSettings: a setting is out of range.
    """

    def __init__(
        self,
        project: str | None = None,
        *,
        value_name: str = "value",
        config: Mapping[str, Any] | None = None,
        backends: Iterable[Backend | str] | None = None,
        **settings: Unpack[_Settings],
    ) -> None:
        self.run: Run | None = None
        self._project = project
        self._value_name = value_name
        self._config = config or {}
        self._settings: dict[str, Any] = {"backends": backends if backends is None else list(backends), **settings}
        self._best: float | None = None
        self._lock = threading.Lock()
        checked = {key: value for key, value in self._settings.items() if key not in OF_ONE_RUN}
        check_settings("optuna" if project is None else project, checked, config)

    def __repr__(self) -> str:
        return f"<AsyncCallback, {self.run!r}>"

    def __call__(self, study: Study, trial: FrozenTrial) -> None:
        """Record a trial; Optuna calls it when the trial has ended."""
        with self._lock:  # parallel trials may end at the same time
            run = self.run = self.run or self._open(study)
            self._remember_best(run, study, trial)
        run.log(self._record(trial), step=trial.number)

    def finish(self) -> None:
        """End the run, if there is one. Returns when everything is delivered, or after `finish_timeout_s`."""
        if self.run is not None:
            self.run.finish()

    def __enter__(self) -> AsyncCallback:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        if self.run is not None:
            self.run.__exit__(kind, error, traceback)

    def _open(self, study: Study) -> Run:
        of_study = {"study": study.study_name, "directions": [direction.name.lower() for direction in study.directions]}
        project = self._project or project_name(study.study_name)
        return init(project, config={**of_study, **self._config}, **self._settings)

    def _record(self, trial: FrozenTrial) -> dict[str, Any]:
        record: dict[str, Any] = {}
        if trial.values is not None:
            one = len(trial.values) == 1
            record = {self._value_name: trial.values[0]} if one else {"values": dict(enumerate(trial.values))}
        record |= {"state": trial.state.name, "params": trial.params, "user_attrs": trial.user_attrs}
        if trial.duration is not None:
            record["duration_s"] = trial.duration.total_seconds()
        if trial.intermediate_values:
            record["intermediate_values"] = trial.intermediate_values
        return record

    def _remember_best(self, run: Run, study: Study, trial: FrozenTrial) -> None:
        if len(study.directions) != 1 or trial.values is None or trial.state.name != "COMPLETE":
            return
        value = trial.values[0]
        sign = 1 if study.directions[0].name == "MAXIMIZE" else -1
        if self._best is None or sign * value > sign * self._best:
            # Of all processes, and of earlier ones. Asked for seldom, since it may ask a database.
            best = study.best_trial
            self._best = best.value
            run.summary.update(best_value=best.value, best_trial=best.number, best_params=best.params)
