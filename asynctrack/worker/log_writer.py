"""Log writer: what the worker has to say is written by a thread of its own, since the disk of its log may hang. Runs in the worker.

Imports the standard library only, and `logging`, which takes longer to import than the drain may wait, where there is something to say.
"""

from __future__ import annotations

import threading
from collections import deque

from asynctrack._system import fork

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

# More than so many lines do not wait for a disk; the others are left out. Arbitrary.
_MOST_WAITING: Final = 1000

_waiting: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
_there = threading.Semaphore(0)
_thread: threading.Thread | None = None
_starting = threading.Lock()


def warn(message: str, error: BaseException | None = None) -> None:
    """Log a warning. Never waits for the thread that writes it."""
    call(_log, message, error)


def call(write: Callable[..., object], *arguments: object) -> None:
    """Call what may wait for a disk on the thread that does; in the order of the calls."""
    if len(_waiting) >= _MOST_WAITING:
        return
    _waiting.append((write, arguments))
    _there.release()
    try:
        _see_to_a_thread()
    except RuntimeError:  # none can be started any more: the process is about to end
        _call_next()


def flush(timeout_s: float) -> None:
    """Wait until what was said is written, but not for ever."""
    written = threading.Event()
    call(written.set)
    written.wait(timeout_s)


def to_thread() -> None:
    """Let everything that is logged in this process be written to standard error by that thread."""
    import logging

    class LogWriter(logging.StreamHandler):  # type: ignore[type-arg]  # of whatever standard error is
        """A handler whose lines the thread writes."""

        def emit(self, record: logging.LogRecord) -> None:
            """Have a line written; never wait."""
            call(super().emit, record)

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", handlers=[LogWriter()])
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # it logs a line for every request


@fork.in_child
def _begin_anew() -> None:
    """Begin anew in a forked child: it has no such thread, what waits is its parent's to write, and the locks are as some thread had them."""
    global _waiting, _there, _thread, _starting
    _waiting, _there, _thread, _starting = deque(), threading.Semaphore(0), None, threading.Lock()


def _see_to_a_thread() -> None:
    global _thread
    if _thread is None or not _thread.is_alive():
        with _starting:
            if _thread is None or not _thread.is_alive():
                _thread = threading.Thread(target=_write, name="asynctrack-log", daemon=True)
                _thread.start()


def _write() -> None:
    while True:
        _call_next()


def _call_next() -> None:
    _there.acquire()
    write, arguments = _waiting.popleft()
    try:
        write(*arguments)
    except Exception:  # nobody is left to tell
        pass


def _log(message: str, error: BaseException | None) -> None:
    import logging

    logging.getLogger("asynctrack.worker").warning(message, exc_info=error)
