"""Containers that share memory: a pid means something in its own PID namespace only, so nobody is signalled across."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import INSTALLED, outcome, run_child, start, state, the_worker, wait_until, workers

import asynctrack
from asynctrack._system import locks

# Begins a process that has a pid which somebody has chosen: the next that this namespace gives.
VICTIM = """
import os, subprocess, sys

def victim(pid):
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:
        file.write(str(pid - 1))
    child = subprocess.Popen(["sleep", "60"])
    assert child.pid == pid, (child.pid, pid)
    return child
"""


@functools.cache
def container() -> list[str]:
    """A command that begins a PID namespace; skips the test where none can be."""
    command = ["unshare", "-p", "-f", "--mount-proc", "--kill-child"]
    with contextlib.suppress(OSError):
        if not subprocess.run([*command, "true"], capture_output=True).returncode:
            return command
    pytest.skip("no PID namespace can be made here")


def command_line(*arguments: str) -> str:
    """A script that calls the command line, and prints its exit status and what it says."""
    return f"""
import json, subprocess, sys
done = subprocess.run([sys.executable, "-m", "asynctrack", *{arguments!r}], capture_output=True, text=True)
print(json.dumps([done.returncode, done.stdout, done.stderr]))
"""


def in_container(*arguments: str) -> Any:
    return run_child(command_line(*arguments), within=container())


@pytest.mark.system
def test_worker_of_another_container_is_seen_and_not_signalled(own_host: Path, runs: Path) -> None:
    inside = container()
    run = asynctrack.init("p", dir=runs)
    run.flush()
    worker = the_worker(own_host)
    script = f"child = victim({worker})\n" + command_line("workers", "--end", str(worker), "--force")
    code, _, said = run_child(VICTIM + script + "\nassert child.poll() is None", within=inside)
    assert code == 2
    assert f"no worker has the pid {worker}" in said
    assert "in other containers" in said
    code, listed, _ = in_container("workers", "--json")
    (found,) = json.loads(listed)
    assert (code, found["pid"], found["callers"]) == (0, 0, [0])
    assert "in another container" in in_container("workers")[1]
    in_container("workers", "--end", "all", "--force")
    assert workers(own_host) == [worker]
    run.finish()


CALLER = """
import sys
import asynctrack
run = asynctrack.init("p", id="run", dir=sys.argv[1])
run.log({"i": 1})
run.flush()
print("ready", flush=True)
sys.stdin.readline()
run.finish()
"""


@pytest.mark.system
def test_worker_in_a_container_is_ended_from_outside_by_the_pid_it_has_there(rough_host: Path, runs: Path) -> None:
    caller = start(CALLER, runs, within=container())
    assert caller.stdout is not None
    assert caller.stdout.readline() == "ready\n"
    worker = the_worker(rough_host)
    environment = {**os.environ, "PYTHONPATH": str(INSTALLED)}
    end = [sys.executable, "-m", "asynctrack", "workers", "--end", str(worker), "--force"]
    ended = subprocess.run(end, env=environment, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (0, f"worker {worker} has ended\n"), ended.stderr
    outcome_of(caller)
    assert [record.data for record in asynctrack.open_run(runs / "p" / "run").records()] == [{"i": 1}]


def outcome_of(caller: subprocess.Popen[str]) -> None:
    out, err = caller.communicate("\n", timeout=60)
    assert caller.returncode == 0, out + err


# The parent's worker hangs; the child that has moved to another namespace must not kill the process that has its number there.
MOVED = (
    VICTIM
    + """
import ctypes, logging, signal, time
import asynctrack
from asynctrack.client import worker_handle
from asynctrack._system import locks
from asynctrack.queue.layout import WORKER_PID

logging.basicConfig(format="%(message)s")
worker_handle.HUNG_AFTER_S = 0.6
run = asynctrack.init("p", id="run", dir=sys.argv[1], finish_timeout_s=1)
run.log({"parent": 1})
run.flush()
worker = run._publisher.producer.ring.words[WORKER_PID]
CLONE_NEWPID = 0x20000000
assert ctypes.CDLL(None).unshare(CLONE_NEWPID) == 0
pid = os.fork()
if not pid:
    subprocess.run(["mount", "-t", "proc", "proc", "/proc"], check=True)
    child = victim(worker)
    run.log({"child": 1})
    run.flush("journaled", 3)
    print("inside", flush=True)
    sys.stdin.readline()
    deadline = time.monotonic() + 1.5
    while time.monotonic() < deadline:
        run.log({"child": 2})
        run.flush("journaled", 0.2)
    assert child.poll() is None, "the innocent process was killed"
    child.kill()
    run.finish()
    os._exit(0)
print(worker, flush=True)
_, status = os.waitpid(pid, 0)
assert status == 0, status
os.kill(worker, signal.SIGCONT)
run.finish()
"""
)


@pytest.mark.slow
def test_child_in_another_namespace_does_not_kill_what_has_the_number_of_its_hung_worker(
    rough_host: Path, runs: Path
) -> None:
    container()
    caller = start(MOVED, runs, within=["unshare", "-m"])
    assert caller.stdout is not None
    told = [caller.stdout.readline(), caller.stdout.readline()]
    assert "inside\n" in told, (told, caller.communicate())
    worker = the_worker(rough_host)
    os.kill(worker, signal.SIGSTOP)
    wait_until(lambda: state(worker) == "T", "the worker hangs")
    out, err = caller.communicate("\n", timeout=60)
    assert caller.returncode == 0, out + err
    assert "in another PID namespace" in err


def test_holder_of_a_lock_is_none_when_its_file_names_a_process_that_has_ended(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.write_text("1\n")
    assert locks.holder(lock) is None
    assert locks.holder(tmp_path / "no lock") is None
    holding = start(
        "import sys; from asynctrack._system import locks; locks.take(sys.argv[1]); print(1, flush=True); sys.stdin.read()",
        lock,
    )
    assert holding.stdout is not None
    holding.stdout.readline()
    lock.write_text("1\n")  # what it says is for people
    assert locks.holder(lock) == holding.pid
    assert not locks.signal_holder(lock, 9, 1)
    assert locks.signal_holder(lock, 9, holding.pid)
    holding.communicate()
    assert holding.returncode == -9
    assert not locks.signal_holder(lock, 9, holding.pid)


STRAY = (
    VICTIM
    + """
import time
from asynctrack._system import descendants

with descendants.marked():
    child = subprocess.Popen(["sleep", "60"])
while descendants.own() != [child.pid]:  # a program has begun a moment before its environment can be read
    time.sleep(0.001)
print(child.pid, os.getpgrp(), flush=True)
sys.stdin.readline()
assert child.poll() is None, "killed from outside"
child.kill()
"""
)


@pytest.mark.system
def test_what_a_container_has_started_is_no_orphan_outside(tmp_path: Path) -> None:
    from asynctrack._system import descendants

    caller = start(STRAY, within=container())
    assert caller.stdout is not None
    said = caller.stdout.readline()
    assert said, outcome_of(caller)
    _, group = map(int, said.split())
    assert not [one for one in descendants.found() if one.group == group]  # tests beside this one may have some
    descendants.kill_orphans()
    descendants.kill_of(group)
    outcome_of(caller)


@pytest.mark.system
def test_processes_are_no_orphans_where_proc_tells_of_another_namespace() -> None:
    script = "import json; from asynctrack._system import descendants\nwith descendants.marked(): print(json.dumps(descendants.found()))"
    assert outcome(start(script, within=[*container()[:3], "--kill-child"])) == []
