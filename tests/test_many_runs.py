"""A hundred runs open at once in one process, with one worker; and bursts into the smallest ring."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import left_in, lines, manifest, records, stopped, the_worker, values, wait_until, workers

import asynctrack
from asynctrack import Memory, Run
from asynctrack.client.worker_launcher import WorkerLauncher
from asynctrack.queue.shm_paths import make_host_directory

RUNS = 100
RING_BYTES = 4 << 20


def open_below(descriptors: Path, *directories: Path) -> list[str]:
    """The files below these directories that a process has open."""
    found = []
    for link in descriptors.iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(link))
    return [path for path in found if path.startswith(tuple(map(str, directories)))]


def assert_one_worker(shared: Path, worker: str) -> None:
    """There is one worker process, or none where a thread does its work; on a busy machine it may just be starting."""
    if worker == "process":
        the_worker(shared)
    else:
        assert workers(shared) == []


def ring_sizes(shared: Path) -> list[int]:
    return [path.stat().st_size for path in shared.rglob("*.ring")]


def assert_all_there(run: Run, count: int) -> None:
    assert values(run.path, "i") == list(range(count))
    assert [line["i"] for line in lines(run.path)] == list(range(count))
    assert manifest(run.path)["status"] == "finished"


@pytest.fixture
def switching() -> Iterator[None]:
    """Threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.system
@pytest.mark.parametrize("worker", ["process", "thread"])
def test_a_hundred_runs_at_once_have_one_worker_and_a_whole_queue_each(own_host: Path, runs: Path, worker: str) -> None:
    opened = [asynctrack.init("p", dir=runs, worker=worker) for _ in range(RUNS)]  # type: ignore[arg-type]
    for i in range(200):
        for run in opened:
            assert run.log({"i": i})
    assert len(ring_sizes(own_host)) == RUNS
    assert min(ring_sizes(own_host)) >= RING_BYTES
    assert_one_worker(own_host, worker)
    for run in opened:
        run.flush("journaled")
    assert_one_worker(own_host, worker)
    for run in opened:
        assert run.finish().backends["jsonl"].delivered == 200
    for run in opened:
        assert_all_there(run, 200)
    wait_until(lambda: not ring_sizes(own_host), "no ring is left")


@pytest.mark.system
def test_a_hundred_runs_logged_to_by_threads_mix_nothing_up(own_host: Path, runs: Path) -> None:
    opened = [asynctrack.init("p", dir=runs) for _ in range(RUNS)]

    def optimise(part: list[Run]) -> None:
        for i in range(100):
            for run in part:
                assert run.log({"i": i, "id": run.id})

    threads = [threading.Thread(target=optimise, args=(opened[part::4],)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    finishing = [threading.Thread(target=run.finish) for run in opened]
    for thread in finishing:
        thread.start()
    for thread in finishing:
        thread.join()
    for run in opened:
        assert_all_there(run, 100)
        assert set(values(run.path, "id")) == {run.id}


@pytest.mark.system
@pytest.mark.usefixtures("switching")
@pytest.mark.parametrize("worker", ["process", "thread"])
def test_runs_opened_by_many_threads_at_once_have_one_worker(own_host: Path, runs: Path, worker: str) -> None:
    ready = threading.Barrier(8)
    opened: list[Run] = []

    def optimise() -> None:
        ready.wait()
        run = asynctrack.init("p", dir=runs, worker=worker)  # type: ignore[arg-type]
        opened.append(run)
        for i in range(200):
            assert run.log({"i": i})

    threads = [threading.Thread(target=optimise) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 8
    assert_one_worker(own_host, worker)
    assert sum(thread.name == "asynctrack-drain" for thread in threading.enumerate()) == (worker == "thread")
    for run in opened:
        run.finish()
        assert_all_there(run, 200)


@pytest.mark.system
def test_runs_one_after_the_other_share_a_worker_and_leave_nothing(own_host: Path, runs: Path) -> None:
    seen = set()
    for count in range(20):
        with asynctrack.init("p", dir=runs) as run:
            for i in range(count):
                assert run.log({"i": i})
            seen.update(workers(own_host))
        assert_all_there(run, count)
    wait_until(lambda: not workers(own_host), "the worker has left")
    assert left_in(own_host) == []
    assert len(seen) < 10  # it may have left in between when this machine is slow


@pytest.mark.system
@pytest.mark.parametrize("worker", ["process", "thread"])
def test_runs_that_have_ended_hold_no_descriptors(own_host: Path, runs: Path, worker: str) -> None:
    with asynctrack.init("p", dir=runs, worker=worker) as open_all_along:
        open_all_along.log({"i": 0})
        open_all_along.flush()
        served_by = Path(f"/proc/{the_worker(own_host) if worker == 'process' else os.getpid()}/fd")
        before = len(open_below(served_by, own_host, runs))
        for _ in range(20):
            with asynctrack.init("p", dir=runs, worker=worker) as run:
                run.log({"i": 1})
        wait_until(lambda: len(open_below(served_by, own_host, runs)) <= before + 4, "their descriptors are closed")


@pytest.mark.system
def test_run_that_has_finished_goes_with_its_last_reference(own_host: Path, runs: Path) -> None:
    """Its queue takes 16 MiB and a descriptor, and a loop of numbers may never call the garbage collector."""
    gc.collect()
    gc.disable()
    try:
        run = asynctrack.init("p", dir=runs)
        run.log({"i": 0})
        run.finish()
        gone = [
            weakref.ref(part) for part in (run, run._publisher, run._publisher.producer, run._publisher.producer.ring)
        ]
        del run
        assert [part() for part in gone] == [None] * 4
    finally:
        gc.enable()


@pytest.mark.system
def test_run_opened_after_the_worker_has_left_gets_another(own_host: Path, runs: Path) -> None:
    for count in (1, 2, 3):
        with asynctrack.init("p", dir=runs) as run:
            for i in range(count):
                assert run.log({"i": i})
        assert_all_there(run, count)
        wait_until(lambda: not workers(own_host), "the worker has left")
        assert left_in(own_host) == []


@pytest.mark.system
@pytest.mark.usefixtures("switching")
@pytest.mark.parametrize("worker", ["process", "thread"])
def test_runs_opened_while_other_threads_take_the_statistics_stay_open(own_host: Path, runs: Path, worker: str) -> None:
    watched = asynctrack.init("p", dir=runs, worker=worker)  # type: ignore[arg-type]
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            watched.stats()

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    opened: list[Run] = []
    try:
        for _ in range(60):
            opened.append(asynctrack.init("p", dir=runs, worker=worker))  # type: ignore[arg-type]
            assert opened[-1].log({"i": 0})
    finally:
        over.set()
        for thread in threads:
            thread.join()
    time.sleep(0.6)  # the worker looks twice a second whether producers live
    for run in opened:
        assert run.log({"i": 1})
        assert manifest(run.path)["status"] == "running" if (run.path / "run.json").exists() else True
    for run in [watched, *opened]:
        assert run.finish().dropped == {}
    for run in opened:
        assert_all_there(run, 2)


@pytest.mark.system
def test_bursts_after_idling_fit_into_the_smallest_ring(own_host: Path, runs: Path) -> None:
    run = asynctrack.init("p", dir=runs, queue_bytes=4096, when_full="block")
    run.flush()
    worker = the_worker(own_host)
    count = 0
    for burst in (10, 500, 1000, 2000):
        asleep_s = 0.15  # longer than the linger: the worker sleeps
        wait_until(lambda: run.stats().queued == 0, "the queue is empty")
        time.sleep(asleep_s)
        for _ in range(burst):
            assert run.log({"i": count})
            count += 1
    assert run.finish().dropped == {}
    assert workers(own_host) in ([worker], [])
    assert_all_there(run, count)


@pytest.mark.system
def test_bursts_after_idling_into_the_default_ring_drop_nothing(own_host: Path, runs: Path) -> None:
    run = asynctrack.init("p", dir=runs)
    run.flush()
    count = 0
    for _ in range(3):
        wait_until(lambda: run.stats().queued == 0, "the queue is empty")
        time.sleep(0.15)
        for _ in range(30_000):
            count += run.log({"i": count})
    stats = run.finish()
    assert stats.dropped == {}
    assert stats.accepted == count == 90_000
    assert_all_there(run, count)


def test_runs_with_backends_in_the_caller_keep_them_apart(own_host: Path, runs: Path) -> None:
    memories = [Memory() for _ in range(10)]
    opened = [asynctrack.init("p", dir=runs, backends=[memory]) for memory in memories]
    for i in range(50):
        for number, run in enumerate(opened):
            assert run.log({"i": i, "run": number})
    for run in opened:
        run.finish()
    for number, memory in enumerate(memories):
        assert memory.history == {"i": list(range(50)), "run": [number] * 50}


def test_one_run_whose_queue_is_full_holds_up_no_other(own_host: Path, runs: Path) -> None:
    full = asynctrack.init("p", dir=runs, queue_bytes=4096)
    free = asynctrack.init("p", dir=runs)
    for run in (full, free):
        run.flush()
    with stopped(the_worker(own_host)):
        while full.log({"i": 0}):
            pass
        for i in range(1000):
            assert free.log({"i": i})
    assert full.finish().dropped == {"full": 1}
    assert free.finish().dropped == {}
    assert_all_there(free, 1000)
    assert len(records(full.path)) == full.stats().accepted


def test_host_that_is_given_up_before_its_worker_was_heard_leaves_no_descriptor(own_host: Path, tmp_path: Path) -> None:
    """As where a worker comes up and leaves between two runs of a sweep on a busy machine."""

    def pipes() -> set[str]:
        found = open_below(Path("/proc/self/fd"), Path("/"), Path("pipe:"))
        return {path for path in found if path.startswith("pipe:")}

    before = pipes()
    launch = WorkerLauncher(make_host_directory(str(own_host)))
    launch.start(str(tmp_path / "worker.log"))
    its = pipes() - before
    assert its
    del launch
    wait_until(lambda: not its & pipes(), "it has closed what it had opened")
    # Not that no worker is seen: the shell that starts it may not yet have become one.
    wait_until(lambda: not left_in(own_host), "the worker has come, left, and taken its directory along")
