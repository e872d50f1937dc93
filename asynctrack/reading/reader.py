"""Reader: a run's data for people, while it is live, after its end and after a crash. Runs anywhere.

A run that resumes from a checkpoint repeats steps. With `history="last"` each key has one history: values of earlier sessions at or after the first
step at which a later session logged the key are left out. Within a session steps may repeat and go back, and all values count. `history="all"` is all
that was logged.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import msgspec

from asynctrack._system.paths import expanded
from asynctrack._system.suggestions import suggests
from asynctrack.backends.files.reserved import FlatNames
from asynctrack.errors import InvalidSettings, LibraryMissing, NotARun
from asynctrack.journal import manifest as manifests
from asynctrack.journal.backwards import backwards
from asynctrack.journal.manifest import UNREADABLE, Manifest, Status, find_start, unreadable
from asynctrack.journal.reader import Damage, Reader
from asynctrack.queue.layout import RECORD, START
from asynctrack.reading import data_frames
from asynctrack.reading.columns import Column, Curve, as_array, put, steps_as_array
from asynctrack.reading.damage import manifest_of, scan, unreached_end, warn
from asynctrack.reading.history import History, find_cuts, without
from asynctrack.records.codec import Array, Decoder, Media, Record, flatten, light, string_keys, to_json
from asynctrack.records.column_types import as_float

if TYPE_CHECKING:
    import pandas
    import polars

    from asynctrack.reading.without_journal import Records


class RunReader:
    """Reads a recorded run. Each call reads what the journal holds then; nothing is cached.

    Where the journal is missing, it reads what backends have left in the run's directory: see `asynctrack.reading.without_journal`.

    Attributes:
        path: the run's directory.
    """

    @suggests
    def __init__(self, path: str | os.PathLike[str], *, warns: bool = False) -> None:
        self.path: Path = expanded(path)
        self._warns = warns
        self._around: list[Damage] = []
        self._within: list[Damage] = []
        self.manifest()

    def __repr__(self) -> str:
        count = sum(1 for _ in self.records())
        return f"<RunReader {self.path}, {self.status}, {count} records>"

    @property
    def damage(self) -> list[Damage]:
        """Return the damage that the last call of a reading method found and skipped, and what of the run is missing."""
        return list(dict.fromkeys([*self._around, *self._within]))

    def manifest(self) -> Manifest:
        """Return what `run.json` says, brought up to date from the journal.

        Where `run.json` cannot be read, the journal alone tells; where there is neither, the names of directory and files.

        Raises:
            NotARun: there is nothing of a run.
            UnsupportedVersion: a newer asynctrack wrote it.
        """
        found = self._load()
        self._around = scan(self.path)
        self._warn()
        reader = Reader(self.path / "journal", found.position)
        for batch in reader:
            for frame in batch.frames(skip_records=True):
                found.apply(frame)
        reader.close()
        return found

    @property
    def id(self) -> str:
        """Return the run's id, unique in its project."""
        return self.manifest().id

    @property
    def status(self) -> Status:
        """Return "running", "finished", "failed", "crashed" or "preempted"."""
        return self.manifest().status

    @property
    def config(self) -> dict[str, Any]:
        """Return the config as it stands."""
        return self.manifest().config

    @property
    def summary(self) -> dict[str, Any]:
        """Return the summary as it was set; the last values that were logged are in `columns` and `arrays`."""
        return self.manifest().summary

    @suggests
    def records(self, history: History = "all") -> Iterator[Record]:
        """Yield the records in the order of the journal, which is that of the calls within a process. Images and the like are `Media` with all of their content.

        Args:
            history: "all", or "last" to leave out what was logged again after a resume; a record that loses a value has flat keys.

        Raises:
            InvalidSettings: `history` is neither.
        """
        if history not in get_args(History):
            raise InvalidSettings([f"history must be 'all' or 'last'; got {history!r:.80}"])
        cuts = find_cuts(self._read()) if history == "last" and self._count_sessions() > 1 else []
        return without(self._read(), cuts) if cuts else (record for _, record in self._read())

    def last_record(self) -> Record | None:
        """Return the last record in the journal that can be read, without reading those before it; None where there is none."""
        return next(self._records_backwards(), None)

    @suggests
    def columns(self, history: History = "last") -> dict[str, Column]:
        """Return the values and steps of each key, with nested keys joined by `/`.

        Args:
            history: "last" leaves out what was logged again after a resume; "all" does not.

        Returns:
            A `Column` for each key. Values of several types become one, as `asynctrack.records.column_types` says.
        """
        columns: dict[str, Column] = {}
        for record in self.records(history):
            for key, value in flatten(record.data):
                column = columns.get(key)
                if column is None:
                    column = columns[key] = Column()
                column.steps.append(record.step)
                column.values.append(light(value))
        for column in columns.values():
            column.settle()
        return columns

    @suggests
    def arrays(self, history: History = "last") -> dict[str, Any]:
        """Return a `Curve` for each key: all of its values and their steps as NumPy arrays.

        `arrays()["train"]["loss"].values` is an array of numbers or of texts with one item for each record that has the key. Arrays of one shape are stacked:
        their dimensions come after the first. Anything else is an array of objects.

        Args:
            history: "last" leaves out what was logged again after a resume; "all" does not.

        Returns:
            Nested dicts, as the names are split at `/`. Where a name is the beginning of another, as `loss` and `loss/total`, its own curve is below it,
            under "".

        Raises:
            LibraryMissing: NumPy is not installed.
        """
        _import("numpy", "arrays")
        nested: dict[str, Any] = {}
        for key, column in self.columns(history).items():
            put(nested, key, Curve(steps_as_array(column.steps), as_array(column.values)))
        return nested

    @suggests
    def summarise(self, key: str, how: str = "last") -> Any:
        """Reduce all values of a key to one.

        Args:
            key: nested keys are joined by `/`.
            how: "last", "first", "min", "max" or "mean".

        Raises:
            KeyError: nothing was logged by that name, or no number where one is needed.
        """
        if how == "last":
            return light(next(self._backwards(key)))
        values = [value for record in self.records("last") for name, value in flatten(record.data) if name == key]
        if how in ("min", "max", "mean"):
            values = [value for value in values if isinstance(value, int | float) and value == value]
        if not values:
            raise KeyError(key)
        if how == "mean":
            return sum(map(as_float, values)) / len(values)
        return min(values) if how == "min" else max(values) if how == "max" else light(values[0])

    @suggests
    def to_pandas(self, history: History = "last") -> pandas.DataFrame:
        """Return a pandas data frame with a row for each record. The first columns are `_step` and `_timestamp` (seconds since the epoch).

        A logged key of one of these names gets one more underscore in front. Each column has one type, as `asynctrack.records.column_types` says; steps beyond
        63 bits are unsigned.

        Args:
            history: "last" leaves out what was logged again after a resume; "all" does not.

        Raises:
            LibraryMissing: pandas is not installed.
        """
        frame: pandas.DataFrame = data_frames.to_pandas(_import("pandas", "to_pandas"), self._table(history))
        return frame

    @suggests
    def to_polars(self, history: History = "last") -> polars.DataFrame:
        """Return a polars data frame with the columns of `to_pandas`.

        Args:
            history: as for `to_pandas`.

        Raises:
            LibraryMissing: polars is not installed.
        """
        frame: polars.DataFrame = data_frames.to_polars(_import("polars", "to_polars"), self._table(history))
        return frame

    @suggests
    def to_arrow(self, history: History = "last") -> Any:
        """Return a pyarrow table with the columns of `to_pandas`.

        Args:
            history: as for `to_pandas`.

        Raises:
            LibraryMissing: pyarrow is not installed.
        """
        return data_frames.to_arrow(_import("pyarrow", "to_arrow"), self._table(history))

    def _count_sessions(self) -> int:
        reader = Reader(self.path / "journal")
        try:
            return sum(frame.kind == START for batch in reader for frame in batch.frames(skip_records=True))
        finally:
            reader.close()

    def _read(self) -> Iterator[tuple[int, Record]]:
        """Yield the records, each with the number of its session."""
        if (fallback := self._fallback()) is not None:
            yield from ((0, record) for record in fallback())
            return
        session, said = -1, manifest_of(self.path)
        reader, decode = Reader(self.path / "journal"), Decoder(self.path).record
        self._within = []
        try:
            for batch in reader:
                for frame in batch.frames():
                    session += frame.kind == START
                    if frame.kind == RECORD:
                        try:
                            record = decode(frame.payload, frame.number, batch.header.ring)
                        except UNREADABLE:
                            reader.report(unreadable(self.path, batch, frame))
                            continue
                        data = string_keys(record.data)
                        record = record if data is record.data else msgspec.structs.replace(record, data=data)
                        yield max(0, session), record
            for gone in unreached_end(self.path, said, reader.position):
                reader.report(gone)
        finally:
            reader.close()
            self._within = reader.damage
        self._warn()

    def _warn(self) -> None:
        if self._warns:
            warn(self.path, self.damage)

    def _table(self, history: History) -> dict[str, list[Any]]:
        """Return columns of equal length, with None where a record has no such key."""
        table: dict[str, list[Any]] = {data_frames.STEP: [], data_frames.TIMESTAMP: []}
        flat_names = FlatNames(data_frames.RESERVED)
        rows = 0
        for record in self.records(history):
            table[data_frames.STEP].append(record.step)
            table[data_frames.TIMESTAMP].append(record.time_ns / 1e9)
            for key, value in flat_names.of(dict(flatten(record.data))).items():
                column = table.setdefault(key, [])
                column.extend([None] * (rows - len(column)))
                column.append(
                    to_json(value)
                    if isinstance(value, Media)
                    else value.tolist()
                    if isinstance(value, Array)
                    else value
                )
            rows += 1
        for column in table.values():
            column.extend([None] * (rows - len(column)))
        return table

    def _records_backwards(self) -> Iterator[Record]:
        """Yield the records of the journal that can be read, the last first."""
        decode = Decoder(self.path).record
        for batch in backwards(self.path / "journal"):
            for frame in reversed([frame for frame in batch.frames() if frame.kind == RECORD]):
                with contextlib.suppress(*UNREADABLE):
                    yield decode(frame.payload, frame.number, batch.header.ring)

    def _backwards(self, key: str) -> Iterator[Any]:
        """Yield the values of a key, the last first.

        Raises:
            KeyError: there are no more.
        """
        if (fallback := self._fallback()) is not None:
            rows = [dict(flatten(record.data)) for record in fallback()]
            yield from (row[key] for row in reversed(rows) if key in row)
        for record in self._records_backwards():
            found = dict(flatten(string_keys(record.data)))
            if key in found:
                yield found[key]
        raise KeyError(key)

    def _load(self) -> Manifest:
        try:
            return manifests.load(self.path)
        except NotARun as missing:
            if self._has_journal() or _find_fallback(self.path, {}) is None:
                return self._from_journal(missing)
            path = self.path.absolute()
            return Manifest(id=path.name, name=path.name, project=path.parent.name, status="crashed", created_at="")

    def _has_journal(self) -> bool:
        return (self.path / "journal").is_dir()

    def _fallback(self) -> Records | None:
        """Return a function that reads the records where the journal is missing; None where it is there, or nothing is left."""
        return None if self._has_journal() else _find_fallback(self.path, self._load().backends)

    def _from_journal(self, missing: NotARun) -> Manifest:
        reader = Reader(self.path / "journal")
        try:
            for batch in reader:
                if (found := find_start(batch)) is not None:
                    return found
        finally:
            reader.close()
        raise missing


def _import(library: str, call: str) -> Any:
    import importlib

    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise LibraryMissing(call, library, error) from error


def _find_fallback(run: Path, backends: dict[str, Any]) -> Records | None:
    """Find what backends have left without a journal. It is imported here: it is rarely needed, and takes a while."""
    from asynctrack.reading.without_journal import find_fallback

    return find_fallback(run, backends)
