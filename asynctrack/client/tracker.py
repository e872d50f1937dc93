"""Tracker: a recipe that opens run after run, with the verbs `init`, `log` and `finish`. Runs in the caller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from asynctrack._system import messages
from asynctrack.client.config_sources import as_config
from asynctrack.client.opening import Config, check_settings, init
from asynctrack.client.run import Run
from asynctrack.errors import NoCurrentRun
from asynctrack.reading.stats import RunStats

if TYPE_CHECKING:
    from asynctrack.client.config_file import Source


class Tracker:
    """Opens a run at each `init`, with the same settings.

    Args:
        project: of all its runs.
        config: of all its runs; `init`'s goes over it key by key.
        settings: the keyword arguments of `asynctrack.init`, without `id`, which would name the same run twice.

    Raises:
        InvalidSettings: a setting is out of range; all of them are named, here and not at the first `init`.
        InvalidConfig: config is nothing that `asynctrack.init` takes.
    """

    def __init__(self, project: str, *, config: Config | None = None, **settings: Any) -> None:
        check_settings(project, settings, config)
        self.project = project
        self.config = as_config(config)
        self.run: Run | None = None
        self._settings = settings

    def __repr__(self) -> str:
        return f"<Tracker of {self.project}, {self.run!r}>"

    @classmethod
    def from_config(cls, source: Source) -> Tracker:
        """A tracker from a mapping (also of OmegaConf's), or a YAML, TOML or JSON file; see `asynctrack.client.config_file`.

        Args:
            source: what the constructor takes, with each backend as its kind, or as a mapping of kind and settings. None and "disabled" give
                a tracker that does nothing.

        Raises:
            InvalidSettings: something cannot be used; every problem is named, with its place and what was perhaps meant.
        """
        from asynctrack.client.config_file import tracker_arguments

        return cls(**tracker_arguments(source))

    def init(self, config: Config | None = None) -> Run:
        """Open a run. One that is still open is finished first, with a warning.

        Raises:
            InvalidConfig: config is nothing that `asynctrack.init` takes.
        """
        config = as_config(config)
        if self.run is not None:
            messages.warn_now(f"asynctrack: init() while run {self.run.id} is open: it is finished first")
            self.finish()
        self.run = init(self.project, config={**self.config, **config}, **self._settings)
        return self.run

    def log(self, data: Mapping[str, Any], step: int | None = None) -> bool:
        """Record into the open run; see `Run.log`.

        Raises:
            NoCurrentRun: none is open.
        """
        if self.run is None:
            raise NoCurrentRun("Tracker.log()")
        return self.run.log(data, step)

    def finish(self, summary: Mapping[str, Any] | None = None, exit_code: int | None = None) -> RunStats | None:
        """Finish the open run; without one it warns and does nothing. Whatever happens, the next `init` opens a fresh run."""
        run, self.run = self.run, None
        if run is None:
            messages.warn_now("asynctrack: finish() without an open run is ignored")
            return None
        return run.finish(summary, exit_code)

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        run, self.run = self.run, None
        if run is not None:
            run.__exit__(kind, error, traceback)
