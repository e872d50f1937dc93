"""What does logging to W&B cost a loop of 200 us steps, and what has W&B after SIGKILL: by `wandb.run.log` itself, and through asynctrack?

Pure Python steps that log each, in a fresh process per subject and round, all in turn and against the same server: plain for a while, then tracked, then plain again. Then a
process that logs 20, or 1,000, records a second and is killed: which of the records for which `log` had returned are at the server, or in a file, when nothing moves any more.

Takes about twelve minutes. Needs the extra `wandb`, and a checkout: the server is that of the tests, on loopback and in a process of its own. Wants two free cores, and
both subjects share them with the server and `wandb-core`.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from math import isnan
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Final

import asynctrack
from asynctrack.backends.wandb.files import WandbFile
from asynctrack.journal.tally import Tally
from bench.harness import Bar, Cell, Report, Spread, Table, bar, main, percentiles_us, say, spread
from bench.wandb_server import KEY, TESTS, at_rest, rows, server
from bench.work import Step, python_step

DIRECT: Final = "wandb.run.log"
OURS: Final = "asynctrack"
NOTHING: Final = "nothing"
OFFLINE: Final = "wandb.run.log, offline"
PLAIN_S: Final = 2.0
TRACKED_S: Final = 10.0
# Longer than the 15 s between two of wandb's own transmissions.
KILLED_AFTER_S: Final = 20.0
RATES: Final = (20, 1000)
_MOST_KILLS: Final = 2
# The loop never logs for longer. The server has all it will get when it has got nothing for so long.
_QUIET_S: Final = 20.0
_LONGEST_S: Final = 60.0

_CHILD: Final = "import bench.wandb as b, sys; b.{}(*sys.argv[1:])"
# What a library wants that logs in the background, as in asynctrack.
_SETTINGS: Final[dict[str, Any]] = {
    "console": "off", "silent": True, "disable_git": True, "disable_code": True, "disable_job_creation": True,
    "x_disable_meta": True, "x_disable_stats": True, "x_disable_machine_info": True, "x_save_requirements": False,
}  # fmt: skip

Log = Callable[[dict[str, Any], int], object]


def measure(quick: bool) -> Report:
    rounds, part = (1, 0.2) if quick else (3, 1.0)
    loops: dict[str, list[dict[str, float]]] = {}
    kills: dict[tuple[str, int], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="asynctrack-bench-") as folder, server() as served:
        url = served.url
        for number in range(rounds):
            for subject in (NOTHING, DIRECT, OURS):
                say(f"round {number + 1} of {rounds}: a loop that logs to {subject}")
                loops.setdefault(subject, []).append(_loop(subject, url, folder, part))
            for rate in RATES if number < _MOST_KILLS else ():
                for subject in (DIRECT, OFFLINE, OURS):
                    say(f"round {number + 1} of {rounds}: {subject} at {rate} records/s, killed")
                    kills.setdefault((subject, rate), []).append(_kill(subject, rate, url, folder, part))
    tables = [
        Table(
            "a loop of 200 us steps, pure Python, that logs each",
            [_row({"log": name}, of) for name, of in loops.items()],
        ),
        Table(
            f"killed after {KILLED_AFTER_S * part:g} s",
            [_row({"log": name, "records/s": rate}, of) for (name, rate), of in kills.items()],
        ),
    ]
    return Report(tables, _bars(loops, kills), [*NOTES, f"wandb {version('wandb')}"])


NOTES: Final = [
    "record: 4 floats, an integer, a short string. Both subjects have the same settings of the SDK, but for how often they send: wandb its own 15 s.",
    "slow-down: the mean tracked step against the mean of the plain ones before and after in the same process; 'nothing' hands the record to an empty function.",
    "log(): reading the clock included. behind: records that W&B does not have when the loop ends; wandb itself does not say.",
    "killed: SIGKILL to the process that logs, and to nothing else. at W&B: on the server when it has got nothing for 20 s. on disk: in the journal, or in "
    "wandb's offline file.",
]


def _row(names: dict[str, Cell], rounds: list[dict[str, float]]) -> dict[str, Cell | Spread]:
    return {**names, **{key: spread([one[key] for one in rounds]) for key in rounds[0] if not isnan(rounds[0][key])}}


def _bars(loops: dict[str, list[dict[str, float]]], kills: dict[tuple[str, int], list[dict[str, float]]]) -> list[Bar]:
    ratio = spread([one["slow-down %"] for one in loops[OURS]]).median
    control = spread([one["slow-down %"] for one in loops[NOTHING]])
    lost = [one["logged"] - one["at W&B"] for (name, _), of in kills.items() if name == OURS for one in of]
    return [
        bar(f"the loop with asynctrack: slow-down (control {control.min:.2g} to {control.max:.2g})", 2, ratio, "%"),
        bar("records that log() had accepted and W&B never got, with asynctrack", 0, max(lost)),
    ]


def _start(function: str, *arguments: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "WANDB_API_KEY": KEY, "WANDB_ERROR_REPORTING": "false"}
    command = [sys.executable, "-c", _CHILD.format(function), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=TESTS.parent, env=environment)


def _loop(subject: str, url: str, folder: str, part: float) -> dict[str, float]:
    with _start("loop_one", subject, url, folder, part) as child:
        out, _ = child.communicate()
    found: dict[str, float] = json.loads(out.splitlines()[-1])
    return found


def loop_one(subject: str, url: str, folder: str, part: str) -> None:
    """Run a loop in this process, plain, tracked and plain, and print its figures."""
    step, seconds = python_step(), float(part)
    plain = [_mean_us(_steps(step, lambda data, step: None, PLAIN_S * seconds)[0])]
    with _logger(subject, url, folder) as (log, behind):
        steps, logs = _steps(step, log, TRACKED_S * seconds)
        left = behind()
    plain.append(_mean_us(_steps(step, lambda data, step: None, PLAIN_S * seconds)[0]))
    mean = sum(plain) / 2
    percentiles = {f"log() {name} us": value for name, value in percentiles_us(logs, 0.0).items()}
    figures = {
        "plain step us": mean,
        "tracked step us": _mean_us(steps),
        "slow-down %": 100 * _mean_us(steps) / mean - 100,
    }
    print(json.dumps({**figures, **percentiles, "logged": len(logs), "behind": left}), flush=True)
    os._exit(0)


def _steps(step: Step, log: Log, seconds: float) -> tuple[array[int], array[int]]:
    """Time each step of a loop, and the part of it that was spent in `log`."""
    steps, logs, clock = array("q"), array("q"), perf_counter_ns
    until = clock() + int(seconds * 1e9)
    while (began := clock()) < until:
        loss = step()
        data = _record(loss, len(steps))
        before = clock()
        log(data, len(steps))
        after = clock()
        steps.append(after - began)
        logs.append(after - before)
    return steps, logs


def _record(loss: float, number: int) -> dict[str, Any]:
    return {
        "loss": loss,
        "accuracy": loss * 0.5,
        "lr": 0.001 + number * 1e-9,
        "grad_norm": loss + number,
        "epoch": number // 1000,
        "phase": "train",
    }


def _mean_us(times_ns: array[int]) -> float:
    return sum(times_ns) / len(times_ns) / 1000


@contextmanager
def _logger(
    subject: str, url: str, folder: str, run_id: str | None = None
) -> Iterator[tuple[Log, Callable[[], float]]]:
    """Yield a function that logs, and one that returns how many records W&B does not have."""
    if subject == NOTHING:
        yield lambda data, step: None, lambda: 0.0
    elif subject == OURS:
        backends = [asynctrack.WandB(base_url=url)]
        with asynctrack.init("bench", id=run_id, dir=folder, backends=backends) as run:
            yield lambda data, step: run.log(data, step=step), lambda: float(run.stats().behind)
    else:
        import wandb

        settings = wandb.Settings(base_url=url, **_SETTINGS)
        mode = "offline" if subject == OFFLINE else "online"
        with wandb.init(project="bench", id=run_id, mode=mode, dir=folder, settings=settings) as tracked:
            yield lambda data, step: tracked.log(data), lambda: float("nan")


def _kill(subject: str, rate: int, url: str, folder: str, part: float) -> dict[str, float]:
    """Kill a process that logs, and count the records when nothing moves any more."""
    run_id = f"killed-{os.urandom(4).hex()}"
    with tempfile.NamedTemporaryFile(dir=folder) as count:
        count.write(bytes(8))
        count.flush()
        with _start("log_and_count", subject, url, folder, run_id, rate, count.name) as child:
            while not _counted(count.name):
                time.sleep(0.01)
            time.sleep(KILLED_AFTER_S * part)
            child.send_signal(signal.SIGKILL)
        logged = _counted(count.name)
    at_server = 0 if subject == OFFLINE else at_rest(lambda: rows(url).get(run_id, 0), _QUIET_S, _LONGEST_S)
    return {"logged": logged, "at W&B": at_server, "on disk": _on_disk(subject, Path(folder), run_id)}


def log_and_count(subject: str, url: str, folder: str, run_id: str, rate: str, count: str) -> None:
    """Log at a rate until this process is killed, and count in a file the calls that have returned."""
    pause_s = 1 / float(rate)
    with (
        _logger(subject, url, folder, run_id) as (log, _),
        open(count, "r+b") as file,
        mmap.mmap(file.fileno(), 8) as words,
    ):
        counter = memoryview(words).cast("Q")
        at = time.perf_counter()
        for number in range(int(_LONGEST_S * float(rate))):
            log(_record(0.5, number), number)
            counter[0] = number + 1
            at += pause_s
            time.sleep(max(0.0, at - time.perf_counter()))


def _counted(path: str) -> int:
    return int.from_bytes(Path(path).read_bytes(), "little")


def _on_disk(subject: str, folder: Path, run_id: str) -> float:
    if subject == OURS:
        tally = Tally(folder / "bench" / run_id / "journal")
        tally.update()
        tally.close()
        return tally.records()
    if subject == OFFLINE:
        return sum(WandbFile(path).rows() for path in folder.glob(f"wandb/*{run_id}*/*.wandb"))
    return float("nan")


if __name__ == "__main__":
    main(__doc__, measure)
