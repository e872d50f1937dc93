"""Config of a run, with W&B's rule: a value that is set stays, unless a change is explicitly allowed."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping
from typing import Any, Final

from asynctrack.client.banner import cell
from asynctrack.client.config_sources import as_config
from asynctrack.wandb.errors import ConfigError

# Keys of an entry in W&B's own config files.
_OF_AN_ENTRY: Final = frozenset({"value", "desc"})


class Config(Mapping[str, Any]):
    """Holds a run's config.

    Names are attributes, too. Each change is recorded; a copy is a plain dict whose changes are not.

    Args:
        items: values that the config has already.
        record: called with each change.
    """

    _items: dict[str, Any]
    _record: Callable[[dict[str, Any]], object]

    def __init__(
        self, items: Mapping[str, Any] | None = None, record: Callable[[dict[str, Any]], object] | None = None
    ) -> None:
        self.__dict__.update(_items=dict(items or {}), _record=record or (lambda fresh: None))

    def __repr__(self) -> str:
        return repr(self._items)

    def __getitem__(self, key: str) -> Any:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __setitem__(self, key: str, value: Any) -> None:
        self.update({key: value})

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_items"][name]
        except KeyError:
            raise AttributeError(f"config has no {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self.update({name: value})

    def __copy__(self) -> dict[str, Any]:
        return self.as_dict()

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return copy.deepcopy(self._items, memo)

    def __reduce__(self) -> Any:
        return dict, (self.as_dict(),)

    def keys(self) -> KeysView[str]:
        """Return the names."""
        return self._items.keys()

    def items(self) -> ItemsView[str, Any]:
        """Return names and values."""
        return self._items.items()

    def as_dict(self) -> dict[str, Any]:
        """Return a plain copy."""
        return dict(self._items)

    copy = as_dict

    def update(self, d: Any = None, allow_val_change: bool | None = None, **more: Any) -> None:
        """Set several values at once.

        Args:
            d: a config as in `init`.
            allow_val_change: whether a value may be replaced by another. Default: only in a notebook.
            more: values by name.

        Raises:
            ConfigError: a name has another value already, and changes are not allowed.
        """
        fresh = {_name(key): value for key, value in {**config_of(d), **more}.items()}
        if not (cell() is not None if allow_val_change is None else allow_val_change):
            for key, value in fresh.items():
                if key in self._items and _differ(self._items[key], value):
                    raise ConfigError(key, self._items[key], value)
        self._set(fresh)

    def setdefaults(self, d: Any) -> None:
        """Set the names that have no value yet.

        Args:
            d: a config as in `init`.
        """
        self._set({_name(key): value for key, value in config_of(d).items() if _name(key) not in self._items})

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Set a name if it has no value yet.

        Args:
            key: the name.
            default: its value.

        Returns:
            The value that it has then.
        """
        self.setdefaults({key: default})
        return self[_name(key)]

    def _set(self, fresh: dict[str, Any]) -> None:
        if fresh:
            self._record(fresh)
            self._items.update(fresh)


def config_of(given: Any) -> dict[Any, Any]:
    """Convert the config argument of `init` and `update` into a dict; a file may be one of W&B's config files."""
    found = as_config(given)
    return _without_descriptions(found) if isinstance(given, str | os.PathLike) else found


def _without_descriptions(content: dict[Any, Any]) -> dict[Any, Any]:
    """Return only the values of one of W&B's config files: `{lr: {value: 0.1, desc: ...}}`."""
    entries = {name: entry for name, entry in content.items() if name != "wandb_version"}
    described = [
        isinstance(entry, dict) and "value" in entry and entry.keys() <= _OF_AN_ENTRY for entry in entries.values()
    ]
    if not entries or not all(described):
        return content
    return {name: entry["value"] for name, entry in entries.items()}


def _name(key: Any) -> str:
    return str(key).strip("-")


def _differ(before: Any, value: Any) -> bool:
    try:
        return before is not value and bool(before != value)
    except Exception:  # such as arrays, whose comparison is no single bool
        return True
