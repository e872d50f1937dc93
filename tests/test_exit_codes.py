"""The exit code of a process counts for the status of its run, and what killed it is named; also that of its children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from support import DEADLINE_S, ROOT, assert_whole, kernel_tells_exit_codes, manifest, start, wait_until

import asynctrack
from asynctrack.journal.cursor import load_cursor
from asynctrack.worker.caller_exit import Caller, _exit_status, _status_of_zombie

needs_kernel = pytest.mark.skipif(not kernel_tells_exit_codes(), reason="only Linux 6.15 and newer keep the exit code")

BEGIN = """
import asyncio, faulthandler, os, signal, sys, threading, time
import asynctrack
faulthandler.cancel_dump_traceback_later()  # a forked child would wait for its thread

run = asynctrack.init("p", id="run", dir=sys.argv[1])
for i in range(100):
    run.log({"i": i})
run.flush("journaled")  # the worker knows us
"""


def whole(runs: Path, counts: dict[str, int]) -> None:
    run = runs / "p" / "run"
    wait_until(lambda: load_cursor(run, "jsonl").delivered == sum(counts.values()), "all is delivered")
    assert_whole(run, counts)


def end_of(script: str, runs: Path, status: str, error: str | None, begin: str = BEGIN) -> dict[str, Any]:
    """`run.json` of a script's run, when it says how the run ended."""
    child = start(begin + script, runs)
    out, err = child.communicate(timeout=2 * DEADLINE_S)

    def ended() -> dict[str, Any] | None:
        path = runs / "p" / "run" / "run.json"
        found = manifest(path.parent) if path.exists() else {"status": "running"}
        return found if (found["status"], found.get("error")) == (status, error) else None

    try:
        found = wait_until(ended, "run.json says it")
    except AssertionError:
        found = manifest(runs / "p" / "run")
        raise AssertionError(f"{found['status']}: {found['error']}\n{out}{err}") from None
    assert asynctrack.open_run(runs / "p" / "run").status == status
    return found


@pytest.mark.system
@needs_kernel
@pytest.mark.parametrize(
    ("script", "status", "error"),
    [
        ("sys.exit(3)", "failed", "exit code 3"),
        ("raise SystemExit('no data')", "failed", "exit code 1"),
        ("run.finish(); sys.exit(3)", "finished", None),
        ("with run: pass\nsys.exit(3)", "finished", None),
        ("try: sys.exit(3)\nexcept SystemExit: pass", "finished", None),
        ("threading.Thread(target=sys.exit, args=(3,)).start()", "finished", None),
        ("sys.exit(0)", "finished", None),
        ("run.mark_preempted(); sys.exit(3)", "preempted", None),
        ("os._exit(3)", "crashed", "exit code 3"),
        ("os._exit(0)", "crashed", "it ended without a word, by os._exit"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "crashed", "killed by SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "crashed", "killed by SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)", "crashed", "killed by SIGTERM"),
        ("import faulthandler; faulthandler.enable(); os.abort()", "crashed", "killed by SIGABRT"),
        ("import atexit; run; atexit.register(lambda: None); 1 / 0", "failed", "ZeroDivisionError: division by zero"),
    ],
)
def test_exit_of_a_process_decides_on_what_its_run_has_not_said(
    own_host: Path, runs: Path, script: str, status: str, error: str | None
) -> None:
    end_of(script, runs, status, error)
    whole(runs, {"i": 100})


@needs_kernel
def test_crash_after_the_end_of_the_interpreter_is_told(own_host: Path, runs: Path) -> None:
    """As of a library whose teardown fails, long after all that Python tells anybody of."""
    before = "import atexit, os, signal\natexit.register(os.kill, os.getpid(), signal.SIGSEGV)\n"
    end_of("", runs, "crashed", "killed by SIGSEGV", before + BEGIN)


GRACEFUL = """
from asynctrack.queue.layout import HEARTBEAT, LAST_ERRNO
def on_term(number, frame):
    run.log({"i": 100})
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.raise_signal(signal.SIGTERM)
signal.signal(signal.SIGTERM, on_term)
words, since = run._publisher.producer.ring.words, time.monotonic_ns() + 1_000_000_000
for _ in range(3):  # looks of the worker, which sees twice a second which signals a process handles
    while words[HEARTBEAT] <= since or words[LAST_ERRNO]:
        time.sleep(0.01)
    since = words[HEARTBEAT]
os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.mark.system
@needs_kernel
def test_server_that_handles_sigterm_and_then_raises_it_again_has_finished(own_host: Path, runs: Path) -> None:
    end_of(GRACEFUL, runs, "finished", None)
    whole(runs, {"i": 101})


GENERATORS = """
def batches():
    with run:
        for i in range(100, 200):
            run.log({"i": i})
            yield i
for i in batches():
    if i == 109: break
"""
ASYNC_GENERATORS = """
async def batches():
    async with run:
        for i in range(100, 200):
            run.log({"i": i})
            yield i
async def main():
    stream = batches()
    async for i in stream:
        if i == 109: break
    await stream.aclose()
asyncio.run(main())
"""


@pytest.mark.system
@pytest.mark.parametrize("script", [GENERATORS, ASYNC_GENERATORS])
def test_run_of_a_generator_that_is_left_early_has_finished(own_host: Path, runs: Path, script: str) -> None:
    end_of(script, runs, "finished", None)
    whole(runs, {"i": 110})


CANCELLED = """
async def main():
    async with run:
        await asyncio.sleep(60)
async def both():
    task = asyncio.create_task(main())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
asyncio.run(both())
"""


@pytest.mark.system
def test_run_of_a_task_that_is_cancelled_has_failed(own_host: Path, runs: Path) -> None:
    end_of(CANCELLED, runs, "failed", "CancelledError")


CHILD = """
pid = os.fork()
if not pid:
    for i in range(50):
        run.log({"child": i})
    run.flush("journaled")
    CHILD
_, status = os.waitpid(pid, 0)
"""


@pytest.mark.system
@needs_kernel
@pytest.mark.parametrize(
    ("child", "error"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL"),
        ("os._exit(3)", "exit code 3"),
        ("sys.exit(3)", "exit code 3"),
        ("raise ValueError('in the child')", "ValueError: in the child"),
        ("os._exit(0)", None),
        ("sys.exit()", None),
        ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)", None),  # as its parent ends it
    ],
)
def test_child_that_fails_is_named_and_does_not_decide(
    own_host: Path, runs: Path, child: str, error: str | None
) -> None:
    found = end_of(CHILD.replace("CHILD", child) + "run.finish()", runs, "finished", None)
    named = found["failed_children"]
    assert [failed["error"] for failed in named] == ([error] if error else [])
    if error:
        shown = show(runs)
        assert f"process {named[0]['pid']}: {error}" in shown
    whole(runs, {"i": 100, "child": 50})


def show(runs: Path) -> str:
    command = [sys.executable, "-m", "asynctrack", "show", str(runs / "p" / "run")]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=60, env={**os.environ, "COLUMNS": "200"}
    ).stdout


ORPHAN = """
ready, started = os.pipe()
if not os.fork():
    for i in range(50):
        run.log({"child": i})
    os.write(started, b"!")
    while os.getppid() == parent:
        time.sleep(0.01)
    for i in range(50, 60):
        run.log({"child": i})
    run.finish()
    os._exit(0)
os.read(ready, 1)
"""


@pytest.mark.system
@needs_kernel
@pytest.mark.parametrize(
    ("end", "status", "error"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "crashed", "killed by SIGKILL"),
        ("os._exit(3)", "crashed", "exit code 3"),
        ("os._exit(0)", "finished", None),  # it has become a daemon
    ],
)
def test_owner_that_is_killed_has_crashed_though_its_child_finishes(
    own_host: Path, runs: Path, end: str, status: str, error: str | None
) -> None:
    end_of("parent = os.getpid()\n" + ORPHAN + end, runs, status, error)
    whole(runs, {"i": 100, "child": 60})


def test_exit_code_of_a_zombie_is_read_where_the_kernel_does_not_keep_it() -> None:
    child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    proc = f"/proc/{child.pid}"
    wait_until(lambda: _status_of_zombie(proc) is not None, "it is a zombie")
    assert _status_of_zombie(proc) == 3 << 8
    child.wait()
    assert _status_of_zombie(proc) is None


@needs_kernel
def test_exit_code_is_known_though_the_parent_asks_for_it_while_it_is_looked_for(tmp_path: Path) -> None:
    """The kernel keeps it from then on, and `/proc` has it until then."""
    child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    handle = os.pidfd_open(child.pid)
    wait_until(lambda: _status_of_zombie(f"/proc/{child.pid}") is not None, "it is a zombie")
    os.mkfifo(tmp_path / "stat")

    def reap() -> None:
        with (tmp_path / "stat").open("wb"):  # waits until somebody reads it
            child.wait()

    reaper = threading.Thread(target=reap)
    reaper.start()
    assert _exit_status(handle, str(tmp_path)) == 3 << 8
    reaper.join()
    os.close(handle)


@needs_kernel
def test_how_a_process_ended_is_known_after_its_parent_has_asked() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])
    caller = Caller(child.pid, os.pidfd_open(child.pid))
    assert child.wait() == -signal.SIGKILL
    assert caller.has_ended()
    assert caller.why() == "killed by SIGKILL"
