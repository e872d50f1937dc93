"""Hugging Face's Trainer: a callback that records its logs. Runs in the caller.

Trainer(..., callbacks=[AsyncCallback("finetuning")])
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from typing import Any, Final, Unpack

from asynctrack.backends.base import Backend
from asynctrack.client.init_arguments import check_settings
from asynctrack.client.run import Run
from asynctrack.client.run_arguments import OF_ONE_RUN, RunArguments
from asynctrack.errors import FrameworkMissing
from asynctrack.integrations.ranks import init_on_first
from asynctrack.integrations.unfinished import NeverFinished, fail_with

try:
    from transformers import TrainerCallback
except ImportError as _error:
    raise FrameworkMissing("transformers", "transformers>=4.50", _error) from _error

_NEVER: Final = "train() did not come to its end"
_PREFIXES: Final = ("eval_", "test_")


class AsyncCallback(TrainerCallback):  # type: ignore[misc]  # known only where transformers is
    """Records each `train` in a run of its own, without making the training wait.

    The names are those of the Trainer's own trackers: `train/loss`, `eval/loss`, `test/loss`. The step is its global
    step, the config its arguments and the model's config. A later evaluation or prediction goes on with the run. A
    `train` that raises leaves a failed run; the run ends when the next `train` begins, when the callback is
    garbage-collected, or when the process ends. Processes other than the first record nothing; with `join=True` they
    join the run, for values of your own.

    Args:
        project: of the runs.
        backends: of the runs. Default: JSON Lines.
        settings: the other keyword arguments of `asynctrack.init`.

    Attributes:
        run: the one that is open, or was last; None before the first.

    Raises:
        InvalidSettings: a setting is out of range.
    """

    def __init__(
        self,
        project: str = "transformers",
        *,
        backends: Iterable[Backend | str] | None = None,
        **settings: Unpack[RunArguments],
    ) -> None:
        self._settings: dict[str, Any] = {**settings, "backends": backends if backends is None else list(backends)}
        checked = {key: value for key, value in self._settings.items() if key not in OF_ONE_RUN}
        check_settings(project, checked, settings.get("config"))
        self._project = project
        self._training = False
        self.run: Run | None = None
        self._unfinished: weakref.finalize[Any, Any] | None = None

    def __repr__(self) -> str:
        return f"<AsyncCallback of {self._project}, {self.run!r}>"

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open a run."""
        self._end(NeverFinished(_NEVER))
        self._open(args, state, kwargs.get("model"))
        self._training = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        """Record the Trainer's logs."""
        if logs:
            self._record(args, state, logs, kwargs.get("model"))

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the run, where the evaluation is no part of a training; its metrics have been logged."""
        if not self._training:
            self._end(None)

    def on_predict(self, args: Any, state: Any, control: Any, metrics: Mapping[str, Any], **kwargs: Any) -> None:
        """Record the metrics of a prediction, which the Trainer does not log."""
        if metrics:
            self._record(args, state, metrics, kwargs.get("model"))
            self.on_evaluate(args, state, control)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Finish the run."""
        self._training = False
        self._end(None)

    def _record(self, args: Any, state: Any, values: Mapping[str, Any], model: Any) -> None:
        if self.run is None:
            self._open(args, state, model)
        elif self._unfinished is None or not self._unfinished.alive:  # after a training: the same run goes on
            self._init(state, {**self._settings, "id": self.run.id, "resume": "must"})
        assert self.run is not None
        if state.is_world_process_zero:  # the Trainer's values are the same on all ranks
            self.run.log({_name(key): value for key, value in values.items()}, int(state.global_step))

    def _open(self, args: Any, state: Any, model: Any) -> None:
        # The arguments of other ranks, such as `local_rank`, are not the run's.
        own = {**args.to_sanitized_dict(), **_config_of(model)} if state.is_world_process_zero else {}
        config = {**own, **(self._settings.get("config") or {})}
        name = getattr(state, "trial_name", None) or getattr(args, "run_name", None)
        self._init(state, {"name": name, **self._settings, "config": config})

    def _init(self, state: Any, settings: Mapping[str, Any]) -> None:
        self.run = init_on_first(self._project, first=bool(state.is_world_process_zero), **settings)
        self._unfinished = fail_with(self, self.run, _NEVER)

    def _end(self, error: Exception | None) -> None:
        if self._unfinished is None or self._unfinished.detach() is None:
            return
        assert self.run is not None
        self.run.__exit__(type(error) if error else None, error, None)


def _name(key: str) -> str:
    """Return the name that the Trainer's own trackers use."""
    for prefix in _PREFIXES:
        if key.startswith(prefix):
            return f"{prefix[:-1]}/{key.removeprefix(prefix)}"
    return f"train/{key}"


def _config_of(model: Any) -> dict[str, Any]:
    to_dict = getattr(getattr(model, "config", None), "to_dict", None)
    return {} if to_dict is None else {"model": to_dict()}
