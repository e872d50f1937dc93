"""Tracker: a recipe that opens run after run, with the verbs `init`, `log` and `finish`. Runs in the caller."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from asynctrack._system import messages
from asynctrack._system.suggestions import suggests
from asynctrack.backends.base import Backend
from asynctrack.client.config_sources import as_config
from asynctrack.client.init_arguments import Config, Reinit, check_settings
from asynctrack.client.opening import init
from asynctrack.client.run import Run
from asynctrack.errors import NoCurrentRun
from asynctrack.reading.stats import RunStats
from asynctrack.settings import Mode, Settings, WhenFull, WorkerKind

if TYPE_CHECKING:
    from asynctrack.client.config_file import Source


class Tracker:
    """Opens run after run with the same settings.

    Use it where a framework calls `init`, `log` and `finish` on an object that you give it. As a context manager it finishes the open run at
    the end of the block.

    Args:
        project: The project of all runs.
        config: The config of all runs. `init(config)` replaces and adds keys for one run.
        name: See `asynctrack.init` for this and all arguments that follow. They are the same for each run, except that there is no `id` and no
            `resume`: every run is a fresh one.
        dir: See `asynctrack.init`.
        backends: See `asynctrack.init`. An object is shared by all runs, a kind such as "jsonl" makes one for each.
        mode: See `asynctrack.init`.
        worker: See `asynctrack.init`.
        when_full: See `asynctrack.init`.
        max_block_s: See `asynctrack.init`.
        queue_bytes: See `asynctrack.init`.
        finish_timeout_s: See `asynctrack.init`.
        exit_timeout_s: See `asynctrack.init`.
        linger_s: See `asynctrack.init`.
        sync_interval_s: See `asynctrack.init`.
        after_exit_max_s: See `asynctrack.init`.
        straggler_s: See `asynctrack.init`.
        environment: See `asynctrack.init`.
        diff: See `asynctrack.init`.
        entity: See `asynctrack.init`.
        group: See `asynctrack.init`.
        job_type: See `asynctrack.init`.
        tags: See `asynctrack.init`.
        notes: See `asynctrack.init`.
        reinit: See `asynctrack.init`.
        settings: See `asynctrack.init`.
        quiet: See `asynctrack.init`.

    Attributes:
        project: The project of all runs.
        config: The config of all runs.
        run: The open run, or None.

    Raises:
        InvalidSettings: A setting, a label or a backend cannot be used. The message names every setting that is wrong. It is raised here
            already, not by the first `init`.
        InvalidProject: The project is not a line of text, or it holds a path.
        InvalidConfig: A config cannot be made of what was given.
    """

    @suggests
    def __init__(
        self,
        project: str,
        *,
        config: Config | None = None,
        name: str | None = None,
        dir: str | os.PathLike[str] | None = None,
        backends: Iterable[Backend | str] | None = None,
        mode: Mode | None = None,
        worker: WorkerKind = "process",
        when_full: WhenFull = "drop_newest",
        max_block_s: float = 5.0,
        queue_bytes: int | None = None,
        finish_timeout_s: float = 30.0,
        exit_timeout_s: float = 5.0,
        linger_s: float = 0.1,
        sync_interval_s: float = 1.0,
        after_exit_max_s: float = 300.0,
        straggler_s: float = 30.0,
        environment: bool | None = None,
        diff: bool | None = None,
        entity: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        tags: Sequence[str] | None = None,
        notes: str | None = None,
        reinit: Reinit = "default",
        settings: Settings | Mapping[str, Any] | None = None,
        quiet: bool = False,
    ) -> None:
        self._open = functools.partial(
            init, project, name=name, dir=dir, backends=backends, mode=mode, worker=worker, when_full=when_full, max_block_s=max_block_s,
            queue_bytes=queue_bytes, finish_timeout_s=finish_timeout_s, exit_timeout_s=exit_timeout_s, linger_s=linger_s,
            sync_interval_s=sync_interval_s, after_exit_max_s=after_exit_max_s, straggler_s=straggler_s,
            environment=environment, diff=diff, entity=entity, group=group,
            job_type=job_type, tags=tags, notes=notes, reinit=reinit, settings=settings, quiet=quiet,
        )  # fmt: skip
        check_settings(project, self._open.keywords, config)
        self.project: str = project
        self.config: dict[Any, Any] = as_config(config)
        self.run: Run | None = None

    def __repr__(self) -> str:
        return f"<Tracker of {self.project}, {self.run!r}>"

    @classmethod
    @suggests
    def from_config(cls, source: Source) -> Tracker:
        """Make a tracker from a mapping or a file.

        Args:
            source: A mapping, OmegaConf's too, or the path of a YAML, TOML or JSON file. Its keys are the arguments of `Tracker`; a backend is
                written as its kind, or as a mapping of its kind and settings (see `asynctrack.client.config_file`). None and "disabled" make a
                tracker whose runs record nothing.

        Returns:
            The tracker. It has not opened a run.

        Raises:
            InvalidSettings: Something cannot be used. The message names every problem with its place, and the name that was perhaps meant.
        """
        from asynctrack.client.config_file import tracker_arguments

        return cls(**tracker_arguments(source))

    @suggests
    def init(self, config: Config | None = None) -> Run:
        """Open a run. A run that is still open is finished first, with a warning.

        Args:
            config: Replaces and adds keys of the tracker's config, for this run.

        Returns:
            The open run.

        Raises:
            InvalidConfig: A config cannot be made of what was given.
            AsynctrackError: See `asynctrack.init`.
        """
        config = as_config(config)
        if self.run is not None:
            messages.warn_now(f"asynctrack: init() while run {self.run.id} is open: it is finished first")
            self.finish()
        self.run = self._open(config={**self.config, **config})
        return self.run

    def log(self, data: Mapping[str, Any], step: int | None = None) -> bool:
        """Record values into the open run.

        Args:
            data: See `Run.log`.
            step: See `Run.log`.

        Returns:
            True if the record was accepted, False if it was dropped and counted.

        Raises:
            NoCurrentRun: No run is open.
            UsageError: See `Run.log`.
        """
        if self.run is None:
            raise NoCurrentRun("Tracker.log()", "Tracker.init()")
        return self.run.log(data, step)

    @suggests
    def finish(self, summary: Mapping[str, Any] | None = None, exit_code: int | None = None) -> RunStats | None:
        """Finish the open run. Without one it warns and does nothing. The next `init` opens a fresh run, even if this raises.

        Args:
            summary: See `Run.finish`.
            exit_code: See `Run.finish`.

        Returns:
            The final statistics of the run; None if no run was open.

        Raises:
            InvalidData: The summary is not a mapping.
        """
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
