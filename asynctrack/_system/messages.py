"""Messages: what we say to the user, through one place that never blocks the caller and never raises. Runs in the caller.

`warn` may be called anywhere, also between a record's acceptance and the return of `log()`. A thread of ours hands each message to the logger
`asynctrack`. Where that has no handler, the message goes to standard error as it does by default, but past the stream's buffer and its lock. The
thread waits, without a lock, for streams that nobody reads (a terminal that is held, a full pipe). An error in a handler stays on that thread.
Messages that a hanging handler holds up are counted, and said later.

Messages of our other threads, to `asynctrack.delivery` and `asynctrack.worker`, take the same way: a delivery must not wait for a reader, nor meet
the lock of a stream as the interpreter ends. Their own handlers, filters and levels still apply.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import sys
import threading
import time
from collections.abc import Hashable, Iterator
from itertools import chain
from typing import Any, Final

from asynctrack._system import fork, native_threads, private
from asynctrack._system.background import BackgroundThread
from asynctrack._system.printable import printable
from asynctrack._system.throttle import EVERY_S, ONCE, Throttle
from asynctrack._system.wording import counted

# How long `finish()` and the end of the process wait for a reader.
LEAVE_S: Final = 1.0
# How many messages may wait; a reader that misses so many needs no more. Arbitrary.
_MOST: Final = 200
# A fork waits so long at most for a handler that has a stream's lock, which the child would find taken for ever.
_FORK_WAIT_S: Final = 0.2

_log = logging.getLogger("asynctrack")
_OF_THREADS: Final = tuple(logging.getLogger(f"asynctrack.{part}") for part in ("delivery", "worker"))
_throttle: Final = Throttle()
_lost = 0
_closed = False
_handling = native_threads.allocate_lock()
_passing: set[int] = set()  # records that are being handed to handlers
_forking: set[int] = set()  # threads that hold it while they fork


def warn(about: Hashable, text: str, *, every_s: float = EVERY_S) -> None:
    """Say something, unless the same was said less than `every_s` ago. Never waits, and never raises.

    Args:
        about: what it is about: messages about equal things are said once in `every_s`. None: always said.
        text: one sentence of plain text; more lines where there is a traceback.
        every_s: seconds until the next; `throttle.ONCE` says it once.
    """
    global _lost
    if about is not None and not _throttle.admit(about, every_s):
        return
    lost = f" (before this {counted(_lost, 'message was', 'messages were')} lost, since nobody read them)"
    if _thread.ask((text + lost if _lost else text, logging.WARNING)):
        _lost = 0
    else:
        _lost += 1


def warn_of_failure(doing: str, error: BaseException) -> None:
    """Say that a thread of ours has failed at something, and goes on; once in a while for each thing.

    Args:
        doing: what it was about, as the subject of a sentence: "looking after the worker".
        error: what was raised.
    """
    warn(("failure", doing), _failure(doing, error))


def due(about: Hashable) -> bool:
    """Return True if `warn` would say something about it."""
    return _throttle.due(about)


def start() -> None:
    """Start the thread that says messages, also those of our other loggers. Called before a record is accepted: see `background`."""
    for logger in _OF_THREADS:
        if _detour not in logger.filters:
            logger.filters.insert(0, _detour)  # before those of the user, which are asked on the other thread
    _thread.start()


def leaving(timeout_s: float = LEAVE_S) -> Iterator[float]:
    """Wait until all messages so far are said, at most `timeout_s`.

    Yields:
        Seconds to pause before asking again.
    """
    if _thread.waits and not _thread.start():
        for message in _thread.take_back():  # no thread can be started: what does not have to wait is said here
            with contextlib.suppress(Exception):
                _speak(message, patient=False)
    yield from _thread.until_done(timeout_s)


def leave(timeout_s: float = LEAVE_S) -> None:
    """Wait until all messages so far are said, at most `timeout_s`."""
    for pause in leaving(timeout_s):
        time.sleep(pause)


def warn_now(text: str) -> None:
    """Say a warning that answers a call of the user's, outside of `log()`: it is said when this returns, if it can be."""
    start()
    warn(None, text)
    leave()


def warn_once(text: str) -> None:
    """Say a warning, as `warn_now` does, once in this process."""
    if _throttle.admit(text, ONCE):
        warn_now(text)


def show(text: str) -> None:
    """Print a message that is no warning, as `warn_now` does: it goes to standard error and to no log."""
    start()
    _thread.ask((text, 0))
    leave()


def announce(text: str) -> None:
    """Print a message, as `show` does, without waiting for it."""
    start()
    _thread.ask((text, 0))


def close() -> None:
    """Say what can still be said at the end of the process, and let nothing of ours hold up the interpreter."""
    global _closed
    leave()
    _closed = True
    if _thread.busy:  # in a handler that hangs, whose lock `logging.shutdown` would wait for
        for handler in dict.fromkeys(chain(*map(_handlers, (_log, *_OF_THREADS)))):
            if handler.lock is None:
                continue
            if handler.lock.acquire(blocking=False):
                handler.lock.release()
            else:
                handler.createLock()


class _Detour(logging.Filter):
    """A filter that lets no record be handled where it is logged, but on the thread that says messages."""

    def filter(self, record: logging.LogRecord) -> bool:
        global _lost
        if id(record) in _passing:
            return True
        with contextlib.suppress(Exception):  # its arguments may raise anything; its handler will meet that
            record.msg, record.args = record.getMessage(), None
        if not _thread.ask(record):
            _lost += 1
        return False


def _speak(message: tuple[str, int] | logging.LogRecord, patient: bool = True) -> None:
    """Hand a message to its handlers, once they take it. Unless `patient`, drop it if they would have to be waited for."""
    if not isinstance(message, logging.LogRecord):
        text, level = message
        if not level:
            return _print(printable(text, keep="\n"), patient)
        message = _log.makeRecord(_log.name, level, __file__, 0, text, (), None)
    if isinstance(message.msg, str):
        message.msg = printable(message.msg, keep="\n")  # a path or a key in it may be anybody's
    _log_record(logging.getLogger(message.name), message, patient)


def _failed(error: BaseException) -> None:
    """Say that a message was not handed on: on standard error, since its handlers would fail again."""
    if _throttle.admit("failure"):
        _thread.ask((_failure("passing on a message", error), 0))


def _failure(doing: str, error: BaseException) -> str:
    return f"asynctrack: {doing} failed, and goes on: {f'{type(error).__name__}: {error}'.removesuffix(': ')}"


def _log_record(logger: logging.Logger, record: logging.LogRecord, patient: bool) -> None:
    handlers, last = _handlers(logger), logging.lastResort
    here = not handlers and private.writes_to_stderr_of_the_moment(last)
    streams = [sys.stderr] if here else [getattr(handler, "stream", None) for handler in handlers]
    if not all(_has_reader(stream, patient) for stream in streams):
        return
    if _closed or not logger.isEnabledFor(record.levelno):
        return
    _passing.add(id(record))
    try:
        if last is None or not here:
            with _handling:
                logger.handle(record)
        elif record.levelno >= last.level and logger.filter(record):
            whose = "" if logger is _log else "asynctrack: "  # no logger's name is there to say it
            _print(whose + last.format(record), patient)
    finally:
        _passing.discard(id(record))


def _handlers(logger: logging.Logger | None = _log) -> list[logging.Handler]:
    """Return the handlers that get what is logged to a logger."""
    found: list[logging.Handler] = []
    while logger is not None:
        found += logger.handlers
        logger = logger.parent if logger.propagate else None
    return found


def _print(text: str, patient: bool) -> None:
    """Write a line to standard error: past Python's own stream, whose lock the interpreter takes at its end."""
    stream: Any = sys.stderr
    pythons: Any = sys.__stderr__
    if stream is None:
        return
    if stream is pythons:
        left = (text + "\n").encode(stream.encoding or "utf-8", "backslashreplace")
        while left and _has_reader(stream, patient):
            left = left[os.write(stream.fileno(), left) :]
    else:  # a test, a notebook or a program has put another there
        with _handling:
            stream.write(text + "\n")
            stream.flush()


def _has_reader(stream: Any, patient: bool = True) -> bool:
    """Return True if a stream takes something, as far as that can be known. Waits for it without the stream's lock."""
    try:
        fd = stream.fileno()
    except Exception:  # there is no such stream, or it is none of the system's
        return True
    poll = native_threads.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(None if patient else 0))


@fork.before
def _before_fork() -> None:
    if _handling.acquire(timeout=_FORK_WAIT_S):
        _forking.add(threading.get_ident())


@fork.in_parent
def _after_fork_in_parent() -> None:
    if threading.get_ident() in _forking:
        _forking.discard(threading.get_ident())
        _handling.release()


@fork.in_child
def _after_fork_in_child() -> None:
    global _handling, _lost
    _handling = native_threads.allocate_lock()
    _forking.clear()
    _passing.clear()
    _lost = 0


_detour: Final = _Detour()
_thread: BackgroundThread[tuple[str, int] | logging.LogRecord] = BackgroundThread(_speak, _MOST, failed=_failed)
