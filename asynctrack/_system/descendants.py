"""Descendants: what a library has started in a session of its own, where no signal to our process group reaches it. Standard library only.

While such a library starts something, its environment has a mark with pid, start time and process group of who lets it; what is started has it for
life, and so has what that starts. Whoever kills a process group kills what it had marked, and whoever begins kills what others have left.

A pid means something in its PID namespace only, so the mark has that too: what a container has started is not ours, and where `/proc` tells of
another namespace nothing is.
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
    """A marked process, and who had it started."""

    pid: int
    starter: int
    started_at: str
    group: int


@contextlib.contextmanager
def marked() -> Iterator[None]:
    """What is started in here is known as this process's."""
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
    """Pids of what this process has started under its mark, as far as it lives."""
    return [process.pid for process in found() if process.starter == os.getpid()]


def kill_of(group: int) -> None:
    """Kill what a process group had started under its mark."""
    _kill(process for process in found() if process.group == group)


def kill_orphans() -> None:
    """Kill what was started by processes that are gone."""
    _kill(process for process in found() if start_time(process.starter) != process.started_at)


def _kill(processes: Iterable[Descendant]) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process.pid, signal.SIGKILL)


def found() -> list[Descendant]:
    """Marked processes that live, of this PID namespace; other users' cannot be seen."""
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
    """This process's PID namespace; empty where `/proc` tells of another one, or is not there."""
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
    """When a process was started, in ticks since the machine was; empty where it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in (b"Z", b"X") else fields[19].decode()
