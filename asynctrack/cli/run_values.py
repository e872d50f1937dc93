"""Run values: the columns of a table of runs: names and aggregates that were asked for, or else what differs in the config, and last values."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

from asynctrack.cli import output
from asynctrack.cli.options import KeyFilter
from asynctrack.cli.output import Piece, Styled, TableColumn, shorten
from asynctrack.collection.differences import differing, flat
from asynctrack.collection.subject import RunSubject
from asynctrack.records.expressions import MISSING, Term, spelled, terms

# Characters of a cell and of a title, at most. Arbitrary: `--json` and `show` have all.
_LONGEST_CELL: Final = 24
_LONGEST_TITLE: Final = 24
# Columns of each kind that are chosen where none was asked for, and there is room. Arbitrary.
_MOST_CHOSEN: Final = 8
_SECONDS: Final = frozenset({"age", "duration"})

# A part of a list of names with wildcards, alone or in an aggregate: backquotes and quotes take them as they are.
_PATTERN: Final = re.compile(r"\s*(?:(?P<how>[a-z]+)\s*\(\s*)?(?P<pattern>[^\s()'\"`]*[*?\[][^\s()'\"`]*)\s*\)?\s*")
_PARTS: Final = re.compile(r"(?:`[^`]*`|'[^']*'|\"[^\"]*\"|\([^)]*\)|[^,])+")


class ValueColumn:
    """A column with a value of each run.

    Args:
        title: above it.
        values: one for each run; None where it has none.
        is_metric: it is the last value of a metric.

    Attributes:
        right: whether it has numbers, and nothing else.
    """

    def __init__(self, title: str, values: Sequence[Any], *, is_metric: bool = False) -> None:
        self.title = title
        self.is_metric = is_metric
        self.values = values
        numbers = [value for value in values if value is not None]
        self.right = bool(numbers) and all(is_number(value) for value in numbers)

    def column(self, rank: int = 0) -> TableColumn:
        """Return its place in a table."""
        return TableColumn(shorten(self.title, _LONGEST_TITLE, "..."), right=self.right, rank=rank)

    def cells(self) -> list[Piece]:
        """Return its cells."""
        return [cell(self.title, value) for value in self.values]


def asked(text: str, subjects: Sequence[RunSubject]) -> list[Term]:
    """Parse the names and aggregates of `--columns`; those with `*`, `?` or `[]` stand for each metric that fits.

    Raises:
        InvalidExpression: they cannot be parsed.
    """
    if not re.search(r"[*?\[]", text):
        return terms(text)
    parts = [part for whole in _PARTS.findall(text) for part in _expanded(whole, subjects)]
    return terms(", ".join(parts)) if parts else []


def column_of(term: Term, subjects: Sequence[RunSubject]) -> ValueColumn:
    """Make the column of a name or an aggregate."""
    return ValueColumn(term.text, [_or_none(term.of(subject)) for subject in subjects])


def chosen(subjects: Sequence[RunSubject], keys: KeyFilter | None) -> Iterator[ValueColumn]:
    """Choose columns: by turns a value of the config that is not the same in all runs, and the last value of a metric.

    Args:
        subjects: the runs.
        keys: metrics whose last values are shown; all where it is None.
    """
    configs = [flat(subject.summary.config) for subject in subjects]
    lasts = [subject.summary.last for subject in subjects]
    settings = iter(differing(configs)[:_MOST_CHOSEN])
    metrics = iter(_frequent(lasts, keys)[:_MOST_CHOSEN])
    while True:
        setting, metric = next(settings, None), next(metrics, None)
        if setting is None and metric is None:
            return
        if setting is not None:
            yield ValueColumn(setting, [values.get(setting) for values in configs])
        if metric is not None:
            yield ValueColumn(metric, [values.get(metric) for values in lasts], is_metric=True)


def cell(title: str, value: Any) -> Piece:
    """Format a value of a run."""
    if value is None:
        return Styled("-", "dim")
    if is_number(value):
        if title in _SECONDS:
            return output.duration(value)
        return output.size(value) if title == "size" else output.number(value, 4)
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        value = ", ".join(value)
    return output.brief(value, _LONGEST_CELL)


def is_number(value: Any) -> bool:
    """Return True for what can be computed with."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _or_none(value: Any) -> Any:
    return None if value is MISSING else value


def _expanded(part: str, subjects: Sequence[RunSubject]) -> Iterator[str]:
    found = _PATTERN.fullmatch(part)
    if found is None:
        yield part
        return
    names = dict.fromkeys(name for subject in subjects for name in subject.metrics)
    for name in names:
        if fnmatchcase(name, found["pattern"]):
            yield f"{found['how'] or 'last'}({spelled(name)})"


def _frequent(lasts: Sequence[dict[str, float]], keys: KeyFilter | None) -> list[str]:
    """Return the metrics that most runs have first, else in the order in which they came."""
    counts = Counter(name for last in lasts for name in last if keys is None or name in keys)
    return [name for name, _ in counts.most_common()]
