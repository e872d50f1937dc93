"""How many records a second does each backend take from the journal, at what cost, and how soon has it caught up after an outage?

A journaled run is delivered from its beginning by the real delivery, in a fresh process per backend and round, all in turn: records a second, CPU
of that process per record, and how much its memory grows beyond what it had with everything imported. The servers are stand-ins in another process, so their work
does not count, nor what a network would take. Then a run that goes on logging while its backend is down for a few seconds.

Takes about two minutes. Needs the extras `http`, `sql` and `tensorboard`, and a checkout: the stand-ins are those of the tests. Wants two free cores.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from asynctrack.backends.base import Backend, Retry, Sink
from asynctrack.backends.registry import class_of
from asynctrack.testing import JournaledRun, deliver
from bench.harness import Bar, Cell, Report, Spread, Table, bar, main, open_run, percentiles_us, say, spread
from bench.record import record

TESTS: Final = Path(__file__).parent.parent / "tests"
RECORDS: Final = 200_000
# A server is slower than a file, and a round should take seconds.
FEWER: Final = {"trackio": 10, "mlflow": 20, "sql": 4}
LINES_US: Final = 1.3
OUTAGE_S: Final = 5.0
STEP_S: Final = 200e-6

_SERVE: Final = """
import sys
sys.path.insert(0, sys.argv[1])
import fake_servers
from raw_server import RawServer
with RawServer(getattr(fake_servers, sys.argv[2])()) as server:
    print(server.url, flush=True)
    sys.stdin.read()
"""
_DELIVER: Final = "import bench.delivery as b, sys; b.deliver_one(*sys.argv[1:])"


def measure(quick: bool) -> Report:
    records, rounds = (RECORDS // 10, 1) if quick else (RECORDS, 3)
    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="asynctrack-bench-") as folder:
        for number in range(rounds):
            for name, kind, settings, app in SUBJECTS:
                count = records // FEWER.get(kind, 1)
                say(f"round {number + 1} of {rounds}: {count:,} records to {name}")
                run = _journaled(Path(folder), f"{name.replace(' ', '-')}-{number}", count)
                with _server(app) as url:
                    found.setdefault(name, []).append(_deliver(run, kind, {**settings, **url}, count))
        say("an outage")
        outages = [_outage(1.0 if quick else OUTAGE_S) for _ in range(rounds)]
    rows: list[dict[str, Cell | Spread]] = [
        {"backend": name, **{key: spread([one[key] for one in of]) for key in of[0]}} for name, of in found.items()
    ]
    after: list[dict[str, Cell | Spread]] = [{key: spread([one[key] for one in outages]) for key in outages[0]}]
    tables = [
        Table("from the journal", rows),
        Table(f"down for {OUTAGE_S:g} s while a loop of 200 us steps logs on", after),
    ]
    return Report(tables, [_lines_bar(found["jsonl"]), *_bars(outages)], NOTES)


SUBJECTS: Final[list[tuple[str, str, dict[str, Any], str | None]]] = [
    ("jsonl", "jsonl", {}, None),
    ("jsonl, downsampled", "jsonl", {"downsample_interval_s": 1.0}, None),
    ("tensorboard", "tensorboard", {}, None),
    ("trackio server", "trackio", {}, "TrackioApp"),
    ("mlflow", "mlflow", {}, "MLflowApp"),
    ("sql, SQLite", "sql", {}, None),
]
NOTES: Final = [
    "record: 4 floats, an integer, a short string; it has 5 scalars, so MLflow and TensorBoard take five points for each, and SQL six rows.",
    "CPU and memory are those of the process that delivers, interpreter and imports not counted; the journal is in the page cache.",
    "the stand-in servers parse every request and keep every row, in Python; a real server may be slower, and is then what limits.",
    "downsampled: of each second, the first, last, least and greatest of each key; the others are read, looked at and skipped.",
    "outage: the backend raises for so long; caught up: seconds from its return until it has all that was logged before, with back-off on the way. log() is measured by "
    "the loop itself, clock included.",
]


def _journaled(folder: Path, name: str, count: int) -> Path:
    with JournaledRun(folder / "bench" / name) as run:
        for step in range(count):
            run.log(record(step), step)
            if step % 5000 == 4999:
                run.journal()
        run.end()
        return run.path


@contextmanager
def _server(app: str | None) -> Iterator[dict[str, str]]:
    """Start a stand-in in a process of its own, and yield the setting that leads to it."""
    if app is None:
        yield {}
        return
    command = [sys.executable, "-c", _SERVE, str(TESTS), app]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        yield {"server_url" if app == "TrackioApp" else "tracking_uri": url}


def _deliver(run: Path, kind: str, settings: dict[str, Any], count: int) -> dict[str, float]:
    command = [sys.executable, "-c", _DELIVER, str(run), kind, json.dumps(settings)]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=TESTS.parent)
    wall_s, cpu_s, grown_kib = json.loads(told.stdout.splitlines()[-1])
    return {"records/s": count / wall_s, "CPU us/record": 1e6 * cpu_s / count, "memory MiB": grown_kib / 1024}


def deliver_one(run: str, kind: str, settings: str) -> None:
    """Deliver a run in this process, and print seconds, CPU seconds and growth of the peak in KiB."""
    backend = class_of(kind)(**json.loads(settings))
    with tempfile.TemporaryDirectory() as folder:  # imports, and what a library sets up once
        warm = _journaled(Path(folder), "warm", 50)
        deliver(warm, backend)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    cursor = deliver(Path(run), backend, timeout_s=500.0)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert cursor.closed and not cursor.rejected
    print(json.dumps([wall, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib]))


class Away(Backend, frozen=True, kw_only=True, tag="away"):
    """A backend that is down while a file is there."""

    execution = "worker"
    while_there: str

    def open(self, context: Any) -> Sink:
        return _AwaySink(self.while_there)


class _AwaySink(Sink):
    def __init__(self, path: str) -> None:
        self._path = path

    async def write(self, batch: Any) -> None:
        if os.path.exists(self._path):
            raise Retry("the server is down")


def _outage(seconds: float) -> dict[str, float]:
    """Log every 200 us while the backend is up, down, and up again."""
    from array import array

    with tempfile.NamedTemporaryFile() as mark, open_run(backends=[Away(while_there=mark.name + ".down")]) as run:
        down = Path(mark.name + ".down")
        times: dict[str, array[int]] = {"up": array("q"), "down": array("q")}
        state, stop = "up", threading.Event()
        caught_up_s = behind = 0.0

        def loop() -> None:
            clock, step = time.perf_counter_ns, 0
            while not stop.is_set():
                until = clock() + int(STEP_S * 1e9)
                while clock() < until:
                    pass
                before = clock()
                run.log(record(step), step)
                times[state].append(clock() - before)
                step += 1

        logger = threading.Thread(target=loop)
        logger.start()
        time.sleep(seconds)
        state = "down"
        down.touch()
        time.sleep(seconds)
        behind = run.stats().backends["away"].behind
        down.unlink()
        state, began = "up", time.perf_counter()
        run.flush("delivered", timeout_s=120.0)
        caught_up_s = time.perf_counter() - began
        stop.set()
        logger.join()
    up, gone = (percentiles_us(times[name], 0.0) for name in ("up", "down"))
    return {
        "behind at its end": behind,
        "caught up after s": caught_up_s,
        "log() p50 up us": up["p50"],
        "log() p50 down us": gone["p50"],
        "log() p99 up us": up["p99"],
        "log() p99 down us": gone["p99"],
    }


def _lines_bar(rounds: list[dict[str, float]]) -> Bar:
    return bar(
        "JSON Lines from the journal, CPU per record",
        LINES_US,
        spread(one["CPU us/record"] for one in rounds).median,
        "us",
    )


def _bars(outages: list[dict[str, float]]) -> list[Bar]:
    ratio = spread([one["log() p50 down us"] / one["log() p50 up us"] for one in outages]).median
    return [Bar("log() with the backend down, against up: p50", "<= 1.25 x", f"{ratio:.2f} x", ratio <= 1.25)]


if __name__ == "__main__":
    main(__doc__, measure)
