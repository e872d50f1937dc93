"""A disk that hangs holds up the runs that are on it, and nothing else."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import anyio
import msgspec
import pytest
from hanging_disk import HangingDisk
from support import (
    assert_whole,
    kill_the_worker,
    left_in,
    lines,
    run_child,
    start,
    the_worker,
    values,
    wait_until,
    workers,
)

import asynctrack
from asynctrack import Run
from asynctrack.backends.base import Backend
from asynctrack.backends.sql import SQL
from asynctrack.cli.sync_job import SyncJob
from asynctrack.client import run_lock, worker_handle
from asynctrack.journal.cursor import Cursor, cursor_path
from asynctrack.testing.scripted import Scripted, Trouble
from asynctrack.worker import log_writer
from asynctrack.worker.delegated_delivery import DelegatedDelivery
from asynctrack.worker.delivery_supervisor import SupervisedProcess
from asynctrack.worker.relay import HELD_AFTER_S, Relay, Watchdog

Opened = Callable[[Path], Run]


@pytest.fixture
def disk(hanging_disk: HangingDisk) -> Iterator[HangingDisk]:
    """The disk, well again in the end, so that the worker can leave."""
    yield hanging_disk
    hanging_disk.go_on()


def opened(where: Path, worker: Literal["process", "thread"] = "process", **arguments: object) -> Run:
    return asynctrack.init(project="p", dir=where / "runs", backends=["jsonl"], worker=worker, **arguments)  # type: ignore[arg-type]


def log_some(run: Run, count: int = 20, first: int = 0) -> None:
    for i in range(first, first + count):
        assert run.log({"a": i})


def worker_says(what: str) -> bool:
    """Whether `asynctrack workers` does, in a process of its own: this one must not open its own rings again."""
    found = subprocess.run([sys.executable, "-m", "asynctrack", "workers"], capture_output=True, text=True, timeout=20)
    return what in found.stdout


def hang_in_the_middle(disk: HangingDisk, run: Run) -> None:
    """Let the disk hang, and its run's worker with it."""
    disk.hang()
    run.log({"held": 1})
    wait_until(disk.waiting, "the worker waits for the disk")


@pytest.mark.system
@pytest.mark.parametrize("worker", ["process", "thread"])
def test_run_on_a_healthy_disk_is_journaled_and_delivered_while_anothers_hangs(
    worker: Literal["process", "thread"], disk: HangingDisk, own_host: Path, tmp_path: Path
) -> None:
    hung, healthy = opened(disk.path, worker), opened(tmp_path, worker)
    log_some(hung)
    log_some(healthy)
    assert healthy.flush(timeout_s=10).behind == 0
    assert hung.flush(timeout_s=10).behind == 0
    hang_in_the_middle(disk, hung)
    for i in range(4):  # through a few looks of everybody at everything
        log_some(healthy, first=20 + 20 * i)
        assert healthy.flush(timeout_s=10).behind == 0
        time.sleep(0.3)
    log_some(late := opened(tmp_path, worker))  # a run that begins meanwhile
    assert late.finish().behind == 0
    healthy.finish()
    assert_whole(healthy.path, {"a": 100})
    disk.go_on()
    assert hung.finish().behind == 0
    assert values(hung.path, "a") == list(range(20))
    assert lines(hung.path)[-1]["held"] == 1


def test_what_is_logged_while_the_disk_hangs_is_journaled_when_it_goes_on(disk: HangingDisk, own_host: Path) -> None:
    run = opened(disk.path)
    log_some(run)
    run.flush(timeout_s=10)
    hang_in_the_middle(disk, run)
    log_some(run, 500, first=20)
    disk.go_on()
    assert run.finish().behind == 0
    assert len(values(run.path, "a")) == 520


@pytest.mark.system
def test_worker_that_waits_for_a_disk_is_not_taken_for_hung(
    disk: HangingDisk, own_host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_handle, "HUNG_AFTER_S", 0.5)
    run = opened(disk.path)
    log_some(run)
    run.flush(timeout_s=10)
    pid = the_worker(own_host)
    hang_in_the_middle(disk, run)
    until = time.monotonic() + 2
    while time.monotonic() < until:
        run.log({"x": "y" * 5000})  # each 64 KiB somebody looks at the worker
        time.sleep(0.005)
    assert the_worker(own_host) == pid
    disk.go_on()
    assert run.finish().behind == 0


@pytest.mark.system
def test_queue_of_a_run_whose_disk_hangs_fills_and_the_message_says_so(
    disk: HangingDisk, own_host: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = opened(disk.path, queue_bytes=1 << 16)
    run.flush("journaled")  # what hangs for 40 s fails, and a worker may take long to start
    hang_in_the_middle(disk, run)
    wait_until(run._publisher.producer.ring.trouble, "the worker says what is wrong")
    wait_until(lambda: worker_says("cannot write: the disk hangs"), "the command line knows it")
    while run.log({"x": "y" * 1000}):
        pass
    wait_until(lambda: "the queue is full: the journal cannot be written (the disk hangs)" in caplog.text, "it is said")
    disk.go_on()
    stats = run.finish()
    assert stats.dropped["full"] == 1
    assert stats.accepted == stats.journaled


@pytest.mark.system
def test_run_whose_journal_hangs_as_it_is_opened_does_not_hold_up_another(
    disk: HangingDisk, own_host: Path, tmp_path: Path
) -> None:
    hung, healthy = opened(disk.path), opened(tmp_path)
    log_some(hung)
    log_some(healthy)
    hung.flush(timeout_s=10)
    kill_the_worker(own_host)
    disk.hang()
    wait_until(lambda: healthy.log({"b": 1}) and disk.waiting(), "the next worker waits for the disk")
    log_some(healthy, first=20)
    assert healthy.finish().behind == 0
    disk.go_on()
    assert hung.finish().behind == 0
    assert_whole(hung.path, {"a": 20})


@pytest.mark.slow
def test_delivery_process_goes_on_for_a_run_on_a_healthy_disk(
    disk: HangingDisk, own_host: Path, tmp_path: Path
) -> None:
    hung, healthy = (
        asynctrack.init(project="p", dir=where / "runs", backends=[SQL(url=f"sqlite:///{tmp_path}/{name}.db")])
        for name, where in (("hung", disk.path), ("healthy", tmp_path))
    )
    for run in (hung, healthy):
        log_some(run)
        assert run.flush(timeout_s=20).behind == 0
    hang_in_the_middle(disk, hung)
    for i in range(4):
        log_some(healthy, first=20 + 20 * i)
        assert healthy.flush(timeout_s=20).behind == 0
        time.sleep(0.5)
    assert healthy.finish().behind == 0
    disk.go_on()
    assert hung.finish().behind == 0


class TestRelay:
    """Rounds among three runs, at which a thread may be held up."""

    def test_others_are_visited_while_one_holds_a_thread_up(self) -> None:
        gate, seen = threading.Event(), {"a": 0, "b": 0, "c": 0}
        over = threading.Event()

        def look(run: str) -> None:
            if run == "b":
                gate.wait()
            seen[run] += 1

        def rounds() -> None:
            while not over.is_set():
                for run in seen:
                    if relay.may_visit(run, None):
                        relay.visit(run, None, look, run)
                over.wait(0.005)

        relay, watchdog = Relay("rounds", rounds), Watchdog()
        watchdog.relays.append(relay)
        relay.start()
        watchdog.start()
        wait_until(lambda: seen["c"] > 10, "c is visited")
        assert relay.held == {"b"}
        assert seen["b"] == 0
        gate.set()
        wait_until(lambda: seen["b"] > 10, "b is visited again")
        assert not relay.held
        over.set()
        watchdog.stop()
        relay.join(10)
        assert not relay.is_alive()

    def test_other_runs_on_a_disk_that_hangs_cost_few_threads(self) -> None:
        gate, over, seen = threading.Event(), threading.Event(), {"well": 0}
        runs = [("well", 1), *((f"hung {i}", 2) for i in range(50))]

        def look(run: str, disk: int) -> None:
            if disk == 2:
                gate.wait()
            seen[run] = seen.get(run, 0) + 1

        def rounds() -> None:
            while not over.is_set():
                for run, disk in runs:
                    if relay.may_visit(run, disk):
                        relay.visit(run, disk, look, run, disk)
                over.wait(0.005)

        relay, watchdog = Relay("rounds", rounds), Watchdog()
        watchdog.relays.append(relay)
        relay.start()
        watchdog.start()
        wait_until(lambda: relay.held, "a run holds a thread up")
        before = seen["well"]
        wait_until(lambda: seen["well"] > before + 50, "the run that is well is visited")
        assert len(relay.held) <= 2
        gate.set()
        wait_until(lambda: len(seen) == len(runs), "all are visited")
        over.set()
        watchdog.stop()

    def test_a_visit_that_is_quick_is_never_relieved(self) -> None:
        relay = Relay("rounds", lambda: None)
        assert relay.visit("a", None, lambda: 3) == 3
        time.sleep(HELD_AFTER_S)
        relay.relieve()
        assert not relay.held


def test_who_writes_what_the_worker_says_may_hang() -> None:
    gate, said = threading.Event(), []
    log_writer.call(gate.wait)
    log_writer.call(said.append, "late")
    begun = time.monotonic()
    log_writer.flush(0.05)
    assert time.monotonic() - begun < 5
    assert said == []
    gate.set()
    log_writer.flush(10)
    assert said == ["late"]


# Logs to a disk that fails by then, and is killed.
CALLER_ON_A_FAILING_DISK = """
import os, signal, sys
import asynctrack
run = asynctrack.init("p", id="run", dir=sys.argv[1])
run.log({"i": 0})
run.flush("journaled")
print("ready", flush=True)
sys.stdin.readline()
assert all(run.log({"i": i}) for i in range(1, 100))
os.kill(os.getpid(), signal.SIGKILL)
"""


def left_on_a_failing_disk(own_host: Path, disk: HangingDisk, runs: Path) -> int:
    """A queue whose caller and worker are dead and whose disk fails, taken over by another's worker; its pid."""
    child = start(CALLER_ON_A_FAILING_DISK, disk.path)
    assert child.stdout is not None and child.stdin is not None
    assert child.stdout.readline() == "ready\n"
    kill_the_worker(own_host)
    disk.fail(errno.EIO, "open", "names")
    child.stdin.write("\n")
    child.communicate()
    run_child("import asynctrack, sys; asynctrack.init('p', id='other', dir=sys.argv[1]).finish()", runs)
    return the_worker(own_host)


def resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


@pytest.mark.system
def test_worker_that_waits_for_a_failing_disk_takes_no_memory_and_goes_when_it_is_well(
    own_host: Path, disk: HangingDisk, runs: Path
) -> None:
    worker = left_on_a_failing_disk(own_host, disk, runs)
    wait_until(lambda: (runs / "p" / "other" / "run.json").exists(), "it has done what it could")
    time.sleep(0.5)
    before = resident_kib(worker)
    time.sleep(2.0)  # it began anew ten times a second, with 40 KiB more each time
    assert resident_kib(worker) < before + 200
    disk.go_on()
    wait_until(lambda: not workers(own_host), "it has delivered all and left")
    assert_whole(disk.path / "p" / "run", {"i": 100})
    assert left_in(own_host) == []


@pytest.mark.system
def test_worker_that_is_told_to_leave_leaves_a_queue_whose_disk_fails_for_sync(
    own_host: Path, disk: HangingDisk, runs: Path
) -> None:
    worker = left_on_a_failing_disk(own_host, disk, runs)
    os.kill(worker, signal.SIGTERM)
    wait_until(lambda: not workers(own_host), "the worker has left")
    disk.go_on()
    command = [sys.executable, "-m", "asynctrack", "sync", str(disk.path)]
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    assert_whole(disk.path / "p" / "run", {"i": 100})


def left_alone(own_host: Path, disk: HangingDisk) -> None:
    """A run whose caller and worker are dead, with records that are in its queue only."""
    child = start(CALLER_ON_A_FAILING_DISK, disk.path)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    kill_the_worker(own_host)
    disk.fail(errno.EIO, "open", "names")
    child.communicate("\n")
    disk.go_on()
    wait_until(lambda: not workers(own_host), "no worker is left")


def two_left(own_host: Path, disk: HangingDisk) -> list[Path]:
    """Two runs whose callers and workers are dead, each with records that are in its queue only."""
    paths = [disk.path / "p" / "bad", disk.path / "p" / "good"]
    for path in paths:
        child = start(CALLER_ON_A_FAILING_DISK.replace('id="run"', f'id="{path.name}"'), disk.path)
        assert child.stdout is not None and child.stdin is not None
        assert child.stdout.readline() == "ready\n"
        kill_the_worker(own_host)
        disk.fail(errno.EIO, "open", "names")
        child.communicate("\n")
        disk.go_on()
        wait_until(lambda: not workers(own_host), "no worker is left")
    return paths


@pytest.mark.system
def test_sync_brings_home_what_it_can_where_another_run_cannot_be_read(own_host: Path, disk: HangingDisk) -> None:
    paths = two_left(own_host, disk)
    disk.fail(errno.EIO, "open", "read", under="p/bad")
    command = [sys.executable, "-m", "asynctrack", "sync", str(disk.path), "--patience-s", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done
    assert "bad" in done.stderr + done.stdout, done
    assert_whole(paths[1], {"i": 100})
    disk.go_on()
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    assert_whole(paths[0], {"i": 100})
    assert left_in(own_host) == []


@pytest.mark.system
def test_sync_to_a_full_disk_ends_at_once_and_says_that_it_is_full_and_what_to_do(
    own_host: Path, disk: HangingDisk
) -> None:
    left_alone(own_host, disk)
    disk.fail(errno.ENOSPC, "write")
    command = [sys.executable, "-m", "asynctrack", "sync", str(disk.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)  # well before its patience ends
    assert done.returncode == 1, done
    said = next(line for line in done.stdout.splitlines() if "run: journal:" in line)
    assert "No space left on device" in said and said.endswith("fix that, and sync again"), done
    disk.go_on()
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    assert_whole(disk.path / "p" / "run", {"i": 100})


@pytest.mark.system
@pytest.mark.parametrize("place", ["p/bad", "p"])
def test_runs_of_which_the_disk_does_not_tell_are_named(disk: HangingDisk, runs: Path, place: str) -> None:
    for name in ("bad", "good"):
        run_child(
            "import asynctrack, sys; asynctrack.init('p', id=sys.argv[2], dir=sys.argv[1]).finish()", disk.path, name
        )
    disk.fail(errno.EIO, "stat", "open", under=place)
    for command in (["sync", str(disk.path)], ["ls", str(disk.path)]):
        done = subprocess.run(
            [sys.executable, "-m", "asynctrack", *command], capture_output=True, text=True, timeout=60
        )
        assert str(Path(place).name) in (done.stdout + done.stderr).replace(str(disk.path), ""), done
        assert "Input/output error" in done.stdout + done.stderr, done
        assert done.returncode == (command[0] == "sync"), done
    disk.go_on()


@pytest.mark.system
def test_backend_in_its_caller_gets_all_though_the_disk_failed_as_the_run_was_opened(
    disk: HangingDisk, own_host: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk.fail(errno.EIO, "open", "read", under="p/run/journal")
    memory = asynctrack.Memory()
    with asynctrack.init("p", id="run", dir=disk.path, backends=[memory]) as run:
        log_some(run)
        wait_until(lambda: "the journal cannot be read" in caplog.text, "it is said")
        disk.go_on()
        run.flush()
        assert [record["a"] for record in memory.records] == list(range(20))


@pytest.mark.system
def test_who_looks_at_a_delivery_process_goes_on_though_its_cursor_cannot_be_read(
    disk: HangingDisk, own_host: Path
) -> None:
    (disk.path / "run" / "cursors").mkdir(parents=True)
    path = cursor_path(disk.path / "run", "sql")
    path.write_bytes(msgspec.json.encode(Cursor(delivered=5)))
    delivery = DelegatedDelivery(disk.path / "run", "sql", Backend(), {}, SupervisedProcess("sql", os.fspath(own_host)))
    looks: list[int] = []

    def looked() -> None:
        looks.append(delivery.cursor.delivered)
        if len(looks) == 3:
            disk.go_on()
            path.write_bytes(msgspec.json.encode(Cursor(delivered=7, closed=True)))

    disk.fail(errno.EIO, "open", "read", under="run/cursors")
    anyio.run(lambda: delivery.drive(lambda _: anyio.sleep(0), lambda: True, looked))
    assert looks[:3] == [5, 5, 5]
    assert looks[-1] == 7


@pytest.mark.system
def test_disk_that_fails_is_told_of_in_a_line_where_the_worker_is_in_its_caller(
    disk: HangingDisk, own_host: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(disk.path, worker="thread") as run:
        log_some(run)
        run.flush()
        disk.fail(errno.EIO)
        log_some(run, first=20)
        wait_until(lambda: "cannot be served" in caplog.text, "it is said")
        disk.go_on()
    wait_until(lambda: lines(run.path)[-1:] and lines(run.path)[-1]["a"] == 39, "all is delivered")
    assert "Traceback" not in caplog.text


def test_run_that_is_closed_while_its_disk_fails_can_be_opened_by_another(disk: HangingDisk) -> None:
    (disk.path / "run").mkdir()
    taken = run_lock.take(disk.path / "run")
    disk.fail(errno.EIO)
    taken.release()
    disk.go_on()
    script = "import pathlib, sys; from asynctrack.client import run_lock; run_lock.take(pathlib.Path(sys.argv[1])); print('null')"
    assert run_child(script, disk.path / "run") is None


@pytest.mark.system
def test_run_that_cannot_be_read_any_more_while_it_is_recovered_holds_up_no_other(
    own_host: Path, disk: HangingDisk
) -> None:
    bad, good = two_left(own_host, disk)
    with SyncJob([bad, good], patience_s=1.0) as work:
        disk.fail(errno.EIO, "open", "read", under="p/bad")
        wait_until(lambda: work.poll() and work.done, "what can be done is done")
        assert [(found.state, bool(found.missing)) for found in work.poll()] == [("behind", True), ("done", False)]
    assert_whole(good, {"i": 100})
    disk.go_on()
    with SyncJob([bad]) as work:
        wait_until(lambda: work.poll() and work.done, "it is well again")
    assert_whole(bad, {"i": 100})


def test_end_of_a_run_whose_disk_fails_once_the_statistics_are_read_says_what_cannot_be_known(
    runs: Path, rough_host: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(read: Callable[[], object]) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    never = Scripted(troubles=(Trouble(does="retry", times=None),))
    run = asynctrack.init("p", id="run", dir=runs, backends=[never], finish_timeout_s=0.1)
    run.log({"a": 1})
    run.flush("journaled")
    run._session._reports.report_backends(run.stats(), fail)
    said = "whether Scripted has all records cannot be told from here ([Errno 22] Invalid argument)"
    wait_until(lambda: said in caplog.text, "it is said")
    run.finish()
