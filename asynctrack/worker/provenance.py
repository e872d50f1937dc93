"""Provenance: has a process of low priority find out where runs come from. Runs in the worker; the process is `asynctrack/provenance/main.py`.

One process serves all runs that begin in one place within a minute: a program may open a thousand. It writes the files of those that begin while it looks;
of those that begin later the worker writes them, from what that process has found.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import sys
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from asynctrack._system.background import start_thread
from asynctrack._system.spawn import spawn
from asynctrack.journal.environment_file import VERSION
from asynctrack.journal.manifest import now_iso
from asynctrack.provenance import run_place

# So long what was found counts for other runs of the same place: a program may be open for days, and its code changes.
_COUNTS_S: Final = 60.0
# A run that was opened longer ago is one of a worker that has died, and what is found now may not be what it began with.
_FRESH_S: Final = 60.0
# How many places are known at once, and how much is read of what a process has found. Arbitrary: the packages and a diff take 1.2 MiB at most.
_MOST_PLACES: Final = 16
_MOST_BYTES: Final = 8 << 20
_PIECE_BYTES: Final = 1 << 16
_IMPLEMENTATIONS: Final = {"cpython": "CPython", "pypy": "PyPy"}

_log = logging.getLogger("asynctrack.worker")


class _LookedAt(NamedTuple):
    """Says what a process looks at."""

    directory: str
    script: str | None
    diff: bool


class _Discovered(NamedTuple):
    """Holds what it has found: about all runs of the place, and what was not committed."""

    about: dict[str, Any]
    patch: bytes


class _AskingRun(NamedTuple):
    """Names a run that wants to know."""

    run: str
    identity: tuple[int, int]
    facts: dict[str, Any]


class Provenance:
    """Sees to it that runs get to know where they come from. From any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._looks: dict[_LookedAt, _Search] = {}

    def note(self, run: str, environment: Mapping[str, Any], limits: Mapping[str, float]) -> None:
        """Have it found out where a run comes from, unless it is not to be, or was.

        Args:
            run: its directory.
            environment: what its start says.
            limits: its settings for the worker.
        """
        place = _place(environment, limits)
        if place is None or not _is_fresh(environment.get("opened_at")):
            return
        try:
            found = os.stat(run)
            waiting = _AskingRun(run, (found.st_dev, found.st_ino), _facts(environment))
            with self._lock:
                look = self._looks.get(place)
                if look is None or look.is_over():
                    self._looks.pop(place, None)
                    while len(self._looks) >= _MOST_PLACES:
                        del self._looks[next(iter(self._looks))]
                    self._looks[place] = _Search(place, waiting)
                    return
            look.add(waiting)
        except (OSError, RuntimeError) as error:  # no process, no thread, no room: the run does without
            _log.info("it is not known where %s comes from: %s", run, error)


class _Search:
    """One process that looks at one place, for a first run and for others.

    Raises:
        OSError: it cannot be started.
        RuntimeError: no thread can be.
    """

    def __init__(self, place: _LookedAt, first: _AskingRun) -> None:
        self._started_at = time.monotonic()
        self._lock = threading.Lock()
        self._found: _Discovered | None = None
        self._waiting = [first]
        self._sends = False
        theirs, self._orders = os.pipe()
        self._answer, stdout = os.pipe()
        null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        try:
            spawn("provenance/main.py", [], log_path=None, stdin=theirs, stdout=stdout, stderr=null)
            rest = self._send(_line(_job(place)) + _line({"number": 0, **first._asdict()}))
            start_thread(lambda: self._serve(rest))
        except BaseException:
            os.close(self._orders)
            os.close(self._answer)
            raise
        finally:
            for fd in (theirs, stdout, null):
                os.close(fd)

    def is_over(self) -> bool:
        """Return whether what it has found does not count any more, or it was killed and has found nothing."""
        found = self._found
        return time.monotonic() - self._started_at > _COUNTS_S or (found is not None and not found.about)

    def add(self, waiting: _AskingRun) -> None:
        """Let another run know what it finds."""
        with self._lock:
            if self._found is None:
                line = _line({"number": len(self._waiting), **waiting._asdict()})
                self._waiting.append(waiting)
                if self._sends and len(line) <= select.PIPE_BUF:
                    with contextlib.suppress(OSError):  # it has ended: then it is done here
                        os.write(self._orders, line)
                return
        _keep(waiting, self._found)

    def _send(self, order: bytes) -> bytes:
        """Put what it is to do into its pipe at once: this worker may end before a thread of it has had a turn. Return what had no room."""
        written = 0
        os.set_blocking(self._orders, False)
        with contextlib.suppress(OSError):  # it has ended
            written = os.write(self._orders, order)
        os.set_blocking(self._orders, True)
        return order[written:]

    def _serve(self, rest: bytes) -> None:
        """Say the rest of what it is to do, hear what it has found, and do what it has not done itself."""
        with contextlib.suppress(OSError):  # it has ended
            left = memoryview(rest)
            while left:
                left = left[os.write(self._orders, left) :]
            os.set_blocking(self._orders, False)
            self._sends = True
        heard = bytearray()
        with contextlib.suppress(OSError):
            while len(heard) < _MOST_BYTES and (piece := os.read(self._answer, _PIECE_BYTES)):
                heard += piece
        line, _, patch = bytes(heard).partition(b"\n")
        try:
            answer = json.loads(line)
            found, done = _Discovered(answer["found"], patch), set(answer["done"])
        except (ValueError, LookupError, TypeError):  # it was killed
            found, done = _Discovered({}, b""), set()
        with self._lock:
            self._found, self._sends = found, False
            waiting, self._waiting = self._waiting, []
        os.close(self._orders)
        os.close(self._answer)
        for number, one in enumerate(waiting):
            if number not in done:
                _keep(one, found)


def _keep(waiting: _AskingRun, found: _Discovered) -> None:
    """Write the files of a run, from what was found for another."""
    if not found.about:
        return
    with contextlib.suppress(OSError):  # it was removed, or its disk is full
        fd = run_place.open_run(waiting.run, waiting.identity)
        try:
            run_place.keep(fd, {**waiting.facts, **found.about}, found.patch)
        finally:
            os.close(fd)


def _place(environment: Mapping[str, Any], limits: Mapping[str, float]) -> _LookedAt | None:
    """Return what is to be looked at; None where the run does not want it."""
    directory, script = environment.get("directory"), environment.get("script")
    if not limits.get("environment") or not isinstance(directory, str):
        return None
    return _LookedAt(directory, script if isinstance(script, str) else None, bool(limits.get("diff")))


def _job(place: _LookedAt) -> dict[str, Any]:
    prefixes = sorted({sys.prefix, sys.base_prefix} - {"/"})
    return {**place._asdict(), "sys_path": [path for path in sys.path if path], "prefixes": prefixes}


def _facts(environment: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the run itself has said."""
    return {
        "version": VERSION,
        "collected_at": now_iso(),
        "opened_at": environment.get("opened_at"),
        "script": environment.get("script"),
        "arguments": environment.get("command"),
        "directory": environment.get("directory"),
        "python": environment.get("python"),
        "implementation": _IMPLEMENTATIONS.get(sys.implementation.name, sys.implementation.name),
        "executable": sys.executable,
    }


def _is_fresh(opened_at: object) -> bool:
    try:
        age_s = (datetime.now(UTC) - datetime.fromisoformat(str(opened_at))).total_seconds()
    except (ValueError, TypeError):
        return False
    return abs(age_s) < _FRESH_S


def _line(order: Mapping[str, Any]) -> bytes:
    return json.dumps(order).encode() + b"\n"
