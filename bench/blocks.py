"""Alternating blocks of calls: every subject in turn, a few milliseconds each, so that a machine that changes its speed
every tenth of a second changes it for all alike.

A subject's call is source text, compiled into its loops as `timeit` does it: a wrapper around it would take as long as
what is measured. Each block has timed calls (for the percentiles) and untimed ones (for the rate). A cycle is one block of
each subject, in random order.
"""

from __future__ import annotations

import random
import threading
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from time import perf_counter_ns
from typing import Any, Final

from bench.harness import percentile

# What is logged: 4 floats, an integer and a short string, made afresh for each call as a loop does; outside of the times.
RECORD: Final = (
    '{"loss": 0.5 + step * 1e-7, "accuracy": 0.9 - step * 1e-8, "lr": 0.001 + step * 1e-9, "grad_norm": step * 0.5, '
    '"epoch": step // 1000, "phase": "train"}'
)
NOTHING: Final = "nothing"

_SOURCE: Final = """
def timed(first, count, add, clock):
    for step in range(first, first + count):
        {before}
        data = {make}
        began = clock()
        {call}
        add(clock() - began)
        {after}

def untimed(first, count):
    for step in range(first, first + count):
        {before}
        data = {make}
        {call}
        {after}
"""

Timed = Callable[[int, int, Callable[[int], None], Callable[[], int]], None]


class Subject:
    """One way to log a record.

    Args:
        name: in the tables.
        call: a statement with `data` and `step`.
        names: the other names that the statement uses.
        make: an expression for `data`.
        before: a statement before each record is made.
        after: a statement after each call, outside of the time.
        settle: called after each block, outside of the time: empties a queue, waits for the worker.
    """

    def __init__(
        self,
        name: str,
        call: str,
        *,
        names: dict[str, Any] | None = None,
        make: str = RECORD,
        before: str = "pass",
        after: str = "pass",
        settle: Callable[[], object] = lambda: None,
    ) -> None:
        self.name = name
        self.settle = settle
        compiled = dict(names or {})
        exec(_SOURCE.format(call=call, make=make, before=before, after=after), compiled)
        self.timed: Timed = compiled["timed"]
        self.untimed: Callable[[int, int], None] = compiled["untimed"]


@dataclass
class Block:
    """The times of one subject in one cycle.

    Attributes:
        samples_ns: each timed call, reading the clock included.
        loop_ns: of the untimed loop, per call, making the record included; with threads, of all of them together.
    """

    samples_ns: array[int] = field(default_factory=lambda: array("Q"))
    loop_ns: float = 0.0

    @property
    def p50_ns(self) -> int:
        return percentile(sorted(self.samples_ns), 0.5)


Cycle = dict[str, Block]


@dataclass(frozen=True)
class Shape:
    """The length of a block.

    Attributes:
        timed: calls of each thread for the percentiles.
        untimed: calls of each thread for the rate.
        threads: that make these calls at once.
        discarded: calls before them, since the block of the subject before has left its own code and data in the caches.
    """

    timed: int
    untimed: int = 0
    threads: int = 1
    discarded: int = 200


class Blocks:
    """Runs cycles over these subjects; steps go on from one cycle to the next."""

    def __init__(self, subjects: Sequence[Subject], shape: Shape) -> None:
        self._subjects = [Subject(NOTHING, "pass"), *subjects]
        if any(subject.name == NOTHING for subject in subjects):
            self._subjects = list(subjects)
        self._shape = shape
        self._step = 0
        self._random = random.Random(1)

    def round(self, cycles: int, warm_up: int = 3) -> list[Cycle]:
        """Run `cycles` cycles, after a few that do not count: until then caches, branches and the ring's pages are cold."""
        return [self._cycle() for _ in range(warm_up + cycles)][warm_up:]

    def _cycle(self) -> Cycle:
        cycle = {subject.name: Block() for subject in self._subjects}
        for subject in self._random.sample(self._subjects, len(self._subjects)):
            block, shape = cycle[subject.name], self._shape
            subject.untimed(self._step, shape.discarded)
            if shape.untimed:
                block.loop_ns = _rate(subject, self._step, shape)
            _time(subject, self._step, shape, block.samples_ns)
            subject.settle()
        self._step += self._shape.timed
        return cycle


def _time(subject: Subject, first: int, shape: Shape, samples_ns: array[int]) -> None:
    if shape.threads == 1:
        subject.timed(first, shape.timed, samples_ns.append, perf_counter_ns)
        return
    parts = [array("Q") for _ in range(shape.threads)]
    _in_threads([partial(subject.timed, first, shape.timed, part.append, perf_counter_ns) for part in parts])
    for part in parts:
        samples_ns.extend(part)


def _rate(subject: Subject, first: int, shape: Shape) -> float:
    if shape.threads == 1:
        began = perf_counter_ns()
        subject.untimed(first, shape.untimed)
        return (perf_counter_ns() - began) / shape.untimed
    took_ns = _in_threads([partial(subject.untimed, first, shape.untimed)] * shape.threads)
    return took_ns / (shape.untimed * shape.threads)


def _in_threads(calls: Sequence[Callable[[], None]]) -> int:
    """Make these calls at once, and return the nanoseconds from the first start to the last end."""
    gate = threading.Barrier(len(calls))
    times: list[int] = []

    def run(call: Callable[[], None]) -> None:
        gate.wait()
        times.append(perf_counter_ns())
        call()
        times.append(perf_counter_ns())

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return max(times) - min(times)


def pooled(cycles: Sequence[Cycle], name: str) -> array[int]:
    """Return all timed calls of a subject."""
    samples = array("Q")
    for cycle in cycles:
        samples.extend(cycle[name].samples_ns)
    return samples


def timer_ns(cycles: Sequence[Cycle]) -> float:
    """Return the time to read the clock in this very place: the median of the calls that do nothing."""
    return percentile(sorted(pooled(cycles, NOTHING)), 0.5)


def call_ns(cycles: Sequence[Cycle], name: str) -> float:
    """Return the time of a call in an untimed loop, without the loop and the making of the record: the median over the cycles."""
    return median(cycle[name].loop_ns - cycle[NOTHING].loop_ns for cycle in cycles)


def ratio(cycles: Sequence[Cycle], name: str, to: str) -> float:
    """Return how many times as long a call takes as another: p50 against p50 within a cycle, the median over the cycles."""
    return median(
        (cycle[name].p50_ns - cycle[NOTHING].p50_ns) / max(cycle[to].p50_ns - cycle[NOTHING].p50_ns, 1)
        for cycle in cycles
    )


def at_full_speed(cycles: Sequence[Cycle], gauge: str) -> list[Cycle]:
    """Return the cycles in which the machine ran at the faster of its speeds, judged by how long the `gauge` took in them."""
    times = sorted(cycle[gauge].p50_ns for cycle in cycles)
    limit = 1.2 * percentile(times, 0.1)  # its speeds are a factor of 1.3 to 2 apart
    return [cycle for cycle in cycles if cycle[gauge].p50_ns <= limit]
