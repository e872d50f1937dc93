"""Ranking: runs by a metric, the best first. Runs anywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from asynctrack.collection.subject import RunSubject
from asynctrack.errors import InvalidExpression, UnknownGoal
from asynctrack.records.expressions import Goal, Term, spelled


class Ranked(NamedTuple):
    """A run and the number that it is ranked by.

    Attributes:
        run: what is known of it.
        value: of the metric.
        step: of that value; None of a mean.
    """

    run: RunSubject
    value: float
    step: int | None


class Ranking:
    """An order of runs from the best to the worst.

    Attributes:
        key: of the metric.
        how: which of its numbers count; "best" is the least or the greatest, by the goal of the metric.

    Raises:
        InvalidExpression: the text is neither a metric nor an aggregate of one.
    """

    def __init__(self, text: str) -> None:
        """Parse `loss`, `min(loss)`, `last(val/acc)` and the like."""
        term = Term(text)
        if term.key is None:
            begin = len(text) - len(text.lstrip())
            raise InvalidExpression(
                text, begin + 1, "a metric or an aggregate of one such as max(loss)", repr(term.text)
            )
        self._text = text
        self.key, self.how = term.key, term.how or "best"

    def rank(self, runs: Sequence[RunSubject]) -> tuple[str, list[Ranked]]:
        """Rank the runs that have the metric; NaN and infinities come last, and what is alike stays as it was.

        Returns:
            The title of the value, such as "min(loss)", and the runs.

        Raises:
            UnknownGoal: no run says whether less or more of the metric is better, and it is not `min()` or `max()`.
            InvalidExpression: they say different things.
        """
        goal: Goal = {"min": "minimize", "max": "maximize"}.get(self.how) or self._goal(runs)  # type: ignore[assignment]  # mypy widens them to str
        how = self.how if self.how != "best" else "min" if goal == "minimize" else "max"
        found = []
        for run in runs:
            stats = run.metrics.get(self.key)
            value = None if stats is None else getattr(stats, how)
            if value is not None:
                found.append(Ranked(run, value, getattr(stats, f"{how}_step", None)))
        there = sorted(filter(_is_finite, found), key=_value, reverse=goal == "maximize")
        return f"{how}({spelled(self.key)})", [*there, *(one for one in found if not _is_finite(one))]

    def _goal(self, runs: Sequence[RunSubject]) -> Goal:
        goals = {goal for run in runs if (goal := run.goal(self.key)) is not None}
        name = spelled(self.key)
        if len(goals) > 1:
            raise InvalidExpression(
                self._text,
                1,
                f"min({name}) or max({name})",
                f"{self.key!r}, of which some runs say that less is better and some that more is",
            )
        if not goals and any(self.key in run.metrics for run in runs):
            raise UnknownGoal(self._text, 1, self.key, name)
        return goals.pop() if goals else "minimize"


def _is_finite(one: Ranked) -> bool:
    return isinstance(one.value, int) or math.isfinite(one.value)  # an integer may be beyond a float


def _value(one: Ranked) -> float:
    return one.value
