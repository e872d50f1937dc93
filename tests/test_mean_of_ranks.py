"""The mean over real ranks, one of which is killed, and their worker too: each step is one row, with those that have logged it."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from delivery_support import kill_workers
from support import DEADLINE_S, ended, outcome, run_child, start, wait_until

import asynctrack
from asynctrack.backends.files.csv_rows import read_records
from asynctrack.errors import InvalidSettings

SIZE = 3
STEPS = 120
KILLED_AT = 60

RANK = """
import os, signal, sys, time
import asynctrack

folder, steps, killed_at = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rank = int(os.environ["RANK"])
backends = ["jsonl", asynctrack.CSV(writers="mean")]
run = asynctrack.init("p", id="job", dir=folder, join=True, backends=backends)
print("open", flush=True)
sys.stdin.readline()
for step in range(steps):
    if rank == 2 and step == killed_at:
        os.kill(os.getpid(), signal.SIGKILL)
    assert run.log({"loss": step + 10.0 * rank}, step=step)
    time.sleep(0.01)
run.finish(wait="all")
"""


# Comes when the other waits in `finish` already.
LATE = """
import sys
import asynctrack

run = asynctrack.attach(sys.argv[1], writer="late")
run.log({"loss": 3.0}, step=0)
run.finish()
"""


@pytest.fixture
def ranks(own_host: Path, runs: Path) -> Iterator[list[subprocess.Popen[str]]]:
    started = [start(RANK, runs, STEPS, KILLED_AT, RANK=str(rank), WORLD_SIZE=str(SIZE)) for rank in range(SIZE)]
    yield started
    for child in started:
        child.kill()
        child.communicate()


@pytest.mark.parametrize("given", [{"join": True}, {"writer": "first"}, {}])
def test_means_without_a_number_of_ranks_are_refused_when_the_run_opens(runs: Path, given: dict[str, Any]) -> None:
    said = r"writers='mean' of csv needs .* expected=, or set WORLD_SIZE .* writers='all', 'owner', 'prefix' or 'split'"
    with pytest.raises(InvalidSettings, match=said):
        asynctrack.init("p", id="r", dir=runs, backends=["jsonl", asynctrack.CSV(writers="mean")], **given)
    assert not (runs / "p").exists()


def test_means_that_are_refused_name_what_the_backend_can_do_instead(runs: Path) -> None:
    with pytest.raises(InvalidSettings, match=r"or choose writers='all', 'owner' or 'prefix'$"):
        asynctrack.init("p", id="r", dir=runs, writer="first", backends=[asynctrack.SQL(writers="mean")])


def test_finish_that_waits_for_all_has_the_mean_of_a_rank_that_comes_late(own_host: Path, runs: Path) -> None:
    given = {"id": "job", "dir": runs, "expected": 2, "backends": ["jsonl", asynctrack.CSV(writers="mean")]}
    with asynctrack.init("p", join=True, writer="first", **given) as run:
        run.log({"loss": 1.0}, step=0)
        late = start(LATE, run.path)
        run.finish(wait="all")
    assert outcome(late) is None
    (row,) = read_records(run.path / "csv" / "metrics.csv")
    assert row.data["loss"] == 2.0


@pytest.mark.system
def test_finish_that_waits_for_all_says_how_many_have_come(
    own_host: Path, runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = asynctrack.init("p", dir=runs, expected=3, finish_timeout_s=2)
    run.log({"loss": 1.0})
    run.finish(wait="all")
    (said,) = (record.getMessage() for record in caplog.records)
    assert "finish(wait='all') waits no longer: 1 of 3 expected writers have come" in said


# Opens the run or joins it, logs, ends its part, and says what was warned of.
RANK_OF_TWO = """
import json, logging, sys
import asynctrack

said = []
handler = logging.Handler()
handler.emit = lambda record: said.append(record.getMessage())
logging.getLogger("asynctrack").addHandler(handler)
run = asynctrack.init("p", id="job", dir=sys.argv[1], join=True, backends=[asynctrack.CSV(writers="mean")])
for step in range(3):
    run.log({"loss": float(step)}, step=step)
run.finish()
print(json.dumps([text for text in said if "too late" in text]))
"""


@pytest.mark.system
def test_finish_says_how_many_records_of_a_late_rank_0_the_means_lack(own_host: Path, runs: Path) -> None:
    said = [run_child(RANK_OF_TWO, runs, RANK=rank, WORLD_SIZE="2") for rank in ("1", "0")]
    assert said[0] == []
    (told,) = said[1]
    assert "3 records came too late for their step in csv (writers='mean')" in told
    assert "run.finish(wait='all') on all ranks" in told


@pytest.mark.system
def test_each_step_is_one_row_whatever_is_killed(
    ranks: list[subprocess.Popen[str]], own_host: Path, runs: Path
) -> None:
    run = runs / "p" / "job"
    for child in ranks:
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
    for child in ranks:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    table = run / "csv" / "metrics.csv"
    wait_until(lambda: table.exists() and len(table.read_bytes().splitlines()) > 20, "some rows are there")
    kill_workers(own_host)
    assert [child.wait(2 * DEADLINE_S) for child in ranks] == [0, 0, -signal.SIGKILL]
    wait_until(lambda: ended(run), "the run has ended")
    wait_until(lambda: len(table.read_bytes().splitlines()) == STEPS + 1, "all rows are there")
    means = {record.step: record.data["loss"] for record in read_records(table)}
    others = {record.step: record.data for record in read_records(run / "csv" / "loss.csv")}
    assert list(means) == list(others) == list(range(STEPS))
    for step in range(STEPS):
        there = SIZE if step < KILLED_AT else SIZE - 1
        assert means[step] == step + 5.0 * (there - 1)
        assert others[step] == {"loss/min": step, "loss/max": step + 10.0 * (there - 1), "loss/ranks": there}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for rank in range(SIZE):
        logged = [line["_step"] for line in lines if line["_writer"] == f"rank{rank}"]
        assert logged == list(range(KILLED_AT if rank == 2 else STEPS))
    stats = asynctrack.open_run(run).manifest()
    assert stats.status == "finished"
