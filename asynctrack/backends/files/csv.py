"""CSV: a file per source, in `csv/` of the run's directory. Runs in the worker's loop.

`{"train/loss": 0.5, "val/acc": 0.9, "lr": 0.1}` is a row in each of `train.csv`, `val.csv` and `metrics.csv`. The
source is the part of a name before its first `/`; names without one are in `metrics.csv`. `csv_rows` describes rows and
file names.

The first two columns are the step and the wall clock in seconds since the epoch. A new name adds a column at the end: a
copy of the file with the wider header, and as many cells in every row, replaces the file at once. Such a copy takes
time, so CSV is a bad choice for runs that make up a name per record. A cell is empty where a record has no such value.
A file has at most 1,000 columns. Further ones are in `train-00000002.csv`, `train-00000003.csv`, ..., whose columns
have full names.

Each record is in its files once, also after a crash, as `appending` explains. Files that a person has edited are left
alone, and all files are built again in `csv-2/` beside them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar, Final

from asynctrack._system import permissions
from asynctrack._system.loop_thread import in_thread
from asynctrack.backends.base import ActionRequired, Backend, Batch, Context, Execution, Outcome, Resend, Sink
from asynctrack.backends.files.appending import AppendedFile, FileChanged, Layout, free_path
from asynctrack.backends.files.csv_rows import (
    COLUMNS,
    encode_row,
    file_and_column,
    files_and_columns,
    header_of,
    is_torn,
    is_whole,
    read_header,
    split_rows,
    stamp_of,
)
from asynctrack.backends.files.reserved import WRITER
from asynctrack.backends.files.syncing import sync_file_system
from asynctrack.backends.files.writer_folders import directory_of
from asynctrack.journal.reader import is_blank
from asynctrack.journal.segment import sync_directory
from asynctrack.records.codec import Record
from asynctrack.records.plain import flat
from asynctrack.settings import check_name

# Bytes that are copied at once when a file is widened. Arbitrary.
_PIECE_BYTES: Final = 1 << 20

# With more sources than these, a file is open only while it is written: a process may have some 1,000 files open, for all its runs. Arbitrary.
_MOST_OPEN: Final = 16
# A source with more columns than these gets another file. An empty cell takes a comma: 20,000 keys, each in a record of its own, made 384 MB
# in one file, and make 20 MB in twenty. Spreadsheets take 16,384 columns and PostgreSQL 1,600, so wider tables help nobody. Arbitrary.
_MOST_COLUMNS: Final = 1_000

Row = tuple[Record, dict[str, Any]]

_LAYOUT: Final = Layout(split_rows, stamp_of, is_torn)
_NO_FILE: Final[dict[str, Any]] = {"columns": list(COLUMNS), "bytes": 0, "rows": 0}


class CSV(Backend, frozen=True, kw_only=True, tag="csv"):
    """Writes every record as a row in the CSV file of each of its sources.

    Attributes:
        folder: its name in the run's directory.
    """

    execution: ClassVar[Execution] = "worker"
    can_split: ClassVar[bool] = True
    folder: str = "csv"

    def __post_init__(self) -> None:
        check_name("folder", self.folder)
        super().__post_init__()

    def open(self, context: Context) -> Sink:
        """Open the files in the run's directory."""
        return _Tables(directory_of(context), context.state or {"folder": self.folder, "files": {}})


class _Tables(Sink):
    def __init__(self, run: Path, state: dict[str, Any]) -> None:
        self._folder = run / os.path.basename(state["folder"])  # only the name: the cursor may come from somebody else
        self._states: dict[str, dict[str, Any]] = state["files"]
        self._tables: dict[str, _Table] = {}
        self._places: dict[str, tuple[_Table, str]] = {}
        self._labelled = False
        self._unsafe: set[_Table] = set()  # a power cut may take their last rows

    async def write(self, batch: Batch) -> None:
        await self._in_thread(self._write, batch.records)

    async def checkpoint(self) -> dict[str, Any]:
        await in_thread(self._sync)
        return {
            "folder": self._folder.name,
            "files": {**self._states, **{file: table.state() for file, table in self._tables.items()}},
        }

    async def close(self, outcome: Outcome) -> None:
        if outcome != "stopped":
            await self._in_thread(self._find_files)
        for table in self._tables.values():
            table.file.close()

    async def _in_thread(self, function: Callable[..., None], *arguments: Any) -> None:
        try:
            await in_thread(function, *arguments)
        except FileChanged as reason:
            raise Resend(str(reason), {"folder": free_path(self._folder).name, "files": {}}) from reason

    def _find_files(self) -> None:
        """Find the files of earlier sinks, to which this one may have written nothing.

        Raises:
            FileChanged: one of them was removed.
        """
        for file in self._states.keys() - self._tables.keys():
            if not os.path.lexists(self._folder / file):
                raise FileChanged(f"{file} was removed")

    def _write(self, records: Iterable[Record]) -> None:
        """Write these records to their files, all on one thread.

        Changing threads for each file takes longer than writing it.
        """
        rows = self._rows(records)
        for table in rows:
            table.widen()
        before = {table: (table.file.offset, table.file.count) for table in rows}
        self._unsafe.update(rows)
        try:
            for table, its in rows.items():
                table.append(its)
                if len(self._tables) > _MOST_OPEN:
                    table.file.close()
        except BaseException:
            for table, (offset, count) in before.items():  # the same batch comes again, and is compared with the file
                table.file.offset, table.file.count = offset, count
            raise

    def _sync(self) -> None:
        """Make the written rows survive a power cut.

        Many files are synced at once, with the rest of their file system, since each alone takes a millisecond.
        """
        if not self._unsafe:
            return
        if len(self._unsafe) <= _MOST_OPEN or not sync_file_system(self._folder):
            for table in self._unsafe:
                table.file.sync()
                if len(self._tables) > _MOST_OPEN:
                    table.file.close()
        sync_directory(os.fspath(self._folder))
        self._unsafe.clear()

    def _rows(self, records: Iterable[Record]) -> dict[_Table, list[Row]]:
        """Return the rows for each file: records, and their values by column."""
        rows: dict[_Table, list[Row]] = {}
        for record in records:
            if record.writer is not None and not self._labelled:
                self._label()
            parts: dict[_Table, dict[str, Any]] = {}
            for key, value in flat(record.data).items():
                table, column = self._places.get(key) or self._place(key)
                parts.setdefault(table, {})[column] = value
            for table, data in (parts or {self._table(file_and_column("")[0]): {}}).items():
                if record.writer is not None:
                    table.add_writers()
                    data = {**data, WRITER: record.writer}
                rows.setdefault(table, []).append((record, data))
        return rows

    def _label(self) -> None:
        """Give each row a label from here on: further files have the column beside step and time."""
        self._labelled = True
        self._places.clear()  # a key of that name has another column

    def _place(self, key: str) -> tuple[_Table, str]:
        """Return file and column of a key: the first file of its source that has the column or room for it."""
        for file, column in files_and_columns(key, (*COLUMNS, WRITER) if self._labelled else COLUMNS):
            table = self._table(file)
            if table.takes(column):
                self._places[key] = table, column
                return table, column
        raise AssertionError("there is always one file more")

    def _table(self, file: str) -> _Table:
        if (table := self._tables.get(file)) is None:
            if os.path.islink(self._folder):
                raise ActionRequired(f"{self._folder} is a link, which may lead anywhere; make it a directory")
            with contextlib.suppress(FileExistsError):
                os.mkdir(self._folder, permissions.DIRECTORY)
            table = self._tables[file] = _Table.load(self._folder / file, self._states.get(file, _NO_FILE))
            if self._labelled:
                table.add_writers()
        return table


class _Table:
    """The file of one source.

    Args:
        path: of the file.
        columns: of its header; none where there is no file.
        offset: bytes up to which the file is known to hold everything that was delivered.
        count: rows up to there.
    """

    def __init__(self, path: Path, columns: list[str], offset: int, count: int) -> None:
        self.file = AppendedFile(path, _LAYOUT, offset, count)
        self._columns = {name: index for index, name in enumerate(columns)}
        self._wanted = dict.fromkeys(columns or COLUMNS)  # the file's columns, and those that `widen` will add

    @classmethod
    def load(cls, path: Path, state: dict[str, Any]) -> _Table:
        """Open a file as it was when its state was saved.

        Raises:
            FileChanged: the file is not the one that was written.
        """
        known, offset, count = state["columns"], state["bytes"], state["rows"]
        columns = _columns_of(path)
        if columns[: len(known)] != known and (offset or columns):
            raise FileChanged(f"{path.name} was changed by another program")
        if not columns:
            return cls(path, [], 0, 0)
        # The file may have got more columns since: each added one comma to every row.
        begin = len(header_of(columns))
        wider = begin - len(header_of(known)) + count * (len(columns) - len(known))
        return cls(path, columns, offset + wider if offset else begin, count)

    def state(self) -> dict[str, Any]:
        return {"columns": list(self._columns), "bytes": self.file.offset, "rows": self.file.count}

    def takes(self, column: str) -> bool:
        """Return whether the file has a column or room for it; `widen` then adds the column."""
        if column not in self._wanted and len(self._wanted) >= _MOST_COLUMNS:
            return False
        self._wanted[column] = None
        return True

    def add_writers(self) -> None:
        """Have a column for the labels of writers; `widen` then adds it."""
        self._wanted[WRITER] = None

    def append(self, rows: list[Row]) -> None:
        """Write these rows, except for those that are in the file already."""
        block = b"".join(encode_row(record, data, self._columns) for record, data in rows)
        self.file.append(block, [record for record, _ in rows])

    def widen(self) -> None:
        """Add the columns that `takes` has accepted.

        Raises:
            FileChanged: the file was removed.
        """
        if len(self._wanted) > len(self._columns):
            self.file.close()
            try:
                self._widen(list(self._wanted))
            except FileNotFoundError as error:
                raise FileChanged(f"{self.file.path.name} was removed") from error

    def _widen(self, columns: list[str]) -> None:
        path, before = self.file.path, header_of(list(self._columns)) if self._columns else b""
        more = len(columns) - len(self._columns) if before else 0
        begin = header_of(columns)
        unfinished = path.with_name(f".{path.name}.new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with open(os.open(unfinished, flags, permissions.FILE), "wb") as wide:
            wide.write(begin)
            if before:
                with open(path, "rb") as narrow:
                    narrow.seek(len(before))
                    rest = b""
                    while piece := narrow.read(_PIECE_BYTES):
                        rows = split_rows(rest + piece)
                        rest = b"" if is_whole(rows[-1]) else rows.pop()
                        wide.writelines(row[:-2] + b"," * more + b"\r\n" for row in rows)
                    wide.write(rest)  # a torn row, which comes again
                wide.flush()
                os.fsync(wide.fileno())  # a new file's directory entry is synced with its first rows
        os.replace(unfinished, path)
        self.file.offset += len(begin) - len(before) + more * self.file.count
        self._columns = {name: index for index, name in enumerate(columns)}


def _columns_of(path: Path) -> list[str]:
    """Return the columns of a file.

    There are none where there is no file, or where a power cut has left a new file empty.

    Raises:
        FileChanged: the file has no header.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            columns = read_header(file)
            if not columns and is_blank(os.fspath(path)):
                return []
    except FileNotFoundError:
        return []
    if not columns:
        raise FileChanged(f"{path.name} does not begin with the header that was written")
    return columns
