"""The run's directory is filled, locked, removed or moved while the loop logs: it goes on, told the truth, and nothing is left behind."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from support import (
    assert_whole,
    kill_the_worker,
    left_in,
    lines,
    manifest,
    remove,
    run_child,
    run_confined,
    values,
    wait_until,
    workers,
)

import asynctrack
from asynctrack.cli.sync_job import SyncJob

TESTS = Path(__file__).parent
BEGIN = f"""
import json, logging, os, subprocess, sys, time
from pathlib import Path

sys.path.insert(0, {str(TESTS)!r})
from support import ended, manifest, values, wait_until

import asynctrack
import asynctrack.reading.stats
from asynctrack.journal.cursor import load_cursor

runs, worker = Path(sys.argv[1]), sys.argv[2]
said, noted = [], []  # by the caller's side, and by a worker that is threads of this process


class Hear(logging.Handler):
    def emit(self, record):
        (said if record.name == "asynctrack" else noted).append(record.getMessage())


logging.getLogger().addHandler(Hear())


class Loop:
    '''Logs its numbers, and keeps those that were accepted.'''

    def __init__(self, run):
        self.run, self.offered, self.accepted = run, 0, []

    def log(self, count):
        for _ in range(count):
            if self.run.log({{"i": self.offered, "text": "x" * 50}}):
                self.accepted.append(self.offered)
            self.offered += 1

    def log_until_the_disk_is_full(self):
        while not self.run.flush("journaled", timeout_s=0.5).queued:
            self.log(200)
        wait_until(lambda: self.log(10) or self.accepted[-1] < self.offered - 1, "the queue is full too")

    def log_until_there_is_room(self):
        wait_until(lambda: self.log(1) or self.accepted[-1] == self.offered - 1, "there is room")

    def check(self, stats, finished):
        '''Nothing accepted is lost or repeated, every refusal is counted, and the statistics balance.'''
        path = self.run.path
        assert finished.offered == stats.offered == self.offered, (finished, stats, self.offered)
        assert stats.accepted == stats.journaled == len(self.accepted), (stats, len(self.accepted))
        assert stats.backends["jsonl"].delivered == len(self.accepted), stats
        assert values(path, "i") == self.accepted
        assert [json.loads(line)["i"] for line in (path / "metrics.jsonl").open()] == self.accepted
        assert manifest(path)["status"] == "finished"


def warned(text):
    return [message for message in said if text in message]


def completed(run):
    '''Wait until the worker has delivered all, and noted how the run ended.'''
    wait_until(lambda: ended(run.path), "the run has ended")
    wait_until(lambda: load_cursor(run.path, "jsonl").closed, "all is delivered")
    wait_until(lambda: not list(Path(os.environ["ASYNCTRACK_SHM"]).rglob("*.ring")), "the worker has let go of it")
    return asynctrack.reading.stats.StatsCollector(run.path).collect([], [], ["jsonl"])

"""


# Where a process proves most, threads are tried in the long run only.
MOSTLY_PROCESS = pytest.mark.parametrize(
    "worker", [pytest.param("process", marks=pytest.mark.system), pytest.param("thread", marks=pytest.mark.slow)]
)


@pytest.fixture(params=["process", "thread"])
def worker(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Where a small file system is mounted, for the child that mounts it and its workers only."""
    path = tmp_path / "disk"
    path.mkdir()
    return path


def on_a_small_disk(disk: Path, script: str, *arguments: object, size: str = "1m") -> Any:
    resize = f"""

def resize(size):
    subprocess.run(["mount", "-o", f"remount,size={{size}}", "tmpfs", {str(disk)!r}], check=True)

"""
    return run_confined(f"mount -t tmpfs -o size={size} tmpfs {disk}", BEGIN + resize + script, disk, *arguments)


@pytest.mark.usefixtures("own_host")
class TestFull:
    @pytest.mark.system
    def test_full_disk_drops_and_says_so_and_the_journal_goes_on_when_there_is_room(
        self, disk: Path, worker: str
    ) -> None:
        on_a_small_disk(
            disk,
            """
run = asynctrack.init("p", dir=runs, worker=worker, queue_bytes=1 << 16)
loop = Loop(run)
loop.log_until_the_disk_is_full()
for _ in range(3):
    loop.log(100)
    time.sleep(0.2)
assert len(warned("dropped so far, the queue is full")) == 1, said
assert len(warned("the queue is full: the journal cannot be written (No space left on device)")) == 1, said
resize("64m")
loop.log_until_there_is_room()
for _ in range(20):
    loop.log(50)
    time.sleep(0.01)
stats = run.finish()
assert set(stats.dropped) == {"full"}
loop.check(completed(run), stats)
assert len(set(said + noted)) == len(said + noted), said + noted
log = run.path / "worker.log"
assert not log.exists() or log.read_text().count("WARNING") <= 4, log.read_text()  # journal, sync, run.json, delivery
""",
            worker,
        )

    @pytest.mark.system
    def test_finish_on_a_full_disk_returns_by_its_deadline_and_the_worker_completes_the_run(self, disk: Path) -> None:
        on_a_small_disk(
            disk,
            """
run = asynctrack.init("p", id="run", dir=runs, worker=worker, queue_bytes=1 << 16, finish_timeout_s=0.5)
loop = Loop(run)
loop.log_until_the_disk_is_full()
begin = time.monotonic()
stats = run.finish()
assert time.monotonic() - begin < 5
assert stats.queued > 0
assert stats.accepted == stats.journaled + stats.queued == len(loop.accepted), stats
delivered = stats.backends["jsonl"]
assert stats.journaled == delivered.delivered + delivered.behind
assert warned(f"{stats.queued} records are not journaled: the journal cannot be written (No space left on device)")
resize("64m")
loop.check(completed(run), stats)
""",
            "process",
        )

    @pytest.mark.system
    def test_run_that_begins_on_a_full_disk_goes_on_when_there_is_room(self, disk: Path, worker: str) -> None:
        on_a_small_disk(
            disk,
            """
with open(runs / "ballast", "wb", buffering=0) as file:
    try:
        while file.write(bytes(4096)):
            pass
    except OSError:
        pass
run = asynctrack.init("p", dir=runs, worker=worker)
loop = Loop(run)
loop.log(1000)
stats = run.flush("journaled", timeout_s=1)
assert (stats.journaled, stats.queued) == (0, 1000), stats
(runs / "ballast").unlink()
loop.log(1000)
stats = run.finish()
assert not stats.dropped
loop.check(completed(run), stats)
""",
            worker,
        )

    @MOSTLY_PROCESS
    def test_disk_that_fills_up_and_is_freed_again_and_again_loses_and_repeats_nothing(
        self, disk: Path, worker: str
    ) -> None:
        on_a_small_disk(
            disk,
            """
run = asynctrack.init("p", dir=runs, worker=worker, queue_bytes=1 << 15, linger_s=0.01)
loop = Loop(run)
for size in ("600k", "1500k", "64m"):
    loop.log_until_the_disk_is_full()
    resize(size)
    loop.log_until_there_is_room()
stats = run.finish()
loop.check(completed(run), stats)
""",
            worker,
            size="200k",
        )


LOCKED = """
def lock(mode):
    for path in (run.path, run.path / "journal", run.path / "cursors"):
        if path.exists():
            path.chmod(mode)

"""


@pytest.mark.usefixtures("own_host")
class TestReadOnly:
    """Nothing can be made in the run's directory: no `run.json`, no cursor, no segment. What is open can be written."""

    def confine(self, script: str, *arguments: object) -> None:
        # To root everything may be written, unless it is taken from it.
        within = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
        if within and shutil.which("setpriv") is None:
            pytest.skip("root may write anywhere, and there is no setpriv here")
        run_child(BEGIN + LOCKED + script, *arguments, within=within)

    @MOSTLY_PROCESS
    def test_journal_goes_on_and_the_rest_when_it_may(self, runs: Path, worker: str) -> None:
        self.confine(
            """
run = asynctrack.init("p", dir=runs, worker=worker)
loop = Loop(run)
loop.log(100)
run.flush()
lock(0o500)
for _ in range(10):
    loop.log(100)
    time.sleep(0.05)
run.config["late"] = 1
begin = time.monotonic()
stats = run.flush("delivered", timeout_s=0.3)
assert time.monotonic() - begin < 3
assert stats.journaled == stats.accepted == 1100, stats
assert manifest(run.path)["config"] == {}
lock(0o700)
loop.log(100)
stats = run.finish()
loop.check(completed(run), stats)
assert manifest(run.path)["config"] == {"late": 1}
assert said == warned("1100 records are not yet at jsonl; the worker keeps trying"), said
""",
            runs,
            worker,
        )

    @pytest.mark.system
    def test_worker_that_starts_there_waits(self, runs: Path, own_host: Path) -> None:
        self.confine(
            """
run = asynctrack.init("p", dir=runs, worker=worker)
loop = Loop(run)
loop.log(100)
run.flush()
lock(0o500)
os.kill(run._publisher.producer.ring.words[20], 9)
for _ in range(4):
    loop.log(100)
    time.sleep(0.3)
stats = run.flush("journaled", timeout_s=0.5)
assert stats.accepted == 500, stats
lock(0o700)
stats = run.finish()
loop.check(completed(run), stats)
assert warned("the worker is gone; starting another") and len(said) == 1, said
""",
            runs,
            "process",
        )

    @pytest.mark.system
    def test_run_that_ends_there_is_completed_when_it_may_be(self, runs: Path) -> None:
        self.confine(
            """
run = asynctrack.init("p", dir=runs, worker=worker, finish_timeout_s=0.5)
loop = Loop(run)
loop.log(100)
run.flush()
lock(0o500)
loop.log(100)
begin = time.monotonic()
stats = run.finish()
assert time.monotonic() - begin < 5
assert stats.journaled == 200, stats
assert stats.journaled == stats.backends["jsonl"].delivered + stats.backends["jsonl"].behind
lock(0o700)
loop.check(completed(run), stats)
""",
            runs,
            "process",
        )


class TestRemoved:
    @pytest.mark.system
    def test_removed_run_is_let_go_of_when_its_caller_ends(self, own_host: Path, runs: Path, worker: str) -> None:
        run = asynctrack.init("p", dir=runs, worker=worker)
        for i in range(1000):
            assert run.log({"i": i})
        run.flush()
        remove(run.path)
        for i in range(20):
            assert run.log({"i": i})
            time.sleep(0.02)
        begin = time.monotonic()
        stats = run.finish()
        assert time.monotonic() - begin < 10
        assert stats.accepted == stats.journaled + stats.queued
        assert stats.queued > 0
        wait_until(lambda: not list(own_host.rglob("*.ring")), "its queue is gone")
        assert not run.path.exists()

    @pytest.mark.system
    def test_log_to_a_removed_run_is_turned_away_when_the_queue_is_full(
        self, own_host: Path, runs: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        run = asynctrack.init("p", dir=runs, queue_bytes=1 << 14)
        run.flush()
        remove(run.path)
        wait_until(lambda: not run.log({"i": 0}), "the queue is full")
        dropped = 1 + sum(not run.log({"i": 0}) for _ in range(100))
        stats = run.finish()
        assert stats.dropped == {"full": dropped}
        assert stats.offered == stats.accepted + dropped
        told = [record.getMessage() for record in caplog.records]
        told = [text for text in told if "move it back" not in text]  # where it takes more than some seconds
        assert len(told) == 5, told
        assert "the queue is full: the journal cannot be written (No such file or directory)" in told[0]
        assert (
            "the statistics cannot be read: [Errno 2] this process cannot see the run's directory any more" in told[1]
        )
        assert f"{dropped} records were dropped in all: {dropped} found the queue full" in told[2]
        assert f"{stats.queued} records are not journaled: the run's directory has been removed or moved" in told[3]
        assert "whether jsonl has all records cannot be told from here" in told[4]
        assert "`asynctrack sync` with the directory where it is now" in told[4]
        wait_until(lambda: not workers(own_host), "the worker has left")

    @pytest.mark.system
    def test_worker_that_starts_for_a_removed_run_does_not_stay(self, own_host: Path, runs: Path) -> None:
        run = asynctrack.init("p", dir=runs, finish_timeout_s=3)
        run.flush()
        kill_the_worker(own_host)
        remove(run.path)
        assert run.log({"i": 0})
        begin = time.monotonic()
        assert run.finish().queued == 1
        assert time.monotonic() - begin < 10
        wait_until(lambda: not list(own_host.rglob("*.ring")), "its queue is gone")
        wait_until(lambda: not workers(own_host), "the worker has left")
        assert not run.path.exists()

    @pytest.mark.system
    def test_caller_killed_after_its_run_was_removed_leaves_nothing(self, own_host: Path, runs: Path) -> None:
        run_child(
            """
import asynctrack, os, shutil, signal, sys
if not os.fork():
    run = asynctrack.init("p", dir=sys.argv[1])
    run.log({"i": 0})
    run.flush()
    shutil.rmtree(run.path, ignore_errors=True)
    run.log({"i": 1})
    os.kill(os.getpid(), signal.SIGKILL)
os.wait()
""",
            runs,
        )
        wait_until(lambda: not workers(own_host), "the worker has left")
        assert left_in(own_host) == []
        assert list((runs / "p").iterdir()) == []

    def test_run_with_the_id_of_a_removed_one_begins_anew(self, own_host: Path, runs: Path, worker: str) -> None:
        """As in a notebook whose user removes what was recorded, and runs the cell again."""
        first = asynctrack.init("p", id="run", dir=runs, worker=worker)
        for i in range(1000):
            first.log({"i": i})
        first.flush()
        remove(first.path)
        second = asynctrack.init("p", id="run", dir=runs, worker=worker)
        for i in range(500):
            second.log({"i": i})
            first.log({"i": -1})
        second.finish()
        first.finish()
        assert_whole(second.path, {"i": 500})
        assert manifest(second.path)["status"] == "finished"

    def test_segment_that_was_removed_is_followed_by_another(self, own_host: Path, runs: Path) -> None:
        run = asynctrack.init("p", dir=runs)
        run.log({"i": 0})
        run.flush()
        for segment in (run.path / "journal").iterdir():
            segment.unlink()
        for i in range(1, 500):
            assert run.log({"i": i})
        stats = run.finish()
        assert stats.queued == 0
        assert [line["i"] for line in lines(run.path)] == list(range(500))
        with pytest.warns(asynctrack.errors.DamagedJournal, match="segment is missing"):
            found = asynctrack.open_run(run.path)
        assert [record.data["i"] for record in found.records()][-499:] == list(range(1, 500))


class TestMoved:
    def test_moved_run_is_whole_where_it_is(self, own_host: Path, runs: Path) -> None:
        run = asynctrack.init("p", id="run", dir=runs)
        for i in range(500):
            assert run.log({"i": i})
        run.flush()
        moved = runs / "elsewhere"
        run.path.rename(moved)
        for i in range(500, 1000):
            assert run.log({"i": i})
        begin = time.monotonic()
        run.finish()
        assert time.monotonic() - begin < 10
        wait_until(lambda: not workers(own_host), "the worker has left")
        assert not run.path.exists()
        assert values(moved, "i") == list(range(1000))
        assert asynctrack.open_run(moved).status == "finished"
        with SyncJob([moved]) as work:
            wait_until(lambda: work.poll() and work.done, "all is delivered")
        assert_whole(moved, {"i": 1000})

    @pytest.mark.system
    def test_run_that_is_moved_and_moved_back_goes_on(self, own_host: Path, runs: Path, worker: str) -> None:
        run = asynctrack.init("p", id="run", dir=runs, worker=worker)
        count = 0
        for _ in range(3):
            for away in (True, False):
                for _ in range(100):
                    assert run.log({"i": count})
                    count += 1
                run.flush("journaled")
                if away:
                    run.path.rename(runs / "elsewhere")
                else:
                    (runs / "elsewhere").rename(run.path)
        assert run.finish().dropped == {}
        assert_whole(run.path, {"i": count})
        assert manifest(run.path)["status"] == "finished"
