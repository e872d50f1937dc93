"""Run table: runs in a line each, as wide as the terminal: names and values go before counts and sizes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple

from asynctrack._system.wording import counted
from asynctrack.cli import output
from asynctrack.cli.hosts import count_hosts
from asynctrack.cli.output import STATE_STYLES, Output, Piece, Styled, TableColumn, width_of
from asynctrack.cli.run_values import ValueColumn
from asynctrack.collection.run_summary import RunSummary
from asynctrack.collection.short_ids import short_ids
from asynctrack.reading import catalog

BEHIND: Final = "!"
DROPPED: Final = "*"

# Characters of a run's name, also without a terminal. Arbitrary; `--json` and `show` have all of it.
_LONGEST_NAME: Final = 60
# What a name has at a terminal before other columns get room. Arbitrary.
_NAME_ROOM: Final = 20
_GAP: Final = 2
# Room in which no other column is looked for.
_NO_ROOM: Final = 5
_HINTS: Final = {
    "lost": "its process and its worker have died: `asynctrack sync` recovers what they left",
    "elsewhere": "it was started on another machine or by another user, and may still run there",
}


class _Cells(NamedTuple):
    """A column of the table, with its cells; `place` is where it stands among those that found room."""

    column: TableColumn
    cells: list[Piece]
    place: int = 0

    def width(self) -> int:
        """Return the width of its widest cell, or of its title."""
        texts = (piece if isinstance(piece, str) else piece.text for piece in self.cells)
        return max(map(width_of, chain([self.column.title], texts)))


def print_runs(
    out: Output, found: Sequence[RunSummary], labels: Sequence[str], values: Iterable[ValueColumn], *, all_values: bool
) -> None:
    """Print a table of runs.

    Args:
        out: where to.
        found: the runs.
        labels: what each is called by.
        values: columns with values, in the order in which they get room.
        all_values: every one of them has been asked for, and only counts and sizes may be left out.
    """
    first = list(_first(found, labels))
    if all_values:
        shown = [_Cells(value.column(), value.cells()) for value in values]
        columns = [*first, *_fitting(out, [*first, *shown], _counts(found), shown=shown)]
    else:
        made = (_Cells(value.column(), value.cells(), place=1 + value.is_metric) for value in values)
        columns = [*first, *sorted(_fitting(out, first, chain(made, _counts(found))), key=lambda one: one.place)]
    out.table([one.column for one in columns], zip(*(one.cells for one in columns), strict=True))


def labels_of(out: Output, found: Sequence[RunSummary], directory: Path) -> list[str]:
    """Return what runs are called by: at a terminal by no more than tells them apart, and from others in a directory."""
    if out.width is None:
        return [f"{run.project}/{run.id}" for run in found]
    short = short_ids(
        {path: path.name for path in (*catalog.runs_under(directory), *(Path(run.path) for run in found))}.values()
    )
    several = len({run.project for run in found}) > 1
    return [f"{run.project}/{short.get(run.id, run.id)}" if several else short.get(run.id, run.id) for run in found]


def print_hints(out: Output, found: Sequence[RunSummary]) -> None:
    """Print what the marks mean, and a hint for each state that needs attention."""
    states = {run.status for run in found}
    hints = [f"{state}: {hint}" for state, hint in _HINTS.items() if state in states]
    hints += [f"damaged: {run.project}/{run.id}: {run.problem}" for run in found if run.problem]
    if behind := [run for run in found if run.behind]:
        hints.append(_describe_behind(behind))
    if dropped := [run for run in found if run.dropped]:
        hints.append(_describe_dropped(dropped))
    for hint in hints:
        out.line(Styled(hint, "dim"))


def mark(run: RunSummary) -> str:
    """Return what stands behind a run's status: a mark where a backend is behind, and one where records were dropped."""
    marks = BEHIND * bool(run.behind) + DROPPED * bool(run.dropped)
    return marks and f" {marks}"


def _first(found: Sequence[RunSummary], labels: Sequence[str]) -> Iterator[_Cells]:
    """Yield the columns that every table has."""
    yield _Cells(TableColumn("run"), list(labels))
    if any(run.name != run.id for run in found):
        names = [output.shorten(run.name, _LONGEST_NAME, "...") if run.name != run.id else "" for run in found]
        yield _Cells(TableColumn("name", cut=True), list(names))
    yield _Cells(
        TableColumn("status"), [Styled(run.status + mark(run), STATE_STYLES.get(run.status, "")) for run in found]
    )
    if any(run.hosts for run in found):
        yield _Cells(TableColumn("hosts"), [count_hosts(run.hosts) for run in found])
    if any(len(run.writers) > 1 for run in found):
        yield _Cells(TableColumn("writers"), [_writers(run) for run in found])
    now = datetime.now(UTC)
    yield _Cells(TableColumn("age", right=True), [_age(run, now) for run in found])


def _counts(found: Sequence[RunSummary]) -> Iterator[_Cells]:
    """Yield the columns that are shown where there is room."""
    yield _Cells(TableColumn("records", right=True), [output.short_count(run.records) for run in found], 3)
    steps: list[Piece] = ["-" if run.step is None else output.short_count(run.step) for run in found]
    yield _Cells(TableColumn("step", right=True), steps, 3)
    yield _Cells(TableColumn("size", right=True), [output.size(run.bytes) for run in found], 3)
    yield _Cells(TableColumn("rate", right=True), [output.rate(run.records_per_s) for run in found], 3)


def _fitting(
    out: Output, taken: Iterable[_Cells], more: Iterable[_Cells], *, shown: Sequence[_Cells] = ()
) -> Iterator[_Cells]:
    """Yield the columns that have room beside others; `shown` come before them, with or without."""
    yield from shown
    if out.width is None:
        yield from more
        return
    widths = [min(one.width(), _NAME_ROOM) if one.column.cut else one.width() for one in taken]
    room = out.width - sum(widths) - _GAP * len(widths)
    for one in more:
        if room < _NO_ROOM:
            return
        width = one.width()
        if width <= room:
            room -= width + _GAP
            yield one


def _age(run: RunSummary, now: datetime) -> str:
    try:
        seconds = (now - datetime.fromisoformat(run.created_at)).total_seconds()
    except (TypeError, ValueError, OverflowError):  # malformed
        return "-"
    return output.duration(max(0, round(seconds)))


def _writers(run: RunSummary) -> str:
    """Return the number of writers, and how many of them have not finished well."""
    wrong = sum(status not in ("running", "finished") for status in run.writers.values())
    return output.short_count(len(run.writers)) + (f" ({wrong} failed)" if wrong else "")


def _describe_behind(behind: list[RunSummary]) -> str:
    """Describe which backends of the newest run lack records, and how many more such runs there are."""
    first, *more = behind
    of = ", ".join(f"{name} ({why})" if why else name for name, why in first.behind.items())
    others = f", and {counted(len(more), 'more run')}" if more else ""
    return f"{BEHIND} behind: {first.project}/{first.id}: {of}{others}: `asynctrack sync` delivers the rest, or says what it needs"


def _describe_dropped(dropped: list[RunSummary]) -> str:
    """Describe how many records the newest run lacks, and how many more such runs there are."""
    first, *more = dropped
    of = ", ".join(f"{output.count(count)} {why}" for why, count in first.dropped.items())
    others = f", and {counted(len(more), 'more run')}" if more else ""
    return f"{DROPPED} dropped records: {first.project}/{first.id}: {of}{others}: `asynctrack show` says more"
