"""Processes that open one run by its id: the first opens it, all others join, whoever comes first and whatever dies; without `join` they are told how."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import (
    DEADLINE_S,
    ended,
    left_in,
    lines,
    manifest,
    records,
    rings_in,
    run_child,
    start,
    stopped,
    the_worker,
    values,
    wait_until,
    workers,
)

import asynctrack
from asynctrack._system import locks
from asynctrack.client import preparation
from asynctrack.client.job_id import job_id
from asynctrack.errors import InvalidRunId, InvalidSettings, RunExists, RunIsRunning
from asynctrack.journal.join import Join
from asynctrack.journal.manifest import Manifest
from asynctrack.journal.reader import Reader
from asynctrack.queue.layout import DONE, JOIN, START
from asynctrack.queue.ring import Ring
from asynctrack.queue.shm_paths import ring_paths
from asynctrack.records.codec import decode_as
from asynctrack.testing.scripted import taken

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("version")]

# Opens or joins the run as soon as all are there, and logs; then waits for a line, so that nobody ends before all have come.
RANK = """
import json, os, sys, time
import asynctrack

folder, gate, count, given = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
rank = int(os.environ["RANK"])
open(f"{gate}/{rank}", "w").close()
while len(os.listdir(gate)) < int(os.environ["WORLD_SIZE"]):
    pass
began = time.monotonic()
try:
    run = asynctrack.init("p", dir=folder, **given)
except asynctrack.AsynctrackError as error:
    print(json.dumps([type(error).__name__, str(error), time.monotonic() - began]), flush=True)
    sys.exit()
for i in range(count):
    assert run.log({f"rank{rank}": i}, step=i)
print(json.dumps(["open", str(run.path), time.monotonic() - began]), flush=True)
sys.stdin.readline()
run.finish()
"""


@pytest.fixture
def ranks(own_host: Path, runs: Path, tmp_path: Path) -> Iterator[Any]:
    """Start some ranks that come at the same instant; each with what it has said."""
    started: list[subprocess.Popen[str]] = []

    def begin(size: int, count: int = 50, **given: Any) -> list[tuple[subprocess.Popen[str], list[Any]]]:
        gate = tmp_path / f"gate{len(started)}"
        gate.mkdir()
        children = [
            start(RANK, runs, gate, count, json.dumps(given), RANK=str(rank), WORLD_SIZE=str(size))
            for rank in range(size)
        ]
        started.extend(children)
        return [(child, json.loads(child.stdout.readline())) for child in children]  # type: ignore[union-attr]

    yield begin
    for child in started:
        child.kill()
        child.communicate()


def finish(children: list[tuple[subprocess.Popen[str], list[Any]]]) -> None:
    for child, _ in children:
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write("\n")  # type: ignore[union-attr]
            child.stdin.flush()  # type: ignore[union-attr]
    for child, _ in children:
        child.wait(2 * DEADLINE_S)


def frames(run: Path, kind: int) -> list[Any]:
    """What the frames of a kind say, in the order of the journal."""
    reader = Reader(run / "journal")
    try:
        return [
            decode_as(frame.payload, Join if kind == JOIN else Manifest)
            for batch in reader
            for frame in batch.frames(skip_records=True)
            if frame.kind == kind
        ]
    finally:
        reader.close()


@pytest.mark.parametrize("rounds", [1, pytest.param(10, marks=pytest.mark.system)])
def test_of_ranks_that_come_at_the_same_instant_one_opens_and_all_others_join(
    ranks: Any, runs: Path, rounds: int
) -> None:
    for number in range(rounds):
        size, path = 4, runs / "p" / f"job{number}"
        children = ranks(size, id=path.name, join=True, config={"lr": 0.1})
        assert [said[:2] for _, said in children] == [["open", str(path)]] * size
        finish(children)
        wait_until(lambda path=path: ended(path), "the run has ended")  # type: ignore[misc]
        (opened,) = frames(path, START)
        joined = frames(path, JOIN)
        assert len(joined) == size - 1
        labels = {opened.environment["writer"], *(join.writer for join in joined)}
        assert labels == {f"rank{rank}" for rank in range(size)}
        assert [opened.environment["expected"], *(join.expected for join in joined)] == [size] * size
        assert Counter(record.writer for record in records(path)) == dict.fromkeys(labels, 50)
        assert all(record.data == {record.writer: record.step} for record in records(path))
        assert len(lines(path)) == 50 * size
        assert manifest(path)["config"] == {"lr": 0.1}
        assert manifest(path)["status"] == "finished"


def test_ranks_that_continue_a_run_together_have_one_that_resumes_it(ranks: Any, own_host: Path, runs: Path) -> None:
    path = runs / "p" / "job"
    asynctrack.init("p", id="job", dir=runs, config={"lr": 0.1, "seed": 1}).finish()
    children = ranks(4, id="job", join=True, resume="allow", config={"lr": 0.2})
    assert [said[0] for _, said in children] == ["open"] * 4
    finish(children)
    wait_until(lambda: ended(path) and not workers(own_host), "the run has ended")
    assert (len(frames(path, START)), len(frames(path, JOIN))) == (2, 3)
    assert manifest(path)["config"] == {"lr": 0.2, "seed": 1}
    assert Counter(record.writer for record in records(path)) == {f"rank{rank}": 50 for rank in range(4)}


@pytest.mark.parametrize("resume", ["never", "allow"])
def test_without_join_one_opens_and_the_others_are_told_at_once_how_to_join(
    ranks: Any, runs: Path, resume: str
) -> None:
    children = ranks(4, id="job", resume=resume)
    kinds = sorted(said[0] for _, said in children)
    assert kinds == ["RunIsRunning", "RunIsRunning", "RunIsRunning", "open"]
    for _, (kind, text, took_s) in children:
        if kind == "RunIsRunning":
            assert "asynctrack.attach()" in text
            assert "init(..., join=True)" in text
            assert took_s < preparation._END_WAIT_S / 2
    finish(children)
    wait_until(lambda: ended(runs / "p" / "job"), "the run has ended")
    assert len(records(runs / "p" / "job")) == 50


def test_who_comes_later_is_told_at_once_also_with_never_and_by_threads(own_host: Path, runs: Path) -> None:
    script = """
import json, sys, time, asynctrack
said = []
for resume in ("never", "allow", "must"):
    began = time.monotonic()
    try:
        asynctrack.init("p", id="job", dir=sys.argv[1], resume=resume)
    except asynctrack.errors.RunIsRunning as error:
        said.append([str(error), time.monotonic() - began])
print(json.dumps(said))
"""
    with asynctrack.init("p", id="job", dir=runs, worker="thread"):
        said = run_child(script, runs)
        assert len(said) == 3
        for text, took_s in said:
            assert f"(pid {os.getpid()})" in text
            assert took_s < preparation._END_WAIT_S / 2
        for resume in ("never", "allow"):
            with pytest.raises(RunIsRunning, match="open in this process"):
                asynctrack.init("p", id="job", dir=runs, resume=resume)  # type: ignore[arg-type]
    with pytest.raises(RunExists):
        asynctrack.init("p", id="job", dir=runs)


LATER = """
import sys, asynctrack
asynctrack.init("p", id="job", dir=sys.argv[1], join=True, writer="later").finish()
"""


def test_who_comes_when_the_run_has_ended_joins_it_all_the_same(
    own_host: Path, runs: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = runs / "p" / "job"
    for rank in (1, 2, 3):
        with asynctrack.init("p", id="job", dir=runs, join=True, writer=f"rank{rank}", config={"lr": 0.1}) as run:
            assert not run.resumed and dict(run.config) == {"lr": 0.1}
            assert all(run.log({"i": rank}, step=step) for step in range(50))
        assert run.finish().backends["jsonl"].behind == 0
        assert manifest(path)["status"] == "finished"
    later = start(LATER, runs)
    assert "run job had ended; later has joined it all the same" in later.communicate(timeout=DEADLINE_S)[1]
    assert (
        "had ended" not in capfd.readouterr().err
    )  # this process is older than the run's end, as ranks are that were started together
    assert (len(frames(path, START)), len(frames(path, JOIN))) == (1, 3)
    assert Counter(record.writer for record in records(path)) == {f"rank{rank}": 50 for rank in (1, 2, 3)}
    assert Counter(line["_writer"] for line in lines(path)) == {f"rank{rank}": 50 for rank in (1, 2, 3)}
    assert len(asynctrack.open_run(path).columns()["i"].steps) == 150  # it is one session
    assert [writer["status"] for writer in manifest(path)["writers"]] == ["finished"] * 4


@pytest.mark.parametrize(("late", "status"), [("0", "failed"), ("2", "finished")])
def test_run_that_a_late_rank_has_joined_ends_as_rank_0_does(
    own_host: Path, runs: Path, late: str, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = {"0": "2", "2": "0"}[late]
    monkeypatch.setenv("RANK", early)
    with asynctrack.init("p", id="job", dir=runs, join=True) as run:
        run.log({"i": 0})
    monkeypatch.setenv("RANK", late)
    run = asynctrack.init("p", id="job", dir=runs, join=True)
    wait_until(lambda: asynctrack.open_run(run.path).status == "running", "the worker has it, and says that it goes on")
    run.log({"i": 1})
    run.finish(exit_code=1)
    wait_until(lambda: manifest(run.path)["status"] == status, "the run has ended")
    assert len(records(run.path)) == 2


def test_late_ranks_that_come_together_have_one_that_goes_on_with_the_run(
    ranks: Any, own_host: Path, runs: Path
) -> None:
    path = runs / "p" / "job"
    asynctrack.init("p", id="job", dir=runs, join=True, writer="first").finish()
    children = ranks(4, id="job", join=True)
    assert [said[0] for _, said in children] == ["open"] * 4
    finish(children)
    wait_until(lambda: ended(path) and not workers(own_host), "the run has ended")
    assert (len(frames(path, START)), len(frames(path, JOIN))) == (1, 4)
    assert Counter(record.writer for record in records(path)) == {f"rank{rank}": 50 for rank in range(4)}
    assert left_in(own_host) == []


def test_killed_late_rank_leaves_what_it_has_logged(own_host: Path, runs: Path) -> None:
    path = runs / "p" / "job"
    asynctrack.init("p", id="job", dir=runs, join=True, writer="first").finish()
    script = """
import os, signal, sys, asynctrack
run = asynctrack.init("p", id="job", dir=sys.argv[1], join=True, writer="late")
assert all(run.log({"i": i}) for i in range(1000))
os.kill(os.getpid(), signal.SIGKILL)
"""
    child = start(script, runs)
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    wait_until(lambda: ended(path) and not workers(own_host), "the worker has seen it")
    assert values(path, "i") == list(range(1000))
    assert manifest(path)["status"] == "finished"
    assert [writer["status"] for writer in manifest(path)["writers"]] == ["finished", "crashed"]


# Opens or joins a run, logs, and says so when all is journaled; finishes, when told if it comes second, and says what is behind then.
# One backend waits for all records, another for those of the second process.
IN_TURN = """
import json, sys, time
import asynctrack
from asynctrack.testing import Scripted, Trouble

folder, writer, wait = sys.argv[1:]
waits = Trouble(does="retry", times=None, seconds=0.05, until="go")
waits_for_second = Trouble(does="retry", times=None, seconds=0.05, step=100, until="go on")
backends = [Scripted(troubles=(waits,)), Scripted(file="other.jsonl", troubles=(waits_for_second,))]
run = asynctrack.init("p", id="job", dir=folder, join=True, writer=writer, backends=backends)
assert all(run.log({writer: i}, step=i + 100 * (writer == "second")) for i in range(5))
run.flush("journaled")
print(json.dumps("logged"), flush=True)
if writer == "second":
    sys.stdin.readline()
stats = run.finish(wait=wait)
print(json.dumps({name: backend.behind for name, backend in stats.backends.items()}), flush=True)
"""


@pytest.fixture
def in_turn(own_host: Path, runs: Path) -> Iterator[Any]:
    """Start two processes, of which the second takes the run when the first is in `finish`; with the directory of their queues."""
    path = runs / "p" / "job"

    def begin(wait: str) -> tuple[subprocess.Popen[str], subprocess.Popen[str], Path]:
        first = start(IN_TURN, runs, "first", wait)
        assert first.stdout.readline() == '"logged"\n'  # type: ignore[union-attr]
        # Else one batch has the records of both.
        wait_until(lambda: len(taken(path, "other.jsonl")) == 5, "the other backend has the first's records")
        second = start(IN_TURN, runs, "second", "own")
        assert second.stdout.readline() == '"logged"\n', second.communicate()  # type: ignore[union-attr]
        (directory,) = {ring.parent for ring in own_host.glob("*/*/*.ring")}
        assert len(rings_in(own_host)) == 2
        return first, second, directory

    yield begin
    for name in ("go", "go on"):  # also where the test has failed: else no worker ends
        (path / name).touch()


def opener_is_done(directory: Path) -> bool:
    """Whether the process that has opened a run has been told that nothing is left to do."""
    for path in ring_paths(str(directory)):
        with contextlib.closing(Ring.attach(path)) as ring:
            if ring.meta["root"] == "True":
                return bool(ring.words[DONE])
    return False


def ended_well(child: subprocess.Popen[str]) -> dict[str, int]:
    """What was behind as a child ended that has been told of nothing that is wrong."""
    out, err = child.communicate("\n" if child.poll() is None else None, timeout=2 * DEADLINE_S)
    assert "removed" not in err
    assert "not yet at" not in err
    behind: dict[str, int] = json.loads(out)
    return behind


@pytest.mark.parametrize("fate", ["goes on", "is killed with its worker"])
def test_who_waits_in_finish_while_the_next_process_takes_the_run_is_told_of_no_removed_queue(
    in_turn: Any, own_host: Path, runs: Path, fate: str
) -> None:
    """Its queue is left to the worker of the next, and comes back where that dies with its process. What the next has logged does not hold it up."""
    path = runs / "p" / "job"
    first, second, directory = in_turn("own")
    if fate == "goes on":
        (path / "go").touch()
        assert (
            ended_well(first)["Scripted-2"] == 5
        )  # of the run, as all statistics are; and not said, since they are the second's
        assert second.poll() is None
        assert [record.data["first"] for record in taken(path)[:5]] == list(range(5))
        (path / "go on").touch()
        assert ended_well(second) == {"Scripted": 0, "Scripted-2": 0}
    else:
        worker = locks.holder(directory / "worker.lock")
        assert worker
        for pid in (second.pid, worker):
            os.kill(pid, signal.SIGKILL)
        second.communicate()
        (path / "go").touch()
        (path / "go on").touch()
        assert ended_well(first) == {"Scripted": 0, "Scripted-2": 0}
    wait_until(lambda: ended(path) and not workers(own_host), "the run has ended")
    assert (values(path, "first"), values(path, "second")) == (list(range(5)), list(range(5)))
    assert manifest(path)["status"] == "finished"
    ends = [writer["status"] for writer in manifest(path)["writers"]]
    assert ends == ["finished", "finished" if fate == "goes on" else "crashed"]
    assert left_in(own_host) == []


def test_who_waits_for_all_waits_for_the_next_process_that_has_taken_the_run(in_turn: Any, runs: Path) -> None:
    path = runs / "p" / "job"
    first, second, directory = in_turn("all")
    (path / "go").touch()
    wait_until(lambda: opener_is_done(directory), "what the first has logged is delivered")
    second.stdin.write("\n")  # type: ignore[union-attr]
    second.stdin.flush()  # type: ignore[union-attr]
    wait_until(lambda: ended(path), "the second has ended too, but for its deliveries")
    with pytest.raises(subprocess.TimeoutExpired):
        first.wait(0.3)
    (path / "go on").touch()
    for child in (first, second):
        assert ended_well(child) == {"Scripted": 0, "Scripted-2": 0}


def test_who_resumes_a_run_that_has_ended_begins_another_session(own_host: Path, runs: Path) -> None:
    asynctrack.init("p", id="job", dir=runs, join=True, writer="first").finish()
    with asynctrack.init("p", id="job", dir=runs, join=True, resume="allow", writer="second") as run:
        assert run.resumed
        run.log({"i": 0})
    assert [record.writer for record in records(run.path)] == ["second"]


def test_join_gives_the_run_that_this_process_has_open(own_host: Path, runs: Path) -> None:
    with asynctrack.init("p", id="job", dir=runs, join=True) as run:
        assert asynctrack.init("p", id="job", dir=runs, join=True) is run


def test_a_forked_rank_has_its_parents_run(own_host: Path, runs: Path) -> None:
    script = """
import os, sys, asynctrack
run = asynctrack.init("p", id="job", dir=sys.argv[1], join=True, writer="rank0")
run.flush("journaled")
if not (pid := os.fork()):
    asynctrack.init("p", id="job", dir=sys.argv[1], join=True).log({"child": 0})
    asynctrack.finish()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
run.finish()
"""
    run_child(script, runs)
    assert [(record.data, record.writer) for record in records(runs / "p" / "job")] == [({"child": 0}, "rank0")]


def test_a_directory_that_was_made_and_left_is_begun(own_host: Path, runs: Path) -> None:
    """A process was killed between its directory and its lock."""
    (runs / "p" / "job").mkdir(parents=True)
    with asynctrack.init("p", id="job", dir=runs, join=True) as run:
        run.log({"i": 0})
    assert len(records(run.path)) == 1


@pytest.mark.parametrize("first", [0, 1])
def test_the_status_is_that_of_rank_0_whichever_rank_has_opened_the_run(
    own_host: Path, runs: Path, tmp_path: Path, first: int
) -> None:
    script = """
import asynctrack, os, sys
run = asynctrack.init("p", id="job", dir=sys.argv[1], join=True)
run.log({f"rank{os.environ['RANK']}": 0})
print(flush=True)
sys.stdin.readline()
run.finish(exit_code=int(os.environ["RANK"] == "0"))
"""
    path = runs / "p" / "job"
    opener = start(script, runs, RANK=str(first))
    opener.stdout.readline()  # type: ignore[union-attr]
    joiner = start(script, runs, RANK=str(1 - first))
    joiner.stdout.readline()  # type: ignore[union-attr]
    for child in (opener, joiner):
        child.communicate("\n")
    wait_until(lambda: ended(path) and not workers(own_host), "the run has ended")
    assert manifest(path)["status"] == "failed"


@pytest.mark.parametrize("known", [False, True], ids=["before it sees that", "when it has seen that"])
def test_the_status_is_that_of_rank_0_also_where_the_worker_dies_with_it(
    own_host: Path, runs: Path, known: bool
) -> None:
    script = """
import asynctrack, sys
run = asynctrack.init("p", id="job", dir=sys.argv[1], join=True)
for line in "log", "log again":
    run.log({line: 0})
    run.flush()
    print(flush=True)
    sys.stdin.readline()
run.finish()
"""
    path = runs / "p" / "job"
    opener = start(script, runs, RANK="1")
    opener.stdout.readline()  # type: ignore[union-attr]
    rank0 = start(script, runs, RANK="0")
    rank0.stdout.readline()  # type: ignore[union-attr]
    reader = asynctrack.open_run(path)
    with contextlib.nullcontext() if known else stopped(the_worker(own_host)):
        rank0.kill()
        rank0.communicate()
        if known:
            wait_until(lambda: [one.status for one in reader.writers if one.is_owner] == ["crashed"], "it is seen")
            opener.stdin.write("\n")  # type: ignore[union-attr]  # a delivery, after which the queues of those that are gone are removed
            opener.stdin.flush()  # type: ignore[union-attr]
            opener.stdout.readline()  # type: ignore[union-attr]
        os.kill(the_worker(own_host), signal.SIGKILL)
    opener.communicate("\n\n", timeout=2 * DEADLINE_S)
    wait_until(lambda: ended(path) and not workers(own_host), "the run has ended")
    assert manifest(path)["status"] == "crashed"


def test_ranks_outlive_the_one_that_has_opened_the_run(ranks: Any, own_host: Path, runs: Path) -> None:
    path = runs / "p" / "job"
    children = ranks(4, id="job", join=True)
    wait_until(lambda: len(frames(path, JOIN)) == 3, "all are known")
    opener = int(frames(path, START)[0].environment["pid"])
    os.kill(opener, signal.SIGKILL)
    (late,) = ranks(1, count=20, id="job", join=True, writer="late")
    assert late[1][0] == "open"
    finish([late, *children])
    wait_until(lambda: ended(path) and not workers(own_host), "the run has ended")
    assert Counter(record.writer for record in records(path)) == {
        **{f"rank{rank}": 50 for rank in range(4)},
        "late": 20,
    }


def test_what_a_joiner_is_given_as_config_fills_what_the_run_has_not(own_host: Path, runs: Path) -> None:
    script = """
import sys, asynctrack
run = asynctrack.init("p", id="job", dir=sys.argv[1], join=True, writer="late", config={"lr": 0.2, "seed": 7, "same": [1, 2]})
assert dict(run.config) == {"lr": 0.1, "seed": 7, "same": [1, 2]}
run.finish()
"""
    with asynctrack.init("p", id="job", dir=runs, join=True, config={"lr": 0.1, "same": (1, 2)}) as run:
        child = start(script, runs)
        _, said = child.communicate(timeout=DEADLINE_S)
    assert child.returncode == 0, said
    assert said.count("asynctrack:") == 1
    assert "late was given other values as config than run job has, which keeps its own: lr=0.1 (here: 0.2)" in said
    assert manifest(run.path)["config"] == {"lr": 0.1, "same": [1, 2], "seed": 7}
    assert frames(run.path, JOIN)[0].config == {"lr": 0.2, "seed": 7, "same": [1, 2]}


def test_the_id_comes_from_the_argument_the_variable_or_the_job(
    own_host: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        InvalidSettings,
        match=r"give id=, or set ASYNCTRACK_RUN_ID, or .* SLURM_JOB_ID, TORCHELASTIC_RUN_ID, RAY_JOB_ID, PBS_JOBID, LSB_JOBID",
    ):
        asynctrack.init("p", dir=runs, join=True)
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    with asynctrack.init("p", dir=runs, join=True) as run:
        assert run.id == "4711"
    with asynctrack.init("p", dir=runs) as run:
        assert run.id != "4711"  # a job may open many runs; only those that join are one
    monkeypatch.setenv("ASYNCTRACK_RUN_ID", "named")
    for given in ({"join": True}, {"resume": "must"}):
        with asynctrack.init("p", dir=runs, **given) as run:  # type: ignore[arg-type]
            assert run.id == "named"
    with asynctrack.init("p", id="argument", dir=runs, join=True) as run:
        assert run.id == "argument"
    monkeypatch.setenv("ASYNCTRACK_RUN_ID", "../x")
    with pytest.raises(InvalidRunId, match="ASYNCTRACK_RUN_ID in the environment"):
        asynctrack.init("p", dir=runs)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "12", "SLURM_RESTART_COUNT": "0"}, "12"),
        ({"SLURM_JOB_ID": "12", "SLURM_RESTART_COUNT": "2", "TORCHELASTIC_RUN_ID": "x"}, "12.2"),
        ({"TORCHELASTIC_RUN_ID": "none"}, None),
        ({"TORCHELASTIC_RUN_ID": "night", "TORCHELASTIC_RESTART_COUNT": "1"}, "night.1"),
        ({"RAY_JOB_ID": "01000000"}, "01000000"),
        ({"PBS_JOBID": "123[4].server"}, "123_4_.server"),
        ({"LSB_JOBID": " 5 "}, "5"),
        ({"TORCHELASTIC_RUN_ID": "none", "LSB_JOBID": "5"}, "5"),
    ],
)
def test_jobs_have_the_ids_that_their_schedulers_give(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str | None
) -> None:
    for name in ("SLURM_JOB_ID", "TORCHELASTIC_RUN_ID", "RAY_JOB_ID", "PBS_JOBID", "LSB_JOBID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert job_id() == expected


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"writer": "a/b"}, "writer must be"),
        ({"expected": 0}, "expected must be"),
        ({"expected": True}, "expected must be"),
        ({"expected": 1 << 70}, "expected must be"),
        ({"join": "false"}, "join must be True or False"),
        ({"join": None}, "join must be True or False"),
    ],
)
def test_wrong_arguments_are_said(runs: Path, given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidSettings, match=said):
        asynctrack.init("p", id="job", dir=runs, **{"join": True, **given})


def test_two_machines_of_one_name_are_told_to_take_others(
    own_host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = """
import json, sys, asynctrack
try:
    asynctrack.init("p", id="job", collect=sys.argv[1])
except asynctrack.errors.RunElsewhere as error:
    print(json.dumps(str(error)))
"""
    (tmp_path / "private").mkdir()
    monkeypatch.setenv("ASYNCTRACK_HOST", "node-1")
    with asynctrack.init("p", id="job", collect=tmp_path / "shared"):
        said = run_child(script, tmp_path / "shared", ASYNCTRACK_SHM=str(tmp_path / "private"))
    assert "the part of host 'node-1'" in said and "a name of its own by ASYNCTRACK_HOST" in said


@pytest.mark.parametrize("held_by", ["owner", "worker"])
def test_a_run_that_is_open_in_another_container_is_known_at_once(
    own_host: Path, runs: Path, tmp_path: Path, held_by: str
) -> None:
    script = """
import json, sys, time, asynctrack
calls = {
    "join": lambda: asynctrack.init("p", id="job", dir=sys.argv[1], join=True),
    "init": lambda: asynctrack.init("p", id="job", dir=sys.argv[1], resume="allow"),
    "attach": lambda: asynctrack.attach(sys.argv[1] + "/p/job"),
}
said = {}
for name, call in calls.items():
    began = time.monotonic()
    try:
        call()
    except asynctrack.errors.AsynctrackError as error:
        said[name] = [type(error).__name__, str(error), time.monotonic() - began]
print(json.dumps(said))
"""
    (tmp_path / "private").mkdir()
    with contextlib.ExitStack() as stack:
        run = stack.enter_context(asynctrack.init("p", id="job", dir=runs, join=True))
        if held_by == "worker":  # who has opened the run has finished, and another goes on
            other = start(
                "import asynctrack, sys\nrun = asynctrack.attach(sys.argv[1])\nprint(flush=True)\nsys.stdin.readline()",
                run.path,
            )
            stack.callback(other.communicate, "\n")
            other.stdout.readline()  # type: ignore[union-attr]
            run.finish()
        said = run_child(script, runs, ASYNCTRACK_SHM=str(tmp_path / "private"))
    kinds = {name: kind for name, (kind, _, _) in said.items()}
    assert kinds == {"join": "RunElsewhere", "init": "RunIsRunning", "attach": "RunElsewhere"}
    # A worker alone may be about to leave: it is given two seconds, and five by who would open the run again.
    assert max(took_s for _, _, took_s in said.values()) < (2 if held_by == "owner" else 8), said
    assert all("in another container" in text and "--ipc" in text for _, text, _ in said.values())
    assert "join=True" not in said["init"][1]


def test_the_environment_stays_as_it_was(own_host: Path, runs: Path) -> None:
    before = dict(os.environ)
    with asynctrack.init("p", id="job", dir=runs, join=True):
        assert dict(os.environ) == before


def test_messages_count_the_records_of_the_own_process_alone(own_host: Path, runs: Path) -> None:
    """Nothing listens at the address, so nothing is delivered."""
    script = """
import sys, asynctrack
given = {"id": "job", "dir": sys.argv[1], "join": True, "finish_timeout_s": 0.3, "after_exit_max_s": 0.1, "backends": [asynctrack.Visdom(server_url="http://127.0.0.1:1")]}
run = asynctrack.init("p", **given)
for i in range(int(sys.argv[2])):
    run.log({"i": i})
print(flush=True)
sys.stdin.readline()
while not run.stats().backends["visdom"].last_error:
    pass
run.finish()
"""
    owner, joiner = start(script, runs, 100), None
    owner.stdout.readline()  # type: ignore[union-attr]
    joiner = start(script, runs, 3)
    joiner.stdout.readline()  # type: ignore[union-attr]
    for child, count in ((joiner, 3), (owner, 100)):
        _, said = child.communicate("\n", timeout=DEADLINE_S)
        assert f"{count} records are not yet at visdom" in said
        assert said.count("not yet at") == 1
        assert "not journaled" not in said


@pytest.mark.parametrize("method", ["finish", "afinish"])
def test_finish_waits_for_the_others_if_that_is_wanted(own_host: Path, runs: Path, method: str) -> None:
    script = """
import sys, asynctrack
run = asynctrack.attach()
print(flush=True)
for i in range(500):
    run.log({"child": i})
sys.stdin.readline()
for i in range(500, 1000):
    run.log({"child": i})
run.finish()
"""
    run = asynctrack.init("p", id="job", dir=runs)
    child = start(script)
    child.stdout.readline()  # type: ignore[union-attr]
    threading.Timer(0.3, lambda: child.communicate("\n")).start()
    stats = run.finish(wait="all") if method == "finish" else asyncio.run(run.afinish(wait="all"))
    assert (stats.accepted, stats.backends["jsonl"].delivered) == (1000, 1000)
    assert child.wait(DEADLINE_S) == 0


def test_finish_waits_for_the_others_no_longer_than_it_may_and_names_them(
    own_host: Path, runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = asynctrack.init("p", id="job", dir=runs, finish_timeout_s=0.3)
    child = start("import sys, asynctrack; asynctrack.attach(writer='late'); print(flush=True); sys.stdin.readline()")
    child.stdout.readline()  # type: ignore[union-attr]
    began = time.monotonic()
    run.finish(wait="all")
    assert 0.2 < time.monotonic() - began < 5.0
    assert "finish(wait='all') waits no longer: 1 other process has not ended: late" in caplog.text
    with pytest.raises(InvalidSettings, match="wait must be one of 'own', 'all'; got 'none'"):
        run.finish(wait="none")  # type: ignore[arg-type]  # the mistake
    child.communicate("\n")


@pytest.mark.parametrize("end", ["run.finish()", "os.kill(os.getpid(), 9)"])
def test_a_run_whose_owner_has_ended_is_not_resumed_as_long_as_others_of_it_live(
    own_host: Path, runs: Path, end: str
) -> None:
    path = runs / "p" / "job"
    owner = start(
        "import asynctrack, os, sys\n"
        "run = asynctrack.init('p', id='job', dir=sys.argv[1], straggler_s=0.2)\nprint(flush=True)\nsys.stdin.readline()\n"
        + end,
        runs,
    )
    owner.stdout.readline()  # type: ignore[union-attr]
    idle = start(
        "import asynctrack, sys\n"
        "run = asynctrack.attach(sys.argv[1], writer='idle')\nrun.log({'i': 0})\nprint(flush=True)\nsys.stdin.readline()\n",
        path,
    )
    idle.stdout.readline()  # type: ignore[union-attr]
    owner.communicate("\n")
    said = rf"is still open in 1 process \(pid {idle.pid}\), which lives on .*; end them to resume it"
    for resume in ("allow", "must", "never"):
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises(RunIsRunning, match=said):
                asynctrack.init("p", id="job", dir=runs, resume=resume)  # type: ignore[arg-type]
            assert time.monotonic() - began < preparation._END_WAIT_S / 2
        wait_until(lambda: manifest(path)["status"] != "running", "the run has ended without it")
    idle.kill()
    idle.communicate()
    with asynctrack.init("p", id="job", dir=runs, resume="allow") as run:
        run.log({"i": 1})
    assert values(path, "i") == [0, 1]
    assert manifest(path)["status"] == "finished"


@pytest.mark.parametrize("late", ["online", "offline"])
def test_who_comes_when_an_offline_run_has_ended_is_offline_too(own_host: Path, runs: Path, late: str) -> None:
    """Else it says that what is delivered by `asynctrack sync` only is missing."""
    remote = asynctrack.MLflow(tracking_uri="http://127.0.0.1:1")
    asynctrack.init("p", id="job", dir=runs, join=True, mode="offline", backends=["jsonl", remote]).finish()
    script = """
import asynctrack, sys
run = asynctrack.init("p", id="job", dir=sys.argv[1], join=True, writer="late", mode=sys.argv[2])
run.log({"i": 0})
assert run.mode == "offline"
run.finish()
"""
    child = start(script, runs, late)
    _, said = child.communicate(timeout=DEADLINE_S)
    assert child.returncode == 0, said
    assert "has joined it all the same" in said and "mlflow" not in said
    assert [line["i"] for line in lines(runs / "p" / "job")] == [0]
