"""Table: rows under named columns. Runs in the caller."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from asynctrack._system.suggestions import suggests
from asynctrack.errors import InvalidValue, InvalidValueType
from asynctrack.records.media_types import Value

# Rows of a data frame that is logged directly. As many as W&B shows; for more, build a `Table`.
MOST_ROWS: Final = 10_000


class Table(Value):
    """Holds rows under named columns. Cells may be anything that `log()` takes, images too.

    Args:
        columns: names of the columns. Default: those of the data frame, or 0, 1, ...
        data: rows, each as long as the columns; or a data frame.
        dataframe: of pandas or polars.

    Raises:
        InvalidValue: a row has another length.
    """

    @suggests
    def __init__(
        self,
        columns: Sequence[Any] | None = None,
        data: Any = None,
        *,
        dataframe: Any = None,
    ) -> None:
        if hasattr(data, "columns"):
            dataframe = data
        if dataframe is not None:
            columns, data = _of_frame(dataframe)
        if isinstance(data, str | bytes | Mapping) or not isinstance(data if data is not None else [], Iterable):
            raise InvalidValueType("Table", "rows of cells, or a data frame", f"{type(data).__name__}: {data!r:.80}")
        self.data: list[list[Any]] = [_row(row) for row in data] if data is not None else []
        widest = len(self.data[0]) if self.data else 0
        self.columns: list[str] = [str(name) for name in (range(widest) if columns is None else columns)]
        for row in self.data:
            self._check(row)

    def __repr__(self) -> str:
        return f"<Table of {len(self.data)} rows, {len(self.columns)} columns>"

    def add_data(self, *cells: Any) -> None:
        """Add a row of these cells.

        Raises:
            InvalidValue: it is not as long as the columns.
        """
        self._check(cells)
        self.data.append(list(cells))

    @suggests
    def add_column(self, name: str, data: Iterable[Any]) -> None:
        """Add a column.

        Args:
            name: of the column.
            data: its cells, one for each row.

        Raises:
            InvalidValue: there are more cells than rows, or fewer.
        """
        cells = list(data)
        if self.columns and len(cells) != len(self.data):
            raise InvalidValue("Table.add_column", f"{len(self.data)} cells, one a row", f"{len(cells)}")
        if not self.columns:
            self.data = [[] for _ in cells]
        self.columns.append(str(name))
        for row, cell in zip(self.data, cells, strict=True):
            row.append(cell)

    @suggests
    def get_column(self, name: str) -> list[Any]:
        """Return the cells of the column of this name."""
        at = self.columns.index(name)
        return [row[at] for row in self.data]

    def wire(self) -> list[Any]:
        meta = {"columns": self.columns, "rows": len(self.data)}
        return ["table", "json", meta, self.data, [], ""]

    def _check(self, row: Sequence[Any]) -> None:
        if len(row) != len(self.columns):
            raise InvalidValue("Table", f"rows of {len(self.columns)} cells, one a column", f"{len(row)}: {row!r:.80}")


def _row(row: Any) -> list[Any]:
    if isinstance(row, str | bytes | Mapping) or not isinstance(row, Iterable):
        raise InvalidValueType("Table", "rows that are sequences of cells", f"{type(row).__name__}: {row!r:.80}")
    return list(row)


def of_frame(frame: Any) -> Table:
    """Convert a logged data frame or series to a table: its first 10,000 rows, with the index if it has a meaning."""
    if not hasattr(frame, "columns"):  # a series
        frame = frame.to_frame() if frame.name is not None else frame.to_frame("value")
    if hasattr(frame, "itertuples"):
        frame = frame.head(MOST_ROWS)
        index = frame.index
        if type(index).__name__ != "RangeIndex" or index.name is not None:
            names = [str(name) if name is not None else "index" for name in index.names]
            rows = [
                [*(at if len(names) > 1 else (at,)), *row]
                for at, row in zip(index, frame.itertuples(index=False, name=None), strict=True)
            ]
            return Table([*names, *map(str, frame.columns)], rows)
        return Table(dataframe=frame)
    if hasattr(frame, "to_pydict"):  # of pyarrow
        cells = frame.slice(0, MOST_ROWS).to_pydict()
        return Table(list(cells), list(zip(*cells.values(), strict=True)))
    return Table(dataframe=frame.head(MOST_ROWS))


def _of_frame(frame: Any) -> tuple[list[str], list[Any]]:
    """Return the columns and rows of a data frame of pandas or polars."""
    if hasattr(frame, "itertuples"):
        return [str(name) for name in frame.columns], list(frame.itertuples(index=False, name=None))
    if hasattr(frame, "rows"):
        return list(frame.columns), frame.rows()
    raise InvalidValueType("Table", "a data frame of pandas or polars", type(frame).__name__)
