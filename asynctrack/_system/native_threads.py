"""Native threads: those of the system, also where gevent or eventlet have put others in place of Python's; and who has. Runs in the caller. Standard library only."""

from __future__ import annotations

import _thread
import functools
import select
import sys
from collections.abc import Callable
from types import BuiltinFunctionType, ModuleType
from typing import Any


def start_new_thread() -> Callable[..., int]:
    """Python's own, also where another has been put in its place."""
    if replaced_by() is None:
        return _thread.start_new_thread
    real: Callable[..., int] = _original("_thread").start_new_thread
    return real


def allocate_lock() -> Any:
    """A lock that a real thread may release: those of eventlet wake nobody then."""
    return _thread.allocate_lock() if replaced_by() is None else _original("_thread").allocate_lock()


def poll() -> Any:
    """A `select.poll`, which eventlet takes away. It holds up whoever waits for it: for real threads, and to look without waiting."""
    return select.poll() if replaced_by() is None else _original("select").poll()


def replaced_by() -> str | None:
    """The library that has put its own threads in place of Python's; they run only while no other of theirs does."""
    there = _thread.start_new_thread
    return None if isinstance(there, BuiltinFunctionType) else str(there.__module__).partition(".")[0]


@functools.cache
def _original(name: str) -> ModuleType:
    """A module of the interpreter as it was before anybody changed it."""
    from importlib.util import module_from_spec

    spec = sys.modules[name].__spec__
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
