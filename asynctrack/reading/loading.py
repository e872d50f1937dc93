"""Loading: a run's metrics by source, as DRYTorch's loaders return them. Runs anywhere."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Final

from asynctrack._system.suggestions import suggests
from asynctrack.reading.opening import open_run
from asynctrack.reading.reader import RunReader
from asynctrack.reading.scanned_metrics import SourceMetrics, as_it_is
from asynctrack.reading.scanned_metrics import load as load_scanned
from asynctrack.records.codec import Record, flatten, split_source
from asynctrack.records.column_types import as_float

ALL: Final = -1


@suggests
def load_metrics(
    source: str | os.PathLike[str] | RunReader, max_step: int = ALL, *, within: str = ""
) -> dict[str, SourceMetrics]:
    """Load a run's numbers by source: `{"train": ([1, 2], {"loss": [0.5, 0.25]})}`.

    The source is the part of a name before its first `/`, "" where there is none. A row holds what was logged for a source at a step, even by several
    calls. Where the steps of a source go back, or a metric comes again at a step, as after a resume from a checkpoint, all earlier rows of the source are
    left out. A metric without a number in a row is NaN there. Integers become floats, those beyond the largest float infinite.

    Args:
        source: what `open_run` takes, or what it returned.
        max_step: the last step to load, -1 for all; with 0 there is nothing.
        within: load only names below this one, and take it off: `within="model"` for `model/train/loss`.

    Returns:
        For each source the steps, and for each metric its values, as many as steps.

    Raises:
        ValueError: `max_step` is less than -1.
        NotARun: there is no run.
    """
    if max_step < ALL:
        raise ValueError(f"max_step is the last step to load, or -1 for all of them; got {max_step}")
    if max_step == 0:
        return {}
    run = source if isinstance(source, RunReader) else open_run(source)
    prefix = f"{within}/" if within else ""
    if (scan := run._scan("all", as_it_is, rows=True)) is not None:
        quick = load_scanned(scan, math.inf if max_step == ALL else max_step, prefix)
        if quick is not None:
            return quick
    found: dict[str, _Source] = {}
    for record in run.records():
        for name, row in _rows(record, prefix):
            found.setdefault(name, _Source()).add(record.step, row)
    return {name: its.metrics(max_step) for name, its in found.items()}


class _Source:
    """The rows of a source: steps, and the numbers there."""

    def __init__(self) -> None:
        self._rows: dict[int, dict[str, float]] = {}
        self._last = -math.inf

    def add(self, step: int, row: dict[str, float]) -> None:
        """Add a row; drop all earlier ones if the steps go back, or a metric comes again at a step."""
        if step < self._last or not row.keys().isdisjoint(self._rows.get(step, {})):
            self._rows.clear()
        self._rows.setdefault(step, {}).update(row)
        self._last = step

    def metrics(self, max_step: int) -> SourceMetrics:
        """Return the steps up to `max_step`, and the values of each metric."""
        rows = {step: row for step, row in self._rows.items() if max_step == ALL or step <= max_step}
        names = dict.fromkeys(name for row in rows.values() for name in row)
        return [*rows], {name: [row.get(name, math.nan) for row in rows.values()] for name in names}


def _rows(record: Record, prefix: str) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield the row that a record adds to each source."""
    rows: dict[str, dict[str, float]] = {}
    for key, value in dict(
        flatten(record.data)
    ).items():  # of a name that comes twice the later counts: `a/b` beside `b` in `a`
        if key.startswith(prefix) and isinstance(value, int | float):
            source, name = split_source(key.removeprefix(prefix))
            rows.setdefault(source, {})[name] = as_float(value)
    yield from rows.items()
