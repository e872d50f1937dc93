"""Disk timeout: touches files on a thread that is left behind where their disk hangs. Runs in the caller.

No signal interrupts a thread that waits for such a disk. A call with a deadline goes through `DiskTimeout`: at most one thread is left behind, and
no other is sent until it returns. A call without a deadline, such as opening a run, goes through `InterruptibleCall`: it waits as long as it takes
and says so, and Ctrl-C ends the wait.

The kernel tells a disk that hangs from a machine that is busy: a thread that waits for a disk does not run, while one that waits for a processor
or for the interpreter runs again and again, or is ready to.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import re
import time
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from asynctrack._system import messages
from asynctrack._system.background import start_thread
from asynctrack._system.native_threads import allocate_lock
from asynctrack._system.wording import in_figures

# A call that takes longer waits for a disk, and a message says so. A run that is resumed waits 5 s for the worker of its earlier session.
WARN_AFTER_S: Final = 6.0
# How long an interrupted call waits until its work is undone. Arbitrary: it takes milliseconds on a disk that works.
_UNDO_WAIT_S: Final = 1.0

T = TypeVar("T")

# How long a thread is waited for that gets on, but slowly. Arbitrary.
_MOST_S: Final = 5.0
# Between two checks that it advances. Arbitrary.
_POLL_S: Final = 0.1


class DiskTimeout:
    """Calls functions that touch one run's files, with a deadline. Any thread may use it."""

    def __init__(self) -> None:
        self._away: _FileCall[Any] | None = None

    @property
    def is_over(self) -> bool:
        """Return True if an earlier call has not returned yet."""
        return self._away is not None and not self._away.over

    def call(self, do: Callable[[], T], timeout_s: float, most_s: float = _MOST_S) -> T:
        """Call `do` on another thread, and return what it returns or raise what it raises.

        Args:
            do: touches files.
            timeout_s: how long the call may stand still.
            most_s: how long it may take in all, if that is longer.

        Raises:
            TimeoutError: the call has taken too long, or an earlier one has not returned yet. It goes on, and its result is dropped.
        """
        if self.is_over:
            raise TimeoutError("its disk does not answer")
        call = _FileCall(do)
        try:
            start_thread(call.run)
        except Exception:  # none can be had: the process ends, or there are too many
            call.run()
        if not call.wait(timeout_s, most_s):
            self._away = call
            raise TimeoutError(f"its disk has not answered for {in_figures(timeout_s)} s")
        return call.result()


class InterruptibleCall(Generic[T]):
    """One call that touches files, however long their disk takes. One thread waits for it, and may be interrupted at any moment.

    Args:
        do: touches the files.
        undo: called on any thread with the result of `do` if nobody wants it any more.
        path: the path that the message to the user names.
    """

    def __init__(
        self, do: Callable[[], T], path: str | os.PathLike[str], undo: Callable[[T], object] = lambda _: None
    ) -> None:
        self._call = _FileCall(do)
        self._undo = undo
        self._path = path
        self._begun = self._unwanted = False
        self._turn = allocate_lock()
        self._ended = allocate_lock()
        self._ended.acquire()

    def wait(self) -> T:
        """Wait for the call, and return what it returns or raise what it raises."""
        self._begun = True
        try:
            start_thread(self._run)
        except Exception:  # none can be had: the process ends, or there are too many
            self._run()
        if not self._call.done.acquire(timeout=WARN_AFTER_S):
            messages.warn_now(
                f"asynctrack: waiting for {self._path}: its disk does not answer; fix that (or its network), or press Ctrl-C and use a directory on another disk"
            )
            self._call.done.acquire()
        return self._call.result()

    def drop(self) -> None:
        """Undo what the call has done, or will do; wait for that a little. Without effect where the call has not begun."""
        self._unwanted = True
        if not self._begun:
            return
        with contextlib.suppress(Exception):  # its disk does not answer, or no thread can be had
            DiskTimeout().call(self._settle, _UNDO_WAIT_S)
        self._ended.acquire(timeout=_UNDO_WAIT_S)

    def _run(self) -> None:
        self._call.run()
        self._settle()
        self._ended.release()

    def _settle(self) -> None:
        """Undo the call once, if it is done and not wanted. Each side sets its flag first and then looks at the other's, so one of them undoes it."""
        with self._turn:
            if self._unwanted and self._call.over:
                for found in self._call.take_back():
                    with contextlib.suppress(Exception):  # nobody is there to catch it
                        self._undo(found)


class _FileCall(Generic[T]):
    def __init__(self, do: Callable[[], T]) -> None:
        self.done = allocate_lock()
        self.done.acquire()
        self.over = False
        self._thread = 0
        self._do = do
        self._found: list[T] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        """Make the call on this thread, and keep what it returns or raises."""
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
        """Return True if the call returns before it has stood still for `timeout_s`, or has taken `most_s` in all."""
        end = time.monotonic() + max(timeout_s, most_s)
        until, before = time.monotonic() + timeout_s, ""
        while (left := min(until, end) - time.monotonic()) > 0:
            if self.done.acquire(timeout=min(_POLL_S, left)):
                return True
            steps = _steps(self._thread)
            if steps is None or steps != before:
                before, until = steps or "", time.monotonic() + timeout_s
        return False

    def result(self) -> T:
        """Return the result, or raise what the call raised."""
        try:
            if self._error is not None:
                raise self._error
            return self._found[0]
        finally:
            self._error = None  # else its frames keep it alive, and it them

    def take_back(self) -> list[T]:
        """Return the result, once."""
        found, self._found = self._found, []
        return found


def _steps(thread: int) -> str | None:
    """Return how often a thread has gone to sleep, as the kernel counts it; None where it does not sleep. The same each time where the kernel does not say."""
    if not thread:  # it has not begun
        return None
    try:
        with open(f"/proc/self/task/{thread}/status", encoding="ascii", errors="replace") as file:
            found = re.findall(r"^(?:State|\w*voluntary_ctxt_switches):\s*(\w+)", file.read(), re.MULTILINE)
    except Exception:  # there is no such place, or an audit hook is against it
        return ""
    return None if "R" in found else " ".join(found)
