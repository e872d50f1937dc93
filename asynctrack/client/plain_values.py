"""Plain values: copies of configs and summaries without containers of ours, and fingerprints by which changes are noticed. Runs in the caller."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

from asynctrack.records.codec import encode, make_plain

# Deeper than any config; what is nested deeper is recorded as it is, and its changes when the run is flushed or ends.
_DEEPEST: Final = 64
# Types whose values cannot change in place.
_CONSTANTS: Final = frozenset((int, float, bool, str, bytes, type(None), complex))


class Recorded:
    """Marks the dicts and lists that stand for a run's, and record their changes."""

    __slots__ = ()


def copied(value: Any, depth: int = 0, known: dict[int, tuple[Any, Any]] | None = None) -> Any:
    """Copy dicts and lists, nested ones too; return any other value itself. An object that is in them twice, or in itself, stays one object."""
    kind = type(value)
    if _is_constant(kind) or depth > _DEEPEST:
        return value
    known = {} if known is None else known
    if id(value) in known:
        return known[id(value)][1]
    is_ours = issubclass(kind, Recorded)
    copy: Any
    if kind is dict or kind is OrderedDict or (is_ours and issubclass(kind, dict)):
        copy = {}
        known[id(value)] = value, copy  # with the value, so that no other gets its id
        copy.update({key: copied(item, depth + 1, known) for key, item in list(dict.items(value))})
        return copy
    if kind is list or is_ours:
        copy = []
        known[id(value)] = value, copy
        copy.extend([copied(item, depth + 1, known) for item in list.copy(value)])
        return copy
    return value


def fingerprint(value: Any) -> int | None:
    """Hash a value as it is recorded, to notice changes; None for values that cannot change."""
    if _is_constant(type(value)):
        return None
    try:
        return hash(encode(make_plain({"": value})))
    except Exception:  # the value's own code failed: its `repr` was recorded, and changes of it are not looked for
        return None


def _is_constant(kind: type) -> bool:
    """Tell whether values of a type cannot change in place. A type may have code of its own, and raise when it is asked."""
    return type(kind) is type and kind in _CONSTANTS
