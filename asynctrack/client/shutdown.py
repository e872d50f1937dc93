"""Shutdown: finishes the runs that are still open when this process ends. Runs in the caller.

Python has three moments for it, and how the process was started decides which of them come. `threading` calls back when
the main thread has ended, while executors can still be had; `atexit` when all threads but daemons have ended, but up to Python 3.12
not in the children of `multiprocessing`; a finalizer of `multiprocessing` when the function of such a child is over.

No hook is installed to learn why the process ends. An uncaught exception is found where the interpreter keeps it for a
post-mortem, and in a child of `multiprocessing` on its way, or as the exit code that it has become. The code of `sys.exit` is to be
found nowhere else here: the worker asks the kernel for it, when the process is gone.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Protocol

from asynctrack._system import fork, messages, private
from asynctrack.client import worker_monitor, worker_registry

# The priority: after the finalizers of multiprocessing's pools and queues, whose lowest is -5.
_LAST_FINALIZER: Final = -100


class OpenRun(Protocol):
    """A run that is open. Called on the main thread of the ending process."""

    path: Path

    @property
    def needs_threads(self) -> bool:
        """Tell whether threads of this process deliver: the run has to be finished while executors can be had."""

    def exiting(self, error: BaseException | None) -> Iterator[float]:
        """Take no more records, at the first step; then wait for delivery, as long as its settings allow.

        Args:
            error: what ends the process, as far as that can be known.

        Yields:
            Seconds to pause.
        """


_open: set[OpenRun] = set()  # strong references: a run that the program has dropped is still open
_registered = {"threading": False, "multiprocessing": False}
_noted: BaseException | None = None


def register(run: OpenRun) -> None:
    """Finish a run when this process ends."""
    _open.add(run)
    child = _is_child_of_multiprocessing()
    if run.needs_threads or child:
        _register_with_threading()
    if child:
        _register_with_multiprocessing()
    else:
        private.call_when_child_begins(_child_begins)  # the run is one of its arguments


def unregister(run: OpenRun) -> None:
    """Forget a run that has finished."""
    _open.discard(run)


def is_open(path: Path) -> bool:
    """Tell whether this process has the run open, perhaps under another name."""
    return any(run.path == path or _is_same(run.path, path) for run in list(_open))


def _is_same(one: Path, other: Path) -> bool:
    with contextlib.suppress(OSError):
        return one.samefile(other)
    return False


def _main_thread_has_ended() -> None:
    global _noted
    _noted = _why()
    _finish(with_threads_only=True)


def _finish(*, with_threads_only: bool = False) -> None:
    """Finish all at once, so that together they take no longer than the slowest."""
    error = _why()
    noisy, logging.raiseExceptions = logging.raiseExceptions, False  # a test runner has closed the streams by now
    try:
        while left := [run for run in list(_open) if run.needs_threads or not with_threads_only]:
            _await(left, error)
    finally:
        worker_registry.stop_threads()
        worker_monitor.leave()
        messages.leave()
        logging.raiseExceptions = noisy


def _await(runs: list[OpenRun], error: BaseException | None) -> None:
    waits = {run: run.exiting(error) for run in runs}
    try:
        while (pause := _step(waits)) is not None:
            time.sleep(pause)
    except KeyboardInterrupt:  # the user's second Ctrl-C: the worker does what is left
        # From the beginning, since the first Ctrl-C may have interrupted any step.
        _step({run: run.exiting(error) for run in waits})
    for run in runs:
        unregister(run)


def _step(waits: dict[OpenRun, Iterator[float]]) -> float | None:
    """Take each wait a step on, and return the shortest pause; None when all are over."""
    pauses = []
    for run, wait in list(waits.items()):
        try:
            pauses.append(next(wait))
        except StopIteration:
            del waits[run]
        except Exception:  # the other runs must end too
            del waits[run]
            messages.warn(None, f"asynctrack: {run!r} could not be finished\n{traceback.format_exc().rstrip()}")
    return min(pauses, default=None)


def _why() -> BaseException | None:
    """Find the exception that ends this process, as far as it can be known."""
    if (passing := sys.exception()) is not None:
        return passing
    if code := private.exit_code_of_child():  # from 3.13 on it is through with the exception by now
        return SystemExit(code)
    if _noted is not None:
        return _noted
    if hasattr(sys, "ps1"):  # at a prompt or in a notebook an error has ended a line, not the process
        return None
    error: BaseException | None = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    return error


def _register_with_threading() -> None:
    if not _registered["threading"]:
        private.call_when_main_thread_ends(_main_thread_has_ended)
        _registered["threading"] = True  # behind it: Ctrl-C may come in between, and to be called twice does no harm


def _register_with_multiprocessing() -> None:
    if not _registered["multiprocessing"]:
        private.call_when_child_ends(_finish, _LAST_FINALIZER)
        _registered["multiprocessing"] = True


def _child_begins() -> None:
    if _open:
        _register_with_threading()
        _register_with_multiprocessing()


def _is_child_of_multiprocessing() -> bool:
    process: Any = sys.modules.get("multiprocessing.process")
    return process is not None and process.parent_process() is not None


@fork.in_child
def _after_fork_in_child() -> None:
    _open.clear()
    _registered.update(threading=False, multiprocessing=False)


def _exit() -> None:
    try:
        _finish()
    finally:
        messages.close()


atexit.register(_exit)
