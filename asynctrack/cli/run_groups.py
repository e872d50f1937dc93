"""Run groups: runs that share a value, in a line each, with the mean, the standard deviation, the least and the greatest of columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from asynctrack.cli import output
from asynctrack.cli.output import Output, Piece, TableColumn, shorten
from asynctrack.cli.run_values import ValueColumn, cell, is_number
from asynctrack.collection.subject import RunSubject
from asynctrack.records.column_types import as_float
from asynctrack.records.expressions import MISSING, Term

_LONGEST_TITLE: Final = 24


class Spread(msgspec.Struct, frozen=True):
    """The finite numbers of a column in a group.

    Attributes:
        count: how many there are.
        mean: of them; None where there is none.
        std: their standard deviation, by n - 1; None where there are not two.
        min: the least.
        max: the greatest.
    """

    count: int
    mean: float | None = None
    std: float | None = None
    min: float | None = None
    max: float | None = None


class RunGroup(NamedTuple):
    """The runs that share a value.

    Attributes:
        key: what they share, as an expression.
        value: of it; None for the runs that have none.
        runs: their ids, as `project/id`.
        columns: by title.
    """

    key: str
    value: Any
    runs: list[str]
    columns: dict[str, Spread | Any]

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        columns = {
            title: msgspec.structs.asdict(value) if isinstance(value, Spread) else value
            for title, value in self.columns.items()
        }
        return {"key": self.key, "value": self.value, "count": len(self.runs), "runs": self.runs, "columns": columns}


def group_runs(
    key: Term, subjects: Sequence[RunSubject], columns: Sequence[ValueColumn], *, keeps_order: bool = False
) -> list[RunGroup]:
    """Group runs by a value.

    Args:
        key: the value.
        subjects: the runs.
        columns: of values of each run.
        keeps_order: leave the groups in the order of their first runs; else numbers go before texts, each from the least, and no value is last.
    """
    places: dict[Any, list[int]] = {}
    values: dict[Any, Any] = {}
    for at, subject in enumerate(subjects):
        value = key.of(subject)
        value = None if value is MISSING else value
        name = _hashable(value)
        values.setdefault(name, value)
        places.setdefault(name, []).append(at)
    names = places if keeps_order else sorted(places, key=lambda name: _place(values[name]))
    return [
        RunGroup(
            key.text,
            values[name],
            [f"{subjects[at].summary.project}/{subjects[at].summary.id}" for at in places[name]],
            {column.title: _in_group([column.values[at] for at in places[name]]) for column in columns},
        )
        for name in names
    ]


def print_groups(out: Output, key: str, groups: Sequence[RunGroup]) -> None:
    """Print a table of groups: where the terminal is narrow, the last columns are left out."""
    columns = [
        TableColumn(shorten(key, _LONGEST_TITLE, "..."), right=_are_numbers(groups)),
        TableColumn("runs", right=True),
    ]
    rows: list[list[Piece]] = [[cell(key, group.value), output.count(len(group.runs))] for group in groups]
    for place, title in enumerate(groups[0].columns if groups else ()):
        rank, short = 2 * place + 1, shorten(title, _LONGEST_TITLE, "...")
        found = [group.columns[title] for group in groups]
        if any(isinstance(value, Spread) for value in found):
            columns += [TableColumn(short, right=True, rank=rank)]
            columns += [TableColumn("min to max", right=True, rank=rank + 1)]
            for row, value in zip(rows, found, strict=True):
                row += _spread_cells(title, value)
        else:
            columns.append(TableColumn(short, rank=rank))
            for row, value in zip(rows, found, strict=True):
                row.append(cell(title, value))
    out.table(columns, rows)


def _spread_cells(title: str, value: Any) -> list[Piece]:
    if not isinstance(value, Spread):
        return [cell(title, value), ""]
    if value.count < 2:
        return [cell(title, value.mean), ""]
    mean, std, low, high = (cell(title, number) for number in (value.mean, value.std, value.min, value.max))
    return [f"{_text(mean)} ± {_text(std)}", f"{_text(low)} to {_text(high)}"]


def _in_group(values: Sequence[Any]) -> Spread | Any:
    """Return the spread of values that are numbers; else the one that all have, or how many there are."""
    there = [value for value in values if value is not None]
    if there and all(map(is_number, there)):
        return _spread([as_float(value) for value in there])
    one = {_hashable(value): value for value in there}
    if len(one) < 2:
        return next(iter(one.values()), None)
    return f"{len(one)} values"


def _spread(numbers: Sequence[float]) -> Spread:
    finite = [number for number in numbers if math.isfinite(number)]
    if not finite:
        return Spread(0)
    count, mean = len(finite), math.fsum(number / len(finite) for number in finite)
    std = math.hypot(*(number - mean for number in finite)) / math.sqrt(count - 1) if count > 1 else None
    return Spread(count, mean, std, min(finite), max(finite))


def _are_numbers(groups: Sequence[RunGroup]) -> bool:
    return all(group.value is None or is_number(group.value) for group in groups)


def _place(value: Any) -> tuple[int, float, str]:
    if value is None:
        return 2, 0.0, ""
    if is_number(value) and value == value:
        return 0, as_float(value), ""
    return 1, 0.0, str(value)


def _hashable(value: Any) -> Any:
    """Return what tells values apart: 1 and True, and lists too."""
    return (isinstance(value, bool), value) if isinstance(value, bool | int | float | str | None) else repr(value)


def _text(piece: Piece) -> str:
    return piece if isinstance(piece, str) else piece.text
