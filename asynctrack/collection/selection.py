"""Selection: the runs of a directory that meet a condition, in an order. Runs anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from asynctrack.client import run_state
from asynctrack.collection.run_places import RunPlaces
from asynctrack.collection.subject import RunSubject
from asynctrack.reading.history import History
from asynctrack.records.expressions import Condition, Order
from asynctrack.settings import project_directory


class Selection(Iterator[RunSubject]):
    """Yields the runs of a directory that meet a condition, in an order. Nothing is looked at before the first is asked for.

    Args:
        directory: of projects, of one project, or of a run.
        project: leaves out the runs of others.
        condition: that they meet.
        order: in which they come; the newest first without it.
        limit: the most runs.
        history: of their metrics.

    Attributes:
        unreadable: how many runs and projects this user may not read, once the first run was asked for.
    """

    def __init__(
        self,
        directory: Path,
        *,
        project: str | None = None,
        condition: Condition | None = None,
        order: Order | None = None,
        limit: int | None = None,
        history: History = "last",
    ) -> None:
        self.unreadable = 0
        self._directory = directory
        self._projects = None if project is None else {project, project_directory(project)}
        self._history = history
        found = self._subjects()
        if condition is not None:
            found = filter(condition.holds, found)
        self._found = islice(found if order is None else _sorted(found, order), limit)

    def __next__(self) -> RunSubject:
        return next(self._found)

    def _subjects(self) -> Iterator[RunSubject]:
        places = RunPlaces(self._directory, self._projects)
        self.unreadable = places.unreadable
        workers = run_state.other_workers()
        for path, index in places.newest_first():
            yield RunSubject(path, workers, self._history, index)
        places.save()


def select(
    directory: Path,
    *,
    project: str | None = None,
    where: str | Condition | None = None,
    sort: str | Order | None = None,
    limit: int | None = None,
    history: History = "last",
) -> Selection:
    """Find the runs of a directory that meet a condition. Without `sort`, only as many are looked at as the caller takes.

    Args:
        directory: of projects, of one project, or of a run.
        project: leaves out the runs of others.
        where: a condition.
        sort: names or aggregates by which they are sorted, with `-` in front the greatest first; the newest first without it.
        limit: the most runs.
        history: of their metrics.

    Returns:
        What is known of each. A run that is damaged, or that cannot be read, is among them.

    Raises:
        InvalidExpression: the condition or the order cannot be parsed.
    """
    condition = Condition(where) if isinstance(where, str) else where
    order = Order(sort) if isinstance(sort, str) else sort
    return Selection(directory, project=project, condition=condition, order=order, limit=limit, history=history)


def _sorted(found: Iterator[RunSubject], order: Order) -> Iterator[RunSubject]:
    """Sort when the first is asked for."""
    yield from order.sorted(found, lambda subject: subject)
