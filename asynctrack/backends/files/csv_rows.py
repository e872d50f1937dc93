"""CSV rows: RFC 4180, as the CSV backend writes them and a loader reads them back. Runs in the worker and in readers.

Texts are in quotes, also when they are empty; numbers, `true` and `false` are not. What is not finite is `NaN`, `inf` or `-inf`: pandas and polars read numbers so (DuckDB
too, where it is told the column's type). None is an empty cell, as is what a record does not have. Arrays, lists and empty mappings are JSON as a text. Rows end with CR LF.

A column's name is that of the metric without its source. Names `_step` and `_timestamp` of a user's get one more underscore in front.
What a source has beyond the columns that a file may have is in further ones, `train-00000002.csv`, whose columns have full names.
A source whose name cannot be that of a file gets a checksum behind what is left of it, `a_b-1c291ca3.csv`, and its columns have full names.
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

from asynctrack.backends.files.reserved import free_name, put_back
from asynctrack.records.codec import Array, Record, split_source, to_json

COLUMNS: Final = ("_step", "_timestamp")
REST: Final = "metrics"

# A longer name may not be that of a file. Arbitrary, below 255 bytes.
_LONGEST_NAME: Final = 100
# The longest header there can be: one that was made by thousands of keys has some 100 kB. Arbitrary.
_LONGEST_HEADER: Final = 64 << 20

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_. -]")
_WITH_CHECKSUM: Final = re.compile(r"-[0-9a-f]{8}\Z")
_BEGIN: Final = re.compile(rb"-?\d*(,|\Z)")
_BOOLS: Final = {"true": True, "false": False}


def file_and_column(key: str) -> tuple[str, str]:
    """Where the values of a key are."""
    source, name = split_source(key)
    if not source:
        return f"{REST}.csv", free_name(key, COLUMNS)
    clean = _UNSAFE.sub("_", source).lstrip(".")[:_LONGEST_NAME]
    if clean == source != REST and not _WITH_CHECKSUM.search(source):
        return f"{clean}.csv", free_name(name, COLUMNS)
    return f"{clean}-{zlib.crc32(source.encode()):08x}.csv", free_name(key, COLUMNS)


def files_and_columns(key: str) -> Iterator[tuple[str, str]]:
    """Where the values of a key may be: in its source's file, and where that has no room for more columns, in the further ones."""
    yield file_and_column(key)
    stem = file_and_column(key)[0].removesuffix(".csv")
    for number in itertools.count(2):  # as with a checksum, so that no source has a file of such a name
        yield f"{stem}-{number:08x}.csv", free_name(key, COLUMNS)


def header_of(columns: Sequence[str]) -> bytes:
    return b",".join(map(_quoted, columns)) + b"\r\n"


def encode_row(record: Record, data: Mapping[str, Any], columns: Mapping[str, int]) -> bytes:
    """The row of a record.

    Args:
        record: that it is of.
        data: its values by column.
        columns: the place of each.
    """
    cells = [b""] * len(columns)
    cells[0], cells[1] = _encode(record.step), _encode(record.time_ns / 1e9)
    for name, value in data.items():
        cells[columns[name]] = _CELLS.get(type(value), _other)(value)
    return b",".join(cells) + b"\r\n"


def split_rows(content: bytes) -> list[bytes]:
    """Rows with their ends; what comes last may have none."""
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
    """Whether what `split_rows` gave last has its end."""
    return row.endswith(b"\n") and row.count(b'"') % 2 == 0


def stamp_of(row: bytes) -> tuple[int, float] | None:
    """Step and time of a row, None where it is not one of ours, or not all of one."""
    if not row.endswith(b"\n"):
        return None
    try:
        step, seconds, *_ = row.split(b",", 2)
        return int(step), float(seconds)
    except ValueError:
        return None


def is_torn(row: bytes) -> bool:
    """Whether a row may be one of ours that was being written."""
    begun = row.rstrip(b"\0")
    return not row.endswith(b"\n") and _BEGIN.match(begun) is not None


def read_header(file: IO[bytes]) -> list[str]:
    """The columns of an open file; none where they are not those of such a file."""
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
    """What a file has of each record, under full names; what is torn is left out."""
    source = path.stem
    prefix = "" if source == REST or _WITH_CHECKSUM.search(source) else f"{source}/"
    with open(path, "rb") as file:
        columns = read_header(file)
        file.seek(len(header_of(columns)) if columns else 0, 0 if columns else 2)
        names = [prefix + put_back(name, COLUMNS) for name in columns[2:]]
        for number, row in enumerate(_whole_rows(file)):
            if (stamp := stamp_of(row)) is not None:
                cells = zip(names, _cells(row)[2:], strict=False)
                data = {name: _value(cell) for name, cell in cells if cell}
                yield Record(number, stamp[0], round(stamp[1] * 1e9), data)


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


# A cell with its quotes, which say whether it is a text: Python's reader takes them away.
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
    """What a cell that is not empty stands for; a text that is JSON of an array, a list or a mapping stays a text."""
    if cell[0] == '"':
        return cell[1:-1].replace('""', '"')
    if cell in _BOOLS:
        return _BOOLS[cell]
    for number in (int, float):
        with contextlib.suppress(ValueError):
            return number(cell)
    return cell  # a person's
