"""W&B's aggregates: compute the least, the greatest, ...

of a metric over all rows of a run, across interruptions. Runs where the sink does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any


def kinds_of(summary: object) -> list[str]:
    """Split `define_metric`'s `summary=` into the aggregates that it names."""
    return [kind.strip().lower() for kind in summary.split(",")] if isinstance(summary, str) else []


class Aggregates:
    """Computes the least, the greatest, ...

    of metrics over all their rows, as `define_metric(summary=)` asks for them.

    W&B's own aggregates begin again when a run is resumed. These go on: they are saved with the cursor.

    Args:
        wanted: the kinds by metric; a name may end in `*`.
        state: the attribute `state` of an earlier object.

    Attributes:
        state: all aggregates by metric, as JSON can hold them.
    """

    def __init__(self, wanted: Mapping[str, Iterable[str]], state: dict[str, dict[str, Any]] | None = None) -> None:
        self._exact = {name: tuple(kinds) for name, kinds in wanted.items() if not name.endswith("*")}
        self._prefixes = {name[:-1]: tuple(kinds) for name, kinds in wanted.items() if name.endswith("*")}
        self.state: dict[str, dict[str, Any]] = state or {}
        self._changed: set[str] = set()

    def want(self, name: str, kinds: Iterable[str]) -> None:
        """Aggregate a metric from the next row on."""
        if name.endswith("*"):
            self._prefixes[name[:-1]] = tuple(kinds)
        else:
            self._exact[name] = tuple(kinds)

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row."""
        names = row if self._prefixes else self._exact.keys() & row.keys()
        for name in names:
            value = row[name]
            is_number = isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
            if is_number and self._kinds(name):
                self._take(self.state.setdefault(name, {}), value)
                self._changed.add(name)

    def fresh(self) -> dict[str, dict[str, Any]]:
        """Return the aggregates that have changed since the last call, as the summary has them."""
        changed, self._changed = self._changed, set()
        return self._shown(changed)

    def all(self) -> dict[str, dict[str, Any]]:
        """Return all aggregates."""
        self._changed.clear()
        return self._shown(self.state)

    def _kinds(self, name: str) -> tuple[str, ...]:
        found = self._exact.get(name)
        if found is None:
            found = next((kinds for prefix, kinds in self._prefixes.items() if name.startswith(prefix)), ())
        return found

    def _shown(self, names: Iterable[str]) -> dict[str, dict[str, Any]]:
        kinds = {name: [kind for kind in self._kinds(name) if kind in self.state[name]] for name in sorted(names)}
        return {name: {kind: self.state[name][kind] for kind in asked} for name, asked in kinds.items() if asked}

    @staticmethod
    def _take(state: dict[str, Any], value: float) -> None:
        count = state.get("count", 0)
        state["min"] = min(state.get("min", value), value)
        state["max"] = max(state.get("max", value), value)
        state.setdefault("first", value)
        state["last"] = value
        state["mean"] = (state.get("mean", 0.0) * count + value) / (count + 1)
        state["count"] = count + 1
