"""Aligned curve: a metric of several runs on the steps that any of them has. Runs anywhere. Needs NumPy."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from asynctrack._system.native import is_native
from asynctrack._system.suggestions import suggests
from asynctrack.collection.subject import RunSubject
from asynctrack.reading.history import History
from asynctrack.reading.reader import RunReader
from asynctrack.reading.repeats import find_repeats
from asynctrack.reading.scan import BOOL, FLOAT, INT, blocks
from asynctrack.records.codec import flatten, light
from asynctrack.records.column_types import as_float
from asynctrack.records.libraries import import_library

if TYPE_CHECKING:
    import pandas
    import polars

    from asynctrack._native import Scan


class AlignedCurve:
    """A metric of several runs on one axis.

    Attributes:
        key: the metric.
        x: "step" or "time".
        at: the steps, or seconds, that any run has, from the least; a NumPy array.
        values: for each run its values there, NaN where it has none; of several at one step the last.
    """

    def __init__(self, key: str, x: str, at: Any, values: dict[str, Any]) -> None:
        self.key = key
        self.x = x
        self.at = at
        self.values = values

    def __repr__(self) -> str:
        return f"<AlignedCurve {self.key} of {', '.join(self.values)}, {len(self.at)} rows>"

    def __len__(self) -> int:
        return len(self.at)

    def as_dict(self) -> dict[str, Any]:
        """Return the axis by its name and the values by the runs', as arrays of one length."""
        return {self.x: self.at, **self.values}

    @suggests
    def to_pandas(self) -> pandas.DataFrame:
        """Return a pandas data frame: the axis is its index, and each run a column.

        Raises:
            LibraryMissing: pandas is not installed.
        """
        library = import_library("pandas", "to_pandas")
        frame: pandas.DataFrame = library.DataFrame(self.values, index=library.Index(self.at, name=self.x))
        return frame

    @suggests
    def to_polars(self) -> polars.DataFrame:
        """Return a polars data frame: the axis is its first column, and each run one of the others.

        Raises:
            LibraryMissing: polars is not installed.
        """
        frame: polars.DataFrame = import_library("polars", "to_polars").DataFrame(self.as_dict())
        return frame


def align(key: str, x: Literal["step", "time"], subjects: Mapping[str, RunSubject]) -> AlignedCurve:
    """Align a metric of runs.

    Args:
        key: the metric.
        x: the axis: "step" or "time".
        subjects: the runs by their labels.

    Raises:
        LibraryMissing: NumPy is not installed.
    """
    numpy = import_library("numpy", "curve")
    found = {label: _numbers(numpy, subject, key, x) for label, subject in subjects.items()}
    every = [places for places, _ in found.values()]
    at = numpy.unique(numpy.concatenate(every)) if every else numpy.empty(0)
    values = {}
    for label, (places, numbers) in found.items():
        column = numpy.full(len(at), numpy.nan)
        column[numpy.searchsorted(at, places)] = numbers  # of several at one place the last stays
        values[label] = column
    return AlignedCurve(key, x, at, values)


def _numbers(numpy: Any, subject: RunSubject, key: str, x: str) -> tuple[Any, Any]:
    """Return the places and the values of a metric of a run as arrays."""
    places, numbers = [], []
    for some, values in _pieces(numpy, subject.path, key, x, subject.history):
        places.append(some)
        numbers.append(values)
    if not places:
        return numpy.empty(0, "int64" if x == "step" else "float64"), numpy.empty(0)
    return numpy.concatenate(places), numpy.concatenate(numbers)


def _pieces(numpy: Any, run: Path, key: str, x: str, history: History) -> Iterator[tuple[Any, Any]]:
    """Yield the places and the values of a metric of a run, some at a time. True and False are 1 and 0; what is no number is left out."""
    reader = RunReader(run)
    done = 0
    with contextlib.suppress(
        OverflowError
    ):  # of a step that only Python can hold: what is left is read without the core
        if is_native and reader._has_journal():
            repeats = find_repeats(run, reader.manifest(), reader._batches) if history == "last" else None
            start: float | None = None
            for scan in blocks(run, reader._batches(), light, rows=True, repeats=repeats):
                seconds = numpy.frombuffer(memoryview(scan.times()), "float64")
                start = float(seconds[0]) if start is None else start
                names = scan.names()
                if key in names:
                    steps, rows, values = _column(numpy, scan, names.index(key))
                    done += len(steps)
                    yield (steps if x == "step" else seconds[rows] - start), values
            return
    rest = [
        (record.step, record.time_ns / 1e9, as_float(value))
        for record in reader.records(history)
        for name, value in flatten(record.data)
        if name == key and isinstance(value, int | float)
    ]
    first = next((record.time_ns / 1e9 for record in reader.records(history)), 0.0)
    if rest[done:]:
        at = [step if x == "step" else seconds - first for step, seconds, _ in rest[done:]]
        yield numpy.array(at), numpy.array([value for *_, value in rest[done:]], "float64")


def _column(numpy: Any, scan: Scan, index: int) -> tuple[Any, Any, Any]:
    """Return the steps, the rows and the values of the numbers of a column."""
    steps = numpy.frombuffer(memoryview(scan.steps_of(index)), "int64")
    rows = numpy.frombuffer(memoryview(scan.rows_of(index)), "int64")
    if not scan.describe(index)[0] & ~(BOOL | INT | FLOAT):
        return steps, rows, numpy.frombuffer(memoryview(scan.values_of(index, "d")), "float64")
    values = scan.objects_of(index)
    chosen = [at for at, value in enumerate(values) if isinstance(value, int | float)]
    return steps[chosen], rows[chosen], numpy.array([as_float(values[at]) for at in chosen], "float64")
