"""Reader: a run's data for people, while it is live, after its end and after a crash. Runs anywhere.

A run that resumes from a checkpoint repeats steps. With `history="last"` each key has one history: values of earlier sessions at or after the first
step at which a later session logged the key are left out. Within a session steps may repeat and go back, and all values count. `history="all"` is all
that was logged.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

import msgspec

from asynctrack._system.native import is_native
from asynctrack._system.paths import expanded
from asynctrack._system.suggestions import suggests
from asynctrack.backends.files.reserved import FlatNames
from asynctrack.curves.totals import clamped
from asynctrack.errors import AsynctrackError, InvalidSettings, NoSuchMetric, NotARun
from asynctrack.journal import environment_file
from asynctrack.journal import manifest as manifests
from asynctrack.journal.backwards import backwards
from asynctrack.journal.batch_records import BatchDecoder
from asynctrack.journal.environment_file import Environment
from asynctrack.journal.frames import FrameBatch
from asynctrack.journal.manifest import UNREADABLE, Manifest, find_start
from asynctrack.journal.reader import Damage, Reader
from asynctrack.journal.writer_list import WriterStats, last_by_label
from asynctrack.queue.layout import RECORD
from asynctrack.reading import data_frames, live_state, scanned_frames
from asynctrack.reading.columns import Column, Curve, as_array, put, steps_as_array
from asynctrack.reading.damage import manifest_of, unreached_end, warn
from asynctrack.reading.damage import scan as scan_damage
from asynctrack.reading.history import History, find_cuts, without
from asynctrack.reading.host_sessions import sessions_of_rings
from asynctrack.reading.live_state import RunStatus
from asynctrack.reading.repeats import count_sessions
from asynctrack.reading.row_labels import RowLabels
from asynctrack.reading.scan import Plain, scan
from asynctrack.reading.session_records import session_records
from asynctrack.reading.writer_counts import WriterCounts, read_last_labels
from asynctrack.reading.writer_filter import WriterFilter
from asynctrack.records.codec import Array, Decoder, Media, Record, flatten, light, string_keys, to_json
from asynctrack.records.column_types import as_float
from asynctrack.records.libraries import import_library

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

    from asynctrack._native import Scan
    from asynctrack.curves.curve import CurveBuckets
    from asynctrack.curves.pyramid import Watch
    from asynctrack.curves.run_curves import RunCurves
    from asynctrack.reading.without_journal import Records

_HOW: Final = ("last", "first", "min", "max", "mean")


class RunReader:
    """Reads a recorded run. Each call reads what the journal holds then. Nothing is kept but what `curve` has read.

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
        self._known_curves: dict[tuple[History, str | None], RunCurves] = {}
        self.manifest()

    def __repr__(self) -> str:
        count = sum(1 for _ in self.records())
        return f"<RunReader {self.path}, {self.status}, {count} records>"

    def _repr_html_(self) -> str | None:
        from asynctrack.reading.html_repr import run_as_html  # for notebooks

        try:
            return run_as_html(self.manifest(), self.status, self._run_curves())
        except (AsynctrackError, OSError, *UNREADABLE):  # the text says why
            return None

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
        self._around = scan_damage(self.path)
        self._warn()
        reader = Reader(self.path / "journal", found.position)
        for batch in reader:
            for frame in batch.frames(skip_records=True):
                found.apply(frame, batch.header.ring)
        reader.close()
        return found

    @property
    def id(self) -> str:
        """Return the run's id, unique in its project."""
        return self.manifest().id

    @property
    def status(self) -> RunStatus:
        """Return "running", "finished", "failed", "crashed", "preempted" or "lost".

        It is "lost" where its processes and its worker have died, and nobody has said how it ended: `asynctrack sync` recovers what they left. Another
        machine's run, or another user's, says "running" then: from here nobody can tell. `manifest().status` is what `run.json` and the journal say.
        """
        return live_state.status_of(self.path, self.manifest())

    @property
    def config(self) -> dict[str, Any]:
        """Return the config as it stands."""
        return self.manifest().config

    @property
    def summary(self) -> dict[str, Any]:
        """Return the summary as it was set; the last values that were logged are in `columns` and `arrays`."""
        return self.manifest().summary

    @property
    def traceback(self) -> str | None:
        """Return the traceback of the exception that has ended the run; None where there was none, or the run is of an earlier version.

        Where its owner has left none, it is that of the first other process that has failed, and says which.
        """
        return self.manifest().traceback

    @property
    def environment(self) -> Environment | None:
        """Return commit, script, arguments, packages and machine of the run; None where they are not known.

        It is of the last session of a run that was resumed, and may come some seconds after the run has begun.
        """
        return environment_file.load(self.path)

    @property
    def earlier_environments(self) -> list[Environment]:
        """Return the same of earlier sessions of a run that was resumed, as far as it differs from that of the session after it; the first one first."""
        return environment_file.load_earlier(self.path)

    @property
    def writers(self) -> list[WriterStats]:
        """Return the processes that write to the run, each with what is known of it and how it has ended; those of earlier sessions come first.

        A forked child counts for the process that has forked it. A rank that was started again is there twice.
        """
        found = self.manifest()
        writers = [*found.earlier_writers, *found.writers]
        with contextlib.closing(WriterCounts(self.path)) as counts:
            return counts.by_process(writers) if self._has_journal() else writers

    def writers_by_label(self) -> dict[str, WriterStats]:
        """Return the last process of each label, with the records and drops of all that had the label, forked children included."""
        writers = self.manifest().writers
        with contextlib.closing(WriterCounts(self.path)) as counts:
            return counts.by_label(writers) if self._has_journal() else last_by_label(writers)

    @suggests
    def records(self, history: History = "all") -> Iterator[Record]:
        """Yield the records in the order of the journal, which is that of the calls within a process. Images and the like are `Media` with all of their content.

        Args:
            history: "all", or "last" to leave out what was logged again after a resume; a record that loses a value has flat keys.

        Raises:
            InvalidSettings: `history` is neither.
        """
        _check(history)
        if history == "all" or not self._has_journal() or count_sessions(self.path, self.manifest()) < 2:
            return (record for _, record in self._read())
        fixed = self._fixed_sessions()
        return without(self._read(fixed), find_cuts(self._read(fixed)))

    def last_record(self) -> Record | None:
        """Return the last record in the journal that can be read, without reading those before it; None where there is none."""
        last = next(self._records_backwards(), None)
        if last is None:
            return None
        return msgspec.structs.replace(last, writer=read_last_labels(self.path, self.manifest()).label_of(last.ring))

    @suggests
    def columns(self, history: History = "last") -> dict[str, Column]:
        """Return the values and steps of each key, with nested keys joined by `/`.

        Args:
            history: "last" leaves out what was logged again after a resume; "all" does not.

        Returns:
            A `Column` for each key. Values of several types become one, as `asynctrack.records.column_types` says.
        """
        if (found := self._scan(history, light)) is not None:
            return scanned_frames.columns(found)
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
        import_library("numpy", "arrays")
        nested: dict[str, Any] = {}
        for key, curve in self._curves(history):
            put(nested, key, curve)
        return nested

    @suggests
    def curve(
        self,
        key: str,
        x: str = "step",
        *,
        x0: float | None = None,
        x1: float | None = None,
        buckets: int = 300,
        history: History = "last",
        writer: str | None = None,
        cache: bool = True,
    ) -> CurveBuckets:
        """Return the curve of a metric, summed up for as many places as a picture has: no number lies outside its band.

        The first call reads the journal, later ones what has come since. Where the window has few records, each bucket is one number, as it was logged.

        Args:
            key: the metric; nested keys are joined by `/`.
            x: "step", "time" (seconds since the epoch), "relative" (seconds since the first record), or the name of another metric.
            x0: the first x of the window; None for that of the metric.
            x1: the last x.
            buckets: how many, at most.
            history: "last" leaves out what was logged again after a resume; "all" does not.
            writer: the label of a process: only its numbers, and those of its forked children. None for all.
            cache: what was read of a run of a million records or more is kept in the user's cache, and found there at the first call.

        Raises:
            NoSuchMetric: the run has no number by that name, or by that of `x`. It is a `KeyError`.
            InvalidSettings: there is no such window, history or writer.
            BackendUnavailable: the journal is missing, and what a backend has left cannot be read here.
        """
        return self.curves([key], x, x0=x0, x1=x1, buckets=buckets, history=history, writer=writer, cache=cache)[key]

    @suggests
    def curves(
        self,
        keys: Iterable[str] | None = None,
        x: str = "step",
        *,
        x0: float | None = None,
        x1: float | None = None,
        buckets: int = 300,
        history: History = "last",
        writer: str | None = None,
        cache: bool = True,
    ) -> dict[str, CurveBuckets]:
        """Return the curves of several metrics, by their names.

        Args:
            keys: the metrics; None for all.
            x: as for `curve`.
            x0: as for `curve`.
            x1: as for `curve`.
            buckets: as for `curve`.
            history: as for `curve`.
            writer: as for `curve`.
            cache: as for `curve`.

        Raises:
            NoSuchMetric: the run has no number by one of the names.
            InvalidSettings: `keys` is one name and no list; there is no such window, history or writer.
            BackendUnavailable: the journal is missing, and what a backend has left cannot be read here.
        """
        if isinstance(keys, str | bytes):
            raise InvalidSettings([f"keys must be names, such as [{keys!r:.80}]; got one: curve() draws one metric"])
        found = self._run_curves(history, writer=writer, cache=cache)
        return found.curves(found.names() if keys is None else keys, x, x0, x1, buckets)

    def _run_curves(
        self,
        history: History = "last",
        *,
        writer: str | None = None,
        cache: bool = True,
        watch: Watch | None = None,
    ) -> RunCurves:
        """Return the curves of this run, up to date; `watch` gets each batch that is read."""
        _check(history)
        found = self._known_curves.get((history, writer))
        if found is None:
            found = self._known_curves[history, writer] = self._new_curves(history, writer, cache=cache)
        said = manifest_of(self.path)
        fixed = self._fixed_sessions() if history == "last" else {}
        # What one process has logged again depends on the others, too.
        cuts = self._run_curves(history, cache=cache).cuts if writer is not None and history == "last" else None
        damage = found.grow(fixed, cuts=cuts, watch=watch)
        self._within = [*damage, *(unreached_end(self.path, said, found.position) if self._has_journal() else ())]
        self._warn()
        return found

    def _new_curves(self, history: History, writer: str | None, *, cache: bool) -> RunCurves:
        from asynctrack.curves.record_curves import RecordCurves  # few who read a run want its curves
        from asynctrack.curves.run_curves import RunCurves

        if (fallback := self._fallback()) is not None:
            return RecordCurves(
                self.path,
                lambda: (record for record in fallback() if writer is None or record.writer == writer),
            )
        if writer is None:
            return RunCurves(self.path, history, cache=cache)
        chosen = WriterFilter(self.path, writer)
        if (problem := chosen.problem()) is not None:
            raise InvalidSettings([problem])
        return RunCurves(self.path, history, takes=chosen.takes_or_notes)

    @suggests
    def summarise(self, key: str, how: str = "last") -> Any:
        """Reduce all values of a key to one.

        Args:
            key: nested keys are joined by `/`.
            how: "last", "first", "min", "max" or "mean".

        Raises:
            NoSuchMetric: nothing was logged by that name, or no number where one is needed. It is a `KeyError`.
            InvalidSettings: `how` is none of these words.
        """
        if how not in _HOW:
            raise InvalidSettings([f"how must be one of {', '.join(map(repr, _HOW))}; got {how!r:.80}"])
        if how == "last":
            return light(next(self._backwards(key)))
        if how in ("min", "max", "mean") and is_native and self._has_journal():
            curves = self._run_curves()
            totals = curves.totals(key)
            if totals is not None and not totals.not_finite and not curves.is_rounded:
                pick = totals.min if how == "min" else totals.max
                return totals.mean if how == "mean" or pick is None else pick.value
        values = [value for record in self.records("last") for name, value in flatten(record.data) if name == key]
        if how in ("min", "max", "mean"):
            values = [value for value in values if isinstance(value, int | float) and value == value]
        if not values:
            raise NoSuchMetric(key, self._names(), "value" if how == "first" else "number")
        if how == "mean":
            mean = sum(map(as_float, values)) / len(values)
            return clamped(mean, as_float(min(values)), as_float(max(values)))
        return min(values) if how == "min" else max(values) if how == "max" else light(values[0])

    @suggests
    def to_pandas(self, history: History = "last") -> pandas.DataFrame:
        """Return a pandas data frame with a row for each record. The first columns are `_step` and `_timestamp` (seconds since the epoch).

        Where several processes have written to the run, `_writer` is the third: the label of the one that has logged the record. A logged key of one of these names gets one more underscore in front. Each column has one type, as `asynctrack.records.column_types` says; steps beyond
        63 bits are unsigned.

        Args:
            history: "last" leaves out what was logged again after a resume; "all" does not.

        Raises:
            LibraryMissing: pandas is not installed.
        """
        library = import_library("pandas", "to_pandas")
        labels = RowLabels()
        found = self._scan(history, _cell, rows=True, labels=labels)
        frame: pandas.DataFrame = (
            data_frames.to_pandas(library, self._table(history))
            if found is None
            else scanned_frames.to_pandas(library, found, labels.column())
        )
        return frame

    @suggests
    def to_polars(self, history: History = "last") -> polars.DataFrame:
        """Return a polars data frame with the columns of `to_pandas`.

        Args:
            history: as for `to_pandas`.

        Raises:
            LibraryMissing: polars is not installed.
        """
        library = import_library("polars", "to_polars")
        labels = RowLabels()
        found = self._scan(history, _cell, rows=True, labels=labels) if find_spec("numpy") is not None else None
        frame: polars.DataFrame = (
            data_frames.to_polars(library, self._table(history))
            if found is None
            else scanned_frames.to_polars(library, found, labels.column())
        )
        return frame

    @suggests
    def to_arrow(self, history: History = "last") -> pyarrow.Table:
        """Return a pyarrow table with the columns of `to_pandas`.

        Args:
            history: as for `to_pandas`.

        Raises:
            LibraryMissing: pyarrow is not installed.
        """
        library = import_library("pyarrow", "to_arrow")
        labels = RowLabels()
        found = self._scan(history, _cell, rows=True, labels=labels)
        table: pyarrow.Table = (
            data_frames.to_arrow(library, self._table(history))
            if found is None
            else scanned_frames.to_arrow(library, found, labels.column())
        )
        return table

    def _fixed_sessions(self) -> dict[int, int]:
        said = manifest_of(self.path)
        return {} if said is None else sessions_of_rings(self.path, said)

    def _read(self, fixed: Mapping[int, int] | None = None) -> Iterator[tuple[int, Record]]:
        """Yield the records, each with the number of its session; `fixed` has those of rings that belong to another than that in which they stand."""
        if (fallback := self._fallback()) is not None:
            yield from ((0, record) for record in fallback())
            return
        yield from session_records(self.path, self._batches(), BatchDecoder(Decoder(self.path)), fixed)

    def _batches(self) -> Iterator[tuple[Reader, FrameBatch]]:
        """Yield the batches of the journal, each with its reader; what that finds damaged is this one's damage at the end."""
        said = manifest_of(self.path)
        reader = Reader(self.path / "journal")
        self._within = []
        try:
            for batch in reader:
                yield reader, batch
            for gone in unreached_end(self.path, said, reader.position):
                reader.report(gone)
        finally:
            reader.close()
            self._within = reader.damage
        self._warn()

    def _scan(
        self, history: History, plain: Plain, *, rows: bool = False, labels: RowLabels | None = None
    ) -> Scan | None:
        """Scan the journal; None where the records have to be read: without a journal, or without the core.

        Raises:
            InvalidSettings: there is no such history.
        """
        _check(history)
        if not self._has_journal():
            return None
        fixed = self._fixed_sessions() if history == "last" else {}
        found = scan(self.path, self._batches, history, plain, rows=rows, labels=labels, fixed=fixed)
        return None if found is None or (rows and not found.rows) else found  # empty columns have types of their own

    def _curves(self, history: History) -> Iterator[tuple[str, Curve]]:
        """Yield the name and the curve of each key."""
        if (found := self._scan(history, light)) is not None:
            yield from scanned_frames.curves(found)
            return
        for key, column in self.columns(history).items():
            yield key, Curve(steps_as_array(column.steps), as_array(column.values))

    def _warn(self) -> None:
        if self._warns:
            warn(self.path, self.damage)

    def _table(self, history: History) -> dict[str, list[Any]]:
        """Return columns of equal length, with None where a record has no such key."""
        table: dict[str, list[Any]] = {data_frames.STEP: [], data_frames.TIMESTAMP: []}
        flat_names = FlatNames(data_frames.RESERVED)
        rows = 0
        labels: list[str | None] = []
        for record in self.records(history):
            labels.append(record.writer)
            table[data_frames.STEP].append(record.step)
            table[data_frames.TIMESTAMP].append(record.time_ns / 1e9)
            for key, value in flat_names.of(dict(flatten(record.data))).items():
                column = table.setdefault(key, [])
                column.extend([None] * (rows - len(column)))
                column.append(_cell(value))
            rows += 1
        for column in table.values():
            column.extend([None] * (rows - len(column)))
        return table if not any(labels) else data_frames.with_writers(table, labels)

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
            NoSuchMetric: there are no more.
        """
        if (fallback := self._fallback()) is not None:
            rows = [dict(flatten(record.data)) for record in fallback()]
            yield from (row[key] for row in reversed(rows) if key in row)
        for record in self._records_backwards():
            found = dict(flatten(string_keys(record.data)))
            if key in found:
                yield found[key]
        raise NoSuchMetric(key, self._names())

    def _names(self) -> dict[str, None]:
        return {name: None for record in self.records("last") for name, _ in flatten(record.data)}

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


def _check(history: object) -> None:
    if history not in get_args(History):
        raise InvalidSettings([f"history must be 'all' or 'last'; got {history!r:.80}"])


def _cell(value: Any) -> Any:
    """Convert a value to that of a data frame's cell."""
    if isinstance(value, Media):
        return to_json(value)
    return value.tolist() if isinstance(value, Array) else value


def _find_fallback(run: Path, backends: dict[str, Any]) -> Records | None:
    """Find what backends have left without a journal. It is imported here: it is rarely needed, and takes a while."""
    from asynctrack.reading.without_journal import find_fallback

    return find_fallback(run, backends)
