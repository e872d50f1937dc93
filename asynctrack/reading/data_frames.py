"""Data frames: a run's columns for pandas, polars and Arrow, each of one type by the rule of `column_types`. Runs anywhere.

A column of lists stays one where the library can hold it, and becomes text elsewhere.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from asynctrack.backends.files.reserved import WRITER, free_name
from asynctrack.records.column_types import Kind, are_plain, as_kind, kind_of

STEP: Final = "_step"
TIMESTAMP: Final = "_timestamp"
RESERVED: Final = (STEP, TIMESTAMP)

_LONGEST: Final = 1 << 63

# pandas' types of columns that have a value in each row, and of those that do not.
_PRESENT: Final[dict[Kind | None, str]] = {"bool": "bool", "int": "int64", "long": "int64", "float": "float64"}
_MISSING: Final[dict[Kind | None, str]] = {"int": "float64", "long": "Int64", "float": "float64"}


# Columns of equal length, with None where a record has no value.
Table = dict[str, list[Any]]


def with_writers(table: Table, labels: list[str | None]) -> Table:
    """Return a table with the labels of the rows' writers as third column. A logged key of that name gets one more underscore in front."""
    own: Table = {STEP: table[STEP], TIMESTAMP: table[TIMESTAMP], WRITER: labels}
    keys = {free_name(name, (WRITER,)): values for name, values in table.items() if name not in own or name == WRITER}
    return {**own, **keys}


class Typed(NamedTuple):
    """A column's values of one type, with None where a record has none.

    Attributes:
        kind: of all of them; None for lists and the like, which have no kind of their own.
    """

    values: list[Any]
    kind: Kind | None


def typed(values: list[Any]) -> Typed:
    """Convert a column to one type by the rule; a column of nothing but None to floats."""
    if not are_plain(values):
        types = {type(value) for value in values if value is not None}
        return Typed(values, None) if len(types) == 1 else Typed(as_kind("text", values), "text")
    kind = kind_of(values) or "float"
    return Typed(as_kind(kind, values), kind)


def to_pandas(pandas: Any, table: Table) -> Any:
    """Build a pandas data frame. A column of integers with gaps becomes floats with NaN; beyond 2**53 it becomes `Int64`, which can hold gaps."""
    return pandas.DataFrame({name: pandas_series(pandas, name, values) for name, values in table.items()})


def to_polars(polars: Any, table: Table) -> Any:
    """Build a polars data frame."""
    return polars.DataFrame([polars_series(polars, name, values) for name, values in table.items()])


def to_arrow(pyarrow: Any, table: Table) -> Any:
    """Build a pyarrow table."""
    return pyarrow.table({name: arrow_array(pyarrow, name, values) for name, values in table.items()})


def pandas_series(pandas: Any, name: str, values: list[Any]) -> Any:
    """Build one column of a pandas data frame."""
    if name == STEP and _are_unsigned(values):
        return pandas.Series(values, dtype="uint64")
    column = typed(values)
    types = _MISSING if None in values else _PRESENT
    return pandas.Series(column.values, dtype=types.get(column.kind, "object"))


def polars_series(polars: Any, name: str, values: list[Any]) -> Any:
    """Build one column of a polars data frame."""
    if name == STEP and _are_unsigned(values):
        return polars.Series(name, values, polars.UInt64)
    column = typed(values)
    if column.kind is not None:
        types = {
            "bool": polars.Boolean, "int": polars.Int64, "long": polars.Int64, "float": polars.Float64, "text": polars.String,
        }  # fmt: skip
        return polars.Series(name, column.values, types[column.kind])
    try:
        return polars.Series(name, column.values, strict=False)
    except Exception:  # whatever the library cannot hold, lists of several types for one: it has no common base
        return polars.Series(name, as_kind("text", values), polars.String)


def arrow_array(pyarrow: Any, name: str, values: list[Any]) -> Any:
    """Build one column of a pyarrow table."""
    if name == STEP and _are_unsigned(values):
        return pyarrow.array(values, pyarrow.uint64())
    column = typed(values)
    if column.kind is not None:
        types = {
            "bool": pyarrow.bool_(), "int": pyarrow.int64(), "long": pyarrow.int64(), "float": pyarrow.float64(), "text": pyarrow.string(),
        }  # fmt: skip
        return pyarrow.array(column.values, types[column.kind])
    try:
        return pyarrow.array(column.values)
    except (pyarrow.ArrowException, OverflowError, TypeError, ValueError):  # lists of several types
        return pyarrow.array(as_kind("text", values), pyarrow.string())


def _are_unsigned(steps: list[Any]) -> bool:
    """Return True if the steps fit 64 bits without a sign, and some need all of them."""
    return bool(steps) and min(steps) >= 0 and _LONGEST <= max(steps) < 2 * _LONGEST
