"""What does a second process of a run pay: for `attach()`, and for `log()` once it has attached?

`attach()` in fresh interpreters, by each of the ways to a run, beside an `init()` of a run of its own, in turn; the first of the
process, and another once the first has left. `log()` of the process that has opened the run and of one that has attached to it,
in blocks of a few milliseconds in turn, in both against a bare encoder.

Takes three minutes. Wants two free cores.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench.blocks import NOTHING
from bench.harness import Bar, Report, Table, bar, main, open_run, say, spread
from bench.subjects import LOG, MSGPACK

WAYS: Final = {
    "path": "attach(path)",
    "ancestry": "attach(), the run of an ancestor",
    "pickle": "pickle.loads(run)",
    "log": "asynctrack.log(data), which attaches",
    "init": "init(), a run of its own",
}
ATTACH_LIMIT_MS: Final = 50
# "The same": within a twentieth. Two processes that do the same differ by about that from run to run, by where their memory lies.
SAME: Final = 1.05
ROLES: Final = ("owner", "attached")
# A process that takes longer hangs.
_LIMIT_S: Final = 120

Times = dict[str, dict[str, list[float]]]
Cycle = dict[str, Any]


def measure(quick: bool) -> Report:
    rounds, starts, cycles = (2, 2, 10) if quick else (6, 5, 60)
    times: Times = {way: {} for way in WAYS}
    pairs: list[list[dict[str, Cycle]]] = []
    for number in range(1, rounds + 1):
        say(f"round {number} of {rounds}")
        _come(times, starts)
        pairs.append(_log_in_turn(cycles))
    lost = {role: sum(cycles[-1][role]["dropped"] for cycles in pairs) for role in ROLES}
    tables = [
        Table(f"To come to a run, ms: {rounds * starts} fresh interpreters for each way, in turn", _rows(times)),
        Table("log() in a tight loop, us: the two processes in turn", [_log_row(role, pairs) for role in ROLES]),
        Table("Records dropped", [{**lost}]),
    ]
    return Report(
        tables, [*_bars(times, pairs), *(bar(f"records dropped: {role}", 0, lost[role]) for role in ROLES)], NOTES
    )


NOTES: Final = [
    "first: the first of a process, which has imported asynctrack and nothing else; what it imports on the way counts. again: another, once the first has finished.",
    "the run to attach to is open all the time, so its worker runs; the runs of init() have the same worker.",
    "log(): p50 and p99 of timed calls, less what reading the clock takes; the median over the cycles, and the range over the rounds, each with a run and two "
    "processes of its own. x msgpack: against the p50 of msgspec.msgpack.encode(data) in the same process and cycle.",
    "against the owner: p50 of both in one pair of cycles, a few milliseconds apart; the median over all pairs.",
    "both queues have their default size and have been written to once. The owner's has 16 MiB, that of a process that attaches has 1 MiB.",
]


def _come(times: Times, starts: int) -> None:
    with open_run() as run, tempfile.TemporaryDirectory(prefix="asynctrack-bench-") as directory:
        given = {"pickle": pickle.dumps(run).hex(), "init": directory}
        for way in [*WAYS] * starts:
            command = [*_process("come"), way, given.get(way, str(run.path))]
            done = subprocess.run(command, check=True, timeout=_LIMIT_S, stdout=subprocess.PIPE, env=_environment())
            for step, took in json.loads(done.stdout).items():
                times[way].setdefault(step, []).append(1000 * took)


def _log_in_turn(cycles: int) -> list[dict[str, Cycle]]:
    """Have the owner and one that has attached log in turn; return what each said of each pair of cycles."""
    with tempfile.TemporaryDirectory(prefix="asynctrack-bench-") as directory, contextlib.ExitStack() as opened:
        owner = opened.enter_context(_talking("owner", directory))
        path = json.loads(_line(owner))
        attached = opened.enter_context(_talking("attached", path))
        _line(attached)
        processes = {"owner": owner, "attached": attached}
        return [{role: _cycle(processes[role]) for role in random.sample(ROLES, len(ROLES))} for _ in range(cycles)]


@contextlib.contextmanager
def _talking(role: str, where: str) -> Iterator[subprocess.Popen[str]]:
    command = [*_process("log"), role, where]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environment()
    ) as process:
        try:
            yield process
            process.communicate(timeout=_LIMIT_S)
        finally:
            process.kill()


def _cycle(process: subprocess.Popen[str]) -> Cycle:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    said: Cycle = json.loads(_line(process))
    return said


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        sys.exit("a process of the benchmark has ended early")
    return line


def _process(what: str) -> list[str]:
    return [sys.executable, "-m", "bench.attach_process", what]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}


def _rows(times: Times) -> list[dict[str, Any]]:
    return [{"way": title, **{step: spread(times[way][step]) for step in times[way]}} for way, title in WAYS.items()]


def _log_row(role: str, rounds: list[list[dict[str, Cycle]]]) -> dict[str, Any]:
    return {
        "process": role,
        "p50": spread(median(_us(pair[role], LOG, 0) for pair in pairs) for pairs in rounds),
        "p99": spread(median(_us(pair[role], LOG, 1) for pair in pairs) for pairs in rounds),
        "x msgpack": spread(
            median(_us(pair[role], LOG, 0) / _us(pair[role], MSGPACK, 0) for pair in pairs) for pairs in rounds
        ),
        "against the owner": spread(
            median(_us(pair[role], LOG, 0) / _us(pair["owner"], LOG, 0) for pair in pairs) for pairs in rounds
        ),
    }


def _us(cycle: Cycle, name: str, which: int) -> float:
    """Return a percentile of a call, without the time to read the clock."""
    return max(cycle[name][which] - cycle[NOTHING][0], 1) / 1000


def _bars(times: Times, rounds: list[list[dict[str, Cycle]]]) -> list[Bar]:
    ratio = median(_us(pair["attached"], LOG, 0) / _us(pair["owner"], LOG, 0) for pairs in rounds for pair in pairs)
    return [
        bar("log() attached against the owner's, p50 ('the same': within a twentieth)", SAME, ratio, "x"),
        *(
            bar(f"{title}, {step}, median", ATTACH_LIMIT_MS, median(times[way][step]), "ms")
            for way, title in WAYS.items()
            if way != "init"
            for step in ("first", "again")
        ),
    ]


if __name__ == "__main__":
    main(__doc__, measure)
