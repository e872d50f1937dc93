"""Nested values: the dicts and lists that stand for those in a config or summary, and write through to them. Runs in the caller."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable, Iterator
from typing import Any, Final, Protocol, SupportsIndex

from asynctrack.client.changing_dict import ChangingDict, Turn
from asynctrack.client.plain_values import Recorded, copied


class Owner(Protocol):
    """Has the value at the top: a config or summary."""

    @property
    def _turn(self) -> Turn: ...

    def _changed(self, key: str, top: Any) -> None: ...


class Tree:
    """A value at the top, and the nested containers that the user holds.

    Args:
        fields: The config or summary that has the value.
        key: The name of the value.
        top: The value.
    """

    def __init__(self, fields: Owner, key: str, top: Any) -> None:
        self.top = top
        self.turn = fields._turn
        # A weak reference, since the owner holds this: in a cycle a run would not be freed with its last reference.
        self._fields = weakref.ref(fields)
        self._key = key
        self._live: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()

    def live(self, plain: Any) -> Any:
        """Return the container that stands for a plain one, and changes it."""
        found = self._live.get(id(plain))
        if found is None:
            found = self._live[id(plain)] = _LIVE[type(plain)](plain, self)
        else:
            found._follow()
        return found

    @contextlib.contextmanager
    def changing(self, live: Any) -> Iterator[Any]:
        """Change a plain container and record the change; if it cannot be recorded, undo it."""
        plain = live._plain
        with self.turn.lock:
            before = plain.copy()
            try:
                yield plain
                if (fields := self._fields()) is not None:
                    fields._changed(self._key, self.top)
            except BaseException:
                _refill(plain, before)
                raise
            finally:
                live._follow()


class LiveDict(ChangingDict):
    """A nested dict."""

    def __init__(self, plain: dict[str, Any], tree: Tree) -> None:
        super().__init__(plain)
        self.__dict__.update(_plain=plain, _tree=tree)

    @property
    def _turn(self) -> Turn:
        turn: Turn = self._tree.turn
        return turn

    def _follow(self) -> None:
        """Take over the content of the plain one. A thread that reads meanwhile finds what is in both."""
        for gone in [key for key in list(self) if key not in self._plain]:
            dict.pop(self, gone, None)
        dict.update(self, self._plain)
        if list(self) != list(self._plain):  # the order of the names has changed
            dict.clear(self)
            dict.update(self, self._plain)

    def _set(self, fresh: dict[str, Any]) -> None:
        fresh = {key: copied(value) for key, value in fresh.items()}
        with self._tree.changing(self) as plain:
            plain.update(fresh)

    def _remove(self, names: tuple[str, ...]) -> None:
        with self._tree.changing(self) as plain:
            for name in names:
                plain.pop(name, None)

    def _live(self, key: str, value: Any) -> Any:
        return self._tree.live(value)


class LiveList(list[Any], Recorded):
    """A nested list."""

    def __init__(self, plain: list[Any], tree: Tree) -> None:
        super().__init__(plain)
        self._plain = plain
        self._tree = tree

    def _follow(self) -> None:
        list.__setitem__(self, slice(None), self._plain)

    def _of(self, value: Any) -> Any:
        return self._tree.live(value) if type(value) is dict or type(value) is list else value

    def __getitem__(self, at: Any) -> Any:
        found = super().__getitem__(at)
        return [self._of(item) for item in found] if isinstance(at, slice) else self._of(found)

    def __iter__(self) -> Iterator[Any]:
        at = 0
        while at < len(self):
            yield self[at]
            at += 1

    def __setitem__(self, at: Any, value: Any) -> None:
        fresh = [copied(item) for item in value] if isinstance(at, slice) else copied(value)
        with self._tree.changing(self) as plain:
            plain[at] = fresh

    def __delitem__(self, at: Any) -> None:
        with self._tree.changing(self) as plain:
            del plain[at]

    def append(self, value: Any) -> None:
        self.extend([value])

    def extend(self, values: Iterable[Any]) -> None:
        fresh = [copied(item) for item in values]
        with self._tree.changing(self) as plain:
            plain.extend(fresh)

    def __iadd__(self, values: Iterable[Any]) -> LiveList:  # type: ignore[misc]  # a plain list adds lists only
        self.extend(values)
        return self

    def __imul__(self, times: SupportsIndex) -> LiveList:
        with self._tree.changing(self) as plain:
            plain[:] = [copied(item) for item in plain * times]
        return self

    def insert(self, at: SupportsIndex, value: Any) -> None:
        with self._tree.changing(self) as plain:
            plain.insert(at, copied(value))

    def pop(self, at: SupportsIndex = -1) -> Any:
        with self._tree.changing(self) as plain:
            return plain.pop(at)

    def remove(self, value: Any) -> None:
        with self._tree.changing(self) as plain:
            plain.remove(value)

    def clear(self) -> None:
        del self[:]

    def reverse(self) -> None:
        with self._tree.changing(self) as plain:
            plain.reverse()

    def sort(self, *, key: Any = None, reverse: bool = False) -> None:
        with self._tree.changing(self) as plain:
            plain.sort(key=key, reverse=reverse)

    def copy(self) -> list[Any]:
        """Make a plain copy, of nested containers too."""
        return [copied(item) for item in self._plain]

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> list[Any]:
        import copy  # the module calls this, so it is imported already

        return copy.deepcopy(self._plain, memo)

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return list, (self.copy(),)


_LIVE: Final[dict[type, Any]] = {dict: LiveDict, list: LiveList}


def _refill(plain: Any, before: Any) -> None:
    if isinstance(plain, dict):
        plain.clear()
        plain.update(before)
    else:
        plain[:] = before
