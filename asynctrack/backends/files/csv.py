"""CSV: a file per source, in `csv/` of the run's directory. Runs in the worker's loop.

`{"train/loss": 0.5, "val/acc": 0.9, "lr": 0.1}` is a row in each of `train.csv`, `val.csv` and `metrics.csv`: the source is what a name has
before its first `/`, and names without one are in `metrics.csv`. `csv_rows` has what rows and file names are made of.

The first two columns are the step and the wall clock in seconds since the epoch. A new name is a new column behind the others: the file is replaced
at once by one with the wider header, whose rows all have as many cells (a copy: whoever makes up a name per record should not choose CSV). What a
record does not have is an empty cell.

Each record is in its files once, also after a crash, as `appending` says. Files that a person has edited are left as they are, and all are built
anew in `csv-2/` beside them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from asynctrack import modes
from asynctrack.backends.base import Backend, Batch, Context, Outcome, Paused, Sink, StartOver
from asynctrack.backends.files.appending import AppendedFile, Changed, Layout, beside
from asynctrack.backends.files.csv_rows import (
    COLUMNS,
    encode_row,
    file_and_column,
    header_of,
    is_torn,
    is_whole,
    read_header,
    split_rows,
    stamp_of,
)
from asynctrack.backends.files.reserved import flat
from asynctrack.journal.writer import sync_directory
from asynctrack.loop import in_thread
from asynctrack.record import Record
from asynctrack.settings import check_name

# What a widened file is copied by at once. Arbitrary.
_PIECE_BYTES: Final = 1 << 20

# With more sources than these a file is open only while it is written: a process may have some 1,000 open, for all its runs. Arbitrary.
_MOST_OPEN: Final = 16

_LAYOUT: Final = Layout(split_rows, stamp_of, is_torn)
_NO_FILE: Final[dict[str, Any]] = {"columns": list(COLUMNS), "bytes": 0, "rows": 0}


class CSV(Backend, frozen=True, kw_only=True, tag="csv"):
    """Every record as a row in the CSV file of each of its sources.

    Attributes:
        folder: name in the run's directory.
    """

    place = "worker"
    folder: str = "csv"

    def __post_init__(self) -> None:
        check_name("folder", self.folder)
        super().__post_init__()

    def open(self, context: Context) -> Sink:
        return _Tables(context.directory, context.state or {"folder": self.folder, "files": {}})


class _Tables(Sink):
    def __init__(self, run: Path, state: dict[str, Any]) -> None:
        self._folder = run / os.path.basename(state["folder"])  # only its name: the cursor may come from elsewhere
        self._states: dict[str, dict[str, Any]] = state["files"]
        self._tables: dict[str, _Table] = {}
        self._places: dict[str, tuple[str, str]] = {}

    async def write(self, batch: Batch) -> None:
        rows = await in_thread(self._rows, batch.records)
        try:
            tables = {file: await self._table(file) for file in rows}
            for file, table in tables.items():
                await table.widen(name for _, data in rows[file] for name in data)
            before = {table: (table.file.offset, table.file.count) for table in tables.values()}
            try:
                for file, table in tables.items():
                    await table.append(rows[file], stay_open=len(self._tables) <= _MOST_OPEN)
            except BaseException:
                for table, (offset, count) in before.items():  # the same batch comes again: what is there is compared
                    table.file.offset, table.file.count = offset, count
                raise
        except Changed as reason:
            raise StartOver(str(reason), {"folder": beside(self._folder).name, "files": {}}) from reason

    async def checkpoint(self) -> dict[str, Any]:
        for table in self._tables.values():
            await table.file.sync()
        return {
            "folder": self._folder.name,
            "files": {**self._states, **{file: table.state() for file, table in self._tables.items()}},
        }

    async def close(self, outcome: Outcome) -> None:
        for table in self._tables.values():
            await table.file.close()

    def _rows(self, records: Iterable[Record]) -> dict[str, list[tuple[Record, dict[str, Any]]]]:
        """What each file gets: records, and their values by column."""
        rows: dict[str, list[tuple[Record, dict[str, Any]]]] = {}
        for record in records:
            parts: dict[str, dict[str, Any]] = {}
            for key, value in flat(record.data).items():
                if (place := self._places.get(key)) is None:
                    place = self._places[key] = file_and_column(key)
                parts.setdefault(place[0], {})[place[1]] = value
            for file, data in (parts or {file_and_column("")[0]: {}}).items():
                rows.setdefault(file, []).append((record, data))
        return rows

    async def _table(self, file: str) -> _Table:
        if (table := self._tables.get(file)) is None:
            if os.path.islink(self._folder):
                raise Paused(f"{self._folder} is a link, which may lead anywhere; make it a directory")
            with contextlib.suppress(FileExistsError):
                os.mkdir(self._folder, modes.DIRECTORY)
            path = self._folder / file
            table = await in_thread(_Table.load, path, self._states.get(file, _NO_FILE))
            self._tables[file] = table
        return table


class _Table:
    """The file of one source.

    Args:
        path: of the file.
        columns: of its header; none where there is no file.
        offset: up to where it is known to have what has been delivered.
        count: of the rows up to there.
    """

    def __init__(self, path: Path, columns: list[str], offset: int, count: int) -> None:
        self.file = AppendedFile(path, _LAYOUT, offset, count)
        self._columns = {name: index for index, name in enumerate(columns)}

    @classmethod
    def load(cls, path: Path, state: dict[str, Any]) -> _Table:
        """The table that was here when its state was that.

        Raises:
            Changed: it is another's.
        """
        known, offset, count = state["columns"], state["bytes"], state["rows"]
        columns = _columns_of(path)
        if columns[: len(known)] != known and (offset or columns):
            raise Changed(f"{path.name} was changed by another")
        if not columns:
            return cls(path, [], 0, 0)
        # It may have got more columns since, and with them its rows a comma each.
        begin = len(header_of(columns))
        wider = begin - len(header_of(known)) + count * (len(columns) - len(known))
        return cls(path, columns, offset + wider if offset else begin, count)

    def state(self) -> dict[str, Any]:
        return {"columns": list(self._columns), "bytes": self.file.offset, "rows": self.file.count}

    async def append(self, rows: list[tuple[Record, dict[str, Any]]], *, stay_open: bool) -> None:
        """Have these rows in the file, if they are not there."""
        block = await in_thread(self._encode, rows)
        await self.file.append(block, [record for record, _ in rows])
        if not stay_open:
            await self.file.sync()
            await self.file.close()

    async def widen(self, names: Iterable[str]) -> None:
        """Have columns of these names."""
        columns = dict.fromkeys([*(self._columns or COLUMNS), *names])
        if len(columns) > len(self._columns):
            await self.file.close()
            try:
                await in_thread(self._widen, list(columns))
            except FileNotFoundError as error:
                raise Changed(f"{self.file.path.name} was removed") from error

    def _encode(self, rows: list[tuple[Record, dict[str, Any]]]) -> bytes:
        return b"".join(encode_row(record, data, self._columns) for record, data in rows)

    def _widen(self, columns: list[str]) -> None:
        path, before = self.file.path, header_of(list(self._columns)) if self._columns else b""
        more = len(columns) - len(self._columns) if before else 0
        begin = header_of(columns)
        unfinished = path.with_name(f".{path.name}.new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with open(os.open(unfinished, flags, modes.FILE), "wb") as wide:
            wide.write(begin)
            if before:
                with open(path, "rb") as narrow:
                    narrow.seek(len(before))
                    rest = b""
                    while piece := narrow.read(_PIECE_BYTES):
                        rows = split_rows(rest + piece)
                        rest = b"" if is_whole(rows[-1]) else rows.pop()
                        wide.writelines(row[:-2] + b"," * more + b"\r\n" for row in rows)
                    wide.write(rest)  # torn: it comes again
            wide.flush()
            os.fsync(wide.fileno())
        os.replace(unfinished, path)
        sync_directory(os.fspath(path.parent))
        self.file.offset += len(begin) - len(before) + more * self.file.count
        self._columns = {name: index for index, name in enumerate(columns)}


def _columns_of(path: Path) -> list[str]:
    """The columns of a file; none where there is no file.

    Raises:
        Changed: it has no header.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            columns = read_header(file)
    except FileNotFoundError:
        return []
    if not columns:
        raise Changed(f"{path.name} has no header")
    return columns
