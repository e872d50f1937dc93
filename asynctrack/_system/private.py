"""Private: what we use of CPython and anyio that neither of them promises. Each part in a function, and nowhere else.

A new Python or anyio may lack any of them. Each function says what it gives, and what it gives, or what happens, where its part is missing;
`tests/test_private_parts.py` has a test for each, which fails there. Any process; imports nothing that is slow to import, since the worker needs
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
    """Whether one thread at a time runs Python code. `sys._is_gil_enabled` is of Python 3.13; before it there is always the lock."""
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


def frame(depth: int = 0) -> FrameType:
    """The frame of who calls this, or of who is so many calls above. Without `sys._getframe` an `AttributeError`: no run can be opened."""
    return sys._getframe(depth + 1)


def weak_reference() -> type[weakref.ref[Any]]:
    """`weakref.ref`, without `weakref`, which takes longer to import; where `_weakref` is missing, with it."""
    try:
        from _weakref import ref
    except ImportError:
        from weakref import ref
    return ref


def simple_queue() -> tuple[type[queue.SimpleQueue[Any]], type[queue.Empty]]:
    """Python's own `SimpleQueue` and `Empty`, also where gevent has put others into `queue`; where `_queue` is missing, what is in `queue`."""
    try:
        from _queue import Empty, SimpleQueue
    except ImportError:
        from queue import Empty, SimpleQueue
    return SimpleQueue, Empty


def signal_masks() -> tuple[Callable[[int, set[int]], set[int]], Callable[[], set[int]]]:
    """`pthread_sigmask` and `valid_signals` on plain numbers; where `_signal` is missing those of `signal`, which makes an enum of each: 0.1 ms."""
    try:
        from _signal import pthread_sigmask, valid_signals  # type: ignore[import-not-found]  # it has no stubs
    except ImportError:
        from signal import pthread_sigmask, valid_signals
    return pthread_sigmask, valid_signals


def load_what_threads_end_with() -> None:
    """Load the library with which glibc ends a thread that asks for an interpreter that has ended, up to Python 3.13; nothing where it is not found.

    It is looked for only then, and after `chroot` it is nowhere: the process would be aborted behind its last line. The interpreter loads
    it as a module, which it is not, and keeps it.
    """
    if sys.version_info >= (3, 14):  # such threads just wait
        return
    with contextlib.suppress(Exception):
        from _frozen_importlib import ModuleSpec
        from _imp import create_dynamic

        with open("/proc/self/maps", errors="surrogateescape") as maps:
            libc = next(line for line in maps if line.endswith("/libc.so.6\n")).split(maxsplit=5)[5]
        create_dynamic(ModuleSpec("libgcc_s", None, origin=f"{libc.rpartition('/')[0]}/libgcc_s.so.1"))


def load_asyncio_backend() -> ModuleType | None:
    """Import what anyio imports with its first call in a loop of asyncio; None where it is elsewhere, and then that call imports it.

    To have it before matters on the thread that makes the loop: CPython forgets that Ctrl-C has ended the main thread, and with what
    status, where another executes text meanwhile, as the making of data classes does.
    """
    try:
        import anyio._backends._asyncio
    except ImportError:
        return None
    return anyio._backends._asyncio


def call_when_main_thread_ends(function: Callable[[], object]) -> bool:
    """Have a function called when the main thread has ended, and executors can still be had; whether it will be.

    It comes before what was registered earlier, so `concurrent.futures`, whose executors end in the same way, is imported first. Where
    `threading._register_atexit` is missing, or that moment is over, the answer is False, and `atexit` has to do: no thread can be started then.
    """
    import threading

    with contextlib.suppress(AttributeError, RuntimeError):
        import concurrent.futures.thread

        assert concurrent.futures.thread
        threading._register_atexit(function)  # type: ignore[attr-defined]
        return True
    return False


def threads_are_over() -> bool:
    """Whether the main thread has ended: no executor can be had, and on 3.12 no thread.

    Where `threading._SHUTTING_DOWN` is missing it is known as soon as the main thread is said to be dead, a moment later.
    """
    import threading

    return getattr(threading, "_SHUTTING_DOWN", False) or not threading.main_thread().is_alive()


def call_when_child_ends(function: Callable[[], object], priority: int) -> bool:
    """In a child of `multiprocessing`: have a function called when the child's own is over; whether it will be.

    Up to Python 3.12 such a child calls no `atexit`. Where `multiprocessing.util.Finalize` is missing it ends without the call: what is
    open there is left to the worker.
    """
    try:
        finalize = sys.modules["multiprocessing.util"].Finalize
    except (KeyError, AttributeError):
        return False
    finalize(None, function, exitpriority=priority)
    return True


def exit_code_of_child() -> int | None:
    """In a child of `multiprocessing` that ends: with which code, as the local `exitcode` of its `_bootstrap` has it; called from below that.

    None anywhere else, and where the local is missing: then an exception that is on its way is all that is known.
    """
    above: FrameType | None = frame(1)
    while above is not None and above.f_code.co_name != "_bootstrap":
        above = above.f_back
    code = above.f_locals.get("exitcode") if above is not None else None
    return code if isinstance(code, int) else None


def writes_to_stderr_of_the_moment(handler: logging.Handler | None) -> bool:
    """Whether a handler is that by which `logging` prints what nobody handles: it asks for `sys.stderr` at each line.

    Where `logging._StderrHandler` is missing the answer is False, and the line goes by the handler itself, and by the stream's lock.
    """
    import logging

    return type(handler) is getattr(logging, "_StderrHandler", None)
