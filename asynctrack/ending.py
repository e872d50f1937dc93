"""Ending: finishes the runs that are still open when this process ends. Runs in the caller.

Python has three moments for it, and how the process was started decides which of them comes. `threading` calls back when
the main thread has ended, while executors and new threads can still be had; `atexit` when all threads but daemons have ended;
`multiprocessing` when the function of a child has returned or raised: a forked child leaves by `os._exit` right behind.

No hook is installed to learn why the process ends. An uncaught exception is found where the interpreter keeps it for a
post-mortem, or on its way through a child of `multiprocessing`. The code of `sys.exit` is to be found nowhere else.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Protocol

from asynctrack import host as hosts

# Behind the finalizers of multiprocessing's pools and queues, whose least is -5.
_LAST_FINALIZER: Final = -100

_log = logging.getLogger("asynctrack")


class Open(Protocol):
    """A run that is open. Called on the main thread of the ending process."""

    path: Path

    @property
    def needs_threads(self) -> bool:
        """Whether threads of this process deliver: it has to be finished while executors can be had."""

    def exiting(self, error: BaseException | None) -> Iterator[float]:
        """Take no more records, at the first step; then wait for delivery, as long as its settings allow.

        Args:
            error: what ends the process, as far as that can be known.

        Yields:
            Seconds to pause.
        """


_open: weakref.WeakSet[Open] = weakref.WeakSet()
_registered: set[str] = set()


def opened(run: Open) -> None:
    """Finish a run when this process ends."""
    _open.add(run)
    if run.needs_threads:
        _register_with_threading()
    if _is_child_of_multiprocessing():
        _register_with_multiprocessing()


def closed(run: Open) -> None:
    """The run has finished."""
    _open.discard(run)


def is_open(path: Path) -> bool:
    """Whether this process has the run open."""
    return any(run.path == path for run in list(_open))


def _finish(*, with_threads_only: bool = False) -> None:
    """Finish all at once, so that together they take no longer than the slowest."""
    error = _why()
    waits = {run: run.exiting(error) for run in list(_open) if run.needs_threads or not with_threads_only}
    noisy, logging.raiseExceptions = logging.raiseExceptions, False  # a test runner has closed the streams by now
    try:
        while (pause := _step(waits)) is not None:
            time.sleep(pause)
    except KeyboardInterrupt:  # the user's second: what is behind is left to the worker
        _step(waits)
    finally:
        hosts.stop_threads()
        logging.raiseExceptions = noisy


def _step(waits: dict[Open, Iterator[float]]) -> float | None:
    """Take each wait a step on; returns the shortest pause, None when all are over."""
    pauses = []
    for run, wait in list(waits.items()):
        try:
            pauses.append(next(wait))
        except StopIteration:
            del waits[run]
        except Exception:  # the other runs must end too
            del waits[run]
            _log.exception("asynctrack: %r could not be finished", run)
    return min(pauses, default=None)


def _why() -> BaseException | None:
    """The exception that ends this process, as far as it can be known."""
    if (passing := sys.exception()) is not None:
        return passing
    if hasattr(sys, "ps1"):  # at a prompt or in a notebook it has ended a line, not the process
        return None
    error: BaseException | None = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    return error


def _register_with_threading() -> None:
    """Callbacks of `threading` run last registered first; the executors' own is registered when their module is imported."""
    import concurrent.futures.thread

    assert concurrent.futures.thread
    if "threading" not in _registered:
        _registered.add("threading")
        with contextlib.suppress(AttributeError, RuntimeError):  # private; too late at shutdown: atexit has to do
            threading._register_atexit(lambda: _finish(with_threads_only=True))  # type: ignore[attr-defined]


def _register_with_multiprocessing() -> None:
    if "multiprocessing" not in _registered:
        _registered.add("multiprocessing")
        sys.modules["multiprocessing.util"].Finalize(None, _finish, exitpriority=_LAST_FINALIZER)


def _is_child_of_multiprocessing() -> bool:
    process: Any = sys.modules.get("multiprocessing.process")
    return process is not None and process.parent_process() is not None


def _after_fork_in_child() -> None:
    _open.clear()
    _registered.clear()


atexit.register(_finish)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
