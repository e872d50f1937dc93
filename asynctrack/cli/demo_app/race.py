"""Four annealers race as tasks of one event loop and log each step, in slices with and without tracking.

Runs on the caller's thread. The slices alternate, each about 0.1 s, because a machine's speed drifts by more than
tracking costs: what is compared is always a slice and its two neighbours. Only the time spent in steps counts, so
that the display burdens neither kind. An untracked slice runs the same lines with a log that does nothing.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter, perf_counter_ns
from typing import Protocol

import anyio
import anyio.lowlevel

from asynctrack.cli.demo_app.annealing import Annealer
from asynctrack.cli.demo_app.berlin52 import distances

__all__ = ["ANNEALERS", "LogFunction", "LogTimes", "Race", "Slice", "speed_with_tracking"]

ANNEALERS = 4
SLICE_S = 0.1  # or a 50th of the time, where that is less: then there are always two dozen to compare
STEPS_PER_TURN = 5  # about 1 ms, after which the event loop gets its turn
TIMED_EVERY = 4  # steps: enough calls for a p99, and reading the clock costs the loop 0.03 us a step
RESERVE = 0.05  # of the time, for annealers to be cold a little before it is over
FIRST_GUESS_PER_S = 1000.0  # steps of one annealer, until the first slice has shown it


class LogFunction(Protocol):
    """`Run.log`, or a function that stands in for it."""

    def __call__(self, data: Mapping[str, float], step: int | None = None) -> bool:
        """Take one record, and return True if it was accepted."""


def no_log(data: Mapping[str, float], step: int | None = None) -> bool:
    """Do nothing: the log of the untracked slices."""
    return True


@dataclass
class Slice:
    """A stretch of time in which all steps are tracked, or none."""

    tracked: bool
    ends_at: float
    steps: int = 0
    busy_ns: int = 0

    @property
    def steps_per_s(self) -> float:
        """Return the steps per second, counting only the time spent in steps."""
        return self.steps * 1e9 / self.busy_ns if self.busy_ns else 0.0


@dataclass(frozen=True)
class LogTimes:
    """Percentiles of the timed calls of log(), in nanoseconds, without the time to read the clock."""

    calls: int
    timer_ns: int
    p50_ns: int
    p99_ns: int

    @classmethod
    def of(cls, times_ns: Sequence[int]) -> LogTimes:
        """Compute the percentiles of `times_ns`, which still include reading the clock."""
        timer_ns = _timer_ns()
        ordered = sorted(times_ns) or [timer_ns]
        p50, p99 = (ordered[int(len(ordered) * part)] - timer_ns for part in (0.5, 0.99))
        return cls(len(times_ns), timer_ns, max(p50, 0), max(p99, 0))


class Race:
    """Four annealers that share a thread for `seconds`, with one, two, three and four annealings each.

    Trial `t` belongs to annealer `t % ANNEALERS`. Steps are counted by each annealer on its own.
    """

    def __init__(self, log: LogFunction, *, seconds: float, seed: int, alternate: bool = True) -> None:
        self.steps = [0] * ANNEALERS
        self.slices: list[Slice] = []
        self.times_ns = array("Q")
        self.seconds = seconds
        self.started_at = self.ends_at = perf_counter()
        table = distances()
        self.annealers = [
            Annealer(table, f"{seed}/{k}", cooling=1.0, runs=k + 1, first_trial=k, trial_stride=ANNEALERS)
            for k in range(ANNEALERS)
        ]
        self._log = log
        self.slice_s = min(SLICE_S, seconds / 50)
        self._alternate = alternate
        self._unused_times_ns = array("Q")

    def __repr__(self) -> str:
        return f"<Race of {self.elapsed_s:.1f} s, {sum(self.steps)} steps, best {self.best.best_length}>"

    @property
    def best(self) -> Annealer:
        """Return the annealer that has found the shortest tour so far."""
        return min(self.annealers, key=lambda annealer: annealer.best_length)

    @property
    def records(self) -> int:
        """Return how many steps have been logged so far."""
        return sum(part.steps for part in self.slices if part.tracked)

    @property
    def elapsed_s(self) -> float:
        """Return how long the race has been running, at most `seconds`."""
        return min(perf_counter() - self.started_at, self.seconds)

    def run_of(self, k: int) -> int:
        """Return which of its annealings annealer `k` is at, from 1."""
        return self.annealers[k].trial // ANNEALERS + 1

    async def run(self, watch: Callable[[Race], None] | None = None, every_s: float = 0.13) -> None:
        """Race for `seconds`. `watch` is called every `every_s`, which should be no multiple of a slice."""
        self.started_at = perf_counter()
        self.ends_at = self.started_at + self.seconds
        self._next_slice(self.started_at)
        try:
            async with anyio.create_task_group() as outer:
                if watch is not None:
                    outer.start_soon(self._watch, watch, every_s)
                async with anyio.create_task_group() as racers:
                    for k in range(ANNEALERS):
                        racers.start_soon(self._anneal, k)
                outer.cancel_scope.cancel()
        finally:
            self.seconds = self.elapsed_s  # less than was planned after Ctrl-C

    async def _watch(self, watch: Callable[[Race], None], every_s: float) -> None:
        while True:
            watch(self)
            await anyio.sleep(every_s)

    async def _anneal(self, k: int) -> None:
        while (now := perf_counter()) < self.ends_at:
            if now >= self.slices[-1].ends_at:
                self._next_slice(now)
            self._turn(k, self.slices[-1])
            await anyio.lowlevel.checkpoint()

    def _turn(self, k: int, part: Slice) -> None:
        """Make a few steps of one annealer."""
        log, times_ns = (self._log, self.times_ns) if part.tracked else (no_log, self._unused_times_ns)
        annealer, clock, first = self.annealers[k], perf_counter_ns, self.steps[k]
        began = clock()
        for number in range(first, first + STEPS_PER_TURN):
            step = annealer.step()
            data = {
                "length": step.length,
                "best": step.best,
                "temperature": step.temperature,
                "accepted": step.accepted,
                "trial": step.trial,
            }
            if number % TIMED_EVERY:
                log(data, step=number)
            else:
                before = clock()
                log(data, step=number)
                times_ns.append(clock() - before)
        part.busy_ns += clock() - began
        part.steps += STEPS_PER_TURN
        self.steps[k] = first + STEPS_PER_TURN

    def _next_slice(self, now: float) -> None:
        del self._unused_times_ns[:]
        per_s = self._annealer_steps_per_s(now)
        for annealer in self.annealers:
            annealer.pace(per_s * (self.ends_at - now - RESERVE * self.seconds))
        tracked = not (self._alternate and self.slices and self.slices[-1].tracked)
        self.slices.append(Slice(tracked, now + self.slice_s))

    def _annealer_steps_per_s(self, now: float) -> float:
        steps = sum(self.steps)
        return steps / ANNEALERS / (now - self.started_at) if steps else FIRST_GUESS_PER_S


def speed_with_tracking(slices: Sequence[Slice]) -> float | None:
    """Compare the loop's speed with tracking to that without: the median ratio over all untracked slices.

    Each untracked slice is compared with the mean of its two neighbours, which takes out a drift of the machine or
    of the work (cold annealers step faster than hot ones). None where there is no such slice.
    """
    ratios = [
        (before.steps_per_s + after.steps_per_s) / 2 / bare.steps_per_s
        for before, bare, after in zip(slices, slices[1:], slices[2:], strict=False)
        if before.tracked and not bare.tracked and after.tracked and bare.steps
    ]
    return median(ratios) if ratios else None


def _timer_ns() -> int:
    """Measure reading the clock twice with nothing in between: the median of a thousand."""
    clock = perf_counter_ns
    return int(median(-(clock() - clock()) for _ in range(1000)))
