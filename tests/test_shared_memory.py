"""Shared memory that is full: runs take the temporary directory, or say that there is no room; what is open stays as it is, and nothing is left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support import assert_whole, lines, run_confined, values

# Every script runs where /dev/shm and the temporary directory are small file systems of its own.
SHM, TEMPORARY = Path("/dev/shm"), Path("/var/tmp")
BEGIN = f"""
import json, logging, os, signal, sys, tempfile, time
from pathlib import Path

import asynctrack
from asynctrack.errors import SharedMemoryUnavailable

SHM, TEMPORARY = Path({str(SHM)!r}), Path({str(TEMPORARY)!r})
runs = Path(sys.argv[1])
tempfile.tempdir = str(TEMPORARY)  # also where it is full
logging.basicConfig(level=logging.WARNING)


def fill(path):
    with (path / "ballast").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            assert error.errno == 28, error


def free(path):
    (path / "ballast").unlink()


def below(root):  # also while a worker removes it
    return [os.path.join(folder, name) for folder, folders, files in os.walk(root) for name in (*folders, *files)]


def rings(path):
    return sum(name.endswith(".ring") for name in below(path))


def left():
    return [path for root in (SHM, TEMPORARY) for path in below(root) if not path.endswith("ballast")]


def nothing_is_left():
    deadline = time.monotonic() + 20
    while left():
        assert time.monotonic() < deadline, left()
        time.sleep(0.01)


def log(run, count=1000, first=0):
    for i in range(first, first + count):
        assert run.log({{"i": i}})

"""


def confined(script: str, *arguments: object, shm: str = "size=1m", temporary: str = "size=16m") -> Any:
    mounts = [f"mount -t tmpfs -o {options} tmpfs {at}" for at, options in ((SHM, shm), (TEMPORARY, temporary))]
    return run_confined(
        " && ".join(mounts),
        BEGIN + script,
        *arguments,
        ASYNCTRACK_SHM="",
        ASYNCTRACK_IDLE_EXIT_S="0.05",
        TMPDIR=str(TEMPORARY),
    )


# Full to the last page; too small for a ring; for another file; for a directory.
@pytest.mark.system
@pytest.mark.parametrize(
    ("shm", "worker"),
    [
        ("size=1m", "process"),
        ("size=1m", "thread"),
        ("size=60k", "process"),
        ("size=2m,nr_inodes=4", "process"),
        ("size=2m,nr_inodes=1", "process"),
    ],
)
def test_run_falls_back_to_the_temporary_directory(runs: Path, shm: str, worker: str) -> None:
    confined(
        """
if sys.argv[3] == "size=1m":
    fill(SHM)
run = asynctrack.init("p", id="run", dir=runs, worker=sys.argv[2])
assert (rings(SHM), rings(TEMPORARY)) == (0, 1)
log(run)
assert run.finish().dropped == {}
asynctrack.client.worker_registry.stop_threads()
nothing_is_left()
""",
        runs,
        worker,
        shm,
        shm=shm,
    )
    assert_whole(runs / "p" / "run", {"i": 1000})


@pytest.mark.system
@pytest.mark.parametrize("worker", ["process", "thread"])
def test_process_whose_shared_memory_has_filled_up_opens_more_runs(runs: Path, worker: str) -> None:
    confined(
        """
worker = sys.argv[2]
first = asynctrack.init("p", id="first", dir=runs, worker=worker)
log(first, 500)
fill(SHM)
more = [asynctrack.init("p", id=name, dir=runs, worker=worker) for name in ("second", "third")]
assert (rings(SHM), rings(TEMPORARY), len(list(TEMPORARY.glob("asynctrack-*/*")))) == (1, 2, 1)
for run in more:
    log(run)
log(first, 500, 500)
more.pop(0).finish()
free(SHM)
more.append(asynctrack.init("p", id="last", dir=runs, worker=worker))
assert (rings(SHM), rings(TEMPORARY)) == (2, 1)
log(more[-1])
for run in (first, *more):
    assert run.finish().dropped == {}
asynctrack.client.worker_registry.stop_threads()
nothing_is_left()
""",
        runs,
        worker,
    )
    for name in ("first", "second", "third", "last"):
        assert_whole(runs / "p" / name, {"i": 1000})


@pytest.mark.system
def test_no_room_anywhere_is_told_by_init_and_nothing_is_left(runs: Path) -> None:
    confined(
        """
first = asynctrack.init("p", id="first", dir=runs)
log(first, 500)
fill(SHM)
fill(TEMPORARY)
for _ in range(3):
    try:
        asynctrack.init("p", id="second", dir=runs)
    except SharedMemoryUnavailable as error:
        assert "no room for a queue in /dev/shm or /var/tmp: No space left on device" in str(error), error
    else:
        raise AssertionError("there was room")
assert rings(SHM) == 1
assert not rings(TEMPORARY)
assert not list(TEMPORARY.glob("asynctrack-*"))
log(first, 500, 500)
assert first.finish().dropped == {}
nothing_is_left()
for root in (SHM, TEMPORARY):
    free(root)
log(asynctrack.init("p", id="second", dir=runs))
""",
        runs,
    )
    assert_whole(runs / "p" / "first", {"i": 1000})
    assert_whole(runs / "p" / "second", {"i": 1000})


def test_no_room_for_the_first_run_leaves_nothing(runs: Path) -> None:
    confined(
        """
fill(SHM)
os.environ["ASYNCTRACK_SHM"] = str(SHM)  # and nowhere else
try:
    asynctrack.init("p", id="run", dir=runs)
except SharedMemoryUnavailable as error:
    assert "no room for a queue in /dev/shm: No space left" in str(error), error
else:
    raise AssertionError("there was room")
assert not left(), left()
assert not (runs / "p" / "run").exists()
""",
        runs,
    )


@pytest.mark.system
def test_forked_child_without_room_is_told_the_truth_and_counts(runs: Path) -> None:
    told = confined(
        """
run = asynctrack.init("p", id="run", dir=runs)
run.log({"parent": 0})
run.flush()
fill(SHM)
logging.disable()
child = os.fork()
if not child:
    told = [run.log({"child": 0}) for _ in range(100)]
    assert told == [False] * 100
    free(SHM)
    while not run.log({"child": 0}):
        told.append(False)
        time.sleep(0.01)
    log_more = [run.log({"child": i}) for i in range(1, 100)]
    assert all(log_more)
    (runs / "told").write_text(json.dumps(len(told)))
    run.finish()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
run.log({"parent": 1})
stats = run.finish()
assert stats.backends["jsonl"].delivered == stats.accepted == 102, stats
print(json.dumps([stats.dropped, int((runs / "told").read_text())]))
""",
        runs,
    )
    dropped, turned_away = told
    assert dropped == {"full": turned_away}
    assert_whole(runs / "p" / "run", {"parent": 2, "child": 100})


# The queue of a run whose caller and worker were killed lies in one place, and the next session has room in the other only.
@pytest.mark.system
@pytest.mark.parametrize("full", ["SHM", "TEMPORARY"])
def test_queue_of_the_dead_is_taken_over_from_the_other_place(runs: Path, full: str) -> None:
    confined(
        """
first, second = (TEMPORARY, SHM) if sys.argv[2] == "SHM" else (SHM, TEMPORARY)
fill(SHM) if first is TEMPORARY else None
if not (child := os.fork()):
    run = asynctrack.init("p", id="run", dir=runs)
    run.flush("journaled")
    worker = run._publisher.producer.ring.words[20]
    os.kill(worker, signal.SIGSTOP)
    log(run)
    os.kill(worker, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
os.waitpid(child, 0)
assert rings(first) == 1
free(SHM) if second is SHM else fill(SHM)
run = asynctrack.init("p", id="run", dir=runs, resume="must")
assert (rings(first), rings(second)) == (0, 2), left()
log(run, 1000, 1000)
assert run.finish().dropped == {}
nothing_is_left()
""",
        runs,
        full,
        shm="size=16m",
    )
    run = runs / "p" / "run"
    assert values(run, "i") == [line["i"] for line in lines(run)] == list(range(2000))
    assert json.loads((run / "run.json").read_bytes())["status"] == "finished"
