"""Native threads: the system's threads even where gevent or eventlet have replaced Python's, and which of them has. Runs in the caller. Standard library only."""

from __future__ import annotations

import _thread
import functools
import select
import sys
from collections.abc import Callable
from types import BuiltinFunctionType, ModuleType
from typing import Any


def start_new_thread() -> Callable[..., int]:
    """Return Python's own `start_new_thread`, even where a library has replaced it."""
    if replaced_by() is None:
        return _thread.start_new_thread
    real: Callable[..., int] = _original("_thread").start_new_thread
    return real


def allocate_lock() -> Any:
    """Return a lock that a real thread may release: those of eventlet wake nobody then."""
    return _thread.allocate_lock() if replaced_by() is None else _original("_thread").allocate_lock()


def poll() -> Any:
    """Return a `select.poll`, which eventlet removes. It blocks the real thread: use it on threads of ours, or without waiting."""
    return select.poll() if replaced_by() is None else _original("select").poll()


def replaced_by() -> str | None:
    """Return the name of the library that has replaced Python's threads; None if none has. Its threads run only while no other of them does."""
    there = _thread.start_new_thread
    return None if isinstance(there, BuiltinFunctionType) else str(there.__module__).partition(".")[0]


@functools.cache
def _original(name: str) -> ModuleType:
    """Return a module of the interpreter as it was before any library changed it."""
    from importlib.util import module_from_spec

    spec = sys.modules[name].__spec__
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
