"""Who tidies shared memory removes the queues of runs that go on: no run notices, and a worker that dies then is replaced without loss."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from support import assert_whole, kill_the_worker, manifest, rings_in, run_child, said, the_worker, wait_until, writers

import asynctrack
from asynctrack import Run
from asynctrack.client.worker_handle import WorkerHandle
from asynctrack.queue.shm_paths import move_ring, remove_host

STEPS = [
    ("kill", "remove"),
    ("remove", "kill"),
    ("kill", "remove", "log"),
    ("log", "remove", "kill", "log"),
    ("remove", "log", "kill"),
]


def begin(runs: Path) -> Run:
    """A run whose worker has its queue, and so its mapping."""
    run = asynctrack.init("p", id="run", dir=runs)
    log(run, 100)
    wait_until(lambda: run.stats().journaled == 100, "the worker has the queue")
    return run


def log(run: Run, count: int, first: int = 0) -> None:
    for i in range(first, first + count):
        assert run.log({"i": i})


def remove_all(shared: Path) -> None:
    """As logind does with `RemoveIPC`."""
    while os.listdir(shared):
        for path in shared.iterdir():
            shutil.rmtree(path, ignore_errors=True)


@pytest.mark.system
@pytest.mark.parametrize("steps", STEPS, ids="-".join)
def test_removed_queue_whose_worker_is_killed_is_journaled_all_the_same(
    own_host: Path, runs: Path, steps: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    run, logged = begin(runs), 100
    for step in steps:
        if step == "log":
            log(run, 2000, logged)
            logged += 2000
        elif step == "kill":
            kill_the_worker(own_host)
        else:
            remove_all(own_host)
    stats = run.finish()
    assert stats.journaled == stats.backends["jsonl"].delivered == logged
    assert_whole(run.path, {"i": logged})
    assert manifest(run.path)["status"] == "finished"
    wait_until(lambda: "removed from shared memory; it is made again" in caplog.text, "it is told")


@pytest.mark.system
@pytest.mark.parametrize("worker", ["process", "thread"])
def test_removed_queue_is_noticed_by_no_run_whose_worker_lives(own_host: Path, runs: Path, worker: str) -> None:
    script = textwrap.dedent("""
    import os, shutil, sys, time
    from pathlib import Path
    import asynctrack
    runs, shared, worker = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    run = asynctrack.init("p", id="run", dir=runs, worker=worker)
    for i in range(100):
        run.log({"i": i})
    run.flush("journaled")
    place = next(shared.iterdir())
    while place.exists():  # the worker may be making its files in it
        shutil.rmtree(place, ignore_errors=True)
    if not os.fork():
        for i in range(200):
            run.log({"child": i})
        assert run.finish().queued == 0
        os._exit(0)
    assert os.wait()[1] == 0
    with asynctrack.init("p", id="other", dir=runs, worker=worker) as other:
        other.log({"i": 0})
    for i in range(100, 200):
        run.log({"i": i})
    start = time.monotonic()
    stats = run.finish()
    print(stats.journaled + other.stats().journaled)
    """)
    assert run_child(script, runs, own_host, worker) == 401
    assert_whole(runs / "p" / "run", {"i": 200, "child": 200})
    assert_whole(runs / "p" / "other", {"i": 1})
    assert manifest(runs / "p" / "run")["status"] == "finished"


def test_place_of_a_removed_queue_is_made_again_by_its_worker(own_host: Path, runs: Path) -> None:
    run = begin(runs)
    worker = the_worker(own_host)
    remove_all(own_host)
    wait_until(lambda: list(own_host.glob("*/*/worker.lock")), "the worker has its place again")
    with asynctrack.init("p", id="other", dir=runs) as other:
        log(other, 10)
        assert wait_until(lambda: writers(other.path), "the other run is journaled") == [worker]
    log(run, 100, 100)
    assert run.finish().journaled == 200
    assert_whole(run.path, {"i": 200})


@pytest.mark.system
def test_removed_queues_of_a_process_and_its_children_are_all_journaled(own_host: Path, runs: Path) -> None:
    script = textwrap.dedent("""
    import os, shutil, signal, sys, time
    from pathlib import Path
    import asynctrack
    runs, shared = Path(sys.argv[1]), Path(sys.argv[2])
    run = asynctrack.init("p", id="run", dir=runs)
    run.log({"i": 0})
    said, hears = os.pipe()
    children = []
    for name in "ab":
        gone, go = os.pipe()
        if not os.fork():
            os.close(go)
            for i in range(300):
                run.log({name: i})
            os.write(hears, b"!")
            os.read(gone, 1)
            for i in range(300, 400):
                run.log({name: i})
            run.finish()
            os._exit(0)
        os.close(gone)
        children.append(go)
    for go in children:
        os.read(said, 1)
    run.flush("journaled")
    worker = int(next(shared.glob("*/*/worker.lock")).read_text())
    place = next(shared.iterdir())
    while place.exists():  # the worker may be making its files in it
        shutil.rmtree(place, ignore_errors=True)
    os.kill(worker, signal.SIGKILL)
    for i in range(1, 300):
        run.log({"i": i})
    for go in children:
        os.close(go)
    assert [os.wait()[1] for _ in children] == [0, 0]
    print(run.finish().journaled)
    """)
    assert run_child(script, runs, own_host) == 1100
    assert_whole(runs / "p" / "run", {"i": 300, "a": 400, "b": 400})
    assert manifest(runs / "p" / "run")["status"] == "finished"


@pytest.mark.system
def test_removed_queue_that_cannot_be_made_again_is_told_of_and_made_when_it_can(
    own_host: Path, runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = begin(runs)
    kill_the_worker(own_host)
    own_host.rename(own_host.with_suffix(".away"))
    try:
        log(run, 1000, 100)
        run.flush("journaled", timeout_s=2)
        assert run.stats().queued == 1000
        wait_until(lambda: "removed from shared memory, and cannot be made again: " in caplog.text, "it is told")
        assert "nothing is lost" not in caplog.text
    finally:
        shutil.rmtree(own_host.with_suffix(".away"))
        own_host.mkdir()
    stats = run.finish()
    assert stats.journaled == 1100
    assert_whole(run.path, {"i": 1100})
    assert rings_in(own_host) == []


LEAVES = """
import os, sys
from asynctrack._system import locks
os.rename(sys.argv[1], sys.argv[1] + ".closed")
lock = locks.take(os.path.join(sys.argv[1] + ".closed", "worker.lock"))
print("closed", flush=True)
sys.stdin.read()
"""


def test_queue_whose_place_a_worker_closes_as_it_leaves_is_not_removed(own_host: Path, runs: Path) -> None:
    """A process that joins a run may make its queue at that moment. The worker finds it there and stays for it."""
    handle = WorkerHandle("process", str(own_host), list)
    ring = handle.open_ring({"run": str(runs / "p" / "run")}, 65536).ring
    closed = Path(f"{handle.directory}.closed")
    worker = subprocess.Popen(
        [sys.executable, "-c", LEAVES, handle.directory], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"closed\n"
        handle.release(ring)
        assert not os.path.exists(handle.directory)
        assert [path.suffix for path in closed.iterdir() if path.name != "worker.lock"].count(".ring") == 1
        worker.communicate()
    remove_host(str(closed))


HOLDS = """
import os, sys
from asynctrack._system import locks
lock = locks.take(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


def test_queue_that_another_process_has_brought_to_its_worker_is_left_there_as_long_as_that_lives(
    own_host: Path, runs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (runs / "p").mkdir(
        parents=True
    )  # without its run: a worker that finds the queue has nothing to do but to remove it
    handle, other = (WorkerHandle("process", str(own_host), list) for _ in range(2))
    ring = handle.open_ring({"run": str(runs / "p" / "run")}, 65536).ring
    path = ring.path
    move_ring(path, other.directory)
    worker = subprocess.Popen(
        [sys.executable, "-c", HOLDS, f"{other.directory}/worker.lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"held\n"
        handle._leave_to_another(ring)
        assert not os.path.exists(path)
        assert ring.held_by() is None and len(rings_in(own_host)) == 1
        worker.communicate()
    handle.release(ring)
    assert os.path.exists(path)
    ring.let_go()
    wait_until(lambda: not rings_in(own_host), "a worker of its own has it")
    assert said(caplog, tmp_path) == []
    remove_host(other.directory)
