"""Exporting: the rows of one run or of several, written as JSON Lines, CSV or Parquet, in memory that does not grow with the runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import IO, Any, Final, Literal

from asynctrack.backends.files.jsonl import RESERVED
from asynctrack.backends.files.reserved import WRITER
from asynctrack.cli.csv_cells import CellMaker, quoted, rows_of
from asynctrack.cli.output import ProgressLine
from asynctrack.cli.run_rows import RUN, Columns, RunRows, Table, widen
from asynctrack.reading.history import LeftOut
from asynctrack.records.column_types import Kind, as_kind

Format = Literal["jsonl", "csv", "parquet"]

# Rows and bytes of a row group of Parquet in memory. Arbitrary: readers take one at a time.
_GROUP_ROWS: Final = 1 << 20
_GROUP_BYTES: Final = 64 << 20


class Export:
    """Writes the rows of runs. Where they have a label, it is the first column, and the columns of all runs are united.

    Args:
        runs: one run without a label, or some with one.
        for_spreadsheets: put a quote in front of text that a spreadsheet would take for a formula.

    Attributes:
        records: how many were written.
        damage: what could not be read.
        left_out: what was logged again.
        cells: makes those of CSV.
    """

    def __init__(self, runs: Sequence[RunRows], *, for_spreadsheets: bool = False) -> None:
        self.records = 0
        self.damage: list[str] = []
        self.left_out = LeftOut()
        self.cells = CellMaker(escapes=for_spreadsheets)
        self._runs = runs

    def write(self, out: IO[bytes], format: Format) -> None:
        """Write all rows in a format."""
        {"jsonl": self.write_lines, "csv": self.write_csv, "parquet": self.write_parquet}[format](out)

    def write_lines(self, out: IO[bytes]) -> None:
        """Write JSON Lines, as the backend of that name does."""
        for run in self._each("exporting"):
            for block, count in run.lines():
                out.write(block)
                self.records += count
        out.flush()

    def write_csv(self, out: IO[bytes]) -> None:
        """Write CSV by RFC 4180: values as in JSON Lines, texts without quotes, an empty cell where a record has no such key."""
        columns, rows = self._columns()
        out.write(rows_of([[self.cells.name(name)] for name in columns]))
        for run, table, height in self._tables(list(columns), rows):
            out.write(rows_of([self._cells(run, name, table, height) for name in columns]))
        out.flush()

    def write_parquet(self, out: IO[bytes]) -> None:
        """Write Parquet, one row group after the other. Each column has one type, as `asynctrack.records.column_types` says. Needs pyarrow."""
        import pyarrow
        from pyarrow.parquet import ParquetWriter

        columns, rows = self._columns()
        types = {
            "bool": pyarrow.bool_(),
            "int": pyarrow.int64(),
            "long": pyarrow.int64(),
            "float": pyarrow.float64(),
            "text": pyarrow.string(),
        }
        kinds: dict[str, Kind] = {name: kind or "float" for name, kind in columns.items()}
        schema = pyarrow.schema([(name, types[kind]) for name, kind in kinds.items()])
        group: list[Any] = []
        size = rows_in_group = 0
        with ParquetWriter(out, schema, compression="zstd") as writer:
            for run, table, height in self._tables(list(columns), rows):
                arrays = [
                    _array(pyarrow, run, name, table, height, kinds[name], types[kinds[name]]) for name in columns
                ]
                group.append(pyarrow.table(arrays, schema))
                size, rows_in_group = size + group[-1].nbytes, rows_in_group + height
                if rows_in_group >= _GROUP_ROWS or size >= _GROUP_BYTES:
                    writer.write_table(pyarrow.concat_tables(group))
                    group.clear()
                    size = rows_in_group = 0
            if group:
                writer.write_table(pyarrow.concat_tables(group))

    def _cells(self, run: RunRows, name: str, table: Table, height: int) -> Iterator[str] | list[str]:
        if name in table:
            return self.cells.column(name, table[name])
        return repeat(quoted(run.label) if name == RUN and run.label is not None else "", height)

    def _columns(self) -> tuple[dict[str, Kind | None], list[int]]:
        """Return the columns of all runs, in the order they came, and the rows of each run."""
        kinds: dict[str, Kind | None] = {}
        labels: dict[str, Kind | None] = {}
        rows: list[int] = []
        for run in self._each("reading the runs"):
            found: Columns = run.columns()
            for name, kind in found.kinds.items():
                widen(labels if name == WRITER and run.label is not None else kinds, name, kind)
            rows.append(found.rows)
        self.damage.clear()
        self.left_out = LeftOut()
        if not any(run.label is not None for run in self._runs):
            return kinds, rows
        first: dict[str, Kind | None] = {name: kinds.pop(name) for name in RESERVED if name in kinds}
        return {RUN: "text", **first, **labels, **kinds}, rows

    def _tables(self, columns: Sequence[str], rows: Sequence[int]) -> Iterator[tuple[RunRows, Table, int]]:
        """Yield the rows of each run, piece by piece."""
        for run, most in zip(self._each("exporting"), rows, strict=True):
            for table, height in run.tables(len(columns), most):
                yield run, table, height
                self.records += height

    def _each(self, what: str) -> Iterator[RunRows]:
        """Yield the runs, show how far it is where there are several, and take note of what they lack."""
        with ProgressLine(what, len(self._runs)) as progress:
            for at, run in enumerate(self._runs):
                yield run
                self.damage += [str(one) if run.label is None else f"{run.label}: {one}" for one in run.damage]
                self.left_out.rows += run.left_out.rows
                self.left_out.values += run.left_out.values
                if len(self._runs) > 1:
                    progress.at(at + 1)


def _array(pyarrow: Any, run: RunRows, name: str, table: Table, height: int, kind: Kind, of: Any) -> Any:
    """Return a column of a piece of a run."""
    if name in table:
        return pyarrow.array(as_kind(kind, table[name]), of)
    return pyarrow.repeat(run.label, height) if name == RUN and run.label is not None else pyarrow.nulls(height, of)
