"""How long does it take to list and compare many runs: `ls`, `runs().to_pandas()` and `query`, the first and the second time?

Of 100, 1,000 and 10,000 runs that have ended, each with fifty records of three metrics. Each call is a process of its own, with its start and imports. The
first time nothing of the runs is in the user's cache; then all of it; then ten runs have changed. The runs are in the page cache, as far as it holds them.

Takes five minutes, and 200 MB in TMPDIR. Needs the extras `pandas` and `query`. Wants two free cores.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import asynctrack
from asynctrack.journal.manifest import Manifest, save
from asynctrack.testing import JournaledRun
from bench.harness import Bar, Cell, Report, Spread, Table, bar, main, say, spread

COUNTS: Final = (100, 1_000, 10_000)
RECORDS: Final = 50
CHANGED: Final = 10
ROUNDS: Final = 3
FIRST_S: Final = 1_760_000_000
# What was changed less than two seconds ago is not kept.
AGE_S: Final = 60

_FRAME: Final = "import asynctrack, sys; assert len(asynctrack.runs(sys.argv[1]).to_pandas())"
_SQL: Final = (
    "SELECT key, count(*), min(min) FROM metric_stats JOIN runs USING (run) WHERE config.lr::DOUBLE > 0 GROUP BY key"
)
SUBJECTS: Final[dict[str, tuple[str, ...]]] = {
    "ls": ("-m", "asynctrack", "ls"),
    "runs().to_pandas()": ("-c", _FRAME),
    "query": ("-m", "asynctrack", "query", _SQL, "--dir"),
}
LIMITS_S: Final = {"second": 1.0, "ten changed": 3.0}


def measure(quick: bool) -> Report:
    counts, rounds = (COUNTS[:1], 1) if quick else (COUNTS, ROUNDS)
    found: dict[tuple[str, int, str], list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="asynctrack-bench-") as folder:
        for count in counts:
            say(f"making {count:,} runs")
            runs = make_runs(Path(folder, f"runs{count}"), count)
            for number in range(rounds):
                for what, words in SUBJECTS.items():
                    say(f"round {number + 1} of {rounds}: {what}, {count:,} runs")
                    for when, seconds in _times(words, runs, Path(folder, "cache")).items():
                        found.setdefault((what, count, when), []).append(seconds)
    return Report([_table(found)], _bars(found, counts[-1]), NOTES)


NOTES: Final = [
    f"each of the runs has {RECORDS} records of three metrics, a config of four values, and has ended.",
    "seconds are those of a process, from its start to its end; `ls` prints its table to a pipe.",
    f"{CHANGED} runs changed: their run.json was replaced since the second time.",
]


def make_runs(directory: Path, count: int) -> Path:
    """Make runs of which each is a copy of one, but for its config and its times."""
    first = directory / "bench" / "run00000"
    with JournaledRun(first, config={"lr": 0.1, "model": {"depth": 3, "width": 128}}) as run:
        for step in range(RECORDS):
            run.log({"loss": 1 / (step + 1), "accuracy": step / RECORDS, "val/loss": 2 / (step + 1)}, step)
        run.end()
    manifest = asynctrack.open_run(first).manifest()
    for number in range(count):
        path = directory / "bench" / f"run{number:05}"
        if path != first:
            shutil.copytree(first / "journal", path / "journal")
        _describe(path, manifest, number)
        _make_older(path)
    return directory


def _describe(path: Path, manifest: Manifest, number: int) -> None:
    manifest.id = manifest.name = path.name
    manifest.config.update(lr=0.1 / (number + 1), seed=number)
    manifest.created_at, manifest.ended_at = (_iso(FIRST_S + 60 * number), _iso(FIRST_S + 60 * number + 50))
    save(path, manifest)


def _make_older(path: Path) -> None:
    then = time.time() - AGE_S
    for each in (*path.rglob("*"), path):
        os.utime(each, (then, then))


def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _times(words: tuple[str, ...], runs: Path, cache: Path) -> dict[str, float]:
    """Return the seconds of a call the first time, the second, and after some runs have changed."""
    shutil.rmtree(cache, ignore_errors=True)
    times = {"first": _seconds(words, runs, cache), "second": _seconds(words, runs, cache)}
    for path in sorted((runs / "bench").iterdir())[:CHANGED]:
        manifest = asynctrack.open_run(path).manifest()
        manifest.config["seed"] += 1
        save(path, manifest)
    return {**times, "ten changed": _seconds(words, runs, cache)}


def _seconds(words: tuple[str, ...], runs: Path, cache: Path) -> float:
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, *words, str(runs)],
        stdout=subprocess.DEVNULL,
        check=True,
        env={**os.environ, "XDG_CACHE_HOME": str(cache)},
        timeout=600,
    )
    return time.perf_counter() - started


def _table(found: dict[tuple[str, int, str], list[float]]) -> Table:
    rows: list[dict[str, Cell | Spread]] = [
        {
            "runs": count,
            "call": what,
            **{f"{when} s": spread(found[what, count, when]) for when in ("first", *LIMITS_S)},
        }
        for what, count in dict.fromkeys((what, count) for what, count, _ in found)
    ]
    return Table("seconds of a process", rows)


def _bars(found: dict[tuple[str, int, str], list[float]], count: int) -> list[Bar]:
    if count != COUNTS[-1]:
        return []
    return [
        bar(f"ls of {count:,} runs, {when}", limit_s, spread(found["ls", count, when]).median, "s")
        for when, limit_s in LIMITS_S.items()
    ]


if __name__ == "__main__":
    main(__doc__, measure)
