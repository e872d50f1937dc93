"""JSON file: a file of columns, replaced by a longer one into which its columns are copied.

Runs where the JSON backend does.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import msgspec

from asynctrack._system import permissions
from asynctrack.journal.segment import sync_directory

CONFIG: Final = "config"
SUMMARY: Final = "run_summary"
STEP: Final = "_step"

# Bytes of a column that are copied at once. Arbitrary.
_PIECE_BYTES: Final = 1 << 20
_NULL: Final = b"null"

Row = Mapping[str, msgspec.Raw]
Rows = Iterable[Sequence[Row]]  # some at a time

_columns: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_items: Final = msgspec.json.Decoder(list[msgspec.Raw])


class NotOurs(Exception):
    """The file differs from what was written to it."""


class _Column(NamedTuple):
    """The values of a column: between two offsets of the file, or held here."""

    length: int = 0
    start: int = 0
    end: int = 0
    content: bytes = b""


class _Added:
    """Encoded values that a column gets."""

    __slots__ = ("content", "count")

    def __init__(self) -> None:
        self.content = bytearray()
        self.count = 0

    def add(self, values: Collection[Any]) -> None:
        """Add values, which are encoded already."""
        if values:
            self.content += b"," * bool(self.content) + b",".join(values)
            self.count += len(values)


class ColumnFile:
    """A JSON file with a list per key.

    Args:
        path: of the file.
        aligned: whether its columns are of one length, with null where a row has no value.
    """

    def __init__(self, path: Path, *, aligned: bool) -> None:
        self.path = path
        self._aligned = aligned
        self._columns: dict[str, _Column] = {}
        self._written: tuple[int, ...] | None = None

    def __repr__(self) -> str:
        return f"<ColumnFile {self.path}, {len(self._columns)} columns>"

    @property
    def size(self) -> int:
        """Return the file's size in bytes."""
        return self._written[1] if self._written else 0

    def load(self, counts: Mapping[str, int], waiting: Rows) -> bool:
        """Read the file that is there and check it against the saved state.

        Args:
            counts: the number of values in each column when the state was saved, in the file and in the waiting rows
                together.
            waiting: the rows that waited then.

        Returns:
            Whether the file has these rows already.

        Raises:
            NotOurs: it is not the file that was written.
        """
        found = self._read()
        has = {name: _length(column) for name, column in found.items()}
        of = [STEP] if self._aligned and counts else list(counts)
        ahead = all(has.get(name, 0) >= counts[name] for name in of)
        if not ahead:
            total = Counter(has) + Counter(name for rows in waiting for row in rows for name in row)
            if any(total[name] != counts[name] for name in of):
                raise NotOurs(
                    f"{self.path.name} has other values than were written, so it was changed by another program"
                )
        for name, column in found.items():
            length = counts.get(STEP if self._aligned and counts.get(name) else name, 0) if ahead else has[name]
            content = bytes(column)[1:-1] if length == has[name] else _begin(column, length)
            if length:
                self._columns[name] = _Column(length, content=content)
        return ahead

    def replace(
        self, rows: Rows, counts: Mapping[str, int], config: Mapping[str, Any], summary: Mapping[str, Any]
    ) -> None:
        """Replace the file by one that has these rows, too.

        Args:
            rows: names to values.
            counts: the number of values that each column has then.
            config: of the run as it is.
            summary: of the run as it is.

        Raises:
            NotOurs: something else has changed the file, or the rows.
        """
        if self._written is not None and self._written != self._identity():
            raise NotOurs(f"{self.path.name} was changed by another program")
        added = self._added(rows)
        unfinished = self.path.with_name(f".{self.path.name}.new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with open(os.open(unfinished, flags, permissions.FILE), "wb") as file:
            columns = self._write(file, added, config, summary)
            file.flush()
            os.fsync(file.fileno())
        of = [STEP] if self._aligned and counts else list(counts)
        if any(columns.get(name, _Column()).length != counts[name] for name in of):
            os.unlink(unfinished)
            raise NotOurs("the rows that waited to be written were changed by another program")
        os.replace(unfinished, self.path)
        sync_directory(os.fspath(self.path.parent))
        self._columns, self._written = columns, self._identity()

    def _read(self) -> dict[str, msgspec.Raw]:
        """Read the columns of the file."""
        try:
            with open(os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                self._written = _identity_of(os.fstat(file.fileno()))
                columns = _columns.decode(file.read())
        except FileNotFoundError:
            return {}
        except msgspec.DecodeError as error:
            raise NotOurs(
                f"{self.path.name} is no JSON object, so it was changed by another program: {error}"
            ) from error
        return {name: column for name, column in columns.items() if name not in (CONFIG, SUMMARY)}

    def _added(self, rows: Rows) -> dict[str, _Added]:
        """Collect the values that each column gets."""
        added: defaultdict[str, _Added] = defaultdict(_Added)
        length = self._columns.get(STEP, _Column()).length
        for some in rows:
            values = self._aligned_values(some, added, length) if self._aligned else _values(some)
            for name, of in values.items():
                added[name].add(of)
            length += len(some)
        return added

    def _aligned_values(self, rows: Sequence[Row], added: Mapping[str, _Added], length: int) -> dict[str, list[Any]]:
        """Collect the values of each column. Rows without one get null, also those before a column's first value."""
        values = {}
        for name in dict.fromkeys(itertools.chain(self._columns, added, *rows)):
            there = self._columns.get(name, _Column()).length + (added[name].count if name in added else 0)
            values[name] = [_NULL] * (length - there) + [row.get(name, _NULL) for row in rows]
        return values

    def _write(
        self, file: IO[bytes], added: Mapping[str, _Added], config: Mapping[str, Any], summary: Mapping[str, Any]
    ) -> dict[str, _Column]:
        columns = {}
        file.write(b"{")
        between = b"\n"
        if config:
            file.write(b"%b%b: %b" % (between, _encode(CONFIG), _encode(config)))
            between = b",\n"
        for name in dict.fromkeys([*self._columns, *added]):
            file.write(b"%b%b: [" % (between, _encode(name)))
            columns[name] = self._write_column(file, self._columns.get(name, _Column()), added.get(name, _Added()))
            file.write(b"]")
            between = b",\n"
        if summary:
            file.write(b"%b%b: %b" % (between, _encode(SUMMARY), _encode(summary)))
        file.write(b"\n}\n")
        return columns

    def _write_column(self, file: IO[bytes], column: _Column, added: _Added) -> _Column:
        start = file.tell()
        file.write(column.content)
        if column.end > column.start:
            with open(self.path, "rb") as before:
                before.seek(column.start)
                left = column.end - column.start
                while left and (piece := before.read(min(left, _PIECE_BYTES))):
                    left -= file.write(piece)
        if column.length and added.count:
            file.write(b",")
        file.write(added.content)
        return _Column(column.length + added.count, start, file.tell())

    def _identity(self) -> tuple[int, ...] | None:
        try:
            return _identity_of(os.stat(self.path, follow_symlinks=False))
        except FileNotFoundError:
            return ()


def _identity_of(found: os.stat_result) -> tuple[int, ...]:
    """Return numbers that change when something else writes the file."""
    return found.st_ino, found.st_size, found.st_mtime_ns


def _values(rows: Sequence[Row]) -> Mapping[str, list[Any]]:
    """Collect the values of each column in these rows."""
    values: defaultdict[str, list[Any]] = defaultdict(list)
    for row in rows:
        for name, value in row.items():
            values[name].append(value)
    return values


def _length(column: msgspec.Raw) -> int:
    try:
        return len(_items.decode(column))
    except msgspec.DecodeError as error:
        raise NotOurs(f"it has a column that is no list: {error}") from error


def _begin(column: msgspec.Raw, length: int) -> bytes:
    """Return the first values of a column."""
    return b",".join(bytes(item) for item in _items.decode(column)[:length])


def _encode(value: Any) -> bytes:
    return msgspec.json.encode(value)
