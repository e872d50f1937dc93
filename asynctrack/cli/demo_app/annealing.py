"""Simulated annealing of a travelling salesman's tour: 2-opt moves, geometric cooling, restarts.

After S. Kirkpatrick, C. Gelatt and M. Vecchi, "Optimization by Simulated Annealing", Science 220 (1983). A step is
some hundred tried moves at one temperature, as there; then it gets colder by a factor. A 2-opt move turns a stretch
of the tour around, which changes two edges, so what it gains is known from four distances, whatever the length of
the tour. Pure Python, so that the demo needs no library and is the kind of loop that a tracker slows down most.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log
from random import Random
from typing import NamedTuple

from asynctrack.cli.demo_app.berlin52 import tour_length

__all__ = ["COLDEST", "HOTTEST", "MOVES_PER_STEP", "Annealer", "Step"]

# In units of length. Found by trying on berlin52, with hot ends of 100 to 1000 and cold ends of 2 to 10: half of all
# moves are accepted at 300, where a tour is still more than twice as long as the shortest, and 1 in 1000 at 5.
HOTTEST = 300.0
COLDEST = 5.0
MOVES_PER_STEP = 520  # ten for each of the 52 places: a step of about 0.2 ms


class Step(NamedTuple):
    """The result of one step of an annealer."""

    length: int  # of the tour after the step
    best: int  # the shortest tour of this trial so far
    temperature: float  # at which the moves were tried, in units of length
    accepted: int  # of MOVES_PER_STEP tried moves
    trial: int


class Annealer:
    """One annealer: `runs` annealings one after the other, each from a shuffled tour.

    It does the same whenever `seed` and the values given to `cooling` are the same. Its trials are numbered
    `first_trial`, `first_trial + trial_stride`, and so on; when the last one is cold it stays at `COLDEST`.
    """

    def __init__(
        self,
        table: Sequence[Sequence[int]],
        seed: int | str,
        *,
        cooling: float,
        runs: int = 1,
        first_trial: int = 0,
        trial_stride: int = 1,
    ) -> None:
        self.cooling = cooling  # the factor from step to step, over 0 and at most 1; may be changed at any time
        self.runs = runs
        self.trial = first_trial
        self.best_tour: list[int] = list(range(len(table)))
        self.best_length = tour_length(self.best_tour, table)
        self._table = table
        self._random = Random(seed)
        self._stride = trial_stride
        self._runs_left = runs
        self.temperature = HOTTEST
        self._stretches = _stretches(len(table))
        self._shuffle()

    def __repr__(self) -> str:
        return f"<Annealer trial {self.trial}, {self.length} long at {self.temperature:.1f}, best {self.best_length}>"

    @property
    def progress(self) -> float:
        """Return the part of the cooling of all runs that is done, from 0 to 1."""
        this_run = min(log(self.temperature / HOTTEST) / log(COLDEST / HOTTEST), 1.0)
        return (self.runs - 1 - self._runs_left + this_run) / self.runs

    def pace(self, steps_left: float) -> None:
        """Choose the cooling so that all runs are cold after `steps_left` more steps."""
        to_go = self.runs * (1.0 - self.progress)
        self.cooling = (COLDEST / HOTTEST) ** (to_go / max(steps_left, 1.0))

    def step(self) -> Step:
        """Try `MOVES_PER_STEP` moves at this temperature, then cool down."""
        temperature = self.temperature
        accepted = self._try_moves(temperature)
        done = Step(self.length, self.trial_best, temperature, accepted, self.trial)
        self._cool()
        return done

    def _cool(self) -> None:
        self.temperature = max(self.temperature * self.cooling, COLDEST)
        if self.temperature == COLDEST and self._runs_left:
            self.trial += self._stride
            self._shuffle()

    def _shuffle(self) -> None:
        self._runs_left -= 1
        self.temperature = HOTTEST
        self.tour = list(range(len(self._table)))
        self._random.shuffle(self.tour)
        self.length = self.trial_best = tour_length(self.tour, self._table)

    def _try_moves(self, temperature: float) -> int:
        """Try `MOVES_PER_STEP` moves by Metropolis' rule, and return how many were accepted."""
        table, tour, random = self._table, self.tour, self._random.random
        accepted, length = 0, self.length
        for first, last in self._random.choices(self._stretches, k=MOVES_PER_STEP):
            before, start, end, after = tour[first - 1], tour[first], tour[last - 1], tour[last - len(tour)]
            from_end, from_after = table[end], table[after]
            longer = from_end[before] + from_after[start] - table[before][start] - from_after[end]
            if longer <= 0 or random() < exp(-longer / temperature):
                tour[first:last] = tour[last - 1 : first - 1 : -1]
                accepted += 1
                length += longer
                if length < self.trial_best:
                    self._remember(length)
        self.length = length
        return accepted

    def _remember(self, length: int) -> None:
        self.trial_best = length
        if length < self.best_length:
            self.best_length = length
            self.best_tour = self.tour.copy()


def _stretches(places: int) -> list[tuple[int, int]]:
    """List the stretches `tour[first:last]` whose turning changes a tour: two places or more, and two or more others.

    The place at 0 stays where it is: turning a stretch with it is the same as turning the rest.
    """
    return [
        (first, last)
        for first in range(1, places - 1)
        for last in range(first + 2, places + 1)
        if last - first <= places - 2
    ]
