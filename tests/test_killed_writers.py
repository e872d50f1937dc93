"""Processes of one run are killed with SIGKILL at random moments, from before the run is open: one that joins, the one that opens, the worker, several.

What `log()` accepted of each is there, once, in its order.
"""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path

import pytest
from support import a_minute_later, left_in, lines, run_child, wait_until, workers

import asynctrack
from asynctrack.cli.journal_check import JournalCheck
from asynctrack.errors import NotARun

pytestmark = pytest.mark.usefixtures("version")

# In each round four processes open or join a run at the same moment, and log until they are told to end; some are killed, and perhaps the worker. Each
# tells what was accepted through a word that it shares with us.
KILLER = """
import json, mmap, os, random, signal, sys, time
import asynctrack

folder, seed, kills, at_once = sys.argv[1], *map(int, sys.argv[2:])
chance = random.Random(seed)
SIZE = 4
told = {}

def take_part(name, rank, words):
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(SIZE))
    try:
        run = asynctrack.init("p", id=name, dir=folder, join=True)
    except asynctrack.AsynctrackError as error:  # all others have died by now, and their worker said so
        print(rank, repr(error), file=sys.stderr)
        return
    i = 0
    while not words[SIZE]:
        if run.log({f"rank{rank}": i, "text": "x" * (i % 100)}, step=i):
            i += 1
            words[rank] = i
        if i % 50 == 0:
            time.sleep(0.0005)
    run.finish()

def start(name, rank, words):
    pid = os.fork()
    if not pid:
        code = 1
        try:
            take_part(name, rank, words)
            code = 0
        finally:
            os._exit(code)
    return pid

def the_workers():
    shared = os.environ["ASYNCTRACK_SHM"].encode()
    for name in os.listdir("/proc"):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                arguments = file.read().split(b"\\0")
            if name.isdigit() and arguments[0] != b"sh" and any(part.startswith(shared) for part in arguments):
                yield int(name)
        except OSError:
            continue

def kill_some(pids, words):
    deadline = time.monotonic() + 2.0
    while number % 2 and not all(list(words)[:SIZE]) and time.monotonic() < deadline:  # in every other round all log before one is killed
        time.sleep(0.001)
    begin = time.monotonic()
    for moment in sorted(chance.random() ** 2 * 0.4 for _ in range(min(left, chance.choice([1, 1, 2, 3, SIZE])))):
        time.sleep(max(0.0, begin + moment - time.monotonic()))
        victims = [*pids, *the_workers()]
        if chance.random() < 0.2:
            victims = list(the_workers())
        if victims:
            victim = chance.choice(victims)
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                continue
            yield victim

left, number = kills, 0
while left > 0:
    number += 1
    name, words = f"run-{number}", memoryview(mmap.mmap(-1, 8 * (SIZE + 1))).cast("Q")
    pids = [start(name, rank, words) for rank in range(SIZE)]
    for victim in kill_some(pids, words):
        left -= 1
        if victim in pids:
            os.waitpid(victim, 0)
            pids.remove(victim)
    words[SIZE] = 1
    for pid in pids:
        assert os.waitpid(pid, 0)[1] == 0, name
    told[name] = list(words)[:SIZE]
print(json.dumps(told))
"""


def kill(shared: Path, runs: Path, kills: int) -> dict[str, list[int]]:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    told: dict[str, list[int]] = run_child(KILLER, runs, seed, kills, 1)
    a_minute_later(shared)
    asynctrack.init("q", dir=runs).finish()  # whose worker takes what the dead have left
    wait_until(lambda: not workers(shared), "the workers have done their work and left", 60.0)
    return told


def assert_all_there(run: Path, accepted: list[int]) -> None:
    try:
        found = list(asynctrack.open_run(run).records())
    except NotARun:  # killed before there was anything
        assert not any(accepted)
        return
    values: dict[str, list[int]] = defaultdict(list)
    for record in found:
        name, value = next(iter(record.data.items()))
        assert record.data == {name: value, "text": "x" * (value % 100)}
        assert (record.writer, record.step) == (name, value)
        values[name].append(value)
    for rank, count in enumerate(accepted):
        mine = values[f"rank{rank}"]
        assert mine == list(range(len(mine)))
        assert count <= len(mine) <= count + 1  # of the record whose `log()` had not returned nobody can know
    delivered = (
        [(line["_step"], next(key for key in line if key[:4] == "rank")) for line in lines(run)] if found else []
    )
    assert delivered == [(record.step, next(iter(record.data))) for record in found]
    problems = JournalCheck(run).take().problems
    assert problems == [], problems


def kill_and_check(shared: Path, runs: Path, kills: int) -> None:
    for part in range(0, kills, 10):  # each in a script of its own, which has a time limit
        for name, accepted in kill(shared, runs / str(part), min(kills, 10)).items():
            assert_all_there(runs / str(part) / "p" / name, accepted)
        assert left_in(shared) == []


@pytest.mark.system
@pytest.mark.timeout(300)  # a round takes a second or two, most of it for processes that open the run and deliver it
def test_nothing_accepted_is_lost_when_processes_of_a_run_are_killed(own_host: Path, runs: Path) -> None:
    kill_and_check(own_host, runs, 40)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_nothing_accepted_is_lost_in_a_thousand_kills_of_processes_of_a_run(own_host: Path, runs: Path) -> None:
    kill_and_check(own_host, runs, 1000)
