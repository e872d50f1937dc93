"""Does anything grow when one process logs 20,000 records a second for ten minutes?

Looked at from outside, once a second: memory, threads and descriptors of the caller and of its worker, shared memory, journal, how
many records are behind, how long `log()` takes. In the end every record for which `log()` returned True is looked for in the journal and in
the JSON Lines.

Takes `--minutes`, and half a minute to finish and to count; 300 MB in TMPDIR for each minute. Wants two free cores. Linux only: it reads
/proc. Ctrl-C ends it early, with the figures up to then.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import linear_regression, median, median_low
from typing import Any, Final

import msgspec

from asynctrack.queue.layout import WORKER_PID
from asynctrack.queue.ring import Ring
from asynctrack.queue.shm_paths import DEFAULT_RING_BYTES, host_directories, ring_paths
from asynctrack.reading.stats import RunStats, StatsCollector
from bench.harness import Bar, Report, Table, bar, main, say, spread

RATE: Final = 20_000
MINUTES: Final = 10.0
MIB: Final = 1 << 20
# A mebibyte per ten million records: half of what the caller may grow by over as many, the ring apart.
FLAT_BYTES: Final = 100 << 10
CALLER_GROWTH_BYTES: Final = DEFAULT_RING_BYTES + 2 * MIB
SAME: Final = 1.25
# What the first records make: imports, caches, the ring's pages, the journal's first segment.
_WARM_UP_S: Final = 10
_CLOCK_TICKS: Final = os.sysconf("SC_CLK_TCK")


class Process(msgspec.Struct, frozen=True):
    """A process at one moment.

    Attributes:
        own_bytes: memory that it shares with nobody (USS).
        share_bytes: the same and its share of the rest (PSS): a ring is shared by two.
        resident_bytes: all that is mapped (RSS), the ring included.
        threads: of it.
        descriptors: that it has open.
        cpu_s: that it has used since it began.
    """

    own_bytes: int
    share_bytes: int
    resident_bytes: int
    threads: int
    descriptors: int
    cpu_s: float


class Sample(msgspec.Struct, frozen=True):
    """A second of the soak; `log` is what the caller says of it."""

    log: dict[str, float]
    caller: Process
    worker: Process
    shared_bytes: int
    journal_bytes: int
    behind: int
    dropped: int

    @property
    def millions(self) -> float:
        """Return the records accepted so far, in millions."""
        return self.log["taken"] / 1e6


class End(msgspec.Struct, frozen=True):
    """The results at the end.

    Attributes:
        said: counts of `log()` and the statistics of `finish()`, as the caller printed them.
        stats: the statistics, from the journal's headers and the cursor.
        lines: of the JSON Lines.
        seconds: of the loop.
    """

    said: dict[str, float]
    stats: RunStats
    lines: int
    seconds: float


def measure(quick: bool, minutes: float) -> Report:
    seconds = max(20, round(60 * minutes) // (10 if quick else 1))
    with tempfile.TemporaryDirectory(prefix="asynctrack-bench-") as directory:
        say(f"{RATE:,} records a second for {seconds} s")
        command = [sys.executable, "-m", "bench.paced", directory, str(RATE), str(seconds)]
        with _child(command) as child:
            assert child.stdout is not None
            path = Path(child.stdout.readline().strip())
            began = time.monotonic()
            samples, said = _watch(child.stdout, child.pid, path)
            end = _count(path, said, time.monotonic() - began - said["finish_s"])
    part = max(1, len(samples) // 10)
    tables = [
        Table(
            f"{len(samples)} s, parts of {part} s: medians; behind, dropped and max log() are the part's greatest",
            [_row(samples[k : k + part]) for k in range(0, len(samples) - part + 1, part)],
        ),
        Table("The processes in the second half", [_process_row(who, samples) for who in ("caller", "worker")]),
        Table("The end", [_end_row(end)]),
    ]
    return Report(tables, _bars(samples, end), NOTES)


NOTES: Final = [
    "record: 4 floats, an integer, a short string, made afresh for each call; 20 of them a thousand times a second.",
    "own: memory that the process shares with nobody (USS, of smaps_rollup); PSS: and its share of the rest, as of the ring and of the libraries; RSS: all that is mapped.",
    "bytes per million records: the slope of a straight line through the samples of the second half.",
    "log(): every tenth call timed, reading the clock included; max: of all calls. shared: what the host directory takes in /dev/shm. behind: records past "
    "the delivery's cursor, which is saved once a second.",
    "in the journal: by a tally of its headers, after `finish()`; lines: of metrics.jsonl, counted.",
]


@contextlib.contextmanager
def _child(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """Start a process that ends with us. Ctrl-C tells it to come to its end; a second one interrupts us."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as child:

        def end_early(*_: object) -> None:
            signal.signal(signal.SIGINT, before)
            child.send_signal(signal.SIGINT)

        before = signal.signal(signal.SIGINT, end_early)
        try:
            yield child
        except BaseException:
            child.kill()
            raise
        finally:
            signal.signal(signal.SIGINT, before)


def _watch(out: Iterable[str], caller: int, path: Path) -> tuple[list[Sample], dict[str, float]]:
    """Take a sample for each line of the caller. Return the samples, and the contents of its last line."""
    samples: list[Sample] = []
    ring, collector = _ring_of(path), StatsCollector(path)
    try:
        for line in out:
            said = json.loads(line)
            if "finish_s" in said:
                return samples, said
            samples.append(_sample(said, caller, ring, path, collector))
    finally:
        collector.close()
        ring.close()
    raise SystemExit("the process that logs has ended without its statistics")


def _ring_of(path: Path) -> Ring:
    for host in host_directories():
        for name in ring_paths(host):
            ring = Ring.attach(name)
            if ring.meta["run"] == str(path):
                return ring
            ring.close()
    raise SystemExit(f"no queue of {path} is in shared memory")


def _sample(said: dict[str, float], caller: int, ring: Ring, path: Path, collector: StatsCollector) -> Sample:
    stats = collector.collect([ring], [], ["jsonl"])
    return Sample(
        log=said,
        caller=_process(caller),
        worker=_process(ring.words[WORKER_PID]),
        shared_bytes=sum(512 * entry.stat().st_blocks for entry in os.scandir(os.path.dirname(ring.path))),
        journal_bytes=sum(entry.stat().st_size for entry in os.scandir(path / "journal")),
        behind=stats.behind,
        dropped=sum(stats.dropped.values()),
    )


def _process(pid: int) -> Process:
    sizes: dict[str, int] = {}
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        for line in file.readlines()[1:]:
            name, size = line.split()[:2]
            sizes[name] = 1024 * int(size)
    stat = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return Process(
        own_bytes=sizes["Private_Clean:"] + sizes["Private_Dirty:"],
        share_bytes=sizes["Pss:"],
        resident_bytes=sizes["Rss:"],
        threads=int(stat[17]),
        descriptors=len(os.listdir(f"/proc/{pid}/fd")),
        cpu_s=(int(stat[11]) + int(stat[12])) / _CLOCK_TICKS,
    )


def _count(path: Path, said: dict[str, float], seconds: float) -> End:
    say("counting")
    collector = StatsCollector(path)
    stats = collector.collect([], [], ["jsonl"])
    collector.close()
    with open(path / "metrics.jsonl", "rb") as file:
        lines = sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(MIB), b""))
    return End(said, stats, lines, seconds)


def _row(part: list[Sample]) -> dict[str, Any]:
    first, last = part[0], part[-1]

    def middle(figure: Callable[[Sample], float]) -> float:
        return median(map(figure, part))

    return {
        "records": int(last.log["taken"]),
        "caller own MiB": middle(lambda one: one.caller.own_bytes) / MIB,
        "RSS": middle(lambda one: one.caller.resident_bytes) / MIB,
        "threads": int(middle(lambda one: one.caller.threads)),
        "fds": int(middle(lambda one: one.caller.descriptors)),
        "worker own MiB": middle(lambda one: one.worker.own_bytes) / MIB,
        "worker RSS": middle(lambda one: one.worker.resident_bytes) / MIB,
        "worker threads": int(middle(lambda one: one.worker.threads)),
        "worker fds": int(middle(lambda one: one.worker.descriptors)),
        "shared MiB": middle(lambda one: one.shared_bytes) / MIB,
        "journal MB": last.journal_bytes / 1e6,
        "behind": max(one.behind for one in part),
        "dropped": last.dropped - first.dropped,
        "p50 us": middle(lambda one: one.log["p50_ns"]) / 1000,
        "p99 us": middle(lambda one: one.log["p99_ns"]) / 1000,
        "max us": max(one.log["max_ns"] for one in part) / 1000,
    }


def _process_row(who: str, samples: list[Sample]) -> dict[str, Any]:
    half = _second_half(samples)
    states: list[Process] = [getattr(one, who) for one in half]
    cpu_s = (states[-1].cpu_s - states[0].cpu_s) / max(1, len(half) - 1)
    return {
        "process": who,
        "own MiB": spread(one.own_bytes / MIB for one in states),
        "PSS MiB": spread(one.share_bytes / MIB for one in states),
        "RSS MiB": spread(one.resident_bytes / MIB for one in states),
        "threads": spread(one.threads for one in states),
        "descriptors": spread(one.descriptors for one in states),
        "% of a core": 100 * cpu_s,
        "bytes per million records": round(_slope(who, samples)),
        "flat": "yes" if abs(_slope(who, samples)) <= FLAT_BYTES else "no",
    }


def _end_row(end: End) -> dict[str, Any]:
    return {
        "records/s": end.said["offered"] / end.seconds,
        "True": int(end.said["taken"]),
        "accepted": int(end.said["accepted"]),
        "in the journal": end.stats.journaled,
        "delivered": end.stats.backends["jsonl"].delivered,
        "lines": end.lines,
        "False": int(end.said["offered"] - end.said["taken"]),
        "dropped": int(end.said["dropped"]),
        "finish() s": end.said["finish_s"],
    }


def _bars(samples: list[Sample], end: End) -> list[Bar]:
    taken, offered = int(end.said["taken"]), int(end.said["offered"])
    found = (int(end.said["accepted"]), end.stats.journaled, end.stats.backends["jsonl"].delivered, end.lines)
    warm = samples[min(_WARM_UP_S, len(samples) // 4) :]
    grown = max(one.caller.resident_bytes for one in samples) - samples[0].caller.resident_bytes
    bars = [
        bar("records a second", 0.999 * RATE, round(offered / end.seconds), at_least=True),
        bar("records dropped", 0, offered - taken),
        bar(
            "records accepted, by which statistics, journal, cursor and lines differ",
            0,
            sum(abs(taken - it) for it in found),
        ),
        bar(
            "caller: RSS grown since its first second by: the ring and 2 MiB",
            CALLER_GROWTH_BYTES / MIB,
            grown / MIB,
            "MiB",
        ),
    ]
    for who in ("caller", "worker"):
        slope = _slope(who, samples) / 1024
        bars.append(bar(f"{who}: own memory per million records, second half", FLAT_BYTES / 1024, slope, "KiB"))
        for what in ("threads", "descriptors"):
            bars.append(bar(f"{who}: {what} grown by", 0, _grown(warm, partial(_of, who, what))))
    bars += [
        bar("shared memory grown by", 0, _grown(warm, lambda one: one.shared_bytes), "bytes"),
        bar("log() p50, the last tenth against the first", SAME, _drift(warm, "p50_ns"), "x"),
        bar("log() p99, the last tenth against the first", SAME, _drift(warm, "p99_ns"), "x"),
    ]
    return bars


def _of(who: str, what: str, one: Sample) -> float:
    figure: float = getattr(getattr(one, who), what)
    return figure


def _slope(who: str, samples: list[Sample]) -> float:
    """Return the bytes by which a process's own memory grows per million records, in the second half."""
    half = _second_half(samples)
    return linear_regression([one.millions for one in half], [_of(who, "own_bytes", one) for one in half]).slope


def _second_half(samples: list[Sample]) -> list[Sample]:
    return samples[len(samples) // 2 :]


def _grown(samples: list[Sample], figure: Callable[[Sample], float]) -> float:
    """Return the growth from the first tenth to the last: a descriptor that is open for a moment does not count."""
    first, last = _ends(samples)
    return median_low(map(figure, last)) - median_low(map(figure, first))


def _drift(samples: list[Sample], what: str) -> float:
    first, last = _ends(samples)
    return median(one.log[what] for one in last) / median(one.log[what] for one in first)


def _ends(samples: list[Sample]) -> tuple[list[Sample], list[Sample]]:
    tenth = max(1, len(samples) // 10)
    return samples[:tenth], samples[-tenth:]


if __name__ == "__main__":
    main(__doc__, measure, minutes=MINUTES)
