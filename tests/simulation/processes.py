"""Processes: those of a simulation, told by a mark in their environment, and what each of them is. Runs in the simulation."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

MARK = "SIMULATED_BY_TESTS"
# Where all of them find `simulation`, and the asynctrack that it belongs to, also where another is installed.
TESTS = Path(__file__).parent.parent
PYTHONPATH = f"{TESTS}:{TESTS.parent}"

# A directory of queues: the pid of the process whose they are, and a random part.
_HOST = re.compile(r"(\d+)-[0-9a-f]+(?:\..*)?")

Kind = Literal["caller", "worker", "delivery", "command"]


class Process(NamedTuple):
    """One of them: `of` is the pid whose queues a worker serves."""

    pid: int
    kind: Kind
    of: int
    arguments: list[str]

    def __str__(self) -> str:
        with contextlib.suppress(OSError):
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
            waits = Path(f"/proc/{self.pid}/wchan").read_text()
            return f"{self.kind} {self.pid}, {state} in {waits}: {' '.join(self.arguments)[-120:]}"
        return f"{self.kind} {self.pid}, gone"


def marked(directory: Path) -> list[Process]:
    """The living processes of the simulation in `directory`, by age."""
    mark = f"{MARK}={directory}".encode()
    return [found for pid in _pids() if (found := _look(pid, mark)) is not None]


def _pids() -> Iterator[int]:
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
    yield from sorted(pid for pid in pids if pid != os.getpid())


def _look(pid: int, mark: bytes) -> Process | None:
    try:
        if mark not in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            return None
        arguments = os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()).split("\0")
    except OSError:
        return None
    return Process(pid, *_kind_of(arguments), arguments)


def _kind_of(arguments: list[str]) -> tuple[Kind, int]:
    if "simulation.caller" in arguments:
        return "caller", 0
    if any(argument.endswith("worker/main.py") for argument in arguments):
        hosts = [found for argument in arguments if (found := _HOST.fullmatch(os.path.basename(argument)))]
        return "worker", int(hosts[-1][1]) if hosts else 0
    return ("command", 0) if "asynctrack" in arguments else ("delivery", 0)
