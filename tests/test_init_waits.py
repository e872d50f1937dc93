"""`init()` and what reads runs on a disk that does not answer: they wait, say so, and Ctrl-C ends the wait and leaves nothing half open."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hanging_disk import HangingDisk
from support import assert_whole, left_in, manifest, run_child, wait_until, workers

import asynctrack
from asynctrack import Run
from asynctrack._system import disk_timeout
from asynctrack.client import preparation
from asynctrack.errors import RunExists, RunIsRunning
from asynctrack.worker.run_claim import RunClaim


@pytest.fixture
def disk(hanging_disk: HangingDisk) -> Iterator[HangingDisk]:
    (hanging_disk.path / "runs").mkdir()
    yield hanging_disk
    hanging_disk.go_on()


@pytest.mark.system
@pytest.mark.parametrize("kind", ["stat", "names", "open"])
def test_init_on_a_disk_that_hangs_says_that_it_waits_and_opens_the_run_when_it_answers(
    disk: HangingDisk, own_host: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(disk_timeout, "WARN_AFTER_S", 0.2)
    disk.hang(kind)  # type: ignore[arg-type]  # a kind
    opened: list[Run] = []
    opening = threading.Thread(target=lambda: opened.append(asynctrack.init("p", id="run", dir=disk.path / "runs")))
    opening.start()
    try:
        wait_until(lambda: f"waiting for {disk.path}/runs/p/run: its disk does not answer" in caplog.text, "it is said")
        assert len([message for message in caplog.messages if str(disk.path) in message]) == 1
    finally:
        disk.go_on()
        opening.join()
    opened[0].log({"i": 0})
    opened[0].finish()
    assert_whole(opened[0].path, {"i": 1})


def interrupt_when(condition: object, what: str) -> threading.Thread:
    """Ctrl-C, once something is so."""

    def press() -> None:
        wait_until(condition, what)  # type: ignore[arg-type]  # a function
        os.kill(os.getpid(), signal.SIGINT)

    pressing = threading.Thread(target=press)
    pressing.start()
    return pressing


def begun_again(disk: HangingDisk) -> Run | None:
    """The run, once what was left behind with its disk has gone."""
    try:
        return asynctrack.init("p", id="run", dir=disk.path / "runs")
    except (RunExists, RunIsRunning):
        return None


@pytest.mark.system
@pytest.mark.parametrize("kind", ["stat", "names", "open"])
def test_ctrl_c_ends_an_init_that_waits_for_its_disk_and_nothing_is_left_when_that_answers(
    disk: HangingDisk, own_host: Path, tmp_path: Path, kind: str
) -> None:
    disk.hang(kind)  # type: ignore[arg-type]  # a kind
    pressing = interrupt_when(disk.waiting, "init waits")
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        asynctrack.init("p", id="run", dir=disk.path / "runs")
    assert time.monotonic() - begun < 10
    pressing.join()
    with asynctrack.init("p", id="other", dir=tmp_path / "healthy") as other:  # while the first still hangs
        other.log({"i": 0})
    assert_whole(other.path, {"i": 1})
    disk.go_on()
    with wait_until(lambda: begun_again(disk), "nothing is left of it") as run:
        run.log({"i": 0})
    assert_whole(run.path, {"i": 1})


@pytest.mark.system
def test_open_run_on_a_disk_that_hangs_says_that_it_waits_and_ctrl_c_ends_it(
    disk: HangingDisk, own_host: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_timeout, "WARN_AFTER_S", 0.2)
    asynctrack.init("p", id="run", dir=disk.path / "runs").finish()
    disk.hang()
    path = disk.path / "runs" / "p" / "run"
    said = f"waiting for {path}: its disk does not answer"
    pressing = interrupt_when(lambda: said in caplog.text, "it is said")
    with pytest.raises(KeyboardInterrupt):
        asynctrack.open_run(path)
    pressing.join()
    disk.go_on()
    assert asynctrack.open_run(path).status == "finished"


@pytest.mark.slow
def test_ls_of_a_disk_that_hangs_says_that_it_waits_and_lists_it_when_it_answers(
    disk: HangingDisk, own_host: Path
) -> None:
    asynctrack.init("p", id="run", dir=disk.path / "runs").finish()
    disk.hang()
    command = [sys.executable, "-m", "asynctrack", "ls", str(disk.path / "runs")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as listing:
        assert listing.stderr is not None
        assert "its disk does not answer" in listing.stderr.readline()
        disk.go_on()
        assert "p/run" in listing.communicate(timeout=30)[0]


# Ctrl-C at one place of `init` after the other: before each line of ours that its thread comes to. Prints the places.
INTERRUPTED = """
import json, os, sys, time
import asynctrack, asynctrack.worker.threads
from asynctrack.client import run_lock
from asynctrack.client import shutdown

faulthandler.cancel_dump_traceback_later()
folder, worker, first, step = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
home = os.path.dirname(asynctrack.__file__)
limit = first + 4000  # a wait for the worker may be of any length

def interrupting(number, places):
    def trace(frame, event, _):
        nonlocal number
        if not frame.f_code.co_filename.startswith(home):
            return None
        number -= event == "line"
        if number == 0:
            sys.settrace(None)
            places.append(f"{frame.f_code.co_filename}:{frame.f_lineno}")
            raise KeyboardInterrupt
        return trace
    return trace

asynctrack.init("p", id="warm", dir=folder, worker=worker).finish()
found = {}
for number in range(first, limit, step):
    places = []
    sys.settrace(interrupting(number, places))
    try:
        run = asynctrack.init("p", id=f"run-{number}", dir=folder, worker=worker)
    except KeyboardInterrupt:
        run = None
    finally:
        sys.settrace(None)
    if run is not None:
        run.finish()
    assert asynctrack.current() is None, places
    assert not shutdown._open, places
    deadline = time.monotonic() + 20  # on a busy machine what is undone may take more than init waits for it
    while run_lock._held and time.monotonic() < deadline:
        time.sleep(0.001)
    assert not run_lock._held, places
    if not places:
        break
    if run is None:
        found[f"run-{number}"] = places[0]
print(json.dumps(found))
"""


def assert_interrupted_everywhere(own_host: Path, runs: Path, worker: str, first: int, step: int) -> None:
    places = run_child(INTERRUPTED, runs, worker, first, step)
    assert places
    wait_until(lambda: not workers(own_host), "the worker has left")
    for name, place in places.items():
        path = runs / "p" / name / "run.json"
        assert not path.exists() or manifest(path.parent)["status"] == "failed", place
    assert left_in(own_host) == []


@pytest.mark.system
@pytest.mark.parametrize("worker", ["process", "thread"])
def test_ctrl_c_in_init_leaves_nothing_or_a_run_that_has_failed(own_host: Path, runs: Path, worker: str) -> None:
    assert_interrupted_everywhere(own_host, runs, worker, 11, 97)


@pytest.mark.slow
@pytest.mark.parametrize("worker", ["process", "thread"])
@pytest.mark.parametrize("first", [1, 2])
def test_ctrl_c_anywhere_in_init_leaves_nothing_or_a_run_that_has_failed(
    own_host: Path, runs: Path, worker: str, first: int
) -> None:
    assert_interrupted_everywhere(own_host, runs, worker, first, 7)


# Ctrl-C as one of the worker's threads has begun, while whoever starts it waits for that.
INTERRUPTED_AS_A_THREAD_BEGINS = """
import asynctrack, asynctrack.worker.threads, json, os, signal, sys, threading

folder, name = sys.argv[1:3]
begin, begun = threading.Thread.start, []

def begin_and_interrupt(thread):
    begin(thread)
    if thread.name == name and not begun:
        begun.append(thread)
        os.kill(os.getpid(), signal.SIGINT)

threading.Thread.start = begin_and_interrupt
try:
    asynctrack.init("p", id="interrupted", dir=folder, worker="thread")
    raise SystemExit("it is not interrupted")
except KeyboardInterrupt:
    pass
for number in range(5):
    with asynctrack.init("p", id=f"run-{number}", dir=folder, worker="thread") as run:
        assert run.log({"i": 0})
names = [thread.name for thread in threading.enumerate()]
print(json.dumps({name: names.count(name) for name in names if name.startswith("asynctrack-")}))
"""


@pytest.mark.parametrize(
    "name",
    [
        "asynctrack-drain",
        *[
            pytest.param(f"asynctrack-{name}", marks=pytest.mark.system)
            for name in ("files", "service", "sync", "watchdog")
        ],
    ],
)
def test_ctrl_c_as_the_worker_starts_leaves_one_worker_that_loses_nothing(
    own_host: Path, runs: Path, name: str
) -> None:
    threads = run_child(INTERRUPTED_AS_A_THREAD_BEGINS, runs, name)
    assert {name: n for name, n in threads.items() if name != "asynctrack-files"} == dict.fromkeys(
        ("asynctrack-drain", "asynctrack-service", "asynctrack-sync", "asynctrack-watchdog"), 1
    )
    for number in range(5):
        assert_whole(runs / "p" / f"run-{number}", {"i": 1})
    assert left_in(own_host) == []


# Ctrl-C before one line after the other of what starts the worker, `threading` too. Then the next run must have a worker, and threads of ours look after it.
INTERRUPTED_STARTS = """
import asynctrack, asynctrack.worker.threads, json, os, sys, threading
from asynctrack._system import messages
from asynctrack.client import worker_registry
from asynctrack.client.run_queue import RunQueue
from asynctrack.client.worker_monitor import monitor

faulthandler.cancel_dump_traceback_later()
folder, worker, first, step = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
files = os.path.dirname(asynctrack.__file__), threading.__file__
serve, left, places = RunQueue.serve, 0, []

def trace(frame, event, _):
    global left
    if not frame.f_code.co_filename.startswith(files):
        return None
    left -= event == "line"
    if left == 0:
        sys.settrace(None)
        places.append(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        raise KeyboardInterrupt
    return trace

def serve_until_interrupted(queue):
    if left > 0 and threading.current_thread() is threading.main_thread():
        sys.settrace(trace)
    try:
        serve(queue)
    finally:
        sys.settrace(None)

def does(thread):
    for pause in thread.until_done(10):
        threading.Event().wait(pause)
    return thread.started and not thread.waits

RunQueue.serve = serve_until_interrupted
for number in range(first, 120, step):  # the last lines are those of the wait for the worker, again and again
    for thread in (monitor, messages._thread):
        thread.after_fork()  # each of our threads is to be started anew
    left = number
    try:
        asynctrack.init("p", id=f"first-{number}", dir=folder, worker=worker).finish()
    except KeyboardInterrupt:
        pass
    left = 0
    run = asynctrack.init("p", id=f"next-{number}", dir=folder, worker=worker, finish_timeout_s=10)
    assert run.log({"i": 0})
    assert run.finish().behind == 0, places
    assert sum(thread.name == "asynctrack-drain" for thread in threading.enumerate()) == (worker == "thread"), places
    assert does(monitor), places
    assert does(messages._thread), places
    worker_registry.stop_threads()
    worker_registry._hosts.clear()  # the next begins without a worker
print(json.dumps(len(places)))
"""


@pytest.mark.system
@pytest.mark.parametrize(
    ("worker", "first", "step"),
    [("process", 1, 15), ("process", 6, 15), ("process", 11, 15), ("thread", 1, 3), ("thread", 2, 3), ("thread", 3, 3)],
)
def test_run_behind_an_interrupted_start_of_the_worker_has_one(
    own_host: Path, runs: Path, worker: str, first: int, step: int
) -> None:
    """Every third line each, or every fifteenth: all of them at once take ten seconds of a core."""
    assert run_child(INTERRUPTED_STARTS, runs, worker, first, step) > 60 / step
    wait_until(lambda: not workers(own_host), "the worker has left")
    for run in (runs / "p").glob("next-*"):
        assert_whole(run, {"i": 1})
    assert left_in(own_host) == []


def test_two_workers_of_one_process_never_have_one_run(tmp_path: Path) -> None:
    first = RunClaim.take(str(tmp_path))
    assert first is not None
    assert RunClaim.take(str(tmp_path)) is None
    assert first.is_asked_for()
    asked = subprocess.run([sys.executable, "-c", ASKS, tmp_path / "lock"], capture_output=True, check=True)
    assert asked.stdout == b"taken\n"  # to ask for it has not given it back
    first.close()
    second = RunClaim.take(str(tmp_path))
    assert second is not None
    second.close()


def test_request_of_who_has_its_queues_where_the_worker_has_its_own_is_none(tmp_path: Path) -> None:
    """A forked child makes the place again that somebody has removed, and begins a worker there, before its parent's takes the place back."""
    claim = RunClaim.take(str(tmp_path), "/shared/here")
    assert claim is not None
    assert RunClaim.take(str(tmp_path), "/shared/here") is None
    assert not claim.is_asked_for()
    assert RunClaim.take(str(tmp_path), "/shared/elsewhere") is None
    assert claim.is_asked_for()
    claim.close()


ASKS = """
import fcntl, sys
try:
    fcntl.lockf(open(sys.argv[1], "r+"), fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    print("taken")
"""


def test_directory_that_another_removes_as_a_run_is_opened_is_made_again(tmp_path: Path) -> None:
    path, over = tmp_path / "p" / "run", threading.Event()
    path.parent.mkdir()

    def come_and_go() -> None:
        while not over.wait(0.0001):
            with contextlib.suppress(OSError):
                path.mkdir()
            with contextlib.suppress(OSError):
                path.rmdir()

    another = threading.Thread(target=come_and_go)
    another.start()
    try:
        for _ in range(500):
            with contextlib.suppress(RunExists):
                lock, _ = preparation._take_run_lock(path, "run", "never")
                lock.release()
                preparation._remove_run_directory(path)
    finally:
        over.set()
        another.join()
