"""How long do `import asynctrack`, `init()` and `finish()` take, for the script that waits for them?

The import in fresh interpreters, against empty ones in alternation. The first run of a process, whose worker has to be
started; the second, the hundredth, and the hundredth while all others are open. `finish()` with nothing logged, with a
thousand and with a hundred thousand records just logged. How soon the worker has the first record. With the worker as a process
and as threads, and with mode="disabled"; every sample of a first run is a process of its own, the kinds in turn.

Takes about five minutes and 100 MB in TMPDIR. Wants both: a machine with two free cores, and nobody else on it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench.harness import Bar, Report, Spread, Table, bar, main, percentile, say, spread
from bench.life import FEW, MANY

KINDS: Final = {
    "process": {"worker": "process"},
    "thread": {"worker": "thread"},
    "disabled": {"mode": "disabled"},
}
PLANS: Final = ("one_run", "many_runs")
IMPORT_LIMIT_MS: Final = 60
INIT_LIMIT_MS: Final = 25
EMPTY, IMPORT = "python -c 'pass'", "python -c 'import asynctrack'"
STATEMENT: Final = "import asynctrack"
_LIFE: Final = Path(__file__).with_name("life.py")
# A child that takes longer hangs; the longest takes 10 s on a busy machine.
_CHILD_LIMIT_S: Final = 120

Steps = dict[str, list[float]]


def measure(quick: bool) -> Report:
    rounds, pairs = (2, 5) if quick else (12, 12)
    interpreters: Steps = {EMPTY: [], IMPORT: [], "the difference, pair by pair": []}
    lives: dict[str, Steps] = {kind: {} for kind in KINDS}
    lost = dict.fromkeys(KINDS, 0)
    _interpreters(interpreters, 1)  # writes the byte code
    for steps in interpreters.values():
        steps.clear()
    for number in range(1, rounds + 1):
        say(f"round {number} of {rounds}")
        _interpreters(interpreters, pairs)
        for plan in PLANS:
            for kind in KINDS:
                lost[kind] += _live(plan, kind, lives[kind])
    tables = [
        Table(
            f"Fresh interpreters, {rounds * pairs} of each in turn, ms",
            [_row("", *each) for each in interpreters.items()],
        ),
        *(
            Table(f"{_title(kind)}, ms", [_row("step", name, times) for name, times in _in_order(lives[kind]).items()])
            for kind in KINDS
        ),
        Table(f"Dropped of {FEW:,} and {MANY:,} records in tight loops", [{**lost}]),
    ]
    return Report(tables, _bars(interpreters, lives), NOTES)


NOTES: Final = [
    "median [least..greatest] of all samples; p90; n: how many. Steps of a first run have a process of their own for each sample.",
    "the step 'import asynctrack' is the statement alone; what it adds to an empty interpreter includes what the interpreter takes down in the end.",
    "hundredth: after 99 that have finished; 'all of them open': 100 rings in one host directory.",
    "worker: from the call of the first `init`. 'has the run': its drain has taken the ring; `init` waits for that, at most 12 ms. 'journaled': the record "
    "that is logged as soon as `init` returns, without a flush. 'delivered': after `flush('delivered')`, with the worker's imports.",
    "finish: until it returns with the statistics; everything is in metrics.jsonl then. It has a journal to close, a run.json to write and an fsync to wait for.",
]


def _interpreters(times: Steps, pairs: int) -> None:
    for _ in range(pairs):
        empty, full = _interpreter("pass"), _interpreter("import asynctrack")
        for steps, took in zip(times.values(), (empty, full, full - empty), strict=True):
            steps.append(took)


def _interpreter(code: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, timeout=_CHILD_LIMIT_S, start_new_session=True)
    return time.perf_counter() - began


def _live(plan: str, kind: str, steps: Steps) -> int:
    """Run a process from its start to its end, and return how many records it dropped."""
    with tempfile.TemporaryDirectory(prefix="asynctrack-bench-") as directory:
        command = [sys.executable, str(_LIFE), plan, directory, json.dumps(KINDS[kind])]
        environment = {**os.environ, "PYTHONPATH": str(_LIFE.parent.parent)}
        done = subprocess.run(
            command, check=True, timeout=_CHILD_LIMIT_S, stdout=subprocess.PIPE, env=environment, start_new_session=True
        )
    said = json.loads(done.stdout)
    for name, times in said["seconds"].items():
        steps.setdefault(name, []).extend(times)
    return int(said["dropped"])


def _title(kind: str) -> str:
    name, value = next(iter(KINDS[kind].items()))
    return f"{name}={value!r}"


def _in_order(steps: Steps) -> Steps:
    """Sort the steps as they come in a process: import, init, worker, finish."""
    order = ("import", "init", "worker", "finish")
    return dict(sorted(steps.items(), key=lambda step: order.index(step[0].split()[0].strip(":"))))


def _row(column: str, name: str, seconds: list[float]) -> dict[str, Any]:
    return {column: name, "median": _ms(seconds), "p90": _p90_ms(seconds), "n": len(seconds)}


def _ms(seconds: list[float]) -> Spread:
    return spread(1000 * took for took in seconds)


def _p90_ms(seconds: list[float]) -> float:
    return percentile(sorted(round(1e9 * took) for took in seconds), 0.9) / 1e6


def _bars(interpreters: Steps, lives: dict[str, Steps]) -> list[Bar]:
    added = [full - empty for empty, full in zip(interpreters[EMPTY], interpreters[IMPORT], strict=True)]
    inside = [took for kind in KINDS for took in lives[kind][STATEMENT]]
    bars = [
        bar("the statement 'import asynctrack', median", IMPORT_LIMIT_MS, 1000 * median(inside), "ms"),
        bar(
            "what it adds to an empty interpreter, its end included, median",
            IMPORT_LIMIT_MS,
            1000 * median(added),
            "ms",
        ),
    ]
    for kind in ("process", "thread"):
        for step in ("first", "second", "hundredth", "hundredth, all of them open"):
            times = lives[kind][f"init: {step}"]
            bars.append(bar(f"init, {step}, worker={kind!r}, median", INIT_LIMIT_MS, 1000 * median(times), "ms"))
    return bars


if __name__ == "__main__":
    main(__doc__, measure)
