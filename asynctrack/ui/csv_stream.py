"""CSV stream: all values of metrics of runs, as they were logged, in pieces. Runs in the server of the page, on file threads."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from asynctrack.errors import AsynctrackError
from asynctrack.journal.manifest import UNREADABLE
from asynctrack.reading.history import History
from asynctrack.reading.reader import RunReader
from asynctrack.records.codec import flatten, light, to_json
from asynctrack.ui.plain_json import encode
from asynctrack.ui.run_list import ListedRun

# Rows that are made at once: 10 ms.
_ROWS: Final = 2000
_FLAT: Final = frozenset({float, int, str, bool})
_NUMBERS: Final = frozenset({float, int})
# How a text begins that a spreadsheet takes for a formula; OWASP lists it.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def csv_of(runs: Sequence[ListedRun], keys: Sequence[str], history: History) -> Iterator[bytes]:
    """Yield the pieces of a table with a row for each record that has one of the metrics.

    Args:
        runs: whose records.
        keys: the metrics.
        history: of resumed runs.
    """
    yield _lines([["run", "step", "time", *map(_plain, keys)]])
    for run in runs:
        rows: list[list[Any]] = []
        try:
            for row in _rows(run, keys, history):
                rows.append(row)
                if len(rows) == _ROWS:
                    yield _lines(rows)
                    rows = []
        except (AsynctrackError, OSError, *UNREADABLE) as error:  # of what is damaged, the rest comes
            rows.append([_plain(run.key), "", "", _plain(f"the run cannot be read any further: {error}")])
        yield _lines(rows)


def _rows(run: ListedRun, keys: Sequence[str], history: History) -> Iterator[list[Any]]:
    name = _plain(run.key)
    for record in RunReader(Path(run.path)).records(history):
        data = record.data
        found = data if _FLAT.issuperset(map(type, data.values())) else dict(flatten(data))
        cells = [found.get(key, "") for key in keys]
        if any(cell != "" for cell in cells):
            plain = cells if _NUMBERS.issuperset(map(type, cells)) else map(_cell, cells)
            yield [name, record.step, record.time_ns / 1e9, *plain]


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, int | float):
        return "" if value is None else value
    return _plain(value if isinstance(value, str) else encode(to_json(light(value))).decode())


def _plain(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _lines(rows: list[list[Any]]) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue().encode("utf-8", "backslashreplace")
