"""How long does `run.log()` take, for the loop that calls it?

In a tight loop and in four threads, against the bare encoders, the in-process queues and the obvious rival (encode, and
`os.write` to a file for every record), all in the same run; per type of value; between NumPy steps, where caches are
cold; in one to eight threads, beside busy processes, with a large heap, and with the worker stopped.

Takes two and a half minutes. Wants two free cores.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

import asynctrack
from asynctrack.queue.layout import HEAD, WORKER_PID
from bench.blocks import NOTHING, Blocks, Cycle, Shape, Subject, at_full_speed, call_ns, pooled, ratio, timer_ns
from bench.harness import Bar, Report, Table, bar, dropped, main, open_run, percentiles_us, say, spread, spreads
from bench.subjects import JSON, LOG, MSGPACK, VALUES, cold_subjects, json_subject, log_subject, rivals, value_subjects

# Against the p50 of msgspec.json.encode.
TAILS: Final = {"p99": 2.0, "p99.9": 10.0}
LIMITS_US: Final = {"p50": 1.5, "p99": 4.0, "p99.9": 20.0}
FIRST_RECORDS: Final = 20_000
LIVE_OBJECTS: Final = 1_000_000
# Less than this is lost in the difference of two loops.
LEAST_CALL_NS: Final = 20
# Long enough for the caller to miss the heartbeat and to look for the worker, far from the 10 s after which it kills it.
STOPPED_BEFORE_S: Final = 0.6

Rounds = list[list[Cycle]]


def measure(quick: bool) -> Report:
    rounds = 2 if quick else 5
    tight, tight_lost = _tight(rounds, cycles=6 if quick else 30)
    threads, threads_lost = _threads(rounds, cycles=1 if quick else 4)
    values, values_lost = _value_types(rounds, cycles=3 if quick else 15)
    cold, cold_lost = _between_numpy_steps(rounds, cycles=4 if quick else 25)
    first, first_lost = _first_records(2 * rounds)
    many, many_lost = _in_so_many_threads(rounds, cycles=2 if quick else 6)
    busy, busy_lost = _busy_cores(rounds, cycles=6 if quick else 30)
    heap, heap_lost = _large_heap(rounds, cycles=6 if quick else 30)
    running, stopped, stopped_lost = _worker_stopped(episodes=2 if quick else 8)
    lost = {
        "1 thread": tight_lost,
        "4 threads": threads_lost,
        "types": values_lost,
        "NumPy steps": cold_lost,
        "first records": first_lost,
        "1 to 8 threads": many_lost,
        "busy cores": busy_lost,
        "large heap": heap_lost,
        "stopped": stopped_lost,
    }
    tables = [
        _table("Tight loop, 1 thread, us", tight),
        _table("Tight loop, 1 thread, us: only while the machine ran at the faster of its speeds", _fast(tight)),
        _table("Tight loop, 4 threads at once, us", threads),
        _value_table(values),
        _table("Between NumPy steps of 200 us, us", cold),
        _threads_table(many),
        Table(
            "The state of the run, us: tight loop, 1 thread where nothing else is said",
            [
                _row(f"a run's first {FIRST_RECORDS:,} records", first, LOG),
                *(_row(f"{count} threads at once", of, LOG) for count, of in many.items() if count > 1),
                _row("a busy process for each core beside it", busy, LOG),
                _row(f"{LIVE_OBJECTS:,} objects alive, collected often", heap, LOG),
                _row("worker runs", running, LOG),
                _row("worker stopped (SIGSTOP)", stopped, LOG),
            ],
        ),
    ]
    bars = [
        *_bars(tight, cold, running, stopped),
        *(bar(f"records dropped: {name}", 0, count) for name, count in lost.items()),
    ]
    return Report(tables, bars, [_record_note(), *NOTES, _share_at_full_speed(tight)])


NOTES: Final = [
    "a [b..c]: the median and the range over the rounds, each with a run of its own. All but the row that says so come "
    "after the ring has been written to once: until then the kernel maps a page for every 4 KiB.",
    "p50 to max: each call timed, less what reading the clock takes in the same place (the row 'nothing': that is not "
    "subtracted from itself). calls/s: from untimed loops, less the loop and the making of the record.",
    "each block begins with calls that are not counted, since the block before has left its own code in the caches.",
    "x json: p50 against the p50 of msgspec.json.encode in blocks a few milliseconds away; the median over all of them.",
    "max is the machine's scheduling more than the call's. About one call in 2,000 looks after the worker, a little beyond p99.9.",
    "Not measured here: a full disk, backends that are down (the caller shares nothing with them), other platforms.",
]


def _tight(rounds: int, cycles: int) -> tuple[Rounds, int]:
    say("tight loop, 1 thread")
    return _rounds(rounds, cycles, Shape(timed=2000, untimed=2000), rivals)


def _threads(rounds: int, cycles: int) -> tuple[Rounds, int]:
    say("tight loop, 4 threads")
    # Each thread has more to do than fits between two switches of the interpreter (5 ms), so they do meet.
    return _rounds(rounds, cycles, Shape(timed=10_000, untimed=10_000, threads=4), rivals)


def _value_types(rounds: int, cycles: int) -> tuple[Rounds, int]:
    say("types of values")
    return _rounds(rounds, cycles, Shape(timed=300), value_subjects)


def _between_numpy_steps(rounds: int, cycles: int) -> tuple[Rounds, int]:
    say("between NumPy steps")
    return _rounds(rounds, cycles, Shape(timed=60, discarded=5), cold_subjects)


def _rounds(
    rounds: int, cycles: int, shape: Shape, subjects: Callable[[asynctrack.Run, contextlib.ExitStack], list[Subject]]
) -> tuple[Rounds, int]:
    """Run rounds with a run of their own each. Return them, and how many records were dropped."""
    measured, lost = [], 0
    for _ in range(rounds):
        with contextlib.ExitStack() as opened:
            run = opened.enter_context(open_run())
            _write_to_whole_ring(run)
            measured.append(Blocks(subjects(run, opened), shape).round(cycles))
            lost += dropped(run)
    return measured, lost


def _write_to_whole_ring(run: asynctrack.Run) -> None:
    producer = run._publisher.producer
    log = log_subject(run)
    while producer.head < producer.capacity:
        log.untimed(0, 2000)
        log.settle()


def _first_records(rounds: int) -> tuple[Rounds, int]:
    """Time the first records of a run."""
    say("a run's first records")
    shape = Shape(timed=FIRST_RECORDS // 10, discarded=0)
    measured, lost = [], 0
    for _ in range(rounds):
        with open_run() as run:
            time.sleep(0.5)  # the worker has nothing left to import
            measured.append(Blocks([log_subject(run), json_subject()], shape).round(10, warm_up=0))
            lost += dropped(run)
    return measured, lost


def _in_so_many_threads(rounds: int, cycles: int) -> tuple[dict[int, Rounds], int]:
    measured, lost = {}, 0
    for count in (1, 2, 4, 8):
        say(f"{count} threads")
        shape = Shape(timed=40_000 // count, threads=count)
        measured[count], dropped_here = _rounds(rounds, cycles, shape, _log_and_encoders)
        lost += dropped_here
    return measured, lost


def _busy_cores(rounds: int, cycles: int) -> tuple[Rounds, int]:
    """Measure with a process that computes on each core, so that the worker and the loop share them with others."""
    say("busy cores")
    spin = [sys.executable, "-c", "while True: pass"]
    spinners = [subprocess.Popen(spin) for _ in os.sched_getaffinity(0)]
    try:
        return _rounds(rounds, cycles, Shape(timed=2000), _log_and_json)
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


def _large_heap(rounds: int, cycles: int) -> tuple[Rounds, int]:
    """Measure with many objects for the garbage collector to visit, and a threshold that starts it at each tenth container."""
    say("large heap")
    kept = [[number] for number in range(LIVE_OBJECTS)]
    before = gc.get_threshold()
    gc.set_threshold(10)
    try:
        return _rounds(rounds, cycles, Shape(timed=2000), _log_and_json)
    finally:
        gc.set_threshold(*before)
        kept.clear()


def _log_and_json(run: asynctrack.Run, _: contextlib.ExitStack) -> list[Subject]:
    return [log_subject(run), json_subject()]


def _log_and_encoders(run: asynctrack.Run, opened: contextlib.ExitStack) -> list[Subject]:
    return [*_log_and_json(run, opened), Subject(MSGPACK, MSGPACK, names={"msgspec": msgspec})]


def _worker_stopped(episodes: int) -> tuple[Rounds, Rounds, int]:
    """Run episodes of a running and a stopped worker in turn."""
    say("worker stopped")
    running: Rounds = []
    stopped: Rounds = []
    shape = Shape(timed=2000)
    with open_run() as run:
        _write_to_whole_ring(run)
        blocks = Blocks([log_subject(run, settle=lambda: None), json_subject()], shape)
        # They fill over half of the queue, which is when the caller begins to call for the worker.
        cycles = int(0.7 * run._publisher.producer.capacity / _frame_bytes() / (shape.timed + shape.discarded))
        for _ in range(episodes):
            run.flush("delivered")
            running.append(blocks.round(cycles, warm_up=0))
            run.flush("delivered")
            with _stopped_worker(run):
                stopped.append(blocks.round(cycles, warm_up=0))
        return running, stopped, dropped(run)


@contextlib.contextmanager
def _stopped_worker(run: asynctrack.Run) -> Iterator[None]:
    pid = run._publisher.producer.ring.words[WORKER_PID]
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(STOPPED_BEFORE_S)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _frame_bytes() -> int:
    """Return how many bytes a record takes in the queue."""
    with open_run(backends=[]) as run:
        words = run._publisher.producer.ring.words
        before = words[HEAD]
        log_subject(run).untimed(100_000, 1)
        return words[HEAD] - before


def _record_note() -> str:
    return (
        "record: 4 floats, an integer, a short string, made afresh for each call outside of the times; it takes "
        f"{_frame_bytes()} bytes in the queue."
    )


def _fast(rounds: Rounds) -> Rounds:
    """Return only the cycles at full speed; as one round, since a round may have had none."""
    return [at_full_speed([cycle for cycles in rounds for cycle in cycles], JSON)]


def _share_at_full_speed(rounds: Rounds) -> str:
    part = sum(map(len, _fast(rounds))) / sum(map(len, rounds))
    return (
        f"The machine ran at the faster of its speeds in {part:.0%} of the cycles: those in which msgspec.json.encode "
        "took at most 1.2 times its p50 of the fastest tenth."
    )


def _table(title: str, rounds: Rounds) -> Table:
    return Table(title, [_row(name, rounds, name) for name in rounds[0][0]])


def _row(title: str, rounds: Rounds, name: str) -> dict[str, Any]:
    """Return the figures of one subject: the median and range over the rounds."""
    figures = []
    for cycles in rounds:
        own = {} if name == NOTHING else {"x json": ratio(cycles, name, JSON)}
        timer = 0.0 if name == NOTHING else timer_ns(cycles)
        figures.append({**percentiles_us(pooled(cycles, name), timer), **own})
    row: dict[str, Any] = {"call": title, **spreads(figures)}
    if name != NOTHING and rounds[0][0][name].loop_ns:
        mean_ns = spread(call_ns(cycles, name) for cycles in rounds).median
        row["calls/s"] = int(1e9 / mean_ns) if mean_ns > LEAST_CALL_NS else None
    return row


def _value_table(rounds: Rounds) -> Table:
    rows: list[dict[str, Any]] = []
    for kind in VALUES:
        log = [percentiles_us(pooled(cycles, f"log {kind}"), timer_ns(cycles)) for cycles in rounds]
        bare = [percentiles_us(pooled(cycles, f"encode {kind}"), timer_ns(cycles)) for cycles in rounds]
        rows.append(
            {
                "values": kind,
                "log p50": spread(figures["p50"] for figures in log),
                "log p99": spread(figures["p99"] for figures in log),
                "encode p50": spread(figures["p50"] for figures in bare),
                "x encode": spread(ratio(cycles, f"log {kind}", f"encode {kind}") for cycles in rounds),
            }
        )
    return Table(
        "Per type of value, us: log() and a bare msgspec.msgpack encoder (NumPy's scalars and arrays, which it does not know, by an `enc_hook` that calls `tolist`)",
        rows,
    )


def _threads_table(many: dict[int, Rounds]) -> Table:
    rows: list[dict[str, Any]] = []
    for count, rounds in many.items():
        log, bare = (
            [percentiles_us(pooled(cycles, name), timer_ns(cycles)) for cycles in rounds] for name in (LOG, MSGPACK)
        )
        rows.append(
            {
                "threads": count,
                "log p50": spread(figures["p50"] for figures in log),
                "log p99": spread(figures["p99"] for figures in log),
                "encode p50": spread(figures["p50"] for figures in bare),
                "encode p99": spread(figures["p99"] for figures in bare),
                "x encode": spread(ratio(cycles, LOG, MSGPACK) for cycles in rounds),
            }
        )
    return Table("In so many threads at once, us: log() and msgspec.msgpack.encode alone", rows)


def _bars(tight: Rounds, cold: Rounds, running: Rounds, stopped: Rounds) -> list[Bar]:
    fast, disabled = _row("", _fast(tight), LOG), _row("", tight, "run.log, mode='disabled'")
    live, alone = _row("", running, LOG), _row("", stopped, LOG)
    against_msgpack, json_us = "p50 against msgspec.msgpack.encode", _row("", tight, JSON)["p50"].median
    same = "worker stopped, {} against that of a running one ('the same': within a quarter)"
    return [
        bar(f"tight loop, {against_msgpack}", 1.0, _median_ratio(tight, LOG, MSGPACK), "x"),
        bar(f"between NumPy steps, {against_msgpack}", 1.0, _median_ratio(cold, LOG, MSGPACK), "x"),
        *(
            bar(
                f"tight loop, {name} against the p50 of msgspec.json.encode",
                limit,
                _row("", tight, LOG)[name].median / json_us,
                "x",
            )
            for name, limit in TAILS.items()
        ),
        *(
            bar(f"tight loop, {name} at the machine's faster speed", limit, fast[name].median, "us")
            for name, limit in LIMITS_US.items()
        ),
        bar("mode='disabled', p50", 0.1, disabled["p50"].median, "us"),
        *(bar(same.format(name), 1.25, alone[name].median / live[name].median, "x") for name in LIMITS_US),
    ]


def _median_ratio(rounds: Rounds, name: str, to: str) -> float:
    return spread(ratio(cycles, name, to) for cycles in rounds).median


if __name__ == "__main__":
    main(__doc__, measure)
