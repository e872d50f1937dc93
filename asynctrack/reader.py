"""Reader: a run's data for people, while it is live, when it has ended and after a crash. Runs anywhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from asynctrack import manifest as manifests
from asynctrack.errors import BackendUnavailable, NotARun
from asynctrack.journal.reader import Damage, Reader
from asynctrack.manifest import Manifest, Status, find_start
from asynctrack.queue.layout import RECORD
from asynctrack.record import Array, Record, decode_record, flatten, string_keys


class Column:
    """The values of one key, and the steps they were logged at.

    Attributes:
        steps: of the values, in the order they were logged.
        values: as they were logged; arrays as `Array`.
    """

    __slots__ = ("steps", "values")

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.values: list[Any] = []

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        last = f", last {self.values[-1]!r} at step {self.steps[-1]}" if self.values else ""
        return f"<Column of {len(self)}{last}>"


class RunReader:
    """A recorded run. Each call reads what the journal holds then; nothing is cached.

    Attributes:
        path: the run's directory.
        damage: what the last reading found damaged and stepped over.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.damage: list[Damage] = []
        if not (self.path / manifests.FILE_NAME).exists() and not (self.path / "journal").is_dir():
            raise NotARun(self.path)
        self.manifest()

    def __repr__(self) -> str:
        count = sum(1 for _ in self.records())
        return f"<RunReader {self.path}, {self.status}, {count} records>"

    def manifest(self) -> Manifest:
        """What `run.json` says now, and the journal behind it; without one, what the journal says.

        Raises:
            NotARun: neither says anything.
            UnsupportedVersion: a newer asynctrack wrote it.
            JournalCorrupt: `run.json` is not what it should be.
        """
        try:
            found = manifests.load(self.path)
        except NotARun:
            found = self._from_journal()
        reader = Reader(self.path / "journal", found.position)
        for batch in reader:
            for frame in batch.frames(skip_records=True):
                found.apply(frame)
        reader.close()
        return found

    @property
    def id(self) -> str:
        return self.manifest().id

    @property
    def status(self) -> Status:
        """ "running", "finished", "failed" or "crashed"."""
        return self.manifest().status

    @property
    def config(self) -> dict[str, Any]:
        return self.manifest().config

    @property
    def summary(self) -> dict[str, Any]:
        return self.manifest().summary

    def records(self) -> Iterator[Record]:
        """The records in the order of the journal: that of the calls within a process."""
        reader = Reader(self.path / "journal")
        try:
            for batch in reader:
                for frame in batch.frames():
                    if frame.kind == RECORD:
                        record = decode_record(frame.payload, frame.number, batch.header.ring)
                        data = string_keys(record.data)
                        yield record if data is record.data else msgspec.structs.replace(record, data=data)
        finally:
            reader.close()
            self.damage = reader.damage

    def columns(self) -> dict[str, Column]:
        """The values and steps of each key; nested keys are joined by `/`."""
        columns: dict[str, Column] = {}
        for record in self.records():
            for key, value in flatten(record.data):
                column = columns.get(key)
                if column is None:
                    column = columns[key] = Column()
                column.steps.append(record.step)
                column.values.append(value)
        return columns

    def to_pandas(self) -> Any:
        """A pandas data frame: a row per record, `_step` and `_timestamp` (seconds since the epoch) first."""
        return _import("pandas", "to_pandas").DataFrame(self._table())

    def to_polars(self) -> Any:
        """A polars data frame, as `to_pandas`."""
        return _import("polars", "to_polars").DataFrame(self._table(), strict=False)

    def to_arrow(self) -> Any:
        """A pyarrow table, as `to_pandas`; values of mixed types become text."""
        pyarrow = _import("pyarrow", "to_arrow")
        columns = {}
        for name, values in self._table().items():
            try:
                columns[name] = pyarrow.array(values)
            except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError):
                columns[name] = pyarrow.array([None if value is None else str(value) for value in values])
        return pyarrow.table(columns)

    def _table(self) -> dict[str, list[Any]]:
        """Columns of equal length, with None where a record has no such key."""
        table: dict[str, list[Any]] = {"_step": [], "_timestamp": []}
        rows = 0
        for record in self.records():
            table["_step"].append(record.step)
            table["_timestamp"].append(record.time_ns / 1e9)
            for key, value in flatten(record.data):
                column = table.setdefault(key, [])
                column.extend([None] * (rows - len(column)))
                column.append(value.tolist() if isinstance(value, Array) else value)
            rows += 1
        for column in table.values():
            column.extend([None] * (rows - len(column)))
        return table

    def _from_journal(self) -> Manifest:
        reader = Reader(self.path / "journal")
        try:
            for batch in reader:
                if (found := find_start(batch)) is not None:
                    return found
        finally:
            reader.close()
        raise NotARun(self.path)


def open_run(path: str | os.PathLike[str]) -> RunReader:
    """Read a run from its directory.

    Raises:
        NotARun: there is no run.
        UnsupportedVersion: a newer asynctrack wrote it.
    """
    return RunReader(path)


def _import(library: str, call: str) -> Any:
    import importlib

    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise BackendUnavailable(call, f"it needs {library}: pip install {library}") from error
