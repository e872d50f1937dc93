"""Does a record cost more when there are many: records in the run, keys in the record, runs in the process?

One run of a hundred million records, looked at after each step of about a factor of three: what `log()` takes, the processor time of caller and worker, their
memory, the journal. Records of one to 2,000 keys, and one to 1,000 open runs that are logged to in turn, both with JSON Lines.

Takes ten minutes, and 13 GB in TMPDIR; where that is not free, the long run ends earlier. Wants two free cores. Linux only: it reads /proc.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import tempfile
import time
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

import asynctrack
from asynctrack.queue.layout import HEAD, TAIL, WORKER_PID
from asynctrack.queue.shm_paths import SMALLEST_RING_BYTES
from bench.blocks import RECORD, Subject
from bench.harness import Bar, Report, Spread, Table, bar, dropped, main, open_run, own_worker, say, spread
from bench.processes import own_bytes, threads_cpu_s

RECORDS: Final = "Records in a run, JSON Lines off"
KEYS: Final = "Keys in a record, JSON Lines on"
RUNS: Final = "Open runs, logged to in turn, JSON Lines on"

COUNTS: Final = (*(part * 10**power for power in range(3, 8) for part in (1, 3)), 10**8)
# Several rounds up to here, since few records take too little time to be measured once.
REPEATED: Final = 10**6
WIDTHS: Final = (1, 10, 100, 1_000, 2_000)
OPEN: Final = (1, 10, 100, 1_000)
VALUES: Final = 2_000_000
LOGGED: Final = 200_000
BLOCK: Final = 1_000
# In the journal; of the disk's free space, a part is left alone.
RECORD_BYTES: Final = 125
LEFT_FREE_BYTES: Final = 2 << 30
# The longest that the whole may take; the long run ends before.
LONG_RUN_S: Final = 420.0
SAME: Final = 1.25
MIB: Final = 1 << 20

Figures = dict[str, float]


class Use(NamedTuple):
    """The processor time and the memory of caller and worker at one moment."""

    caller_s: float
    worker_s: float
    caller_bytes: int
    worker_bytes: int


def measure(quick: bool) -> Report:
    _allow_many_files()
    rounds = 1 if quick else 3
    counts = [count for count in COUNTS if count <= (10**5 if quick else 10**8)]
    records: dict[int, list[Figures]] = {}
    for number in range(rounds):
        last = number == rounds - 1
        _add(records, _records(counts if last else [count for count in counts if count <= REPEATED]))
    keys: dict[int, list[Figures]] = {}
    runs: dict[int, list[Figures]] = {}
    for _ in range(rounds):
        for width in WIDTHS:
            _add(keys, [(width, _keys(width, VALUES // (50 if quick else 1)))])
    for _ in range(1 if quick else 2):
        for count in OPEN[: 2 if quick else None]:
            _add(runs, [(count, _runs(count, LOGGED // (20 if quick else 1)))])
    tables = [_table(RECORDS, "records", records), _table(KEYS, "keys", keys), _table(RUNS, "runs", runs)]
    return Report(tables, _bars(records, keys, runs), NOTES)


NOTES: Final = [
    "record: 4 floats, an integer, a short string; with a number of keys: as many floats, under names of 12 characters.",
    f"log(): blocks of at most {BLOCK:,} calls, less the loop and the making of the record; the worker has time to take what is in the queue between two blocks.",
    "CPU: of caller and worker from one row to the next, the making of the records and the waiting for the worker included. Of 1,000 records most is what the end of "
    "such a part takes: a flush.",
    "memory: what caller and worker share with nobody, at the end of the row. journal: all of its files.",
    f"open runs: each with a queue of {SMALLEST_RING_BYTES // 1024} KiB; idle: the worker's share of a core while nothing is logged.",
    "Not measured here: reading (`bench.reading`) and delivery to servers (`bench.delivery`).",
]


def _add(found: dict[int, list[Figures]], more: Iterable[tuple[int, Figures]]) -> None:
    for count, figures in more:
        found.setdefault(count, []).append(figures)


def _allow_many_files() -> None:
    """Take as many descriptors as the system allows: a thousand runs have several each."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


# Records


def _records(counts: list[int]) -> Iterator[tuple[int, Figures]]:
    """Log to one run, and look at it whenever it has so many records."""
    began = time.monotonic()
    with own_worker(), open_run(backends=[], finish_timeout_s=120.0) as run:
        log = Logger(run)
        log.block(0, BLOCK)  # imports, caches, the ring's first pages
        logged = 0
        for count in counts:
            free = shutil.disk_usage(run.path).free - LEFT_FREE_BYTES
            if free < (count - logged) * RECORD_BYTES or time.monotonic() - began > LONG_RUN_S:
                say(f"the run ends at {logged:,} records: no room, or no time, for more")
                return
            say(f"a run of {count:,} records")
            yield count, _part(run, log, logged, count)
            logged = count


def _part(run: asynctrack.Run, log: Logger, first: int, end: int) -> Figures:
    before = _use(run)
    log_ns = log.until(first, end)
    run.flush("journaled", timeout_s=60.0)
    after = _use(run)
    journal = sum(entry.stat().st_size for entry in os.scandir(run.path / "journal"))
    return {
        "log() us": log_ns / 1000,
        **_cpu(before, after, end - first),
        "caller MiB": after.caller_bytes / MIB,
        "worker MiB": after.worker_bytes / MIB,
        "journal bytes/record": journal / (end + BLOCK),
        "dropped": dropped(run),
    }


class Logger:
    """Logs to one run in blocks, and waits in between while its queue is more than half full.

    Args:
        run: it is logged to.
        make: an expression for the record.
        names: that the expression uses.
        block: calls in a block.
    """

    def __init__(
        self, run: asynctrack.Run, make: str = RECORD, names: dict[str, Any] | None = None, block: int = BLOCK
    ) -> None:
        self._ring = run._publisher.producer
        self._block = block
        self._log = Subject("log", "log(data, step=step)", names={"log": run.log, **(names or {})}, make=make)
        self._nothing = Subject("nothing", "pass", names=names, make=make)

    def until(self, first: int, end: int) -> float:
        """Log the steps from `first` to `end`, and return the nanoseconds of a call of `log`: the median over the blocks."""
        took, made = array("d"), array("d")
        block = min(self._block, max(1, (end - first) // 10))
        for step in range(first, end, block):
            count = min(block, end - step)
            took.append(self.block(step, count) / count)
            if len(took) % 10 == 1 or len(made) < 5:  # not each time, since it is not what is measured
                made.append(_ns(self._nothing, step, block) / block)
        return median(took) - median(made)

    def block(self, step: int, count: int) -> int:
        """Log some steps, then wait until there is room for more; return the nanoseconds of the first part."""
        took = _ns(self._log, step, count)
        words = self._ring.ring.words
        while words[HEAD] - words[TAIL] > self._ring.capacity // 2:
            time.sleep(0.0005)
        return took


def _ns(subject: Subject, first: int, count: int) -> int:
    began = time.perf_counter_ns()
    subject.untimed(first, count)
    return time.perf_counter_ns() - began


def _use(run: asynctrack.Run) -> Use:
    worker = run._publisher.producer.ring.words[WORKER_PID]
    return Use(time.process_time(), threads_cpu_s(worker), own_bytes(os.getpid()), own_bytes(worker))


def _cpu(before: Use, after: Use, records: int) -> Figures:
    caller, worker = after.caller_s - before.caller_s, after.worker_s - before.worker_s
    return {
        "caller CPU us/record": 1e6 * caller / records,
        "worker CPU us/record": 1e6 * worker / records,
        "CPU us/record": 1e6 * (caller + worker) / records,
    }


# Keys


def _keys(width: int, values: int) -> Figures:
    """Log records of so many keys."""
    say(f"records of {width:,} keys")
    records = max(100, min(LOGGED, values // width))
    block = max(1, BLOCK // width)
    names = {"keys": [f"metric/{number:05}" for number in range(width)]}
    with own_worker(), open_run(finish_timeout_s=120.0) as run:
        log = Logger(run, "{key: step * 0.5 for key in keys}", names, block)
        log.until(0, 2 * block)
        run.flush("delivered")
        before = _use(run)
        log_ns = log.until(2 * block, 2 * block + records)
        run.flush("delivered", timeout_s=60.0)
        after = _use(run)
        cpu = _cpu(before, after, records)
        return {
            "log() us": log_ns / 1000,
            "log() ns/value": log_ns / width,
            "CPU us/record": cpu["CPU us/record"],
            "CPU us/value": cpu["CPU us/record"] / width,
            "caller MiB": after.caller_bytes / MIB,
            "worker MiB": after.worker_bytes / MIB,
            "dropped": dropped(run),
        }


# Runs


def _runs(count: int, records: int) -> Figures:
    """Log to so many open runs in turn."""
    say(f"{count:,} open runs")
    with own_worker(), tempfile.TemporaryDirectory(prefix="asynctrack-bench-") as folder:
        before = own_bytes(os.getpid())
        began = time.perf_counter()
        runs = [_open(Path(folder)) for _ in range(count)]
        init_s = time.perf_counter() - began
        try:
            return {"init() ms": 1000 * init_s / count, **_in_turn(runs, max(1, records // count), before)}
        finally:
            for run in runs:
                run.finish()


def _open(folder: Path) -> asynctrack.Run:
    return asynctrack.init("bench", dir=folder, queue_bytes=SMALLEST_RING_BYTES, finish_timeout_s=120.0)


def _in_turn(runs: list[asynctrack.Run], each: int, caller_bytes: int) -> Figures:
    _round(runs, 0)
    _all_delivered(runs)
    before = _use(runs[0])
    took = 0
    for step in range(1, each + 1):
        took += _round(runs, step)
        if step % 100 == 0:
            runs[-1].flush("journaled")
    _all_delivered(runs)
    after, records = _use(runs[0]), each * len(runs)
    return {
        "log() us": took / 1000 / records,
        **_cpu(before, after, records),
        "caller KiB/run": max(0, after.caller_bytes - caller_bytes) / 1024 / len(runs),
        "worker MiB": after.worker_bytes / MIB,
        "idle % of a core": _idle_percent(runs[0]),
        "dropped": sum(map(dropped, runs)),
    }


def _round(runs: list[asynctrack.Run], step: int) -> int:
    """Log a record to each run, and return the nanoseconds of it, the making included."""
    began = time.perf_counter_ns()
    for run in runs:
        run.log({"loss": 0.5 + step * 1e-7, "accuracy": 0.9 - step * 1e-8, "epoch": step // 1000}, step=step)
    return time.perf_counter_ns() - began


def _all_delivered(runs: list[asynctrack.Run]) -> None:
    for run in runs:
        run.flush("delivered", timeout_s=60.0)


def _idle_percent(run: asynctrack.Run, seconds: float = 2.0) -> float:
    worker = run._publisher.producer.ring.words[WORKER_PID]
    before = threads_cpu_s(worker)
    time.sleep(seconds)
    return 100 * (threads_cpu_s(worker) - before) / seconds


# The report


def _table(title: str, column: str, found: dict[int, list[Figures]]) -> Table:
    rows: list[dict[str, Any]] = [
        {column: count, **{name: spread([one[name] for one in rounds]) for name in rounds[0]}}
        for count, rounds in sorted(found.items())
    ]
    return Table(title, rows)


def _bars(*found: dict[int, list[Figures]]) -> list[Bar]:
    records, keys, runs = found
    few, many = max(count for count in records if count <= max(records) // 10), max(records)
    grown = _middle(records, many, "caller MiB") - _middle(records, few, "caller MiB")
    worker = _middle(records, many, "worker MiB") - _middle(records, few, "worker MiB")
    return [
        *(
            bar(f"{name}: {many:,} records against {few:,}", SAME, _grown(records, few, many, name), "x")
            for name in ("log() us", "CPU us/record")
        ),
        bar(f"caller's own memory, from {few:,} records to {many:,}, grown by", 2.0, grown, "MiB"),
        bar(f"worker's own memory, from {few:,} records to {many:,}, grown by", 2.0, worker, "MiB"),
        *(
            bar(f"{name}: {max(keys):,} keys against 100", SAME, _grown(keys, 100, max(keys), name), "x")
            for name in ("log() ns/value", "CPU us/value")
        ),
        bar(f"CPU us/record: {max(runs):,} open runs against 10", 2.0, _grown(runs, 10, max(runs), "CPU us/record"), "x"),
        bar("records dropped", 0, sum(one["dropped"] for table in found for rounds in table.values() for one in rounds)),
    ]  # fmt: skip


def _grown(found: dict[int, list[Figures]], few: int, many: int, name: str) -> float:
    return _middle(found, many, name) / _middle(found, few, name)


def _middle(found: dict[int, list[Figures]], count: int, name: str) -> float:
    seen: Spread = spread([one[name] for one in found[count]])
    return seen.median


if __name__ == "__main__":
    main(__doc__, measure)
