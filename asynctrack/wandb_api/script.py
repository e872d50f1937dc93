"""Script: the names that `import asynctrack as wandb` needs beside those of our own, so that a script for W&B runs unchanged. Runs in the caller.

What W&B's own `wandb` has and this has not is an `AttributeError`, but for kinds of values: these are recorded as a text that says so.

| W&B | here |
| --- | --- |
| `init, log, finish, Image, Histogram, Table, Html, Artifact, Settings` | the same, our own |
| `run, config, summary` | those of the current run |
| `define_metric, log_artifact, save, alert, ...` | methods of the current run |
| rows with the same `step=` | each call is a record; steps may come in any order, none is thrown away |
| the summary | what is set; the last value of all else that was logged, when it is asked for |
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any, Final, NoReturn

from asynctrack.client.current import current
from asynctrack.client.opening import fresh_id
from asynctrack.client.run import Run
from asynctrack.errors import NoCurrentRun
from asynctrack.records.media_types import Value
from asynctrack.wandb_api.unsupported import unsupported

# Module-level calls that are methods of the current run.
METHODS: Final = (
    "alert", "define_metric", "link_artifact", "log_artifact", "log_code", "log_model", "mark_preempting", "save", "unwatch", "use_artifact",
    "watch",
)  # fmt: skip
# Kinds of values that only W&B has.
_ONLY_THERE: Final = frozenset({"Audio", "Graph", "JoinedTable", "Molecule", "Object3D", "Plotly", "Video"})


class ScriptModule(types.ModuleType):
    """The package, as a module that knows which run is the current one: W&B's `wandb.run` would be a module of ours."""

    @property
    def run(self) -> Run | None:
        """The current run, None without one."""
        return current()

    @run.setter
    def run(self, module: object) -> None:
        """What the import of `asynctrack.run` does."""

    @property
    def config(self) -> Any:
        """The config of the current run."""
        run = current()
        return _Nothing("config") if run is None else run.config

    @property
    def summary(self) -> Any:
        """The summary of the current run."""
        run = current()
        return _Nothing("summary") if run is None else run.summary


class Unsupported(Value):
    """Stands for a value that only W&B has, whatever it is made of, and is recorded as a text that says so."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *args: object, **kwargs: object) -> Unsupported:
        return self

    def wire(self) -> list[Any]:
        unsupported(self._name)
        return ["text", "txt", {}, f"{self._name} is not supported".encode(), [], ""]


class Plots:
    """Stands for `wandb.plot`, whose functions make values that only W&B has."""

    def __getattr__(self, name: str) -> Unsupported:
        if name.startswith("_"):
            raise AttributeError(name)
        return Unsupported(f"wandb.plot.{name}")


class _Nothing:
    """The config or summary where there is no run: says so whatever is done with it."""

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "_name", name)

    def _refuse(self, *args: object) -> NoReturn:
        raise NoCurrentRun(object.__getattribute__(self, "_name"))

    __getattr__ = __setattr__ = __getitem__ = __setitem__ = __iter__ = __len__ = __contains__ = _refuse

    def __repr__(self) -> str:
        return f"<{object.__getattribute__(self, '_name')} of no run>"


def login(*args: object, **kwargs: object) -> bool:
    """Nothing: a run here needs no account. What the W&B backend needs it has from the environment, or from `wandb login`."""
    if kwargs.get("key") or args:
        unsupported("login(key=...)", "the W&B backend takes its key from WANDB_API_KEY or `wandb login`")
    return True


def setup(*args: object, **kwargs: object) -> None:
    """Nothing: there is nothing to set up."""


teardown = setup


def later(name: str) -> Any:
    """What W&B's module has by this name.

    Raises:
        AttributeError: nothing that is known here.
    """
    if name in METHODS:
        return _method(name)
    if name in _ONLY_THERE:
        return Unsupported(f"wandb.{name}")
    if name == "plot":
        return Plots()
    if name == "util":
        return types.SimpleNamespace(generate_id=lambda *_: fresh_id())
    raise AttributeError(f"module 'asynctrack' has no attribute {name!r}")


def _method(name: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        run = current()
        if run is None:
            raise NoCurrentRun(f"{name}()")
        return getattr(run, name)(*args, **kwargs)

    call.__name__, call.__doc__ = name, f"`Run.{name}` of the current run."
    return call
