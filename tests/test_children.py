"""Runs in the children of `multiprocessing` and of executors, which leave in ways of their own: each ends as its function did."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import DEADLINE_S, assert_whole, ended, left_in, manifest, wait_until, workers

Script = Callable[..., subprocess.CompletedProcess[str]]

# How every script begins: functions for children, most of which open a run of their own and do not finish it.
BEGIN = """
import multiprocessing, os, signal, sys, threading, time
import asynctrack

folder, method, worker = sys.argv[1:4]

def log(run, who="i", count=200):
    for i in range(count):
        assert run.log({who: i})

def open_run(name):
    return asynctrack.init("p", id=name, dir=folder, worker=worker)

def returns(name):
    log(open_run(name))

def finishes(name):
    with open_run(name) as run:
        log(run)

def raises(name):
    log(open_run(name))
    raise ValueError("diverged")

def exits(name, code=None):
    log(open_run(name))
    sys.exit(code)

def leaves(name):
    log(open_run(name))
    os._exit(0)

def waits(name):
    log(open_run(name))
    (asynctrack.current().path / "ready").touch()
    time.sleep(60)

def start(target, name, *arguments):
    process = multiprocessing.get_context(method).Process(target=target, args=(name, *arguments))
    process.start()
    return process
"""


@pytest.fixture
def script(own_host: Path, runs: Path, tmp_path: Path) -> Script:
    """Run a script that begins like the others, as a file, since spawned children import it; in the end all workers have left."""

    def run(body: str, *arguments: str, timeout_s: float = 2 * DEADLINE_S) -> subprocess.CompletedProcess[str]:
        path = tmp_path / "script.py"
        path.write_text(BEGIN + '\nif __name__ == "__main__":\n    ' + body.strip().replace("\n", "\n    "))
        command = [sys.executable, path, runs, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
        assert done.returncode == 0, done.stderr
        wait_until(lambda: not workers(own_host), "the workers have left")
        return done

    return run


def status(run: Path) -> str:
    wait_until(lambda: ended(run), "the run has ended")
    assert_whole(run)
    text: str = manifest(run)["status"]
    return text


WAYS = [
    ("fork", "process"),
    ("forkserver", "process"),
    ("spawn", "process"),
    ("fork", "thread"),
    ("spawn", "thread"),
]


@pytest.mark.system
@pytest.mark.parametrize(("method", "worker"), WAYS)
def test_run_that_a_child_leaves_open_ends_as_the_child_does(
    script: Script, runs: Path, own_host: Path, method: str, worker: str
) -> None:
    done = script(
        """
started = {
    "returns": (start(returns, "returns"), 0),
    "finishes": (start(finishes, "finishes"), 0),
    "raises": (start(raises, "raises"), 1),
    "exits": (start(exits, "exits"), 0),
    "exits 3": (start(exits, "exits 3", 3), 3),
}
for name, (process, code) in started.items():
    process.join()
    assert process.exitcode == code, (name, process.exitcode)
""",
        method,
        worker,
    )
    assert done.stderr.count("Traceback") == 1
    assert done.stderr.endswith("ValueError: diverged\n")
    assert {path.name: status(path) for path in (runs / "p").iterdir()} == {
        "returns": "finished",
        "finishes": "finished",
        "raises": "failed",
        "exits": "finished",
        "exits 3": "failed",
    }
    error = "ValueError: diverged" if sys.version_info < (3, 13) else "SystemExit: 1"  # what is left of it
    assert manifest(runs / "p" / "raises")["error"] == error
    assert left_in(own_host) == []


@pytest.mark.system
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_child_that_is_ended_from_outside_loses_nothing(
    script: Script, runs: Path, own_host: Path, method: str
) -> None:
    script(
        """
processes = {name: start(waits, name) for name in ("terminated", "killed")}
processes["leaves"] = start(leaves, "leaves")
while not all(os.path.exists(f"{folder}/p/{name}/ready") for name in ("terminated", "killed")):
    time.sleep(0.01)
processes["terminated"].terminate()
processes["killed"].kill()
codes = []
for process in processes.values():
    process.join()
    codes.append(process.exitcode)
assert codes == [-signal.SIGTERM, -signal.SIGKILL, 0]
""",
        method,
        "process",
    )
    for name in ("terminated", "killed", "leaves"):
        assert status(runs / "p" / name) == "crashed"
    assert left_in(own_host) == []


@pytest.mark.system
@pytest.mark.parametrize("worker", ["process", "thread"])
def test_forked_children_that_log_to_the_parents_run_end_as_they_like(
    script: Script, runs: Path, own_host: Path, worker: str
) -> None:
    script(
        """
run = open_run("run")
log(run)

def child_raises(who):
    log(run, who)
    raise ValueError("diverged")

def child_leaves(who):
    log(run, who)
    os._exit(0)

def child_waits(who):
    log(run, who)
    os.kill(os.getpid(), signal.SIGSTOP)

def child_finishes(who):
    log(run, who)
    run.finish()

def child_returns(who):
    log(run, who)

processes = [start(child_returns, "returns"), start(child_finishes, "finishes")]
processes += [start(child_raises, "raises"), start(child_leaves, "leaves")]
stopped = start(child_waits, "waits")
os.waitpid(stopped.pid, os.WUNTRACED)
stopped.kill()
for process in processes:
    process.join()
stopped.join()
log(run, "parent")
""",
        "fork",
        worker,
    )
    assert status(runs / "p" / "run") == "finished"
    sources = ["i", "returns", "finishes", "raises", "leaves", "waits", "parent"]
    assert_whole(runs / "p" / "run", dict.fromkeys(sources, 200))
    assert left_in(own_host) == []


@pytest.mark.system
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_runs_left_open_in_a_pool_end_with_its_processes(
    script: Script, runs: Path, own_host: Path, method: str
) -> None:
    script(
        """
context = multiprocessing.get_context(method)
with context.Pool(2) as terminated:
    terminated.map(returns, ["a", "b", "c"], chunksize=1)
closed = context.Pool(2)
closed.map(returns, ["d", "e", "f"], chunksize=1)
closed.close()
closed.join()
""",
        method,
        "process",
    )
    for name in "abc":  # `with` ends a pool by SIGTERM, unless its processes are quicker to leave
        assert status(runs / "p" / name) in ("crashed", "finished")
    for name in "def":
        assert status(runs / "p" / name) == "finished"
    assert left_in(own_host) == []


@pytest.mark.system
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_runs_left_open_in_a_process_executor_end_with_it(
    script: Script, runs: Path, own_host: Path, method: str
) -> None:
    script(
        """
from concurrent.futures import ProcessPoolExecutor

run = open_run("run")
log(run)

def share(who):
    log(run, who)

with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as executor:
    done = [executor.submit(returns, name) for name in "abc"]
    if method == "fork":
        done += [executor.submit(share, who) for who in "def"]
    for future in done:
        future.result()
""",
        method,
        "process",
    )
    for name in "abc":
        assert status(runs / "p" / name) == "finished"
    assert status(runs / "p" / "run") == "finished"
    assert_whole(runs / "p" / "run", dict.fromkeys(["i", *("def" if method == "fork" else "")], 200))
    assert left_in(own_host) == []


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_two_hundred_forks_from_a_process_whose_four_threads_log(script: Script, runs: Path, own_host: Path) -> None:
    done = script(
        """
run = open_run("run")
over, counts = threading.Event(), {}

def work(who):
    counts[who] = 0
    while not over.is_set():
        counts[who] += run.log({who: counts[who]})
        time.sleep(0)

def leave(number):
    log(run, f"child {number}", 10)
    if number % 4 == 0:
        os._exit(0)
    if number % 4 == 1:
        raise ValueError
    if number % 4 == 2:
        os.execv("/bin/true", ["true"])
    run.finish()

threads = [threading.Thread(target=work, args=(f"thread {i}",)) for i in range(4)]
for thread in threads:
    thread.start()
for first in range(0, 200, 8):
    for number, process in [(number, start(leave, number)) for number in range(first, first + 8)]:
        process.join(20)
        assert process.exitcode == (number % 4 == 1), process
over.set()
for thread in threads:
    thread.join()
assert not run.finish().dropped
print(*counts.values())
""",
        "fork",
        "process",
        timeout_s=120,
    )
    counts = {f"thread {i}": int(count) for i, count in enumerate(done.stdout.split())}
    assert status(runs / "p" / "run") == "finished"
    assert_whole(runs / "p" / "run", {**counts, **{f"child {i}": 10 for i in range(200)}})
    assert left_in(own_host) == []
