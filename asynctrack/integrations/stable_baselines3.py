"""Stable-Baselines3: an output of its logger, and a callback that adds it to a training. Runs in the caller.

    model.learn(100_000, callback=AsyncCallback("ppo"))

The logger's other outputs stay. To have ours alone: `model.set_logger(Logger(folder=None,
output_formats=[AsyncWriter("ppo")]))`.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from typing import Any, Final, Unpack

import numpy

from asynctrack.backends.base import Backend
from asynctrack.client.init_arguments import check_settings
from asynctrack.client.run import Run
from asynctrack.client.run_arguments import RunArguments, TrackerArguments
from asynctrack.errors import FrameworkMissing
from asynctrack.integrations.figures import draw
from asynctrack.integrations.ranks import init_on_first
from asynctrack.integrations.unfinished import NeverFinished, fail_with
from asynctrack.records.values import image as values

try:
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.logger import Figure, HParam, Image, KVWriter, Video
except ImportError as _error:
    raise FrameworkMissing("Stable-Baselines3", "stable-baselines3>=2.7", _error) from _error

_NEVER: Final = "learn() did not come to its end"
# Types of a model's settings; its other attributes are parts of it.
_PLAIN: Final = (int, float, str, bool)
# Such attributes that are no settings: how far a training is, and when it began.
_PROGRESS: Final = frozenset({"num_timesteps", "start_time"})


class AsyncWriter(KVWriter):  # type: ignore[misc]  # known only where Stable-Baselines3 is
    """Records each dump of its logger as one record, without making the training wait.

    Figures and images are images; videos and tensors are arrays; hyperparameters go to the run's config. A run of its
    own is that of rank 0: ranks above record nothing, or into the same run with `join=True`.

    Args:
        run: to record into, which stays open when the writer is closed; or the project of a run of its own.
        excluded: names that are excluded from one of these formats are left out here. Default: those of "asynctrack".
        backends: of a run of its own. Default: JSON Lines.
        settings: the other keyword arguments of `asynctrack.init`, for a run of its own.

    Attributes:
        run: the run that is recorded into.

    Raises:
        AsynctrackError: a run of its own cannot be opened.
    """

    def __init__(
        self,
        run: Run | str,
        *,
        excluded: Iterable[str] = ("asynctrack",),
        backends: Iterable[Backend | str] | None = None,
        **settings: Unpack[RunArguments],
    ) -> None:
        self._owns = isinstance(run, str)
        self.run: Run = init_on_first(run, backends=backends, **settings) if isinstance(run, str) else run
        self._excluded = frozenset(excluded)

    def __repr__(self) -> str:
        return f"<AsyncWriter, {self.run!r}>"

    def write(self, key_values: Mapping[str, Any], key_excluded: Mapping[str, tuple[str, ...]], step: int = 0) -> None:
        """Record the values of a dump.

        Args:
            key_values: names to values.
            key_excluded: the formats that each name is excluded from.
            step: of the record.
        """
        record: dict[str, Any] = {}
        for key, value in key_values.items():
            if not self._excluded.isdisjoint(key_excluded.get(key) or ()):
                continue
            if isinstance(value, HParam):
                self.run.config.update(value.hparam_dict)
                record.update(value.metric_dict)
            else:
                record[key] = _shown(value)
        self.run.log(record, step)

    def close(self) -> None:
        """End the run, if it is the writer's own."""
        if self._owns:
            self.run.finish()


class AsyncCallback(BaseCallback):  # type: ignore[misc]  # known only where Stable-Baselines3 is
    """Records each `learn` in a run of its own, beside the outputs that its logger has.

    The run's config has the model's settings. Ranks above 0 record nothing. A `learn` that raises leaves a failed run; the run ends when the next
    `learn` begins, when the callback is garbage-collected, or when the process ends.

    Args:
        project: of the runs.
        verbose: as in Stable-Baselines3.
        excluded: as in `AsyncWriter`.
        config: of the runs, besides the model's settings.
        backends: of the runs. Default: JSON Lines.
        settings: the other keyword arguments of `asynctrack.init`.

    Attributes:
        run: the one that is open, or was last; None before the first `learn`.

    Raises:
        InvalidSettings: a setting is out of range.
    """

    def __init__(
        self,
        project: str,
        verbose: int = 0,
        *,
        excluded: Iterable[str] = ("asynctrack",),
        config: Mapping[str, Any] | None = None,
        backends: Iterable[Backend | str] | None = None,
        **settings: Unpack[TrackerArguments],
    ) -> None:
        super().__init__(verbose)
        self._settings: dict[str, Any] = {"backends": backends, **settings}
        check_settings(project, self._settings, config)
        self.run: Run | None = None
        self._project = project
        self._excluded = frozenset(excluded)
        self._config = config or {}
        self._writer: AsyncWriter | None = None
        self._unfinished: weakref.finalize[Any, Any] | None = None

    def _on_training_start(self) -> None:
        self._end(NeverFinished(_NEVER))
        config = {**_settings_of(self.model), **self._config}
        self.run = init_on_first(self._project, config=config, **self._settings)
        self._unfinished = fail_with(self, self.run, _NEVER)
        self._writer = AsyncWriter(self.run, excluded=self._excluded)
        self.logger.output_formats.append(self._writer)

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self._end(None)

    def _end(self, error: Exception | None) -> None:
        """End the open run, if there is one."""
        if self._unfinished is None or self._unfinished.detach() is None:
            return
        assert self.run is not None
        outputs = self.logger.output_formats
        outputs[:] = [output for output in outputs if output is not self._writer]
        self.run.__exit__(type(error) if error else None, error, None)


def _settings_of(model: Any) -> dict[str, Any]:
    """Return the numbers and texts that a model was made with."""
    names = {"algorithm": type(model).__name__, "policy": type(model.policy).__name__}
    plain = {key: value for key, value in vars(model).items() if isinstance(value, _PLAIN) and key[0] != "_"}
    return {**names, **{key: value for key, value in plain.items() if key not in _PROGRESS}}


def _shown(value: Any) -> Any:
    """Return a value as backends show it."""
    if isinstance(value, Figure):
        return draw(value.figure, close=value.close)
    if isinstance(value, Image):
        return _image(value.image, value.dataformats)
    return value.frames if isinstance(value, Video) else value


def _image(pixels: Any, axes: str) -> values.Image:
    """Build an image from pixels with these dimensions: H, W, and perhaps C for colours."""
    if isinstance(pixels, str):  # a path
        return values.Image(pixels)
    array = numpy.asarray(pixels.detach().cpu() if hasattr(pixels, "detach") else pixels)
    return values.Image(array.transpose([axes.index(axis) for axis in "HWC" if axis in axes]))
