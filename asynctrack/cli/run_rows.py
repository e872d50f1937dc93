"""Run rows: the records of one run as rows to be exported, in memory that does not grow with the run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from asynctrack._system.native import is_native
from asynctrack.backends.files.jsonl import RESERVED, as_line, encode_dicts, plain_value
from asynctrack.backends.files.reserved import WRITER, FlatNames, free_name
from asynctrack.cli.options import KeyFilter
from asynctrack.cli.records import batches_of, decoder_of, read_lines, read_lists
from asynctrack.cli.records import chosen as with_keys
from asynctrack.errors import AsynctrackError
from asynctrack.journal.manifest import UNREADABLE
from asynctrack.journal.reader import Damage
from asynctrack.journal.writers import Writers
from asynctrack.reading.history import History, LeftOut, Repeats, without
from asynctrack.reading.reader import RunReader
from asynctrack.reading.repeats import find_repeats
from asynctrack.reading.scan import NIL, Batches, blocks, kind_of_column
from asynctrack.reading.session_records import session_records
from asynctrack.reading.writer_filter import WriterFilter
from asynctrack.records.codec import Record, flatten
from asynctrack.records.column_types import Kind, are_plain, kind_of, widest

if TYPE_CHECKING:
    from asynctrack._native import Scan

# The first column where there are rows of several runs.
RUN: Final = "run"

# Records that are read at once. Arbitrary.
_AT_ONCE: Final = 1000
# Cells of a table that are made at once: some dozen MB. Arbitrary.
_MOST_CELLS: Final = 500_000
# The end of a name that has to give way to the column `run`, as JSON has it.
_RUN_NAME: Final = f'{RUN}"'.encode()

# Columns of equal length.
Table = dict[str, list[Any]]


class Columns(NamedTuple):
    """The columns of a run, in the order in which they come.

    Attributes:
        kinds: of each; None where all of its values are None.
        rows: how many the run has. A live run has more soon.
    """

    kinds: dict[str, Kind | None]
    rows: int


class RunRows:
    """Reads the rows of a run.

    Args:
        run: its directory.
        keys: those that are wanted, None for all.
        writer: the label of the process whose records are wanted, None for all.
        history: "last" leaves out what a resumed run logged again.
        label: the run's, where there are rows of several; then no key has the name of a column that only some of the runs have.

    Attributes:
        damage: what could not be read.
        left_out: what was logged again.
    """

    def __init__(
        self,
        run: Path,
        keys: KeyFilter | None = None,
        *,
        writer: str | None = None,
        history: History = "last",
        label: str | None = None,
    ) -> None:
        self.damage: list[Damage] = []
        self.left_out = LeftOut()
        self.label = label
        self._run = run
        self._keys = keys
        self._writer = writer
        self._reserved = RESERVED if label is None else (RUN, *RESERVED, WRITER)
        self._flat_names = FlatNames(self._reserved)
        self._scans = is_native and keys is None
        self._writers = Writers()
        self._has_labels = False
        self._history = history

    def columns(self) -> Columns:
        """Return the columns: step, time, the writer where there are several, and every key in the order they came."""
        self._begin()
        if self._scans:
            try:
                found = self._scanned_columns()
            except OverflowError:  # a step that only Python can hold
                self._scans = False
            else:
                self._scans = not self._writers.several  # the core knows no labels
            if self._scans:
                return found
            self._begin()
        return self._columns_of_tables()

    def tables(self, width: int, rows: int) -> Iterator[tuple[Table, int]]:
        """Yield so many rows piece by piece, as columns of equal length, and that length. A table lacks columns without a value.

        Args:
            width: how many columns there are.
            rows: of `columns`.
        """
        self._begin()
        for table, height in self._tables(max(1, min(_AT_ONCE, _MOST_CELLS // width))):
            if height >= rows:
                yield {name: values[:rows] for name, values in table.items()}, rows
                return
            rows -= height
            yield table, height

    def lines(self) -> Iterator[tuple[bytes, int]]:
        """Yield the rows as lines of JSON, in blocks, each with the number of its lines."""
        self._begin()
        if is_native and self._keys is None and self._repeats is None:
            for made in read_lines(self._run, self.damage, self._chosen()):
                lines = made.lines()
                if self.label is None:
                    yield lines, len(made)
                elif _RUN_NAME in lines:  # a key of that name has to give way
                    yield self._encode(list(made)), len(made)
                else:
                    yield _with_run(lines, self.label), len(made)
            return
        for records in self._lists():
            yield self._encode(records), len(records)

    def _encode(self, records: list[Record]) -> bytes:
        return encode_dicts(list(map(self._line, records)))

    def _line(self, record: Record) -> dict[str, Any]:
        """Return a row as JSON Lines have it."""
        self._has_labels = self._has_labels or record.writer is not None
        if self.label is None:
            return as_line(record)
        data = {name: plain_value(value) for name, value in flatten(record.data)}
        line = {RUN: self.label, RESERVED[0]: record.step, RESERVED[1]: record.time_ns / 1e9}
        line |= self._flat_names.of(data)
        return line if record.writer is None else {**line, WRITER: record.writer}

    def _begin(self) -> None:
        """Begin a pass over the journal."""
        _ = self._repeats  # whose pass finds the same damage
        self.damage.clear()
        self.left_out = LeftOut()

    def _scanned_columns(self) -> Columns:
        kinds: dict[str, Kind | None] = dict.fromkeys(RESERVED)
        kinds[RESERVED[1]] = "float"
        rows = 0
        for found in self._scanned():
            steps = memoryview(found.steps()).tolist()
            widen(kinds, RESERVED[0], kind_of([min(steps), max(steps)]))
            for index, name in enumerate(found.names()):
                tags, *_ = found.describe(index)
                kind = None if not tags & ~NIL else kind_of_column(found, index) or "text"
                widen(kinds, free_name(name, self._reserved), kind)
            rows += found.rows
        return Columns(kinds, rows)

    def _columns_of_tables(self) -> Columns:
        kinds: dict[str, Kind | None] = dict.fromkeys(RESERVED)
        rows = 0
        for table, height in self._tables(_AT_ONCE):
            for name, values in table.items():
                widen(kinds, name, kind_of(values) if are_plain(values) else "text")
            rows += height
        if self._has_labels:
            first = {name: kinds.pop(name) for name in (*RESERVED, WRITER)}
            kinds = {**first, **kinds}
        return Columns(kinds, rows)

    def _tables(self, height: int) -> Iterator[tuple[Table, int]]:
        if self._scans:
            for found in self._scanned():
                for first in range(0, found.rows, height):
                    end = min(found.rows, first + height)
                    yield self._table(found, first, end), end - first
            return
        records = chain.from_iterable(self._lists())
        while some := list(islice(records, height)):
            lines = list(map(self._line, some))
            names = dict.fromkeys(chain.from_iterable(lines))
            if self.label is not None:
                del names[RUN]
            yield {name: [line.get(name) for line in lines] for name in names}, len(lines)

    def _table(self, scan: Scan, first: int, end: int) -> Table:
        """Return some rows of a scan."""
        table = {
            RESERVED[0]: memoryview(scan.steps())[first:end].tolist(),
            RESERVED[1]: memoryview(scan.times())[first:end].tolist(),
        }
        for index, name in enumerate(scan.names()):
            table[free_name(name, self._reserved)] = scan.aligned_objects(index, first, end)
        return table

    def _scanned(self) -> Iterator[Scan]:
        chosen = self._chosen()
        if chosen is not None:
            self._writers = chosen.known
        return blocks(
            self._run,
            self._learning(batches_of(self._run, self.damage)),
            plain_value,
            rows=True,
            repeats=self._repeats,
            takes=None if chosen is None else chosen.takes,
            left_out=self.left_out,
        )

    def _learning(self, batches: Batches) -> Batches:
        """Yield the batches, and learn who writes."""
        for reader, batch in batches:
            self._writers = self._writers.learn(batch)
            yield reader, batch

    def _lists(self) -> Iterator[list[Record]]:
        """Yield the records that are wanted, some at a time."""
        if self._repeats is not None:
            records = self._without_repeats(self._repeats)
            while some := list(islice(records, _AT_ONCE)):
                yield some
            return
        for some in read_lists(self._run, self.damage, self._chosen()):
            yield some if self._keys is None else list(with_keys(iter(some), self._keys))

    def _without_repeats(self, repeats: Repeats) -> Iterator[Record]:
        chosen, keys = self._chosen(), self._keys
        numbered = session_records(
            self._run,
            batches_of(self._run, self.damage),
            decoder_of(chosen),
            repeats.fixed,
            None if chosen is None else chosen.takes,
        )
        if keys is not None:
            numbered = (
                (session, msgspec.structs.replace(record, data=data))
                for session, record in numbered
                if (data := keys.of(record.data))
            )
        return without(numbered, repeats.cuts, self.left_out)

    @cached_property
    def _repeats(self) -> Repeats | None:
        """Return what is to be left out; not before the run's turn has come, since there may be thousands of runs."""
        if self._history == "all":
            return None
        with suppress(
            AsynctrackError, OSError, *UNREADABLE
        ):  # of what is so damaged there is no second session to know
            return find_repeats(self._run, RunReader(self._run).manifest(), lambda: batches_of(self._run, self.damage))
        return None

    def _chosen(self) -> WriterFilter | None:
        return None if self._writer is None else WriterFilter(self._run, self._writer)


def widen(kinds: dict[str, Kind | None], name: str, kind: Kind | None) -> None:
    """Take values of a kind into account in a column."""
    known = kinds.get(name)
    kinds[name] = widest((known, kind)) if known and kind else known or kind


def _with_run(lines: bytes, label: str) -> bytes:
    """Put a run's label at the beginning of each line."""
    begin = b'{"%b":%b,' % (RUN.encode(), msgspec.json.encode(label))
    return (
        begin + lines[1:].replace(b"\n{", b"\n" + begin) if lines else lines
    )  # JSON has no line end but that of a line
