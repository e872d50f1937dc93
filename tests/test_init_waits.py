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
        assert len(caplog.messages) == 1
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
