"""Steps of 200 us, for loops that have more to do than to log: matrix products that push everything else out of the caches,
and pure Python that never leaves the interpreter."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns
from typing import Final

import numpy

STEP_NS: Final = 200_000
# W is 1.9 MiB of float32, twice the second-level cache of a server's core.
_SIDE: Final = 704

Step = Callable[[], float]


def numpy_step() -> Step:
    """Make a step of `x = tanh(W @ x)`, over and over."""
    random = numpy.random.default_rng(1)
    weights = random.standard_normal((_SIDE, _SIDE), dtype=numpy.float32) / 16
    start = random.standard_normal(_SIDE, dtype=numpy.float32)

    def make(repeats: int) -> Step:
        def step() -> float:
            x = start
            for _ in range(repeats):
                x = numpy.tanh(weights @ x)
            return float(x[0])

        return step

    return _of_step_length(make)


def python_step() -> Step:
    """Make a step of arithmetic, comparisons and a list, as a small search has."""

    def make(repeats: int) -> Step:
        values = [0.0] * 64

        def step() -> float:
            x = 0.5
            for k in range(repeats * 16):
                x = 3.7 * x * (1.0 - x)
                if x > values[k & 63]:
                    values[k & 63] = x
            return x

        return step

    return _of_step_length(make)


def _of_step_length(make: Callable[[int], Step]) -> Step:
    """Make a step of about 200 us at the machine's present speed."""
    few, many = 2, 12
    took_ns = _fastest_ns(make(many)) - _fastest_ns(make(few))
    return make(max(1, round(STEP_NS * (many - few) / max(took_ns, 1))))


def _fastest_ns(step: Step) -> int:
    times = []
    for _ in range(300):
        began = perf_counter_ns()
        step()
        times.append(perf_counter_ns() - began)
    return min(times)
