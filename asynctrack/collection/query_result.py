"""Query result: rows that SQL gave, for people and for data frames. Runs anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from asynctrack._system.suggestions import suggests
from asynctrack.records.libraries import import_library

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

# Rows that a notebook or a prompt shows. Arbitrary.
_SHOWN: Final = 20
_LONGEST_CELL: Final = 40


class QueryResult:
    """Holds the rows that a query found, in memory. It can be iterated: a row is a tuple.

    What DuckDB has as a decimal number is a float here, and a sum of integers is an integer of 64 bits. Times are UTC.
    """

    @suggests
    def __init__(self, table: pyarrow.Table) -> None:
        self._table = table

    @property
    def columns(self) -> list[str]:
        """Return the names of the columns."""
        return list(self._table.column_names)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        for batch in self._table.to_batches():
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return all rows."""
        return list(self)

    @suggests
    def to_arrow(self) -> pyarrow.Table:
        """Return the rows as a pyarrow table."""
        return self._table

    @suggests
    def to_pandas(self) -> pandas.DataFrame:
        """Return the rows as a pandas data frame.

        Raises:
            LibraryMissing: pandas is not installed.
        """
        import_library("pandas", "to_pandas")  # pyarrow's own message says less
        frame: pandas.DataFrame = self._table.to_pandas()
        return frame

    @suggests
    def to_polars(self) -> polars.DataFrame:
        """Return the rows as a polars data frame.

        Raises:
            LibraryMissing: polars is not installed.
        """
        library = import_library("polars", "to_polars")
        frame: polars.DataFrame = library.from_arrow(self._table)
        return frame

    def __repr__(self) -> str:
        titles, rows = self._cells()
        widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (titles, *rows)
        ]
        if len(self) > len(rows):
            lines.append(f"... {len(self):,} rows")
        return "\n".join(line.rstrip() for line in lines)

    def _repr_html_(self) -> str:
        from html import escape

        titles, rows = self._cells()
        head = "".join(f"<th>{escape(title)}</th>" for title in titles)
        body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{len(self):,} rows</p>"

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        shown = QueryResult(self._table.slice(0, _SHOWN))
        return list(map(_cell, self.columns)), [[_cell(value) for value in row] for row in shown]


def plain_types(pyarrow: Any, schema: Any) -> Any:
    """Return a schema with the types that data frames compute with: decimals, as of sums, become integers and floats."""

    def plain(field: Any) -> Any:
        if not pyarrow.types.is_decimal(field.type):
            return field
        return field.with_type(pyarrow.float64() if field.type.scale else pyarrow.int64())

    return pyarrow.schema([plain(field) for field in schema])


def _cell(value: Any) -> str:
    from asynctrack._system.printable import printable

    text = "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    text = printable(" ".join(text.split()))
    return text if len(text) <= _LONGEST_CELL else f"{text[: _LONGEST_CELL - 3]}..."
