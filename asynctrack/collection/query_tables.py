"""Query tables: what SQL may ask of runs, as Arrow: `runs`, `config`, `summary`, `metric_stats`, `metrics`. Runs anywhere. Needs pyarrow.

A table is made when a statement reads it. `run` is `project/id` in all of them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final

import msgspec
import pyarrow

from asynctrack.collection.metric_batches import METRICS, metric_batches
from asynctrack.collection.runs import Runs, runs
from asynctrack.collection.subject import RunSubject, duration_s
from asynctrack.reading.history import History
from asynctrack.records.codec import flatten, to_json

# Rows of a batch. Arbitrary.
_BATCH_ROWS: Final = 10_000

_RUNS: Final = pyarrow.schema([
    ("run", pyarrow.string()),
    ("id", pyarrow.string()),
    ("project", pyarrow.string()),
    ("name", pyarrow.string()),
    ("status", pyarrow.string()),
    ("created_at", pyarrow.timestamp("us")),
    ("ended_at", pyarrow.timestamp("us")),
    ("duration", pyarrow.float64()),
    ("records", pyarrow.int64()),
    ("last_step", pyarrow.int64()),
    ("size", pyarrow.int64()),
    ("tags", pyarrow.list_(pyarrow.string())),
    ("group", pyarrow.string()),
    ("job_type", pyarrow.string()),
    ("notes", pyarrow.string()),
    ("host", pyarrow.string()),
    ("user", pyarrow.string()),
    ("commit", pyarrow.string()),
    ("error", pyarrow.string()),
    ("dropped", pyarrow.int64()),
    ("config", pyarrow.json_()),
    ("summary", pyarrow.json_()),
    ("path", pyarrow.string()),
])  # fmt: skip
_VALUES: Final = pyarrow.schema([
    ("run", pyarrow.string()),
    ("key", pyarrow.string()),
    ("value", pyarrow.string()),
    ("number", pyarrow.float64()),
])  # fmt: skip
_STATS: Final = pyarrow.schema([
    ("run", pyarrow.string()),
    ("key", pyarrow.string()),
    ("count", pyarrow.int64()),
    ("not_finite", pyarrow.int64()),
    *((name, pyarrow.float64()) for name in ("first", "last", "min", "max", "mean")),
    *((f"{name}_step", pyarrow.int64()) for name in ("first", "last", "min", "max")),
])  # fmt: skip

_LARGEST: Final = (1 << 63) - 1

Row = tuple[Any, ...]


class QueryTable:
    """A table that makes its batches anew each time that it is read, by the protocol of Arrow's streams.

    Args:
        name: of the table.
        schema: of its batches.
        batches: makes them.

    Attributes:
        name: of the table.
        failure: what has gone wrong in the making, Ctrl-C too: the reader of the stream gets no more than a text of it.
    """

    def __init__(self, name: str, schema: pyarrow.Schema, batches: Callable[[], Iterator[pyarrow.RecordBatch]]) -> None:
        self.name = name
        self.failure: BaseException | None = None
        self._schema = schema
        self._batches = batches

    def __arrow_c_schema__(self) -> object:
        """Return the schema as Arrow's capsule."""
        return self._schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Return all batches as Arrow's capsule of a stream."""
        found = pyarrow.RecordBatchReader.from_batches(self._schema, self._watched())
        return found.__arrow_c_stream__(requested_schema)

    def _watched(self) -> Iterator[pyarrow.RecordBatch]:
        try:
            yield from self._batches()
        except BaseException as error:
            self.failure = error
            raise


def tables_of(dir: str | os.PathLike[str] | None, *, where: str | None, history: History) -> list[QueryTable]:
    """Return the tables of the runs in a directory.

    Args:
        dir: as for `runs`.
        where: as for `runs`.
        history: as for `runs`.
    """
    found = runs(dir, where=where, history=history)
    return [
        QueryTable("runs", _RUNS, lambda: _in_batches(_RUNS, _runs(found))),
        QueryTable("config", _VALUES, lambda: _in_batches(_VALUES, _values(found, "config"))),
        QueryTable("summary", _VALUES, lambda: _in_batches(_VALUES, _values(found, "summary"))),
        QueryTable("metric_stats", _STATS, lambda: _in_batches(_STATS, _stats(found))),
        QueryTable("metrics", METRICS, lambda: _metrics(found, history)),
    ]


def _runs(found: Runs) -> Iterator[Row]:
    for subject in found.subjects():
        summary = subject.summary
        yield (
            _run(subject), summary.id, summary.project, summary.name, summary.status,
            _time(summary.created_at), _time(summary.ended_at), duration_s(summary),
            summary.records, _integer(summary.step), summary.bytes,
            summary.tags, summary.group, summary.job_type, summary.notes,
            *(subject.field(name) or None for name in ("host", "user", "commit")),
            summary.error, sum(summary.dropped.values()),
            _json(summary.config), _json(summary.summary), os.path.abspath(subject.path),
        )  # fmt: skip


def _values(found: Runs, kind: str) -> Iterator[Row]:
    for subject in found.subjects():
        of = _run(subject)
        for key, value in flatten(getattr(subject.summary, kind)):
            yield of, key, value if isinstance(value, str) else _json(value), _number(value)


def _stats(found: Runs) -> Iterator[Row]:
    for subject in found.subjects():
        of = _run(subject)
        for key, stats in subject.metrics.items():
            yield (
                of, key, stats.count, stats.not_finite,
                *(_number(getattr(stats, name)) for name in ("first", "last", "min", "max", "mean")),
                *(_integer(getattr(stats, f"{name}_step")) for name in ("first", "last", "min", "max")),
            )  # fmt: skip


def _metrics(found: Runs, history: History) -> Iterator[pyarrow.RecordBatch]:
    for subject in found.subjects():
        yield from metric_batches(subject.path, _run(subject), history)


def _in_batches(schema: pyarrow.Schema, rows: Iterable[Row]) -> Iterator[pyarrow.RecordBatch]:
    rows = iter(rows)
    while some := list(islice(rows, _BATCH_ROWS)):
        columns = zip(*some, strict=True)
        arrays = [_array(list(values), field.type) for values, field in zip(columns, schema, strict=True)]
        yield pyarrow.RecordBatch.from_arrays(arrays, schema=schema)


def _array(values: list[Any], of: Any) -> Any:
    return pyarrow.array(values, of)


def _run(subject: RunSubject) -> str:
    return f"{subject.summary.project}/{subject.summary.id}"


def _time(text: str | None) -> datetime | None:
    """Return a time as Arrow takes it: UTC, without a zone. None where it is malformed."""
    if text is None:
        return None
    with contextlib.suppress(ValueError, OverflowError, TypeError):
        return datetime.fromisoformat(text).astimezone(UTC).replace(tzinfo=None)
    return None


def _integer(value: int | None) -> int | None:
    """Return an integer that 63 bits hold; None for another."""
    return value if value is None or -_LARGEST - 1 <= value <= _LARGEST else None


def _number(value: Any) -> float | None:
    """Return a number or a truth as a float; None for anything else, and for NaN."""
    if not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return None if number != number else number


def _json(value: Any) -> str:
    return msgspec.json.encode(to_json(value)).decode()
