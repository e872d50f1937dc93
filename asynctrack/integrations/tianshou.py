"""Tianshou: a logger for its trainers, and a factory of loggers for its high-level experiments. Runs in the caller.

    logger = AsyncLogger("log/dqn", save_interval=1)  # was: TensorboardLogger(SummaryWriter("log/dqn"), save_interval=1)

A log directory has the same contents as before: an event file for each training, with the same tags, steps and values,
which Tianshou's own loaders and TensorBoard read. Beside it are the runs, LOG_DIR/tianshou/RUN_ID, from which this
logger restores: all points, not a sample of 10,000.

It works with Tianshou 2.0 and 1.2, whose names differ. The files have the names of the installed version. A caller may
use the names of both: `train_interval`, `log_train_data`, `last_log_train_step`, `DataScope.TRAIN`.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from numbers import Number
from typing import Any, Final, Unpack

import numpy

from asynctrack.backends.base import Backend
from asynctrack.backends.files.jsonl import JSONLines
from asynctrack.backends.tensorboard import TensorBoard
from asynctrack.client.init_arguments import Config
from asynctrack.client.run import Run
from asynctrack.client.run_arguments import RunOptions
from asynctrack.errors import FrameworkMissing
from asynctrack.integrations.figures import draw, is_figure
from asynctrack.integrations.ranks import init_on_first
from asynctrack.integrations.restored import PROJECT, last_steps, nested, numbers_in, runs_in
from asynctrack.records.values import Histogram

try:
    from tianshou.highlevel.logger import LoggerFactory
    from tianshou.utils import BaseLogger, LazyLogger
except ImportError as _error:
    raise FrameworkMissing("Tianshou", "tianshou>=1.2", _error) from _error

__all__ = ["AsyncLogger", "AsyncLoggerFactory", "DataScope", "LazyLogger"]

# Types of a trainer's values that a record may hold: all numbers, Python's bool included but not NumPy's.
_LOGGED: Final = (int, float, Number, numpy.number, numpy.ndarray)
# Types of nearly all values, which need no second look.
_PLAIN: Final = frozenset({int, float})
_OLD: Final = not hasattr(BaseLogger, "log_training_data")
_TRAINING: Final = "train" if _OLD else "training"
_UPDATE_STEP: Final = "gradient_step" if _OLD else "update_step"


class _Settings(RunOptions, total=False):
    config: Config | None


class DataScope(StrEnum):
    """Topics of a record. TRAIN and TRAINING are one; its value is the installed Tianshou's name."""

    TRAINING = _TRAINING
    TRAIN = _TRAINING
    TEST = "test"
    UPDATE = "update"
    INFO = "info"


class AsyncLogger(BaseLogger):  # type: ignore[misc]  # known only where Tianshou is
    """Records a trainer's data in a run of its own, without making the trainer wait.

    Each call of `write` is a record, at its step. The record has the step under the name of its type, and each value as
    SCOPE/NAME. Arrays are histograms and Matplotlib's figures images, as they are at the call. Ranks above 0 record
    nothing.

    Args:
        log_dir: folder of event files and runs.
        training_interval: steps in the environment from one record of the training to the next, at least.
        test_interval: steps in the environment from one record of the tests to the next, at least.
        update_interval: steps of the optimiser from one record of the updates to the next.
        info_interval: epochs from one record of the epochs to the next.
        save_interval: epochs from one call of the trainer's `save_checkpoint_fn` to the next; None for no call.
        exclude_arrays: leave arrays out of a trainer's data.
        run_id: of the run. A run that is there goes on. Default: a fresh id.
        name: of the run, for people. Default: the last part of `log_dir`.
        backends: of the run. Default: JSON Lines, and an event file in `log_dir`.
        train_interval: `training_interval` by its old name.
        settings: the other keyword arguments of `asynctrack.init`, such as `config` and `when_full`.

    Attributes:
        run: the run that is recorded into.
        log_dir: as given, absolute.
        save_interval: as given.
        last_save_step: epoch of the last save, -1 before the first.

    Raises:
        AsynctrackError: the run cannot be opened.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str] = "log",
        training_interval: int = 1000,
        test_interval: int = 1,
        update_interval: int = 1000,
        info_interval: int = 1,
        save_interval: int | None = 1 if _OLD else None,
        exclude_arrays: bool = True,
        *,
        run_id: str | None = None,
        name: str | None = None,
        backends: Iterable[Backend | str] | None = None,
        train_interval: int | None = None,
        **settings: Unpack[_Settings],
    ) -> None:
        interval = training_interval if train_interval is None else train_interval
        super().__init__(interval, test_interval, update_interval, info_interval, exclude_arrays=exclude_arrays)
        self.log_dir: str = os.path.abspath(os.path.expanduser(log_dir))
        self.save_interval = save_interval
        self.last_save_step: int = -1
        chosen = [JSONLines(), TensorBoard(dir=self.log_dir, flat=True)] if backends is None else backends
        self.run: Run = init_on_first(
            PROJECT,
            id=run_id,
            name=name or os.path.basename(self.log_dir),
            dir=self.log_dir,
            backends=chosen,
            resume="never" if run_id is None else "allow",
            **settings,
        )
        _loggers.add(self)

    def __repr__(self) -> str:
        return f"<AsyncLogger of {self.log_dir}, {self.run!r}>"

    def prepare_dict_for_logging(
        self,
        log_data: dict[Any, Any],
        parent_key: str = "",
        delimiter: str = "/",
        exclude_arrays: bool | None = None,
    ) -> dict[str, Any]:
        """Flatten nested names and keep only numbers, and arrays where they are not excluded.

        Args:
            log_data: nested names to values.
            parent_key: prefix of the names.
            delimiter: between nested names.
            exclude_arrays: whether arrays are left out. Default: the logger's own setting.

        Returns:
            Joined names to values.
        """
        without_arrays = self.exclude_arrays if exclude_arrays is None else exclude_arrays
        prepared: dict[str, Any] = {}
        for key, value in log_data.items():
            name = f"{parent_key}{delimiter}{key}".lstrip(delimiter)
            if isinstance(value, dict):
                prepared.update(self.prepare_dict_for_logging(value, name, delimiter, without_arrays))
            elif isinstance(value, _LOGGED) and not (without_arrays and isinstance(value, numpy.ndarray)):
                prepared[name] = value
        return prepared

    def write(self, step_type: str, step: int, data: Mapping[str, Any]) -> None:
        """Record `data` at a step.

        Args:
            step_type: the scope and what its steps are, joined by one slash, such as "training/env_step".
            step: of that type.
            data: names to numbers, arrays and figures.

        Raises:
            ValueError: there is not exactly one slash.
            RunFinished: it came after `finalize`.
        """
        scope, _ = step_type.split("/")
        named = {f"{scope}/{key}": value if type(value) in _PLAIN else _shown(value) for key, value in data.items()}
        if (
            step_type in named
        ):  # the name is there twice, but a record has one value for a name: so this is a record of its own
            self.run.log({step_type: step}, step)
        self.run.log({step_type: step, **named}, step)

    def save_data(
        self,
        epoch: int,
        env_step: int,
        update_step: int,
        save_checkpoint_fn: Callable[[int, int, int], str] | None = None,
    ) -> None:
        """Let the trainer save its state, if it is time to, and record its progress.

        Returns when the progress is on disk, where it survives a power cut, so that a restored training is never older
        than its state.

        Args:
            epoch: reached so far.
            env_step: reached so far.
            update_step: reached so far.
            save_checkpoint_fn: of the trainer, called with these three; None for no save.
        """
        if self.save_interval is None or not save_checkpoint_fn or epoch - self.last_save_step < self.save_interval:
            return
        self.last_save_step = epoch
        save_checkpoint_fn(epoch, env_step, update_step)
        for name, step in (("epoch", epoch), ("env_step", env_step), ("gradient_step", update_step)):
            self.write(f"save/{name}", step, {f"save/{name}": step})
        self.run.checkpoint(epoch=epoch, env_step=env_step, update_step=update_step)

    def restore_data(self) -> tuple[int, int, int]:
        """Find the progress at which the newest training in this directory saved its state last.

        The intervals go on from the records up to there.

        Returns:
            Epoch, env_step and update_step; (0, 0, 0) where there is nothing to restore.
        """
        _flush()
        runs = runs_in(self.log_dir)
        counters = next((found for run in reversed(runs) if (found := run.manifest().checkpoint)), None)
        if counters is None:
            return 0, 0, 0
        epoch, env_step, update_step = (int(counters.get(name, 0)) for name in ("epoch", "env_step", "update_step"))
        self.last_save_step = epoch
        gates = {
            f"{_TRAINING}/env_step": ("last_log_train_step" if _OLD else "last_log_training_step", env_step),
            "test/env_step": ("last_log_test_step", env_step),
            f"update/{_UPDATE_STEP}": ("last_log_update_step", update_step),
            "info/epoch": ("last_log_info_step", epoch),
        }
        for gate, step in last_steps(runs, {gate: most for gate, (_, most) in gates.items()}).items():
            setattr(self, gates[gate][0], step)
        return epoch, env_step, update_step

    @staticmethod
    def restore_logged_data(log_path: str) -> dict[str, Any]:
        """Read all numbers that were logged to a directory, or into one run.

        Args:
            log_path: the directory.

        Returns:
            Nested dicts of arrays; names are split at slashes.
        """
        _flush()
        return nested({key: numpy.array(values) for key, values in numbers_in(log_path).items()})

    def finalize(self) -> None:
        """End the run. Returns when everything is delivered, or after `finish_timeout_s`."""
        self.run.finish()


class AsyncLoggerFactory(LoggerFactory):  # type: ignore[misc]  # known only where Tianshou is
    """Makes the logger of a high-level experiment: `builder.with_logger_factory(AsyncLoggerFactory())`.

    It can be pickled.

    Args:
        settings: the keyword arguments of `AsyncLogger`, without those that the experiment gives.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def create_logger(
        self,
        log_dir: str,
        experiment_name: str,
        run_id: str | None,
        config_dict: dict[str, Any] | None = None,
    ) -> AsyncLogger:
        """Make the logger of one experiment.

        Args:
            log_dir: folder of its files.
            experiment_name: for people.
            run_id: of the run, which goes on if it is there; None for a fresh one.
            config_dict: the run's config.

        Raises:
            AsynctrackError: the run cannot be opened.
        """
        return AsyncLogger(log_dir, name=experiment_name, run_id=run_id, config=config_dict, **self.settings)

    def get_logger_class(self) -> type[AsyncLogger]:
        """Return the class of the loggers."""
        return AsyncLogger


def _add_other_names() -> None:
    """Give the logger the names that scopes have in the other version of Tianshou."""
    ours, others = ("train", "training") if _OLD else ("training", "train")
    for name in ("{}_interval", "last_log_{}_step"):
        setattr(AsyncLogger, name.format(others), _alias(name.format(ours)))
    setattr(AsyncLogger, f"log_{others}_data", getattr(BaseLogger, f"log_{ours}_data"))


def _alias(name: str) -> property:
    """Make another name for an attribute."""
    return property(lambda self: getattr(self, name), lambda self, value: setattr(self, name, value))


def _shown(value: Any) -> Any:
    """Return a value as backends show it: a figure as a PNG, an array of one item, which would be a number, as a histogram."""
    if isinstance(value, numpy.ndarray):
        return Histogram(value) if value.size == 1 else value
    return draw(value) if is_figure(value) else value


def _flush() -> None:
    """Make the records of all loggers in this process readable."""
    for logger in list(_loggers):
        logger.run.flush("journaled")


_loggers: weakref.WeakSet[AsyncLogger] = weakref.WeakSet()
_add_other_names()
