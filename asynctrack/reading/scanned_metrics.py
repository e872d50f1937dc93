"""Scanned metrics: a run's numbers by source, from the columns of a scan, for `load_metrics`. Runs anywhere.

It takes the runs that most are: the steps of each source go up, and what has numbers has nothing else. The others are left to `loading`.
"""

from __future__ import annotations

import math
import operator
from bisect import bisect_right
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from asynctrack.reading.scan import BOOL, FLOAT, INT
from asynctrack.records.codec import split_source

if TYPE_CHECKING:
    from asynctrack._native import Scan

# Steps, and the values of each metric there.
SourceMetrics = tuple[list[int], dict[str, list[float]]]

_NUMBERS: Final = INT | FLOAT


def load(scan: Scan, max_step: float, prefix: str) -> dict[str, SourceMetrics] | None:
    """Load the numbers by source, up to a step, of names with a prefix; None where that takes a look at each record.

    Args:
        scan: of all rows.
        max_step: the last step.
        prefix: of names; it is taken off.
    """
    sources: dict[str, dict[str, int]] = {}
    for first, index, name in sorted(
        (scan.first_number(index), index, name) for index, name in enumerate(scan.names())
    ):
        tags = scan.describe(index)[0]
        if name.startswith(prefix) and (first or tags & BOOL):
            if tags & ~_NUMBERS:  # what counts is a matter of each value
                return None
            source, key = split_source(name.removeprefix(prefix))
            sources.setdefault(source, {})[key] = index
    steps = memoryview(scan.steps())
    found = {source: _metrics(scan, columns, steps, max_step) for source, columns in sources.items()}
    return None if None in found.values() else found  # type: ignore[return-value]  # mypy does not follow this


def _metrics(scan: Scan, columns: dict[str, int], steps: memoryview, max_step: float) -> SourceMetrics | None:
    """Return the steps of a source, and the values there; None where the steps do not go up."""
    rows = {key: memoryview(scan.rows_of(index)).tolist() for key, index in columns.items()}
    first = next(iter(rows.values()))
    together = all(of == first for of in rows.values())
    every = first if together else sorted(set().union(*rows.values()))
    there = [steps[row] for row in every]
    if not all(map(operator.lt, there, islice(there, 1, None))):
        return None
    end = bisect_right(there, max_step)
    metrics = {}
    for key, index in columns.items():
        values: list[Any] = memoryview(scan.values_of(index, "d")).tolist()
        if not together:
            by_row = dict(zip(rows[key], values, strict=True))
            values = [by_row.get(row, math.nan) for row in every]
        if end and rows[key][0] <= every[end - 1]:
            metrics[key] = values[:end]
    return there[:end], metrics


def as_it_is(value: Any) -> Any:
    """Return what the scan does not know, to keep it."""
    return value
