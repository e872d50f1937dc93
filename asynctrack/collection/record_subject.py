"""Record subject: what expressions may ask about a run at one of its records, as the records come. Runs anywhere."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from asynctrack.client import run_state
from asynctrack.collection.metric_stats import NumberTally
from asynctrack.collection.run_summary import bytes_of, seconds_between
from asynctrack.collection.subject import RunSubject
from asynctrack.reading import catalog
from asynctrack.records.codec import Record
from asynctrack.records.expressions import MISSING, Goal, How
from asynctrack.records.plain import flat

# What an ended run has and a running one has not.
_OF_THE_END: Final = frozenset({"ended_at", "error"})


class RunAtRecord:
    """A run at the last of the records that it has been given.

    Attributes:
        record: the last one; None before the first.
        status: of the run, as its user sets it.
    """

    def __init__(self, run: Path, folded: Collection[str] = ()) -> None:
        """Begin before the first record.

        Args:
            run: its directory.
            folded: metrics of which aggregates are asked for.
        """
        self.record: Record | None = None
        self.status = "running"
        self._run = run
        self._values: Mapping[str, Any] = {}
        self._tallies = {key: NumberTally() for key in folded}
        self._count = 0
        self._known = RunSubject(run, ())

    def take(self, record: Record) -> None:
        """Go on to the next record."""
        self.record = record
        self._count += 1
        self._values = flat(record.data)
        for key, tally in self._tallies.items():
            value = self._values.get(key)
            if isinstance(value, int | float):
                tally.add(record.step, value)

    def value(self, key: str) -> Any:
        """Return what the record has by a flat name."""
        return self._values.get(key, MISSING)

    def field(self, name: str) -> Any:
        """Return what is known of the run at this record by a built-in name."""
        if name == "status":
            return self.status
        if name == "step":
            return MISSING if self.record is None else self.record.step
        if name == "records":
            return self._count
        if name == "size":
            return bytes_of(self._run)
        if name in ("age", "duration"):
            return seconds_between(catalog.created_at(self._run), datetime.now(UTC).isoformat())
        if name in _OF_THE_END:  # looked up anew
            return RunSubject(self._run, run_state.other_workers()).field(name)
        return self._known.field(name)

    def config(self, key: str) -> Any:
        """Return a value of the config, as it was when one was first asked for."""
        return self._known.config(key)

    def summary_value(self, key: str) -> Any:
        """Return a value of the summary, likewise."""
        return self._known.summary_value(key)

    def metric(self, key: str, how: How) -> Any:
        """Return the first, last, least, greatest or mean number of a metric among the records so far."""
        tally = self._tallies.get(key)
        value = tally.stats().value(how) if tally is not None and tally.count else None
        return MISSING if value is None else value

    def goal(self, key: str) -> Goal | None:
        """Return which way of a metric is better."""
        return self._known.goal(key)

    def known(self) -> Collection[str]:
        """Return the names that the record has."""
        return self._values.keys()
