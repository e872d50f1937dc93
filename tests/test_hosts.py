"""One run on several hosts, whatever happens to them: all that was accepted is in the merged run, once, in order and byte for byte; and the oracle that says so.

`python -m tests.simulated_hosts --seeds 20` runs more seeds, of 64 ranks on 8 hosts, and `--seed N` one of them again.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from nats_server import nats_binary
from simulated_hosts.faults import FAULTS
from simulated_hosts.oracle import HostPart, Verdict, check_delivered, judge
from simulated_hosts.plan import CARRIERS, Parts, make_plan
from simulated_hosts.seeds import carrier_of_this_commit, failure, parts_here, run_seed
from simulation.ledger import Account

import asynctrack
from asynctrack.journal.layout import NOTES_RING
from asynctrack.journal.reader import Reader
from asynctrack.journal.writer import Writer
from asynctrack.merging.collector import FolderCollector
from asynctrack.merging.merged_manifest import MergedManifest
from asynctrack.testing import JournaledRun, deliver

SEEDS = (0, 1)


def assert_well(seed: int, carrier: str, size: str, keep: Path) -> None:
    if carrier == "nats":
        nats_binary()  # where it is not installed this skips
    parts = parts_here()
    outcome, directory = run_seed(seed, carrier, size, parts, keep)
    assert not outcome.problems, failure(outcome, carrier, size, directory, parts)


@pytest.mark.system
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("carrier", CARRIERS)
def test_eight_ranks_on_two_hosts_are_one_run_whatever_happens(carrier: str, seed: int, tmp_path: Path) -> None:
    assert_well(seed, carrier, "small", tmp_path)


@pytest.mark.slow  # it takes all there is of the machine: `.ci/simulation` runs it by itself
@pytest.mark.timeout(400)
def test_sixty_four_ranks_on_eight_hosts_are_one_run_whatever_happens(tmp_path: Path) -> None:
    assert_well(0, carrier_of_this_commit(), "large", tmp_path)


@pytest.mark.parametrize("carrier", CARRIERS)
def test_seed_has_one_plan_for_each_carrier(carrier: str) -> None:
    assert [make_plan(seed, carrier) for seed in range(50)] == [make_plan(seed, carrier) for seed in range(50)]
    assert len({str(make_plan(seed, carrier)) for seed in range(50)}) == 50


def test_each_fault_is_in_some_plan_and_none_needs_what_is_not_there() -> None:
    everything = [make_plan(seed, carrier) for seed in range(100) for carrier in CARRIERS]
    assert {step.fault for plan in everything for step in plan.steps} == set(FAULTS)
    poor = [
        make_plan(seed, carrier, parts=Parts(mounts=False, clocks=False)) for seed in range(100) for carrier in CARRIERS
    ]
    assert not {"FullDisk", "ClockSetBack"} & {step.fault for plan in poor for step in plan.steps}


class Recorded(NamedTuple):
    """Two hosts that have ended, and their merged run."""

    run: Path
    hosts: list[HostPart]

    def problems(self) -> str:
        verdict = Verdict()
        judge(self.run, self.hosts, verdict)
        return "\n".join(verdict.problems)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    for rank in range(2):
        said = {"host": f"node-{rank}", "pid": 100 + rank, "writer": f"rank{rank}", "rank": rank, "joins": True}
        part = folder / "parts" / "p" / f"job@node-{rank}"
        with JournaledRun(part, environment=said, run_id="job") as run:
            for n in range(30):
                run.log({"who": f"rank{rank}-0", "n": n}, n)
                if n % 10 == 9:
                    run.journal()
            run.end_ring()
            run.end()
        with contextlib.closing(MergedManifest(part)) as manifest:  # what its worker would have written
            manifest.catch_up()
    with FolderCollector(folder / "parts", folder / "out") as collector:
        while not collector.has_ended:
            collector.turn()
    deliver(folder / "out" / "p" / "job", asynctrack.JSONLines(), name="jsonl")
    return folder


@pytest.mark.filterwarnings("ignore::asynctrack.errors.DamagedJournal")
class TestOracle:
    """On a run that is as it should be the oracle finds nothing; on each that was doctored it finds what was done to it."""

    @pytest.fixture
    def found(self, recorded: Path, tmp_path: Path) -> Recorded:
        """A copy of it."""
        folder = shutil.copytree(recorded, tmp_path / "copy")
        accounts = [Account(f"rank{rank}-0", 100 + rank, 30, 30, 0, 0, False, 0.0, True) for rank in range(2)]
        hosts = [
            HostPart(f"node-{rank}", folder / "parts" / "p" / f"job@node-{rank}", [accounts[rank]], set(), False)
            for rank in range(2)
        ]
        return Recorded(folder / "out" / "p" / "job", hosts)

    def test_it_finds_nothing_where_nothing_is_wrong(self, found: Recorded) -> None:
        verdict = Verdict()
        judge(found.run, found.hosts, verdict)
        assert (verdict.problems, verdict.accepted, verdict.merged, verdict.rings) == ([], 60, 60, 2)

    def test_it_finds_records_that_are_lost_and_records_that_nobody_accepted(self, found: Recorded) -> None:
        for accepted, in_flight, wrong in ((31, False, True), (29, False, True), (29, True, False)):
            account = found.hosts[1].accounts[0]._replace(accepted=accepted, in_flight=in_flight)
            told = found._replace(hosts=[found.hosts[0], found.hosts[1]._replace(accounts=[account])]).problems()
            assert (f"rank1-0: {accepted} accepted, 30 merged" in told) == wrong

    @pytest.mark.parametrize(
        ("doctor", "told"),
        [
            (lambda batches: batches[:-1], "the hosts have journaled 60, merged are 50"),
            (lambda batches: [*batches[:-2], batches[-1]], "expected record"),
            (lambda batches: [*batches[:-2], batches[-1], batches[-2]], "expected record"),
        ],
    )
    def test_it_finds_what_was_done_to_the_merged_journal(
        self,
        found: Recorded,
        doctor: Callable,  # type: ignore[type-arg]
        told: str,
    ) -> None:
        _rewrite(found.run / "journal", doctor)
        problems = found.problems()
        assert told in problems
        assert "the rings of the hosts and of the merged run differ" in problems

    def test_it_finds_a_flipped_bit(self, found: Recorded) -> None:
        (segment,) = (found.run / "journal").iterdir()
        content = bytearray(segment.read_bytes())
        content[len(content) // 2] ^= 1
        segment.write_bytes(content)
        assert "verify of job" in found.problems()

    def test_it_finds_processes_and_hosts_that_are_not_named(self, found: Recorded) -> None:
        first, second = found.hosts
        killed = found._replace(hosts=[first._replace(killed={"rank0-0"}), second])
        assert "rank0-0 of node-0 has crashed, and run.json says finished" in killed.problems()
        assert "the run has crashed, and run.json says finished" in killed.problems()
        assert "node-1 is finished" in found._replace(hosts=[first, second._replace(is_lost=True)]).problems()

    def test_it_finds_lines_that_are_missing(self, found: Recorded) -> None:
        lines = (found.run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
        (found.run / "metrics.jsonl").write_bytes(b"".join(lines[:-1]))
        deliver(found.run, asynctrack.SQL(url=f"sqlite:///{found.run}/metrics.db"), name="sql")
        told = [*check_delivered(found.run, found.run / "metrics.db", 60)]
        assert told == ["60 records are merged, and there are 59 JSON Lines"]


def _rewrite(journal: Path, doctor: Callable) -> None:  # type: ignore[type-arg]
    """Write a merged journal again, with right checksums, after `doctor` has had the batches of its records."""
    with contextlib.closing(Reader(journal)) as reader:
        batches = list(reader)
    shutil.rmtree(journal)
    writer = Writer(journal)
    records = [batch for batch in batches if batch.header.ring != NOTES_RING]
    for batch in [*[batch for batch in batches if batch.header.ring == NOTES_RING], *doctor(records)]:
        writer.append_as_they_were([(batch.header, batch.data, [])])
    writer.close()
