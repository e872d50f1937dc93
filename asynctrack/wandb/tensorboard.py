"""TensorBoard: record the values that every `SummaryWriter` writes, for `sync_tensorboard=True`.

It knows the writers of torch, tensorboardX and asynctrack, whose event files are written as before. Each value is a
record under its tag, with `global_step`, which is also the record's step.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.util
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import asynctrack
from asynctrack.wandb.notices import unsupported

if TYPE_CHECKING:
    from asynctrack.wandb.sdk.wandb_run import Run

# Modules of the class `FileWriter` through which torch's and tensorboardX's writers write everything.
_FILE_WRITERS: Final = ("torch.utils.tensorboard.writer", "tensorboardX.writer")
_OURS: Final = "asynctrack.integrations.tensorboard"

_runs: list[Run] = []


def follow(run: Run) -> None:
    """Record all further values of the writers in a run, until it finishes."""
    _runs.append(run)
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    for name in (*_FILE_WRITERS, _OURS):
        if name in sys.modules:
            _attach(name, sys.modules[name])


def record(data: Mapping[str, Any], step: int | None) -> None:
    """Record a writer's values in the runs that follow it."""
    step = 0 if step is None else int(step)
    for run in list(_runs):
        if run.asynctrack.is_open:
            run.log({**data, "global_step": step}, step)
        else:
            _runs.remove(run)


def _attach(name: str, module: Any) -> None:
    """Make a module's writers call `record`."""
    if name == _OURS:
        if record not in module.listeners:
            module.listeners.append(record)
    elif not hasattr(module.FileWriter.add_summary, "__wrapped__"):
        module.FileWriter.add_summary = _heard(module.FileWriter.add_summary)


def _heard(add_summary: Callable[..., Any]) -> Callable[..., Any]:
    def hear(self: Any, summary: Any, global_step: Any = None, walltime: Any = None) -> Any:
        data = {value.tag: _plain(value) for value in summary.value if _is_shown(value)}
        if data:
            record(data, global_step)
        return add_summary(self, summary, global_step, walltime)

    hear.__wrapped__ = add_summary  # type: ignore[attr-defined]  # as functools has it
    return hear


def _is_shown(value: Any) -> bool:
    if value.WhichOneof("value") in ("simple_value", "histo", "image") or _texts(value):
        return True
    if value.tag and not value.tag.startswith("_"):
        unsupported(f"sync_tensorboard of {value.metadata.plugin_data.plugin_name or value.WhichOneof('value')}")
    return False


def _plain(value: Any) -> Any:
    """Return a value of an event as `log` takes it."""
    kind = value.WhichOneof("value")
    if kind == "simple_value":
        return value.simple_value
    if kind == "image":
        return _image(value.image)
    if kind == "histo":
        return _histogram(value.histo)
    found = _texts(value)
    return found[0] if len(found) == 1 else list(found)


def _texts(value: Any) -> Sequence[Any]:
    """Return the texts or numbers of a tensor."""
    if value.WhichOneof("value") != "tensor":
        return ()
    tensor = value.tensor
    texts = [text.decode("utf-8", "replace") for text in tensor.string_val]
    return texts or list(tensor.float_val) or list(tensor.double_val)


def _image(image: Any) -> Any:
    from PIL import Image as Pillow  # the writer needs Pillow itself, so it is installed

    return asynctrack.Image(Pillow.open(io.BytesIO(image.encoded_image_string)))


def _histogram(histo: Any) -> Any:
    edges = [histo.min, *histo.bucket_limit]
    return asynctrack.Histogram(np_histogram=(list(histo.bucket), edges))


class _Finder(importlib.abc.MetaPathFinder):
    """Attaches to writers whose module is imported later."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in (*_FILE_WRITERS, _OURS):
            return None
        for finder in sys.meta_path:
            if finder is not self and (spec := finder.find_spec(name, path, target)) is not None:
                return _attaching(name, spec)
        return None


def _attaching(name: str, spec: ModuleSpec) -> ModuleSpec:
    loader: Any = spec.loader
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        with contextlib.suppress(AttributeError):  # a version without such a class
            _attach(name, module)

    loader.exec_module = exec_module
    return spec
