"""Patience: does what touches files on a thread that is left behind where their disk hangs. Runs in the caller.

Nothing ends who waits for such a disk, so at most one thread is left there: until it comes back nobody else is sent.

A disk that hangs and a machine that is busy are told apart by the kernel's word of the thread: who waits for a disk does not run, and who
waits for a processor or for the interpreter runs again and again, or is ready to.
"""

from __future__ import annotations

import _thread
import contextlib
import re
import time
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from asynctrack.aside import start_thread
from asynctrack.real_threads import allocate_lock

T = TypeVar("T")

# How long a thread is waited for that gets on, but slowly. Arbitrary.
_MOST_S: Final = 5.0
# Between two looks whether it gets on. Arbitrary.
_LOOK_S: Final = 0.1


class Patience:
    """Waits for what one run's files tell. May be used by any thread."""

    def __init__(self) -> None:
        self._away: _Call[Any] | None = None

    @property
    def is_over(self) -> bool:
        """Whether somebody was sent who has not come back."""
        return self._away is not None and not self._away.over

    def call(self, do: Callable[[], T], timeout_s: float, most_s: float = _MOST_S) -> T:
        """What `do` returns, or raises.

        Args:
            do: touches files.
            timeout_s: how long it may stand still.
            most_s: how long it may take in all, if that is longer.

        Raises:
            TimeoutError: it has taken too long, or an earlier one has not returned yet; it goes on, and nobody hears of it.
        """
        if self.is_over:
            raise TimeoutError("its disk does not answer")
        call = _Call(do)
        try:
            start_thread(call.run)
        except Exception:  # none can be had: the process ends, or there are too many
            call.run()
        if not call.wait(timeout_s, most_s):
            self._away = call
            raise TimeoutError(f"its disk has not answered for {timeout_s:g} s")
        return call.result()


class _Call(Generic[T]):
    def __init__(self, do: Callable[[], T]) -> None:
        self.done = allocate_lock()
        self.done.acquire()
        self.over = False
        self._thread = 0
        self._do = do
        self._found: list[T] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        self._thread = _thread.get_native_id()
        try:
            self._found.append(self._do())
        except BaseException as error:  # it is the caller's
            self._error = error
        finally:
            self.over = True
            with contextlib.suppress(RuntimeError):
                self.done.release()

    def wait(self, timeout_s: float, most_s: float) -> bool:
        """Whether it has returned before it has stood still for so long, or has taken too long in all."""
        end = time.monotonic() + max(timeout_s, most_s)
        until, before = time.monotonic() + timeout_s, ""
        while (left := min(until, end) - time.monotonic()) > 0:
            if self.done.acquire(timeout=min(_LOOK_S, left)):
                return True
            steps = _steps(self._thread)
            if steps is None or steps != before:
                before, until = steps or "", time.monotonic() + timeout_s
        return False

    def result(self) -> T:
        try:
            if self._error is not None:
                raise self._error
            return self._found[0]
        finally:
            self._error = None  # else its frames keep it alive, and it them


def _steps(thread: int) -> str | None:
    """How often a thread has gone to sleep, as the kernel counts it; None where it does not sleep, and always the same where that is not told."""
    if not thread:  # it has not begun
        return None
    try:
        with open(f"/proc/self/task/{thread}/status", encoding="ascii", errors="replace") as file:
            found = re.findall(r"^(?:State|\w*voluntary_ctxt_switches):\s*(\w+)", file.read(), re.MULTILINE)
    except Exception:  # there is no such place, or an audit hook is against it
        return ""
    return None if "R" in found else " ".join(found)
