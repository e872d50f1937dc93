"""W&B's arguments: how what a script gives to `wandb.init` is taken by ours, so that it runs unchanged. Runs in the caller.

What names a run (`entity`, `group`, `job_type`, `tags`, `notes`) is kept with it, and is what the W&B backend tells W&B where its own settings do not.
What only W&B has is ignored, and said once by its name. All else that `init` does not know is refused, as ever.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from asynctrack.client.config_sources import as_mapping
from asynctrack.errors import InvalidSettings
from asynctrack.settings import Settings
from asynctrack.wandb_api.unsupported import say_unsupported, unsupported

LABELS: Final = ("entity", "group", "job_type", "notes", "tags")
# W&B's own name for what has no project.
DEFAULT_PROJECT: Final = "uncategorized"

# Arguments of `wandb.init` that have no meaning here.
_IGNORED: Final = frozenset(
    [
        "allow_val_change",
        "anonymous",
        "config_exclude_keys",
        "config_include_keys",
        "force",
        "fork_from",
        "magic",
        "monitor_gym",
        "resume_from",
        "save_code",
        "sync_tensorboard",
        "tensorboard",
    ]
)
_MODES: Final = {"dryrun": "offline", "shared": "online"}
_RESUMES: Final = {None: "never", False: "never", True: "allow", "auto": "allow"}


def project_or_default(project: str | None) -> str:
    """The project of a run that was opened without one: the environment's `WANDB_PROJECT`, else "uncategorized"."""
    return os.environ.get("WANDB_PROJECT") or DEFAULT_PROJECT if project is None else project


def as_config(config: Any, limits: Mapping[str, Any]) -> dict[Any, Any]:
    """A config as a mapping, without the keys that W&B's arguments leave out; see `asynctrack.client.config_sources`.

    Raises:
        InvalidConfig: it is nothing of which a config can be made.
        InvalidSettings: it is a file that cannot be read, or has no mapping.
    """
    if config is None:
        return {}
    config = as_mapping(config)
    only, without = limits.get("config_include_keys"), limits.get("config_exclude_keys")
    return {key: value for key, value in config.items() if (not only or key in only) and key not in (without or ())}


def as_limits(limits: Mapping[str, Any], settings: Settings | Mapping[str, Any] | None) -> dict[str, Any]:
    """What is left of the arguments that `init` does not name, and of `settings`.

    Raises:
        InvalidSettings: `settings` are neither ours nor a mapping.
    """
    ignored = {name: value for name, value in limits.items() if name in _IGNORED and not name.startswith("config_")}
    say_unsupported("init", {name: value or None for name, value in ignored.items()})
    return {**_of_settings(settings), **{name: value for name, value in limits.items() if name not in _IGNORED}}


def as_labels(given: Mapping[str, Any]) -> dict[str, Any]:
    """What names a run beside its name; only what was given.

    Raises:
        InvalidSettings: something is no text.
    """
    labels = {name: value for name, value in given.items() if value}
    tags = labels.get("tags")
    if isinstance(tags, str):
        labels["tags"] = [tags]
    elif tags is not None and isinstance(tags, Sequence | set | frozenset):
        labels["tags"] = list(tags)
    elif tags is not None:
        raise InvalidSettings([f"tags must be a list of texts; got {tags!r:.80}"])
    texts = [*labels.get("tags", ()), *(value for name, value in labels.items() if name != "tags")]
    if wrong := [text for text in texts if not isinstance(text, str)]:
        raise InvalidSettings([f"{', '.join(LABELS[:-1])} and each of the tags must be texts; got {wrong[0]!r:.80}"])
    return labels


def as_mode(mode: Any) -> Any:
    """A mode, where it is one of W&B's as ours."""
    if isinstance(mode, str) and mode in _MODES:
        unsupported(f"init(mode={mode!r})", f"mode={_MODES[mode]!r} is used")
        return _MODES[mode]
    return mode


def as_resume(resume: Any) -> Any:
    """What to do where there is such a run, where W&B says so otherwise."""
    return _RESUMES.get(resume, resume) if isinstance(resume, bool | str | None) else resume


def _of_settings(settings: Settings | Mapping[str, Any] | None) -> dict[str, Any]:
    """What differs from our defaults in settings that were made before."""
    if settings is None:
        return {}
    if isinstance(settings, Mapping):
        try:
            settings = Settings(**{str(name): value for name, value in settings.items()})
        except TypeError as error:
            raise InvalidSettings([f"settings: {error}"]) from error
    if not isinstance(settings, Settings):
        raise InvalidSettings([f"settings must be of `asynctrack.Settings`, or a mapping; got {settings!r:.80}"])
    defaults = Settings()
    found = msgspec.structs.asdict(settings).items()
    return {name: value for name, value in found if value != getattr(defaults, name)}
