"""Run frames: a row for each run, as pandas, polars and Arrow have tables. The names of columns are expressions. Runs anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

from asynctrack.collection.subject import RunSubject, duration_s
from asynctrack.reading import data_frames
from asynctrack.reading.data_frames import Table
from asynctrack.records.codec import Array, Media, flatten, to_json
from asynctrack.records.expressions import spelled
from asynctrack.records.libraries import import_library

# What is asked of each metric.
HOW: Final = ("first", "last", "min", "max")

_TIMES: Final = ("created_at", "ended_at")


def to_pandas(subjects: Iterable[RunSubject]) -> Any:
    """Build a pandas data frame."""
    pandas = import_library("pandas", "to_pandas")
    table = table_of(subjects)
    return pandas.DataFrame(
        {
            name: pandas.Series(values, dtype="datetime64[us, UTC]")
            if name in _TIMES
            else data_frames.pandas_series(pandas, name, values)
            for name, values in table.items()
        }
    )


def to_polars(subjects: Iterable[RunSubject]) -> Any:
    """Build a polars data frame."""
    polars = import_library("polars", "to_polars")
    time = polars.Datetime("us", "UTC")
    return polars.DataFrame(
        [
            polars.Series(name, values, time) if name in _TIMES else data_frames.polars_series(polars, name, values)
            for name, values in table_of(subjects).items()
        ]
    )


def to_arrow(subjects: Iterable[RunSubject]) -> Any:
    """Build a pyarrow table."""
    pyarrow = import_library("pyarrow", "to_arrow")
    time = pyarrow.timestamp("us", "UTC")
    return pyarrow.table(
        {
            name: pyarrow.array(values, time) if name in _TIMES else data_frames.arrow_array(pyarrow, name, values)
            for name, values in table_of(subjects).items()
        }
    )


def table_of(subjects: Iterable[RunSubject]) -> Table:
    """Return columns of equal length, with None where a run has no value."""
    parts: list[Table] = [{}, {}, {}, {}]  # of each run, of config, summary and metrics: in this order
    rows = 0
    for subject in subjects:
        of_run = (
            dict(_of_run(subject)),
            dict(_values(subject, "config")),
            dict(_values(subject, "summary")),
            dict(_of_metrics(subject)),
        )
        for columns, cells in zip(parts, of_run, strict=True):
            for name, value in cells.items():
                column = columns.setdefault(name, [])
                column.extend([None] * (rows - len(column)))
                column.append(value)
        rows += 1
    table = {name: column for columns in parts for name, column in columns.items()}
    for column in table.values():
        column.extend([None] * (rows - len(column)))
    return table or {name: [] for name in ("id", "project", "name", "status", *_TIMES)}


def _of_run(subject: RunSubject) -> Iterator[tuple[str, Any]]:
    summary = subject.summary
    for name in ("id", "project", "name", "status"):
        yield name, getattr(summary, name)
    yield "created_at", _time(summary.created_at)
    yield "ended_at", _time(summary.ended_at)
    yield "duration", duration_s(summary)
    yield "records", summary.records
    yield "group", summary.group
    yield "tags", summary.tags


def _values(subject: RunSubject, kind: str) -> Iterator[tuple[str, Any]]:
    for key, value in flatten(getattr(subject.summary, kind)):
        yield f"{kind}.{spelled(key)}", _cell(value)


def _of_metrics(subject: RunSubject) -> Iterator[tuple[str, Any]]:
    for key, stats in subject.metrics.items():
        for how in HOW:
            yield f"{how}({spelled(key)})", getattr(stats, how)


def _time(text: str | None) -> datetime | None:
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return found.astimezone(UTC) if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _cell(value: Any) -> Any:
    """Convert a value to that of a cell."""
    if isinstance(value, Array):
        return value.tolist()
    return to_json(value) if isinstance(value, Media | dict) else value
