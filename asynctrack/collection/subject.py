"""Subject: what expressions may ask about a run; each answer is looked up when it is first asked for. Runs anywhere."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from asynctrack.collection.metric_stats import MetricStats, stats_of
from asynctrack.collection.record_count import RecordCount
from asynctrack.collection.run_index import RunIndex
from asynctrack.collection.run_summary import RunLook, RunSummary, look_at, seconds_between
from asynctrack.journal import environment_file
from asynctrack.journal.environment_file import Environment
from asynctrack.reading.history import History
from asynctrack.records.codec import flatten
from asynctrack.records.expressions import MISSING, Goal, How
from asynctrack.worker.listing import Worker


class RunSubject:
    """A run, as expressions see it.

    Args:
        path: its directory.
        workers: from `run_state.other_workers`.
        history: of its metrics.
        index: where what was found out before is kept.
        seen: an earlier look at the run, where that is recent enough.
        count: counts its records, where it is looked at.
    """

    def __init__(
        self,
        path: str | Path,
        workers: Sequence[Worker],
        history: History = "last",
        index: RunIndex | None = None,
        *,
        seen: RunLook | None = None,
        count: RecordCount | None = None,
    ) -> None:
        self._path = os.fspath(path)
        self._workers = workers
        self._history = history
        self._index = index
        self._seen = seen
        self._count = count

    def __repr__(self) -> str:
        return f"<RunSubject {self._path}>"

    @cached_property
    def path(self) -> Path:
        """Return its directory."""
        return Path(self._path)

    @property
    def history(self) -> History:
        """Return which history its metrics have."""
        return self._history

    @property
    def summary(self) -> RunSummary:
        """Return what is known of the run without reading it."""
        return self.look.summary

    @cached_property
    def look(self) -> RunLook:
        """Return the same, and whether it is final."""
        if self._seen is not None:
            return self._seen
        known = None if self._index is None else self._index.summary(self._path)
        return self._look() if known is None else RunLook(known, True)

    @cached_property
    def metrics(self) -> dict[str, MetricStats]:
        """Return the stats of its metrics; the run is read for them, unless they are known."""
        known = None if self._index is None else self._index.stats(self._path, self._history)
        if known is not None:
            return known
        before = None if self._index is None else self._index.look(self._path)
        found = stats_of(self.path, self._history)
        if before is not None:
            before.keep_stats(self._history, found)
        return found

    def _look(self) -> RunLook:
        """Look at the run."""
        before = None if self._index is None else self._index.look(self._path)
        found = look_at(self.path, self._workers, self._count)
        if before is not None and found.is_final:
            before.keep_summary(found.summary)
        return found

    @cached_property
    def environment(self) -> Environment:
        """Return where the run comes from."""
        return environment_file.load(self.path) or Environment()

    def field(self, name: str) -> Any:
        """Return what is known of the run by a built-in name; MISSING where it has no such thing."""
        summary = self.summary
        if name in _SAME:
            found = getattr(summary, name)
            return MISSING if found is None else found
        found = _FIELDS[name](summary) if name in _FIELDS else None
        return MISSING if found is None else found

    def config(self, key: str) -> Any:
        """Return a value of the config; names that are nested are joined by `/` or by dots."""
        return nested_value(self.summary.config, key)

    def summary_value(self, key: str) -> Any:
        """Return a value of the summary."""
        return nested_value(self.summary.summary, key)

    def metric(self, key: str, how: How) -> Any:
        """Return the first, last, least, greatest or mean number of a metric."""
        found = self.metrics.get(key)
        value = None if found is None else found.value(how)
        return MISSING if value is None else value

    def goal(self, key: str) -> Goal | None:
        """Return which way of a metric is better, by its name or by the longest pattern that fits it."""
        return goal_of(self.summary.goals, key)

    def known(self) -> Collection[str]:
        """Return the names of the run's config, summary and metrics, for suggestions."""
        return {*dict(flatten(self.summary.config)), *dict(flatten(self.summary.summary)), *self.metrics}


def nested_value(values: Mapping[str, Any], key: str) -> Any:
    """Return a value by its name, or by those above it and its own, joined by `/` or by dots; MISSING where there is none."""
    if key in values:
        return values[key]
    flat = dict(flatten(values))
    return flat.get(key, flat.get(key.replace(".", "/"), MISSING))


def goal_of(goals: Mapping[str, Goal], key: str) -> Goal | None:
    """Return which way of a metric is better, by its name or by the longest pattern that fits it."""
    patterns = sorted((name for name in goals if name.endswith("*") and key.startswith(name[:-1])), key=len)
    return next((goals[name] for name in (key, *reversed(patterns)) if name in goals), None)


def age_s(summary: RunSummary) -> float | None:
    """Return the seconds since a run was created."""
    return seconds_between(summary.created_at, datetime.now(UTC).isoformat())


def duration_s(summary: RunSummary) -> float | None:
    """Return for how many seconds a run has gone on."""
    if summary.ended_at is None:
        return age_s(summary) if summary.status == "running" else None
    return seconds_between(summary.created_at, summary.ended_at)


_SAME: Final = frozenset({
    "step", "status", "name", "id", "project", "group", "job_type", "notes", "records", "created_at", "ended_at", "error", "host", "user", "commit",
})  # fmt: skip
_FIELDS: Final[dict[str, Any]] = {
    "tag": lambda summary: summary.tags,
    "size": lambda summary: summary.bytes,
    "age": age_s,
    "duration": duration_s,
}
