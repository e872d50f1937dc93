"""Runs: those of a directory, as a lazy sequence of their readers. Runs anywhere."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args, overload

from asynctrack._system.paths import expanded
from asynctrack._system.suggestions import suggests
from asynctrack.collection import run_frames
from asynctrack.collection.run_summary import RunSummary
from asynctrack.collection.selection import Selection, select
from asynctrack.collection.subject import RunSubject
from asynctrack.errors import AsynctrackError, InvalidSettings, NotARun, RunsLeftOut
from asynctrack.journal.manifest import UNREADABLE
from asynctrack.reading.damage import level_of_the_reader
from asynctrack.reading.history import History
from asynctrack.reading.reader import RunReader
from asynctrack.settings import DEFAULT_DIR

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

# Runs that a `repr` shows.
_SHOWN: Final = 3


class Runs(Sequence[RunReader]):
    """Holds the runs of a directory, as their readers. Runs are looked at when they are asked for: `runs()[0]` looks at one.

    Runs that cannot be read are left out: those that a newer asynctrack wrote, for one. Which runs there are is looked up once; make it anew to see those
    that have come since.

    Args:
        subjects: what is known of each run.
    """

    @suggests
    def __init__(self, subjects: Iterable[RunSubject]) -> None:
        self._found: list[RunSubject] = []
        self._more = iter(subjects)

    def __len__(self) -> int:
        return len(self._first(sys.maxsize))

    @overload
    def __getitem__(self, at: int) -> RunReader: ...
    @overload
    def __getitem__(self, at: slice) -> Runs: ...
    def __getitem__(self, at: int | slice) -> RunReader | Runs:
        """Return the reader of a run, or some of the runs."""
        if isinstance(at, slice):
            return Runs(self._first(_end_of(at))[at])
        return _reader(self._first(at + 1 if at >= 0 else sys.maxsize)[at])

    def __iter__(self) -> Iterator[RunReader]:
        for subject in self.subjects():
            with contextlib.suppress(NotARun):  # it was removed meanwhile
                yield _reader(subject)

    def __repr__(self) -> str:
        shown = ", ".join(subject.path.name for subject in self._first(_SHOWN + 1)[:_SHOWN])
        return f"<Runs {shown}{', ...' if len(self._found) > _SHOWN else ''}>" if shown else "<Runs: none>"

    def _repr_html_(self) -> str:
        from asynctrack.collection.html_repr import MOST_RUNS, runs_as_html  # for notebooks

        found = self._first(MOST_RUNS + 1)
        return runs_as_html(found[:MOST_RUNS], is_all=len(found) <= MOST_RUNS)

    def subjects(self) -> Iterator[RunSubject]:
        """Yield what expressions may ask about each run."""
        at = 0
        while len(self._first(at + 1)) > at:
            yield self._found[at]
            at += 1

    def summaries(self) -> Iterator[RunSummary]:
        """Yield what is known of each run without reading it."""
        return (subject.summary for subject in self.subjects())

    def to_pandas(self) -> pandas.DataFrame:
        """Return a pandas data frame with a row for each run. Each run is read once; what that finds is kept.

        The columns are `id`, `project`, `name`, `status`, `created_at`, `ended_at`, `duration` (seconds), `records`, `group` and `tags`, then `config.KEY` and
        `summary.KEY` with nested keys joined by `/`, then `first(METRIC)`, `last(METRIC)`, `min(METRIC)` and `max(METRIC)`. Each has one type, as
        `asynctrack.records.column_types` says, and its name is an expression.

        Raises:
            LibraryMissing: pandas is not installed.
        """
        found: pandas.DataFrame = run_frames.to_pandas(self.subjects())
        return found

    def to_polars(self) -> polars.DataFrame:
        """Return a polars data frame with the columns of `to_pandas`.

        Raises:
            LibraryMissing: polars is not installed.
        """
        found: polars.DataFrame = run_frames.to_polars(self.subjects())
        return found

    def to_arrow(self) -> pyarrow.Table:
        """Return a pyarrow table with the columns of `to_pandas`.

        Raises:
            LibraryMissing: pyarrow is not installed.
        """
        found: pyarrow.Table = run_frames.to_arrow(self.subjects())
        return found

    def _first(self, count: int) -> list[RunSubject]:
        """Look for the first runs, as many as are asked for; return all that were found so far."""
        self._found += islice(self._more, max(0, min(count, sys.maxsize) - len(self._found)))
        return self._found


@suggests
def runs(
    dir: str | os.PathLike[str] | None = None,
    *,
    where: str | None = None,
    sort: str | None = None,
    limit: int | None = None,
    history: History = "last",
) -> Runs:
    """Find runs, the newest first.

    Args:
        dir: the directory that holds the runs: of projects, or of one project. Without it, `asynctrack_runs`.
        where: a condition, such as `"lr < 1e-3 and max(val/acc) > 0.9 and tag == 'base'"`. Runs that do not meet it are left out.
        sort: a name or an aggregate, such as `"max(val/acc)"`; with `-` in front the greatest comes first. Runs that lack it come last.
        limit: the most runs.
        history: of their metrics: "last" leaves out what was logged again after a resume; "all" does not.

    Returns:
        A lazy sequence of `RunReader`.

    Raises:
        InvalidSettings: an argument is none that is taken; there is no such directory.
        InvalidExpression: the condition or the order cannot be parsed.
    """
    directory = expanded(DEFAULT_DIR if dir is None else dir)
    problems = []
    if dir is not None and not directory.is_dir():
        problems.append(f"dir must be a directory that holds runs; there is none at {os.fspath(dir)!r:.200}")
    texts: dict[str, tuple[object, str]] = {"where": (where, "lr < 1e-3"), "sort": (sort, "-max(val/acc)")}
    for name, (given, such_as) in texts.items():
        if given is not None and not isinstance(given, str):
            problems.append(f"{name} must be a text, such as {such_as!r}; got {given!r:.80}")
    if limit is not None and (not isinstance(limit, int) or limit < 0):
        problems.append(f"limit must be a whole number from 0 on; got {limit!r:.80}")
    if history not in get_args(History):
        problems.append(f"history must be 'all' or 'last'; got {history!r:.80}")
    if problems:
        raise InvalidSettings(problems)
    found = select(directory, where=where, sort=sort, history=history)
    return Runs(islice(_readable(found, directory), None if limit is None else min(limit, sys.maxsize)))


def _reader(subject: RunSubject) -> RunReader:
    return RunReader(subject.path, warns=True)


def _readable(found: Selection, directory: Path) -> Iterator[RunSubject]:
    """Yield the runs that have a reader, and warn of the others at the end."""
    newer = unreadable = 0
    for subject in found:
        if subject.summary.status == "unreadable":
            newer += 1
        elif subject.summary.status == "damaged" and not _has_reader(subject):
            unreadable += 1
        else:
            yield subject
    if newer or unreadable or found.unreadable:
        left_out = RunsLeftOut(directory, private=found.unreadable, newer=newer, unreadable=unreadable)
        warnings.warn(left_out, stacklevel=level_of_the_reader())


def _has_reader(subject: RunSubject) -> bool:
    with contextlib.suppress(AsynctrackError, OSError, *UNREADABLE):
        RunReader(subject.path)
        return True
    return False


def _end_of(part: slice) -> int:
    """Return how many runs have to be known for a part of them."""
    start, stop, step = part.start or 0, part.stop, part.step or 1
    return stop if stop is not None and stop >= 0 and start >= 0 and step > 0 else sys.maxsize
