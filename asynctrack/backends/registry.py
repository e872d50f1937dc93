"""Which backends there are by name, and how they are stored in `run.json`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from asynctrack.backends.base import Backend, kind_of
from asynctrack.backends.jsonl import JSONLines
from asynctrack.backends.memory import Memory
from asynctrack.errors import BackendUnavailable, InvalidSettings

# Backends that can be built from their stored settings anywhere.
_BUILT_IN: Final[dict[str, type[Backend]]] = {"jsonl": JSONLines}


def name_backends(backends: Iterable[Backend | str] | None) -> dict[str, Backend]:
    """The backends of a run by name: the kind, with a number where there are several of one.

    Raises:
        InvalidSettings: something is not a backend.
    """
    if isinstance(backends, str | Backend) or not isinstance(backends, Iterable | None):
        raise InvalidSettings([f"backends must be a list of backends or their names; got {backends!r:.80}"])
    chosen: list[Backend | str] = [JSONLines()] if backends is None else list(backends)
    by_name: dict[str, type[Backend]] = {**_BUILT_IN, "memory": Memory}
    problems = [
        f"backends[{i}] must be a backend or one of {', '.join(by_name)}; got {backend!r:.80}"
        for i, backend in enumerate(chosen)
        if not isinstance(backend, Backend) and str(backend) not in by_name
    ]
    if problems:
        raise InvalidSettings(problems)
    named: dict[str, Backend] = {}
    for given in chosen:
        backend: Backend = by_name[given]() if isinstance(given, str) else given
        kind = kind_of(backend)
        number = sum(name.split("-")[0] == kind for name in named) + 1
        named[kind if number == 1 else f"{kind}-{number}"] = backend
    return named


def stored(backend: Backend) -> dict[str, Any]:
    """A backend's settings as `run.json` keeps them; of one that lives in its caller the kind only."""
    if backend.place == "caller":
        return {"kind": kind_of(backend), "place": "caller"}
    plain: dict[str, Any] = msgspec.to_builtins(backend)
    return plain


def from_stored(settings: dict[str, Any]) -> Backend:
    """The backend with these settings.

    Raises:
        BackendUnavailable: it cannot be built outside its caller, or the settings are not its own.
    """
    kind = str(settings.get("kind"))
    if kind not in _BUILT_IN or settings.get("place") == "caller":
        raise BackendUnavailable(kind, "it lives in the process that logs")
    try:
        return msgspec.convert(settings, _BUILT_IN[kind])
    except msgspec.ValidationError as error:
        raise BackendUnavailable(kind, str(error)) from error
