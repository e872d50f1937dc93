"""Curves: reduce a run's numbers to the detail that a picture can show. Runs where they are drawn.

A curve is kept in cells of 2**k steps, each with its least, greatest and mean value, as `asynctrack.curves` draws them.
When there are too many cells, k grows by one, and two become one. So memory does not grow with the run, no spike gets
lost, and the curve is the same in whatever order its values come. A pyramid of the journal would not do: a delivery has
what its backend is to get of it, such as the means of several writers.

Curves are no part of a cursor's state: a thousand cells of twenty curves are 0.8 MB of JSON, too much to save each
second. After a kill they are made again from the journal, at 2 to 3 us a value.
"""

from __future__ import annotations

import array
import math
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from asynctrack.backends.metric_selection import MetricSelection
from asynctrack.curves.curve import CurveBuckets, curve_of_cells
from asynctrack.curves.layout import CELL, DrawnCell
from asynctrack.curves.native_parts import draw_cells, draw_points
from asynctrack.records.codec import Record, split_source
from asynctrack.records.column_types import as_float
from asynctrack.records.plain import numbers_in

# Cells of a curve: two a pixel of a panel, at most 0.2 MB.
MOST_CELLS: Final = 1_024
# Values that are drawn at once, and wait until then. Arbitrary.
_WAITING: Final = 4_096
# Curves of a run, at most: a run that makes up a name per record must not fill the memory. Arbitrary.
MOST_CURVES: Final = 200

NO_NUMBERS: Final = "no number to draw"
TOO_MANY: Final = f"of more than {MOST_CURVES} metrics"


class PlotCurve:
    """One metric, reduced to a limited number of cells.

    Args:
        most: cells that are kept, at most: 2 or more, since steps below 0 never share one with those above.

    Attributes:
        count: values taken so far.
    """

    __slots__ = ("_cells", "_most", "_shift", "_steps", "_values", "count")

    def __init__(self, most: int = MOST_CELLS) -> None:
        self.count: int = 0
        self._most = most
        self._shift = 0
        self._cells: dict[int, bytearray] = {}
        self._steps: list[int] = []  # of values that wait to be drawn
        self._values = array.array("d")

    @property
    def cells(self) -> int:
        """Return the number of cells."""
        self._draw_waiting()
        return len(self._cells)

    @property
    def greatest(self) -> float:
        """Return the greatest finite value, minus infinity where there is none."""
        self._draw_waiting()
        cells = (DrawnCell._make(CELL.unpack(cell)) for cell in self._cells.values())
        return max((cell.high for cell in cells if cell.finite), default=-math.inf)

    def add(self, step: int, value: float) -> None:
        """Add a value."""
        self.count += 1
        self._steps.append(step)
        self._values.append(value)
        if len(self._steps) == _WAITING:
            self._draw_waiting()

    def course(self, key: str, most: int) -> CurveBuckets:
        """Return the curve over its steps in at most `most` buckets, 2 or more."""
        self._draw_waiting()
        shift = 0
        while len({at >> shift for at in self._cells}) > most:
            shift += 1
        kept = _joined(self._cells, shift) if shift else self._cells
        return curve_of_cells(key, "step", b"".join(kept.values()))

    def _draw_waiting(self) -> None:
        """Draw the values that wait, those of one cell that follow each other at once."""
        points = array.array("d", bytes(16 * len(self._steps)))
        points[::2], points[1::2] = array.array("d", self._steps), self._values
        places, view = [step >> self._shift for step in self._steps], memoryview(points)
        self._steps, self._values = [], array.array("d")
        begin = 0
        for end, place in enumerate(places, 1):
            if end < len(places) and places[end] == place:
                continue
            cell = self._cells.get(place)
            if cell is None:
                cell = self._cells[place] = bytearray(CELL.size)
            draw_points(cell, 0.0, 0.0, view[2 * begin : 2 * end])
            begin = end
        while len(self._cells) > self._most:
            self._shift += 1
            self._cells = _joined(self._cells, 1)


def broken_steps(course: CurveBuckets) -> list[float]:
    """Return where values of a course are not finite."""
    return [x for x, broken in zip(course.x, course.not_finite, strict=True) if broken]


class Line(NamedTuple):
    """A curve in a panel.

    Attributes:
        key: the metric's whole name.
        scope: of the metric, "" for none.
        rank: number of the scope among those that share a panel with others. It decides the colour, which is the same
            in all panels. None where the scope never shares one.
        curve: its values.
    """

    key: str
    scope: str
    rank: int | None
    curve: PlotCurve


class Panel(NamedTuple):
    """The contents of one pair of axes: a metric in each scope that has it.

    Where only one has, the title is the metric's whole name.
    """

    title: str
    lines: list[Line]


class PlotCurves:
    """The curves of a run.

    Args:
        keys: the metrics to keep.

    Attributes:
        by_key: the curves by metric, in the order of their first values.
    """

    def __init__(self, keys: MetricSelection) -> None:
        self.by_key: dict[str, PlotCurve] = {}
        self._keys = keys

    def take(self, records: Iterable[Record]) -> dict[str, int]:
        """Add the numbers of these records to the curves.

        Returns:
            How many records add nothing to a curve, by reason.
        """
        skipped: dict[str, int] = {}
        for record in records:
            reason: str | None = NO_NUMBERS
            for key, value in numbers_in(record.data):
                curve = self.by_key.get(key) or self._begin(key)
                if curve is not None:
                    curve.add(record.step, as_float(value))
                    reason = None
                elif reason and key in self._keys:
                    reason = TOO_MANY
            if reason:
                skipped[reason] = skipped.get(reason, 0) + 1
        return skipped

    def panels(self) -> list[Panel]:
        """Arrange the curves in panels, in the order of their first values."""
        metrics: dict[str, list[str]] = {}
        for key in self.by_key:
            metrics.setdefault(split_source(key)[1], []).append(key)
        ranks: dict[str, int] = {}
        for keys in metrics.values():
            for key in keys if len(keys) > 1 else []:
                ranks.setdefault(split_source(key)[0], len(ranks))
        return [
            Panel(metric if len(keys) > 1 else keys[0], [self._line(key, ranks) for key in keys])
            for metric, keys in metrics.items()
        ]

    def _line(self, key: str, ranks: Mapping[str, int]) -> Line:
        scope, _ = split_source(key)
        return Line(key, scope, ranks.get(scope) if ranks else 0, self.by_key[key])

    def _begin(self, key: str) -> PlotCurve | None:
        """Make a new curve; return None where the metric is not wanted, or is one too many."""
        if key not in self._keys or len(self.by_key) == MOST_CURVES:
            return None
        curve = self.by_key[key] = PlotCurve()
        return curve


def _joined(cells: Mapping[int, bytearray], shift: int) -> dict[int, bytearray]:
    """Make one cell of each 2**shift."""
    joined: dict[int, bytearray] = {}
    for at, cell in cells.items():
        draw_cells(joined.setdefault(at >> shift, bytearray(CELL.size)), 0.0, 0.0, cell)
    return joined
