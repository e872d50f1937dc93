"""A run with several writers ends as its owner does, and says of each of them who it is and how it has ended."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cli_support import answer, asynctrack_, said_here
from support import DEADLINE_S, assert_whole, ended, kill_the_worker, lines, manifest, start, wait_until, workers

import asynctrack
from asynctrack.cli.follow import Follower
from asynctrack.cli.records import batch_decoder, records_in
from asynctrack.events import WriterEnded, WriterJoined
from asynctrack.journal.cursor import load_cursor
from asynctrack.journal.join import Join, default_label
from asynctrack.journal.manifest import load, save
from asynctrack.journal.writer_list import MOST_WRITERS, WriterList, end_ring, join_run, open_run
from asynctrack.testing import JournaledRun, deliver

pytestmark = pytest.mark.usefixtures("own_host")

OWNER = """
import os, sys
import asynctrack
run = asynctrack.init("p", id="run", dir=sys.argv[1], straggler_s=1.0)
run.log({"owner": 0}, step=5)
run.flush("journaled")
print("ready", flush=True)
for order in sys.stdin:
    exec(order)
"""
WRITER = """
import os, sys
import asynctrack
run = asynctrack.attach(sys.argv[1], writer=sys.argv[2])
for step in range(100):
    run.log({sys.argv[2]: step}, step=step)
run.flush("journaled")
print("ready", flush=True)
for order in sys.stdin:
    exec(order)
"""


class Process:
    """A process that does what it is told, a line of Python at a time. It is there when it has said so."""

    def __init__(self, script: str, *arguments: object, **environment: str) -> None:
        self.popen = start(script, *arguments, **environment)
        assert self.popen.stdout is not None
        self.pid = self.popen.pid
        self.line()

    def tell(self, order: str) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(f"{order}\n")
        self.popen.stdin.flush()

    def line(self) -> str:
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline().strip()
        assert line, self.popen.communicate(timeout=60)
        return line

    def end(self, order: str = "") -> None:
        """Let it come to its end, or do what it is told."""
        if order:
            self.tell(order)
        self.popen.communicate(timeout=60)

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait(60)

    def close(self) -> None:
        with self.popen:
            self.popen.kill()


class Processes:
    """The processes of one run."""

    def __init__(self, runs: Path) -> None:
        self.started: list[Process] = []
        self.path = runs / "p" / "run"
        self.owner = self._start(OWNER, runs)

    def attach(self, writer: str) -> Process:
        return self._start(WRITER, self.path, writer)

    def by_label(self) -> dict[str, dict[str, Any]]:
        """What `run.json` says of each writer; of the owner as "owner"."""
        found = manifest(self.path)["writers"]
        return {"owner" if one["is_owner"] else one["writer"]: one for one in found}

    def statuses(self) -> dict[str, str]:
        return {label: one["status"] for label, one in self.by_label().items()}

    def await_status(self, status: str) -> None:
        wait_until(lambda: manifest(self.path)["status"] == status, f"the run is {status}")

    def _start(self, script: str, *arguments: object) -> Process:
        self.started.append(Process(script, *arguments))
        return self.started[-1]


@pytest.fixture
def processes(runs: Path) -> Iterator[Processes]:
    found = Processes(runs)
    yield found
    for process in found.started:
        process.close()


@pytest.mark.system
def test_run_whose_owner_is_killed_has_crashed_though_all_others_finish(processes: Processes) -> None:
    one, two = processes.attach("rank1"), processes.attach("rank2")
    processes.owner.kill()
    wait_until(lambda: processes.statuses().get("owner") == "crashed", "the owner's end is known")
    assert manifest(processes.path)["status"] == "running"
    one.end("run.finish()")
    two.end("run.finish()")
    processes.await_status("crashed")
    assert processes.statuses() == {"owner": "crashed", "rank1": "finished", "rank2": "finished"}
    assert manifest(processes.path)["error"] == "killed by SIGKILL"
    assert_whole(processes.path, {"owner": 1, "rank1": 100, "rank2": 100})


@pytest.mark.system
@pytest.mark.parametrize(
    ("order", "status", "error"),
    [
        ("os.kill(os.getpid(), 9)", "crashed", "killed by SIGKILL"),
        ("os.kill(os.getpid(), 15)", "terminated", "killed by SIGTERM"),
        ("1 / 0", "failed", "ZeroDivisionError: division by zero"),
        ("run.mark_preempted(); run.finish()", "finished", None),
        ("run.finish(); os._exit(3)", "finished", None),
        ("os._exit(0)", "finished", None),
    ],
)
def test_run_ends_as_its_owner_does_and_lists_how_a_writer_ended(
    processes: Processes, order: str, status: str, error: str | None
) -> None:
    writer = processes.attach("rank3")
    writer.end(order)
    wait_until(lambda: processes.statuses().get("rank3") == status, "its end is known")
    processes.owner.end("run.finish()")
    processes.await_status("finished")
    found = manifest(processes.path)
    assert (found["error"], found["failed_children"]) == (None, [])
    one = processes.by_label()["rank3"]
    assert (one["error"], one["pid"], one["accepted"], one["last_step"]) == (error, writer.pid, 100, 99)
    assert one["joined_at"] <= one["ended_at"] <= found["ended_at"]


@pytest.mark.system
@pytest.mark.parametrize(("end", "status"), [("run.finish()", "finished"), ("raise SystemExit(3)", "failed")])
def test_owners_word_counts_that_an_earlier_worker_has_heard(
    processes: Processes, own_host: Path, end: str, status: str
) -> None:
    """The worker is killed after the owner's end; the next one finds the queues of the others alone."""
    writer = processes.attach("rank1")
    processes.owner.end(end)
    wait_until(lambda: processes.statuses().get("owner") == status, "the owner's end is known")
    kill_the_worker(own_host)
    writer.end("run.log({'rank1': 100}); run.flush(); os.kill(os.getpid(), 9)")
    # The status may be there before that: the run has ended without the idle writer if the kill of the worker took a second.
    ends = {"owner": status, "rank1": "crashed"}
    wait_until(lambda: processes.statuses() == ends, "the writer's end is known")
    processes.await_status(status)
    assert processes.statuses() == ends


@pytest.mark.system
def test_rank_that_is_started_again_keeps_its_label_and_is_listed_twice(processes: Processes) -> None:
    processes.attach("rank1").kill()
    wait_until(lambda: processes.statuses().get("rank1") == "crashed", "its end is known")
    processes.attach("rank1").end("run.finish()")
    processes.owner.end("run.finish()")
    processes.await_status("finished")
    listed = asynctrack.open_run(processes.path).writers
    assert [(one.status, one.accepted) for one in listed if one.writer == "rank1"] == [
        ("crashed", 100),
        ("finished", 100),
    ]
    assert len({one.ring for one in listed}) == 3
    column = asynctrack.open_run(processes.path).columns()["rank1"]
    assert column.values == [*range(100), *range(100)]


@pytest.mark.system
def test_live_run_says_who_writes_to_it(processes: Processes) -> None:
    processes.attach("rank1")
    processes.owner.tell(
        """
if not os.fork(): run.log({"child": 1}); run.flush("journaled"); os._exit(0)
""".strip()
    )
    processes.owner.tell(
        "os.wait(); print([(one.writer, one.status, one.accepted, one.last_step, one.is_owner) for one in run.writers.values()], flush=True)"
    )
    owner, other = eval(processes.owner.line())
    assert owner[1:] == ("running", 2, 5, True)  # with the record of its forked child
    assert other == ("rank1", "running", 100, 99, False)


@pytest.mark.system
def test_commands_show_the_writers_and_choose_one(processes: Processes) -> None:
    processes.attach("rank3").kill()
    processes.attach("rank4").end("run.finish()")
    processes.owner.end("run.finish()")
    processes.await_status("finished")
    wait_until(lambda: len(lines(processes.path)) == 201, "all is delivered")
    run = processes.path
    shown = asynctrack_("show", run, COLUMNS="200").stdout
    assert "2 of 3 writers finished; rank3 crashed at step 99" in shown
    assert "killed by SIGKILL" in shown
    document = answer("show", run, "--json", "--writer", "rank4")
    assert [one["status"] for one in document["writers"]] == ["finished", "crashed", "finished"]
    assert list(document["metrics"]) == ["rank4"]
    (listed,) = answer("ls", run.parent.parent, "--json")
    assert sorted(listed["writers"].values()) == ["crashed", "finished", "finished"]
    assert "3 (1 failed)" in asynctrack_("ls", run.parent.parent, COLUMNS="200").stdout
    owner = next(one["writer"] for one in document["writers"] if one["is_owner"])
    for label, count in ((owner, 1), ("rank3", 100), ("rank4", 100)):
        exported = said_here("export", run, "--format", "jsonl", "--writer", label).stdout.splitlines()
        assert len(exported) == count
        assert len(said_here("export", run, "--format", "csv", "--writer", label).stdout.splitlines()) == 1 + count
    assert len(said_here("export", run, "--format", "jsonl", "--writer", "rank3", "--keys", "rank4").stdout) == 0
    tail = said_here("tail", run, "-n", "500", "--json", "--writer", "rank3").stdout.splitlines()
    assert len(tail) == 100


@pytest.mark.parametrize("command", [["show"], ["tail"], ["tail", "-f"], ["export", "--format", "csv"]])
def test_commands_say_which_writers_there_are(tmp_path: Path, command: list[str]) -> None:
    with JournaledRun(tmp_path / "p" / "r") as run:
        run.join("rank1")
        run.end()
    said = said_here(*command, run.path, "--writer", "rank9")
    assert said.returncode == 2
    assert "the run has no writer 'rank9'; there are " in said.stderr
    assert "rank1" in said.stderr


@pytest.mark.parametrize("delivered", [False, True])
def test_tail_and_wait_and_the_last_record_say_who_has_logged(tmp_path: Path, delivered: bool) -> None:
    with JournaledRun(tmp_path / "p" / "r", backends={"jsonl": asynctrack.JSONLines()}) as run:
        one = run.join("rank1", 1)
        for step in range(4):
            for writer in (run, one):
                writer.log({"loss": step}, step=step)
                writer.journal()
            if delivered and step == 1:
                deliver(run.path, asynctrack.JSONLines(), name="jsonl")
        run.end()
        assert asynctrack.open_run(run.path).last_record().writer == "rank1"  # type: ignore[union-attr]
        owner = f"{default_label('', '')}"
        for options in (["-n", "3"], ["-n", "3", "-f"]):
            last = [json.loads(line) for line in said_here("tail", run.path, "--json", *options).stdout.splitlines()]
            assert [(line["_writer"], line["loss"]) for line in last] == [("rank1", 2), (owner, 3), ("rank1", 3)]
        last = said_here("tail", run.path, "--json", "-n", "2", "--writer", "rank1").stdout.splitlines()
        assert [(line["_writer"], line["loss"]) for line in map(json.loads, last)] == [("rank1", 2), ("rank1", 3)]
        assert "  rank1  loss=3" in said_here("tail", run.path).stdout
        found = json.loads(said_here("wait", run.path, "--until", "loss == 2", "--json").stdout)
        assert found["record"]["_writer"] == owner


def test_tail_that_follows_says_who_has_logged(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "r") as run:
        one = run.join("rank1", 1)
        for step in range(4):
            one.log({"loss": step}, step=step)
            one.journal()
        run.end()
        last = said_here("tail", run.path, "--json", "-n", "0", "-f").stdout
        assert last == ""
        follower = Follower(run.path)
        decoder = batch_decoder()
        batches = [batch for batch in follower.batches() if batch is not None]
        follower.close()
        assert [record.writer for batch in batches for record in records_in(batch, decoder=decoder)] == ["rank1"] * 4


def test_tail_of_a_run_of_one_process_has_no_writer(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "r") as run:
        run.log({"loss": 1})
        run.end()
        assert "_writer" not in said_here("tail", run.path, "--json").stdout
        assert asynctrack.open_run(run.path).last_record().writer is None  # type: ignore[union-attr]


def test_run_of_one_process_has_one_writer_and_its_commands_are_what_they_were(runs: Path) -> None:
    with asynctrack.init("p", id="r", dir=runs) as run:
        run.log({"loss": 1.0}, step=7)
    (one,) = asynctrack.open_run(run.path).writers
    assert (one.status, one.accepted, one.last_step, one.is_owner) == ("finished", 1, 7, True)
    (saved,) = manifest(run.path)["writers"]
    assert saved == msgspec.to_builtins(one)
    assert "\nwriters\n" not in said_here("show", run.path).stdout
    assert "writers" not in said_here("ls", runs).stdout


FAILS = """
import sys, asynctrack
with asynctrack.init("p", id="r", dir=sys.argv[1]) as run:
    run.log({"loss": 1.0})
    run.log({"loss": 2.0})
    raise ValueError("no data")
"""


def test_resumed_run_lists_the_writers_of_all_sessions(runs: Path) -> None:
    start(FAILS, runs).communicate(timeout=DEADLINE_S)
    wait_until(lambda: ended(runs / "p" / "r"), "the worker has said how it ended")
    with asynctrack.init("p", id="r", dir=runs, resume="allow") as run:
        run.log({"loss": 1.0})
    reader = asynctrack.open_run(run.path)
    found = [(one.session, one.status, one.error, one.accepted, one.is_owner) for one in reader.writers]
    assert found == [(1, "failed", "ValueError: no data", 2, True), (2, "finished", None, 1, True)]
    saved = manifest(run.path)
    assert [[one["session"] for one in saved[name]] for name in ("earlier_writers", "writers")] == [[1], [2]]
    shown = said_here("show", run.path).stdout
    assert "session" in shown and "ValueError: no data" in shown and "writers finished" not in shown
    (run.path / "run.json").unlink()  # the journal says it too
    assert [(one.session, one.status) for one in reader.writers] == [(1, "failed"), (2, "finished")]


def note(ring: int, status: str) -> dict[str, Any]:
    return {"note": "ring_ended", "ring": f"{ring:x}", "dropped": {}, "status": status, "time_ns": time.time_ns()}


def test_list_of_writers_has_a_limit_and_keeps_those_that_went_wrong() -> None:
    found: WriterList = open_run([], 1, {"host": "h", "pid": 1}, time.time_ns())
    for ring in range(2, 2 * MOST_WRITERS):
        found = join_run(found, ring, Join(writer=f"rank{ring}"))
        found = end_ring(found, note(ring, "crashed" if ring % 4 == 0 else "finished"))
    assert len(found) == MOST_WRITERS
    assert found[0].is_owner
    assert sum(one.status == "crashed" for one in found) == 2 * MOST_WRITERS // 4 - 1


def test_another_than_who_has_opened_the_run_may_own_it() -> None:
    found = open_run([], 1, {"writer": "rank3"}, 0)
    found = join_run(found, 2, Join(writer="rank0", owner=True))
    assert [(one.writer, one.is_owner) for one in found] == [("rank3", False), ("rank0", True)]


def test_labels_of_a_run_from_elsewhere_are_checked(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "r") as run:
        run.end()
    found = load(run.path) if (run.path / "run.json").exists() else asynctrack.open_run(run.path).manifest()
    assert end_ring(found.writers, {**note(77, "crashed"), "writer": "../x"}) == found.writers
    assert end_ring(found.writers, {**note(77, "crashed"), "writer": "rank1"})[-1].writer == "rank1"
    save(run.path, found)
    assert load(run.path).writers == found.writers


SUBSCRIBED = """
import json, os, sys, time
import asynctrack
from asynctrack import events

def on_event(event):
    if isinstance(event, events.WriterJoined):
        print(json.dumps(["joined", event.writer, event.rank, event.pid]), flush=True)
    if isinstance(event, events.WriterEnded):
        print(json.dumps(["ended", event.writer, event.status, event.last_step, event.error]), flush=True)

run = asynctrack.init("p", id="run", dir=sys.argv[1], backends=["jsonl", asynctrack.Subscriber(on_event)])
print("ready", flush=True)
for order in sys.stdin:
    exec(order)
"""


@pytest.mark.system
def test_subscriber_is_told_within_a_second_of_a_writer_that_is_killed(runs: Path) -> None:
    with contextlib.ExitStack() as started:
        owner = Process(SUBSCRIBED, runs)
        started.callback(owner.close)
        for label in ("rank1", "rank2", "rank3"):
            writer = Process(WRITER, runs / "p" / "run", label)
            started.callback(writer.close)
            assert json.loads(owner.line()) == ["joined", label, None, writer.pid]
            killed_at = time.monotonic()
            writer.kill()
            assert json.loads(owner.line()) == ["ended", label, "crashed", 99, "killed by SIGKILL"]
            assert time.monotonic() - killed_at < 1.0
        writer = Process(WRITER, runs / "p" / "run", "rank4")
        started.callback(writer.close)
        assert json.loads(owner.line())[:2] == ["joined", "rank4"]
        writer.end("raise ValueError('diverged')")
        assert json.loads(owner.line()) == ["ended", "rank4", "failed", 99, "ValueError: diverged"]


def test_run_of_one_process_tells_of_no_writers(runs: Path) -> None:
    told: list[object] = []
    with asynctrack.init("p", dir=runs, backends=[asynctrack.Subscriber(told.append)]) as run:
        run.log({"loss": 1})
    assert [type(event).__name__ for event in told] == ["RunStarted", "Metrics", "RunEnded"]


def test_subscriber_that_begins_again_is_told_what_comes_next(tmp_path: Path) -> None:
    told: list[object] = []
    backend = asynctrack.Subscriber(told.append)
    with JournaledRun(tmp_path / "p" / "r") as run:
        other = run.join("rank1", 1)
        other.log({"loss": 1}, step=7)
        other.journal()
        deliver(run.path, backend, keep=True)
        run._note({**note(other._ring, "crashed"), "error": "killed by SIGKILL"})
        run.end()
    deliver(run.path, backend, keep=True)
    joined, ended = (event for event in told if isinstance(event, WriterJoined | WriterEnded))
    assert (joined.writer, joined.rank) == ("rank1", 1)
    assert (ended.writer, ended.status, ended.last_step, ended.error) == ("rank1", "crashed", 7, "killed by SIGKILL")


@pytest.mark.system
def test_forked_child_of_a_writer_is_no_writer_and_does_not_end_it(processes: Processes) -> None:
    writer = processes.attach("rank1")
    writer.tell("pid = os.fork() or (run.log({'child': 1}), run.flush('journaled'), os.kill(os.getpid(), 9))")
    writer.tell("os.waitpid(pid, 0); print('dead', flush=True)")
    writer.line()
    wait_until(lambda: manifest(processes.path)["failed_children"], "the child's end is known")
    assert processes.statuses() == {"owner": "running", "rank1": "running"}
    assert asynctrack.open_run(processes.path).writers_by_label()["rank1"].accepted == 101


@pytest.mark.system
@pytest.mark.parametrize(("end", "status"), [("run.finish()", "finished"), ("os.kill(os.getpid(), 9)", "crashed")])
def test_run_ends_though_idle_processes_live_and_goes_on_when_one_logs(
    processes: Processes, own_host: Path, end: str, status: str
) -> None:
    one, two = processes.attach("rank1"), processes.attach("rank2")
    processes.owner.end(end)
    processes.await_status(status)
    assert {**processes.statuses(), "owner": ""} == {"owner": "", "rank1": "running", "rank2": "running"}
    wait_until(lambda: load_cursor(processes.path, "jsonl").closed, "the backend is told")
    ended_at = manifest(processes.path)["ended_at"]
    shown = said_here("show", processes.path).stdout
    assert "2 idle" in shown and "idle: the run has ended without them" in shown and "not yet" not in shown

    one.tell("run.log({'rank1': 100}); print(run.flush('delivered').backends['jsonl'].behind, flush=True)")
    assert one.line() == "0"
    assert lines(processes.path)[-1]["rank1"] == 100
    processes.await_status(status)
    assert manifest(processes.path)["ended_at"] > ended_at

    # It ends at once, so the run goes on and has ended before anybody has looked.
    one.tell("run.log({'rank1': 101}); began = __import__('time').monotonic(); stats = run.finish()")
    one.tell("print(stats.dropped, __import__('time').monotonic() - began < 10.0, flush=True)")
    assert one.line() == "{} True"
    assert lines(processes.path)[-1]["rank1"] == 101
    processes.await_status(status)
    two.kill()
    wait_until(lambda: not workers(own_host), "the worker has left")
    assert (manifest(processes.path)["status"], load_cursor(processes.path, "jsonl").closed) == (status, True)
    assert processes.statuses() == {"owner": status, "rank1": "finished", "rank2": "crashed"}
    assert_whole(processes.path, {"owner": 1, "rank1": 102, "rank2": 100})
    assert said_here("verify", processes.path).returncode == 0


@pytest.mark.system
def test_run_that_was_reopened_is_followed_and_told_of_until_its_end(runs: Path) -> None:
    with contextlib.ExitStack() as started:
        script = (
            SUBSCRIBED.replace(
                "    if isinstance(event, events.WriterJoined)",
                """
    if isinstance(event, events.RunEnded):
        print(json.dumps(["run", event.status]), flush=True)
    if isinstance(event, events.WriterJoined)""",
            )
            .replace("jsonl", "jsonl")
            .replace("dir=", "settings={'straggler_s': 3.0}, dir=")
        )
        owner = Process(script, runs)
        started.callback(owner.close)
        writer = Process(WRITER, runs / "p" / "run", "rank1")
        started.callback(writer.close)
        owner.end("run.finish()")
        wait_until(lambda: manifest(runs / "p" / "run")["status"] == "finished", "the run has ended")
        writer.tell("run.log({'rank1': 100}); print('logged', flush=True)")
        writer.line()
        wait_until(lambda: manifest(runs / "p" / "run")["status"] == "running", "the run goes on")
        follower = started.enter_context(contextlib.closing(Follower(runs / "p" / "run")))
        for _ in follower.batches():
            pass
        assert follower.status == "finished"


def test_run_that_was_reopened_has_not_ended(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "r") as run:
        run.log({"loss": 1})
        run.end()
        told: list[object] = []
        assert deliver(run.path, asynctrack.Subscriber(told.append), keep=True).closed
        run._note({"note": "run_reopened", "time_ns": time.time_ns()})
        reader = asynctrack.open_run(run.path)
        assert (reader.manifest().status, reader.manifest().ended_at) == ("running", None)
        run.log({"loss": 2})
        run.end("crashed")
        deliver(run.path, asynctrack.Subscriber(told.append), keep=True)
    assert [type(event).__name__ for event in told] == ["RunStarted", "Metrics", "RunEnded", "Metrics", "RunEnded"]


RANK = """
import os, sys
import asynctrack
run = asynctrack.init("p", id="run", dir=sys.argv[1], join=True)
run.log({f"rank{os.environ['RANK']}": 0}, step=0)
run.flush("journaled")
print("ready", flush=True)
for order in sys.stdin:
    exec(order)
"""


@pytest.mark.system
@pytest.mark.parametrize(
    ("order", "status"), [("os.kill(os.getpid(), 9)", "crashed"), ("1 / 0", "failed"), ("run.finish()", "finished")]
)
def test_run_of_ranks_ends_as_rank_0_does_though_another_has_opened_it(runs: Path, order: str, status: str) -> None:
    with contextlib.ExitStack() as started:
        one = Process(RANK, runs, RANK="1", WORLD_SIZE="2")
        started.callback(one.close)
        zero = Process(RANK, runs, RANK="0", WORLD_SIZE="2")
        started.callback(zero.close)
        zero.end(order)
        one.end("run.finish()")
        wait_until(lambda: manifest(runs / "p" / "run")["status"] == status, "the run has ended")
    found = {one["writer"]: one for one in manifest(runs / "p" / "run")["writers"]}
    assert {label: (one["status"], one["is_owner"]) for label, one in found.items()} == {
        "rank1": ("finished", False),
        "rank0": (status, True),
    }
    assert manifest(runs / "p" / "run")["error"] == found["rank0"]["error"]
