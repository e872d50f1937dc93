"""State: which runs are open by W&B's names, which of them is `wandb.run`, and what was assigned to `wandb.config`."""

from __future__ import annotations

import sys
from typing import Any

from asynctrack._system import fork

# Objects of the class `Run`, whose module imports this one.
_open: list[Any] = []
_current: Any = None


@fork.in_child
def _begin_anew() -> None:
    """A forked child logs to the current run as its parent does, but another `init` there opens a run of its own."""
    _open.clear()


def current() -> Any:
    """The run that `wandb.log` and the like mean; None without one."""
    if _current is not None and not _current.asynctrack.is_open:  # it was finished through `asynctrack` directly
        leave(_current)
    return _current


def open_runs() -> list[Any]:
    """Those that are open, in the order in which they were opened."""
    return [run for run in _open if run.asynctrack.is_open]


def enter(run: Any, *, alone: bool) -> None:
    """A run is open; but for one that is alone it is `wandb.run`."""
    global _current
    _open.append(run)
    if not alone:
        _current = run


def leave(run: Any) -> None:
    """A run has finished."""
    global _current
    if run in _open:
        _open.remove(run)
    if _current is run:
        _current = None


def take_assigned() -> Any:
    """What was assigned to `wandb.config` since, None where that is nothing; a module cannot know of it when it happens."""
    return vars(sys.modules["asynctrack.wandb"]).pop("config", None)
