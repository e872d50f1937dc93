"""`asynctrack sync`, `workers` and `doctor`: what was left is recovered, and nobody's work is disturbed."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cli_support import said_here
from support import (
    a_minute_later,
    kill_the_worker,
    left_in,
    lines,
    manifest,
    start,
    the_worker,
    values,
    wait_until,
    workers,
)

import asynctrack
from asynctrack.cli.sync_job import SyncJob
from asynctrack.worker.listing import list_workers

CALLER = """
import json, os, signal, sys, time
import asynctrack

run = asynctrack.init("p", id=sys.argv[2], dir=sys.argv[1], after_exit_max_s=float(sys.argv[3]), finish_timeout_s=float(sys.argv[5]))
for i in range(500):
    run.log({"i": i})
run.flush("journaled")
print("ready", flush=True)
sys.stdin.readline()
for i in range(500, 1000):
    assert run.log({"i": i})
print("logged", flush=True)
if sys.argv[4] == "wait":
    sys.stdin.readline()
print(json.dumps(run.finish().behind))
"""


def command(*arguments: object, timeout_s: float = 40.0) -> subprocess.CompletedProcess[str]:
    """Run `asynctrack` as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "asynctrack", *map(str, arguments)], capture_output=True, text=True, timeout=timeout_s
    )


def said(*arguments: object, code: int = 0) -> Any:
    """What `asynctrack ... --json` says."""
    done = command(*arguments, "--json")
    assert done.returncode == code, done.stderr or done.stdout
    return json.loads(done.stdout)


# Its worker is never started, as where no process can be.
NO_WORKER = """
import os, signal, sys
import asynctrack, asynctrack.client.host_worker
asynctrack.client.host_worker.HostWorker.start = lambda self: None
run = asynctrack.init("p", id="run", dir=sys.argv[1])
assert all(run.log({"i": i}) for i in range(3))
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_with_its_worker(host: Path, runs: Path, id: str) -> Path:
    """A run whose caller and worker died at once, with 500 records in the queue."""
    caller = start(CALLER, runs, id, 300, "wait", 20)
    assert caller.stdout is not None and caller.stdin is not None
    assert caller.stdout.readline() == "ready\n"
    worker = the_worker(host)
    os.kill(worker, signal.SIGSTOP)
    caller.stdin.write("\n")
    caller.stdin.flush()
    assert caller.stdout.readline() == "logged\n"
    for pid in (caller.pid, worker):
        os.kill(pid, signal.SIGKILL)
    caller.communicate()
    wait_until(lambda: not workers(host), "the worker is dead")
    wait_until(lambda: all(left.pid is None for left in list_workers()), "and has let go of its lock")
    return runs / "p" / id


@pytest.mark.system
def test_what_a_crash_left_in_memory_is_recovered(own_host: Path, runs: Path) -> None:
    run = killed_with_its_worker(own_host, runs, "a")
    other = killed_with_its_worker(own_host, runs, "b")
    report = said("sync", run)
    assert [(done["state"], done["status"], done["stats"]["journaled"]) for done in report["runs"]] == [
        ("done", "crashed", 1000)
    ]
    assert values(run, "i") == [line["i"] for line in lines(run)] == list(range(1000))
    assert len(values(other, "i")) == 500  # it was not asked for, and waits
    report = said("sync", runs)
    assert (report["complete"], [Path(done["path"]).name for done in report["runs"]]) == (1, ["b"])
    assert values(other, "i") == list(range(1000))
    assert said("sync", runs) == {"complete": 2, "unreadable": [], "runs": []}
    assert not left_in(own_host)


@pytest.mark.system
def test_what_a_crash_left_is_recovered_by_any_name_of_its_directory(own_host: Path, runs: Path) -> None:
    run = killed_with_its_worker(own_host, runs, "a")
    moved, link = runs.with_name("moved"), runs.with_name("link")
    runs.rename(moved)
    runs.symlink_to(moved)  # its queue has the old name
    link.symlink_to(moved)
    for name in (link, moved):
        report = said("sync", name / "p" / "a")
        assert report["complete"] == (name is moved)
    assert values(run, "i") == [line["i"] for line in lines(run)] == list(range(1000))
    assert not left_in(own_host)


@pytest.mark.system
def test_run_that_cannot_be_read_is_not_complete(own_host: Path, runs: Path) -> None:
    run = asynctrack.init("p", id="a", dir=runs)
    run.finish()
    wait_until(lambda: not workers(own_host), "the worker has left")
    (run.path / "run.json").write_text("{")
    shutil.rmtree(run.path / "journal")
    report = said("sync", runs, code=1)
    assert (report["complete"], report["unreadable"]) == (0, [str(run.path)])


@pytest.mark.system
def test_sync_that_is_killed_goes_on_where_it_was(own_host: Path, runs: Path) -> None:
    run = killed_with_its_worker(own_host, runs, "a")
    for after_s in (0.25, 0.35, 0.45):
        work = subprocess.Popen([sys.executable, "-m", "asynctrack", "sync", str(run)])
        time.sleep(after_s)
        work.kill()
        work.wait()
    said("sync", run)
    assert values(run, "i") == [line["i"] for line in lines(run)] == list(range(1000))
    assert manifest(run)["status"] == "crashed"
    a_minute_later(own_host)
    asynctrack.init("p", dir=runs).finish()  # the next worker clears away what the killed left
    wait_until(lambda: not left_in(own_host), "nothing is left")


@pytest.mark.system
@pytest.mark.parametrize("after_exit_s", [0.0, 300.0])
def test_what_the_worker_leaves_behind_is_delivered(own_host: Path, runs: Path, after_exit_s: float) -> None:
    run = runs / "p" / "a"
    (run / "metrics.jsonl").mkdir(parents=True)  # the backend cannot open its file
    shutil.move(run, runs / "beside")
    caller = start(CALLER, runs, "a", after_exit_s, "go on", 0.5)
    assert caller.stdout is not None and caller.stdin is not None
    wait_until(run.is_dir, "the run has begun")
    shutil.move(runs / "beside" / "metrics.jsonl", run)
    assert caller.stdout.readline() == "ready\n"
    out, err = caller.communicate("\n", timeout=20)
    assert (out, caller.returncode) == ("logged\n1000\n", 0), err
    if after_exit_s:
        time.sleep(1.0)
        assert len(workers(own_host)) == 1  # it goes on trying
    else:
        wait_until(lambda: not workers(own_host), "the worker has left")
    failed = command("sync", run, "--patience-s", 2)
    assert failed.returncode == 1
    assert "metrics.jsonl" in failed.stdout and "Is a directory" in failed.stdout, failed.stdout
    (run / "metrics.jsonl").rmdir()
    done = command("sync", run)
    assert (done.returncode, "done" in done.stdout) == (0, True), done.stdout
    assert [line["i"] for line in lines(run)] == list(range(1000))
    assert manifest(run)["status"] == "finished"


@pytest.mark.system
def test_live_run_is_left_to_its_worker(own_host: Path, runs: Path) -> None:
    with asynctrack.init("p", dir=runs) as run:
        run.log({"i": 1})
        run.flush()
        report = said("sync", run.path)
        assert [done["state"] for done in report["runs"]] == ["live"]
        run.log({"i": 2})
    assert values(run.path, "i") == [1, 2]
    assert manifest(run.path)["status"] == "finished"


@pytest.mark.system
def test_whole_run_is_delivered_to_one_more_backend_while_it_is_live(own_host: Path, runs: Path) -> None:
    with asynctrack.init("p", dir=runs) as run:
        for i in range(1000):
            run.log({"i": i})
        run.flush("journaled")
        report = said("sync", run.path, "--to", "jsonl", "file=more.jsonl")
        assert [done["state"] for done in report["runs"]] == ["done"]
        assert len(lines(run.path, "more.jsonl")) == 1000
        run.log({"i": 1000})
    said("sync", run.path, "--to", "jsonl", "file=more.jsonl")
    assert lines(run.path, "more.jsonl") == lines(run.path)


@pytest.mark.system
def test_whole_run_is_delivered_to_each_place_that_is_named(own_host: Path, runs: Path) -> None:
    with asynctrack.init("p", dir=runs) as run:
        run.log({"i": 1})
    for more in ("file=a.jsonl",), ("file=b.jsonl",), ("max_records_s=50", "file=a.jsonl"):
        report = said("sync", run.path, "--to", "jsonl", *more)
        assert [done["state"] for done in report["runs"]] == ["done"]
    assert len(list(run.path.glob("cursors/jsonl~*.json"))) == 2
    assert lines(run.path, "a.jsonl") == lines(run.path, "b.jsonl") == lines(run.path)


@pytest.mark.system
def test_delivery_that_follows_ends_with_the_run(own_host: Path, runs: Path) -> None:
    with asynctrack.init("p", dir=runs) as run:
        run.log({"i": 0})
        run.flush()
        arguments = ["sync", run.path, "--to", "jsonl", "file=more.jsonl", "--follow"]
        work = subprocess.Popen([sys.executable, "-m", "asynctrack", *map(str, arguments)])
        wait_until(lambda: (run.path / "more.jsonl").exists(), "it has begun")
        for i in range(1, 100):
            run.log({"i": i})
            time.sleep(0.002)
    assert work.wait(timeout=20) == 0
    assert lines(run.path, "more.jsonl") == lines(run.path)


RESUMED = """
import sys
import asynctrack

away = asynctrack.MLflow(tracking_uri="http://127.0.0.1:9")
with asynctrack.init("p", id="a", dir=sys.argv[1], resume="allow", backends=["jsonl", away], finish_timeout_s=0.1, after_exit_max_s=0.1) as run:
    run.log({"i": 0})
    run.flush("journaled")
    print("logs", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.system
def test_run_that_a_process_resumes_while_it_is_synced_is_live(own_host: Path, runs: Path) -> None:
    first = start(RESUMED, runs)
    first.communicate("\n", timeout=30)
    wait_until(lambda: not workers(own_host), "the first worker has left")
    with SyncJob([runs / "p" / "a"]) as job:
        assert [run.state for run in job.poll()] == ["working"]
        second = start(RESUMED, runs)
        assert second.stdout is not None
        second.stdout.readline()
        wait_until(lambda: job.poll() and job.done, "sync lets go of it")
        assert [(run.state, run.missing) for run in job.poll()] == [("live", {})]
    second.communicate("\n", timeout=30)


@pytest.mark.system
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nothing-like-it"], "nothing-like-it"),
        (["--to", "jsonl"], "--to needs a RUN"),
        (["RUN", "--to", "nonsense"], "nonsense"),
        (["RUN", "--to", "jsonl", "fiel=x"], "did you mean `file`?"),
        (["RUN", "--to", "jsonl", "max_records_s=-1"], "max_records_s"),
        (["RUN", "--to", "jsonl", "max_records_s=fast"], "max_records_s"),
        (["RUN", "--to", "csv", "--as", "jsonl"], "has a backend of that name of kind jsonl"),
        (["--patience-s", "soon"], "expected a number of seconds"),
    ],
)
def test_bad_arguments_are_told_in_a_line(runs: Path, arguments: list[str], expected: str) -> None:
    with asynctrack.init("p", dir=runs) as run:
        run.log({"i": 1})
    done = command("sync", "--dir", runs, *[str(run.path) if part == "RUN" else part for part in arguments])
    assert done.returncode in (1, 2)
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.system
def test_workers_are_seen_and_end_after_their_callers(own_host: Path, runs: Path) -> None:
    caller = start(CALLER, runs, "a", 300, "wait", 20)
    assert caller.stdout is not None
    caller.stdout.readline()
    (worker,) = said("workers")
    assert (worker["pid"], worker["callers"], worker["runs"]) == (
        the_worker(own_host),
        [caller.pid],
        [str(runs / "p" / "a")],
    )
    assert "p/a" in command("workers").stdout
    assert f"got 'abc'; the only worker has the pid {worker['pid']}" in command("workers", "--end", "abc").stderr
    told = command("workers", "--end", worker["pid"])
    assert (told.returncode, f"after its callers ({caller.pid})" in told.stdout) == (0, True), told.stdout
    time.sleep(0.5)
    assert workers(own_host) == [worker["pid"]]  # it serves its caller to the end
    out, _ = caller.communicate("\n\n", timeout=20)
    assert out.splitlines()[-1] == "0"
    wait_until(lambda: not workers(own_host), "the worker has left")
    assert values(runs / "p" / "a", "i") == list(range(1000))


@pytest.mark.system
def test_worker_that_is_killed_by_force_is_replaced(own_host: Path, runs: Path) -> None:
    caller = start(CALLER, runs, "a", 300, "wait", 20)
    assert caller.stdout is not None
    caller.stdout.readline()
    first = the_worker(own_host)
    assert said("workers", "--end", "all", "--force") == {str(first): "ended"}
    out, _ = caller.communicate("\n\n", timeout=20)
    assert out.splitlines()[-1] == "0"
    assert values(runs / "p" / "a", "i") == list(range(1000))


@pytest.mark.system
def test_there_is_no_such_worker(own_host: Path) -> None:
    told = command("workers", "--end", 1)
    assert (told.returncode, "no worker has the pid 1" in told.stderr) == (2, True)
    told = command("workers", "--end", "abc")
    expected = "asynctrack: --end expects the pids of workers, or 'all'; got 'abc'; no worker of yours runs\n"
    assert (told.returncode, told.stderr) == (2, expected)
    assert said("workers") == []
    assert "no worker runs" in command("workers").stdout


@pytest.mark.system
@pytest.mark.parametrize("name_it", [True, False], ids=["run", "directory"])
def test_run_whose_worker_never_came_is_recovered(own_host: Path, runs: Path, name_it: bool) -> None:
    child = start(NO_WORKER, runs)
    child.communicate()
    run = runs / "p" / "run"
    assert not (run / "journal").exists()
    report = said("sync", run if name_it else runs)
    assert [(done["state"], done["status"], done["stats"]["journaled"]) for done in report["runs"]] == [
        ("done", "crashed", 3)
    ]
    assert values(run, "i") == [line["i"] for line in lines(run)] == [0, 1, 2]


@pytest.mark.system
def test_orphans_are_told_of(own_host: Path, runs: Path) -> None:
    run = killed_with_its_worker(own_host, runs, "a")
    (orphan,) = list_workers()
    assert (orphan.pid, orphan.callers, orphan.runs) == (None, [], [str(run)])
    assert "asynctrack sync" in command("workers").stdout
    finding = next(found for found in said("doctor", "--dir", runs)["findings"] if found["check"] == "left behind")
    assert (finding["status"], finding["facts"]["orphans"]) == ("warning", 1)


def test_sync_called_in_a_process_leaves_its_warnings_to_be_heard(
    own_host: Path, runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asynctrack.init("p", dir=runs).finish()
    assert said_here("sync", runs).returncode == 0
    logging.getLogger("asynctrack").warning("heard")
    assert caplog.messages == ["heard"]


@pytest.mark.system
def test_doctor_checks_everything_and_leaves_nothing(own_host: Path, tmp_path: Path) -> None:
    report = said("doctor", "--dir", tmp_path / "runs")
    checks = [finding["check"] for finding in report["findings"]]
    assert checks == [
        *("python", "core", "shared memory", "key", "left behind", "locks", "disk", "worker", "log()", "jitter")
    ]
    assert report["works"]
    assert report["findings"][checks.index("log()")]["facts"]["p50_us"] > 0
    assert not (tmp_path / "runs").exists()


def test_doctor_says_what_does_not_work(own_host: Path) -> None:
    told = command("doctor", "--dir", "/proc/runs")  # nobody can make it
    assert told.returncode == 1
    assert "/proc/runs cannot be written" in told.stdout
    assert "choose another --dir" in told.stdout


def test_doctor_says_that_a_file_is_no_directory(own_host: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    told = command("doctor", "--dir", tmp_path / "runs")
    assert told.returncode == 2
    assert f"expected a directory, but {tmp_path / 'runs'} is a file" in told.stderr


@pytest.mark.system
def test_worker_that_was_killed_is_replaced_before_the_caller_has_gone(own_host: Path, runs: Path) -> None:
    caller = start(CALLER, runs, "a", 300, "wait", 0.1)
    assert caller.stdout is not None and caller.stdin is not None
    caller.stdout.readline()
    caller.stdin.write("\n")
    caller.stdin.flush()
    caller.stdout.readline()
    kill_the_worker(own_host)
    caller.communicate("\n", timeout=20)
    wait_until(lambda: not left_in(own_host), "the next worker has drained the queue")
    assert values(runs / "p" / "a", "i") == list(range(1000))
