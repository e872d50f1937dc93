"""Foreign: makes values of other libraries, and of Python's rarer types, simpler. Runs in the caller.

`simpler` makes one step towards a plain value, and `snapshot` goes on from there. `docs/reference/values.md` lists what each type becomes. Code that is called
here may be anybody's and raise anything: so no encoder is at work meanwhile, and `snapshot` catches what it raises.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import numbers
import os
import sys
import types
import uuid
from collections import UserString, deque
from collections.abc import Callable, Mapping, Sequence, Set, ValuesView
from itertools import islice
from typing import Any, Final

import msgspec

from asynctrack.records import arrays
from asynctrack.records.media_types import Array

# Most items that are read one by one, so that an endless mapping ends. Arbitrary.
MOST_ITEMS: Final = 1 << 17
# Arbitrary.
_TRIES: Final = 10
# Of a type's flags: it is a class of Python's, which may do anything.
_HEAP_TYPE: Final = 1 << 9

_UTC: Final = datetime.UTC


class NotPlain(Exception):
    """A value cannot be made plain except by its `repr`."""


def simpler(value: Any, kind: type) -> Any:
    """Return a value with one layer less: a leaf, or a dict or list of our own whose items may be foreign.

    Raises:
        NotPlain: only its `repr` is left.
        Exception: whatever the value's own code raises.
    """
    if isinstance(kind, enum.EnumMeta):
        return value._value_
    if issubclass(kind, type):
        raise NotPlain
    if kind.__module__.startswith("pandas"):
        if kind.__name__ in ("NAType", "NaTType"):
            return None
        if kind.__name__ in ("Period", "Interval"):
            return str(value)
    for base in kind.__mro__:
        if (make := _BASES.get(base)) is not None:
            if base is float and not kind.__flags__ & _HEAP_TYPE:  # NumPy's float64
                arrays.makers[kind] = float
            return make(value)
    if (fields := _fields(value, kind)) is not None:
        return fields
    return _by_ability(value, kind)


def _by_ability(value: Any, kind: type) -> Any:
    """Convert a value by what it can do: libraries are recognised by that, so that none is imported here."""
    if isinstance(value, Mapping | Sequence):
        if kind.__module__.startswith("omegaconf."):
            return _omegaconf(value)
        return asked(value) if isinstance(value, Mapping) else list(islice(value, MOST_ITEMS))
    if arrays.is_frame(kind):
        from asynctrack.records.values.table import of_frame

        return of_frame(value)
    if isinstance(value, os.PathLike):
        return _path(value)
    if hasattr(value, "as_py"):  # a scalar of pyarrow
        return value.as_py()
    # Streams can be detached, too, and must not be.
    if arrays.is_array(value):
        return arrays.plain_array(value)
    if hasattr(value, "savefig") or hasattr(value, "getbands"):  # a figure of matplotlib, an image of Pillow
        from asynctrack.records.values.image import Image

        return Image(value)
    if isinstance(value, Set):
        return in_order(list(islice(value, MOST_ITEMS)))
    if isinstance(value, ValuesView):
        return list(islice(value, MOST_ITEMS))
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    raise NotPlain


def asked(mapping: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return a mapping's items, read one by one: an item that raises does not cost the others."""
    found = {}
    for key in list(islice(mapping, MOST_ITEMS)):
        try:
            found[key] = mapping[key]
        except Exception as error:  # of the mapping's own code: a value that is missing, or has to be computed
            found[key] = f"<{type(error).__name__}>"
    return found


def in_order(items: list[Any]) -> list[Any]:
    """Return the items of a set, sorted where they can be."""
    try:
        return sorted(items)
    except Exception:  # of their own comparison
        return items


def steady(copy: Callable[[Any], Any], container: Any) -> Any:
    """Copy a container that a finaliser may change meanwhile: the copy itself may start the garbage collector. Then try again."""
    for _ in range(_TRIES):
        try:
            return copy(container)
        except RuntimeError:  # changed while it was looked at
            pass
    return copy(container)


def _items_of_dict(value: dict[Any, Any]) -> dict[Any, Any]:
    return dict(dict.items(value))


def _items_of_set(value: set[Any]) -> list[Any]:
    return list(set.__iter__(value))


def _items_of_deque(value: deque[Any]) -> list[Any]:
    return list(deque.__iter__(value))


def _fields(value: Any, kind: type) -> Any:
    """Return the fields of a dataclass, an attrs class, a msgspec struct, a pydantic model or a namespace; None for any other value."""
    if kind is Array:
        return arrays.of_logged(value)
    if isinstance(value, msgspec.Struct):
        names = zip(kind.__struct_encode_fields__, kind.__struct_fields__, strict=True)  # type: ignore[attr-defined]
        tag = kind.__struct_config__  # type: ignore[attr-defined]
        return ({tag.tag_field: tag.tag} if tag.tag_field else {}) | _got(value, names)
    for base in kind.__mro__:
        if base.__module__ == "pydantic.main" and base.__name__ == "BaseModel":
            return {**value.__dict__, **(getattr(value, "__pydantic_extra__", None) or {})}
    if kind.__module__ == "argparse" and kind.__name__ == "Namespace":
        return dict(value.__dict__)
    if type(fields := getattr(kind, "__dataclass_fields__", None)) is dict:
        return _got(value, zip(fields, fields, strict=True))
    if isinstance(known := getattr(kind, "__attrs_attrs__", None), tuple):
        public = [field.name for field in known if field.name[0] != "_"]
        return _got(value, zip(public, public, strict=True))
    return None


def _got(value: Any, names: Any) -> dict[str, Any]:
    """Return the attributes that are set, by the names that they are to have."""
    found = {}
    for name, attribute in names:
        try:
            found[name] = getattr(value, attribute)
        except AttributeError:  # not set
            pass
    return found


def _omegaconf(value: Any) -> Any:
    """Convert an OmegaConf node to Python containers; a missing value stays "???", and an interpolation that fails stays as it is written."""
    to_container = sys.modules["omegaconf"].OmegaConf.to_container
    try:
        return to_container(value, resolve=True)
    except Exception:  # an interpolation that leads nowhere, or a resolver that fails
        return to_container(value, resolve=False)


def _moment(value: datetime.datetime) -> Any:
    """Convert a moment to text in ISO 8601; one with a time zone stays a moment, in UTC; NaT of pandas becomes None."""
    if value != value:
        return None
    if value.tzinfo is None:
        return value.isoformat()
    at = value.astimezone(_UTC)
    return datetime.datetime(at.year, at.month, at.day, at.hour, at.minute, at.second, at.microsecond, _UTC)


def _number(value: Any) -> float:
    try:
        return float(value)
    except ValueError:  # a signalling NaN
        return float("nan")


def _path(value: os.PathLike[Any]) -> str:
    path = os.fspath(value)
    return path.decode("utf-8", "backslashreplace") if isinstance(path, bytes) else path


def _tuple(value: tuple[Any, ...]) -> Any:
    names = getattr(value, "_fields", None)
    if type(names) is tuple and len(names) == tuple.__len__(value):
        return dict(zip(names, tuple.__iter__(value), strict=True))
    return list(tuple.__iter__(value))


def _range(value: range) -> list[int]:
    if len(value) > MOST_ITEMS:
        raise NotPlain
    return list(value)


_BASES: Final[dict[type, Callable[[Any], Any]]] = {
    # What these hold is taken without asking a subclass.
    float: float.__float__,
    int: int.__int__,
    str: str.__str__,
    UserString: lambda value: str(value.data),  # else a sequence of ever more of its own
    # Each is one step, in which no other thread can change it.
    dict: lambda value: steady(_items_of_dict, value),
    list: list.copy,
    tuple: _tuple,
    set: lambda value: in_order(steady(_items_of_set, value)),
    frozenset: lambda value: in_order(list(frozenset.__iter__(value))),
    deque: lambda value: steady(_items_of_deque, value),
    range: _range,
    bytes: lambda value: b"".join((value,)),
    bytearray: bytes,
    memoryview: memoryview.tobytes,
    complex: str,
    datetime.datetime: _moment,
    datetime.date: lambda value: value.isoformat(),
    datetime.time: lambda value: value.isoformat(),
    datetime.timedelta: lambda value: value.total_seconds(),
    decimal.Decimal: _number,
    uuid.UUID: str,
    types.SimpleNamespace: lambda value: dict(value.__dict__),
}
