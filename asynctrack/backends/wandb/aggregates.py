"""W&B's aggregates: the least, the greatest, ... of a metric over all rows of a run, also where it was interrupted. Runs where the sink does."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any


def kinds_of(summary: object) -> list[str]:
    """The aggregates in `define_metric`'s `summary=`."""
    return [kind.strip().lower() for kind in summary.split(",")] if isinstance(summary, str) else []


class Aggregates:
    """The least, the greatest, ... of metrics over all their rows, as `define_metric(summary=)` asks for them.

    W&B's own begin anew when a run is resumed, these do not: they are kept with the cursor.

    Args:
        wanted: the kinds by metric; a name may end in `*`.
        state: what `state` was.
    """

    def __init__(self, wanted: Mapping[str, Iterable[str]], state: dict[str, dict[str, Any]] | None = None) -> None:
        self._exact = {name: tuple(kinds) for name, kinds in wanted.items() if not name.endswith("*")}
        self._prefixes = {name[:-1]: tuple(kinds) for name, kinds in wanted.items() if name.endswith("*")}
        self.state: dict[str, dict[str, Any]] = state or {}
        self._changed: set[str] = set()

    def want(self, name: str, kinds: Iterable[str]) -> None:
        """Take rows into account that come from now on."""
        if name.endswith("*"):
            self._prefixes[name[:-1]] = tuple(kinds)
        else:
            self._exact[name] = tuple(kinds)

    def add(self, row: Mapping[str, Any]) -> None:
        """Take a row into account."""
        names = row if self._prefixes else self._exact.keys() & row.keys()
        for name in names:
            value = row[name]
            is_number = isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
            if is_number and self._kinds(name):
                self._take(self.state.setdefault(name, {}), value)
                self._changed.add(name)

    def fresh(self) -> dict[str, dict[str, Any]]:
        """Those that have changed since the last time, as the summary has them."""
        changed, self._changed = self._changed, set()
        return self._shown(changed)

    def all(self) -> dict[str, dict[str, Any]]:
        """All of them."""
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
