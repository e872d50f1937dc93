"""What is promised, and a test for each promise: real processes, real kills, real files."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path
from typing import Final

import pytest
from cli_support import asynctrack_
from delivery_support import assert_balanced, deliverers, kill
from support import ended, lines, manifest, records, run_child, start, stopped, the_worker, wait_until, workers

import asynctrack
from asynctrack.testing import Scripted, ScriptedInProcess, Trouble, taken

FAILS: Final = (Trouble(does="fail", times=None),)
HANGS: Final = (Trouble(does="hold", times=None),)  # and keeps the interpreter lock of its process

# What a call asks of the system, it asks between the two marks.
WATCHED = """
import json, os
import asynctrack

run = asynctrack.init("p", id="run", dir=sys.argv[1])
warm = [run.log({"loss": 0.5, "i": i, "phase": "train"}, step=i) for i in range(1000)]
run.flush("journaled")  # the worker is there
os.access("/begin", os.F_OK)
said = [run.log({"loss": 0.5, "i": i, "phase": "train"}, step=i) for i in range(1000)]
os.access("/end", os.F_OK)
run.finish()
print(json.dumps(all(said)))
"""
# For more memory, and to leave the interpreter to another thread.
OF_PYTHON: Final = {"brk", "mmap", "munmap", "mremap", "madvise", "futex", "restart_syscall", "sched_yield"}


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_promise_1_log_asks_nothing_of_the_system(own_host: Path, runs: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    assert run_child(WATCHED, runs, within=["strace", "-o", trace]) is True  # of the thread that logs alone
    between = trace.read_text().partition('"/begin"')[2].partition('"/end"')[0]
    calls = re.findall(r"^(\w+)\(", between, re.MULTILINE)
    assert "access" in calls[-1]  # the mark
    assert set(calls[:-1]) <= OF_PYTHON, between


def test_promise_1_log_never_waits_and_never_raises(rough_host: Path, runs: Path) -> None:
    """The worker is stopped and the backend fails. The calls say True while there is room and False from then on, and nothing else happens."""
    run = asynctrack.init("p", dir=runs, queue_bytes=65536, backends=[Scripted(troubles=FAILS)], finish_timeout_s=0)
    assert run.log({"i": 0})
    run.flush("journaled")
    with stopped(the_worker(rough_host)):
        said = [run.log({"i": i, "text": "x" * 50}) for i in range(5000)]
        assert said == [True] * sum(said) + [False] * (5000 - sum(said))
        assert 0 < sum(said) < 5000
        assert run.stats().dropped == {"full": said.count(False)}
    assert run.log({"i": 0}) or wait_until(lambda: run.log({"i": 0}), "there is room again")
    run.finish()


# Logs until it is killed; for how many records `log()` has said True is in a file that outlives it.
KILLED = """
import mmap, time
import asynctrack

with open(sys.argv[2], "r+b") as file:
    accepted = memoryview(mmap.mmap(file.fileno(), 8)).cast("Q")
run = asynctrack.init("p", id="run", dir=sys.argv[1])
print("open", flush=True)
while True:
    accepted[0] += run.log({"i": accepted[0]})
    if not accepted[0] % 100:  # where the one who is to kill this is held up there would be millions
        time.sleep(0.001 if accepted[0] < 20_000 else 0.1)
"""


@pytest.mark.parametrize("dies", ["the process", "the process and its worker"])
def test_promise_2_what_was_accepted_survives(own_host: Path, runs: Path, tmp_path: Path, dies: str) -> None:
    told, run = tmp_path / "accepted", runs / "p" / "run"
    told.write_bytes(bytes(8))
    child = start(KILLED, runs, told)
    assert child.stdout is not None
    assert child.stdout.readline() == "open\n"
    wait_until(lambda: int.from_bytes(told.read_bytes(), "little") > 2000, "it logs")
    if dies == "the process":
        child.kill()
    else:
        with stopped(the_worker(own_host)):  # what is accepted meanwhile is in shared memory only
            before = int.from_bytes(told.read_bytes(), "little")
            wait_until(lambda: int.from_bytes(told.read_bytes(), "little") > before + 1000, "it logs on")
            child.kill()
            kill(the_worker(own_host))
        wait_until(lambda: not workers(own_host), "both are dead")
        asynctrack.init("p", id="next", dir=runs).finish()  # the next run on the machine recovers what they left
    child.communicate()
    wait_until(lambda: ended(run), "the run has ended")
    wait_until(lambda: not workers(own_host), "all is delivered")
    accepted = int.from_bytes(told.read_bytes(), "little")
    found = [record.data["i"] for record in records(run)]
    assert found in (list(range(accepted)), list(range(accepted + 1)))  # killed behind the call, before it was noted
    assert [line["i"] for line in lines(run)] == found
    assert manifest(run)["status"] == "crashed"


@pytest.mark.system
def test_promise_2_what_was_journaled_survives_its_container(own_host: Path, runs: Path, tmp_path: Path) -> None:
    """All processes are killed at once, and the shared memory goes with them: what is left is what was accepted, but for the last moment."""
    told, run = tmp_path / "accepted", runs / "p" / "run"
    told.write_bytes(bytes(8))
    child = start(KILLED, runs, told)
    wait_until(lambda: int.from_bytes(told.read_bytes(), "little") > 2000, "it logs")
    journaled = len(wait_until(lambda: records(run), "the worker has journaled some"))
    kill(the_worker(own_host))
    child.kill()
    child.communicate()
    wait_until(lambda: not workers(own_host), "all are dead")
    for left in own_host.iterdir():
        shutil.rmtree(left)
    assert asynctrack_("sync", run).returncode == 0
    accepted = int.from_bytes(told.read_bytes(), "little")
    found = [record.data["i"] for record in records(run)]
    assert found == list(range(len(found)))
    assert journaled <= len(found) <= accepted + 1
    assert [line["i"] for line in lines(run)] == found
    assert manifest(run)["status"] == "crashed"


@pytest.mark.system
def test_promise_3_every_backend_gets_every_record_in_order(rough_host: Path, runs: Path) -> None:
    """One fails now and then, one has a process of its own, and the worker is killed half-way: at least once, and in the file exactly once."""
    shaky = Scripted(
        file="shaky", troubles=tuple(Trouble(does="retry", seconds=0.01, step=step, times=2) for step in (0, 7, 400))
    )
    backends = ["jsonl", shaky, ScriptedInProcess(file="elsewhere")]
    with asynctrack.init("p", dir=runs, backends=backends) as run:
        for step in range(500):
            run.log({"i": step}, step=step)
            if step == 250:
                run.flush("journaled")
                for pid in set(workers(rough_host)) - set(deliverers(rough_host)):
                    kill(pid)
        stats = run.finish()
    assert stats.accepted == 500
    assert stats.behind == 0
    assert [line["i"] for line in lines(run.path)] == list(range(500))
    for file in ("shaky", "elsewhere"):
        steps = [record.step for record in taken(run.path, file)]
        assert list(dict.fromkeys(steps)) == list(range(500)), file


def test_promise_4_bad_backends_fall_behind_alone(rough_host: Path, runs: Path) -> None:
    """One is dead, one slow, one wedged: the journal and the good one have everything while they have next to nothing."""
    slow = Scripted(file="slow", write_s=30.0)
    bad = [Scripted(file="dead", troubles=FAILS), slow, ScriptedInProcess(file="wedged", troubles=HANGS)]
    run = asynctrack.init("p", dir=runs, backends=["jsonl", *bad], finish_timeout_s=0)
    assert all(run.log({"i": i}) for i in range(1000))
    assert run.flush("journaled").queued == 0
    wait_until(lambda: run.stats().backends["jsonl"].behind == 0, "the good one has all")
    stats = run.stats()
    assert stats.journaled == 1000
    assert stats.dropped == {}
    assert [line["i"] for line in lines(run.path)] == list(range(1000))
    assert len(stats.backends) == 4
    assert all(backend_stats.behind > 0 for name, backend_stats in stats.backends.items() if name != "jsonl")
    run.finish()


def test_promise_5_finish_returns_and_says_what_is_still_to_come(rough_host: Path, runs: Path) -> None:
    """A backend that is down: `finish` is back by its deadline, what it could not deliver is on disk, and comes later."""
    waits = Scripted(troubles=(Trouble(does="retry", seconds=0.1, times=None, until="mended"),))
    run = asynctrack.init("p", dir=runs, backends=["jsonl", waits], finish_timeout_s=0.3)
    for i in range(100):
        run.log({"i": i})
    run.flush("journaled")  # in 0.3 s a busy machine may not even have started the worker
    began = time.monotonic()
    stats = run.finish()
    assert time.monotonic() - began < 10  # 0.3 s, and a machine that has other things to do
    backend_stats = stats.backends["Scripted"]
    assert (stats.accepted, backend_stats.delivered, backend_stats.behind) == (100, 0, 100)
    assert_balanced(stats)
    assert len(records(run.path)) == 100
    (run.path / "mended").touch()
    wait_until(lambda: len(taken(run.path)) == 100, "the worker goes on with it")


def test_promise_6_the_statistics_balance(rough_host: Path, runs: Path) -> None:
    """At every moment, with drops, refusals and a worker that comes and goes; and at the end they are what the journal has."""
    picky = Scripted(troubles=tuple(Trouble(does="refuse", step=step, times=None) for step in (10, 20)))
    run = asynctrack.init("p", dir=runs, queue_bytes=65536, backends=["jsonl", picky])
    accepted = offered = 0
    for round in range(4):
        for _ in range(1500):
            accepted += run.log({"text": "x" * 40}, step=offered)
            offered += 1
        if round == 1:
            kill(the_worker(rough_host))
        stats = run.stats()
        assert_balanced(stats)
        assert (stats.accepted, stats.offered) == (accepted, offered)
    run.flush("delivered")
    stats = run.finish()
    assert_balanced(stats)
    assert stats.offered == offered
    assert stats.accepted == stats.journaled == accepted == len(records(run.path)) == len(lines(run.path))
    assert stats.backends["Scripted"].rejected == len(lines(run.path, "dead_letters.jsonl"))
