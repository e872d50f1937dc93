"""SQL tables: the tables of the database, the columns of a value, and the way back from rows to records.

Runs where the sink runs, and in readers.

| Table | A row is | Its key |
| --- | --- | --- |
| runs | a run: project, id, name, status, config and summary as JSON | project, run_id, created_at |
| tags | a tag of a run | run, tag |
| sources | the part of keys before their first `/`, such as a scope: "train" of "train/loss"; empty where there is none | run, name |
| rings | a process's queue, and the number of its last record here: the cursor of the delivery | run, ring |
| writers | the label of the process that put a ring's records: in runs of several writers only | ring |
| metrics | a value: of a source and key, at a step and a time | source, key, ring, number |

The type of a value decides its column: `float`, `int` and `bool` are in `value`, where NULL is NaN; `text` is in
`text`; `json` (lists, arrays, None) is in `text` as JSON. An integer beyond 53 bits has its digits in `text` as well.
The key of `metrics` keeps a curve together on disk, and makes a repeat a no-op.
"""

from __future__ import annotations

import heapq
import json
import zlib
from collections.abc import Collection, Iterator, Mapping
from itertools import groupby
from typing import Any, Final, NamedTuple

import msgspec
import sqlalchemy as sa

from asynctrack.records.codec import Record, from_json, split_source, to_json

# Characters of a name, at most: PostgreSQL's index holds 2,704 bytes of a row, and a character takes up to four.
_MOST_NAME: Final = 400
_EXACT: Final = 1 << 53
_READ_AT_ONCE: Final = 10_000

_tables = sa.MetaData()
runs: Final = sa.Table(
    "runs",
    _tables,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("project", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("created_at", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("config", sa.Text, nullable=False),
    sa.Column("summary", sa.Text, nullable=False),
    sa.UniqueConstraint("project", "run_id", "created_at"),
)
tags: Final = sa.Table(
    "tags",
    _tables,
    sa.Column("run", sa.ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("tag", sa.Text, primary_key=True),
)
sources: Final = sa.Table(
    "sources",
    _tables,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("run", sa.ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.UniqueConstraint("run", "name"),
)
rings: Final = sa.Table(
    "rings",
    _tables,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("run", sa.ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
    sa.Column("ring", sa.Text, nullable=False),
    sa.Column("upto", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("run", "ring"),
)
writers: Final = sa.Table(
    "writers",
    _tables,
    sa.Column("ring", sa.ForeignKey("rings.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    sa.Column("label", sa.Text, nullable=False),
)
metrics: Final = sa.Table(
    "metrics",
    _tables,
    sa.Column("source", sa.ForeignKey("sources.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("ring", sa.Integer, primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True),
    sa.Column("step", sa.BigInteger, nullable=False),
    sa.Column("time_ns", sa.BigInteger, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("value", sa.Double),
    sa.Column("text", sa.Text),
    sqlite_with_rowid=False,
)


# A row of `metrics`: its columns in their order.
Row = tuple[int, str, int, int, int, int, str, float | None, str | None]


class Cell(NamedTuple):
    """A value as the columns of `metrics` hold it."""

    type: str
    value: float | None
    text: str | None


def make_all(connection: sa.Connection) -> None:
    """Make the tables that are missing."""
    _tables.create_all(connection)


def cell(value: Any) -> Cell:
    """Return a value as the columns hold it."""
    if type(value) is float:
        return Cell("float", value if value == value else None, None)
    if type(value) is bool:
        return Cell("bool", float(value), None)
    if type(value) is int:
        return Cell("int", float(value), None) if -_EXACT <= value <= _EXACT else _large(value)
    if type(value) is str and "\0" not in value:
        return Cell("text", None, value)
    return Cell("json", None, as_json(value))


def uncell(cell: Cell) -> Any:
    """Return the value that these columns hold."""
    if cell.type == "float":
        return float("nan") if cell.value is None else cell.value
    if cell.type == "int" and cell.text is not None:
        return int(cell.text)
    if cell.value is not None:
        return bool(cell.value) if cell.type == "bool" else int(cell.value)
    return from_json(json.loads(cell.text or "null")) if cell.type == "json" else cell.text


def as_json(value: Any) -> str:
    """Encode a value as JSON, which has no NaN and no infinities: they become strings."""
    return msgspec.json.encode(to_json(value)).decode()


def fit(name: str) -> str:
    """Return a name that both databases take: PostgreSQL has no NUL, and its indices hold no long names."""
    name = name.replace("\0", "\\0")
    return name if len(name) <= _MOST_NAME else f"{name[: _MOST_NAME - 9]}-{zlib.crc32(name.encode()):08x}"


def split(path: str) -> tuple[str, str]:
    """Split a flat name into source and key."""
    source, key = split_source(path)
    return fit(source), fit(key)


def join(source: str, key: str) -> str:
    """Return the flat name of a source's key."""
    return f"{source}/{key}" if source else key


def find_run(connection: sa.Connection, run_id: str, project: str | None) -> int | None:
    """Return the id of a run's row, the newest of this run id; None where there is none."""
    wanted = sa.select(runs.c.id).where(runs.c.run_id == run_id).order_by(runs.c.id.desc()).limit(1)
    found: int | None = connection.scalar(wanted if project is None else wanted.where(runs.c.project == project))
    return found


def records_of(connection: sa.Connection, run: int) -> Iterator[Record]:
    """Yield the records of a run: those of a ring in its order, those of several by time."""
    found = connection.execute(sa.select(rings.c.id, rings.c.ring).where(rings.c.run == run).order_by(rings.c.id)).all()
    labels = _labels_of(connection, run)
    each = [_records_of_ring(connection, run, row, int(ring, 16), labels.get(row)) for row, ring in found]
    return heapq.merge(*each, key=lambda record: record.time_ns)


def _labels_of(connection: sa.Connection, run: int) -> dict[int, str]:
    """Return the label of each ring that has one; an earlier version has made no table for them."""
    if not sa.inspect(connection).has_table(writers.name):
        return {}
    query = sa.select(writers.c.ring, writers.c.label).join(rings, rings.c.id == writers.c.ring)
    return {found.ring: found.label for found in connection.execute(query.where(rings.c.run == run))}


def _records_of_ring(connection: sa.Connection, run: int, row: int, ring: int, writer: str | None) -> Iterator[Record]:
    of = metrics.c
    query = (
        sa.select(of.number, of.step, of.time_ns, sources.c.name, of.key, of.type, of.value, of.text)
        .join(sources, sources.c.id == of.source)
        .where(sources.c.run == run, of.ring == row)
        .order_by(of.number)
        .execution_options(yield_per=_READ_AT_ONCE)
    )
    for (number, step, time_ns), rows in groupby(connection.execute(query), key=lambda found: found[:3]):
        data = {join(row.name, row.key): uncell(Cell(row.type, row.value, row.text)) for row in rows}
        yield Record(number, step, time_ns, data, ring, writer)


def _large(value: int) -> Cell:
    try:
        return Cell("int", float(value), str(value))
    except OverflowError:
        return Cell("int", None, str(value))


def merged(content: str, changes: Mapping[str, Any], removed: Collection[str] = ()) -> str:
    """Remove and then merge names, key by key, in a config or summary that is JSON."""
    kept = {key: value for key, value in json.loads(content).items() if key not in removed}
    return as_json({**kept, **changes})
