"""HTML repr: runs as a small table for notebooks: what they are, what differs in their configs, and their last numbers. Runs anywhere."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from asynctrack.collection.differences import differing, flat
from asynctrack.collection.run_summary import RunSummary
from asynctrack.collection.subject import RunSubject
from asynctrack.errors import AsynctrackError
from asynctrack.journal.manifest import UNREADABLE
from asynctrack.reading.html_repr import BUCKETS, sparkline, table, text
from asynctrack.reading.reader import RunReader

# What a cell's output has room for. Arbitrary: `asynctrack ls` and the page have all.
MOST_RUNS: Final = 20
_MOST_SETTINGS: Final = 4
_MOST_METRICS: Final = 3
# Records that are read for sparklines, of all runs together: a third of a second.
_MOST_RECORDS: Final = 1_000_000


def runs_as_html(subjects: Sequence[RunSubject], *, is_all: bool) -> str:
    """Return a table with a row for each run.

    Args:
        subjects: the runs that are shown.
        is_all: there are no others.
    """
    if not subjects:
        return "<div>no runs</div>"
    summaries = [subject.summary for subject in subjects]
    configs = [flat(summary.config) for summary in summaries]
    settings = differing(configs)[:_MOST_SETTINGS]
    metrics = _frequent(summaries)[:_MOST_METRICS]
    lines = _sparklines(summaries, metrics[0]) if metrics else []
    columns = ["run", "status", "created", "records", *settings, *metrics[:1], *([""] if lines else []), *metrics[1:]]
    rows = [
        [
            f"{text(summary.project)}/{text(summary.id)}",
            text(summary.status),
            text(summary.created_at[:16].replace("T", " ")),
            text(summary.records),
            *_cells(config, settings),
            *_cells(summary.last, metrics[:1]),
            *lines[at : at + 1],
            *_cells(summary.last, metrics[1:]),
        ]
        for at, (summary, config) in enumerate(zip(summaries, configs, strict=True))
    ]
    return f"<div>{table(columns, rows)}{'' if is_all else 'and more'}</div>"


def _cells(values: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    return ["" if values.get(name) is None else text(values[name]) for name in names]


def _frequent(summaries: Sequence[RunSummary]) -> list[str]:
    """Return the metrics, those first that most runs have."""
    counts = Counter(name for summary in summaries for name in summary.last)
    return [name for name, _ in counts.most_common()]


def _sparklines(summaries: Sequence[RunSummary], key: str) -> list[str]:
    """Return the course of a metric in each run, as long as there are not too many records to read."""
    left = _MOST_RECORDS
    found = []
    for summary in summaries:
        left -= summary.records
        found.append(_sparkline(summary.path, key) if left >= 0 and key in summary.last else "")
    return found


def _sparkline(path: str, key: str) -> str:
    with contextlib.suppress(AsynctrackError, OSError, *UNREADABLE):  # a run that is damaged is shown without
        return sparkline(RunReader(path).curve(key, buckets=BUCKETS))
    return ""
