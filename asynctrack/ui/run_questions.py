"""Run questions: which runs meet a condition, and what differs between runs. Runs in the server of the page, on a file thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from asynctrack.collection.comparison import environment_of
from asynctrack.collection.differences import differing, flat
from asynctrack.collection.metric_stats import MetricStats
from asynctrack.collection.subject import RunSubject
from asynctrack.curves.run_curves import RunCurves
from asynctrack.curves.totals import MetricTotals
from asynctrack.errors import AsynctrackError
from asynctrack.journal.manifest import UNREADABLE
from asynctrack.records.expressions import Condition, Order
from asynctrack.records.media_types import unicode
from asynctrack.ui.plain_json import plain
from asynctrack.ui.run_list import ListedRun

CurvesOf = Callable[[str], RunCurves]


class ShownSubject(RunSubject):
    """A run, as expressions see it; the numbers of one that goes on are those of its curves, which grow with it.

    Args:
        run: as it was looked at.
        curves_of: reads curves by the path of a run.
    """

    def __init__(self, run: ListedRun, curves_of: CurvesOf) -> None:
        super().__init__(run.path, (), index=run.index, seen=run.look)
        self.key: str = run.key
        self._curves_of = curves_of

    @cached_property
    def metrics(self) -> dict[str, MetricStats]:
        """Return the stats of its metrics."""
        if self.look.is_final:
            return super().metrics
        try:
            curves = self._curves_of(str(self.path))
        except (AsynctrackError, OSError, *UNREADABLE):  # other runs are found all the same
            return {}
        return {key: _stats(totals) for key in curves.names() if (totals := curves.totals(key)) is not None}


def selected(runs: Sequence[ListedRun], where: str, sort: str, curves_of: CurvesOf) -> dict[str, Any]:
    """Return the keys of the runs that meet a condition, in an order.

    Args:
        runs: all, the newest first.
        where: the condition; empty for all.
        sort: names or aggregates; empty for the newest first.
        curves_of: reads curves by the path of a run.

    Raises:
        InvalidExpression: the condition or the order cannot be parsed.
    """
    condition = Condition(where) if where else None
    order = Order(sort) if sort else None
    found = [ShownSubject(run, curves_of) for run in runs if run.look is not None]
    if condition is not None:
        found = [subject for subject in found if condition.holds(subject)]
    if order is not None:
        found = order.sorted(found, lambda subject: subject)
    said = [one.what_is_missing() for one in (condition, order) if one is not None]
    return {"runs": [subject.key for subject in found], "missing": next(filter(None, said), None)}


def compared(runs: Sequence[ListedRun]) -> dict[str, Any]:
    """Return what differs between runs: for each name a value of each of them, null where it has none."""
    subjects = [run.subject() for run in runs]
    return {
        "runs": [run.key for run in runs],
        "config": _values([flat(subject.summary.config) for subject in subjects]),
        "summary": _values([flat(subject.summary.summary) for subject in subjects]),
        "environment": _values([environment_of(subject.environment) for subject in subjects]),
    }


def _values(found: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {unicode(key): [plain(values.get(key)) for values in found] for key in differing(found)}


def _stats(totals: MetricTotals) -> MetricStats:
    low, high = totals.min, totals.max
    return MetricStats(
        count=totals.count,
        first=totals.first.value,
        last=totals.last.value,
        min=None if low is None else low.value,
        max=None if high is None else high.value,
        mean=totals.mean,
        first_step=totals.first.step,
        last_step=totals.last.step,
        min_step=None if low is None else low.step,
        max_step=None if high is None else high.step,
        not_finite=totals.not_finite,
    )
