"""Private: what we use of CPython and anyio that neither of them promises. Each part has a function here, and is used nowhere else.

A new Python or anyio may lack any of them. Each function says what it returns, and what happens where its part is missing;
`tests/test_private_parts.py` has a test for each, which fails then. Any process; imports nothing that is slow to import, since the worker needs
some of it before it drains.
"""

from __future__ import annotations

import contextlib
import sys

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    import logging
    import queue
    import weakref
    from collections.abc import Callable
    from types import FrameType, ModuleType
    from typing import Any


def has_interpreter_lock() -> bool:
    """Return True if one thread at a time runs Python code. `sys._is_gil_enabled` came with Python 3.13; before it there is always the lock."""
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


def frame(depth: int = 0) -> FrameType:
    """Return the frame of the caller, or of the function `depth` calls above it. Without `sys._getframe` it raises `AttributeError`: no run can be opened."""
    return sys._getframe(depth + 1)


def weak_reference() -> type[weakref.ref[Any]]:
    """Return `weakref.ref` without importing `weakref`, which takes longer; where `_weakref` is missing, import it."""
    try:
        from _weakref import ref
    except ImportError:
        from weakref import ref
    return ref


def simple_queue() -> tuple[type[queue.SimpleQueue[Any]], type[queue.Empty]]:
    """Return Python's own `SimpleQueue` and `Empty`, even where gevent has replaced them in `queue`; where `_queue` is missing, those of `queue`."""
    try:
        from _queue import Empty, SimpleQueue
    except ImportError:
        from queue import Empty, SimpleQueue
    return SimpleQueue, Empty


def signal_masks() -> tuple[Callable[[int, set[int]], set[int]], Callable[[], set[int]]]:
    """Return `pthread_sigmask` and `valid_signals` on plain numbers; where `_signal` is missing those of `signal`, which makes an enum of each: 0.1 ms."""
    try:
        from _signal import pthread_sigmask, valid_signals  # type: ignore[import-not-found]  # it has no stubs
    except ImportError:
        from signal import pthread_sigmask, valid_signals
    return pthread_sigmask, valid_signals


def load_what_threads_end_with() -> None:
    """Load the library with which glibc ends a thread that asks for a finished interpreter, up to Python 3.13. Do nothing where it is not found.

    glibc looks for it only then, and after `chroot` it is not there: the process would be aborted after its last line. The interpreter loads the library
    as a module, which it is not, and keeps it.
    """
    if sys.hexversion >= 0x030E0000:  # such threads just wait
        return
    with contextlib.suppress(Exception):
        from _frozen_importlib import ModuleSpec
        from _imp import create_dynamic

        with open("/proc/self/maps", errors="surrogateescape") as maps:
            libc = next(line for line in maps if line.endswith("/libc.so.6\n")).split(maxsplit=5)[5]
        create_dynamic(ModuleSpec("libgcc_s", None, origin=f"{libc.rpartition('/')[0]}/libgcc_s.so.1"))


def load_asyncio_backend() -> ModuleType | None:
    """Import the module that anyio imports with its first call in a loop of asyncio. Return None where it is elsewhere; anyio imports it later then.

    The thread that makes the loop must have it before: CPython forgets that Ctrl-C has ended the main thread, and with which status, where another
    thread executes source text meanwhile, as making a data class does.
    """
    try:
        import anyio._backends._asyncio
    except ImportError:
        return None
    return anyio._backends._asyncio


def call_when_main_thread_ends(function: Callable[[], object]) -> bool:
    """Call a function when the main thread has ended and executors still work. Return True if it will be called.

    It comes before functions that were registered earlier, so `concurrent.futures`, whose executors end in the same way, is imported first. Where
    `threading._register_atexit` is missing, or that moment is over, return False: the caller uses `atexit`, where no thread can be started.
    """
    import threading

    with contextlib.suppress(AttributeError, RuntimeError):
        import concurrent.futures.thread

        assert concurrent.futures.thread
        threading._register_atexit(function)  # type: ignore[attr-defined]
        return True
    return False


def threads_are_over() -> bool:
    """Return True if the main thread has ended: no executor works any more, and on Python 3.12 no thread can be started.

    Where `threading._SHUTTING_DOWN` is missing, this is known a moment later, when the main thread counts as dead.
    """
    import threading

    return getattr(threading, "_SHUTTING_DOWN", False) or not threading.main_thread().is_alive()


def call_when_child_ends(function: Callable[[], object], priority: int) -> bool:
    """Call a function when the code of a child of `multiprocessing` is over. Return True if it will be called.

    Up to Python 3.12 such a child calls no `atexit`. Where `multiprocessing.util.Finalize` is missing it ends without the call: its open runs are left
    to the worker.
    """
    try:
        finalize = sys.modules["multiprocessing.util"].Finalize
    except (KeyError, AttributeError):
        return False
    finalize(None, function, exitpriority=priority)
    return True


def call_when_child_begins(function: Callable[[], object]) -> None:
    """Call a function when the code of a child of a fork server begins, in a child that still gets its arguments; elsewhere do nothing.

    Until then it is not known as a child, and then it forgets what is to be called at its end. A spawned child ends like any process. Where `_inheriting`
    or `register_after_fork` of `multiprocessing` is missing, the call does not come: a child that was given a run ends without a word.
    """
    process = getattr(sys.modules.get("multiprocessing.process"), "_current_process", None)
    register = getattr(sys.modules.get("multiprocessing.util"), "register_after_fork", None)
    if register is not None and getattr(process, "_inheriting", False):
        register(function, lambda function: function())


def exit_code_of_child() -> int | None:
    """Return the exit code of a child of `multiprocessing` that ends: the local `exitcode` of its `_bootstrap`, which must be below on the stack.

    None anywhere else, and where the local is missing: then only an exception on its way shows how the child ends.
    """
    above: FrameType | None = frame(1)
    while above is not None and above.f_code.co_name != "_bootstrap":
        above = above.f_back
    code = above.f_locals.get("exitcode") if above is not None else None
    return code if isinstance(code, int) else None


def writes_to_stderr_of_the_moment(handler: logging.Handler | None) -> bool:
    """Return True if a handler is the one with which `logging` prints what no handler takes: it looks up `sys.stderr` for each line.

    Where `logging._StderrHandler` is missing, return False: the line goes through the handler itself, and through the stream's lock.
    """
    import logging

    return type(handler) is getattr(logging, "_StderrHandler", None)
