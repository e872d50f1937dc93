"""Oracle: whether everything that the ranks logged is in the merged run, once and in order, and byte for byte as the hosts have it. Runs in the simulation.

What it takes for granted is in the ranks' ledgers, which no part of asynctrack has written. A record whose `log()` had not returned when its process was killed may
be there or not.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from merged_rings import assert_merged
from simulation.ledger import Account

import asynctrack
from asynctrack.cli.journal_check import JournalCheck
from asynctrack.journal import manifest as manifests
from asynctrack.journal.manifest import Manifest
from asynctrack.reading.stats import StatsCollector


class HostPart(NamedTuple):
    """What is known of a host.

    Attributes:
        name: of the host.
        path: of its part of the run.
        accounts: of its ranks.
        killed: of them.
        is_lost: whether it has died, and never came back: what it had not journaled is gone.
    """

    name: str
    path: Path
    accounts: list[Account]
    killed: set[str]
    is_lost: bool


class Verdict:
    """What was found.

    Attributes:
        problems: in words.
        accepted, merged, rings: of all ranks.
        merged_of: the records of each rank in the merged run.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.accepted = self.merged = self.rings = 0
        self.merged_of: dict[str, int] = {}


def judge(run: Path, hosts: Sequence[HostPart], verdict: Verdict) -> None:
    """Look at the merged run and at the parts of it."""
    verdict.accepted = sum(account.accepted for host in hosts for account in host.accounts)
    try:
        verdict.problems += _check_records(run, hosts, verdict)
        verdict.problems += _check_rings(run, hosts)
        verdict.problems += _check_books(run, hosts, verdict)
        verdict.problems += _check_names(manifests.load(run), hosts)
        for path in (run, *(host.path for host in hosts)):
            verdict.problems += [f"verify of {path.name}: {problem}" for problem in JournalCheck(path).take().problems]
    except (asynctrack.AsynctrackError, OSError) as error:
        verdict.problems.append(f"cannot be read: {error!r}")


def _check_records(run: Path, hosts: Sequence[HostPart], verdict: Verdict) -> Iterator[str]:
    """Each rank's records are there from the first to the last that `log()` took, under the numbers and steps that they had."""
    reader = asynctrack.open_run(run)
    found: dict[str, list[int]] = {}
    rings: dict[str, set[int]] = {}
    for record in reader.records():
        who = str(record.data["who"])
        numbers = found.setdefault(who, [])
        if not record.number == record.step == record.data["n"] == len(numbers):
            yield f"{who}: expected record {len(numbers)}, found number {record.number}, step {record.step}, n {record.data['n']}"
            return
        numbers.append(record.number)
        rings.setdefault(who, set()).add(record.ring)
    for damage in reader.damage:
        yield f"the merged journal is damaged: {damage}"
    verdict.merged_of = {who: len(numbers) for who, numbers in found.items()}
    verdict.merged, verdict.rings = sum(map(len, found.values())), len(rings)
    for host in hosts:
        for account in host.accounts:
            count, most = len(found.pop(account.who, ())), account.accepted + account.in_flight
            if not (0 if host.is_lost else account.accepted) <= count <= most:
                yield f"{account.who}: {account.accepted} accepted, {count} merged, {int(account.in_flight)} in flight"
    for who in found:
        yield f"there are records of {who}, which is no rank"
    for who, its_rings in rings.items():
        if len(its_rings) != 1:
            yield f"{who} has {len(its_rings)} rings"


def _check_rings(run: Path, hosts: Sequence[HostPart]) -> Iterator[str]:
    try:
        assert_merged(
            run, [host.path for host in hosts if not host.is_lost], [host.path for host in hosts if host.is_lost]
        )
    except AssertionError as error:
        yield f"the rings of the hosts and of the merged run differ: {error!s:.500}"


def _check_books(run: Path, hosts: Sequence[HostPart], verdict: Verdict) -> Iterator[str]:
    """What hosts have journaled is merged, and delivered; who brings it to a server knows that."""
    parts = {host.name: _stats(host.path) for host in hosts}
    lost = {host.name for host in hosts if host.is_lost}
    journaled = sum(part.journaled for name, part in parts.items() if name not in lost)
    for account in (account for host in hosts if host.is_lost for account in host.accounts):
        journaled += verdict.merged_of.get(account.who, 0)
    merged = _stats(run)
    if merged.journaled != journaled or merged.queued:
        yield f"the hosts have journaled {journaled}, merged are {merged.journaled}, queued {merged.queued}"
    for where, stats in {"the merged run": merged, **parts}.items():
        for name, backend in stats.backends.items():
            if stats.journaled != backend.delivered + backend.behind or (backend.behind and where not in lost):
                yield f"{where} has journaled {stats.journaled}, and {name} has: {backend}"


def _check_names(found: Manifest, hosts: Sequence[HostPart]) -> Iterator[str]:
    """Every process that was killed and every host that was lost is named, and nobody else."""
    ends = {(one.host, one.pid): one.status for one in found.writers}
    for host in hosts:
        for account in host.accounts:
            wanted = "crashed" if account.who in host.killed else "finished"
            end = ends.pop((host.name, account.pid), "nothing")
            # What a lost host had not sent of them nobody knows.
            if end != wanted and not (host.is_lost and end in ("running", "nothing")):
                yield f"{account.who} of {host.name} has {wanted}, and run.json says {end}"
    if ends:
        yield f"run.json names writers that were not there: {ends}"
    for one in found.hosts:
        host = next(known for known in hosts if known.name == one.host)
        if (one.status == "lost") != host.is_lost:
            yield f"{one.host} is {one.status}"
    # A rank that is started again takes the place of the one before.
    *_, (host, owner) = ((host, one.who) for host in hosts for one in host.accounts if one.who.startswith("rank0-"))
    wanted = "crashed" if owner in host.killed else "finished"
    if found.status != wanted:
        yield f"the run has {wanted}, and run.json says {found.status}"


def _stats(path: Path) -> asynctrack.RunStats:
    backends = manifests.load(path).backends
    return StatsCollector(path).collect([], [], backends)


def check_delivered(run: Path, database: Path, records: int) -> Iterator[str]:
    """Look at what was delivered of a merged run: JSON Lines, and rows of SQL."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_bytes().splitlines()]
    if len(lines) != records:
        yield f"{records} records are merged, and there are {len(lines)} JSON Lines"
    from asynctrack.backends.sql import read_records

    rows = sum(1 for _ in read_records(f"sqlite:///{database}", run.name))
    if rows != records:
        yield f"{records} records are merged, and there are {rows} in SQL"


def deliver(command: list[str], environment: dict[str, str], run: Path, database: Path) -> Iterator[str]:
    """Deliver a merged run that has ended."""
    for more in ([], ["--to", "sql", f"url=sqlite:///{database}"]):
        done = subprocess.run(
            [*command, "sync", str(run), *more], env=environment, capture_output=True, text=True, timeout=120
        )
        if done.returncode:
            yield f"sync of the merged run {more} said {done.returncode}: {(done.stdout + done.stderr)[-1500:]}"
