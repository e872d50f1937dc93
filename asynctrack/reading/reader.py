"""Reader: a run's data for people, while it is live, when it has ended and after a crash. Runs anywhere.

A run that was resumed from a checkpoint repeats steps. With `history="last"` there is one history of each key: where a later session has logged the key, what earlier ones had
logged at its first step there and beyond is left out. Within a session steps may repeat and go back, and all values count. `history="all"` is all that was logged.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import msgspec

from asynctrack._system.disk_timeout import InterruptibleCall
from asynctrack._system.paths import expanded
from asynctrack.backends.files.reserved import FlatNames
from asynctrack.errors import InvalidSettings, LibraryMissing, NotARun
from asynctrack.journal import manifest as manifests
from asynctrack.journal import safe_read
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
    """A recorded run. Each call reads what the journal holds then; nothing is cached.

    Where the journal is gone, it reads what backends have left in the run's directory; `asynctrack.reading.without_journal` says what.

    Attributes:
        path: the run's directory.
    """

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
        """What the last reading found damaged and stepped over, and what of the run is gone."""
        return list(dict.fromkeys([*self._around, *self._within]))

    def manifest(self) -> Manifest:
        """What `run.json` says now, and the journal behind it; without one that can be read, what the journal says; without either, what directory
        and files are called.

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
        return self.manifest().id

    @property
    def status(self) -> Status:
        """ "running", "finished", "failed", "crashed" or "preempted"."""
        return self.manifest().status

    @property
    def config(self) -> dict[str, Any]:
        return self.manifest().config

    @property
    def summary(self) -> dict[str, Any]:
        return self.manifest().summary

    def records(self, history: History = "all") -> Iterator[Record]:
        """The records in the order of the journal: that of the calls within a process. Images and the like are `Media`, with all of their content.

        Args:
            history: "last" leaves out what was logged again after a resume; of a record of which something is left out the keys are flat.

        Raises:
            InvalidSettings: `history` is neither.
        """
        if history not in get_args(History):
            raise InvalidSettings([f"history must be 'all' or 'last'; got {history!r:.80}"])
        cuts = find_cuts(self._read()) if history == "last" and self._count_sessions() > 1 else []
        return without(self._read(), cuts) if cuts else (record for _, record in self._read())

    def last_record(self) -> Record | None:
        """The last record that can be read in the journal, without reading those before it; None where there is none."""
        return next(self._records_backwards(), None)

    def columns(self, history: History = "last") -> dict[str, Column]:
        """The values and steps of each key; nested keys are joined by `/`. Of several types those of a key become one, as `column_types` says."""
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

    def arrays(self, history: History = "last") -> dict[str, Any]:
        """Nested as the names are, split at `/`, with a `Curve` for each: all of its values, none left out, and their steps.

        `arrays()["train"]["loss"].values` is an array of numbers, or of texts; of arrays of one shape it has their dimensions behind the first; anything else is an array of
        objects. Where a name is the beginning of another, as `loss` and `loss/total`, its own curve is below it, under "".
        """
        _import("numpy", "arrays")
        nested: dict[str, Any] = {}
        for key, column in self.columns(history).items():
            put(nested, key, Curve(steps_as_array(column.steps), as_array(column.values)))
        return nested

    def summarise(self, key: str, how: str = "last") -> Any:
        """One value for all that a key has: its "last", "first", "min", "max" or "mean"; nested keys are joined by `/`.

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

    def to_pandas(self, history: History = "last") -> pandas.DataFrame:
        """A pandas data frame: a row per record, `_step` and `_timestamp` (seconds since the epoch) first. Keys of these names get one more underscore
        in front. Each column is of one type, as `column_types` says; steps beyond 63 bits are unsigned.
        """
        frame: pandas.DataFrame = data_frames.to_pandas(_import("pandas", "to_pandas"), self._table(history))
        return frame

    def to_polars(self, history: History = "last") -> polars.DataFrame:
        """A polars data frame, as `to_pandas`."""
        frame: polars.DataFrame = data_frames.to_polars(_import("polars", "to_polars"), self._table(history))
        return frame

    def to_arrow(self, history: History = "last") -> Any:
        """A pyarrow table, as `to_pandas`."""
        return data_frames.to_arrow(_import("pyarrow", "to_arrow"), self._table(history))

    def _count_sessions(self) -> int:
        reader = Reader(self.path / "journal")
        try:
            return sum(frame.kind == START for batch in reader for frame in batch.frames(skip_records=True))
        finally:
            reader.close()

    def _read(self) -> Iterator[tuple[int, Record]]:
        """The records, each with the number of its session."""
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
        """Columns of equal length, with None where a record has no such key."""
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
        """The records of the journal that can be read, the last first."""
        decode = Decoder(self.path).record
        for batch in backwards(self.path / "journal"):
            for frame in reversed([frame for frame in batch.frames() if frame.kind == RECORD]):
                with contextlib.suppress(*UNREADABLE):
                    yield decode(frame.payload, frame.number, batch.header.ring)

    def _backwards(self, key: str) -> Iterator[Any]:
        """The values of a key, the last first.

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
        """What reads the records where the journal is gone; None where it is there, or nothing is left."""
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


def open_run(path: str | os.PathLike[str]) -> RunReader:
    """Read a run from its directory. Works as soon as `init` has returned.

    Where something of it is damaged, so that records may be missing, there is a warning, `errors.DamagedJournal`, once for a run and process; `damage` of the reader says
    what. The torn end that a crash leaves is no damage: it was never acknowledged. Where the disk hangs this waits until it answers, and says so; Ctrl-C ends the wait.

    Raises:
        NotARun: there is no run.
        UnsupportedVersion: a newer asynctrack wrote it.
    """
    InterruptibleCall(lambda: _touch(expanded(path)), path).wait()
    return RunReader(path, warns=True)


def _touch(run: Path) -> None:
    """Wait until the disk of a run answers."""
    with contextlib.suppress(OSError, ValueError):
        safe_read.read(run / manifests.FILE_NAME)


def _import(library: str, call: str) -> Any:
    import importlib

    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise LibraryMissing(call, library, error) from error


def _find_fallback(run: Path, backends: dict[str, Any]) -> Records | None:
    """What is left without a journal; rarely asked for, and its readers take a while to import."""
    from asynctrack.reading.without_journal import find_fallback

    return find_fallback(run, backends)
