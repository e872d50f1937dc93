"""CSV rows: RFC 4180, as the CSV backend writes them and a loader reads them back.

Runs in the worker and in readers.

Texts are in quotes, also empty ones; numbers, `true` and `false` are not. Numbers that are not finite are `NaN`, `inf`
or `-inf`, which pandas and polars read as numbers (DuckDB too, where it is told the column's type). A cell is empty for
None, and where a record has no such value. Arrays, lists and empty mappings are JSON as a text. Rows end with CR LF.

A column has the name of the metric without its source. A user's names `_step` and `_timestamp` get one more underscore
in front. In a run of several writers a further column, `_writer`, has the label of each row's writer. A source that has more columns than fit a file has further files, `train-00000002.csv`, whose columns have
full names. A source whose name cannot be a file's gets a file named by the usable part of the name and a checksum,
`a_b-1c291ca3.csv`; its columns have full names.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import math
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from asynctrack.backends.files.reserved import WRITER, free_name, put_back
from asynctrack.records.codec import Array, Record, split_source, to_json

COLUMNS: Final = ("_step", "_timestamp")
REST: Final = "metrics"

# Longer names are cut, so that a file can have them. Arbitrary, below 255 bytes.
_LONGEST_NAME: Final = 100
# Bytes of a header, at most; thousands of keys make some 100 kB. Arbitrary.
_LONGEST_HEADER: Final = 64 << 20

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_. -]")
_WITH_CHECKSUM: Final = re.compile(r"-[0-9a-f]{8}\Z")
_BEGIN: Final = re.compile(rb"-?\d*(,|\Z)")
_BOOLS: Final = {"true": True, "false": False}


def file_and_column(key: str, reserved: Sequence[str] = COLUMNS) -> tuple[str, str]:
    """Return the file's name and the column's name for a key."""
    source, name = split_source(key)
    if not source:
        return f"{REST}.csv", free_name(key, reserved)
    clean = _UNSAFE.sub("_", source).lstrip(".")[:_LONGEST_NAME]
    if clean == source != REST and not _WITH_CHECKSUM.search(source):
        return f"{clean}.csv", free_name(name, reserved)
    return f"{clean}-{zlib.crc32(source.encode()):08x}.csv", free_name(key, reserved)


def files_and_columns(key: str, reserved: Sequence[str] = COLUMNS) -> Iterator[tuple[str, str]]:
    """Yield the possible places of a key.

    Its source's file comes first, then the further ones, for when a file has no room for more columns.

    Yields:
        File's name and column's name, without end.
    """
    yield file_and_column(key, reserved)
    stem = file_and_column(key)[0].removesuffix(".csv")
    for number in itertools.count(2):  # eight digits look like a checksum, so that no source has a file of such a name
        yield f"{stem}-{number:08x}.csv", free_name(key, reserved)


def header_of(columns: Sequence[str]) -> bytes:
    """Encode the header row of a file."""
    return b",".join(map(_quoted, columns)) + b"\r\n"


def encode_row(record: Record, data: Mapping[str, Any], columns: Mapping[str, int]) -> bytes:
    """Encode a record as a row.

    Args:
        record: gives step and time.
        data: its values by column.
        columns: the index of each column.
    """
    cells = [b""] * len(columns)
    cells[0], cells[1] = _encode(record.step), _encode(record.time_ns / 1e9)
    for name, value in data.items():
        cells[columns[name]] = _CELLS.get(type(value), _other)(value)
    return b",".join(cells) + b"\r\n"


def split_rows(content: bytes) -> list[bytes]:
    """Split content into rows with their line ends; the last row may have none."""
    rows: list[bytes] = []
    begun: list[bytes] = []
    in_quotes = False
    for line in content.splitlines(keepends=True):
        begun.append(line)
        in_quotes ^= bool(line.count(b'"') % 2)
        if not in_quotes and line.endswith(b"\n"):
            rows.append(b"".join(begun))
            begun.clear()
    return [*rows, b"".join(begun)] if begun else rows


def is_whole(row: bytes) -> bool:
    """Return whether the last row that `split_rows` gave has its end."""
    return row.endswith(b"\n") and row.count(b'"') % 2 == 0


def stamp_of(row: bytes) -> tuple[int, float] | None:
    """Return step and time of a row, None where it is not one of ours or is cut short."""
    if not row.endswith(b"\n"):
        return None
    try:
        step, seconds, *_ = row.split(b",", 2)
        return int(step), float(seconds)
    except ValueError:
        return None


def is_torn(row: bytes) -> bool:
    """Return whether a row may be the beginning of one of ours."""
    begun = row.rstrip(b"\0")
    return not row.endswith(b"\n") and _BEGIN.match(begun) is not None


def read_header(file: IO[bytes]) -> list[str]:
    """Return the columns of an open file; none where it has no header of ours."""
    content = b""
    while piece := file.read(1 << 16):
        content += piece
        rows = split_rows(content)
        if is_whole(rows[0]):
            columns = next(csv.reader(io.StringIO(rows[0].decode("utf-8", "replace"), newline="")), [])
            return columns if tuple(columns[:2]) == COLUMNS and header_of(columns) == rows[0] else []
        if len(content) > _LONGEST_HEADER:
            break
    return []


def read_records(path: Path) -> Iterator[Record]:
    """Yield the part of each record that a file has, under full names. Rows that are cut short are left out."""
    source = path.stem
    prefix = "" if source == REST or _WITH_CHECKSUM.search(source) else f"{source}/"
    with open(path, "rb") as file:
        columns = read_header(file)
        file.seek(len(header_of(columns)) if columns else 0, 0 if columns else 2)
        reserved = (*COLUMNS, WRITER) if WRITER in columns else COLUMNS
        label_at = columns.index(WRITER) if WRITER in columns else len(columns)
        names = [prefix + put_back(name, reserved) for name in columns]
        for number, row in enumerate(_whole_rows(file)):
            if (stamp := stamp_of(row)) is not None:
                cells = dict(enumerate(_cells(row)[: len(names)]))
                label = cells.pop(label_at, "")
                data = {names[at]: _value(cell) for at, cell in cells.items() if cell and at > 1}
                writer = str(_value(label)) if label else None
                yield Record(number, stamp[0], round(stamp[1] * 1e9), data, writer=writer)


def _whole_rows(file: IO[bytes]) -> Iterator[bytes]:
    begun: list[bytes] = []
    in_quotes = False
    for line in file:
        begun.append(line)
        in_quotes ^= bool(line.count(b'"') % 2)
        if not in_quotes and line.endswith(b"\n"):
            yield b"".join(begun)
            begun.clear()


def _float(value: float) -> bytes:
    if math.isfinite(value):
        return _encode(value)
    return b"NaN" if value != value else b"inf" if value > 0 else b"-inf"


def _quoted(text: str) -> bytes:
    return b'"%b"' % text.replace('"', '""').encode()


def _other(value: Any) -> bytes:
    plain = to_json(value)
    if isinstance(value, Array) and not value.shape:
        return _CELLS[type(plain)](plain)
    return _quoted(_encode(plain).decode())


_encode: Final = msgspec.json.Encoder().encode
_CELLS: Final[dict[type, Callable[[Any], bytes]]] = {
    float: _float,
    str: _quoted,
    bool: _encode,
    int: _encode,
    type(None): lambda value: b"",
}


# A cell with its quotes, which mark a text: Python's reader removes them.
_A_CELL: Final = re.compile(r'"(?:[^"]|"")*"|[^,"]*')


def _cells(row: bytes) -> list[str]:
    text, cells, at = row.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", "replace"), [], 0
    if '"' not in text:
        return text.split(",")
    while (found := _A_CELL.match(text, at)) is not None:
        cells.append(found.group())
        at = found.end() + 1
        if at > len(text):
            break
    return cells


def _value(cell: str) -> Any:
    """Return the value of a cell that is not empty.

    A text that holds JSON of an array, a list or a mapping stays a text.
    """
    if cell[0] == '"':
        return cell[1:-1].replace('""', '"')
    if cell in _BOOLS:
        return _BOOLS[cell]
    for number in (int, float):
        with contextlib.suppress(ValueError):
            return number(cell)
    return cell  # somebody has typed it
