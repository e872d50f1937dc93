"""Init arguments: what the arguments of `init` and its `settings` say together, and whether a run can be opened with them. Runs in the caller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias, get_args

import msgspec

from asynctrack._system import messages
from asynctrack._system.native_threads import replaced_by
from asynctrack._system.spawn import why_not
from asynctrack._system.wording import see
from asynctrack.backends.registry import name_backends
from asynctrack.client.config_sources import as_config
from asynctrack.client.default_backends import default_backends
from asynctrack.client.labels import LABELS, as_labels, as_text
from asynctrack.errors import InvalidSettings
from asynctrack.settings import Resume, Settings, check_project

# What a config is given as: a mapping, an object with fields, or the path of a file; see `asynctrack.client.config_sources`. No narrower type can be
# told: pyright knows no attribute of the classes that attrs makes.
Config: TypeAlias = object
Reinit = Literal["default", "create_new", "finish_previous", "return_previous"]
# Of a run that was opened without one.
DEFAULT_PROJECT: Final = "uncategorized"
# Of the arguments of `init` that are settings.
_DEFAULTS: Final[dict[str, Any]] = {
    **msgspec.structs.asdict(Settings()),
    "dir": None,
    "mode": None,
    "environment": None,
    "diff": None,
}
# Of its arguments that are checked elsewhere.
_NO_SETTINGS: Final = frozenset({"backends", "name", "settings", "reinit", "quiet", *LABELS})


def merge(settings: Settings | Mapping[str, Any] | None, given: Mapping[str, Any]) -> Settings:
    """Make the settings of a run: an argument that is not the default has precedence over `settings`.

    Args:
        settings: See `init`.
        given: Other arguments of `init`, the default ones too.

    Raises:
        InvalidSettings: A setting cannot be used.
    """
    chosen = {name: value for name, value in given.items() if not _is_default(name, value)}
    return Settings.build({**_changed(settings), **chosen})


def check_settings(project: str, settings: Mapping[str, Any], config: object = None) -> None:
    """Refuse now what `init` would refuse later.

    Args:
        project: See `init`.
        settings: Other arguments of `init`.
        config: See `init`.

    Raises:
        InvalidSettings, InvalidProject, InvalidConfig: See `init`.
    """
    as_config(config)
    check_project(project)
    as_labels({name: settings.get(name) for name in LABELS})
    if settings.get("name") is not None:
        as_text("name", settings["name"])
    check_words("never", settings.get("reinit", "default"))
    merge(settings.get("settings"), {name: value for name, value in settings.items() if name not in _NO_SETTINGS})
    backends = settings.get("backends")
    name_backends(default_backends() if backends is None else backends)


def check_words(resume: Resume, reinit: Reinit) -> None:
    """Check the values of `resume` and `reinit`.

    Raises:
        InvalidSettings: one of them is not allowed.
    """
    for what, word, words in (("resume", resume, get_args(Resume)), ("reinit", reinit, get_args(Reinit))):
        if word not in words:
            raise InvalidSettings([f"{what} must be one of {', '.join(map(repr, words))}; got {word!r:.80}"])


def check_join(join: object) -> None:
    """Check the value of `join`: a text would count as True, whatever it says.

    Raises:
        InvalidSettings: it is not allowed.
    """
    if not isinstance(join, bool):
        raise InvalidSettings([f"join must be True or False; got {join!r:.80}"])


def with_a_worker(settings: Settings) -> Settings:
    """Return the settings with a worker that this process can have.

    Raises:
        InvalidSettings: threads are asked for, and another library has put its own in their place.
    """
    if settings.worker == "thread" and (library := replaced_by()):
        raise InvalidSettings([_no_threads(library)])
    if settings.worker == "process" and (why := why_not()):
        more = see("how_to/containers_and_clusters.md#where-no-worker-can-be-started")
        messages.warn_now(f"asynctrack: no worker process can be started here ({why}); worker='thread' is used{more}")
        return msgspec.structs.replace(settings, worker="thread")
    return settings


def _changed(settings: Settings | Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the settings that differ from the defaults.

    Raises:
        InvalidSettings: they are neither `Settings` nor a mapping.
    """
    if settings is None:
        return {}
    if isinstance(settings, Mapping):
        return {str(name): value for name, value in settings.items()}
    if not isinstance(settings, Settings):
        raise InvalidSettings([f"settings must be of `asynctrack.Settings`, or a mapping; got {settings!r:.80}"])
    defaults = Settings()
    found = msgspec.structs.asdict(settings).items()
    return {name: value for name, value in found if value != getattr(defaults, name)}


def _is_default(name: str, value: object) -> bool:
    """Tell whether an argument of `init` has its default, so that `settings` may say another value."""
    return name in _DEFAULTS and type(value) is type(_DEFAULTS[name]) and value == _DEFAULTS[name]


def _no_threads(library: str) -> str:
    return (
        f"worker='thread' needs threads that run beside the loop, and {library} has put its own in their place, which wait until the loop lets "
        "them run: use worker='process', the default"
    )
