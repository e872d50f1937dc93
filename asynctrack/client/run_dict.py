"""Run dict: a run's config or summary, a dict whose changes are recorded, nested ones too. Runs in the caller.

A change goes into the journal as the names at the top that it changes, each with its whole value, and those that it removes. So who reads
it needs to know nothing of paths. What is nested is kept plain: `dict(config)` and `json.dumps(config)` have dicts and lists. Who asks for a
nested dict or list by its name gets one that is its equal and writes through to the plain one and to the journal.

Threads change it one after the other, and each change is recorded before the next is made: else the older of two copies could be recorded
last. Who reads waits for nobody.
"""

from __future__ import annotations

import contextlib
import copy
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping, ValuesView
from itertools import islice
from typing import Any, Final, Protocol, SupportsIndex

from asynctrack._system import fork
from asynctrack._system.suggestions import hint
from asynctrack.client.config_sources import as_mapping
from asynctrack.records.codec import encode, make_plain

# Deeper than any config; what is nested deeper is recorded as it is, and its changes when the run is flushed or ends.
_DEEPEST: Final = 64
# What cannot change in place.
_CONSTANTS: Final = frozenset((int, float, bool, str, bytes, type(None), complex))
_ABSENT: Final = object()
# For the turn of who records what has changed in place: who has it that long waits for room in the queue, and there is none for others either. Arbitrary.
_TURN_S: Final = 5.0
# Names that a wrong one is compared with: it takes 5 us for each. Arbitrary.
_MOST_NAMES: Final = 200


class Recorder(Protocol):
    """Records a change: the names at the top that are set, with their values, and the names that are removed."""

    def __call__(self, fresh: dict[str, Any], removed: tuple[str, ...] = ()) -> object: ...


class _Turn:
    """The lock of one config or summary. The thread that has it may take it again, as a signal handler does."""

    def __init__(self) -> None:
        self.after_fork()
        fork.watch(self)

    def after_fork(self) -> None:
        self.lock = threading.RLock()  # a thread of the parent may have it


class _Changing(dict[str, Any]):
    """A dict that makes all changes by `_set` and `_remove`, and whose nested containers report theirs.

    A name that a dict has no attribute of can be written as one: `config.lr`.
    """

    @property
    def _turn(self) -> _Turn:
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
        if name.startswith("_"):  # what a library looks for
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

    def __ior__(self, other: Any) -> _Changing:  # type: ignore[override,misc]  # dict's own does not call update
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
        return {key: _copied(value) for key, value in dict.items(self)}

    def copy(self) -> dict[str, Any]:
        """Make a plain copy, as `as_dict` does."""
        return self.as_dict()

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return copy.deepcopy(dict(self), memo)

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return dict, (self.as_dict(),)

    @classmethod
    def fromkeys(cls, keys: Iterable[str], value: Any = None) -> dict[str, Any]:  # type: ignore[override]  # a plain one
        """Make a plain dict."""
        return dict.fromkeys(keys, value)


class RunDict(_Changing):
    """A run's config or summary: a dict whose changes are recorded. `config.lr` is the same as `config["lr"]`.

    A value is recorded as it is when it is set. Changes of nested dicts and lists are recorded at once; changes of other objects are recorded
    when the run is flushed or ends.

    Args:
        content: The values at the start.
        record: Called with each change.
        missing: Called with a name that has no value. Returns a value for it, or raises `KeyError`.
    """

    def __init__(
        self, content: Mapping[str, Any], record: Recorder, missing: Callable[[str], Any] | None = None
    ) -> None:
        super().__init__({key: _copied(value) for key, value in content.items()})
        prints = {key: _print(value) for key, value in dict.items(self)}
        # To set one as an attribute would set a name.
        self.__dict__.update(_record=record, _missing=missing, _trees={}, _prints=prints, _turn_=_Turn())

    @property
    def _turn(self) -> _Turn:
        turn: _Turn = self._turn_
        return turn

    def __missing__(self, key: str) -> Any:
        if self._missing is None:
            raise KeyError(key)
        return self._missing(key)

    def catch_up(self) -> None:
        """Record the changes of values that cannot report them: sets, arrays, objects of the user's own, containers shared with a shallow copy."""
        lock = self._turn.lock
        if not lock.acquire(timeout=_TURN_S):
            return
        try:
            for key, before in list(self._prints.items()):
                if before is not None and key in self and _print(value := dict.__getitem__(self, key)) != before:
                    self._record_value(key, value)
        finally:
            lock.release()

    def _record_value(self, key: str, value: Any) -> None:
        """Record a value, and remember which: a signal handler may change it meanwhile."""
        copied = _copied(value)
        self._record({key: copied})
        self._prints[key] = _print(copied)

    def _set(self, fresh: dict[str, Any]) -> None:
        fresh = {key: _copied(value) for key, value in fresh.items()}
        with self._turn.lock:
            self._record({key: _copied(value) for key, value in fresh.items()})
            for key, value in fresh.items():
                self._trees.pop(key, None)
                dict.__setitem__(self, key, value)
                self._prints[key] = _print(value)

    def _remove(self, names: tuple[str, ...]) -> None:
        with self._turn.lock:
            self._record({}, names)
            for key in names:
                self._trees.pop(key, None)
                self._prints.pop(key, None)
                dict.pop(self, key, None)

    def _live(self, key: str, value: Any) -> Any:
        tree = self._trees.get(key)
        if tree is None or tree.top is not value:
            tree = self._trees[key] = _Tree(self, key, value)
        return tree.live(value)

    def _changed(self, key: str, top: Any) -> None:
        """Record a value in which something nested has changed."""
        if dict.get(self, key) is top:  # else another has its name by now
            self._record_value(key, top)


class _Tree:
    """A value at the top, and the nested containers that the user holds.

    Args:
        fields: The config or summary that has the value.
        key: The name of the value.
        top: The value.
    """

    def __init__(self, fields: RunDict, key: str, top: Any) -> None:
        self.top = top
        self.turn = fields._turn
        # What it is kept by must not be kept by it: a run goes with its last reference.
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


class _LiveDict(_Changing):
    """A nested dict."""

    def __init__(self, plain: dict[str, Any], tree: _Tree) -> None:
        super().__init__(plain)
        self.__dict__.update(_plain=plain, _tree=tree)

    @property
    def _turn(self) -> _Turn:
        turn: _Turn = self._tree.turn
        return turn

    def _follow(self) -> None:
        """Take over the content of the plain one. A thread that reads meanwhile finds what is in both."""
        for gone in [key for key in list(self) if key not in self._plain]:
            dict.pop(self, gone, None)
        dict.update(self, self._plain)
        if list(self) != list(self._plain):  # their order
            dict.clear(self)
            dict.update(self, self._plain)

    def _set(self, fresh: dict[str, Any]) -> None:
        fresh = {key: _copied(value) for key, value in fresh.items()}
        with self._tree.changing(self) as plain:
            plain.update(fresh)

    def _remove(self, names: tuple[str, ...]) -> None:
        with self._tree.changing(self) as plain:
            for name in names:
                plain.pop(name, None)

    def _live(self, key: str, value: Any) -> Any:
        return self._tree.live(value)


class _LiveList(list[Any]):
    """A nested list."""

    def __init__(self, plain: list[Any], tree: _Tree) -> None:
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
        copied = [_copied(item) for item in value] if isinstance(at, slice) else _copied(value)
        with self._tree.changing(self) as plain:
            plain[at] = copied

    def __delitem__(self, at: Any) -> None:
        with self._tree.changing(self) as plain:
            del plain[at]

    def append(self, value: Any) -> None:
        self.extend([value])

    def extend(self, values: Iterable[Any]) -> None:
        copied = [_copied(item) for item in values]
        with self._tree.changing(self) as plain:
            plain.extend(copied)

    def __iadd__(self, values: Iterable[Any]) -> _LiveList:  # type: ignore[misc]  # a plain list adds lists only
        self.extend(values)
        return self

    def __imul__(self, times: SupportsIndex) -> _LiveList:
        with self._tree.changing(self) as plain:
            plain[:] = [_copied(item) for item in plain * times]
        return self

    def insert(self, at: SupportsIndex, value: Any) -> None:
        with self._tree.changing(self) as plain:
            plain.insert(at, _copied(value))

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
        return [_copied(item) for item in self._plain]

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> list[Any]:
        return copy.deepcopy(self._plain, memo)

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return list, (self.copy(),)


_LIVE: Final[dict[type, Any]] = {dict: _LiveDict, list: _LiveList}


def _unset(fields: _Changing, name: str) -> AttributeError:
    """Make the error for a name that is neither set nor a method."""
    methods = (method for method in dir(dict) + list(vars(_Changing)) if not method.startswith("_"))
    return AttributeError(f"{name!r} is not set{hint(name, [*islice(fields, _MOST_NAMES), *methods])}")


def _copied(value: Any, depth: int = 0, known: dict[int, tuple[Any, Any]] | None = None) -> Any:
    """Copy dicts and lists, nested ones too; return any other value itself. An object that is in them twice, or in itself, stays one object."""
    kind = type(value)
    if _is_constant(kind) or depth > _DEEPEST:
        return value
    known = {} if known is None else known
    if id(value) in known:
        return known[id(value)][1]
    copy: Any
    if kind is dict or kind is OrderedDict or issubclass(kind, _Changing):
        copy = {}
        known[id(value)] = value, copy  # with the value, so that no other gets its id
        copy.update({key: _copied(item, depth + 1, known) for key, item in list(dict.items(value))})
        return copy
    if kind is list or kind is _LiveList:
        copy = []
        known[id(value)] = value, copy
        copy.extend([_copied(item, depth + 1, known) for item in list.copy(value)])
        return copy
    return value


def _is_constant(kind: type) -> bool:
    """Tell whether values of a type cannot change in place. A type may have code of its own, and raise when it is asked."""
    return type(kind) is type and kind in _CONSTANTS


def _print(value: Any) -> int | None:
    """Hash a value as it is recorded, to notice changes; None for values that cannot change."""
    if _is_constant(type(value)):
        return None
    try:
        return hash(encode(make_plain({"": value})))
    except Exception:  # its own code failed: what is recorded is its `repr`, and that for good
        return None


def _refill(plain: Any, before: Any) -> None:
    if isinstance(plain, dict):
        plain.clear()
        plain.update(before)
    else:
        plain[:] = before
