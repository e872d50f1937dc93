"""The calls of a process that logs at a rate, in a file that it shares with the process that measures it. They survive when it is killed, or hangs."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic_ns, sleep
from typing import Final, NamedTuple

# In 8 byte words: 1 when the first call has been made, 1 when it shall end, then three words for each call.
_READY, _END, _FIRST, _EACH = 0, 1, 2, 3
# More than 1,000 a second for as long as a process may take.
_MOST: Final = 200_000
_BYTES: Final = 8 * (_FIRST + _EACH * _MOST)
_RETURNED, _RAISED = 1, 2


class Call(NamedTuple):
    """One call, on the machine's monotonic clock: `ended_ns` is 0 while it has not come back."""

    began_ns: int
    ended_ns: int
    returned: bool
    raised: bool


class Calls:
    """The record of the calls, as both processes see it."""

    def __init__(self, words: memoryview) -> None:
        self._words = words

    @property
    def ready(self) -> bool:
        return bool(self._words[_READY])

    def end(self) -> None:
        """Ask the process that logs to finish."""
        self._words[_END] = 1

    def made(self) -> Iterator[Call]:
        """Yield all calls so far, in order."""
        for at in range(_FIRST, _BYTES // 8, _EACH):
            began_ns, ended_ns, outcome = self._words[at : at + _EACH]
            if not began_ns:
                return
            yield Call(began_ns, ended_ns, outcome == _RETURNED, outcome == _RAISED)

    def make(self, call: Callable[[int], object], rate: int, settled_s: float) -> None:
        """Call at this rate, with numbers from 0, until asked to end; the first call well before the others. What it raises is noted."""
        pause_ns = 1_000_000_000 // rate
        next_ns = 0
        for number in range(_MOST):
            self._make(call, number)
            if number == 0:
                sleep(settled_s)
                self._words[_READY] = 1
            if self._words[_END]:
                return
            next_ns = max(next_ns + pause_ns, monotonic_ns())
            sleep(max(0, next_ns - monotonic_ns()) / 1e9)

    def _make(self, call: Callable[[int], object], number: int) -> None:
        words, at = self._words, _FIRST + number * _EACH
        words[at] = monotonic_ns()
        outcome = _RETURNED
        try:
            call(number)
        except Exception:
            outcome = _RAISED
        words[at + 1] = monotonic_ns()
        words[at + 2] = outcome


@contextmanager
def calls(path: Path) -> Iterator[Calls]:
    """Open the file, and make it where there is none."""
    with path.open("a+b") as file:
        file.truncate(_BYTES)
        with mmap.mmap(file.fileno(), _BYTES) as mapped, memoryview(mapped) as raw, raw.cast("Q") as words:
            yield Calls(words)
