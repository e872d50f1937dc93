"""A run goes on: after its end, after a crash, after caller and worker have died; steps, config and checkpoints too."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import lines, records, wait_until, workers

import asynctrack
from asynctrack.errors import NotARun, RunExists, RunIsRunning
from asynctrack.host import Host
from asynctrack.testing import ScriptedInProcess, calls

pytestmark = pytest.mark.usefixtures("own_host")

# Logs three records, marks a checkpoint, logs two more, tells, and waits to be killed.
SITTING = """
import asynctrack, sys, time
run = asynctrack.init("p", id="run", dir=sys.argv[1], config={"lr": 0.1, "seed": 1})
for i in range(3):
    run.log({"i": i})
run.checkpoint(epoch=1)
for i in range(3, 5):
    run.log({"i": i})
print(run._producer.ring.words[20], flush=True)
time.sleep(60)
"""


def sit(runs: Path) -> tuple[subprocess.Popen[str], int]:
    """A process with an open run, and its worker's pid."""
    child = subprocess.Popen([sys.executable, "-c", SITTING, str(runs)], stdout=subprocess.PIPE, text=True)
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
    for start in (0, 4):
        with asynctrack.init("p", id="run", dir=runs, resume="allow") as run:
            for i in range(start, start + 4):
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
        patch.setattr(Host, "_start", lambda host: None)
        run = asynctrack.init("p", id="run", dir=runs, resume="must")
    for i in range(8, 12):
        run.log({"i": i})
    stats = run.finish()  # it finds no worker, and starts one: the queue is there before that
    assert stats.dropped == {}
    assert [record.data["i"] for record in records(run.path)] == [*range(4), *range(8, 12)]
    assert [line["i"] for line in lines(run.path)] == list(range(12))
    assert stats.backends["jsonl"].behind == 0


def test_run_that_is_open_elsewhere_is_refused(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asynctrack.opening._END_WAIT_S", 0.1)
    child, _ = sit(runs)
    try:
        with pytest.raises(RunIsRunning, match="still running"):
            asynctrack.init("p", id="run", dir=runs, resume="allow")
    finally:
        end(child)
    wait_until(lambda: asynctrack.open_run(runs / "p" / "run").status == "crashed", "the run has ended")


def test_run_that_is_open_here_is_refused(runs: Path) -> None:
    with (
        asynctrack.init("p", id="run", dir=runs),
        pytest.raises(RunIsRunning),
    ):
        asynctrack.init("p", id="run", dir=runs, resume="allow")


def test_never_refuses_and_must_refuses_to_begin(runs: Path) -> None:
    asynctrack.init("p", id="run", dir=runs).finish()
    with pytest.raises(RunExists, match="choose another id"):
        asynctrack.init("p", id="run", dir=runs)
    with pytest.raises(NotARun):
        asynctrack.init("p", id="other", dir=runs, resume="must")
    with pytest.raises(asynctrack.AsynctrackError, match="resume must be one of"):
        asynctrack.init("p", id="run", dir=runs, resume="yes")  # type: ignore[arg-type]


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


def test_backend_that_began_with_another_config_is_told_of_the_new_one(own_host: Path, runs: Path) -> None:
    for lr in (0.1, 0.2):
        backends = [ScriptedInProcess()]
        run = asynctrack.init("p", id="run", dir=runs, config={"lr": lr, "seed": 1}, backends=backends, resume="allow")
        run.log({"i": lr})
        run.finish()
    told = [data for call in calls(run.path) for kind, data in call.updates if kind == "config"]
    assert told == [{"lr": 0.2, "seed": 1}]
