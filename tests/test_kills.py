"""The caller is killed with SIGKILL at random moments: what `log()` accepted is there, once, in order, unharmed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from support import a_minute_later, assert_whole, left_in, manifest, run_child, start, wait_until, workers

import asynctrack
from asynctrack.cli.journal_check import JournalCheck
from asynctrack.cli.sync_plan import plan_sync
from asynctrack.collection.run_summary import summarise_run
from asynctrack.errors import NotARun
from asynctrack.journal.layout import HEADER_BYTES, segment_name
from asynctrack.journal.manifest import Manifest, now_iso
from asynctrack.journal.writer import Writer
from asynctrack.queue.shm_paths import make_host_directory, remove_host
from asynctrack.worker import orphan_rings

pytestmark = pytest.mark.usefixtures("version")

# Forks children that log as fast as they can, and kills each at a random moment: from before its run is open to 0.2 s
# after its first record. Each tells what was accepted through a word that it shares with us.
KILLER = """
import json, mmap, os, random, signal, time
import asynctrack

folder, seed, kills, at_once, early = sys.argv[1], *map(int, sys.argv[2:])
chance = random.Random(seed)

def optimise(name, accepted):
    run = asynctrack.init("p", id=name, dir=folder)
    i = 0
    while True:
        if run.log({"i": i, "half": i / 2, "text": "x" * (i % 300)}, step=2 * i):
            i += 1
            accepted[0] = i

def start(name):
    accepted = memoryview(mmap.mmap(-1, 8)).cast("Q")
    pid = os.fork()
    if not pid:
        try:
            optimise(name, accepted)
        finally:
            os._exit(1)
    return name, pid, accepted

told, running, moments = {}, [], {}
names = iter(f"run-{i}" for i in range(kills))
while len(told) < kills:
    while len(running) < at_once and (name := next(names, None)):
        running.append(start(name))
    for child in list(running):
        name, pid, accepted = child
        if pid not in moments and (early or accepted[0]):
            moments[pid] = time.monotonic() + (chance.random() * 0.03 if early else chance.random() ** 3 * 0.2)
        if time.monotonic() >= moments.get(pid, float("inf")):
            os.kill(pid, signal.SIGKILL)
            assert os.waitpid(pid, 0)[1] == signal.SIGKILL
            told[name] = accepted[0]
            running.remove(child)
    time.sleep(0.0002)
print(json.dumps(told))
"""


def assert_all_there(run: Path, accepted: int) -> None:
    """What was accepted is there; of the record whose `log()` had not returned we cannot know."""
    reader = asynctrack.open_run(run)
    found = 0
    for record in reader.records():
        assert record.data == {"i": found, "half": found / 2, "text": "x" * (found % 300)}
        assert record.step == 2 * found
        found += 1
    assert reader.damage == []
    assert accepted <= found <= accepted + 1
    delivered = 0
    decode = msgspec.json.Decoder().decode
    with (run / "metrics.jsonl").open("rb") as file:
        for line in file:
            row = decode(line)
            assert (row["_step"], row["i"], row["half"]) == (2 * delivered, delivered, delivered / 2)
            assert len(row["text"]) == delivered % 300
            delivered += 1
    assert delivered == found
    assert manifest(run)["status"] == "crashed"


def kill_callers(
    shared: Path, runs: Path, kills: int, *, early: bool = False, deadline_s: float = 20.0
) -> dict[str, int]:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    accepted: dict[str, int] = run_child(KILLER, runs, seed, kills, 3, int(early))
    wait_until(lambda: not workers(shared), "the workers have done their work and left", deadline_s)
    return accepted


@pytest.mark.system
def test_nothing_accepted_is_lost_when_the_caller_is_killed(own_host: Path, runs: Path) -> None:
    accepted = kill_callers(own_host, runs, 40)
    assert left_in(own_host) == []
    assert len(accepted) == 40
    for name, count in accepted.items():
        assert_all_there(runs / "p" / name, count)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_accepted_is_lost_in_a_thousand_kills(own_host: Path, tmp_path: Path) -> None:
    for part in range(25):
        runs = tmp_path / str(part)
        for name, count in kill_callers(own_host, runs, 40).items():
            assert_all_there(runs / "p" / name, count)
        assert left_in(own_host) == []


@pytest.mark.system
def test_caller_killed_while_it_opens_its_run_leaves_nothing_behind_the_next(own_host: Path, runs: Path) -> None:
    accepted = kill_callers(own_host, runs, 20, early=True)
    a_minute_later(own_host)
    with asynctrack.init("p", id="next", dir=runs) as run:
        run.log({"x": 1})
    wait_until(lambda: not workers(own_host), "the next run's worker has taken over what was left, and has gone")
    assert left_in(own_host) == []
    for name, count in accepted.items():
        if count or (runs / "p" / name / "journal").exists():  # else it was killed before it had begun
            assert_all_there(runs / "p" / name, count)


# Is killed when its queue is there and nothing has been said in it; with another run, whose worker sees that queue.
SILENT = """
import os, signal, sys, time
import asynctrack
from asynctrack.client.publisher import Publisher

def die(publisher, *arguments):
    time.sleep(0.7 if sys.argv[2] == "seen" else 0)  # the worker looks every half second
    os.kill(os.getpid(), signal.SIGKILL)

other = asynctrack.init("p", id="other", dir=sys.argv[1]) if sys.argv[2] == "seen" else None
Publisher.start = die
asynctrack.init("p", id="silent", dir=sys.argv[1])
"""


@pytest.mark.system
@pytest.mark.parametrize("queue", ["seen", "not seen"])
def test_caller_killed_before_it_has_said_anything_has_begun_no_run(own_host: Path, runs: Path, queue: str) -> None:
    child = start(SILENT, runs, queue)
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    wait_until(lambda: not workers(own_host), "its worker, if there was one, has left")
    path = runs / "p" / "silent"
    assert not (path / "journal").exists()
    assert summarise_run(path, []).status == "crashed"
    assert (summarise_run(path, []).records, summarise_run(path, []).problem, summarise_run(path, []).behind) == (
        0,
        None,
        {},
    )
    assert JournalCheck(path).take().problems == []
    synced = subprocess.run([sys.executable, "-m", "asynctrack", "sync", str(runs)], capture_output=True, timeout=40)
    assert synced.returncode == 0, synced
    assert not (path / "journal").exists()
    with pytest.raises(NotARun):
        asynctrack.init("p", id="silent", dir=runs, resume="must")
    with asynctrack.init("p", id="silent", dir=runs, resume="allow", config={"lr": 1}) as run:
        assert JournalCheck(path).take().problems == []
        run.log({"i": 0})
    assert_whole(run.path, {"i": 1})
    assert manifest(path)["config"] == {"lr": 1}
    assert JournalCheck(path).take().problems == []
    wait_until(lambda: not workers(own_host), "the worker has left")
    assert left_in(own_host) == []


def test_run_of_which_all_is_in_its_queue_is_not_called_damaged(own_host: Path, runs: Path) -> None:
    """Its worker had made the journal, and both were killed before the first batch."""
    (runs / "p" / "run" / "journal").mkdir(parents=True)
    findings = JournalCheck(runs / "p" / "run").take()
    assert (findings.problems, findings.records) == ([], 0)
    (runs / "p" / "run" / "run.json").write_bytes(
        msgspec.json.encode(Manifest(id="run", name="run", project="p", created_at=now_iso()))
    )
    assert JournalCheck(runs / "p" / "run").take().problems == []
    writer = Writer(runs / "p" / "run" / "journal")
    writer.append(1, 0, 8, 0, bytes(8))
    writer.close()
    os.truncate(runs / "p" / "run" / "journal" / segment_name(1), HEADER_BYTES)  # before the first batch
    findings = JournalCheck(runs / "p" / "run").take()
    assert (findings.problems, findings.segments) == ([], 1)
    assert plan_sync(runs / "p" / "run").todo is False  # nor is there anything to recover, once its queue is gone
    (runs / "p" / "run" / "cursors").mkdir()
    (runs / "p" / "run" / "cursors" / "jsonl.json").write_bytes(b"{}")
    assert JournalCheck(runs / "p" / "run").take().problems  # something was delivered once


def test_directory_that_is_taken_over_is_closed_before_it_is_removed(
    own_host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else another worker that has just listed it makes the lock anew in it, and it stays."""
    into, left = Path(make_host_directory(os.fspath(own_host))), Path(make_host_directory(os.fspath(own_host)))
    os.utime(left, (1, 1))
    was_there: list[bool] = []

    def remove(host: str) -> None:
        was_there.append(left.exists())
        remove_host(host)

    monkeypatch.setattr(orphan_rings, "remove_host", remove)
    orphan_rings.adopt(os.fspath(into))
    assert was_there == [False]
    remove_host(os.fspath(into))
