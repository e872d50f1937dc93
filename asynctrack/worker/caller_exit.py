"""Caller exit: how a process that logs has ended, as the kernel tells who is not its parent. Runs in the worker. Standard library only.

A descriptor of the process is opened while it holds its ring's lock, so no other that is given its number is taken for it. Linux 6.15 and newer keep
the exit code for who has such a descriptor; before that it can be read until the parent has asked for it, so it may stay unknown.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import time

from asynctrack._system import private
from asynctrack.queue.ring import Ring

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    from weakref import ref
else:
    ref = private.weak_reference()

# `ioctl(PIDFD_GET_INFO)` of <linux/pidfd.h>, with `struct pidfd_info` as it was first: 64 bytes, that begin with the mask of what is asked for.
_GET_INFO = 3 << 30 | 64 << 16 | 0xFF << 8 | 11
_INFO = struct.Struct("Q52xi")
_ASK_FOR_EXIT = 1 << 3
# Where `/proc/PID/stat` has the state and the exit code, behind the name.
_STATE, _EXIT_CODE = 0, 49
# A zombie, and what the kernel is about to forget.
_GONE = (b"Z", b"X")
# Between two looks at which signals a process handles; one takes 20 us.
_POLL_INTERVAL_S = 0.4
_SIGTERM = 15
# Signals by which a process is told to end: SIGHUP and SIGINT beside it.
_ASKED_TO_END = (1, 2, _SIGTERM)

_known: dict[int, ref[Caller]] = {}


class Caller:
    """A process that logs; one for all its rings."""

    def __init__(self, pid: int, fd: int) -> None:
        self.pid = pid
        self._fd = fd
        self._proc = _proc_of(fd)
        self._caught = 0
        self._poll_at = 0.0
        self._status: int | None = None
        self._asked = False
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)

    def __del__(self) -> None:
        os.close(self._fd)
        if (known := _known.get(self.pid)) is not None and known() is None:  # else it is another's
            _known.pop(self.pid, None)

    def poll(self) -> None:
        """See which signals it handles: who dies of one of those has raised it again when all was done, as servers do."""
        if (now := time.monotonic()) < self._poll_at:
            return
        self._poll_at = now + _POLL_INTERVAL_S
        try:
            with open(f"{self._proc}/status", "rb") as file:
                caught = file.read().partition(b"\nSigCgt:")[2].split(maxsplit=1)
            self._caught = int(caught[0], 16)
        except (OSError, ValueError, IndexError):
            pass  # it has ended, or cannot be seen from here

    def has_ended(self) -> bool:
        """Return whether it has ended; then its exit status is asked for, once."""
        if not self._asked and self._poll.poll(0):
            self._asked, self._status = True, _exit_status(self._fd, self._proc)
        return self._asked

    def is_ending(self) -> bool:
        """Return whether it has ended, or only some of its threads still are on their way out: its children have another parent by then."""
        return self.has_ended() or _stat_of(self._proc)[0] in _GONE

    def why(self) -> str | None:
        """Say why its end is a failure; None where it is none, where the process goes on, or nobody knows."""
        if not self.has_ended() or self._status is None:
            return None
        if number := self._status & 0x7F:
            return None if number in _ASKED_TO_END and self._handled(number) else f"killed by {_name(number)}"
        code = self._status >> 8 & 0xFF
        return f"exit code {code}" if code else None

    def is_well(self) -> bool:
        """Return whether it is known to have ended as it wanted by a signal that it handled.

        A process that dies of a SIGTERM which it handled half a second before has raised it again when all was done, as uvicorn does.
        """
        return self.has_ended() and bool(self._status) and self.why() is None

    def went_silently(self) -> bool:
        """Return whether it is known to have ended with exit code 0."""
        return self.has_ended() and self._status == 0

    def was_killed(self) -> bool:
        """Return whether a signal is known to have ended it."""
        return bool((self._status or 0) & 0x7F)

    def was_terminated(self) -> bool:
        """Return whether SIGTERM is known to have ended it."""
        return self.has_ended() and (self._status or 0) & 0x7F == _SIGTERM

    def _handled(self, number: int) -> bool:
        return bool(self._caught >> (number - 1) & 1)


def caller_of(ring: Ring) -> Caller | None:
    """Find the process that has made a ring; None where it has ended, cannot be seen from here, or is this one."""
    pid = ring.held_by()
    if not pid or not hasattr(os, "pidfd_open"):
        return None
    found = _known.get(pid)
    known = None if found is None else found()
    if known is not None and not known.has_ended():
        return known
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return None
    caller = Caller(pid, fd)
    if ring.held_by() != pid:
        return None
    _known[pid] = ref(caller)
    return caller


def _proc_of(fd: int) -> str:
    """Find where `/proc` has a process, in whatever PID namespace that tells of; a path that leads nowhere where it has not."""
    try:
        with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
            return f"/proc/{int(file.read().partition(b'Pid:')[2].split()[0])}"
    except (OSError, ValueError, IndexError):
        return "/proc/0"


def _exit_status(fd: int, proc: str) -> int | None:
    """Find what `wait` tells its parent; None where nobody can know."""
    status = _kept_status(fd)
    if status is None:
        status = _status_of_zombie(proc)
    return _kept_status(fd) if status is None else status  # its parent may have asked for it between the two


def _kept_status(fd: int) -> int | None:
    """Find what the kernel keeps once the parent has asked for it; None before that, and where the kernel is older."""
    try:
        told = bytearray(_INFO.pack(_ASK_FOR_EXIT, 0))
        fcntl.ioctl(fd, _GET_INFO, told)
    except OSError:
        return None
    mask, status = _INFO.unpack(told)
    return int(status) if mask & _ASK_FOR_EXIT else None


def _status_of_zombie(proc: str) -> int | None:
    state, code = _stat_of(proc)
    return code if state in _GONE else None


def _stat_of(proc: str) -> tuple[bytes, int]:
    """Read the state and the exit code of a process; no state where it is gone, or cannot be seen."""
    try:
        with open(f"{proc}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return fields[_STATE], int(fields[_EXIT_CODE])
    except (OSError, ValueError, IndexError):
        return b"", 0


def _name(number: int) -> str:
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
