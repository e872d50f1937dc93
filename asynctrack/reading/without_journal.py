"""Without a journal: reads a run whose journal is missing from the files of its backends. Runs anywhere.

The most faithful file comes first: JSON Lines, Parquet, SQL, CSV. Their keys are flat. Numbers, texts, NaN and the infinities are as they were logged;
arrays and lists are lists in JSON Lines, and texts elsewhere. A record's number is its place in the file. These files say which of several writers
logged a record, but not when the run was resumed.
"""

from __future__ import annotations

import heapq
import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from glob import escape
from pathlib import Path
from typing import Any, Final

import msgspec

from asynctrack._system import trust
from asynctrack.backends.files import csv_rows
from asynctrack.backends.files.jsonl import RESERVED
from asynctrack.backends.files.reserved import WRITER, put_back
from asynctrack.backends.files.writer_folders import folders_in
from asynctrack.backends.stored_settings import renamed
from asynctrack.errors import BackendUnavailable
from asynctrack.records.codec import Record, from_json

Records = Callable[[], Iterator[Record]]
Settings = Mapping[str, Any]

_line: Final = msgspec.json.Decoder(dict[str, Any])


def find_fallback(run: Path, backends: Mapping[str, Settings]) -> Records | None:
    """Return a function that reads the records that are left of a run; None where nothing is.

    Args:
        run: its directory.
        backends: their settings as `run.json` has them, by name. Where that is missing, too, the names of files are the default ones.

    Raises:
        BackendUnavailable: something is left, but cannot be read here.
    """
    unavailable: BackendUnavailable | None = None
    for name, settings in _candidates(backends):
        try:
            if (records := _find(run, name, settings)) is not None:
                return records
        except BackendUnavailable as error:
            unavailable = unavailable or error
    if unavailable is not None:
        raise unavailable
    return None


def _find(run: Path, name: str, settings: Settings) -> Records | None:
    """Return what reads the records of a backend, those in the folders of other writers, too."""
    find = _FINDERS[settings["kind"]]
    own = find(run, name, settings)
    others: dict[str, Records] = {}
    for label, folder in folders_in(run) if find is not _sql else ():
        if (records := find(folder, name, settings)) is not None:
            others[label] = records
    return partial(_merged, own or _none, others) if others else own


def _none() -> Iterator[Record]:
    return iter(())


def _merged(own: Records, others: Mapping[str, Records]) -> Iterator[Record]:
    """Merge the records of several writers by their times; those of the owner have no label, for it stands nowhere."""
    parts = [own(), *(_labelled(label, records) for label, records in others.items())]
    for number, record in enumerate(heapq.merge(*parts, key=lambda record: record.time_ns)):
        yield msgspec.structs.replace(record, number=number)


def _labelled(label: str, records: Records) -> Iterator[Record]:
    for record in records():
        yield msgspec.structs.replace(record, writer=label)


def _candidates(backends: Mapping[str, Settings]) -> list[tuple[str, Settings]]:
    """Return the backends that may have left something, the most faithful first. A downsampled one does not have all records, and comes last."""
    found: list[tuple[str, Settings]] = []
    for kind in _FINDERS:
        own = [(name, settings) for name, settings in backends.items() if settings.get("kind") == kind]
        found += own or [(kind, {"kind": kind})]
    return sorted(found, key=lambda item: renamed(item[1]).get("downsample_interval_s") is not None)


def _lines(run: Path, name: str, settings: Settings) -> Records | None:
    path = run / os.path.basename(str(settings.get("file", "metrics.jsonl")))
    rebuilt = [beside for beside in run.glob(f"{escape(path.stem)}-*{path.suffix}") if _number(path, beside)]
    paths = [*sorted(rebuilt, key=lambda beside: _number(path, beside), reverse=True), path]
    return next((partial(_read_lines, path) for path in paths if path.is_file() and not path.is_symlink()), None)


def _number(path: Path, beside: Path) -> int:
    """Return the number of a file that was built beside another, which somebody had edited: metrics-2.jsonl, ...; 0 for any other file."""
    number = beside.stem.removeprefix(f"{path.stem}-")
    return int(number) if number.isdecimal() else 0


def _read_lines(path: Path) -> Iterator[Record]:
    numbers = itertools.count()
    with open(path, "rb") as file:
        for text in file:
            try:
                line = _line.decode(text)
                step, seconds = int(line.pop("_step")), float(line.pop("_timestamp"))
            except (msgspec.DecodeError, KeyError, TypeError, ValueError):
                continue  # torn, or a person's
            reserved = (*RESERVED, WRITER) if WRITER in line else RESERVED
            writer = str(line.pop(WRITER)) if WRITER in line else None
            data = {put_back(name, reserved): value for name, value in from_json(line).items()}
            yield Record(next(numbers), step, round(seconds * 1e9), data, writer=writer)


def _parquet(run: Path, name: str, settings: Settings) -> Records | None:
    folder = run / os.path.basename(str(settings.get("folder", "parquet")))
    if not any(folder.glob("*.parquet")):
        return None
    try:
        from asynctrack.backends.files import parquet_table
    except ImportError as error:
        raise BackendUnavailable(
            "parquet", f"what is left of {run} needs pyarrow: pip install 'asynctrack[parquet]'"
        ) from error
    return partial(parquet_table.read_records, folder)


def _sql(run: Path, name: str, settings: Settings) -> Records | None:
    path = run.absolute()
    if settings.get("url") is not None and not trust.is_sealed(path.name, name, settings):
        return None  # an address from another user's run.json
    url = settings.get("url") or f"sqlite:///{path.parent / 'metrics.db'}"
    if settings.get("url") is None and not (path.parent / "metrics.db").is_file():
        return None
    from asynctrack.backends.sql import read_records

    password = {"password": settings["password"]} if "password" in settings else {}
    records = partial(read_records, url, path.name, project=path.parent.name, **password)
    try:
        next(records(), None)
    except BackendUnavailable:
        if trust.SEAL in settings:  # the run has been delivered there
            raise
        return None
    return records


def _csv(run: Path, name: str, settings: Settings) -> Records | None:
    folder = os.path.basename(str(settings.get("folder", "csv")))
    rebuilt = [path for path in run.glob(f"{escape(folder)}-*") if path.is_dir() and _number(Path(folder), path)]
    folders = [*sorted(rebuilt, key=lambda path: _number(Path(folder), path), reverse=True), run / folder]
    found = next((sorted(path.glob("*.csv")) for path in folders if any(path.glob("*.csv"))), None)
    return None if found is None else partial(_read_tables, found)


def _read_tables(paths: list[Path]) -> Iterator[Record]:
    """Merge the rows of several sources to the records they were: what was logged at once has one step and one time."""
    numbers = itertools.count()
    rows = heapq.merge(*map(csv_rows.read_records, paths), key=lambda record: record.time_ns)
    for (time_ns, step), same in itertools.groupby(rows, key=lambda record: (record.time_ns, record.step)):
        found: dict[str | None, dict[str, Any]] = {}
        for row in same:
            data = found.setdefault(row.writer, {})
            if not data.keys().isdisjoint(row.data):  # another process logged at the same moment
                yield Record(next(numbers), step, time_ns, data, writer=row.writer)
                data = found[row.writer] = {}
            data |= row.data
        for writer, data in found.items():
            yield Record(next(numbers), step, time_ns, data, writer=writer)


_FINDERS: Final[dict[str, Callable[[Path, str, Settings], Records | None]]] = {
    "jsonl": _lines,
    "parquet": _parquet,
    "sql": _sql,
    "csv": _csv,
}
