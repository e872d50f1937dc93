"""Does `run.log()` take any longer when something behind it has stopped?

In a tight loop and between steps of 200 us: with the worker stopped (SIGSTOP), with the journal's disk full, with a disk that
does not answer, with no room left in shared memory, with a backend that always fails and one that hangs; and when the queue is
full as well, so that every record is dropped. Each against a run whose worker does its work, in alternating blocks of a few
milliseconds; and a second such run, which shows how much of the answer is the machine's own noise. In the end everything works
again: what `log()` returned is compared with the statistics, and the statistics with the journal.

Takes about five minutes, and 400 MB of memory. Needs the right to mount (root) for all but the worker and the backends; without it the
other rows are left out. Nothing that is filled or frozen here is seen by other processes. Wants two free cores.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import asynctrack
from asynctrack.backends.base import Retry
from asynctrack.journal.tally import Tally
from asynctrack.queue.layout import WORKER_PID
from bench import mounts
from bench.blocks import NOTHING, Blocks, Cycle, Shape, Subject, pooled, ratio, timer_ns
from bench.harness import (
    PERCENTILES,
    Bar,
    Report,
    Table,
    bar,
    main,
    open_run,
    own_worker,
    percentiles_us,
    say,
    spread,
    spreads,
)
from bench.work import numpy_step

NORMAL: Final = "normal"
CONTROL: Final = "normal, a second run"
DROPS: Final = "queue full"
# How much longer a call may take and still be "the same": what two normal runs differ by, and a little.
SAME: Final = 1.25
QUEUE_BYTES: Final = 4 << 20
# What one round logs into its queue, journal and JSON Lines.
_DISK_BYTES: Final = 96 << 20
_SHARED_BYTES: Final = 8 << 20
# Long enough for the caller to miss the heartbeat and to look for the worker; and not the 10 s after which it kills it.
_STALLED_BEFORE_S: Final = 0.6
_LONGEST_EPISODE_S: Final = 7.0
# A record takes 120 bytes in the queue, and no episode may fill it.
_MOST_IN_QUEUE: Final = QUEUE_BYTES * 9 // 10 // 128
_TIGHT: Final = Shape(timed=500, discarded=50)
_PACED: Final = Shape(timed=60, discarded=5)
_RETRY_S: Final = 0.2

_backends_up = threading.Event()

Rounds = list[list[Cycle]]
Stall = Callable[[asynctrack.Run], contextlib.AbstractContextManager[object]]


class Down(asynctrack.Backend, frozen=True, kw_only=True):
    """Takes batches while `_backends_up` is set; else it raises, or hangs."""

    hangs: bool = False

    def open(self, context: asynctrack.Context) -> asynctrack.Sink:
        return DownSink(self.hangs)


class DownSink(asynctrack.Sink):
    def __init__(self, hangs: bool) -> None:
        self._hangs = hangs

    def write(self, batch: asynctrack.Batch) -> None:
        if self._hangs:
            _backends_up.wait()
        elif not _backends_up.is_set():
            raise Retry("it is down", _RETRY_S)


@dataclass(frozen=True)
class Condition:
    """A fault behind a run, for the time of an episode.

    Attributes:
        name: in the tables.
        stall: begins with the episode and ends with it.
        drops: True if the queue is full before the first call that counts.
        below: the directory in which the run's directory is made, None for `TMPDIR`.
        shared_memory: the directory for its queue, None for `/dev/shm`.
        backends: of the run.
    """

    name: str
    stall: Stall = lambda run: contextlib.nullcontext()
    drops: bool = False
    below: Path | None = None
    shared_memory: Path | None = None
    backends: tuple[asynctrack.Backend, ...] = (asynctrack.JSONLines(),)


@dataclass
class Count:
    """The counts of what `log()` returned, and the statistics at the end.

    Attributes:
        returned: how often False, how often True.
        stats: the statistics of the finished runs.
        journaled: records in their journals, by a tally of their headers.
    """

    returned: list[int] = field(default_factory=lambda: [0, 0])
    stats: list[asynctrack.RunStats] = field(default_factory=list)
    journaled: int = 0

    @property
    def accepted(self) -> int:
        return sum(stats.accepted for stats in self.stats)

    @property
    def dropped(self) -> int:
        return sum(sum(stats.dropped.values()) for stats in self.stats)

    @property
    def delivered(self) -> int:
        return sum(backend.delivered for stats in self.stats for backend in stats.backends.values())

    @property
    def wrong(self) -> int:
        """Return by how many records they disagree."""
        dropped, accepted = self.returned
        return abs(dropped - self.dropped) + sum(
            abs(accepted - it) for it in (self.accepted, self.journaled, self.delivered)
        )


class Session:
    """The runs of one round, each with a worker of its own."""

    def __init__(self, conditions: Sequence[Condition], counts: dict[str, Count], opened: contextlib.ExitStack) -> None:
        self._conditions = conditions
        self._runs: dict[str, asynctrack.Run] = {}
        self._counts = counts
        _backends_up.set()
        for condition in conditions:
            self._runs[condition.name] = self._open(condition, opened)
        self._plain = [self._subject(condition) for condition in conditions]
        for subject, run in zip(self._plain, self._runs.values(), strict=True):
            producer = run._publisher.producer
            while producer.head < producer.capacity:  # until then the kernel maps a page for every 4 KiB
                subject.untimed(0, 2000)
                run.flush("journaled")

    def tight(self, episodes: int) -> list[Cycle]:
        return self._measure(Blocks(self._plain, _TIGHT), _cycles(_TIGHT), episodes)

    def paced(self, episodes: int, cycles: int) -> list[Cycle]:
        between: dict[str, Any] = {"names": {"work": numpy_step()}, "before": "work()"}
        subjects = [Subject(NOTHING, "pass", **between)]
        subjects += [self._subject(condition, **between) for condition in self._conditions]
        return self._measure(Blocks(subjects, _PACED), cycles, episodes)

    def close(self) -> None:
        """Finish all runs and collect their statistics."""
        for name, run in self._runs.items():
            count = self._counts[name]
            count.stats.append(run.finish())
            tally = Tally(run.path / "journal")
            tally.update()
            count.journaled += tally.records()
            tally.close()

    def _open(self, condition: Condition, opened: contextlib.ExitStack) -> asynctrack.Run:
        with own_worker(condition.shared_memory):
            run = opened.enter_context(
                open_run(condition.below, backends=condition.backends, queue_bytes=QUEUE_BYTES, finish_timeout_s=120.0)
            )
        if condition.shared_memory is not None:
            opened.enter_context(mounts.full(condition.shared_memory))
        return run

    def _subject(self, condition: Condition, *, names: dict[str, Any] | None = None, before: str = "pass") -> Subject:
        return Subject(
            condition.name,
            "taken = run.log(data, step=step)",
            names={
                "run": self._runs[condition.name],
                "returned": self._counts[condition.name].returned,
                **(names or {}),
            },
            before=before,
            after="returned[taken] += 1",
        )

    def _measure(self, blocks: Blocks, cycles: int, episodes: int) -> list[Cycle]:
        measured = []
        for _ in range(episodes):
            with contextlib.ExitStack() as stalled:
                for condition in self._conditions:
                    stalled.enter_context(condition.stall(self._runs[condition.name]))
                time.sleep(_STALLED_BEFORE_S)
                for condition, subject in zip(self._conditions, self._plain, strict=True):
                    if condition.drops:
                        _fill(subject, self._counts[condition.name])
                until = time.monotonic() + _LONGEST_EPISODE_S
                for _ in range(cycles):
                    if time.monotonic() < until:
                        measured += blocks.round(1, warm_up=0)
            for run in self._runs.values():
                run.flush("delivered", timeout_s=120.0)
        return measured


def measure(quick: bool) -> Report:
    rounds, episodes, cycles = (2, 1, 10) if quick else (6, 4, 25)
    tight: Rounds = []
    paced: Rounds = []
    counts: dict[str, Count] = {}
    missing: list[str] = []
    for number in range(1, rounds + 1):
        say(f"round {number} of {rounds}")
        with contextlib.ExitStack() as opened:
            conditions = _conditions(opened, missing)
            for condition in conditions:
                counts.setdefault(condition.name, Count())
            session = Session(conditions, counts, opened)
            tight.append(session.tight(episodes))
            paced.append(session.paced(episodes, cycles))
            session.close()
    dropping = [condition.name for condition in conditions if condition.drops]
    tables = [
        _table("Tight loop, us", tight),
        _table("Between NumPy steps of 200 us, us", paced),
        Table("What log() returned, and the statistics", [_count_row(name, count) for name, count in counts.items()]),
    ]
    bars = [
        *_bars("tight loop", tight, dropping),
        *_bars("between NumPy steps", paced, dropping),
        bar(
            "records by which returned values, statistics, journal and backends differ",
            0,
            sum(count.wrong for count in counts.values()),
        ),
    ]
    return Report(tables, bars, [*NOTES, *dict.fromkeys(missing)])


NOTES: Final = [
    "median [min..max] over the rounds, each with runs of its own; p50 to max less what reading the clock takes in the same place (the row 'nothing').",
    "x p50: against 'normal' in blocks a few milliseconds away, the median over them; x p99, x p99.9: of all calls of a round against all of 'normal' in it. "
    "The row of the second normal run shows what these are worth.",
    f"{DROPS}: the calls that count come after the first that returned False; every one of them is turned away and counted.",
    "worker stopped: SIGSTOP. disk full: a tmpfs with no block left below `dir`, and a worker that tries again. disk does not answer: an ext4 that is frozen, so that "
    "write() and fsync() wait. /dev/shm full: filled after `init`, for the whole run. backend: on a thread of the caller, where it is nearest to the loop; it raises "
    f"Retry every {_RETRY_S} s, or does not return.",
    "the machine has no slow disk; one that does not answer for seconds is slower than any.",
    "returned: all calls, warm-up too. journaled: a tally of the journals' headers after the end. Each stall has ended by then; a record that log() returned True for must be there.",
    "max is the machine's scheduling more than the call's; with the worker gone quiet about one call in 2,000 looks after it.",
]


def _conditions(opened: contextlib.ExitStack, missing: list[str]) -> list[Condition]:
    """Return the conditions that this machine allows."""
    down = _backends_down
    found = [
        Condition(NORMAL),
        Condition(CONTROL),
        Condition("worker stopped", _worker_stopped),
        Condition(f"worker stopped, {DROPS}", _worker_stopped, drops=True),
        Condition("backend fails", down, backends=(Down(),)),
        Condition("backend hangs", down, backends=(Down(hangs=True),)),
    ]
    if not mounts.allowed():
        missing.append("not measured: disk full, disk does not answer, /dev/shm full: mounting is not allowed here.")
        return found
    room, full = (opened.enter_context(mounts.memory(_DISK_BYTES)) for _ in range(2))
    shared = opened.enter_context(mounts.memory(_SHARED_BYTES))
    found += [
        Condition("disk full", lambda run: mounts.full(room), below=room),
        Condition(f"disk full, {DROPS}", lambda run: mounts.full(full), drops=True, below=full),
        Condition("/dev/shm full", shared_memory=shared),
    ]
    disk = opened.enter_context(mounts.disk())
    if disk is None:
        missing.append("not measured: disk does not answer: there are no loop devices here.")
    else:
        found.append(Condition("disk does not answer", lambda run: mounts.frozen(disk), below=disk))
    return found


@contextlib.contextmanager
def _worker_stopped(run: asynctrack.Run) -> Iterator[None]:
    pid = run._publisher.producer.ring.words[WORKER_PID]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def _backends_down(run: asynctrack.Run) -> Iterator[None]:
    _backends_up.clear()
    try:
        yield
    finally:
        _backends_up.set()


def _fill(subject: Subject, count: Count) -> None:
    """Log until the queue is full."""
    dropped = count.returned[False]
    while count.returned[False] == dropped:
        subject.untimed(0, 100)


def _cycles(shape: Shape) -> int:
    """Return how many cycles fit into a queue that nobody empties."""
    return _MOST_IN_QUEUE // (shape.timed + shape.discarded)


def _table(title: str, rounds: Rounds) -> Table:
    return Table(title, [_row(name, rounds) for name in rounds[0][0]])


def _row(name: str, rounds: Rounds) -> dict[str, Any]:
    figures = [_figures(name, cycles) for cycles in rounds]
    row: dict[str, Any] = {"condition": name, **spreads([percentiles for percentiles, _ in figures])}
    return {**row, **(spreads([ratios for _, ratios in figures]) if figures[0][1] else {})}


def _figures(name: str, cycles: list[Cycle]) -> tuple[dict[str, float], dict[str, float]]:
    """Return percentiles in microseconds, and how many times those of `normal` they are."""
    if name == NOTHING:
        return percentiles_us(pooled(cycles, name), 0.0), {}
    timer = timer_ns(cycles)
    own, normal = (percentiles_us(pooled(cycles, which), timer) for which in (name, NORMAL))
    if name == NORMAL:
        return own, {}
    tails = {f"x {tail}": own[tail] / normal[tail] for tail in ("p99", "p99.9")}
    return own, {"x p50": ratio(cycles, name, NORMAL), **tails}


def _count_row(name: str, count: Count) -> dict[str, Any]:
    dropped, accepted = count.returned
    return {
        "condition": name,
        "True": accepted,
        "accepted": count.accepted,
        "journaled": count.journaled,
        "delivered": count.delivered,
        "False": dropped,
        "dropped": count.dropped,
        "agree": "no" if count.wrong else "yes",
    }


def _bars(where: str, rounds: Rounds, dropping: list[str]) -> list[Bar]:
    """Return for each percentile the worst condition, with room in the queue and without."""
    ratios = {
        name: {tail: spread(_figures(name, cycles)[1][f"x {tail}"] for cycles in rounds).median for tail in PERCENTILES}
        for name in rounds[0][0]
        if name not in (NOTHING, NORMAL)
    }
    control = ratios.pop(CONTROL)
    stalled = {name: tails for name, tails in ratios.items() if name not in dropping}
    full = {name: tails for name, tails in ratios.items() if name in dropping}
    bars = []
    for group in (stalled, full):
        for tail in PERCENTILES:
            seen, worst = max((tails[tail], name) for name, tails in group.items())
            bars.append(
                bar(f"{where}, {tail} against normal: {worst} (control {control[tail]:.2g} x)", SAME, seen, "x")
            )
    return bars


if __name__ == "__main__":
    mounts.begin_anew("bench.stalls")
    main(__doc__, measure)
