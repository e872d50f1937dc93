"""Pools of processes that are spawned log to the run: given it, or finding it; and to the next run, where the pool is kept."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support import DEADLINE_S, left_in, lines, manifest, outcome, records, rings_in, start, values, wait_until, workers

import asynctrack

pytestmark = pytest.mark.usefixtures("version")

# Each call logs ten numbers under the label that its process is to have, and returns it.
POOL = """
import itertools, json, multiprocessing, os, sys
from concurrent.futures import ProcessPoolExecutor
import asynctrack

folder, method, runs = sys.argv[1], sys.argv[2], int(sys.argv[3])
numbers = itertools.count()

def tell(log):
    label = f"{os.uname().nodename}:{os.getpid()}"
    for _ in range(10):
        assert log({label: next(numbers)}) is True
    return label

def given(run):
    return tell(run.log)

def scoped(scope):
    return tell(scope.log)

def found(_):
    return tell(asynctrack.log)

def attached(_):
    return tell(asynctrack.attach().log)

if __name__ == "__main__":
    told = []
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
        for i in range(runs):
            with asynctrack.init("p", id=f"run{i}", dir=folder) as run:
                labels = [*pool.map(found, range(4)), *pool.map(attached, range(4))]
                if i != 1:  # a pool that was given none must find the next run by itself
                    labels += [*pool.map(given, [run] * 4), *pool.map(scoped, [run.bind({})] * 4)]
                    labels += pool.map(found, range(2))
                labels.append(tell(run.log))
            told.append(labels)
    print(json.dumps(told))
"""


@pytest.mark.parametrize(
    ("method", "runs_in_turn"),
    [
        pytest.param("spawn", 3, marks=pytest.mark.system),
        pytest.param("forkserver", 3, marks=pytest.mark.system),
        pytest.param("spawn", 1, marks=pytest.mark.system),
    ],
)
def test_pool_logs_to_the_run_that_is_open(
    own_host: Path, runs: Path, tmp_path: Path, method: str, runs_in_turn: int
) -> None:
    script = tmp_path / "script.py"
    script.write_text(POOL)
    done = subprocess.run(
        [sys.executable, script, runs, method, str(runs_in_turn)],
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE_S,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for i, labels in enumerate(json.loads(done.stdout)):
        assert_has(runs / "p" / f"run{i}", {label: 10 * times for label, times in Counter(labels).items()})
    wait_until(lambda: not workers(own_host) and not left_in(own_host), "nothing is left")


ENDED = """
import json, multiprocessing, sys, time
import asynctrack

def tell(number):
    assert asynctrack.log({"n": number}) is True

if __name__ == "__main__":
    folder, method = sys.argv[1:]
    told = []
    for _ in range(6):
        with asynctrack.init("p", dir=folder) as run:
            with multiprocessing.get_context(method).Pool(2) as pool:
                pool.map(tell, range(20), chunksize=1)
                run.flush()
                deadline = time.monotonic() + 60
                while len(list(asynctrack.open_run(run.path).records())) < 20:  # then the worker knows of all that have logged
                    assert time.monotonic() < deadline
        told += [one.status for one in asynctrack.open_run(run.path).writers if not one.is_owner]
    print(json.dumps(told))
"""


@pytest.mark.system
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_processes_that_a_pool_ends_are_terminated_whatever_they_are_at(
    own_host: Path, runs: Path, tmp_path: Path, method: str
) -> None:
    """`with Pool()` tells those that are idle to end, and sends SIGTERM to all a moment later."""
    script = tmp_path / "script.py"
    script.write_text(ENDED)
    done = subprocess.run(
        [sys.executable, script, runs, method], capture_output=True, text=True, timeout=2 * DEADLINE_S
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert set(json.loads(done.stdout)) <= {"terminated", "finished"}


# Logs each number that it is told, and says to which run.
FOLLOWER = """
import sys
import asynctrack

for line in sys.stdin:
    assert asynctrack.log({"n": int(line)}) is True
    print(asynctrack.current().id, flush=True)
"""


@pytest.mark.system
def test_process_follows_the_one_from_which_it_descends_from_run_to_run(own_host: Path, runs: Path) -> None:
    child, numbers = start(FOLLOWER), itertools.count()
    assert child.stdin is not None and child.stdout is not None

    def log() -> str:
        print(next(numbers), file=child.stdin, flush=True)
        return child.stdout.readline().strip()  # type: ignore[union-attr]  # it is there

    with asynctrack.init("p", id="one", dir=runs) as one:
        assert log() == "one"
    assert log() == "one"  # it is late, and nothing else is open
    with asynctrack.init("p", id="two", dir=runs) as two:
        assert log() == "two"
        with asynctrack.init("p", id="within", dir=runs):
            assert log() == "two"
    with asynctrack.init("p", id="skipped", dir=runs):
        pass
    with asynctrack.init("p", id="three", dir=runs) as three:
        assert log() == "three"
    assert outcome(child) is None
    wait_until(lambda: not workers(own_host), "all is journaled")
    found = [values(run.path, "n") for run in (one, two, three)]
    assert list(itertools.chain(*found)) == list(range(next(numbers)))


@pytest.mark.system
def test_process_that_was_refused_finds_the_run_that_is_opened_next(own_host: Path, runs: Path) -> None:
    script = """
import sys
import asynctrack

for line in sys.stdin:
    try:
        asynctrack.log({"n": 1})
        print(asynctrack.current().id, flush=True)
    except asynctrack.NoCurrentRun:
        print("none", flush=True)
"""
    child = start(script)
    assert child.stdin is not None and child.stdout is not None

    def log() -> str:
        print(file=child.stdin, flush=True)
        return child.stdout.readline().strip()  # type: ignore[union-attr]  # it is there

    for name in ("one", "two"):
        with asynctrack.init("p", id=name, dir=runs):
            pass
    assert log() == "none"
    with asynctrack.init("p", id="three", dir=runs):
        assert log() == "three"
    assert outcome(child) is None


@pytest.mark.system
def test_pool_that_is_kept_has_no_queue_of_each_run_that_has_been(own_host: Path, runs: Path) -> None:
    script = """
import sys
import asynctrack
given = None
for line in sys.stdin:
    number = int(line)
    assert asynctrack.log({"n": number})
    given = asynctrack.current() if number == 0 else given  # this one may log to it at any time
    if number == 7:
        assert given.log({"n": 8})
    print(flush=True)
"""
    child = start(script)
    assert child.stdin is not None and child.stdout is not None
    for number in range(8):
        with asynctrack.init("p", id=f"run{number}", dir=runs):
            print(number, file=child.stdin, flush=True)
            assert child.stdout.readline() == "\n"
    wait_until(lambda: len(rings_in(own_host)) <= 6, "the queues of most earlier runs are gone")
    assert outcome(child) is None
    wait_until(lambda: not workers(own_host), "all is journaled")
    assert [values(runs / "p" / f"run{number}", "n") for number in range(8)] == [[0, 8], *([n] for n in range(1, 8))]


def assert_has(run: Path, counts: dict[str, int]) -> None:
    """Each process's numbers are in the run once, in order, under its label; the run has ended as its owner did, and lists all."""
    wait_until(lambda: manifest(run)["status"] == "finished", "the run has ended")
    writers = asynctrack.open_run(run).writers
    assert {one.writer: one.accepted for one in writers} == counts
    assert {one.status for one in writers} == {"finished"}
    (owner,) = (one.writer for one in writers if one.is_owner)
    found: dict[str, list[Any]] = {}
    for record in records(run):
        ((label, value),) = record.data.items()
        assert record.writer == label or (record.writer is None and label == owner)  # before another came
        found.setdefault(label, []).append(value)
    assert {label: len(values) for label, values in found.items()} == counts
    assert all(values == list(range(values[0], values[0] + len(values))) for values in found.values())
    assert len(lines(run)) == sum(counts.values())
