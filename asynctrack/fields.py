"""Fields: a run's config or summary, a dict whose changes are recorded. Runs in the caller."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


class Fields(dict[str, Any]):
    """A run's config or summary: a dict whose changes are recorded. Values are recorded as they are when they are set."""

    def __init__(self, content: Mapping[str, Any], changed: Callable[[dict[str, Any]], object]) -> None:
        super().__init__(content)
        self._changed = changed

    def __setitem__(self, key: str, value: Any) -> None:
        self.update({key: value})

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set several at once."""
        fresh = dict(*args, **kwargs)
        super().update(fresh)
        if fresh:
            self._changed(fresh)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Set it if it is not set."""
        if key not in self:
            self[key] = default
        return self[key]

    def __ior__(self, other: Any) -> Fields:  # type: ignore[override,misc]  # dict's own does not call update
        self.update(other)
        return self
