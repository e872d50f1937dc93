"""What the tests of a shared folder have: hosts, each with real processes, a shared memory of its own and a name; and commands that merge what they write."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import outcome, remove, start, wait_until, workers

import asynctrack
from asynctrack.errors import NotARun

RANK = """
import json, mmap, os, struct, sys, time
import asynctrack
records, counter, stop = int(sys.argv[1]), sys.argv[2], sys.argv[3]
with open(counter, "r+b") as file:
    told = mmap.mmap(file.fileno(), 8)
run = asynctrack.init("p", id="job", config={"rank": int(os.environ["RANK"])}, quiet=True)
rank = int(os.environ["RANK"])
for step in range(records):
    if step % 20 == 19 and os.path.exists(stop):
        break
    assert run.log({"loss": step / 2, "rank": rank}, step)
    told[:] = struct.pack("<q", step + 1)
    time.sleep(0.001)
run.finish()
print(json.dumps(str(run.path)))
"""


class Host:
    """A machine: its name, and a shared memory of its own."""

    def __init__(self, name: str, folder: Path, counters: Path) -> None:
        self.name = name
        self.part = folder / "p" / f"job@{name}"
        self.shared = Path(
            tempfile.mkdtemp(prefix="asynctrack-test-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
        )
        self._folder, self._counters = folder, counters
        self.ranks: dict[int, subprocess.Popen[str]] = {}

    def environment(self, rank: int) -> dict[str, str]:
        return {
            "RANK": str(rank),
            "WORLD_SIZE": "8",
            "ASYNCTRACK_COLLECT": str(self._folder),
            "ASYNCTRACK_HOST": self.name,
            "ASYNCTRACK_SHM": str(self.shared),
            "ASYNCTRACK_IDLE_EXIT_S": "0.05",
        }

    def start(self, rank: int, records: int) -> None:
        counter = self._counters / str(rank)
        counter.write_bytes(bytes(8))
        self.ranks[rank] = start(RANK, records, counter, self._counters / "stop", **self.environment(rank))

    def kill(self, rank: int) -> None:
        child = self.ranks.pop(rank)
        child.kill()
        child.communicate()

    def kill_worker(self) -> None:
        for pid in workers(self.shared):
            os.kill(pid, signal.SIGKILL)

    def die(self, rank: int) -> None:
        """End at once, as where the power fails: the worker is not left to tell how the rank has ended."""
        for pid in workers(self.shared):
            os.kill(pid, signal.SIGSTOP)
        self.kill(rank)
        self.kill_worker()

    def is_journaled(self) -> bool:
        """Whether there is anything to collect."""
        with contextlib.suppress(NotARun):
            return any(True for _ in asynctrack.open_run(self.part).records())
        return False

    def logged(self, rank: int) -> int:
        return int.from_bytes((self._counters / str(rank)).read_bytes(), "little")

    def wait(self) -> None:
        for child in self.ranks.values():
            outcome(child)

    def close(self) -> None:
        for child in self.ranks.values():
            child.kill()
            child.communicate()
        wait_until(lambda: not workers(self.shared), "the worker has gone")
        remove(self.shared)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[list[Host]]:
    (tmp_path / "counters").mkdir()
    found = [Host(name, tmp_path / "shared", tmp_path / "counters") for name in ("node-1", "node-2")]
    yield found
    for host in found:
        host.close()


_children: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def no_command_is_left() -> Iterator[None]:
    yield
    while _children:
        with _children.pop() as child:
            child.kill()


def command(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "asynctrack", *map(str, arguments)]
    surroundings = {**os.environ, **environment}
    child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=surroundings)
    _children.append(child)
    return child


def collector(*arguments: object) -> subprocess.Popen[str]:
    return command("collect", *arguments)


def collect(*arguments: object) -> tuple[int, str, str]:
    child = collector(*arguments)
    out, err = child.communicate(timeout=60)
    return child.returncode, out, err


def ends_well(*arguments: object) -> bool:
    child = command(*arguments)
    told, problems = child.communicate(timeout=60)
    assert child.returncode == 0, told + problems
    return True


def assert_each_once(run: Path, logged: dict[str, int], *, killed: tuple[str, ...] = ()) -> None:
    """Each writer's records are there, once and in order: all that `log()` took, and of one that was killed perhaps one more."""
    steps: dict[str, list[int]] = {writer: [] for writer in logged}
    for record in asynctrack.open_run(run).records():
        steps[str(record.writer)].append(record.step)
    for writer, found in steps.items():
        assert found == list(range(len(found))), writer
        more = (0, 1) if writer in killed else (0,)
        assert len(found) - logged[writer] in more, writer
