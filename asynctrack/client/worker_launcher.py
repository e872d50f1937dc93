"""Worker launcher: starts the worker process of a host, and learns whether it has started. Runs in the caller.

A worker's first streams are a pipe to its caller. It says one byte when it serves, and then has streams of its own; what it says before that
is why it could not, and the pipe's end without that byte is its death.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posix  # eventlet's `os.read` waits for bytes where there are none
import time
from collections import deque
from typing import Final

from asynctrack._system import locks
from asynctrack._system.spawn import spawn
from asynctrack.queue.shm_paths import LOCK_NAME, SERVES

# How long a worker may take until it has its lock. Until then a second one would only wait for that lock.
START_GRACE_S: Final = 1.0
# Where one worker after the other dies before it serves, the wait doubles up to this.
_LONGEST_GRACE_S: Final = 15.0
# One that has served and died is replaced at once, but for many in a short time: who is killed again is not to wait, and a worker that dies of what it finds
# is not to keep a core busy. So many starts in so many seconds, and from then on the pause between two, in seconds. Arbitrary: a start takes 0.1 s of a core.
_PAUSES: Final = ((20, 300.0, 15.0), (5, 10.0, 2.0))
# After so many that died in a row before they served, no other is started; after fewer where they said why, since a killed process says nothing.
_MOST_STILLBORN: Final = 4
_MOST_THAT_SAID_WHY: Final = 2
# One that neither serves nor dies for this long hangs, perhaps in the disk of its interpreter. Arbitrary: a busy machine starts one in 2 s.
_LONGEST_START_S: Final = 10.0
# Errors that another try may not meet: processes, memory or descriptors were short.
_SHORT: Final = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
# How much of what a worker said is read, and how much of it is told.
_MOST_OUTPUT_BYTES: Final = 64 << 10
_LONGEST_LINE: Final = 200


class WorkerLauncher:
    """Starts one worker process after the other for a host. Not thread-safe: its host sees to it.

    Attributes:
        why: what kept the last one from starting, as far as anybody said so.

    Args:
        directory: the host's.
    """

    def __init__(self, directory: str) -> None:
        self.why = ""
        self._directory = directory
        self._report = -1
        self._pipe: os.stat_result | None = None
        self._output = b""
        self._reason_reported = False
        self._stillborn = 0
        self._has_served = False
        self._grace_s = START_GRACE_S
        self._started_at = -START_GRACE_S
        self._starts: deque[float] = deque(maxlen=_PAUSES[0][0])
        self._trying_since: float | None = None

    def __del__(self) -> None:
        try:
            self._close()  # a host may be given up before its worker has reported
        except Exception:  # the interpreter ends
            pass

    def start(self, log_path: str, *, again: bool = False) -> None:
        """Start one, unless one serves, or the last was started only just now and may yet serve; `again`: also then.

        Raises:
            OSError: it cannot be started.
        """
        self.read_report()
        now = time.monotonic()
        age_s = now - self._started_at
        if self._has_served and locks.is_taken(os.path.join(self._directory, LOCK_NAME)):
            return  # it has taken its lock since somebody looked
        if self._is_too_soon(now, age_s) and not again:
            return
        died_young = not self._has_served and age_s < 2 * self._grace_s + START_GRACE_S
        self._grace_s = min(2 * self._grace_s, _LONGEST_GRACE_S) if died_young else START_GRACE_S
        self._started_at = now
        self._starts.append(now)
        self._trying_since = self._trying_since or now
        self._close()
        self._spawn(log_path)

    def read_report(self) -> None:
        """Hear what the last one says."""
        while self._report >= 0:
            if not self._is_ours():
                self._report = -1  # the program has closed it, and the number may be of another file by now
                return
            try:
                said = posix.read(self._report, _MOST_OUTPUT_BYTES)
            except BlockingIOError:
                return
            self._output = (self._output + said)[-_MOST_OUTPUT_BYTES:]
            if not said or SERVES in said:
                self._close()
                self._note(serves=SERVES in said)

    def hopeless(self) -> bool:
        """Return True if there is no use in starting another."""
        self.read_report()
        tried_s = 0.0 if self._trying_since is None else time.monotonic() - self._trying_since
        most = _MOST_THAT_SAID_WHY if self._reason_reported else _MOST_STILLBORN
        return self._stillborn >= most or tried_s > _LONGEST_START_S

    def forget(self) -> None:
        """Forget the started worker in a forked child: it is the parent's. No lock, no system call."""
        self._report = -1
        self._started_at, self._grace_s = -START_GRACE_S, START_GRACE_S  # a child may end before it could try again
        self._has_served = False
        self._starts.clear()

    def _note(self, *, serves: bool) -> None:
        """Note that the last one serves, or has died before it did."""
        self._stillborn = 0 if serves else self._stillborn + 1
        self._has_served = serves
        if serves:
            self._trying_since = None
        else:
            why = _last_line(self._output)
            self.why, self._reason_reported = why or "it ended at once and said nothing", bool(why)

    def _is_too_soon(self, now: float, age_s: float) -> bool:
        """Return whether another is not to be started yet, so long after the last."""
        if self._has_served:
            return age_s < self._pause_s(now)
        return age_s <= self._grace_s and (self._report >= 0 or not self._stillborn)

    def _pause_s(self, now: float) -> float:
        """Return the pause between the starts of two workers that have served, by how many were started of late."""
        for most, within_s, pause_s in _PAUSES:
            if sum(now - started < within_s for started in self._starts) >= most:
                return pause_s
        return 0.0

    def _spawn(self, log_path: str) -> None:
        self._has_served = False
        ours, theirs = os.pipe()
        os.set_blocking(ours, False)
        try:
            spawn("worker/main.py", [self._directory, log_path], log_path=None, stdout=theirs, stderr=theirs)
        except OSError as error:
            os.close(ours)
            self.why, self._reason_reported = str(error), True
            if error.errno not in _SHORT:
                self._stillborn += 1
            raise
        finally:
            os.close(theirs)
        self._report, self._pipe, self._output = ours, os.fstat(ours), b""

    def _is_ours(self) -> bool:
        with contextlib.suppress(OSError):
            return self._pipe is not None and os.path.samestat(os.fstat(self._report), self._pipe)
        return False

    def _close(self) -> None:
        if self._report >= 0 and self._is_ours():
            os.close(self._report)
        self._report = -1


def _last_line(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1][:_LONGEST_LINE] if lines else ""
