"""Registry: which backends there are by name, where they run, and how they are stored in `run.json`.

A name is one of ours, or that of an entry point in the group `asynctrack.backends` by which an installed distribution offers its own;
these are looked at only when a name is not ours, and loaded only when it is theirs.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import msgspec

from asynctrack._system import trust
from asynctrack._system.suggestions import hint
from asynctrack.backends import env_refs
from asynctrack.backends.base import ActionRequired, Backend, Context, Execution, Sink, kind_of
from asynctrack.backends.class_origin import delivery_command, origin_of
from asynctrack.backends.requirements import is_there
from asynctrack.backends.stored_settings import lives_in_caller, renamed
from asynctrack.errors import AsynctrackError, BackendUnavailable, InvalidSettings

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

# Of the entry points of other distributions.
GROUP: Final = "asynctrack.backends"

# Our own, imported when they are asked for.
KINDS: Final[dict[str, str]] = {
    "console": "asynctrack.backends.console.Console",
    "csv": "asynctrack.backends.files.csv.CSV",
    "json": "asynctrack.backends.files.json_columns.JSON",
    "hydra_link": "asynctrack.backends.hydra_link.HydraLink",
    "jsonl": "asynctrack.backends.files.jsonl.JSONLines",
    "live_plot": "asynctrack.backends.plots.live_plot.LivePlot",
    "matplotlib": "asynctrack.backends.plots.matplotlib.Matplotlib",
    "memory": "asynctrack.backends.memory.Memory",
    "mlflow": "asynctrack.backends.mlflow.MLflow",
    "parquet": "asynctrack.backends.files.parquet.Parquet",
    "plotly": "asynctrack.backends.plots.plotly.Plotly",
    "sql": "asynctrack.backends.sql.SQL",
    "subscriber": "asynctrack.backends.subscriber.Subscriber",
    "tensorboard": "asynctrack.backends.tensorboard.TensorBoard",
    "trackio": "asynctrack.backends.trackio.Trackio",
    "visdom": "asynctrack.backends.visdom.Visdom",
    "wandb": "asynctrack.backends.wandb.WandB",
    "yaml": "asynctrack.backends.files.yaml.YAML",
}

# Not for users to choose.
_INTERNAL: Final = {
    "collector": "asynctrack.backends.collector.Collector",
    "files": "asynctrack.backends.part_files.PartFiles",
}
_OURS: Final = {**KINDS, **_INTERNAL}


def name_backends(backends: Iterable[Backend | str]) -> dict[str, Backend]:
    """Name the backends of a run: by their kind, with a number if there are several of one kind.

    Raises:
        InvalidSettings: One of them is not a backend. The message names all of these.
    """
    if isinstance(backends, str | Backend) or not isinstance(backends, Iterable):
        single = f"; write `[{backends!r}]`" if isinstance(backends, str) else ""
        raise InvalidSettings([f"backends must be a list of backends or their names; got {backends!r:.80}{single}"])
    named: dict[str, Backend] = {}
    problems = []
    for at, given in enumerate(backends):
        try:
            backend = given if isinstance(given, Backend) else build(given)
        except BackendUnavailable as error:
            problems.append(f"backends[{at}] is {given!r:.80}: {unusable(error)}")
            continue
        except (AsynctrackError, TypeError) as error:
            problems.append(f"backends[{at}] {error}")
            continue
        kind = kind_of(backend)
        if not (kind.isascii() and kind.isidentifier()):  # it is the name of a file, too
            kind = re.sub(r"[^A-Za-z0-9_]+", "_", kind)
        number = sum(name.split("-")[0] == kind for name in named) + 1
        named[kind if number == 1 else f"{kind}-{number}"] = backend
    if problems:
        raise InvalidSettings(problems)
    return named


def build(kind: object) -> Backend:
    """Build a backend with its default settings.

    Args:
        kind: The name of one of ours or of a plug-in, or the dotted path of a class.

    Raises:
        TypeError: There is no such kind, or it cannot be built without settings.
        BackendUnavailable: Its class cannot be imported.
        InvalidSettings: A setting that it reads from the environment is wrong.
    """
    if isinstance(kind, type) and issubclass(kind, Backend):
        name = kind.__name__
        raise TypeError(f"must be a backend, and is the class of one: write `{name}()` in place of `{name}`")
    if not isinstance(kind, str) or ("." not in kind and kind not in KINDS and kind not in plug_ins()):
        known = _kinds()
        meant = hint(kind, known) if isinstance(kind, str) else ""
        raise TypeError(f"must be a backend or one of {', '.join(known)}; got {kind!r:.80}{meant}")
    return class_of(kind)()


def class_of(kind: str) -> type[Backend]:
    """Find the class of a kind. It is imported, and not called.

    Args:
        kind: The name of one of ours or of a plug-in, or the dotted path of a class.

    Raises:
        BackendUnavailable: There is none, it cannot be imported, or it is not a backend.
    """
    try:
        found = _load(kind)
    except (Exception, SystemExit) as error:  # what runs there is another's code
        raise BackendUnavailable(kind, f"it cannot be imported: {error}") from error
    if found is None:
        raise BackendUnavailable(kind, f"there is none of this name{hint(kind, _kinds())}")
    if not (isinstance(found, type) and issubclass(found, Backend) and found is not Backend):
        raise BackendUnavailable(kind, _no_backend(found))
    return found


def unusable(error: BackendUnavailable) -> str:
    """Say why what a user has named is no backend, and, unless a library is missing or one name is much alike, which backends there are."""
    if error.__cause__ is not None or "did you mean" in error.reason:
        return error.reason
    return (
        f"{error.reason}; expected one of {', '.join(_kinds())}, or the path of a class, such as 'my_package.MyBackend'"
    )


def plug_ins() -> dict[str, EntryPoint]:
    """List the backends that installed distributions offer, by name. Nothing is imported. A name of ours stays ours, and the first of a name counts."""
    # It takes 10 to 22 ms, nearly what `init` may take: so it is asked only for a name that is not ours.
    from importlib.metadata import entry_points

    try:
        points = list(entry_points(group=GROUP))
    except Exception:  # what one distribution says of itself cannot be read; the others' can
        points = list(_each_by_itself())
    found: dict[str, EntryPoint] = {}
    for point in points:
        if point.name not in KINDS:
            found.setdefault(point.name, point)
    return found


def lacks(backend: Backend | type[Backend]) -> list[str]:
    """List what `pip install` needs to be given before a backend can open here."""
    return [wanted for module, wanted in backend.needs.items() if not is_there(module)]


def execution_of(backend: Backend) -> Execution:
    """Tell where a backend's sink runs: where its class says, or in the caller if the class cannot be imported elsewhere."""
    defined = type(backend)
    module = sys.modules.get(defined.__module__)
    # What a script, a notebook or `exec` defines has no place from which another process could import it.
    has_place = defined.__module__ not in ("__main__", "__mp_main__") and getattr(module, "__spec__", None) is not None
    return backend.execution if has_place and getattr(module, defined.__qualname__, None) is defined else "caller"


def stored(backend: Backend, run_id: str, name: str) -> dict[str, Any]:
    """Make the entry of a backend in `run.json`: its settings, or only its kind if it lives in the caller."""
    defined = type(backend)
    own = _OURS.get(kind_of(backend)) == f"{defined.__module__}.{defined.__qualname__}"
    if execution_of(backend) == "caller":
        return _of_caller(backend, run_id, name, own=own)
    plain: dict[str, Any] = msgspec.to_builtins(backend, str_keys=True)
    for field in backend.references:
        plain.pop(field, None)
    if not own:
        plain["kind"] = f"{defined.__module__}.{defined.__qualname__}"
    if not own or backend.references or backend.external_targets():
        plain[trust.SEAL] = trust.seal(run_id, name, plain)
    return plain


def _of_caller(backend: Backend, run_id: str, name: str, *, own: bool) -> dict[str, Any]:
    """Make the entry of a backend that lives in the caller: its kind and where to import it from. Its settings may be any objects, and are left out."""
    plain: dict[str, Any] = {"kind": kind_of(backend), "execution": "caller"}
    if own or not (origin := origin_of(type(backend))):
        return plain
    plain |= origin
    if not _has_defaults_only(backend):
        plain["settings"] = "in its process"
    plain[trust.SEAL] = trust.seal(run_id, name, plain)
    return plain


def _has_defaults_only(backend: Backend) -> bool:
    try:
        return all(
            getattr(backend, field.name) == field.default
            if field.default is not msgspec.NODEFAULT
            else not getattr(backend, field.name)
            for field in msgspec.structs.fields(type(backend))
        )
    except Exception:  # what compares there is another's code
        return False


def goes_with_its_process(settings: Mapping[str, Any]) -> bool:
    """Tell whether a backend only shows or keeps records in the process that logs: after its end there is nothing left to deliver to."""
    return lives_in_caller(settings) and settings.get("kind") in ("memory", "live_plot")


def from_caller(settings: Mapping[str, Any], *, trusted: bool) -> Backend:
    """Build a backend that lived in a process that has ended.

    Args:
        settings: The entry that `stored` made.
        trusted: True if this user made it.

    Raises:
        BackendUnavailable: It cannot be built. The message says how to deliver to it by hand.
    """
    kind, path = str(settings.get("kind")), settings.get("class")
    lived = "it lived in the process that logged"
    if not isinstance(path, str) or settings.get("script"):
        raise BackendUnavailable(kind, f"{lived}; {delivery_command(settings)}")
    if "settings" in settings:
        raise BackendUnavailable(
            kind, f"{lived}, with settings of its own; {delivery_command(settings)} (give them as KEY=VALUE)"
        )
    if not trusted:
        raise BackendUnavailable(kind, "it is code that the run brings along; `asynctrack sync --trust` runs it")
    try:
        return class_of(path)()
    except Exception as error:  # what is called there is another's code
        raise BackendUnavailable(
            kind, f"{lived}, and cannot be built here ({error}); {delivery_command(settings)}"
        ) from error


def from_stored(settings: dict[str, Any], *, trusted: bool = True) -> Backend:
    """Build a backend from its entry in `run.json`; `Unbuilt` if the environment lacks a variable that the entry refers to.

    Args:
        settings: The entry that `stored` made.
        trusted: True if this user made it. Else only our own kinds are built, and none that leads out of the run's directory.

    Raises:
        BackendUnavailable: It lives in the process that logs, it needs trust, or the settings do not fit.
    """
    plain = {key: value for key, value in renamed(settings).items() if key != trust.SEAL}
    kind = str(plain.get("kind"))
    if lives_in_caller(plain):
        raise BackendUnavailable(kind, "it lives in the process that logs")
    if not trusted and kind not in _OURS:
        raise BackendUnavailable(kind, "it is code that the run brings along; `asynctrack sync --trust` runs it")
    written = plain.get("references") or {}
    if not trusted and written:
        raise BackendUnavailable(kind, "it reads the environment; `asynctrack sync --trust` lets it")
    if env_refs.missing(written):
        return Unbuilt(settings=settings)
    defined = class_of(kind)
    resolved = {**plain, **env_refs.resolve(written), "kind": defined.__struct_config__.tag}
    try:
        backend = msgspec.convert(resolved, defined, strict=not written)
    except msgspec.ValidationError as error:
        from asynctrack._system.wrong_types import explain  # rarely needed

        raise BackendUnavailable(kind, env_refs.hide(explain(error, plain), written)) from error
    except Exception as error:  # the settings are wrong, or what checks them is another's code
        raise BackendUnavailable(kind, env_refs.hide(str(error), written)) from error
    if not trusted and (leads := backend.external_targets()):
        raise BackendUnavailable(kind, f"it leads to {', '.join(leads)}; `asynctrack sync --trust` goes there")
    return backend


class Unbuilt(Backend, frozen=True, kw_only=True, tag="unbuilt"):
    """Stands for a backend that cannot be built yet: a library may be installed later, or a variable set in another process.

    Attributes:
        settings: The entry that `stored` made.
    """

    settings: dict[str, Any]

    @property
    def execution(self) -> Execution:  # type: ignore[override]  # of the class elsewhere
        # To say what is missing nothing is imported.
        return "worker" if env_refs.missing(self.references) else "process"

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "references", self.settings.get("references") or {})
        super().__post_init__()

    def lacking(self) -> list[str]:
        unset = env_refs.missing(self.references)
        where = "in the environment of the process that opens the run, or of `asynctrack sync`"
        return [f"it needs {' and '.join(unset)}: set it {where}"] if unset else []

    def open(self, context: Context) -> Sink:
        for what in self.lacking():
            raise ActionRequired(what)
        importlib.invalidate_caches()
        return from_stored(self.settings).open(context)


def _kinds() -> list[str]:
    return [*KINDS, *plug_ins()]


def _no_backend(found: object) -> str:
    """Say what a path leads to that is not the class of a backend."""
    if found is Backend:
        return "it is the base class of all backends, and not a backend itself"
    if isinstance(found, type):
        return f"it is the class {found.__name__}, which is not derived from asynctrack.Backend"
    kind = (
        "a module"
        if isinstance(found, ModuleType)
        else "a function"
        if callable(found)
        else f"of type {type(found).__name__}"
    )
    return f"it is {kind}, and not the class of a backend"


def _load(kind: str) -> object:
    """Import what a kind names; None if nothing has this name."""
    path = _OURS.get(kind, kind)
    if "." not in path:
        point = plug_ins().get(kind)
        return None if point is None else point.load()
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _each_by_itself() -> Iterator[EntryPoint]:
    from importlib.metadata import distributions

    for distribution in distributions():
        with contextlib.suppress(Exception):
            yield from distribution.entry_points.select(group=GROUP)
