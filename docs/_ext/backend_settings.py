"""Settings of a backend, as a table in Markdown: made from the fields of its class and from what its docstring says of them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

import asynctrack

# Those of every backend: the first page has them.
COMMON: Final = ("max_records_s", "downsample_interval_s", "stall_timeout_s", "writers")
# Filled in by the package itself: no user's affair.
_FILLED_IN: Final = re.compile(r"set when a run is opened|filled in when the run opens")
_NOT_SHOWN: Final = {"references"}

_ALIAS: Final = re.compile(r"(?!Any)[A-Z]\w*")
_ATTRIBUTE: Final = re.compile(r"^    (\w+): (.*(?:\n {8}.*)*)", re.M)


def settings_table(name: str) -> str:
    """Return the table of the settings of the class `asynctrack.NAME`; empty where it has none of its own."""
    rows = list(_rows(getattr(asynctrack, name)))
    head = ["| Setting | Type | Default | Meaning |", "| --- | --- | --- | --- |"]
    return "\n".join([*head, *rows]) if rows else ""


def _rows(backend: type[Any]) -> Iterator[str]:
    meanings = attribute_meanings(backend)
    of_all = {field.name: field.default for field in msgspec.structs.fields(asynctrack.Backend)}
    for field in msgspec.structs.fields(backend):
        common = backend is not asynctrack.Backend and of_all.get(field.name, field) == field.default
        meaning = meanings.get(field.name, "")
        if common or field.name in _NOT_SHOWN or _FILLED_IN.search(meaning):
            continue
        cells = (f"`{field.name}`", f"`{type_of(backend, field)}`", f"`{_default(field)}`", meaning)
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def attribute_meanings(backend: type[Any]) -> dict[str, str]:
    """Return what the docstrings of a class and of its bases say of their attributes; the class itself has the last word."""
    found = {}
    for base in reversed(backend.__mro__):
        if issubclass(base, msgspec.Struct):
            for name, text in _ATTRIBUTE.findall(inspect.cleandoc(base.__doc__ or "")):
                found[name] = _sentence(" ".join(text.split()))
    return found


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def type_of(backend: type[Any], field: msgspec.structs.FieldInfo) -> str:
    """Return a field's type as the source has it, and the name of another type in full."""
    written = next(base.__annotations__[field.name] for base in backend.__mro__ if field.name in base.__annotations__)
    if isinstance(field.type, type):
        return field.type.__name__
    return str(field.type).replace("typing.", "") if _ALIAS.fullmatch(str(written)) else str(written)


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.default_factory is not msgspec.NODEFAULT:
        return repr(field.default_factory())
    default = str(field.default) if isinstance(field.default, Path) else field.default
    return repr(default).replace("'", '"')
