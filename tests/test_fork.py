"""After a fork the child logs to the same run through a ring of its own, and the parent does not notice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import ended, left_in, lines, manifest, outcome, records, run_child, start, values, wait_until, workers

pytestmark = pytest.mark.usefixtures("version")

HOSTS = pytest.mark.parametrize("worker", ["process", "thread"])

# What all scripts below begin with: an open run, and a child that runs a function and ends without a word.
PARENT = """
import faulthandler, json, os, signal, sys, threading, time
import asynctrack

faulthandler.cancel_dump_traceback_later()  # a forked child could not end: it waits for the thread that it has not got
folder, worker = sys.argv[1:3]

def fork(function, *arguments):
    pid = os.fork()
    if not pid:
        code = 1
        try:
            function(*arguments)
            code = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return pid

def wait_for(*pids):
    for pid in pids:
        assert os.waitpid(pid, 0)[1] == 0

def log(who, count, first=0):
    for i in range(first, first + count):
        assert run.log({who: i})

run = asynctrack.init("p", id="run", dir=folder, worker=worker)
"""


def rings_of(run: Path, who: str) -> set[int]:
    return {record.ring for record in records(run) if who in record.data}


def assert_all_there(run: Path, counts: dict[str, int]) -> None:
    """Each source's records are there, once, in order, each through one ring; and so they are in the JSON Lines."""
    found, delivered = records(run), lines(run)
    for who, count in counts.items():
        assert [record.data[who] for record in found if who in record.data] == list(range(count)), who
        assert [line[who] for line in delivered if who in line] == list(range(count)), who
        assert len(rings_of(run, who)) == (count > 0), who
    assert len(found) == len(delivered) == sum(counts.values())


@pytest.fixture
def forked(own_host: Path, runs: Path) -> Callable[..., Any]:
    """Run a script that begins like the others; in the end all workers have left."""

    def run(script: str, worker: str = "process", **environment: str) -> Any:
        told = run_child(PARENT + script, runs, worker, **environment)
        wait_until(lambda: not workers(own_host), "the workers have left")
        return told

    return run


@pytest.mark.system
def test_checkpoint_of_a_child_that_has_not_logged_is_on_disk(forked: Callable[..., Any], runs: Path) -> None:
    told = forked("""
pid = os.fork()
if not pid:
    stats = run.checkpoint(epoch=3)
    print(json.dumps([stats.journaled, run.last_checkpoint()]), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
run.finish()
""")
    assert told == [0, {"epoch": 3}]
    assert manifest(runs / "p" / "run")["checkpoint"] == {"epoch": 3}


@pytest.mark.system
@pytest.mark.parametrize("logs_before", [False, True])
def test_what_a_child_sets_is_recorded_whether_it_has_logged_before_or_not(
    forked: Callable[..., Any], runs: Path, logs_before: bool
) -> None:
    forked(f"""
def child():
    if {logs_before}:
        log("child", 1)
    run.config["k"] = 1
    run.summary["s"] = 2
    run.finish(summary={{"last": 3}})

run.config["parent"] = 0
wait_for(fork(child))
run.finish()
""")
    found = manifest(runs / "p" / "run")
    assert found["config"] == {"parent": 0, "k": 1}
    assert found["summary"] == {"s": 2, "last": 3}
    assert found["status"] == "finished"


def test_summary_with_which_a_child_finishes_that_has_said_nothing_is_recorded(
    forked: Callable[..., Any], runs: Path
) -> None:
    forked("""
wait_for(fork(lambda: run.finish(summary={"last": 3})))
run.finish()
""")
    assert manifest(runs / "p" / "run")["summary"] == {"last": 3}


@pytest.fixture
def run_path(runs: Path) -> Path:
    return runs / "p" / "run"


@HOSTS
def test_child_logs_to_the_same_run_through_a_ring_of_its_own(
    forked: Callable[..., Any], run_path: Path, worker: str
) -> None:
    stats = forked(
        """
log("parent", 500)
child = fork(log, "child", 1000)
log("parent", 500, 500)
wait_for(child)
stats = run.finish()
print(json.dumps([stats.accepted, stats.dropped, stats.backends["jsonl"].delivered]))
""",
        worker,
    )
    assert stats == [2000, {}, 2000]
    assert_all_there(run_path, {"parent": 1000, "child": 1000})
    assert rings_of(run_path, "parent") != rings_of(run_path, "child")
    assert manifest(run_path)["status"] == "finished"


@pytest.mark.system
@HOSTS
def test_finish_waits_for_what_a_child_left_that_has_just_died(
    forked: Callable[..., Any], run_path: Path, worker: str
) -> None:
    """What the process itself had to say is delivered before anybody sees that the child is dead."""
    stats = forked(
        """
log("parent", 10)
assert run.flush("delivered")
wait_for(fork(lambda: [log("child", 5000), os._exit(0)]))
stats = run.finish()
print(json.dumps([stats.accepted, stats.backends["jsonl"].delivered]))
""",
        worker,
    )
    assert stats == [5010, 5010]
    assert_all_there(run_path, {"parent": 10, "child": 5000})


@pytest.mark.system
def test_child_is_seen_at_once_also_by_a_worker_that_has_no_rest(runs: Path, own_host: Path) -> None:
    """As where its parent logs all the time. How a child has ended that is killed before nobody can tell."""
    script = f"""
from asynctrack.worker import drain
drain.may_sleep = lambda fullest: False
{PARENT}
from asynctrack.queue.layout import WORKER_PID
run.flush()
def see():
    run.log({{"child": 1}})
    began, words = time.monotonic(), run._publisher.producer.ring.words
    while not words[WORKER_PID] and time.monotonic() < began + 5:
        time.sleep(0.001)
    os.write(theirs, b"%f\\n" % (time.monotonic() - began))
ours, theirs = os.pipe()
for _ in range(10):
    wait_for(fork(see))
print(json.dumps([float(took) for took in os.read(ours, 1000).split()]))
"""
    took = run_child(script, runs, "thread")
    assert len(took) == 10 and max(took) < 0.3


@pytest.mark.system
def test_child_that_is_killed_is_told_of_when_its_parent_finishes(runs: Path, own_host: Path) -> None:
    script = f"""{PARENT}
os.waitpid(fork(lambda: [log("child", 10), run.flush(), os.kill(os.getpid(), 9)]), 0)
run.finish()
"""
    child = start(script, runs, "process")
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0, out + err
    said = [line for line in (out + err).splitlines() if "failed" in line]
    assert len(said) == 1
    assert "1 forked child has failed: process " in said[0]
    assert "killed by SIGKILL" in said[0]


@pytest.mark.system
@HOSTS
def test_forks_while_threads_log_harm_nobody(forked: Callable[..., Any], run_path: Path, worker: str) -> None:
    counts = forked(
        """
over = threading.Event()
counts = {}

def work(who):
    counts[who] = 0
    while not over.is_set():
        counts[who] += run.log({who: counts[who]})
        time.sleep(0)

threads = [threading.Thread(target=work, args=(f"thread {i}",)) for i in range(3)]
for thread in threads:
    thread.start()
children = [fork(log, f"child {i}", 200) for i in range(8)]
wait_for(*children)
over.set()
for thread in threads:
    thread.join()
assert run.finish().dropped == {}
print(json.dumps(counts))
""",
        worker,
    )
    assert_all_there(run_path, {**counts, **{f"child {i}": 200 for i in range(8)}})
    assert manifest(run_path)["status"] == "finished"


@pytest.mark.system
def test_signal_handlers_that_fork_inside_log_harm_neither_side(forked: Callable[..., Any], run_path: Path) -> None:
    counts = forked(
        """
me, children = "parent", []

def on_alarm(*_):
    global me
    if me == "parent" and len(children) < 20:
        pid = os.fork()
        if pid:
            children.append(pid)
            signal.setitimer(signal.ITIMER_REAL, 0.002)  # once: what `os.fork` calls must not be interrupted by a fork
        else:
            me = f"child {len(children)}"  # and goes on where the parent was

signal.signal(signal.SIGALRM, on_alarm)
signal.setitimer(signal.ITIMER_REAL, 0.002)
i = base = 0
seen = "parent"
try:
    while len(children) < 20 or i < 1000:
        if seen != me:  # the record that was interrupted is on both sides, or on one
            seen, base = me, i
        assert run.log({seen: i - base})
        i += 1
        if seen != "parent" and i - base == 300:
            os._exit(0)
except BaseException:
    import traceback
    traceback.print_exc()
    sys.stderr.flush()
    if me != "parent":
        os._exit(1)
    raise
wait_for(*children)
assert run.finish().dropped == {}
print(json.dumps(i))
"""
    )
    by_ring: dict[int, list[tuple[str, int]]] = {}
    for record in records(run_path):
        ((who, i),) = record.data.items()
        by_ring.setdefault(record.ring, []).append((who, i))
    parent, *children = sorted(by_ring.values(), key=lambda found: -[who for who, _ in found].count("parent"))
    assert parent == [("parent", i) for i in range(counts)]
    assert len(children) == 20
    for child in children:
        own = [(who, i) for who, i in child if who != "parent"]
        assert len(child) - len(own) <= 1
        assert [i for _, i in own] == list(range(300))


@pytest.mark.system
@HOSTS
def test_child_that_dies_without_a_word_loses_nothing(forked: Callable[..., Any], run_path: Path, worker: str) -> None:
    forked(
        """
def die():
    log("child", 2000)
    os.kill(os.getpid(), signal.SIGKILL)

child = fork(die)
log("parent", 10)
assert os.waitpid(child, 0)[1] == signal.SIGKILL
log("parent", 10, 10)
run.finish()
""",
        worker,
    )
    assert_all_there(run_path, {"parent": 20, "child": 2000})
    assert manifest(run_path)["status"] == "finished"


@pytest.mark.system
@HOSTS
def test_child_that_finishes_does_not_end_the_parents_run(
    forked: Callable[..., Any], run_path: Path, worker: str
) -> None:
    forked(
        """
def finish(who, count):
    log(who, count)
    stats = run.finish()
    assert stats.dropped == {}
    assert stats.accepted >= count
    try:
        run.log({"late": 1})
    except asynctrack.errors.RunFinished:
        return
    raise AssertionError("log() after finish()")

wait_for(fork(finish, "first", 300), fork(finish, "second", 0))
log("parent", 100)
run.flush()
assert json.loads((run.path / "run.json").read_text())["status"] == "running"
run.finish()
""",
        worker,
    )
    assert_all_there(run_path, {"parent": 100, "first": 300, "second": 0})
    assert manifest(run_path)["status"] == "finished"


def test_child_that_ends_by_sys_exit_keeps_its_records(forked: Callable[..., Any], run_path: Path) -> None:
    forked(
        """
log("parent", 10)
child = os.fork()
if not child:
    log("child", 1000)
    sys.exit(0)
wait_for(child)
run.finish()
"""
    )
    assert_all_there(run_path, {"parent": 10, "child": 1000})


def test_run_that_had_finished_before_the_fork_stays_finished(forked: Callable[..., Any], run_path: Path) -> None:
    forked(
        """
def late():
    try:
        run.log({"child": 0})
    except asynctrack.errors.RunFinished:
        return
    raise AssertionError("log() after finish()")

log("parent", 10)
run.finish()
wait_for(fork(late))
"""
    )
    assert_all_there(run_path, {"parent": 10})
    assert manifest(run_path)["status"] == "finished"


def test_grandchildren_log_too(forked: Callable[..., Any], run_path: Path) -> None:
    forked(
        """
def generation(number):
    log(f"generation {number}", 100)
    if number < 3:
        wait_for(fork(generation, number + 1))
    log(f"generation {number}", 100, 100)

generation(0)
run.finish()
"""
    )
    assert_all_there(run_path, {f"generation {number}": 200 for number in range(4)})
    assert len({record.ring for record in records(run_path)}) == 4


def test_memory_of_the_parent_holds_what_its_children_log(forked: Callable[..., Any]) -> None:
    history = forked(
        """
memory = asynctrack.Memory()
run = asynctrack.init("p", dir=folder, backends=[memory])
wait_for(fork(log, "child", 50))
log("parent", 50)
run.finish()
print(json.dumps(memory.history))
"""
    )
    assert history == {"child": list(range(50)), "parent": list(range(50))}


@pytest.mark.system
def test_child_opens_runs_of_its_own(forked: Callable[..., Any], runs: Path) -> None:
    forked(
        """
def own():
    with asynctrack.init("p", id="own", dir=folder) as inner:
        assert asynctrack.current() is inner
        for i in range(100):
            assert inner.log({"own": i})
    log("child", 10)

wait_for(fork(own))
run.finish()
"""
    )
    assert_all_there(runs / "p" / "own", {"own": 100})
    assert_all_there(runs / "p" / "run", {"child": 10})


OUTLIVED = """
reader, writer = os.pipe()

def outlive():
    os.setsid()
    for stream in (0, 1, 2):
        os.dup2(os.open(os.devnull, os.O_RDWR), stream)
    EARLY
    os.close(writer)
    os.read(reader, 1)            # until the parent is gone
    deadline = time.monotonic() + 20
    while not os.path.exists(folder + "/go") and time.monotonic() < deadline:
        time.sleep(0.01)
    LATE

fork(outlive)
log("parent", 10)
END
"""


@pytest.mark.system
@pytest.mark.parametrize(
    ("early", "end"),
    [
        ("log('child', 10)", "assert run.finish().accepted >= 10"),
        ("log('child', 10)", "os._exit(0)"),
        ("", "run.finish()"),
        ("", "os._exit(0)"),
    ],
    ids=[
        "logs before a parent that finishes",
        "logs before a parent that dies",
        "after one that finishes",
        "after one that dies",
    ],
)
def test_child_that_outlives_its_parent_goes_on(
    own_host: Path, runs: Path, run_path: Path, early: str, end: str
) -> None:
    first = 10 if early else 0
    script = OUTLIVED.replace("EARLY", early).replace("LATE", f"log('child', 500, {first})").replace("END", end)
    outcome(start(PARENT + script, runs, "process"))
    if not early:  # nobody is left who logs: the run ends, and the worker leaves
        wait_until(lambda: not workers(own_host) and ended(run_path), "the worker has left")
        assert_all_there(run_path, {"parent": 10})
    (runs / "go").touch()
    wait_until(
        lambda: ended(run_path) and len(values(run_path, "child")) == first + 500 and not workers(own_host),
        "the child's records are there, and the worker has left",
    )
    assert_all_there(run_path, {"parent": 10, "child": first + 500})
    assert left_in(own_host) == []
