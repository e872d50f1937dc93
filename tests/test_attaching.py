"""Processes that no fork connects log to one run: they attach to it by its path, its id, its pickle, or their ancestry."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import (
    DEADLINE_S,
    INSTALLED,
    ended,
    kill_the_worker,
    left_in,
    lines,
    manifest,
    outcome,
    records,
    rings_in,
    run_child,
    start,
    stopped,
    the_worker,
    wait_until,
    workers,
)

import asynctrack
from asynctrack import Run, attach
from asynctrack._system import locks
from asynctrack.client.ancestry import ancestors
from asynctrack.client.live_runs import live_queues
from asynctrack.client.run_state import activity_of
from asynctrack.errors import InvalidSettings, NoCurrentRun, NoRunToAttach, NotARun, RunHasEnded

pytestmark = pytest.mark.usefixtures("version")

# Attaches by what it is told, logs so many records, and says what it was; then waits for a line before it ends, if that is wanted.
WRITER = """
import json, sys, time
import asynctrack

given, name, count, waits = json.loads(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:]
run = asynctrack.attach(**given)
for i in range(count):
    assert run.log({name: i})
    time.sleep(0.0001)
print(json.dumps([str(run.path), run.id, dict(run.config)]), flush=True)
if waits:
    sys.stdin.readline()
"""


def writer(name: str, count: int = 100, *waits: str, within: list[str] | None = None, **given: Any) -> Any:
    return start(WRITER, json.dumps(given), name, count, *waits, within=within or [])


@pytest.fixture
def run(own_host: Path, runs: Path) -> Iterator[Run]:
    with asynctrack.init("p", id="run", dir=runs, config={"lr": 0.1}) as run:
        yield run


def assert_whole(run: Path, counts: dict[str, int]) -> None:
    """Each writer's values are there, once, in order, through one ring, in the journal and in the JSON Lines."""
    found, delivered = records(run), lines(run)
    for name, count in counts.items():
        mine = [record for record in found if name in record.data]
        assert [record.data[name] for record in mine] == list(range(count)), name
        assert [line[name] for line in delivered if name in line] == list(range(count)), name
        assert len({record.ring for record in mine}) == 1, name
    assert len(found) == len(delivered) == sum(counts.values())


@pytest.mark.system
def test_processes_attach_by_path_id_variable_and_ancestry(
    run: Run, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, shell = os.fspath(run.path), ["sh", "-c", '"$@"; true', "sh"]
    started = {
        "path": writer("path", run=path, writer="a"),
        "id": writer("id", run="run", writer="b"),
        "project": writer("project", run="p/run", writer="c"),
        "ancestry": writer("ancestry", writer="d"),
        "shell": writer("shell", writer="e", within=shell),
    }
    monkeypatch.setenv("ASYNCTRACK_RUN", path)
    started["variable"] = writer("variable", writer="f")
    for child in started.values():
        assert outcome(child) == [path, "run", {"lr": 0.1}]
    assert run.log({"owner": 0})
    run.finish()
    assert_whole(run.path, {**dict.fromkeys(started, 100), "owner": 1})
    assert Counter(record.writer for record in records(run.path))["a"] == 100
    assert {record.writer for record in records(run.path)} == {
        "a",
        "b",
        "c",
        "d",
        "e",
        "f",
        f"{os.uname().nodename}:{os.getpid()}",
    }
    assert manifest(run.path)["status"] == "finished"


SPAWN = """
import json, multiprocessing, sys
import asynctrack

folder, method, worker = sys.argv[1:4]

def given(run, name):
    for i in range(200):
        assert run.log({name: i})

def finds(name):
    for i in range(200):
        assert asynctrack.log({name: i})

if __name__ == "__main__":
    run = asynctrack.init("p", id="run", dir=folder, worker=worker)
    context = multiprocessing.get_context(method)
    children = [context.Process(target=given, args=(run.bind({}), "bound")), context.Process(target=given, args=(run, "run"))]
    children += [context.Process(target=finds, args=(name,)) for name in ("one", "two")]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * 4
    run.finish()
"""


@pytest.mark.system
@pytest.mark.parametrize(
    ("method", "worker"), [("spawn", "process"), ("spawn", "thread"), ("forkserver", "process"), ("fork", "process")]
)
def test_children_of_multiprocessing_log_to_the_run_however_they_are_started(
    own_host: Path, runs: Path, tmp_path: Path, method: str, worker: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SPAWN)
    done = subprocess.run(
        [sys.executable, script, runs, method, worker], capture_output=True, text=True, timeout=2 * DEADLINE_S
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert_whole(runs / "p" / "run", dict.fromkeys(["bound", "run", "one", "two"], 200))
    assert manifest(runs / "p" / "run")["status"] == "finished"
    wait_until(lambda: not workers(own_host) and not left_in(own_host), "nothing is left")


GIVEN = """
import multiprocessing, os, sys, time
import asynctrack

def given(run, over):
    assert run.log({"given": 0})
    open(over, "w").close()

if __name__ == "__main__":
    folder, over = sys.argv[1:]
    run = asynctrack.init("p", id="run", dir=folder)
    run.log({"parent": 0})
    run.flush("journaled")
    print("ready", flush=True)
    sys.stdin.readline()
    child = multiprocessing.get_context("forkserver").Process(target=given, args=(run, over))
    child.start()
    child.join()
    assert child.exitcode == 0
    run.finish()
"""


@pytest.mark.system
def test_child_of_a_fork_server_that_was_given_the_run_says_that_it_ends(
    own_host: Path, runs: Path, tmp_path: Path
) -> None:
    """Its process ends by `os._exit`, and perhaps before the worker has seen it: then nobody else can tell that all was well."""
    script, over = tmp_path / "script.py", tmp_path / "over"
    script.write_text(GIVEN)
    parent = subprocess.Popen(
        [sys.executable, script, runs, over],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        with stopped(the_worker(own_host)):
            parent.stdin.write("\n")
            parent.stdin.flush()
            wait_until(over.exists, "the child has done its work")
            time.sleep(0.05)  # without a word it would have gone
        out, err = parent.communicate(timeout=2 * DEADLINE_S)
    assert (parent.returncode, out, err) == (0, "", "")
    assert [one["status"] for one in manifest(runs / "p" / "run")["writers"]] == ["finished", "finished"]
    assert_whole(runs / "p" / "run", {"parent": 1, "given": 1})


# Logs for ever, and says in shared memory how many records were accepted.
ENDLESS = """
import json, mmap, os, sys, time
import asynctrack

path, name, counter = sys.argv[1:4]
with open(counter, "r+b") as file:
    accepted = memoryview(mmap.mmap(file.fileno(), 8)).cast("Q")
run = asynctrack.attach(path, writer=name)
i = 0
while True:
    if run.log({name: i}):
        i += 1
        accepted[0] = i
    time.sleep(0.0002)
"""


class Endless:
    """A writer that logs until it is killed."""

    def __init__(self, run: Path, name: str, folder: Path) -> None:
        self.name = name
        self._counter = folder / f"{name}.counter"
        self._counter.write_bytes(bytes(8))
        self.process = start(ENDLESS, run, name, self._counter)

    def accepted(self) -> int:
        with (
            self._counter.open("rb") as file,
            contextlib.closing(mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)) as words,
        ):
            return int.from_bytes(words[:8], "little")

    def logs_on(self) -> None:
        before = self.accepted()
        wait_until(lambda: self.accepted() > before + 50, f"{self.name} logs on")

    def kill(self) -> int:
        self.process.kill()
        self.process.communicate()
        return self.accepted()


@pytest.fixture
def endless(tmp_path: Path) -> Iterator[Callable[[Path, str], Endless]]:
    started: list[Endless] = []

    def begin(run: Path, name: str) -> Endless:
        started.append(Endless(run, name, tmp_path))
        started[-1].logs_on()
        return started[-1]

    yield begin
    for one in started:
        one.kill()


def assert_all_there(run: Path, name: str, accepted: int) -> None:
    """What was accepted is there; of the record whose `log()` had not returned nobody can know."""
    found = [record.data[name] for record in records(run) if name in record.data]
    assert found == list(range(len(found)))
    assert accepted <= len(found) <= accepted + 1
    assert [line[name] for line in lines(run) if name in line] == found


@pytest.mark.system
def test_killed_writers_lose_nothing_and_the_others_go_on(run: Run, endless: Callable[[Path, str], Endless]) -> None:
    one, two = endless(run.path, "one"), endless(run.path, "two")
    killed = one.kill()
    two.logs_on()
    also_killed = two.kill()
    assert run.log({"owner": 0})
    run.finish()
    assert_all_there(run.path, "one", killed)
    assert_all_there(run.path, "two", also_killed)
    assert manifest(run.path)["status"] == "finished"


@pytest.mark.system
def test_killed_worker_is_replaced_by_who_has_attached(
    own_host: Path, runs: Path, endless: Callable[[Path, str], Endless]
) -> None:
    owner = start(OWNER, runs)
    path = Path(json.loads(owner.stdout.readline()))  # type: ignore[union-attr]
    one = endless(path, "one")
    os.kill(owner.pid, signal.SIGSTOP)  # so that it is not the owner who starts another
    kill_the_worker(own_host)
    the_worker(own_host)
    one.logs_on()
    os.kill(owner.pid, signal.SIGCONT)
    killed = one.kill()
    owner.communicate("\n")
    wait_until(lambda: ended(path) and not workers(own_host), "the run has ended")
    assert_all_there(path, "one", killed)


@pytest.mark.system
def test_killed_worker_is_replaced_where_hardly_anything_is_logged(run: Run, own_host: Path) -> None:
    """Also where all processes of a run wait: what one has logged that is killed meanwhile is journaled."""
    kill_the_worker(own_host)
    assert run.log({"owner": 0})
    wait_until(lambda: run.stats().journaled == 1, "another worker has journaled it")


OWNER = """
import json, sys, time
import asynctrack

run = asynctrack.init("p", id="run", dir=sys.argv[1])
run.log({"owner": 0})
print(json.dumps(str(run.path)), flush=True)
sys.stdin.readline()
run.finish()
"""


@pytest.mark.system
@pytest.mark.parametrize("also_the_worker", [False, True])
def test_writers_go_on_when_the_owner_is_killed(
    own_host: Path, runs: Path, endless: Callable[[Path, str], Endless], also_the_worker: bool
) -> None:
    owner = start(OWNER, runs)
    path = Path(json.loads(owner.stdout.readline()))  # type: ignore[union-attr]
    one = endless(path, "one")
    owner.kill()
    owner.communicate()
    if also_the_worker:
        kill_the_worker(own_host)
        the_worker(own_host)
    one.logs_on()
    two = endless(path, "two")  # a living writer's queue is enough to attach to
    killed = one.kill(), two.kill()
    wait_until(lambda: ended(path) and not workers(own_host), "the run has ended")
    for name, accepted in zip(("one", "two"), killed, strict=True):
        assert_all_there(path, name, accepted)


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(20, marks=pytest.mark.system),
        pytest.param(500, marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
)
def test_writers_one_after_the_other_leave_nothing_behind(run: Run, own_host: Path, count: int) -> None:
    """Also while the run goes on: a queue has a MiB, and the worker a descriptor for each."""
    worker = the_worker(own_host)
    for i in range(count):
        child = writer(f"w{i}", 10, *(["wait"] if i % 2 else []), writer="again")
        if i % 2:
            child.stdout.readline()
            child.kill()
            child.communicate()
        else:
            outcome(child)
    wait_until(lambda: len(rings_in(own_host)) == 1, "only the owner's queue is left")
    # A queue is removed before it is closed.
    wait_until(lambda: not any("(deleted)" in link for link in descriptors(worker)), "the worker has closed the others")
    run.finish()
    assert_whole(run.path, {f"w{i}": 10 for i in range(count)})
    assert {record.writer for record in records(run.path)} == {"again"}


def descriptors(pid: int) -> list[str]:
    """What a process has open."""
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(link))
    return found


def test_a_child_that_a_writer_forks_has_its_label(run: Run) -> None:
    script = """
import os, sys, asynctrack
run = asynctrack.attach(writer="rank3")
run.log({"parent": 0})
if not (pid := os.fork()):
    run.log({"child": 0})
    run.finish()
    os._exit(0)
os.waitpid(pid, 0)
"""
    run_child(script)
    run.finish()
    assert {next(iter(record.data)): record.writer for record in records(run.path)} == {
        "parent": "rank3",
        "child": "rank3",
    }
    assert len({record.ring for record in records(run.path)}) == 2


def test_the_label_is_the_rank_where_there_is_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "7")
    monkeypatch.setenv("WORLD_SIZE", "8")
    outcome(writer("a", 1))
    run.finish()
    assert [record.writer for record in records(run.path)] == ["rank7"]


@pytest.mark.system
def test_a_spawned_child_of_a_rank_is_not_taken_for_it(
    own_host: Path, runs: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    run = asynctrack.init("p", id="r", dir=runs, join=True)
    run.log({"mine": 1})
    child = start("import asynctrack, os\nasynctrack.log({'its': 1})\nprint(flush=True)\nos.kill(os.getpid(), 9)")
    child.communicate()
    label = f"rank0:{child.pid}"
    wait_until(lambda: label in run.writers and run.writers[label].has_ended, "its end is known")
    run.finish()
    assert {name: (one.status, one.rank) for name, one in run.writers.items()} == {
        "rank0": ("finished", 0),
        label: ("crashed", None),
    }
    assert f"{label} crashed" in "\n".join(record.getMessage() for record in caplog.records)
    assert {next(iter(record.data)): record.writer for record in records(run.path)} == {"mine": "rank0", "its": label}


def test_attaching_to_what_this_process_has_open_returns_it(run: Run) -> None:
    assert attach() is attach(run) is attach("run") is attach(run.path) is run
    assert pickle.loads(pickle.dumps(run)) is run
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(run, protocol)) is run
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        scope = pickle.loads(pickle.dumps(run.scope("train", every=2).bind({"fold": 1}), protocol))
        assert scope.log({"loss": 0.5}, step=0)
    run.finish()
    found = [record.data for record in records(run.path)]
    assert found == [{"fold": 1, "train/loss": 0.5}] * (pickle.HIGHEST_PROTOCOL + 1)


def test_a_label_that_comes_too_late_is_refused(run: Run) -> None:
    script = """
import json, os, pickle, sys
import asynctrack
from asynctrack.errors import InvalidSettings

def told(run, writer):
    try:
        return asynctrack.attach(run, writer=writer).path is None
    except InvalidSettings as error:
        return str(error)

data, path, how = sys.argv[1:]
run = pickle.loads(bytes.fromhex(data)) if how == "pickle" else asynctrack.attach(path, writer="actor-6")
run.log({how: 1})
print(json.dumps([told(given, "actor-7") for given in (run, path, None)] + [told(run, "actor-6")]))
"""
    data = pickle.dumps(run).hex()
    by_pickle, by_path = (run_child(script, data, run.path, how) for how in ("pickle", "path"))
    assert all("writer='actor-7' comes too late: this process writes to run run as '" in said for said in by_pickle[:3])
    assert "asynctrack.attach(path, writer=...) before it logs" in by_pickle[0]
    assert all("as 'actor-6' already" in said for said in by_path[:3])
    assert by_path[3] is False, "the label that it has"
    with pytest.raises(InvalidSettings, match="comes too late"):
        attach(run, writer="mine")
    run.finish()
    assert {next(iter(record.data)): record.writer for record in records(run.path)}["path"] == "actor-6"


def test_a_forked_child_is_told_that_it_has_its_parents_label(run: Run) -> None:
    script = """
import json, os, sys
import asynctrack
from asynctrack.errors import InvalidSettings

with asynctrack.attach(sys.argv[1], writer="parent") as run:
    if not os.fork():
        try:
            asynctrack.attach(run, writer="child")
        except InvalidSettings as error:
            print(json.dumps(str(error)), flush=True)
        os._exit(0)
    os.wait()
"""
    assert "as 'parent' already; forked children have their parent's label" in run_child(script, run.path)


def test_a_reader_says_to_which_run_to_attach(run: Run) -> None:
    script = """
import sys, asynctrack
with asynctrack.attach(asynctrack.open_run(sys.argv[1]), writer="other") as run:
    run.log({"a": 1})
"""
    assert attach(asynctrack.open_run(run.path)) is run
    run_child(script, run.path)
    run.finish()
    assert [record.writer for record in records(run.path)] == ["other"]


def test_a_writer_that_has_finished_can_attach_again(run: Run) -> None:
    script = """
import sys, asynctrack
for i in range(2):
    with asynctrack.attach(sys.argv[1]) as run:
        assert run is asynctrack.current() is asynctrack.attach()
        run.log({"i": i})
"""
    run_child(script, run.path)
    run.finish()
    assert [record.data["i"] for record in records(run.path)] == [0, 1]


@pytest.mark.system
def test_two_runs_in_one_directory_keep_the_locks_of_a_process_that_has_both(own_host: Path, runs: Path) -> None:
    """Whoever opens his own ring a second time, and closes it, drops its lock: the worker would take him for dead."""
    script = """
import json, sys, asynctrack
from asynctrack.client.run_state import activity_of, other_workers
one, two = asynctrack.attach(sys.argv[1]), asynctrack.attach(sys.argv[2])
for run in (one, two):
    assert len(other_workers()) == 1 and activity_of(run.path).is_active
    assert asynctrack.attach(run.path) is run
print(json.dumps([run.publisher.producer.ring.path for run in (one._session, two._session)]), flush=True)
sys.stdin.readline()
one.log({"i": 0}), two.log({"i": 0})
"""
    opened = [asynctrack.init("p", id=name, dir=runs, reinit="create_new") for name in ("one", "two")]
    child = start(script, *(run.path for run in opened))
    rings = json.loads(child.stdout.readline())  # type: ignore[union-attr]
    assert len({os.path.dirname(path) for path in rings}) == 1
    assert [locks.holder(path) for path in rings] == [child.pid] * 2
    child.communicate("\n")
    for run in opened:
        run.finish()
        assert [record.data for record in records(run.path)] == [{"i": 0}]


def test_a_run_that_has_ended_is_not_attached_to(run: Run) -> None:
    run.finish()
    with pytest.raises(RunHasEnded, match=r"has ended \(finished\).*resume='allow'") as raised:
        attach(run.path)
    assert raised.value.status == "finished"
    with pytest.raises(RunHasEnded):
        pickle.loads(pickle.dumps(run))
    with attach(run.path, when_absent="disabled") as nothing:
        assert nothing.mode == "disabled"
        assert nothing.log({"i": 0})
        assert attach(when_absent="disabled", timeout_s=0) is nothing


@pytest.mark.system
def test_a_process_that_came_before_the_run_finds_it_when_it_asks_again(own_host: Path, runs: Path) -> None:
    """A pool may be there before its owner opens the run: what its later tasks log must not be lost."""
    script = """
import asynctrack, json, pickle, sys
early = asynctrack.attach(when_absent="disabled")
arrived = pickle.loads(pickle.dumps(early))
print(json.dumps([early.mode, arrived.mode, asynctrack.attach(when_absent="disabled") is early]), flush=True)
sys.stdin.readline()
with asynctrack.attach(when_absent="disabled") as run:
    print(json.dumps([run.mode, asynctrack.current() is run, run.log({"i": 0}), asynctrack.log({"i": 1})]), flush=True)
asynctrack.attach().log({"i": 2})
"""
    child = start(script)
    assert json.loads(child.stdout.readline()) == ["disabled", "disabled", True]  # type: ignore[union-attr]
    with asynctrack.init("p", dir=runs) as run:
        said, _ = child.communicate("\n", timeout=DEADLINE_S)
        assert json.loads(said.splitlines()[0]) == ["online", True, True, True]
    assert [record.data["i"] for record in records(run.path)] == [0, 1, 2]


def test_who_comes_again_where_there_is_no_run_is_told(own_host: Path) -> None:
    with attach(when_absent="disabled"), pytest.raises(NoRunToAttach):
        attach()


@pytest.mark.system
def test_who_attaches_while_the_run_ends_is_told_or_loses_nothing(own_host: Path, runs: Path) -> None:
    """Its worker may be about to leave, its directory to be renamed."""
    script = """
import json, sys, asynctrack
accepted = {}
for path in sys.stdin:
    try:
        with asynctrack.attach(path.strip()) as run:
            accepted[run.id] = run.log({"child": 0})
    except asynctrack.errors.RunHasEnded:
        pass
print(json.dumps(accepted))
"""
    child = start(script)
    for number in range(20):
        with asynctrack.init("p", id=f"run{number}", dir=runs) as run:
            run.log({"owner": 0})
            child.stdin.write(f"{run.path}\n")  # type: ignore[union-attr]
            child.stdin.flush()  # type: ignore[union-attr]
            if number % 2:
                time.sleep(number / 1000)
    accepted = outcome(child)
    wait_until(lambda: not workers(own_host), "the workers have left")
    for number in range(20):
        path = runs / "p" / f"run{number}"
        assert manifest(path)["status"] == "finished"
        assert [record.data for record in records(path) if "child" in record.data] == [{"child": 0}] * (
            path.name in accepted
        )


@pytest.mark.system
def test_a_run_whose_processes_have_all_died_has_ended(own_host: Path, runs: Path) -> None:
    owner = start(OWNER, runs)
    path = json.loads(owner.stdout.readline())  # type: ignore[union-attr]
    the_worker(own_host)
    for pid in (owner.pid, *workers(own_host)):
        os.kill(pid, signal.SIGKILL)
    owner.communicate()
    with pytest.raises(RunHasEnded, match="lost"):
        attach(path)
    asynctrack.init("q", dir=runs).finish()  # whose worker takes the queue of the other


def test_what_cannot_be_found_is_said_with_the_ways_to_find_it(own_host: Path, runs: Path) -> None:
    with pytest.raises(NoRunToAttach, match=r"neither an argument nor ASYNCTRACK_RUN names a run.*init\(\)"):
        attach()
    with pytest.raises(NoRunToAttach, match=r"no process of this user.*'nowhere' open within 0.1 s"):
        attach("nowhere", timeout_s=0.1)
    with pytest.raises(NotARun):
        attach(runs / "p" / "r", timeout_s=0.1)
    with pytest.raises(NoCurrentRun, match=r"asynctrack.attach\(run\).*no process from which this one descends"):
        asynctrack.log({"i": 0})


def test_a_path_with_an_error_is_said_before_the_wait(own_host: Path, runs: Path) -> None:
    script = """
import json, sys
import asynctrack
try:
    asynctrack.attach(sys.argv[1] + "/none/x", timeout_s=60)
except KeyboardInterrupt:
    pass
"""
    child = start(script, runs)
    assert child.stderr is not None
    said = child.stderr.readline()
    child.kill()
    child.communicate()
    assert f"waits for a run at {runs.resolve()}/none/x: there is no directory {runs.resolve()}/none yet" in said


@pytest.mark.system
def test_a_run_whose_project_is_not_there_yet_is_waited_for(own_host: Path, runs: Path) -> None:
    child = start(WRITER, json.dumps({"run": str(runs / "p" / "run")}), "late", "1", "waits")
    assert child.stderr is not None
    assert "waits for a run" in child.stderr.readline()
    with asynctrack.init("p", id="run", dir=runs) as run:
        assert child.communicate("\n")[1] == ""
    assert [record.data for record in records(run.path)] == [{"late": 0}]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"run": 3}, "run must be"),
        ({"run": ""}, "run must be"),
        ({"run": b"r"}, "run must be"),
        ({"run": "a\0b"}, "run must be"),
        ({"run": "\ud800"}, "run must be"),
        ({"when_absent": "ignore"}, "when_absent must be"),
        ({"timeout_s": -1}, "timeout_s must be"),
        ({"writer": "a/b"}, "writer must be"),
        ({"queue_bytes": 1}, "queue_bytes must be"),
    ],
)
def test_wrong_arguments_are_said(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidSettings, match=said):
        attach(**given)


@pytest.mark.parametrize("path", ["/etc/passwd", "/proc/self/mem", "/" + "x/" * 5000, "/" + "x" * 5000])
def test_a_path_that_can_be_no_run_is_said(own_host: Path, path: str) -> None:
    with pytest.raises(NotARun, match="is not a run"):
        attach(path, timeout_s=0.1)
    with pytest.raises(NoRunToAttach):
        attach(path.replace("/", "."), timeout_s=0.1)
    with attach(path, timeout_s=0.1, when_absent="disabled") as disabled:
        assert disabled.mode == "disabled"


def test_what_the_variable_names_and_is_not_there_is_said(
    own_host: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASYNCTRACK_RUN", "rubbish")
    with pytest.raises(NoRunToAttach, match=r"had a run 'rubbish', which ASYNCTRACK_RUN names, open within 0.1 s"):
        attach(timeout_s=0.1)
    with pytest.raises(NoCurrentRun, match=r"ASYNCTRACK_RUN names 'rubbish', and no process .* has that run open"):
        asynctrack.log({"i": 0})
    monkeypatch.setattr("asynctrack.client.current._look_at", 0.0)
    monkeypatch.setenv("ASYNCTRACK_RUN", str(runs))
    with pytest.raises(NotARun, match=r"is not a run: .*; ASYNCTRACK_RUN names it"):
        attach(timeout_s=0.1)
    with pytest.raises(NoCurrentRun, match="ASYNCTRACK_RUN names"):
        asynctrack.log({"i": 0})


@pytest.mark.system
def test_a_run_that_has_finished_here_is_attached_to_again_or_has_ended(run: Run) -> None:
    script = """
import asynctrack, json, sys
run = asynctrack.attach(sys.argv[1])
run.log({"i": 0})
run.finish()
said = []
try:
    run.log({"i": 1})
except asynctrack.errors.RunFinished as error:
    said.append(str(error))
again = asynctrack.attach(run)
assert again is not run and again.log({"i": 2})
assert asynctrack.attach(again) is again
again.finish()
print(json.dumps(said))
"""
    (said,) = run_child(script, run.path)
    assert "had finished in this process, and was not recorded; attach() to it again" in said
    run.finish()
    with pytest.raises(RunHasEnded):
        attach(run)
    assert [record.data["i"] for record in records(run.path)] == [0, 2]


def test_a_forked_child_shows_its_parents_run_as_open(run: Run) -> None:
    reader, writer = os.pipe()
    if not (pid := os.fork()):
        os.write(writer, repr(run).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    assert b", open, " in os.read(reader, 1000)


@pytest.mark.system
def test_an_ancestor_with_several_runs_is_asked_which(own_host: Path, runs: Path) -> None:
    opened = [asynctrack.init("p", id=name, dir=runs, reinit="create_new") for name in ("one", "two")]
    script = """
import json, asynctrack
try:
    asynctrack.log({})
except asynctrack.errors.SeveralOpenRuns as error:
    print(json.dumps([str(error), error.candidates]))
"""
    said, candidates = run_child(script)
    assert candidates == [str(run.path) for run in opened]
    assert "has 2 runs open; give attach() the path of one of them" in said
    same = asynctrack.init("q", id="one", dir=runs, reinit="create_new")
    assert "by the id 'one', has 2 runs open" in run_child(script.replace("log({})", "attach('one')"))[0]
    for run in (*opened, same):
        run.finish()


def test_a_run_whose_shared_memory_is_anothers_names_the_cures(run: Run, tmp_path: Path) -> None:
    script = """
import json, sys, asynctrack
try:
    asynctrack.attach(sys.argv[1], timeout_s=0.2)
except asynctrack.errors.RunElsewhere as error:
    print(json.dumps(str(error)))
"""
    (tmp_path / "private").mkdir()
    said = run_child(script, run.path, ASYNCTRACK_SHM=str(tmp_path / "private"))
    assert "in another container (its lock is held, and it has no queue here)" in said
    assert "--ipc" in said
    assert "ASYNCTRACK_SHM" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_users_run_is_refused(run: Run) -> None:
    os.chmod(run.path.parent.parent.parent, 0o755)
    script = """
import json, os, sys, asynctrack
import asynctrack.client.attaching
path = sys.argv[1]
os.chown(path, 65534, 65534)
try:
    asynctrack.attach(path, timeout_s=0.2)
except PermissionError as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""
    # The run's directory is given away, since the tests' own directories let nobody else in.
    with asynctrack.init("p", id="given", dir=run.path.parent.parent, reinit="create_new") as given:
        kind, said = run_child(script, given.path, ASYNCTRACK_SHM=os.fspath(run.path.parent))
        os.chown(given.path, 0, 0)
    assert kind == "RunOfAnotherUser"
    assert "belongs to the user with the number 65534" in said


def test_nothing_is_written_into_the_environment(run: Run) -> None:
    assert "ASYNCTRACK_RUN" not in os.environ
    assert not any(str(run.path) in value for value in os.environ.values())


def test_a_disabled_run_is_disabled_where_it_arrives(runs: Path) -> None:
    with asynctrack.init("p", dir=runs, mode="disabled") as run:
        again = pickle.loads(pickle.dumps(run))
        assert again.mode == "disabled"
        assert again.log({"i": 0})
    assert run_child(
        "import json, asynctrack; asynctrack.attach(); print(json.dumps(asynctrack.log({})))",
        ASYNCTRACK_MODE="disabled",
    )


def test_ancestors_are_found_through_a_shell() -> None:
    found = subprocess.run(
        [
            "sh",
            "-c",
            f'"{sys.executable}" -c "from asynctrack.client.ancestry import ancestors; print(*ancestors())"; true',
        ],
        env={**os.environ, "PYTHONPATH": str(INSTALLED)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert found[1:] == [str(os.getpid()), *map(str, ancestors())]


@pytest.mark.system
def test_queues_that_have_ended_are_none_to_attach_to(run: Run) -> None:
    child = writer("a", 10, "wait", writer="a")
    wait_until(lambda: len(list(live_queues())) == 1, "the child has attached")
    child.communicate("\n")
    wait_until(lambda: list(live_queues()) == [], "the child's queue has ended")
    assert activity_of(run.path).is_active


def test_values_set_by_a_writer_are_the_runs(run: Run) -> None:
    run_child("import sys, asynctrack; run = asynctrack.attach(); run.config['k'] = 1; run.finish(summary={'s': 2})")
    run.finish()
    found = manifest(run.path)
    assert (found["config"], found["summary"]) == ({"lr": 0.1, "k": 1}, {"s": 2})


def test_to_attach_takes_no_second(run: Run) -> None:
    """It takes some 10 ms once all is imported, and is bounded generously here, since others may run beside it."""
    script = """
import json, time, asynctrack
begin = time.perf_counter()
asynctrack.attach()
print(json.dumps(time.perf_counter() - begin))
"""
    assert any(run_child(script) < 1.0 for _ in range(3))


def test_a_finaliser_that_logs_first_as_the_interpreter_ends_is_told_why_it_cannot(run: Run) -> None:
    script = """
import asynctrack
class Late:
    def __del__(self):
        try:
            asynctrack.log({"late": 1})
        except asynctrack.errors.NoCurrentRun:
            print("told", flush=True)
late = Late()
"""
    child = start(script)
    said, err = child.communicate(timeout=DEADLINE_S)
    assert (said, err) == ("told\n", "") or (err == "" and len(records(run.path)) == 1)
