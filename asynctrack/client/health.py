"""Health: says while a run is open that its journal cannot be written, which of its backends get nothing, and why. On a thread of ours, in the caller.

It reads the cursors, which lie on the run's disk. That may hang: then this thread does, and nothing else.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from asynctrack._system import fork, messages
from asynctrack._system.background import BackgroundThread
from asynctrack.journal.cursor import Cursor, load_cursor

# A backend that has failed for less than this may yet mend itself.
PATIENCE_S = 4.0
# Between two looks, which take about 0.1 ms for each backend. Arbitrary.
POLL_S = 1.0
# What the looks may cost, as a part of a core, however many runs are open.
_MOST_OF_A_CORE: Final = 0.005
# How long `reading` waits for a disk.
_READ_S: Final = 1.0
# How many items may wait for the thread. Arbitrary: more than a process has open runs.
_MOST_ASKED: Final = 1000

_watched: set[HealthMonitor] = set()
_pause_s = POLL_S


class HealthMonitor:
    """Looks after the backends of a run.

    Args:
        run: its directory.
        names: of the backends.
        warn: called with the name of a backend and its cursor, once for each that has failed for some seconds.
        trouble: what keeps the worker from the journal, in words; None where nothing does. Reads memory only.
        warn_of_trouble: called with these words when it has lasted for some seconds.
    """

    def __init__(
        self,
        run: Path,
        names: Iterable[str],
        warn: Callable[[str, Cursor], object],
        trouble: Callable[[], str | None],
        warn_of_trouble: Callable[[str], object],
    ) -> None:
        self._run = run
        self._names = list(names)
        self._warn = warn
        self._trouble = trouble
        self._warn_of_trouble = warn_of_trouble
        self._trouble_since: float | None = None
        self._failing_since: dict[str, float] = {}

    def start(self) -> None:
        """Look from now on. Before a record is accepted: see `background`."""
        if _thread.start():
            _watched.add(self)
            _thread.ask(lambda: None)  # wakes the thread: without a watched run it waits without a limit

    def stop(self) -> None:
        """Stop looking: the run has ended, and what is left is said with its statistics."""
        _watched.discard(self)
        # These functions hold the run: without them it is freed with its last reference.
        self._warn, self._trouble, self._warn_of_trouble = _nothing, _nothing, _nothing

    def poll(self) -> None:
        """Look at the journal, and at each backend that nothing was said of."""
        self._poll_journal()
        for name in list(self._names):
            cursor = load_cursor(self._run, name)
            since = self._failing_since.setdefault(name, time.monotonic())
            if cursor.last_error is None:
                del self._failing_since[name]
            elif time.monotonic() - since >= PATIENCE_S and self in _watched:
                self._names.remove(name)
                self._warn(name, cursor)

    def _poll_journal(self) -> None:
        what, now = self._trouble(), time.monotonic()
        if what is None:
            self._trouble_since = None
        elif self._trouble_since is None:
            self._trouble_since = now
        elif now - self._trouble_since >= PATIENCE_S and self in _watched:
            self._trouble_since = float("inf")  # say it once, until the trouble has passed
            self._warn_of_trouble(what)


def _nothing(*_: object) -> None:
    pass


def reading(read: Callable[[], object]) -> Iterator[float]:
    """Read files of a run on the thread, and wait for it a second at most.

    Yields:
        Seconds to pause.
    """
    if _thread.start() and _thread.ask(read):
        yield from _thread.until_done(_READ_S)


def _go_round() -> None:
    global _pause_s
    begun = time.thread_time()
    for monitor in _watched.copy():
        with contextlib.suppress(Exception):  # a disk that fails, or a run that is gone
            monitor.poll()
    _pause_s = max(POLL_S, (time.thread_time() - begun) / _MOST_OF_A_CORE)


_thread: BackgroundThread[Callable[[], object]] = BackgroundThread(
    lambda read: read(),
    _MOST_ASKED,
    failed=functools.partial(messages.warn_of_failure, "looking at the files of the open runs"),
    idle=_go_round,
    idle_after=lambda: _pause_s if _watched else None,
)

fork.in_child(_watched.clear)
