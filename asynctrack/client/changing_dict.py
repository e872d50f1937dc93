"""Changing dict: a dict of which all changes go through two methods, which its subclasses record. Runs in the caller."""

from __future__ import annotations

import threading
from collections.abc import ItemsView, Iterable, ValuesView
from itertools import islice
from typing import Any, Final, SupportsIndex

from asynctrack._system import fork
from asynctrack._system.suggestions import hint
from asynctrack.client.config_sources import as_mapping
from asynctrack.client.plain_values import Recorded, copied

_ABSENT: Final = object()
# With how many names an unknown one is compared, which takes 5 us for each. Arbitrary.
_MOST_NAMES: Final = 200


class Turn:
    """The lock of one config or summary. The thread that has it may take it again, as a signal handler does."""

    def __init__(self) -> None:
        self.after_fork()
        fork.watch(self)

    def after_fork(self) -> None:
        self.lock = threading.RLock()  # a thread of the parent may have it


class ChangingDict(dict[str, Any], Recorded):
    """A dict that makes all changes by `_set` and `_remove`, and whose nested containers report theirs.

    A name that a dict has no attribute of can be written as one: `config.lr`.
    """

    @property
    def _turn(self) -> Turn:
        raise NotImplementedError

    def _set(self, fresh: dict[str, Any]) -> None:
        raise NotImplementedError

    def _remove(self, names: tuple[str, ...]) -> None:
        raise NotImplementedError

    def _live(self, key: str, value: Any) -> Any:
        """Return the container that stands for a nested one, and that records its changes."""
        raise NotImplementedError

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        return self._live(key, value) if type(value) is dict or type(value) is list else value

    def __setitem__(self, key: str, value: Any) -> None:
        self._set({key: value})

    def __delitem__(self, key: str) -> None:
        with self._turn.lock:
            if key not in self:
                raise KeyError(key)
            self._remove((key,))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # libraries probe objects for such names
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError:
            raise _unset(self, name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError:
            raise _unset(self, name) from None

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value; the default if the name has none."""
        try:
            return self[key]
        except KeyError:
            return default

    def values(self) -> ValuesView[Any]:  # type: ignore[override]  # a dict's own cannot be made
        return ValuesView(self)

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]  # dict_items cannot be made
        return ItemsView(self)

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set several values at once, as `dict.update` does.

        Args:
            args: A mapping, pairs, or anything else that `init` takes as a config.
            kwargs: Values by name.

        Raises:
            InvalidConfig: A config cannot be made of what was given.
        """
        fresh = dict(*(as_mapping(given, "update()", pairs=True) for given in args), **kwargs)
        if fresh:
            self._set(fresh)

    def __ior__(self, other: Any) -> ChangingDict:  # type: ignore[override,misc]  # dict's own does not call update
        self.update(other)
        return self

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return a value; if the name has none, set the default first."""
        with self._turn.lock:
            if key not in self:
                self[key] = default
            return self[key]

    def pop(self, key: str, default: Any = _ABSENT) -> Any:
        """Remove a name, and return its value; the default if it has none."""
        with self._turn.lock:
            if key in self:
                value = super().__getitem__(key)
                self._remove((key,))
                return value
        if default is _ABSENT:
            raise KeyError(key)
        return default

    def popitem(self) -> tuple[str, Any]:
        """Remove the last name, and return it with its value."""
        with self._turn.lock:
            for key in reversed(list(self)):
                return key, self.pop(key)
        raise KeyError("popitem(): nothing is set")

    def clear(self) -> None:
        """Remove all names."""
        with self._turn.lock:
            if self:
                self._remove(tuple(self))

    def as_dict(self) -> dict[str, Any]:
        """Make a plain copy, of nested containers too. Changes of the copy are not recorded."""
        return {key: copied(value) for key, value in dict.items(self)}

    def copy(self) -> dict[str, Any]:
        """Make a plain copy, as `as_dict` does."""
        return self.as_dict()

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        import copy  # the module calls this, so it is imported already

        return copy.deepcopy(dict(self), memo)

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return dict, (self.as_dict(),)

    @classmethod
    def fromkeys(cls, keys: Iterable[str], value: Any = None) -> dict[str, Any]:  # type: ignore[override]  # a plain one
        """Make a plain dict."""
        return dict.fromkeys(keys, value)


def _unset(fields: ChangingDict, name: str) -> AttributeError:
    """Make the error for a name that is neither set nor a method."""
    methods = (method for method in dir(dict) + list(vars(ChangingDict)) if not method.startswith("_"))
    return AttributeError(f"{name!r} is not set{hint(name, [*islice(fields, _MOST_NAMES), *methods])}")
