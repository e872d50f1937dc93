"""Ranks: which of the processes that train together this one is, and the run of those that record nothing. Runs in the caller."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from asynctrack.client.disabled_run import DisabledRun
from asynctrack.client.open_runs import open_runs
from asynctrack.client.opening import init
from asynctrack.client.run import Run
from asynctrack.journal.manifest import Manifest

# As torchrun and the launchers that took the names over say it to each process; Lightning says the second only.
_VARIABLES: Final = ("RANK", "LOCAL_RANK")


def distributed() -> Any:
    """Return torch.distributed where it is in use, None elsewhere. Never imports torch."""
    module = getattr(sys.modules.get("torch"), "distributed", None)
    return module if module is not None and module.is_available() and module.is_initialized() else None


def rank() -> int:
    """Return this process's rank: that of torch.distributed where it is in use, else that of the launcher, else 0."""
    if (group := distributed()) is not None:
        return int(group.get_rank())
    told = (os.environ.get(variable, "") for variable in _VARIABLES)
    return next((int(text) for text in told if text.isascii() and text.isdigit()), 0)


class SilentRun(DisabledRun):
    """Stands for the run on ranks that record nothing: it takes every call, also such as runs do not have."""

    def __repr__(self) -> str:
        return f"<Run {self.project}/{self.id}, silent on this rank>"

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("_"):  # Python's own protocols, such as of copies
            raise AttributeError(name)
        return _do_nothing

    def __getitem__(self, key: object) -> SilentRun:
        return self

    def __setitem__(self, key: object, value: object) -> None: ...

    def log_artifact(self, artifact_or_path: Any, *rest: Any, **named: Any) -> Any:
        """Keep nothing. The file may be one that only the first rank has written."""
        return artifact_or_path

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrive, (self._manifest, os.fspath(self.path))


def silent_run(project: str, **settings: Any) -> SilentRun:
    """Make the current run one that records nothing, for a rank that has nothing to record.

    Args:
        project: of the run.
        settings: the arguments of `asynctrack.init` that the first rank has.

    Raises:
        InvalidSettings: a setting is out of range.
    """
    run = init(project, **{**settings, "mode": "disabled", "join": False, "reinit": "create_new"})
    silent = SilentRun(run._manifest, run.path, dict(run.backends))
    run.finish()
    open_runs.enter(silent)
    return silent


def init_on_first(project: str, *, first: bool | None = None, **settings: Any) -> Run:
    """Open a run on the first rank. Others join it where the settings say `join=True`, else have a silent one.

    Args:
        project: of the run.
        first: whether this is the first rank. Default: `rank()` is 0.
        settings: the arguments of `asynctrack.init`.

    Raises:
        AsynctrackError: the run cannot be opened.
    """
    is_first = rank() == 0 if first is None else first
    return init(project, **settings) if is_first or settings.get("join") else silent_run(project, **settings)


def _arrive(manifest: Manifest, path: str) -> SilentRun:
    return SilentRun(manifest, Path(path), {})


def _do_nothing(*args: object, **kwargs: object) -> None: ...
