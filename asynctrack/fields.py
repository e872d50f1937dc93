"""Fields: a run's config or summary, a dict whose changes are recorded. Runs in the caller."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


class Fields(dict[str, Any]):
    """A run's config or summary: a dict whose changes are recorded. Values are recorded as they are when they are set.

    A name that a dict has no attribute of can be written as one: `config.lr`.

    Args:
        content: what is there already.
        changed: called with each change.
        missing: called with the name of what is not set; returns a value for it, or raises `KeyError`.
    """

    def __init__(
        self,
        content: Mapping[str, Any],
        changed: Callable[[dict[str, Any]], object],
        missing: Callable[[str], Any] | None = None,
    ) -> None:
        super().__init__(content)
        object.__setattr__(self, "_changed", changed)
        object.__setattr__(self, "_missing", missing)

    def __missing__(self, key: str) -> Any:
        if self._missing is None:
            raise KeyError(key)
        return self._missing(key)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # what a library looks for
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"{name!r} is not set") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def get(self, key: str, default: Any = None) -> Any:
        """What is set, or found elsewhere; else the default."""
        try:
            return self[key]
        except KeyError:
            return default

    def __setitem__(self, key: str, value: Any) -> None:
        self.update({key: value})

    def update(self, *args: Any, allow_val_change: object = None, **kwargs: Any) -> None:
        """Set several at once.

        Args:
            args: as those of `dict.update`; or what `argparse` has parsed.
            allow_val_change: ignored: W&B asks for leave to change a value.
            kwargs: as those of `dict.update`.
        """
        fresh = dict(*(vars(given) if type(given).__name__ == "Namespace" else given for given in args), **kwargs)
        super().update(fresh)
        if fresh:
            self._changed(fresh)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Set it if it is not set."""
        if key not in self:
            self[key] = default
        return self[key]

    def as_dict(self) -> dict[str, Any]:
        """A plain copy."""
        return dict(self)

    def __ior__(self, other: Any) -> Fields:  # type: ignore[override,misc]  # dict's own does not call update
        self.update(other)
        return self
