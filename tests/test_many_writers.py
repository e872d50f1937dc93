"""Many processes write to one run at once, each in an interpreter of its own; and each that is killed is named within a second."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from support import (
    DEADLINE_S,
    assert_whole,
    left_in,
    manifest,
    records,
    rings_in,
    start,
    the_worker,
    wait_until,
    workers,
)

import asynctrack
from asynctrack import Run
from asynctrack.journal.writer_list import WriterStats

pytestmark = pytest.mark.usefixtures("version")

# How soon the end of a writer that is killed is to be known.
NAMED_WITHIN_S = 1.0

# Attaches, says so, and logs from when it gets a line until it gets another, or is killed; then says what was accepted.
WRITER = """
import faulthandler, json, select, sys, time
import asynctrack

faulthandler.cancel_dump_traceback_later()  # it may log for longer
path, name, pause_s = sys.argv[1], sys.argv[2], float(sys.argv[3])
run = asynctrack.attach(path, writer=name)
print("ready", flush=True)
sys.stdin.readline()
i = 0
while i % 10 or not select.select([sys.stdin], [], [], 0)[0]:
    i += run.log({name: i}, step=i)
    time.sleep(pause_s)
run.finish()
print(json.dumps(i), flush=True)
"""


@pytest.fixture
def run(own_host: Path, runs: Path) -> Iterator[Run]:
    with asynctrack.init("p", id="run", dir=runs) as run:
        yield run


@pytest.fixture
def writers(run: Run) -> Iterator[Callable[..., dict[str, subprocess.Popen[str]]]]:
    """Start so many writers; when all have attached, they are told to log."""
    started: dict[str, subprocess.Popen[str]] = {}

    def begin(count: int, pause_s: float) -> dict[str, subprocess.Popen[str]]:
        names = [f"w{len(started) + i}" for i in range(count)]
        new = {name: start(WRITER, run.path, name, pause_s) for name in names}
        started.update(new)
        for child in new.values():
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n", child.communicate()
        for child in new.values():
            tell(child)
        return new

    yield begin
    for child in started.values():
        child.kill()
        child.communicate()


def tell(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


def counts_of(children: dict[str, subprocess.Popen[str]], timeout_s: float) -> dict[str, int]:
    """Let the writers end, and return how many records each was told are accepted."""
    for child in children.values():
        tell(child)
    told = {}
    for name, child in children.items():
        out, err = child.communicate(timeout=timeout_s)
        assert child.returncode == 0, err
        told[name] = json.loads(out)
    return told


def descriptors(pid: int) -> list[str]:
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(link))
    return found


@pytest.mark.parametrize(
    ("count", "seconds", "pause_s"),
    [
        pytest.param(8, 2.0, 0.0002, marks=pytest.mark.system),
        pytest.param(64, 60.0, 0.004, marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
    ],
)
def test_writers_that_log_at_once_lose_nothing_and_leave_nothing_behind(
    run: Run, own_host: Path, writers: Any, count: int, seconds: float, pause_s: float
) -> None:
    children = writers(count, pause_s)
    begin = time.monotonic()
    wait_until(lambda: time.monotonic() - begin > seconds, "they have logged for a while", 2 * seconds)
    counts = counts_of(children, 2 * DEADLINE_S + seconds)
    assert all(counts.values())
    wait_until(lambda: len(rings_in(own_host)) == 1, "only the owner's queue is left")
    assert not [link for link in descriptors(the_worker(own_host)) if "(deleted)" in link]
    run.finish()
    assert_whole(run.path, counts)
    assert all(record.writer in record.data for record in records(run.path))
    joined = [one for one in manifest(run.path)["writers"] if not one["is_owner"]]
    assert {one["writer"]: (one["status"], one["accepted"]) for one in joined} == {
        name: ("finished", told) for name, told in counts.items()
    }
    wait_until(lambda: not workers(own_host) and not left_in(own_host), "nothing is left")


@pytest.mark.parametrize(
    "rounds",
    [pytest.param(3, marks=pytest.mark.system), pytest.param(50, marks=[pytest.mark.slow, pytest.mark.timeout(600)])],
)
def test_every_writer_that_is_killed_is_named_within_a_second(run: Run, writers: Any, rounds: int) -> None:
    """One of four at a random moment, beside others that log on; the journal says of it that it was killed."""
    took = []
    children: dict[str, subprocess.Popen[str]] = {}
    for _ in range(rounds):
        children.update(writers(4 - len(children), 0.001))
        # Nobody can tell what has killed a process that the worker has not seen alive.
        wait_until(lambda: {one.writer for one in run_writers(run)} >= {*children}, "the worker knows of them")
        moment = time.monotonic() + random.random()
        wait_until(lambda moment=moment: time.monotonic() > moment, "a random moment has come")  # type: ignore[misc]
        name = random.choice(list(children))
        children.pop(name).kill()
        killed_at = time.monotonic()
        wait_until(lambda name=name: said_of(run, name) == "crashed: killed by SIGKILL", "it is named")  # type: ignore[misc]
        took.append(time.monotonic() - killed_at)
    print(f"named after {median(took):.2f} s, {max(took):.2f} s at most")
    assert max(took) < NAMED_WITHIN_S


def said_of(run: Run, name: str) -> str:
    """What is said of how a writer has ended."""
    (one,) = [one for one in run_writers(run) if one.writer == name]
    return f"{one.status}: {one.error}"


def run_writers(run: Run) -> list[WriterStats]:
    """The run's processes, as its journal has them."""
    return list(asynctrack.open_run(run.path).manifest().writers)
