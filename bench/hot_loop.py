"""How much slower is a loop of 200 us steps when it logs every step?

NumPy and pure Python, in alternating slices of 100 ms with and without tracking; and the same with no tracking in either
kind of slice, which shows how much of the answer is the machine's own noise.

Takes a minute and a half. Wants two free cores.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import mean, median
from time import perf_counter_ns
from typing import Any, Final

from bench.harness import Bar, Report, Spread, Table, bar, dropped, main, open_run, percentile, say, spread
from bench.work import STEP_NS, Step, numpy_step, python_step

SLICE_STEPS: Final = 100_000_000 // STEP_NS
WARM_UP_STEPS: Final = 2 * SLICE_STEPS
LOOPS: Final[dict[str, Callable[[], Step]]] = {"NumPy": numpy_step, "pure Python": python_step}

Log = Callable[..., bool]


@dataclass
class Slice:
    """A tenth of a second of one kind: each step's time, and the part of it that was spent in `log`."""

    steps_ns: array[int] = field(default_factory=lambda: array("Q"))
    logs_ns: array[int] = field(default_factory=lambda: array("Q"))
    took_ns: int = 0


@dataclass(frozen=True)
class Pass:
    """Slices with and without the log under test, in turn."""

    tracked: list[Slice]
    plain: list[Slice]

    @property
    def slowdowns(self) -> list[float]:
        """Return by how many percent a tracked slice takes longer than the mean of the plain ones before and after it."""
        neighbours = zip(self.plain, self.plain[1:], strict=False)
        return [
            200 * part.took_ns / (before.took_ns + after.took_ns) - 100
            for part, (before, after) in zip(self.tracked, neighbours, strict=True)
        ]


def no_log(data: dict[str, Any], step: int | None = None) -> bool:
    """Do nothing: the log of the slices without tracking."""
    return True


def measure(quick: bool) -> Report:
    rounds, slices = (2, 5) if quick else (5, 18)
    rows: list[dict[str, Any]] = []
    bars: list[Bar] = []
    lost = 0
    for name, make in LOOPS.items():
        say(f"{name} loop")
        step = make()
        tracked, controls = [], []
        for _ in range(rounds):
            with open_run() as run:
                controls.append(_pass(step, no_log, slices))
                tracked.append(_pass(step, run.log, slices))
                lost += dropped(run)
        rows += [_row(f"{name}, tracked", tracked), _row(f"{name}, control", controls)]
        bars += _bars(name, *rows[-2:])
    title = f"{rounds} rounds of {slices} tracked slices of {SLICE_STEPS} steps, and one more plain slice"
    return Report([Table(title, rows)], [*bars, bar("records dropped", 0, lost)], NOTES)


NOTES: Final = [
    "slow-down: a tracked slice against the mean of its two plain neighbours; the median over a round's slices, then the "
    "median [min..max] over the rounds. Both kinds make the record; the plain one hands it to a function that does nothing.",
    "control: the same with the function that does nothing in both kinds. What it shows is noise.",
    "log() us: mean time in log() in this loop less that in the empty function, reading the clock included in both; "
    "as percent of a plain step it is the share of the slow-down that the call itself explains.",
    "p99.9: of all steps of a round, log() included. 'p99.9 +us' is the difference of the two kinds.",
]


def _pass(step: Step, log: Log, slices: int) -> Pass:
    """Run slices in turn: plain, tracked, plain, ..., plain."""
    _run_slice(step, log, 0, WARM_UP_STEPS)
    plain, tracked, first = [_run_slice(step, no_log, 0, SLICE_STEPS)], [], 0
    for _ in range(slices):
        tracked.append(_run_slice(step, log, first, SLICE_STEPS))
        plain.append(_run_slice(step, no_log, first, SLICE_STEPS))
        first += SLICE_STEPS
    return Pass(tracked, plain)


def _run_slice(step: Step, log: Log, first: int, steps: int) -> Slice:
    part = Slice()
    add_step, add_log, clock = part.steps_ns.append, part.logs_ns.append, perf_counter_ns
    start = clock()
    for number in range(first, first + steps):
        began = clock()
        loss = step()
        data = {
            "loss": loss,
            "accuracy": loss * 0.5,
            "lr": 0.001 + number * 1e-9,
            "grad_norm": loss + number,
            "epoch": number // 1000,
            "phase": "train",
        }
        before = clock()
        log(data, step=number)
        after = clock()
        add_step(after - began)
        add_log(after - before)
    part.took_ns = clock() - start
    return part


def _row(name: str, rounds: Sequence[Pass]) -> dict[str, Any]:
    tracked = [_tail_us(one.tracked) for one in rounds]
    plain = [_tail_us(one.plain) for one in rounds]
    return {
        "loop": name,
        "step us": spread(_mean_us(one.plain, "steps_ns") for one in rounds),
        "slow-down %": spread(median(one.slowdowns) for one in rounds),
        "log() us": spread(_log_us(one) for one in rounds),
        "log() % of step": spread(100 * _log_us(one) / _mean_us(one.plain, "steps_ns") for one in rounds),
        "p99.9 us": spread(tracked),
        "plain p99.9 us": spread(plain),
        "p99.9 +us": spread(a - b for a, b in zip(tracked, plain, strict=True)),
    }


def _bars(name: str, tracked: dict[str, Any], control: dict[str, Any]) -> list[Bar]:
    slowdown: Spread = tracked["slow-down %"]
    floor: Spread = control["slow-down %"]
    noise = f"control {floor.min:.2g} to {floor.max:.2g}"
    return [
        bar(f"{name} loop: slow-down ({noise})", 2, slowdown.median, "%"),
        bar(f"{name} loop: p99.9 of the step, tracked less plain", 100, tracked["p99.9 +us"].median, "us"),
    ]


def _log_us(one: Pass) -> float:
    return _mean_us(one.tracked, "logs_ns") - _mean_us(one.plain, "logs_ns")


def _mean_us(slices: Sequence[Slice], what: str) -> float:
    return float(mean(ns for part in slices for ns in getattr(part, what))) / 1000


def _tail_us(slices: Sequence[Slice]) -> float:
    return percentile(sorted(ns for part in slices for ns in part.steps_ns), 0.999) / 1000


if __name__ == "__main__":
    main(__doc__, measure)
