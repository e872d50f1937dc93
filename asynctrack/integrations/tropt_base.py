"""TROPT's base: its tracker's life cycle on top of runs. Runs in the caller.

TROPT calls `init` before an optimiser begins, `log` at each of its steps and `finish` at its end, but not when it has
failed. Then the run fails at the next `init`, when the tracker is garbage-collected, or when the process ends,
whichever is first.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable, Mapping
from typing import Any, Final, Unpack

from asynctrack.backends.base import Backend
from asynctrack.client.init_arguments import check_settings
from asynctrack.client.run import Run
from asynctrack.client.run_arguments import TrackerArguments
from asynctrack.errors import FrameworkMissing
from asynctrack.integrations.naming import project_name
from asynctrack.integrations.ranks import init_on_first
from asynctrack.integrations.unfinished import NeverFinished, fail_with

try:
    from tropt.tracker import BaseTracker
    from tropt.tracker.base import DEFAULT_EXPERIMENT_NAME as DEFAULT_EXPERIMENT_NAME
except ImportError as _error:
    raise FrameworkMissing("TROPT", "tropt>=0.1.1", _error) from _error

# Types of nearly all values, which need no second look.
_PLAIN: Final = frozenset({float, int, str})
_NEVER: Final = "the optimiser did not come to its end: finish() was never called"


class AsyncTracker(BaseTracker):  # type: ignore[misc]  # known only where TROPT is
    """Records each optimisation in a run of its own, without making it wait. Ranks above 0 record nothing.

    Args:
        experiment_name: the runs' project.
        experiment_config: of all its runs; the optimiser's config replaces it key by key.
        backends: of the runs. Default: JSON Lines.
        settings: the other keyword arguments of `asynctrack.init`.

    Attributes:
        run: the one that is open, or was last; None before the first `init`.

    Raises:
        InvalidSettings: a setting is out of range.
    """

    def __init__(
        self,
        experiment_name: str = DEFAULT_EXPERIMENT_NAME,
        experiment_config: Mapping[str, Any] | None = None,
        *,
        backends: Iterable[Backend | str] | None = None,
        **settings: Unpack[TrackerArguments],
    ) -> None:
        super().__init__(experiment_name, experiment_config)
        self.run: Run | None = None
        self._project = project_name(experiment_name)
        self._settings: dict[str, Any] = {"backends": backends if backends is None else list(backends), **settings}
        self._interrupted = False
        self._unfinished: weakref.finalize[Any, Any] | None = None
        check_settings(self._project, self._settings, experiment_config)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.experiment_name}, {self.run!r}>"

    def init(self, config: Mapping[str, Any] | None = None) -> None:
        """Open a run.

        A run that is still open, since its optimiser failed, is ended as failed first, with a warning.

        Args:
            config: of the optimiser.

        Raises:
            AsynctrackError: the run cannot be opened.
        """
        self._interrupted = self._active
        super().init(config)

    def log(self, data: Mapping[str, Any]) -> None:
        """Record the values of a step. Never waits.

        Args:
            data: names to values.

        Raises:
            AssertionError: no run is open.
        """
        if not self._active:
            raise AssertionError("log() called on inactive tracker (missing init()?)")
        self._log(data)

    def finish(self, summary: Mapping[str, Any] | None = None) -> None:
        """End the open run; without one it warns and does nothing.

        Whatever happens, the next `init` opens a fresh run.

        Args:
            summary: of the run.
        """
        try:
            super().finish(summary)
        finally:
            self._active = False

    def _init(self, config: Mapping[str, Any] | None = None) -> None:
        self._active = False  # TROPT has set it already, and it would stay set if no run can be opened
        self.run = init_on_first(self._project, config=config, **self._settings)
        self._unfinished = fail_with(self, self.run, _NEVER)
        self._active = True

    def _log(self, data: Mapping[str, Any]) -> None:
        assert self.run is not None
        self.run.log({key: value if type(value) in _PLAIN else _number(value) for key, value in data.items()})

    def _finish(self, summary: Mapping[str, Any] | None = None) -> None:
        assert self.run is not None and self._unfinished is not None
        self._unfinished.detach()
        interrupted, self._interrupted = self._interrupted, False
        with contextlib.suppress(NeverFinished), self.run:  # the run ends also when the summary is None
            if interrupted:
                raise NeverFinished(_NEVER)
            self.run.finish(summary)


def _number(value: Any) -> Any:
    """Return a tensor of one item as that item; any other value as it is."""
    if hasattr(value, "numel") and value.numel() == 1:
        return value.item()
    return value
