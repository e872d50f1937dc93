"""The worker is killed, stopped and continued while logging goes on: nothing is lost, nothing is repeated, there is never a second."""

from __future__ import annotations

import contextlib
import os
import posix
import random
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import (
    a_minute_later,
    kill_the_worker,
    left_in,
    lines,
    manifest,
    records,
    run_child,
    start,
    stopped,
    the_worker,
    values,
    wait_until,
    workers,
    writers,
)

import asynctrack
from asynctrack import Run
from asynctrack.client import worker_handle, worker_launcher, worker_monitor, worker_registry
from asynctrack.queue.layout import WORKER_PID
from asynctrack.queue.shm_paths import LOCK_NAME
from asynctrack.worker.threads import WorkerThreads


class Logging:
    """A thread that logs in steps of about 0.2 ms, and notes what was accepted."""

    def __init__(self, run: Run) -> None:
        self.accepted: list[int] = []
        self._run = run
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._log)

    def _log(self) -> None:
        i = 0
        while not self._over.is_set():
            if self._run.log({"i": i}):
                self.accepted.append(i)
            i += 1
            time.sleep(0.0002)

    def __enter__(self) -> Logging:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


@contextlib.contextmanager
def watch(run: Path) -> Iterator[Callable[[], int]]:
    """Look all the while at how many processes have the run's journal open; gives the highest number seen."""
    most, over = [0], threading.Event()

    def look() -> None:
        while not over.wait(0.01):
            most[0] = max(most[0], len(writers(run)))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield lambda: most[0]
    finally:
        over.set()
        thread.join()


def assert_all_there(run: Run, accepted: list[int]) -> None:
    assert values(run.path, "i") == accepted
    assert [line["i"] for line in lines(run.path)] == accepted
    assert manifest(run.path)["status"] == "finished"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent worker is looked for sooner, and taken for hung sooner."""
    monkeypatch.setattr(worker_handle, "QUIET_AFTER_S", 0.2)
    monkeypatch.setattr(worker_handle, "HUNG_AFTER_S", 0.6)
    monkeypatch.setattr(worker_launcher, "START_GRACE_S", 0.3)


@pytest.mark.system
@pytest.mark.usefixtures("quick")
def test_killed_worker_is_replaced_without_loss(own_host: Path, runs: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = asynctrack.init("p", dir=runs)
    run.flush()
    with watch(run.path) as most, Logging(run) as logging:
        for _ in range(3):
            killed = kill_the_worker(own_host)
            wait_until(lambda killed=killed: set(workers(own_host)) - {killed}, "another worker runs")
            time.sleep(random.random() * 0.3)
        wait_until(most, "the journal has been seen to be written")
    stats = run.finish()
    assert most() == 1
    assert stats.dropped == {}
    assert stats.backends["jsonl"].delivered == len(logging.accepted) == stats.accepted
    assert_all_there(run, logging.accepted)
    assert "the worker is gone; starting another, nothing is lost" in caplog.text


@pytest.mark.system
def test_worker_that_is_killed_again_is_replaced_as_soon_as_the_first_unless_it_dies_all_the_time(
    own_host: Path, runs: Path
) -> None:
    run = asynctrack.init("p", dir=runs)
    run.flush()
    words = run._publisher.producer.ring.words
    took = []
    for _ in range(6):
        pid, killed_at = words[WORKER_PID], time.monotonic()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda pid=pid: words[WORKER_PID] != pid, "another worker has the queue")  # type: ignore[misc]
        took.append(time.monotonic() - killed_at)
    # A look comes four times a second, half a second behind the last sign of life.
    assert max(took[:4]) < took[0] + 1.0
    assert took[5] > 1.5
    assert run.finish().dropped == {}


@pytest.mark.system
def test_worker_killed_again_and_again_while_it_starts_loses_nothing(own_host: Path, runs: Path) -> None:
    run = asynctrack.init("p", dir=runs)
    over = time.monotonic() + 1.5
    with Logging(run) as logging:
        while time.monotonic() < over:
            for pid in workers(own_host):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(random.random() * 0.2)
    assert run.finish().dropped == {}
    assert_all_there(run, logging.accepted)


@pytest.mark.system
@pytest.mark.usefixtures("quick")
def test_stopped_worker_goes_on_where_it_was(own_host: Path, runs: Path) -> None:
    run = asynctrack.init("p", dir=runs)
    run.flush()
    pid = the_worker(own_host)
    with Logging(run) as logging:
        for _ in range(4):
            with stopped(pid):
                time.sleep(random.random() * 0.4)
            time.sleep(random.random() * 0.1)
        assert workers(own_host) == [pid]
    assert run.finish().dropped == {}
    assert_all_there(run, logging.accepted)


@pytest.mark.system
@pytest.mark.usefixtures("quick")
def test_hung_worker_is_killed_and_replaced_and_there_are_never_two(
    own_host: Path, runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = asynctrack.init("p", dir=runs)
    run.flush()
    hung = the_worker(own_host)
    with watch(run.path) as most, Logging(run) as logging:
        with stopped(hung):
            wait_until(lambda: set(workers(own_host)) - {hung}, "another worker runs")
            wait_until(lambda: hung not in workers(own_host), "the hung one is gone")
        wait_until(lambda: run.flush("journaled", 1).queued == 0, "the journal goes on")
    assert run.finish().dropped == {}
    assert most() == 1
    assert_all_there(run, logging.accepted)
    assert re.search(r"the worker has not moved for \d s; it is replaced", caplog.text)


@pytest.mark.system
@pytest.mark.usefixtures("quick")
def test_worker_killed_stopped_and_continued_at_random_loses_and_repeats_nothing(own_host: Path, runs: Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    opened = [asynctrack.init("p", dir=runs) for _ in range(2)]
    with contextlib.ExitStack() as stack:
        most = [stack.enter_context(watch(run.path)) for run in opened]
        logs = [stack.enter_context(Logging(run)) for run in opened]
        over = time.monotonic() + 3
        while time.monotonic() < over:
            found = workers(own_host)
            if found:
                pid, act = chance.choice(found), chance.choice([signal.SIGKILL, signal.SIGSTOP, signal.SIGSTOP])
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, act)
                    time.sleep(chance.random() * (1.5 if act == signal.SIGSTOP else 0.3))
                    os.kill(pid, signal.SIGCONT)
            time.sleep(chance.random() * 0.2)
    for run, log, seen in zip(opened, logs, most, strict=True):
        stats = run.finish()
        assert seen() <= 1
        assert stats.dropped == {}
        assert stats.backends["jsonl"].delivered == stats.accepted
        assert_all_there(run, log.accepted)


@pytest.mark.system
def test_finish_starts_another_worker_when_the_last_was_killed(own_host: Path, runs: Path) -> None:
    run = asynctrack.init("p", dir=runs)
    run.flush()
    pid = the_worker(own_host)
    with stopped(pid):
        for i in range(1000):
            assert run.log({"i": i})
        os.kill(pid, signal.SIGKILL)
    assert run.finish().backends["jsonl"].delivered == 1000
    assert_all_there(run, list(range(1000)))


@pytest.mark.system
def test_worker_killed_during_finish_is_replaced(own_host: Path, runs: Path) -> None:
    run = asynctrack.init("p", dir=runs)
    run.flush()
    for i in range(50_000):
        assert run.log({"i": i})
    finishing = threading.Thread(target=run.finish)
    with stopped(the_worker(own_host)):  # else it may be through before it is killed
        finishing.start()
        wait_until(lambda: repr(run).startswith(f"<Run p/{run.id}, finished"), "finish has begun")
        kill_the_worker(own_host)
    finishing.join()
    assert run.stats().backends["jsonl"].delivered == 50_000
    assert_all_there(run, list(range(50_000)))


@pytest.mark.system
def test_worker_that_cannot_be_started_is_told_and_the_queue_holds_what_it_can(
    own_host: Path, runs: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_more(*_: object, **__: object) -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    with monkeypatch.context() as patch:
        patch.setattr(posix, "posix_spawn", no_more)
        run = asynctrack.init("p", dir=runs)
        for i in range(1000):
            assert run.log({"i": i})
        stats = run.flush("journaled", timeout_s=1)
        assert (stats.queued, stats.journaled) == (1000, 0)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1
    assert "the worker cannot be started: [Errno 11]" in told[0]
    assert run.finish().journaled == 1000
    assert_all_there(run, list(range(1000)))


CALLER = """
import json, os, signal, sys
import asynctrack

run = asynctrack.init("p", id="first", dir=sys.argv[1], config={"lr": 0.5})
for i in range(500):
    run.log({"i": i})
run.flush()
print("ready", flush=True)
sys.stdin.readline()          # the worker is stopped
run.summary["best"] = 3
for i in range(500, 1000):
    assert run.log({"i": i})
print("logged", flush=True)
sys.stdin.readline()
"""


def test_caller_and_worker_killed_together_are_taken_over_by_the_next_run(own_host: Path, runs: Path) -> None:
    caller = start(CALLER, runs)
    assert caller.stdin is not None
    assert caller.stdout is not None
    assert caller.stdout.readline() == "ready\n"
    worker = the_worker(own_host)
    with stopped(worker):
        caller.stdin.write("\n")
        caller.stdin.flush()
        assert caller.stdout.readline() == "logged\n"
        caller.kill()
        os.kill(worker, signal.SIGKILL)
    caller.communicate()
    wait_until(lambda: not workers(own_host), "both are gone")
    first = runs / "p" / "first"
    assert manifest(first)["status"] == "running"  # nobody is there to say otherwise
    assert values(first, "i") == list(range(500))
    with asynctrack.init("p", id="second", dir=runs) as second:
        second.log({"x": 1})
    wait_until(lambda: not workers(own_host), "the worker has done all there was to do")
    assert manifest(first)["status"] == "crashed"
    assert manifest(first)["summary"] == {"best": 3}
    assert manifest(first)["config"] == {"lr": 0.5}
    assert values(first, "i") == [line["i"] for line in lines(first)] == list(range(1000))
    assert "1 queue of ended processes taken over" in (second.path / "worker.log").read_text()
    assert values(second.path, "x") == [1]
    assert left_in(own_host) == []


def test_workers_streams_are_its_own_and_it_is_nobodys_child(own_host: Path, runs: Path) -> None:
    begin = time.monotonic()
    told = run_child(
        """
import json, os, sys
import asynctrack

run = asynctrack.init("p", dir=sys.argv[1])
run.log({"x": 1})
run.flush()
try:
    os.wait()
except ChildProcessError:
    print(json.dumps("no child"))
os._exit(0)
""",
        runs,
        ASYNCTRACK_IDLE_EXIT_S="20",
    )
    assert told == "no child"
    assert (
        time.monotonic() - begin < 10
    )  # reading the child's output did not wait for the worker, which still has its streams
    assert len(workers(own_host)) == 1
    worker = the_worker(own_host)
    assert os.getsid(worker) != os.getsid(0)
    assert {os.readlink(f"/proc/{worker}/fd/{fd}") for fd in (0, 1)} == {os.devnull}
    assert os.readlink(f"/proc/{worker}/fd/2").endswith("/worker.log")
    kill_the_worker(
        own_host
    )  # before or after it has delivered all and removed the queue: then its place is empty, and young
    a_minute_later(own_host)
    asynctrack.init("p", id="next", dir=runs).finish()
    assert [len(records(path)) for path in (runs / "p").iterdir()].count(1) == 1


BROKEN = """
import json, sys
sys.path.insert(0, sys.argv[2])
import asynctrack

run = asynctrack.init("p", id="a", dir=sys.argv[1], finish_timeout_s=1.0)
for i in range(1000):
    run.log({"i": i})
print(json.dumps([run.finish().journaled, asynctrack.__file__]))
"""


@pytest.mark.system
def test_worker_whose_deliveries_cannot_start_journals_and_leaves(own_host: Path, runs: Path, tmp_path: Path) -> None:
    package = shutil.copytree(Path(asynctrack.__file__).parent, tmp_path / "broken" / "asynctrack")
    (package / "worker" / "service.py").write_text("raise ImportError('half an installation')\n")
    journaled, used = run_child(BROKEN, runs, package.parent)
    assert (journaled, Path(used).parent) == (1000, package)
    wait_until(lambda: not workers(own_host), "the worker has left")
    assert not list(own_host.rglob("*.ring"))
    assert asynctrack.open_run(runs / "p" / "a").status == "finished"
    assert values(runs / "p" / "a", "i") == list(range(1000))
    assert "half an installation" in (runs / "p" / "a" / "worker.log").read_text()


def test_threads_come_behind_who_only_looks_for_queues_that_are_left(own_host: Path) -> None:
    host = worker_registry.make_directory()
    script = """
import os, sys, time
from asynctrack._system import locks

lock = locks.take(sys.argv[1])
print("has it", flush=True)
time.sleep(0.1)
os.close(lock)
"""
    with start(script, Path(host, LOCK_NAME)) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "has it\n"
        threads = WorkerThreads(host)
        threads.start()
        assert threads.alive()
        threads.stop()


def test_look_that_comes_late_is_left_out_since_the_worker_may_have_been_stopped_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Slurm stops all processes of a job, and has them go on; the caller may be first, and would kill a worker that has not moved."""
    lookers: list[int] = []

    class Host:
        def look(self) -> bool:
            lookers.append(threading.get_ident())
            return True

    monkeypatch.setattr(worker_monitor, "_watched", {Host()})
    monkeypatch.setattr(worker_monitor, "_looked_at", time.monotonic() - 60)
    worker_monitor._look()
    assert threading.get_ident() not in lookers
    worker_monitor._look()
    assert threading.get_ident() in lookers
