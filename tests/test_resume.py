"""A run goes on: after its end, after a crash, after caller and worker have died; steps, config and checkpoints too."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Literal

import pytest
from support import ended, lines, records, start, wait_until, workers

import asynctrack
from asynctrack.cli.journal_check import JournalCheck
from asynctrack.client import preparation
from asynctrack.client.host_worker import HostWorker
from asynctrack.errors import NotARun, RunExists, RunIsRunning
from asynctrack.testing import JournaledRun, ScriptedInCaller, ScriptedInProcess, calls

pytestmark = pytest.mark.usefixtures("own_host")

# Logs three records, marks a checkpoint, logs two more, tells, and waits to be killed.
SESSION = """
import asynctrack, sys, time
run = asynctrack.init("p", id="run", dir=sys.argv[1], config={"lr": 0.1, "seed": 1})
for i in range(3):
    run.log({"i": i})
run.checkpoint(epoch=1)
for i in range(3, 5):
    run.log({"i": i})
print(run._publisher.producer.ring.words[20], flush=True)
time.sleep(60)
"""


def sit(runs: Path) -> tuple[subprocess.Popen[str], int]:
    """A process with an open run, and its worker's pid."""
    child = subprocess.Popen([sys.executable, "-c", SESSION, str(runs)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    return child, int(child.stdout.readline())


def end(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.communicate()


def go_on(runs: Path) -> Path:
    with asynctrack.init("p", id="run", dir=runs, resume="must", config={"lr": 0.2}) as run:
        assert run.last_checkpoint() == {"epoch": 1}
        assert run.config == {"lr": 0.2, "seed": 1}
        for i in range(5, 8):
            run.log({"i": i})
    return run.path


def assert_one_history(path: Path) -> None:
    found = records(path)
    assert [record.data["i"] for record in found] == list(range(8))
    assert [record.step for record in found] == list(range(8))
    assert len({(record.ring, record.number) for record in found}) == 8
    assert [line["i"] for line in lines(path)] == list(range(8))
    assert asynctrack.open_run(path).status == "finished"


def test_killed_run_goes_on_where_it_was(runs: Path) -> None:
    child, _ = sit(runs)
    end(child)
    assert_one_history(go_on(runs))


def test_run_whose_caller_and_worker_were_killed_goes_on(runs: Path) -> None:
    child, worker = sit(runs)
    os.kill(worker, signal.SIGKILL)
    end(child)
    assert_one_history(go_on(runs))


def test_finished_run_goes_on_after_its_end(runs: Path) -> None:
    for first in (0, 4):
        with asynctrack.init("p", id="run", dir=runs, resume="allow") as run:
            for i in range(first, first + 4):
                run.log({"i": i})
    assert_one_history(run.path)
    assert run.stats().backends["jsonl"].delivered == run.stats().journaled == 8


def test_run_that_lost_its_last_segments_to_a_power_cut_goes_on_in_a_fresh_worker(own_host: Path, runs: Path) -> None:
    """Cursors and `run.json` tell of what the journal has lost; the worker sets them back before it has imported what that takes."""
    with asynctrack.init("p", id="run", dir=runs) as run:
        for i in range(4):
            run.log({"i": i})
        run.flush()
        kept = {path: path.read_bytes() for path in (run.path / "journal").iterdir()}
        for i in range(4, 8):
            run.log({"i": i})
    wait_until(lambda: not workers(own_host), "the worker has left")
    for path in (run.path / "journal").iterdir():
        path.write_bytes(kept[path]) if path in kept else path.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HostWorker, "start", lambda worker: None)
        run = asynctrack.init("p", id="run", dir=runs, resume="must")
    for i in range(8, 12):
        run.log({"i": i})
    stats = run.finish()  # it finds no worker, and starts one: the queue is there before that
    assert stats.dropped == {}
    assert [record.data["i"] for record in records(run.path)] == [*range(4), *range(8, 12)]
    assert [line["i"] for line in lines(run.path)] == list(range(12))
    assert stats.backends["jsonl"].behind == 0


def test_run_that_is_open_elsewhere_is_refused(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asynctrack.client.preparation._END_WAIT_S", 0.1)
    child, _ = sit(runs)
    try:
        with pytest.raises(RunIsRunning, match=rf"still running in another process \(pid {child.pid}\)"):
            asynctrack.init("p", id="run", dir=runs, resume="allow")
    finally:
        end(child)
    wait_until(lambda: asynctrack.open_run(runs / "p" / "run").status == "crashed", "the run has ended")


def test_run_that_is_open_here_is_refused(runs: Path) -> None:
    with (
        asynctrack.init("p", id="run", dir=runs),
        pytest.raises(RunIsRunning, match=r"open in this process; log to the one that is open, or finish\(\) it first"),
    ):
        asynctrack.init("p", id="run", dir=runs, resume="allow")


def test_never_refuses_and_must_refuses_to_begin(runs: Path) -> None:
    asynctrack.init("p", id="run", dir=runs).finish()
    with pytest.raises(RunExists, match=r"resume it with resume='allow', choose another id"):
        asynctrack.init("p", id="run", dir=runs)
    with pytest.raises(NotARun):
        asynctrack.init("p", id="other", dir=runs, resume="must")
    with pytest.raises(asynctrack.AsynctrackError, match="resume must be one of"):
        asynctrack.init("p", id="run", dir=runs, resume="yes")  # type: ignore[arg-type]


# Each waits until all are there, and then opens the run.
TOGETHER = """
import asynctrack, os, sys, time
directory, resume, mine, all = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
open(f"{directory}/{mine}.ready", "w").close()
while sum(name.endswith(".ready") for name in os.listdir(directory)) < all: time.sleep(0.0005)
try:
    run = asynctrack.init("p", id="run", dir=directory, resume=resume)
except Exception as error:
    print(type(error).__name__, flush=True)
    sys.exit()
for i in range(100): run.log({"i": i})
print("open", flush=True)
sys.stdin.read()
run.finish()
"""


@pytest.mark.system
@pytest.mark.parametrize(("before", "resume"), [(False, "allow"), (True, "allow"), (True, "must"), (False, "never")])
def test_of_processes_that_open_one_run_at_once_one_has_it(runs: Path, before: bool, resume: Literal["allow"]) -> None:
    runs.mkdir(exist_ok=True)
    if before:
        with asynctrack.init("p", id="run", dir=runs) as run:
            run.log({"i": -1})
    command = [sys.executable, "-c", TOGETHER, str(runs), resume]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    children = [subprocess.Popen([*command, str(n), "4"], **pipes) for n in range(4)]
    try:
        said = [child.stdout.readline().strip() for child in children if child.stdout is not None]
        ends = [child.communicate()[0] for child in children]
    finally:
        for child in children:
            end(child)
    assert sorted(said) == sorted(["open", *3 * ["RunIsRunning"]]), ends
    steps = [record.step for record in records(runs / "p" / "run")]
    assert steps == list(range(101 if before else 100)), "each step once"
    assert asynctrack.open_run(runs / "p" / "run").status == "finished"


def test_threads_that_open_one_run_at_once_get_it_once(runs: Path) -> None:
    found: list[Any] = []
    barrier = threading.Barrier(4)

    def work() -> None:
        barrier.wait()
        try:
            found.append(asynctrack.init("p", id="run", dir=runs, resume="allow"))
        except RunIsRunning as error:
            found.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (run,) = [one for one in found if isinstance(one, asynctrack.Run)]
    run.finish()
    assert [type(one) for one in found].count(RunIsRunning) == 3


def test_a_run_that_ends_between_two_looks_is_resumed_and_not_begun_again(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker journals all of it after this process has found nothing but its directory, and is gone before that is asked whether it still works."""
    path = runs / "p" / "run"
    path.mkdir(parents=True)
    is_ending = preparation._is_ending

    def ends_meanwhile(*looked: Any) -> bool:
        if not (path / "journal").exists():
            with JournaledRun(path) as run:
                run.log({"i": 0})
                run.end()
        return is_ending(*looked)

    monkeypatch.setattr(preparation, "_is_ending", ends_meanwhile)
    with asynctrack.init("p", id="run", dir=runs, resume="allow") as run:
        assert run.resumed
        run.log({"i": 1})
    assert [record.step for record in records(run.path)] == [0, 1]


def test_a_directory_in_which_nothing_has_begun_is_begun_with_allow(runs: Path) -> None:
    (runs / "p" / "run").mkdir(parents=True)
    with pytest.raises(NotARun):
        asynctrack.init("p", id="run", dir=runs, resume="must")
    with asynctrack.init("p", id="run", dir=runs, resume="allow") as run:
        run.log({"i": 0})
    assert [record.step for record in records(run.path)] == [0]


def test_a_run_that_could_not_begin_leaves_nothing_and_can_begin_later(runs: Path) -> None:
    for _ in range(2):
        with pytest.raises(asynctrack.errors.FrameTooLarge):
            asynctrack.init("p", id="run", dir=runs, config={"a": "x" * 9000}, queue_bytes=8192)
        assert list((runs / "p").iterdir()) == []
    asynctrack.init("p", id="run", dir=runs).finish()


def test_what_the_dead_left_in_their_queue_is_known_to_who_goes_on(own_host: Path, runs: Path) -> None:
    script = """
import asynctrack, os, sys
from asynctrack.client import host_worker
assert host_worker.HostWorker.start
host_worker.HostWorker.start = lambda self: None  # its worker dies before it has journaled anything
run = asynctrack.init("p", id="run", dir=sys.argv[1], config={"opt": {"lr": 1}, "gone": 1})
for i in range(3): run.log({"i": i})
run.config["opt"]["lr"] = 2
run.config.pop("gone")
os._exit(1)
"""
    subprocess.run([sys.executable, "-c", script, str(runs)], timeout=30, check=False)
    with asynctrack.init("p", id="run", dir=runs, resume="must") as run:
        assert run.config == {"opt": {"lr": 2}}
        run.log({"i": 3})
    assert [(record.step, record.data["i"]) for record in records(run.path)] == [(i, i) for i in range(4)]
    assert asynctrack.open_run(run.path).config == {"opt": {"lr": 2}}


def test_a_forked_child_does_not_keep_its_parents_run_from_being_resumed(own_host: Path, runs: Path) -> None:
    script = """
import asynctrack, os, sys, time
run = asynctrack.init("p", id="run", dir=sys.argv[1])
run.log({"i": 0})
run.flush("journaled")
if os.fork() == 0:
    print(os.getpid(), flush=True)
    os.close(1)
    time.sleep(60)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", script, str(runs)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    try:
        end(parent)
        with asynctrack.init("p", id="run", dir=runs, resume="must") as run:
            run.log({"i": 1})
    finally:
        os.kill(child, signal.SIGKILL)
    assert [record.step for record in records(run.path)] == [0, 1]


def test_checkpoint_is_on_disk_when_it_returns(runs: Path) -> None:
    with asynctrack.init("p", dir=runs) as run:
        assert run.last_checkpoint() is None
        run.log({"i": 0})
        stats = run.checkpoint(epoch=3, step=7)
        assert (stats.journaled, stats.queued) == (1, 0)
        assert run.last_checkpoint() == {"epoch": 3, "step": 7}
    assert json.loads((run.path / "run.json").read_text())["checkpoint"] == {"epoch": 3, "step": 7}


def test_preempted_run_says_so_however_it_ends(runs: Path) -> None:
    run = asynctrack.init("p", dir=runs)
    run.mark_preempted()
    with pytest.raises(SystemExit), run:
        raise SystemExit(143)
    assert asynctrack.open_run(run.path).status == "preempted"


def test_a_run_goes_on_with_the_backends_of_now(own_host: Path, runs: Path) -> None:
    for i, files in enumerate([["first"], ["first", "second"]]):
        backends = [asynctrack.JSONLines(file=file) for file in files]
        with asynctrack.init("p", id="run", dir=runs, resume="allow", backends=backends) as run:
            run.log({"i": i})
    assert [line["i"] for line in lines(run.path, "first")] == [0, 1]
    assert [line["i"] for line in lines(run.path, "second")] == [0, 1]


@pytest.mark.system
def test_backend_that_began_with_another_config_is_told_of_the_new_one(own_host: Path, runs: Path) -> None:
    for lr in (0.1, 0.2):
        backends = [ScriptedInProcess()]
        run = asynctrack.init("p", id="run", dir=runs, config={"lr": lr, "seed": 1}, backends=backends, resume="allow")
        run.log({"i": lr})
        run.finish()
    told = [data for call in calls(run.path) for kind, data in call.updates if kind == "config"]
    assert told == [{"lr": 0.2, "seed": 1}]


# Goes on with a finished run whose backend here hangs, and so is still behind its first end.
BEHIND_ITS_END = """
import asynctrack, sys
from asynctrack.testing import ScriptedInCaller, Trouble
backends = ["jsonl", ScriptedInCaller(troubles=(Trouble(does="hang", on="open", times=None),))]
run = asynctrack.init("p", id="run", dir=sys.argv[1], resume="must", backends=backends)
run.log({"i": 1})
run.flush("journaled")
print("ready", flush=True)
sys.stdin.readline()
"""


@pytest.mark.system
def test_resumed_run_is_unharmed_while_a_backend_is_behind_its_first_end(runs: Path) -> None:
    with asynctrack.init("p", id="run", dir=runs, backends=["jsonl", ScriptedInCaller()]) as run:
        run.log({"i": 0})
    child = start(BEHIND_ITS_END, runs)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    assert JournalCheck(run.path).take().problems == []
    child.kill()
    child.communicate()
    wait_until(lambda: ended(run.path), "its worker has noted its end")
    assert JournalCheck(run.path).take().problems == []
