"""Which backends there are by name, where they run, and how they are stored in `run.json`."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from asynctrack import trust
from asynctrack.backends.base import Backend, Context, Place, Sink, kind_of
from asynctrack.backends.jsonl import JSONLines
from asynctrack.errors import BackendUnavailable, InvalidSettings

# Our own, imported when they are asked for.
KINDS: Final[dict[str, str]] = {
    "jsonl": "asynctrack.backends.jsonl.JSONLines",
    "memory": "asynctrack.backends.memory.Memory",
    "mlflow": "asynctrack.backends.mlflow.MLflow",
    "tensorboard": "asynctrack.backends.tensorboard.TensorBoard",
    "trackio": "asynctrack.backends.trackio.Trackio",
}


def name_backends(backends: Iterable[Backend | str] | None) -> dict[str, Backend]:
    """The backends of a run by name: the kind, with a number where there are several of one.

    Raises:
        InvalidSettings: something is not a backend.
    """
    if isinstance(backends, str | Backend) or not isinstance(backends, Iterable | None):
        raise InvalidSettings([f"backends must be a list of backends or their names; got {backends!r:.80}"])
    chosen: list[Backend | str] = [JSONLines()] if backends is None else list(backends)
    problems = [
        f"backends[{i}] must be a backend or one of {', '.join(KINDS)}; got {backend!r:.80}"
        for i, backend in enumerate(chosen)
        if not isinstance(backend, Backend) and str(backend) not in KINDS
    ]
    if problems:
        raise InvalidSettings(problems)
    named: dict[str, Backend] = {}
    for given in chosen:
        backend = class_of(given)() if isinstance(given, str) else given
        kind = re.sub(r"[^A-Za-z0-9_]+", "_", kind_of(backend))  # the name of a file, too
        number = sum(name.split("-")[0] == kind for name in named) + 1
        named[kind if number == 1 else f"{kind}-{number}"] = backend
    return named


def class_of(kind: str) -> type[Backend]:
    """The backend of a kind: one of our own by name, a user's by the dotted path of its class.

    Raises:
        BackendUnavailable: there is none, or it cannot be imported.
    """
    module, _, name = KINDS.get(kind, kind).rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # what runs there is another's code
        raise BackendUnavailable(kind, f"it cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Backend)):
        raise BackendUnavailable(kind, "it is not a Backend")
    return found


def place_of(backend: Backend) -> Place:
    """Where a backend's sink runs: where its class says, if it can be imported there."""
    defined = type(backend)
    module = sys.modules.get(defined.__module__)
    # What a script, a notebook or `exec` defines has no place from which another process could import it.
    has_place = defined.__module__ not in ("__main__", "__mp_main__") and getattr(module, "__spec__", None) is not None
    return backend.place if has_place and getattr(module, defined.__qualname__, None) is defined else "caller"


def stored(backend: Backend, run_id: str, name: str) -> dict[str, Any]:
    """A backend's settings as `run.json` keeps them; of one that lives in its caller the kind only."""
    if place_of(backend) == "caller":
        return {"kind": kind_of(backend), "place": "caller"}
    plain: dict[str, Any] = msgspec.to_builtins(backend, str_keys=True)
    defined = type(backend)
    own = KINDS.get(kind_of(backend)) == f"{defined.__module__}.{defined.__qualname__}"
    if not own:
        plain["kind"] = f"{defined.__module__}.{defined.__qualname__}"
    if not own or backend.reaches():
        plain[trust.SEAL] = trust.seal(run_id, name, plain)
    return plain


def from_stored(settings: dict[str, Any], *, trusted: bool = True) -> Backend:
    """The backend with these settings.

    Args:
        settings: as `stored` made them.
        trusted: whether this user made them. Else only our own kinds are built, and none that leads out of the run's directory.

    Raises:
        BackendUnavailable: it cannot be built outside its caller, or not without trust, or the settings are not its own.
    """
    plain = {key: value for key, value in settings.items() if key != trust.SEAL}
    kind = str(plain.get("kind"))
    if plain.get("place") == "caller":
        raise BackendUnavailable(kind, "it lives in the process that logs")
    if not trusted and kind not in KINDS:
        raise BackendUnavailable(kind, "it is code that the run brings along; `asynctrack sync --trust` runs it")
    defined = class_of(kind)
    try:
        backend = msgspec.convert({**plain, "kind": defined.__struct_config__.tag}, defined)
    except Exception as error:  # the settings are wrong, or what checks them is another's code
        raise BackendUnavailable(kind, str(error)) from error
    if not trusted and (leads := backend.reaches()):
        raise BackendUnavailable(kind, f"it leads to {', '.join(leads)}; `asynctrack sync --trust` goes there")
    return backend


class Unbuilt(Backend, frozen=True, kw_only=True, tag="unbuilt"):
    """Stands for a backend that cannot be built, until it can: what is missing may be installed meanwhile.

    Attributes:
        settings: as `stored` made them.
    """

    place = "process"
    settings: dict[str, Any]

    def open(self, context: Context) -> Sink:
        importlib.invalidate_caches()
        return from_stored(self.settings).open(context)
