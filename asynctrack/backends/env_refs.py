"""Env refs: settings that name an environment variable, so that its value is kept nowhere.

`${env:NAME}` in a text stands for the variable, `${env:NAME,text}` for `text` where there is none. OmegaConf's
`${oc.env:NAME}` means the same. They are looked up in the process that uses the setting: in the caller, and again where
the sink opens.

A backend has the values in its fields and the references beside them, in `references`. A special text type in the
fields would be lost with the first `str()`, f-string or `structs.replace` of a backend's code.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

_REFERENCE: Final = re.compile(r"\$\{(?:oc\.)?env:\s*([A-Za-z_][A-Za-z0-9_]*)\s*(?:,([^}]*))?\}")
# A shorter value may be in a message by chance, as a number or a word: it is not replaced. Arbitrary.
_SHORTEST_SECRET: Final = 4


def refers(value: Any) -> bool:
    """Return whether a setting has a reference in it, at any depth."""
    return any(True for _ in _found(value))


def name_of(value: object) -> str | None:
    """Return the variable's name where a setting is one reference and nothing else, otherwise None."""
    match = _REFERENCE.fullmatch(value.strip()) if isinstance(value, str) else None
    return match[1] if match is not None and match[2] is None else None


def missing(value: Any) -> list[str]:
    """List the variables that a setting refers to and the environment does not have."""
    names = (match[1] for match in _found(value) if match[2] is None)
    return [name for name in dict.fromkeys(names) if name not in os.environ]


def resolve(value: Any) -> Any:
    """Replace the references in a setting by their values.

    Raises:
        KeyError: the environment does not have a variable.
    """
    if isinstance(value, str):
        return _REFERENCE.sub(_value, value)
    if isinstance(value, Mapping):
        return {key: resolve(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [resolve(item) for item in value]
    return value


def hide(text: str, written: Any) -> str:
    """Put these references in place of their values in a text."""
    for match in _found(written):
        value = os.environ.get(match[1], "")
        if len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, match[0])
    return text


def _value(match: re.Match[str]) -> str:
    return os.environ[match[1]] if match[2] is None else os.environ.get(match[1], match[2].strip())


def _found(value: Any) -> Iterator[re.Match[str]]:
    if isinstance(value, str):
        yield from _REFERENCE.finditer(value)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _found(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _found(item)
