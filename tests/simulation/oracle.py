"""Oracle: whether everything that was accepted is there, once and in order, and the statistics balance. Runs in the simulation.

What it takes for granted is in the ledgers, which no part of asynctrack has written. It asks for what the README promises, and for no more:

- a record whose `log()` had not returned when its process was killed may be there or not;
- a file of ours has each record once; a backend that does not know what it has may get the end of it again;
- a backend in the process that logs waits for the next session where that process was killed.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import asynctrack
from asynctrack.cli.journal_check import JournalCheck
from asynctrack.reading import catalog
from asynctrack.reading.reader import RunReader
from asynctrack.reading.stats import RunStats, StatsCollector
from simulation.ledger import Account
from simulation.plan import RunPlan

Row = tuple[str, int]  # a writer, and its number


class Run(NamedTuple):
    """A run as it should be: its plan, its directory, and what its writers' ledgers say."""

    plan: RunPlan
    path: Path
    accounts: list[Account]
    taken: Path
    database: Path


class Verdict:
    """What was found.

    Attributes:
        problems: in words.
        accepted, lost, twice, disordered: records, in the journals.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.accepted = self.lost = self.twice = self.disordered = 0


def judge(run: Run, verdict: Verdict) -> None:
    """Look at all that there is of a run."""
    say = lambda text: verdict.problems.append(f"{run.plan.id}: {text}")  # noqa: E731
    verdict.accepted += sum(account.accepted for account in run.accounts)
    if not catalog.is_run(run.path) and not any(account.accepted for account in run.accounts):
        return  # its callers were killed before they could say anything, or it was removed
    try:
        reader = RunReader(run.path)
        journal = [row for record in reader.records() for row in rows_of(record.data)]
    except (asynctrack.AsynctrackError, OSError) as error:
        verdict.lost += sum(account.accepted for account in run.accounts)
        say(f"cannot be read: {error!r}")
        return
    for damage in reader.damage:
        say(f"the journal is damaged: {damage}")
    for count, (name, text) in _compare("journal", journal, run.accounts):
        setattr(verdict, name, getattr(verdict, name) + count)
        say(text)
    stats = _stats_of(run.path)
    for text in _check_stats(stats, len(journal), run.accounts):
        say(text)
    for text in _check_files(run, journal, stats):
        say(text)
    for problem in JournalCheck(run.path).take().problems:
        say(f"verify finds a problem: {problem}")


def rows_of(data: dict[str, Any]) -> Iterator[Row]:
    """The writer and the number in a record; nested and flat."""
    for key, value in data.items():
        who, _, name = key.partition("/")
        if name == "n":
            yield who, int(value)


def _compare(where: str, found: Iterable[Row], accounts: list[Account]) -> Iterator[tuple[int, tuple[str, str]]]:
    """What is wrong with the rows in one place: how many, of what kind, in words."""
    by_writer: dict[str, list[int]] = {account.who: [] for account in accounts}
    for who, n in found:
        by_writer.setdefault(who, []).append(n)
    known = {account.who: account for account in accounts}
    for who, numbers in by_writer.items():
        if who not in known:
            yield (
                len(numbers),
                ("twice", f"{where} has {len(numbers)} records of {who}, which is not one of its writers"),
            )
            continue
        account = known[who]
        have = set(numbers)
        lost = [n for n in range(account.accepted) if n not in have]
        if lost:
            yield (
                len(lost),
                ("lost", f"{where} lacks {len(lost)} of {account.accepted} accepted records of {who}: {_short(lost)}"),
            )
        if len(numbers) != len(have):
            again = sorted(n for n in have if numbers.count(n) > 1)
            yield len(again), ("twice", f"{where} has {len(again)} records of {who} more than once: {_short(again)}")
        if numbers != sorted(numbers):
            bad = [b for a, b in itertools.pairwise(numbers) if b < a]
            yield len(bad), ("disordered", f"{where} has {who} out of order: {_short(bad)} come too late")
        over = [n for n in have if n >= account.accepted + account.in_flight]
        if over:
            yield len(over), ("twice", f"{where} has records of {who} that were not accepted: {_short(sorted(over))}")


def _stats_of(path: Path) -> RunStats:
    backend_stats = StatsCollector(path)
    try:
        return backend_stats.collect([], [], RunReader(path).manifest().backends)
    finally:
        backend_stats.close()


def _check_stats(stats: RunStats, journaled: int, accounts: list[Account]) -> Iterator[str]:
    if not stats.accepted == stats.journaled == journaled or stats.queued:
        yield f"the statistics say accepted {stats.accepted}, journaled {stats.journaled}, queued {stats.queued}; the journal has {journaled}"
    # A forked child for whose queue there never was room has no place to count in: it says what it drops, and no more.
    perhaps = sum(account.in_flight + (0 if account.accepted else account.full) for account in accounts)
    surely = sum(account.full for account in accounts if account.accepted)
    if not surely <= stats.dropped.get("full", 0) <= surely + perhaps:
        yield f"the statistics say that {stats.dropped} were dropped; the writers say {surely}, and {perhaps} perhaps"
    for name, backend_stats in stats.backends.items():
        gone = backend_stats.delivered + backend_stats.rejected + sum(backend_stats.skipped.values())
        if stats.journaled != gone + backend_stats.behind:
            yield f"the statistics of {name} do not balance: {backend_stats}"
        if backend_stats.behind and "caller" not in name.lower():  # those wait for the next session
            yield f"{name} is {backend_stats.behind} records behind after sync: {backend_stats}"


def _check_files(run: Run, journal: list[Row], stats: RunStats) -> Iterator[str]:
    for name in run.plan.backends:
        read: Callable[[Run], Iterable[Row]] | None = _READERS.get(name)
        try:
            if read is not None:
                yield from _differences(name, list(read(run)), journal)
            else:
                complete = not any(
                    backend_stats.behind for kind, backend_stats in stats.backends.items() if _is(kind, name)
                )
                yield from _check_own(name, run, journal, complete)
        except (OSError, ValueError, KeyError, asynctrack.AsynctrackError) as error:
            if journal:
                yield f"{name} cannot be read: {error!r}"


def _is(kind: str, name: str) -> bool:
    return kind.lower() == {
        "own-worker": "flapping",
        "own-process": "flappinginprocess",
        "own-caller": "flappingincaller",
    }.get(name)


def _differences(name: str, found: list[Row], journal: list[Row]) -> Iterator[str]:
    """A file of ours has exactly what the journal has, in its order per writer."""
    there, here = _by_writer(found), _by_writer(journal)
    for who in sorted(there.keys() | here.keys()):
        if there.get(who, []) != here.get(who, []):
            has, wanted = there.get(who, []), here.get(who, [])
            missing, more = sorted(set(wanted) - set(has)), len(has) - len(set(has))
            yield f"{name} has {len(has)} records of {who}, the journal {len(wanted)}: {more} of them twice; missing: {_short(missing)}"


def _check_own(name: str, run: Run, journal: list[Row], complete: bool) -> Iterator[str]:
    """A backend of our own gets each record in order, and after a failure perhaps the end of it again."""
    found = _by_writer(_taken(run.taken / f"{run.plan.id}.{name}"))
    for who, wanted in _by_writer(journal).items():
        seen = -1
        for n in found.get(who, []):
            if n > seen + 1:
                yield f"{name} got {n} of {who} before {seen + 1}"
                break
            seen = max(seen, n)
        else:
            if complete and seen != wanted[-1]:
                yield f"{name} got {who} up to {seen}, the journal goes to {wanted[-1]}"


def _by_writer(rows: Iterable[Row]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for who, n in rows:
        found.setdefault(who, []).append(n)
    return found


def _taken(path: Path) -> Iterator[Row]:
    if path.exists():
        for line in path.read_bytes().splitlines():
            try:
                data = json.loads(line)
            except ValueError:
                continue  # blank, or torn by a kill: it came again
            yield from rows_of(data)


def _jsonl(run: Run) -> Iterator[Row]:
    for line in (run.path / "metrics.jsonl").read_bytes().splitlines():
        yield from rows_of(json.loads(line))


def _csv(run: Run) -> Iterator[Row]:
    for path in sorted((run.path / "csv").glob("*.csv")):
        with path.open(newline="") as file:
            for row in csv.DictReader(file, strict=True):
                yield path.stem, int(row["n"])


def _sql(run: Run) -> Iterator[Row]:
    from asynctrack.backends.sql import read_records

    for record in read_records(f"sqlite:///{run.database}", run.plan.id):
        yield from rows_of(record.data)


def _parquet(run: Run) -> Iterator[Row]:
    import pyarrow.parquet as pq

    for path in sorted((run.path / "parquet").glob("*.parquet")):
        for row in pq.read_table(path).to_pylist():
            yield from rows_of({key: value for key, value in row.items() if value is not None})


_READERS: dict[str, Callable[[Run], Iterable[Row]]] = {"jsonl": _jsonl, "csv": _csv, "sql": _sql, "parquet": _parquet}


def _short(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:8])) + (", ..." if len(numbers) > 8 else "")
