"""Choice: decide which of a run's records are shown. Runs in the worker."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from asynctrack.backends.metric_selection import MetricSelection, scope_of
from asynctrack.records.codec import Array, Record, flatten

NOTHING: Final = "nothing that a line can hold"
DOWNSAMPLED: Final = "downsampled"

# Scopes that are shown apart, and records' sets of names that are remembered. Arbitrary: more than people read.
_MOST_SCOPES: Final = 100
_MOST_SHAPES: Final = 1_000
_REST: Final = "..."


class Chosen(NamedTuple):
    """A record to be shown, its scope, and the first record of that scope."""

    scope: str
    record: Record
    first: Record


class RecordFilter:
    """Chooses the records to show.

    In each scope these lie far enough apart in steps, and of those only the last in each stretch of time is shown.

    Args:
        keys: the metrics to show.
        every: steps between two records, None for any distance.
        pace_s: seconds between two records; 0 for all.
        blank: whether a record counts although none of its values can be shown.
    """

    def __init__(self, keys: MetricSelection, every: int | None, pace_s: float, *, blank: bool = False) -> None:
        self._keys = keys
        self._nowhere = "" if blank else None
        self._every = every
        self._pace_s = pace_s
        self._shapes: dict[tuple[str, ...], str | None] = {}
        self._steps: dict[str, int] = {}
        self._shown_at: dict[str, float] = {}
        self._firsts: dict[str, Record] = {}
        self._waiting: dict[str, Chosen] = {}

    def take(self, records: Iterable[Record]) -> tuple[list[Chosen], dict[str, int]]:
        """Take records, and return those to be shown by now.

        Returns:
            These records, and how many of the records taken are not among them, by reason.
        """
        before, nothing, total = set(map(id, self._waiting.values())), 0, 0
        chosen = []
        for record in records:
            total += 1
            scope = self._scope(record.data)
            if scope is None:
                nothing += 1
            elif self._every is None or self._is_far(scope, record.step):
                one = Chosen(scope, record, self._firsts.setdefault(scope, record))
                if self._pace_s == 0:
                    chosen.append(one)
                else:
                    self._waiting[scope] = one
        chosen += self._due()
        fresh = sum(id(one) not in before for one in chosen)
        skipped = {NOTHING: nothing, DOWNSAMPLED: total - nothing - fresh}
        return chosen, {reason: count for reason, count in skipped.items() if count}

    def rest(self) -> list[Chosen]:
        """Return the records that still wait at the run's end."""
        return [self._waiting[scope] for scope in self._firsts if scope in self._waiting]

    def values(self, record: Record) -> dict[str, Any]:
        """Return the values of a record that are shown. Arrays are not."""
        return {key: value for key, value in flatten(record.data) if key in self._keys and _can_be_shown(value)}

    def _due(self) -> list[Chosen]:
        now = time.monotonic()
        due = [one for one in self.rest() if now - self._shown_at.get(one.scope, -math.inf) >= self._pace_s]
        for one in due:
            del self._waiting[one.scope]
            self._shown_at[one.scope] = now
        return due

    def _is_far(self, scope: str, step: int) -> bool:
        last = self._steps.get(scope)
        if last is not None and self._every is not None and abs(step - last) < self._every:
            return False
        self._steps[scope] = step
        return True

    def _scope(self, data: Mapping[str, Any]) -> str | None:
        """Return a record's scope, None where there is nothing to show.

        The answer is remembered by the record's names, since finding it takes longer than all else.
        """
        shape = tuple(data)
        if shape in self._shapes:
            return self._shapes[shape]
        names = [key for key, value in flatten(data) if key in self._keys and _can_be_shown(value)]
        scope = scope_of(names) if names else self._nowhere
        if len(self._shapes) == _MOST_SHAPES:
            self._shapes.clear()
        if scope is not None and scope not in self._firsts and len(self._firsts) >= _MOST_SCOPES:
            scope = _REST
        if not any(isinstance(value, Mapping) for value in data.values()):
            self._shapes[shape] = scope
        return scope


def _can_be_shown(value: object) -> bool:
    return not isinstance(value, Array | Mapping)  # `flatten` leaves only empty mappings
