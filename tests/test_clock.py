"""The wall clock jumps by a day, back or forth, for callers and workers alike: nothing is lost, repeated or out of order, and nobody waits."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import time
from pathlib import Path

import pytest
from clock_library import build_clock
from support import assert_whole, lines, manifest, records, start, the_worker, wait_until, workers

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here to set the clock with")

DAY_S = 86_400
# Logs so many records from a number on, whenever it is told to; "finish" or a kill ends it. "alone", it cannot start a worker.
SESSION = """
import os, sys
import asynctrack

def no_more(*_, **__):
    raise BlockingIOError(11, "none")

if "alone" in sys.argv:
    os.posix_spawn = no_more
run = asynctrack.init("p", id="run", dir=sys.argv[1], resume="allow")
for line in sys.stdin:
    if line == "finish\\n":
        print(run.finish().accepted, flush=True)
        break
    first, count, until = line.split()
    for i in range(int(first), int(first) + int(count)):
        assert run.log({"i": i})
    if until != "queued":
        run.flush(until)
    print("logged", flush=True)
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_clock(tmp_path_factory.mktemp("clock"))


class Clock:
    """The clock of the processes that are started with its environment."""

    def __init__(self, library: Path, path: Path) -> None:
        self._path = path
        self._path.write_bytes(bytes(4096))
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_AHEAD": str(path)}

    def jump(self, seconds: int) -> None:
        (ahead,) = struct.unpack("<q", self._path.read_bytes()[:8])
        with self._path.open("r+b") as file:
            file.write(struct.pack("<q", ahead + seconds))


@pytest.fixture
def clock(library: Path, tmp_path: Path) -> Clock:
    return Clock(library, tmp_path / "ahead")


class RunSession:
    """A process that has the run open."""

    def __init__(self, clock: Clock, runs: Path, *, alone: bool = False) -> None:
        self._process = start(SESSION, runs, *["alone"] * alone, **clock.environment)

    def log(self, first: int, count: int = 100, until: str = "journaled") -> None:
        assert self._tell(f"{first} {count} {until}") == "logged"

    def finish(self, said: str = "") -> None:
        """Finish the run, and the process, which may have `said` something."""
        assert int(self._tell("finish"))
        out, err = self._process.communicate(timeout=30)
        assert (self._process.returncode, out, err) == (0, "", said)

    def kill(self, worker: int | None = None) -> None:
        """Kill it, and first its worker, which has to be stopped."""
        for pid in filter(None, (worker, self._process.pid)):
            os.kill(pid, signal.SIGKILL)
        self._process.communicate()

    def _tell(self, order: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{order}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().rstrip("\n")


def assert_one_history(run: Path, count: int) -> None:
    assert_whole(run, {"i": count})
    assert manifest(run)["status"] == "finished"
    assert [line["_step"] for line in lines(run)] == list(range(count))


@pytest.mark.system
@pytest.mark.parametrize("jump_s", [DAY_S, -DAY_S])
def test_clock_that_jumps_while_a_run_logs(own_host: Path, runs: Path, clock: Clock, jump_s: int) -> None:
    session = RunSession(clock, runs)
    session.log(0)
    worker = the_worker(own_host)
    begin = time.monotonic()
    for i in range(1, 4):
        clock.jump(jump_s)
        session.log(100 * i, until=("journaled", "synced", "delivered")[i - 1])
    assert workers(own_host) == [worker]
    session.finish()
    assert time.monotonic() - begin < 15  # nobody waited for a time-out
    assert_one_history(runs / "p" / "run", 400)
    times = [record.time_ns / 1e9 for record in records(runs / "p" / "run")[::100]]
    assert times[3] - times[0] == pytest.approx(3 * jump_s, abs=60)


@pytest.mark.system
@pytest.mark.parametrize("jump_s", [DAY_S, -DAY_S])
def test_clock_that_jumps_between_the_sessions_of_a_run(own_host: Path, runs: Path, clock: Clock, jump_s: int) -> None:
    first = RunSession(clock, runs)
    first.log(0)
    first.finish()
    clock.jump(jump_s)
    second = RunSession(clock, runs)  # killed with its worker, so that the journal's last segment has no note
    second.log(100)
    worker = the_worker(own_host)
    os.kill(worker, signal.SIGSTOP)
    second.log(200, until="queued")
    second.kill(worker)
    clock.jump(jump_s)
    third = RunSession(clock, runs, alone=True)  # so that the fourth takes over the queues of two sessions
    third.log(300, until="queued")
    third.kill()
    clock.jump(jump_s)
    fourth = RunSession(clock, runs)
    fourth.log(400)
    fourth.finish()
    assert_one_history(runs / "p" / "run", 500)


@pytest.mark.system
@pytest.mark.parametrize("jump_s", [DAY_S, -DAY_S])
def test_clock_that_jumps_between_two_workers(own_host: Path, runs: Path, clock: Clock, jump_s: int) -> None:
    session = RunSession(clock, runs)
    session.log(0)
    killed = the_worker(own_host)
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: killed not in workers(own_host), "the worker is gone")
    clock.jump(jump_s)
    session.log(100)
    session.finish(said="asynctrack: the worker is gone; starting another, nothing is lost\n")
    assert_one_history(runs / "p" / "run", 200)


# The clock is a day ahead when queues are left behind, and right again when others look what they are; or the other way round.
@pytest.mark.system
@pytest.mark.parametrize("jump_s", [DAY_S, -DAY_S])
def test_what_ended_processes_left_is_taken_over_whatever_the_clock_says(
    own_host: Path, runs: Path, clock: Clock, jump_s: int
) -> None:
    lost = RunSession(clock, runs)
    lost.log(0)
    worker = the_worker(own_host)
    os.kill(worker, signal.SIGSTOP)
    lost.log(100, until="queued")
    lost.kill(worker)
    clock.jump(jump_s)
    other = start("import asynctrack, sys; asynctrack.init('p', dir=sys.argv[1]).finish()", runs, **clock.environment)
    other.communicate(timeout=30)
    wait_until(lambda: not workers(own_host), "the worker has done all there was to do")
    assert_whole(runs / "p" / "run", {"i": 200})
    assert manifest(runs / "p" / "run")["status"] == "crashed"
