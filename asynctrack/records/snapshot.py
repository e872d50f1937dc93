"""Snapshot: a private, plain copy of what a user gave, as it is at one moment. Runs in the caller.

Containers are copied first, each in one step that no other thread can interrupt, and then looked at; a value that is not plain is made so before any
encoder sees it. So no code that can run Python, and let others change a container, is called while msgspec walks one. A container that holds itself
becomes "{...}" or "[...]", as in `repr`. Containers and bytes have a budget, since twenty levels of `{"l": x, "r": x}` are a million: beyond it a
container becomes a short text.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from time import time_ns
from typing import Any, Final

from msgspec import Raw

from asynctrack.records.arrays import as_array, makers
from asynctrack.records.foreign import NotPlain, asked, simpler, steady
from asynctrack.records.media_types import MAX_DEPTH, Media, Value
from asynctrack.records.wire import MEDIUM, Ext, encode, encode_surely

# Containers of a record that hold others or texts: 0.1 s. Arbitrary; rows of numbers are not counted.
MOST_NODES: Final = 1 << 15
# Of texts, arrays and lists of numbers in a record. A larger queue carries more; see `Publisher.encode`.
MOST_BYTES: Final = 16 << 20

_MAX_REPR: Final = 1000
# What a number takes at most.
_NUMBER_BYTES: Final = 9

_LEAVES: Final = frozenset({float, int, str, bool, type(None)})
_only_leaves: Final = _LEAVES.issuperset
_only_texts: Final = frozenset({str}).issuperset
_NUMBERS: Final = frozenset({float, int, bool})
_only_numbers: Final = frozenset({float, int, bool, type(None)}).issuperset
_ENCLOSED: Final = {dict: "{...}", list: "[...]", tuple: "(...)", set: "{...}", frozenset: "{...}"}


class Snapshot:
    """Makes the values of one record plain.

    Attributes:
        strange: how many values became their `repr`, or were cut.

    Args:
        most_bytes: the size at which values are cut.
    """

    __slots__ = ("_bytes", "_nodes", "_path", "strange")

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.strange = 0
        self._bytes = most_bytes
        self._nodes = MOST_NODES
        self._path: set[int] = set()

    def of(self, data: Mapping[Any, Any], lost: list[str]) -> dict[str, Any]:
        """Copy a record as it is at this moment. The names of values that became their `repr`, or were cut, are added to `lost`."""
        plain = {}
        for key, value in copied(data).items():
            before, name = self.strange, plain_key(key)
            plain[name] = self._item(value, type(value), 0)
            if self.strange != before:
                lost.append(name)
        return plain

    def _item(self, value: Any, kind: type, depth: int) -> Any:
        try:
            if kind in _LEAVES:
                return value
            if (make := makers.get(kind)) is not None:
                fresh = make(value)
                if type(fresh) in _LEAVES or type(fresh) is Ext:
                    return self._next(fresh, depth)
        except Exception:  # of its class's own code, or an array that has no such form: its `repr` is recorded
            self.strange += 1
            return safe_repr(value)
        return self._of(value, kind, depth)  # an array of objects may be in itself, so it has to be on the path

    def _of(self, value: Any, kind: type, depth: int) -> Any:
        """Make any value plain."""
        if self._nodes < 0 or self._bytes < 0 or depth > MAX_DEPTH:
            return self._cut(value, kind)
        if (held := id(value)) in self._path:
            self.strange += 1
            return next((text for base, text in _ENCLOSED.items() if issubclass(kind, base)), "{...}")
        self._path.add(held)
        try:
            return self._known(value, kind, depth)
        except Exception:  # a value's own code may raise anything: its `repr` is recorded
            self.strange += 1
            return safe_repr(value)
        finally:
            self._path.discard(held)

    def _known(self, value: Any, kind: type, depth: int) -> Any:
        if kind is list:
            return self._list(value[:], depth)
        if kind is dict:
            return self._dict(steady(dict.copy, value), depth)
        if kind is bytes:
            self._bytes -= len(value)
            return value
        self._nodes -= 1
        if kind is Media or issubclass(kind, Value):
            return self._medium(value.wire(), depth)
        if kind is Ext or kind is Raw or (fresh := simpler(value, kind)) is value:
            raise NotPlain
        return self._next(fresh, depth)

    def _next(self, fresh: Any, depth: int) -> Any:
        """Make plain what `simpler` has returned: its containers are our own."""
        kind = type(fresh)
        if kind in _LEAVES:
            return fresh
        if kind is Ext:
            self._bytes -= len(fresh.data)
            return fresh
        if kind is datetime:  # a moment in UTC
            return fresh
        if kind is list:
            return self._list(fresh, depth)
        if kind is dict:
            return self._dict(fresh, depth)
        return self._of(fresh, kind, depth + 1)

    def _list(self, items: list[Any], depth: int) -> list[Any]:
        """Make the items of a list plain in place: nobody else has the list."""
        if _only_numbers(map(type, items)):
            self._bytes -= _NUMBER_BYTES * len(items)
            return items
        self._nodes -= 1
        for at, item in enumerate(items):
            if (kind := type(item)) is str:
                self._bytes -= len(item)
            elif kind not in _LEAVES:
                items[at] = self._item(item, kind, depth + 1)
            if self._bytes < 0:
                self.strange += 1
                items[at + 1 :] = ["..."]
                break
        return items

    def _dict(self, items: dict[Any, Any], depth: int) -> dict[str, Any]:
        """Make the items of a dict plain in place: nobody else has the dict."""
        if _only_numbers(map(type, items.values())) and _only_texts(map(type, items)):
            self._bytes -= _NUMBER_BYTES * len(items)
            return items
        self._nodes -= 1
        plain = {}
        for key, item in items.items():
            if (kind := type(item)) is str:
                self._bytes -= len(item)
            elif kind not in _LEAVES:
                item = self._item(item, kind, depth + 1)
            plain[key if type(key) is str else plain_key(key)] = item
            if self._bytes < 0:
                self.strange += 1
                plain["..."] = "..."
                break
        return plain

    def _medium(self, wire: list[Any], depth: int) -> Ext:
        kind, format, meta, content, files, seal = wire
        if type(content) is list:
            content = self._list(content[:], depth)
        elif type(content) not in (bytes, type(None)):
            content = as_array(content)  # a histogram's numbers: an array also where it is one
        payload = encode_surely([kind, format, self._dict(dict(meta), depth), content, files, seal])
        self._bytes -= len(payload)
        return Ext(MEDIUM, payload)

    def _cut(self, value: Any, kind: type) -> str:
        self.strange += 1
        try:
            return f"<{kind.__name__} of {len(value)} items>"
        except Exception:  # of its own `__len__`
            return f"<{kind.__name__}>"


def encode_quickly(data: dict[Any, Any], step: int | None) -> bytes | None:
    """Encode a record of only numbers, texts, NumPy's values, and containers of numbers and texts; return None for any other.

    The payload holds the same values as `Snapshot.of`, for a third of the time.
    """
    try:
        plain = data.copy()
        if not _only_leaves(map(type, plain)):  # a key of another type may be written as a map, which no key can be
            return None
        for key, value in plain.items():
            if (kind := type(value)) in _LEAVES:
                continue
            if (make := makers.get(kind)) is not None:
                value = make(value)
                if (kind := type(value)) not in _LEAVES and kind is not Ext:
                    return None
            elif kind is dict:
                value = value.copy()
                if not (_only_leaves(map(type, value.values())) and _only_texts(map(type, value))):
                    return None
            elif kind is list:
                value = value[:]
                kinds = {*map(type, value)}
                if not kinds <= _LEAVES:
                    if len(kinds) != 1 or (make := makers.get(kinds.pop())) not in _NUMBERS:
                        return None
                    value = list(map(make, value))
            else:
                return None
            plain[key] = value
        return encode((time_ns(), step, plain))
    except Exception:  # a name that is no text, an integer beyond 64 bits, a value's own code
        return None


def copied(data: Mapping[Any, Any]) -> dict[Any, Any]:
    """Copy a mapping in one step that no other thread can interrupt; one that is no dict item by item. One that raises gives a dict that says why."""
    if type(data) is dict:
        found: dict[Any, Any] = steady(dict.copy, data)
        return found
    try:
        found = simpler(data, type(data))
        found = found if type(found) is dict else asked(data)
    except Exception as error:  # of the mapping's own code
        found = {f"<{type(data).__name__}>": f"<{type(error).__name__}>"}
    return found


def is_mapping(data: object) -> bool:
    """Return True if it is a mapping, whatever its own code says when it is asked."""
    try:
        return isinstance(data, Mapping)
    except Exception:  # of its own `__class__`
        return False


def plain_key(key: Any) -> str:
    """Return a key as a text."""
    try:
        if isinstance(key, str):
            return str.__str__(key)
        if key is not None and type(key) not in _LEAVES and isinstance(fresh := simpler(key, type(key)), str):
            return fresh
        return str(str(key))[:_MAX_REPR]
    except Exception:  # of the key's own code
        return safe_repr(key)


def safe_repr(value: Any) -> str:
    """Return the beginning of a value's `repr`, whatever its code raises; containers are not looked into deeply, since they may be endless."""
    kind = type(value)
    try:
        if issubclass(kind, dict | list | tuple | set | frozenset):
            return f"<{kind.__name__} of {len(value)} items>"
        return str.__str__(repr(value))[:_MAX_REPR].encode("utf-8", "backslashreplace").decode()
    except Exception:  # a broken __repr__ must not stop the run
        return f"<{kind.__name__}>"
