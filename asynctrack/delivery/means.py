"""Means: the mean of each number over a run's writers, step by step. Values and rules only: it reads no file and no clock.

A writer is through with a step when it has logged a higher one, or has ended. A step is closed once all writers are
through with it that are expected. So the rows depend on what each writer has logged, and not on the order in which the
writers' records came; nor on where batches were cut.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from asynctrack.journal.layout import Position
from asynctrack.journal.open_means import LATE, OpenMeans
from asynctrack.journal.writers import Writers
from asynctrack.records.codec import Record, flatten
from asynctrack.records.plain import as_float

# Steps that are open at once. A writer that hangs holds up all steps; beyond this number the lowest is closed without it. Arbitrary: 64 processes
# on 2 cores were 1,174 steps apart at most. A step of 20 keys by 8 writers takes 14 KB.
MOST_OPEN: Final = 5_000
# Sums in these steps, one for each key and queue: about 90 MB. Arbitrary.
MOST_SUMS: Final = 1_000_000

# Reasons for which a record is not delivered.
AVERAGED: Final = "averaged"
NO_NUMBER: Final = "no number"

_NUMBERS: Final = frozenset({bool, int, float})  # as they are read from a journal, never a subclass

Name = Callable[[int], str | None]


class _Mean:
    """The values of one key at one step.

    They are added up ring by ring, and these sums at the end: so the result does not depend on the order of the rings.
    """

    __slots__ = ("count", "highest", "lowest", "sums")

    def __init__(self) -> None:
        self.sums: dict[int, float] = {}
        self.count = 0
        self.lowest = math.inf
        self.highest = -math.inf

    def add(self, ring: int, value: float) -> bool:
        """Add a value; returns whether it is the first of its ring."""
        is_first = ring not in self.sums
        self.sums[ring] = self.sums.get(ring, 0.0) + value
        self.count += 1
        # NaN is neither the lowest nor the highest.
        if value < self.lowest:
            self.lowest = value
        if value > self.highest:
            self.highest = value
        return is_first

    def put(self, row: dict[str, Any], key: str, name: Name) -> None:
        """Put what a row has of this key into it."""
        row[f"{key}/min"] = self.lowest if self.lowest <= self.highest else math.nan
        row[f"{key}/max"] = self.highest if self.lowest <= self.highest else math.nan
        row[f"{key}/ranks"] = len({name(ring) for ring in self.sums})

    def mean(self) -> float:
        values = sorted(self.sums.values())
        try:
            return math.fsum(values) / self.count
        except OverflowError:  # the sum, not the mean, is too large
            return math.fsum(value / self.count for value in values)
        except ValueError:  # both infinities
            return math.nan


class _Step:
    """A step that is open: what its records have of each key."""

    __slots__ = ("means", "others", "records", "since", "sums", "time_ns")

    def __init__(self, since: Position) -> None:
        self.since = since
        self.records = 0
        self.sums = 0
        self.time_ns = 0
        self.means: dict[str, _Mean] = {}
        self.others: dict[str, tuple[tuple[int, int, int], Any]] = {}

    def add(self, record: Record, *, primary: bool) -> None:
        """Take a record: its numbers, and what else it has if it is the primary writer's."""
        self.records += 1
        self.time_ns = max(self.time_ns, record.time_ns)
        for key, value in flatten(record.data):
            number = _as_float(value) if type(value) in _NUMBERS else None
            if number is not None:
                mean = self.means.get(key)
                if mean is None:
                    mean = self.means[key] = _Mean()
                self.sums += mean.add(record.ring, number)
            elif primary:
                self._keep(key, (record.time_ns, record.ring, record.number), value)

    def row(self, name: Name) -> dict[str, Any]:
        """Return the data of the step's row, by names in their order."""
        row: dict[str, Any] = {}
        for key in sorted(self.means.keys() | self.others.keys()):
            if (mean := self.means.get(key)) is None:
                row.setdefault(key, self.others[key][1])
                continue
            row[key] = mean.mean()
            mean.put(row, key, name)
        return {**row, **{key: mean.mean() for key, mean in self.means.items()}}  # a key may be called as a minimum is

    def _keep(self, key: str, when: tuple[int, int, int], value: Any) -> None:
        if key not in self.others or self.others[key][0] < when:
            self.others[key] = when, value


class Means:
    """Takes the records of a run, and gives a row for each step that is closed.

    Args:
        state: where it goes on; its open steps are to be made again by `add_again`.

    Attributes:
        writers: the labels of the rings.
        skipped: records that have no row of their own, by reason, since it was last emptied.
        rows: of the steps that were closed since it was last emptied.
    """

    def __init__(self, state: OpenMeans) -> None:
        self.writers = Writers()
        self.skipped: dict[str, int] = {}
        self.rows: list[Record] = []
        self._closed = state.closed
        self._reached = dict(state.reached)
        self._ranked = dict(state.writers)
        self._expected = state.expected
        self._given = state.rows
        self._open: dict[int, _Step] = {}
        self._order: list[int] = []  # the open steps, as a heap
        self._sums = 0

    def __repr__(self) -> str:
        return f"<Means, {len(self._open)} steps open, {self._given} given>"

    @property
    def expected(self) -> int | None:
        """Return how many writers there are to be; None where nobody has said."""
        return self._expected

    def state(self) -> OpenMeans:
        """Return the place, for the cursor."""
        return OpenMeans(
            since=min((step.since for step in self._open.values()), default=None),
            closed=self._closed,
            reached=dict(self._reached),
            writers=dict(self._ranked),
            expected=self._expected,
            rows=self._given,
        )

    def start(self, ring: int, writer: str, expected: int | None, *, ranked: bool) -> None:
        """Begin a session: the run was opened, perhaps again, and may go back to steps that were closed."""
        self.close_all()
        live = {name for each in self._reached if (name := self.writers.name_of(each)) is not None}
        self._ranked = {name: known for name, known in self._ranked.items() if name in live}
        self._reached = dict.fromkeys(self._reached)
        self._closed, self._expected = None, None
        self.join(ring, writer, expected, ranked=ranked)

    def join(self, ring: int, writer: str, expected: int | None, *, ranked: bool) -> None:
        """Count one more writer, or another process of the same."""
        self._reached[ring] = None
        self._ranked[writer] = ranked or self._ranked.get(writer, False)
        if expected is not None:
            self._expected = max(expected, self._expected or 0)

    def end(self, ring: int) -> None:
        """Count a ring out that has ended."""
        self._reached.pop(ring, None)
        self.close()

    def add(self, ring: int, records: Sequence[Record], since: Position) -> None:
        """Take records of a ring, which lie in the batch at `since`."""
        primary, late = self.writers.is_primary(ring), 0
        reached, closed = self._reached.get(ring), self._closed
        for record in records:
            if (reached is not None and record.step < reached) or (closed is not None and record.step < closed):
                late += 1
                continue
            reached = record.step
            self._take(record, since, primary=primary)
            closed = self._closed
        if reached is not None:
            self._reached[ring] = reached
        if late:
            self._skip(LATE, late)

    def add_again(self, ring: int, records: Sequence[Record], since: Position, reached: int | None) -> int | None:
        """Take records again of which those of open steps are to be added up once more.

        Args:
            ring: of the records.
            records: in their order.
            since: the batch where they lie.
            reached: the highest step of this ring among those that were taken again before.

        Returns:
            The highest step after these.
        """
        primary = self.writers.is_primary(ring)
        for record in records:
            if reached is not None and record.step < reached:
                continue
            reached = record.step
            if self._closed is None or reached >= self._closed:
                self._take(record, since, primary=primary)
        return reached

    def close(self) -> None:
        """Close the steps that all writers are through with."""
        writers = self._counted()
        if self._expected is None or len(writers) < self._expected:
            return
        through = self._through(writers)
        if through is not None:
            self._close_below(through)

    def close_all(self) -> None:
        """Close every step: the run has ended, or begins anew."""
        if self._open:
            self._close_below(max(self._open) + 1)

    def _counted(self) -> set[str]:
        """Return the writers that are waited for: those with a rank, where there are some. A data loader's worker has none."""
        return {name for name, ranked in self._ranked.items() if ranked} or set(self._ranked)

    def _through(self, writers: set[str]) -> int | None:
        """Return the lowest step that one of these writers may still log; None where that may be any."""
        highest: dict[str, int | None] = {}
        for ring, reached in self._reached.items():
            if (name := self.writers.name_of(ring)) in writers and name is not None:
                before = highest.get(name)
                highest[name] = before if reached is None else reached if before is None else max(before, reached)
        if not highest:  # all have ended
            return max(self._open) + 1 if self._open else None
        found = list(highest.values())
        return None if None in found else min(step for step in found if step is not None)

    def _take(self, record: Record, since: Position, *, primary: bool) -> None:
        """Take a record; close the lowest step where too much would be open."""
        step = self._open.get(record.step)
        if step is None:
            step = self._open[record.step] = _Step(since)
            heapq.heappush(self._order, record.step)
        before = step.sums
        step.add(record, primary=primary)
        self._sums += step.sums - before
        if len(self._open) > MOST_OPEN or (self._sums > MOST_SUMS and len(self._open) > 1):
            self._close_below(self._order[0] + 1)

    def _close_below(self, step: int) -> None:
        while self._order and self._order[0] < step:
            lowest = heapq.heappop(self._order)
            closed = self._open.pop(lowest)
            self._sums -= closed.sums
            self._give(lowest, closed)
        self._closed = step if self._closed is None else max(self._closed, step)

    def _give(self, at: int, step: _Step) -> None:
        """Give the row of a step that is closed."""
        data = step.row(self.writers.name_of)
        if data:
            self.rows.append(Record(self._given, at, step.time_ns, data))
            self._given += 1
        self._skip(AVERAGED if data else NO_NUMBER, step.records - bool(data))

    def _skip(self, reason: str, count: int) -> None:
        if count:
            self.skipped[reason] = self.skipped.get(reason, 0) + count


def _as_float(value: float) -> float | None:
    """Convert a number to a float, and -0.0 to 0.0; None for an integer that no float is large enough for."""
    number = as_float(value, None)
    return None if number is None else number + 0.0
