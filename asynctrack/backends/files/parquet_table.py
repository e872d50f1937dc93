"""Parquet table: write records as parts, merge parts into one table, read both back.

Runs where the Parquet backend does, and in readers.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from asynctrack._system import permissions
from asynctrack.backends.files.reserved import WRITER, free_name, put_back
from asynctrack.journal.segment import sync_directory
from asynctrack.records.codec import Record
from asynctrack.records.column_types import Kind, as_kind, kind_of, kind_of_integers, widest
from asynctrack.records.plain import flat

TABLE: Final = "metrics.parquet"
OWN: Final[dict[str, Any]] = {"_step": pa.int64(), "_timestamp": pa.float64(), "_number": pa.int64()}

_PART: Final = re.compile(r"part-(\d{6,})\.parquet")
_TYPES: Final[dict[Kind, Any]] = {
    "bool": pa.bool_(),
    "int": pa.int64(),
    "long": pa.int64(),
    "float": pa.float64(),
    "text": pa.string(),
}
_KINDS: Final[dict[Any, Kind]] = {of: kind for kind, of in _TYPES.items() if kind != "long"}
_COMPRESSION: Final = "zstd"

# Rows that are merged at once, and bytes of a row group in memory: merging takes a few of these. Arbitrary.
_ROWS: Final = 16_384
_GROUP_BYTES: Final = 32 << 20

_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2


def part_name(index: int) -> str:
    """Return the file name of a part."""
    return f"part-{index:06}.parquet"


def files(folder: Path) -> list[Path]:
    """Return the table, if there is one, and the parts in their order."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    parts = sorted((int(found[1]), name) for name in names if (found := _PART.fullmatch(name)))
    return [folder / name for name in ([TABLE] if TABLE in names else []) + [name for _, name in parts]]


def count_rows(paths: Iterable[Path]) -> int:
    """Count the rows of these files; a file that cannot be read counts as empty."""
    rows = 0
    for path in paths:
        with contextlib.suppress(OSError, pa.ArrowInvalid):
            rows += pq.read_metadata(path).num_rows
    return rows


def write_part(path: Path, records: Sequence[Record], kinds: dict[str, Kind]) -> None:
    """Write records as a file. The file appears only when it is whole.

    Args:
        path: of the file.
        records: its rows.
        kinds: the kind of each column of earlier parts; updated to this part's.
    """
    rows = [flat(record.data) for record in records]
    for key in dict.fromkeys(itertools.chain.from_iterable(rows)):
        kind = kind_of([row.get(key) for row in rows])
        if kind is not None:
            kinds[key] = widest((kind, kinds.get(key, kind)))
    own = [
        [record.step for record in records],
        [record.time_ns / 1e9 for record in records],
        [record.number for record in records],
    ]
    arrays = [pa.array(values, of) for values, of in zip(own, OWN.values(), strict=True)]
    names = list(OWN)
    if any(record.writer is not None for record in records):
        names.append(WRITER)
        arrays.append(pa.array([record.writer for record in records], pa.string()))
    arrays += [pa.array(as_kind(kind, [row.get(key) for row in rows]), _TYPES[kind]) for key, kind in kinds.items()]
    table = pa.table(arrays, names=names + [free_name(key, names) for key in kinds])
    unfinished = path.with_name(f".{path.name}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(unfinished, flags, permissions.FILE), "wb") as file:
        pq.write_table(table, file, compression=_COMPRESSION)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)


def merge(folder: Path) -> None:
    """Merge the table and the parts into one table.

    A reader that lists the folder finds either all of these or the new table.
    """
    there = files(folder)
    if not there or there == [folder / TABLE]:
        return
    if len(there) == 1:
        os.rename(there[0], folder / TABLE)
        return
    merged = _beside(folder, "merged")
    os.mkdir(merged, permissions.DIRECTORY)
    with open(permissions.create(merged / TABLE), "wb") as file:
        _write_merged(there, file)
        file.flush()
        os.fsync(file.fileno())
    sync_directory(os.fspath(merged))
    _exchange(merged, folder)
    sync_directory(os.fspath(folder.parent))
    recover(folder)


def recover(folder: Path) -> None:
    """Remove the directories that a finished or interrupted merge has left."""
    before, merged = _beside(folder, "before"), _beside(folder, "merged")
    if before.is_dir() and not folder.is_dir():
        os.rename(before, folder)
    for left in (before, merged):
        if left.is_dir() and not left.is_symlink():
            ours = {path.name for path in files(left)}
            for name in os.listdir(left):  # files that somebody has put there
                if name not in ours and not name.startswith("."):
                    os.rename(left / name, folder / name)
            shutil.rmtree(left)


def read_records(folder: Path) -> Iterator[Record]:
    """Yield the records of the table and the parts, with flat keys. Texts that hold JSON of a list stay texts."""
    for path in files(folder):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_ROWS):
                own = (*OWN, WRITER) if WRITER in batch.schema.names else tuple(OWN)
                for row in batch.to_pylist():
                    step, seconds, number = (row.pop(name) for name in OWN)
                    writer = row.pop(WRITER, None)
                    data = {put_back(name, own): value for name, value in row.items() if value is not None}
                    yield Record(number, step, round(seconds * 1e9), data, writer=writer)


def _write_merged(paths: Sequence[Path], out: Any) -> None:
    schema = _united(paths)
    with pq.ParquetWriter(out, schema, compression=_COMPRESSION) as writer:
        batches: list[Any] = []
        size = 0
        for path in paths:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(_ROWS):
                    batches.append(_fitted(batch, schema))
                    size += batches[-1].nbytes
                    if size >= _GROUP_BYTES:
                        writer.write_table(pa.Table.from_batches(batches, schema))
                        batches, size = [], 0
        if batches:
            writer.write_table(pa.Table.from_batches(batches, schema))


def _united(paths: Sequence[Path]) -> Any:
    """Return a schema with the columns of all files.

    They are in the order of their first appearance, each of a type that holds all its values.
    """
    found: dict[str, dict[Path, Kind]] = {}
    for path in paths:
        for field in pq.read_schema(path):
            found.setdefault(field.name, {})[path] = _KINDS[field.type]
    return pa.schema([(name, _TYPES[widest(_distinct_names(name, kinds))]) for name, kinds in found.items()])


def _distinct_names(name: str, kinds: dict[Path, Kind]) -> Iterator[Kind]:
    """Yield the kind of a column in each file that has it.

    Where floats meet integers, the size of the integers decides their kind.
    """
    for path, kind in kinds.items():
        yield _kind_of_integers(path, name) if kind == "int" and "float" in kinds.values() else kind


def _kind_of_integers(path: Path, column: str) -> Kind:
    # The file's own statistics have these numbers, too, but pyarrow 26.0 has read them from memory that was freed.
    kinds: set[Kind] = {"int"}
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_ROWS, columns=[column]):
            low, high = pc.min_max(batch.column(0)).as_py().values()
            kinds.add("int" if low is None else kind_of_integers(low, high))
    return widest(kinds)


def _fitted(batch: Any, schema: Any) -> Any:
    names = {*batch.schema.names}
    arrays = [
        _cast(batch.column(field.name), field.type) if field.name in names else pa.nulls(len(batch), field.type)
        for field in schema
    ]
    return pa.record_batch(arrays, schema=schema)


def _cast(array: Any, wanted: Any) -> Any:
    if array.type == wanted:
        return array
    if wanted == _TYPES["text"]:
        return pa.array(as_kind("text", array.to_pylist()), wanted)
    return array.cast(wanted, safe=False)


def _beside(folder: Path, what: str) -> Path:
    return folder.with_name(f".{folder.name}.{what}")


def _exchange(merged: Path, folder: Path) -> None:
    """Swap the names of two directories, at once where the file system can.

    Otherwise there is a moment without `folder`. One part after another would be renamed with a reader in between, who
    would find records twice or not at all.
    """
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
        failed = rename(_AT_FDCWD, os.fsencode(merged), _AT_FDCWD, os.fsencode(folder), _RENAME_EXCHANGE) != 0
    except (OSError, AttributeError):  # another C library
        failed = True
    if failed:
        os.rename(folder, _beside(folder, "before"))
        os.rename(merged, folder)
