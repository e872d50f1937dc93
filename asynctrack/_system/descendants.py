"""Descendants: processes that a library starts in a session of its own, where no signal to our process group reaches them. Standard library only.

While such a library starts a process, our environment holds a mark with our pid, start time and process group. The new process keeps the mark
for life, and passes it to the processes that it starts. Killing a process group also kills what carries its mark, and each delivery that begins
kills what dead processes have left.

A pid is unique in its PID namespace only, so the mark holds the namespace too. Processes that a container has started are not ours. Where
`/proc` shows another namespace, no process is.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

_NAME: Final = "ASYNCTRACK_STARTED_BY"

_lock = threading.Lock()


class Descendant(NamedTuple):
    """A marked process, and the process that had it started."""

    pid: int
    starter: int
    started_at: str
    group: int


@contextlib.contextmanager
def marked() -> Iterator[None]:
    """Mark the processes that are started within this context as this process's own."""
    with _lock:
        before = os.environ.get(_NAME)
        os.environ[_NAME] = f"{os.getpid()} {start_time(os.getpid())} {os.getpgrp()} {_namespace()}"
        try:
            yield
        finally:
            os.environ.pop(_NAME)
            if before is not None:
                os.environ[_NAME] = before


def own() -> list[int]:
    """Return the pids of living processes that this process has started under its mark."""
    return [process.pid for process in found() if process.starter == os.getpid()]


def kill_of(group: int) -> None:
    """Kill the processes that a process group has started under its mark."""
    _kill(process for process in found() if process.group == group)


def kill_orphans() -> None:
    """Kill the processes that were started by processes that have ended."""
    _kill(process for process in found() if start_time(process.starter) != process.started_at)


def _kill(processes: Iterable[Descendant]) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process.pid, signal.SIGKILL)


def found() -> list[Descendant]:
    """Return the marked processes that live in this PID namespace; those of other users cannot be seen."""
    processes = []
    here = _namespace()
    for name in os.listdir("/proc") if here else ():
        if name.isdigit() and (mark := _mark(name)) and start_time(int(name)):
            with contextlib.suppress(ValueError):  # another's variable of that name
                starter, started_at, group, namespace = mark.split(" ")
                if namespace == here:
                    processes.append(Descendant(int(name), int(starter), started_at, int(group)))
    return processes


def _namespace() -> str:
    """Return this process's PID namespace; empty where `/proc` is missing or shows another one."""
    try:
        with open("/proc/self/status", "rb") as file:
            line = file.read().partition(b"\nNSpid:")[2].partition(b"\n")[0]
        # In each namespace from that of `/proc` down to our own.
        return os.readlink("/proc/self/ns/pid") if line.split() == [b"%d" % os.getpid()] else ""
    except OSError:
        return ""


def _mark(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            environment = file.read()
    except OSError:
        return ""
    _, found, rest = (b"\0" + environment).partition(b"\0" + os.fsencode(_NAME) + b"=")
    return os.fsdecode(rest.partition(b"\0")[0]) if found else ""


def start_time(pid: int) -> str:
    """Return when a process was started, in clock ticks since the machine booted; empty if it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in (b"Z", b"X") else fields[19].decode()
