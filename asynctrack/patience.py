"""Patience: does what touches files on a thread that is left behind where their disk hangs. Runs in the caller.

Nothing ends who waits for such a disk, so at most one thread is left there: until it comes back nobody else is sent.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from asynctrack.aside import start_thread
from asynctrack.real_threads import allocate_lock

T = TypeVar("T")


class Patience:
    """Waits for what one run's files tell. May be used by any thread."""

    def __init__(self) -> None:
        self._away: _Call[Any] | None = None

    @property
    def is_over(self) -> bool:
        """Whether somebody was sent who has not come back."""
        return self._away is not None and not self._away.over

    def call(self, do: Callable[[], T], timeout_s: float) -> T:
        """What `do` returns, or raises.

        Raises:
            TimeoutError: it has not returned in that time, or an earlier one has not yet; it goes on, and nobody hears of it.
        """
        if self.is_over:
            raise TimeoutError("its disk does not answer")
        call = _Call(do)
        try:
            start_thread(call.run)
        except Exception:  # none can be had: the process ends, or there are too many
            call.run()
        if not call.done.acquire(timeout=timeout_s):
            self._away = call
            raise TimeoutError(f"its disk has not answered for {timeout_s:g} s")
        return call.result()


class _Call(Generic[T]):
    def __init__(self, do: Callable[[], T]) -> None:
        self.done = allocate_lock()
        self.done.acquire()
        self.over = False
        self._do = do
        self._found: list[T] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._found.append(self._do())
        except BaseException as error:  # it is the caller's
            self._error = error
        finally:
            self.over = True
            with contextlib.suppress(RuntimeError):
                self.done.release()

    def result(self) -> T:
        try:
            if self._error is not None:
                raise self._error
            return self._found[0]
        finally:
            self._error = None  # else its frames keep it alive, and it them
