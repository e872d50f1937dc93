"""State: the runs that are open by W&B's names, the one that is `wandb.run`, what stands for its config without one, and values assigned to `wandb.config`."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

from asynctrack._system import fork
from asynctrack.errors import NoCurrentRun

# Objects of the class `Run`, whose module imports this one.
_open: list[Any] = []
_current: Any = None
# Whether this process has had a run, by W&B's names; what it finishes does not give way to the run of an ancestor.
_had_one = False


@fork.in_child
def _begin_anew() -> None:
    """Forget the open runs in a forked child.

    The child logs to the current run as its parent does, but another `init` there opens a run of its own.
    """
    _open.clear()


def current() -> Any:
    """Return the run that `wandb.log` and the like use; None without one."""
    if _current is not None and not _current.asynctrack.is_open:  # it was finished through `asynctrack` directly
        leave(_current)
    return _current


def open_runs() -> list[Any]:
    """Return the open runs, in the order in which they were opened."""
    return [run for run in _open if run.asynctrack.is_open]


def enter(run: Any, *, alone: bool) -> None:
    """Register an open run, which becomes `wandb.run` unless it is `alone`."""
    global _current, _had_one
    _had_one = True
    _open.append(run)
    if not alone:
        _current = run


def enter_attached(run: Any) -> None:
    """Make the run of an ancestor `wandb.run`, as it is after a fork: another `init` here opens a run of its own."""
    global _current, _had_one
    _had_one = True
    _current = run


def had_one() -> bool:
    """Return whether this process has had a run."""
    return _had_one


def leave(run: Any) -> None:
    """Remove a run that has finished."""
    global _current
    if run in _open:
        _open.remove(run)
    if _current is run:
        _current = None


def take_assigned() -> Any:
    """Return the value that a script has assigned to `wandb.config` since the last call; None where there is none.

    A module is not told of such an assignment, so it has to be looked for.
    """
    return vars(sys.modules["asynctrack.wandb"]).pop("config", None)


class NoRun:
    """Stands for `wandb.config` or `wandb.summary` while no run is open: any use of it raises `NoCurrentRun`."""

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "_name", name)

    def _refuse(self, *args: object) -> NoReturn:
        raise NoCurrentRun(object.__getattribute__(self, "_name"))

    __getattr__ = __setattr__ = __getitem__ = __setitem__ = __iter__ = __len__ = __contains__ = _refuse

    def __repr__(self) -> str:
        return f"<{object.__getattribute__(self, '_name')} of no run>"
