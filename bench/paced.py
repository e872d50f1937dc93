"""A process that logs at a steady rate and says every second how that went: `bench.soak` watches it from outside.

Its own memory does not grow: what it counts and times has its place from the beginning.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from array import array
from time import perf_counter_ns

import asynctrack
from bench.record import record

# A loop that wakes a thousand times a second, as one with short steps does.
TICKS_PER_S = 1000
# Every tenth call goes into the percentiles, every call into the greatest.
_SAMPLED = 10


class Loop:
    """A run, and the records that were logged to it.

    Args:
        run: an open one.
        rate: records a second.
    """

    def __init__(self, run: asynctrack.Run, rate: int) -> None:
        self.stopped = False
        self._run = run
        self._per_tick = rate // TICKS_PER_S
        self._samples_ns = array("Q", bytes(8 * (rate // _SAMPLED)))
        self._step = 0
        self._taken = 0

    def last(self, seconds: int) -> None:
        """Log for `seconds`; a record that is late catches up."""
        began = time.perf_counter()
        for second in range(1, seconds + 1):
            if not self.stopped:
                longest_ns = self._second(began + second - 1)
                _say(self._figures(longest_ns, late_s=time.perf_counter() - began - second))

    def end(self) -> None:
        began = time.perf_counter()
        stats = self._run.finish()
        _say(
            {
                "offered": self._step,
                "taken": self._taken,
                "accepted": stats.accepted,
                "dropped": sum(stats.dropped.values()),
                "finish_s": time.perf_counter() - began,
            }
        )

    def _second(self, began: float) -> int:
        log, clock, samples_ns = self._run.log, perf_counter_ns, self._samples_ns
        longest_ns = sampled = 0
        for tick in range(1, TICKS_PER_S + 1):
            for step in range(self._step, self._step + self._per_tick):
                data = record(step)
                before = clock()
                taken = log(data, step=step)
                took_ns = clock() - before
                self._taken += taken
                longest_ns = max(longest_ns, took_ns)
                if step % _SAMPLED == 0:
                    samples_ns[sampled] = took_ns
                    sampled += 1
            self._step += self._per_tick
            time.sleep(max(0.0, began + tick / TICKS_PER_S - time.perf_counter()))
        return longest_ns

    def _figures(self, longest_ns: int, late_s: float) -> dict[str, float]:
        ordered = sorted(self._samples_ns)
        return {
            "offered": self._step,
            "taken": self._taken,
            "late_s": late_s,
            "p50_ns": ordered[len(ordered) // 2],
            "p99_ns": ordered[len(ordered) * 99 // 100],
            "max_ns": longest_ns,
        }


def _say(figures: dict[str, float]) -> None:
    print(json.dumps(figures), flush=True)


def main(directory: str, rate: str, seconds: str) -> None:
    run = asynctrack.init("bench", dir=directory, finish_timeout_s=120.0)
    loop = Loop(run, int(rate))
    signal.signal(signal.SIGINT, lambda *_: setattr(loop, "stopped", True))
    run.flush("delivered")
    print(run.path, flush=True)
    loop.last(int(seconds))
    loop.end()


if __name__ == "__main__":
    main(*sys.argv[1:])
