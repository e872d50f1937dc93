"""How long does `run.log()` take, for the loop that calls it?

In a tight loop and in four threads, against the bare encoders, the in-process queues and the obvious rival (encode, and
`os.write` to a file for every record), all in the same run; per type of value; between NumPy steps, where caches are
cold; and with the worker stopped.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec
import numpy

import asynctrack
from asynctrack.queue.layout import WORKER_PID
from bench.blocks import (
    NOTHING,
    Blocks,
    Cycle,
    Shape,
    Subject,
    at_full_speed,
    call_ns,
    pooled,
    ratio,
    timer_ns,
)
from bench.harness import Bar, Report, Table, bar, dropped, main, open_run, percentiles_us, say, spread, spreads
from bench.work import numpy_step

LOG: Final = "run.log(data, step=step)"
MSGPACK: Final = "msgspec.msgpack.encode(data)"
JSON: Final = "msgspec.json.encode(data)"
# Less than this is lost in the difference of two loops.
LEAST_CALL_NS: Final = 20
STOPPED_QUEUE_BYTES: Final = 4 << 20
# Long enough for the caller to miss the heartbeat and to look for the worker, far from the 10 s after which it kills it.
STOPPED_BEFORE_S: Final = 0.6

VALUES: Final = {
    "6 floats": '{"a": step * 0.1, "b": step * 0.2, "c": step * 0.3, "d": step * 0.4, "e": step * 0.5, "f": step * 0.6}',
    "6 integers": '{"a": step, "b": -step, "c": step * 3, "d": step % 7, "e": step << 20, "f": 0}',
    "6 strings of 12": '{"a": f"{step:012}", "b": "validation-1", "c": "validation-2", "d": "validation-3", '
    '"e": "validation-4", "f": "validation-5"}',
    "6 NumPy scalars": '{"a": f8(step), "b": f8(0.5), "c": f4(step), "d": f4(0.5), "e": i8(step), "f": i8(7)}',
    "10 floats": "{key: step * 0.5 for key in keys10}",
    "100 floats": "{key: step * 0.5 for key in keys100}",
    "2 dicts of 3 floats": '{"train": {"a": step * 0.1, "b": step * 0.2, "c": step * 0.3}, '
    '"test": {"a": step * 0.4, "b": step * 0.5, "c": step * 0.6}}',
    "float, array of 16": '{"a": step * 0.1, "b": array16}',
}

Rounds = list[list[Cycle]]


def measure(quick: bool) -> Report:
    rounds = 2 if quick else 5
    tight, tight_lost = _tight(rounds, cycles=6 if quick else 30)
    threads, threads_lost = _threads(rounds, cycles=1 if quick else 6)
    values, values_lost = _value_types(rounds, cycles=3 if quick else 15)
    cold, cold_lost = _between_numpy_steps(rounds, cycles=4 if quick else 25)
    running, stopped, stopped_lost = _worker_stopped(episodes=2 if quick else 8)
    lost = tight_lost + threads_lost + values_lost + cold_lost + stopped_lost
    tables = [
        _table("Tight loop, 1 thread, us", tight),
        _table("Tight loop, 1 thread, us: only while the machine ran at the faster of its speeds", _fast(tight)),
        _table("Tight loop, 4 threads at once, us", threads),
        *_value_tables(values),
        _table("Between NumPy steps of 200 us, us", cold),
        Table(
            "With the worker stopped (SIGSTOP), us",
            [_row("worker runs", running, LOG), _row("worker stopped", stopped, LOG)],
        ),
    ]
    bars = [*_bars(tight, cold, running, stopped), bar("records dropped in all of the above", 0, lost)]
    return Report(tables, bars, [*NOTES, _share_at_full_speed(tight)])


NOTES: Final = [
    "record: 4 floats, an integer, a short string, made afresh for each call outside of the times; it takes 104 bytes in "
    "the queue. Where an interval is given: median [min..max] over the rounds, each with a run of its own.",
    "p50 to max: each call timed, less what reading the clock takes in the same place (the row 'nothing': that is not "
    "subtracted from itself). calls/s: from untimed loops, less the loop and the making of the record.",
    "x json: p50 against the p50 of msgspec.json.encode in blocks a few milliseconds away; the median over all of them.",
    "max in a tight loop is the machine's scheduling more than the call's. Of every 600 calls one looks after the worker: "
    "that is p99.9.",
    "Not measured here: a full disk, backends that are down (the caller shares nothing with them), other platforms.",
]


def _tight(rounds: int, cycles: int) -> tuple[Rounds, int]:
    say("tight loop, 1 thread")
    return _rounds(rounds, cycles, Shape(timed=2000, untimed=2000), _rivals)


def _threads(rounds: int, cycles: int) -> tuple[Rounds, int]:
    say("tight loop, 4 threads")
    # 20,000 calls take longer than the interpreter's switch interval of 5 ms, so the threads do get in each other's way.
    return _rounds(rounds, cycles, Shape(timed=5000, untimed=5000, threads=4), _rivals)


def _value_types(rounds: int, cycles: int) -> tuple[Rounds, int]:
    say("types of values")
    return _rounds(rounds, cycles, Shape(timed=300), _value_subjects)


def _between_numpy_steps(rounds: int, cycles: int) -> tuple[Rounds, int]:
    say("between NumPy steps")
    return _rounds(rounds, cycles, Shape(timed=60, discarded=5), _cold_subjects)


def _rounds(
    rounds: int, cycles: int, shape: Shape, subjects: Callable[[asynctrack.Run, contextlib.ExitStack], list[Subject]]
) -> tuple[Rounds, int]:
    """So many rounds, each with a run of its own; and how many records were dropped."""
    measured, lost = [], 0
    for _ in range(rounds):
        with contextlib.ExitStack() as opened:
            run = opened.enter_context(open_run())
            measured.append(Blocks(subjects(run, opened), shape).round(cycles))
            lost += dropped(run)
    return measured, lost


def _log_subject(run: asynctrack.Run, **given: Any) -> Subject:
    given = {"name": LOG, "call": LOG, "settle": lambda: run.flush("journaled"), **given}
    return Subject(given.pop("name"), given.pop("call"), names={"run": run, **given.pop("names", {})}, **given)


def _rivals(run: asynctrack.Run, opened: contextlib.ExitStack) -> list[Subject]:
    """log(), what it could be made of, and what people do instead."""
    fd = opened.enter_context(_file())
    kept: deque[dict[str, object]] = deque()
    bounded: queue.Queue[dict[str, object]] = queue.Queue()
    disabled = asynctrack.init("bench", mode="disabled")
    plain = {"msgspec": msgspec}
    return [
        _log_subject(run),
        _log_subject(run, name="run.log(data)", call="run.log(data)"),
        Subject("run.log, mode='disabled'", LOG, names={"run": disabled}),
        Subject(JSON, JSON, names=plain),
        Subject(MSGPACK, MSGPACK, names=plain),
        Subject("deque.append(data.copy())", "append(data.copy())", names={"append": kept.append}, settle=kept.clear),
        Subject("queue.Queue.put(data)", "put(data)", names={"put": bounded.put}, settle=bounded.queue.clear),
        Subject(
            "os.write(fd, msgspec.json.encode(data))",
            'write(fd, msgspec.json.encode(data) + b"\\n")',
            names={**plain, "write": os.write, "fd": fd},
            settle=lambda: os.ftruncate(fd, 0),
        ),
    ]


def _value_subjects(run: asynctrack.Run, opened: contextlib.ExitStack) -> list[Subject]:
    names = {
        "keys10": [f"metric/{k:02}" for k in range(10)],
        "keys100": [f"metric/{k:02}" for k in range(100)],
        "array16": numpy.arange(16.0),
        "f8": numpy.float64,
        "f4": numpy.float32,
        "i8": numpy.int64,
        "encode": msgspec.msgpack.Encoder(enc_hook=lambda value: value.tolist()).encode,
    }
    subjects = []
    for kind, make in VALUES.items():
        subjects.append(_log_subject(run, name=f"log {kind}", make=make, names=names))
        subjects.append(Subject(f"encode {kind}", "encode(data)", make=make, names=names))
    return subjects


def _cold_subjects(run: asynctrack.Run, opened: contextlib.ExitStack) -> list[Subject]:
    work = {"work": numpy_step()}
    plain = {"msgspec": msgspec, **work}
    return [
        Subject(NOTHING, "pass", names=work, before="work()"),
        _log_subject(run, names=work, before="work()", settle=lambda: None),
        Subject(JSON, JSON, names=plain, before="work()"),
        Subject(MSGPACK, MSGPACK, names=plain, before="work()"),
    ]


def _worker_stopped(episodes: int) -> tuple[Rounds, Rounds, int]:
    """Episodes of a running and a stopped worker in turn."""
    say("worker stopped")
    running: Rounds = []
    stopped: Rounds = []
    # 12 blocks fill over half of the queue, which is when the caller begins to call for the worker.
    shape, cycles = Shape(timed=2000), 11
    with open_run(queue_bytes=STOPPED_QUEUE_BYTES) as run:
        blocks = Blocks([_log_subject(run, settle=lambda: None), Subject(JSON, JSON, names={"msgspec": msgspec})], shape)
        blocks.round(0, warm_up=2 * cycles)
        for _ in range(episodes):
            run.flush("journaled")
            running.append(blocks.round(cycles, warm_up=1))
            run.flush("delivered")
            with _stopped_worker(run):
                stopped.append(blocks.round(cycles, warm_up=1))
        return running, stopped, dropped(run)


@contextlib.contextmanager
def _stopped_worker(run: asynctrack.Run) -> Iterator[None]:
    pid = run._producer.ring.words[WORKER_PID]
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(STOPPED_BEFORE_S)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def _file() -> Iterator[int]:
    with tempfile.NamedTemporaryFile(prefix="asynctrack-bench-", buffering=0) as file:
        yield file.fileno()


def _fast(rounds: Rounds) -> Rounds:
    """The same rounds, only the cycles at full speed; as one round, since a round may have had none."""
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
    """The figures of one subject: the median and range over the rounds."""
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


def _value_tables(rounds: Rounds) -> Sequence[Table]:
    rows = []
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
    return [Table("Per type of value, us: log() and a bare msgspec.msgpack encoder (NumPy's by `tolist`)", rows)]


def _bars(tight: Rounds, cold: Rounds, running: Rounds, stopped: Rounds) -> list[Bar]:
    fast = _row("", _fast(tight), LOG)
    disabled = _row("", tight, "run.log, mode='disabled'")
    bars = [bar("log() in a tight loop, p50 against msgspec.json.encode", 3.5, _median_ratio(tight, LOG, JSON), "x")]
    for name, limit in {"p50": 1.5, "p99": 4.0, "p99.9": 20.0}.items():
        bars.append(bar(f"its {name} at the machine's faster speed", limit, fast[name].median, "us"))
    bars.append(
        bar("log() between NumPy steps, p50 against msgspec.msgpack.encode", 2.5, _median_ratio(cold, LOG, MSGPACK), "x")
    )
    bars.append(bar("log() with mode='disabled', p50", 0.1, disabled["p50"].median, "us"))
    for name in ("p50", "p99", "p99.9"):
        times = _row("", stopped, LOG)[name].median / max(_row("", running, LOG)[name].median, 1e-3)
        bars.append(bar(f"{name} with the worker stopped against running ('the same': within a quarter)", 1.25, times, "x"))
    return bars


def _median_ratio(rounds: Rounds, name: str, to: str) -> float:
    return spread(ratio(cycles, name, to) for cycles in rounds).median


if __name__ == "__main__":
    main(__doc__, measure)
