"""A whole system from one seed: what was accepted is there, once and in order, whatever happened; and the oracle that says so can be believed.

`python -m tests.simulation --seeds 500` runs more seeds, and `--seed N` one of them again.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from simulation.actions import ACTIONS
from simulation.backends import Flapping
from simulation.caller import data_of
from simulation.ledger import Ledger, read_ledger
from simulation.one import Outcome
from simulation.oracle import Run, Verdict, judge
from simulation.plan import Parts, RunPlan, make_plan
from simulation.seeds import failure, parts_here, run_seed
from support import own_shared_memory, wait_until

import asynctrack
from asynctrack.journal.reader import Reader
from asynctrack.journal.writer import Writer
from asynctrack.queue.layout import RECORD, frame_size

# The others up to 9 are run by `.ci/run`.
SEEDS = (0, 1, 2)


@pytest.mark.system
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_happens_what_was_accepted_comes_home_once_and_in_order(seed: int, tmp_path: Path) -> None:
    parts = parts_here()
    outcome, directory = run_seed(seed, parts, tmp_path)
    assert not outcome.problems, failure(outcome, directory, parts)


def test_seed_has_one_plan() -> None:
    assert [str(make_plan(seed)) for seed in range(50)] == [str(make_plan(seed)) for seed in range(50)]
    assert len({str(make_plan(seed)) for seed in range(50)}) == 50


@pytest.mark.system
def test_each_action_is_in_some_plan_and_none_needs_what_is_not_there() -> None:
    everything = [make_plan(seed) for seed in range(300)]
    assert {step.action for plan in everything for step in plan.steps} == set(ACTIONS)
    poor = [make_plan(seed, Parts(mounts=False, hangs=False)) for seed in range(300)]
    assert {run.disk for plan in poor for run in plan.runs} == {"good"}
    assert not {"FillDisk", "IllDisk", "FillMemory"} & {step.action for plan in poor for step in plan.steps}


def test_failing_seed_says_what_was_wrong_its_plan_and_how_to_run_it_again(tmp_path: Path) -> None:
    outcome = Outcome(seed=17, problems=["a record is lost"], plan=str(make_plan(17)))
    said = failure(outcome, tmp_path, Parts(hangs=False))
    assert "- a record is lost" in said
    assert str(make_plan(17)) in said
    assert str(tmp_path) in said
    assert said.endswith("python -m tests.simulation --seed 17 --without hangs")


@pytest.mark.slow
def test_simulation_that_is_stopped_tells_its_totals(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.simulation", "--seeds", "50", "--at-once", "1", "--keep", str(tmp_path)]
    process = subprocess.Popen(
        command, cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: any(tmp_path.iterdir()) or process.poll() is not None, "the first seed runs")
    process.terminate()
    out, err = process.communicate()
    assert out.splitlines()[-1].startswith("stopped after 1 of 50 seeds, "), out + err
    assert process.returncode == 1


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two writers, thirty records; made once, since to begin it takes most of a test's time."""
    folder = tmp_path_factory.mktemp("recorded")
    for name in ("ledgers", "taken"):
        (folder / name).mkdir()
    own = Flapping(weather=str(folder / "weather"), file=str(folder / "taken" / "r0.own-worker"))
    backends = ["jsonl", "csv", asynctrack.SQL(url=f"sqlite:///{folder}/metrics.db"), "parquet", own]
    ledgers = [Ledger(folder / "ledgers", f"r0-s0-t{number}") for number in range(2)]
    with own_shared_memory(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        with asynctrack.init("p", id="r0", dir=folder / "runs", backends=backends) as run:
            for number in range(30):
                ledger = ledgers[number % 2]
                ledger.log(run.log, data_of(ledger.who, ledger.accepted, 0), None)
    return folder


class TestOracle:
    """On a run that is as it should be the oracle finds nothing; on each that was doctored it finds what was done to it."""

    BACKENDS = ("jsonl", "csv", "sql", "parquet", "own-worker")

    @pytest.fixture
    def run(self, recorded: Path, tmp_path: Path) -> Run:
        """A copy of it."""
        folder = shutil.copytree(recorded, tmp_path / "copy")
        plan = RunPlan(
            id="r0", disk="good", worker="process", when_full="drop_newest", queue_bytes=None, backends=[*self.BACKENDS]
        )
        accounts = [read_ledger(path) for path in sorted((folder / "ledgers").iterdir())]
        return Run(plan, folder / "runs" / "p" / "r0", accounts, folder / "taken", folder / "metrics.db")

    def problems(self, run: Run) -> str:
        verdict = Verdict()
        judge(run, verdict)
        return "\n".join(verdict.problems)

    @pytest.mark.system
    def test_it_finds_nothing_where_nothing_is_wrong(self, run: Run) -> None:
        verdict = Verdict()
        judge(run, verdict)
        assert verdict.problems == []
        assert (verdict.accepted, verdict.lost, verdict.twice, verdict.disordered) == (30, 0, 0, 0)

    @pytest.mark.parametrize(
        ("doctor", "found"),
        [
            (lambda records: records[:7] + records[8:], "journal lacks 1 of 15 accepted records of r0-s0-t1: 3"),
            (lambda records: records[:-2], "journal lacks 1 of 15 accepted records of r0-s0-t0: 14"),
            (
                lambda records: [*records[:8], records[7], *records[8:]],
                "journal has 1 records of r0-s0-t1 more than once",
            ),
            (lambda records: [*records, records[0]], "journal has 1 records of r0-s0-t0 more than once: 0"),
            (
                lambda records: [*records[:6], records[8], records[7], records[6], *records[9:]],
                "journal has r0-s0-t0 out of",
            ),
        ],
    )
    def test_it_finds_what_was_done_to_the_journal(self, run: Run, doctor: Callable, found: str) -> None:  # type: ignore[type-arg]
        rewrite(run.path / "journal", doctor)
        assert found in self.problems(run)

    @pytest.mark.parametrize("doctor", ["removed", "repeated", "swapped"])
    @pytest.mark.parametrize("file", ["metrics.jsonl", "csv/r0-s0-t1.csv", "own"])
    def test_it_finds_what_was_done_to_a_file(self, run: Run, file: str, doctor: str) -> None:
        path = run.taken / "r0.own-worker" if file == "own" else run.path / file
        lines = path.read_bytes().splitlines(keepends=True)
        a, b = 6, 8
        if doctor == "removed":
            del lines[a]
        elif doctor == "repeated":
            lines.insert(b, lines[a])
        else:
            lines[a], lines[b] = lines[b], lines[a]
        path.write_bytes(b"".join(lines))
        told = self.problems(run)
        if file == "own" and doctor == "repeated":
            assert told == ""  # it may get the end of it again
        else:
            name = {"metrics.jsonl": "jsonl has", "own": "own-worker got"}.get(file, "csv has")
            assert name in told

    def test_it_finds_a_row_that_was_removed_from_a_database(self, run: Run) -> None:
        with sqlite3.connect(run.database) as database:
            assert database.execute("DELETE FROM metrics WHERE key = 'n' AND value = 7").rowcount == 2
        database.close()
        assert "sql has 14 records of r0-s0-t0, the journal 15" in self.problems(run)

    def test_it_finds_a_file_that_is_gone(self, run: Run) -> None:
        shutil.rmtree(run.path / "parquet")
        assert "parquet has 0 records" in self.problems(run)

    def test_it_finds_statistics_that_say_something_else_than_the_writers(self, run: Run) -> None:
        account = run.accounts[0]._replace(full=1)
        assert "the writers say 1, and 0 perhaps" in self.problems(run._replace(accounts=[account, run.accounts[1]]))

    def test_it_finds_records_that_nobody_accepted(self, run: Run) -> None:
        fewer = [run.accounts[0]._replace(accepted=14), run.accounts[1]]
        assert "that were not accepted: 14" in self.problems(run._replace(accounts=fewer))
        in_flight = [fewer[0]._replace(in_flight=True), run.accounts[1]]
        assert self.problems(run._replace(accounts=in_flight)) == ""
        assert "r0-s0-t1, which is not one of its writers" in self.problems(run._replace(accounts=run.accounts[:1]))

    def test_it_finds_a_run_that_is_gone(self, run: Run) -> None:
        shutil.rmtree(run.path)
        assert "cannot be read" in self.problems(run)


def rewrite(journal: Path, doctor: Callable[[list[bytes]], list[bytes]]) -> None:
    """Write a journal again, with right checksums, after `doctor` has had the frames of its records; all in one batch."""
    reader = Reader(journal)
    batches = list(reader)
    reader.close()
    records = [
        bytes(batch.data[frame.end - frame_size(len(frame.payload)) : frame.end])
        for batch in batches
        for frame in batch.frames()
        if frame.kind == RECORD
    ]
    frames = b"".join(doctor(records))
    shutil.rmtree(journal)
    first = batches[0].header
    writer = Writer(journal)
    writer.append(first.ring, first.start, first.start + len(frames), first.record_offset, frames)
    writer.close()
