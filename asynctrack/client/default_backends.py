"""Default backends: which backends a run gets that is opened without `backends=`. Runs in the caller.

What was set in code comes first, then `ASYNCTRACK_BACKENDS`, then JSON Lines. The variable is a list of kinds, separated by commas, or one of

| Name | Backends |
| --- | --- |
| `standard` | JSON Lines; config and metadata as YAML; the console, at a terminal or in a notebook |
| `hydra` | JSON Lines; YAML; a line of the standard library's `logging` now and then |
| `minimal` | JSON Lines; progress bars |
| `none` | none: the journal alone |

A name stands for what works here: YAML needs PyYAML. What is listed by its kind has to be there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any, Final

from asynctrack._system.suggestions import hint, suggests
from asynctrack.backends.base import Backend
from asynctrack.backends.files.jsonl import JSONLines
from asynctrack.backends.registry import build, class_of, lacks, name_backends
from asynctrack.errors import AsynctrackError, BackendUnavailable, InvalidSettings

VARIABLE: Final = "ASYNCTRACK_BACKENDS"

_Chosen = tuple[Backend | str, ...]

# Kinds with the settings that differ from their own.
PRESETS: Final[dict[str, dict[str, dict[str, Any]]]] = {
    "standard": {"jsonl": {}, "yaml": {}, "console": {}},
    "hydra": {"jsonl": {}, "yaml": {}, "console": {"style": "log"}},
    "minimal": {"jsonl": {}, "console": {"style": "bars"}},
    "none": {},
}

_set: _Chosen | None = None
_more: _Chosen = ()


def default_backends() -> list[Backend | str]:
    """Return the backends of a run that is opened now without `backends=`.

    Raises:
        InvalidSettings: `ASYNCTRACK_BACKENDS` in the environment is not a list of backends.
    """
    return [*(_from_environment() if _set is None else _set), *_more]


def has_chosen_backends() -> bool:
    """Return whether the user has chosen the default backends, in code or in the environment."""
    return _set is not None or bool(_more) or bool(os.environ.get(VARIABLE))


@suggests
def set_default_backends(backends: Iterable[Backend | str]) -> None:
    """Set the backends of every run that is opened from now on without `backends=`, whatever the environment says.

    Args:
        backends: Objects or kinds. A kind such as "jsonl" makes an object for each run. An object is shared by all runs: a `Memory` is emptied
            by the next run.

    Raises:
        InvalidSettings: One of them is not a backend. The message names all of these.
    """
    global _set, _more
    _set, _more = _checked(backends), ()


@suggests
def extend_default_backends(backends: Iterable[Backend | str]) -> None:
    """Add backends to those of every run that is opened from now on without `backends=`.

    Args:
        backends: Objects or kinds; see `set_default_backends`.

    Raises:
        InvalidSettings: One of them is not a backend. The message names all of these.
    """
    global _more
    _more += _checked(backends)


def reset_default_backends() -> None:
    """Forget what `set_default_backends` and `extend_default_backends` have set: the environment decides again."""
    global _set, _more
    _set, _more = None, ()


def _checked(backends: Iterable[Backend | str]) -> _Chosen:
    if isinstance(backends, Iterable) and not isinstance(backends, str):
        backends = tuple(backends)  # it may be an iterator
    name_backends(backends)
    return tuple(backends)


def _from_environment() -> list[Backend | str]:
    names = [name for part in os.environ.get(VARIABLE, "").split(",") if (name := part.strip())]
    if not names:
        return [JSONLines()]
    if len(names) == 1 and names[0] in PRESETS:
        return [backend for kind in PRESETS[names[0]] if (backend := _preset(names[0], kind)) is not None]
    found, problems = list[Backend | str](), []
    for name in names:
        try:
            found.append(build(name))
        except (AsynctrackError, TypeError) as error:
            said = f": {error.reason}" if isinstance(error, BackendUnavailable) else f" {error}"
            more = f"; {name!r} stands alone" if name in PRESETS else ""
            if not (more or "did you mean" in str(error)):
                more = hint(name, PRESETS)
            problems.append(f"{VARIABLE} takes kinds of backends, or one of {', '.join(PRESETS)}: {name!r}{said}{more}")
    if problems:
        raise InvalidSettings(problems)
    return found


def _preset(name: str, kind: str) -> Backend | None:
    """Make a backend of a preset; None if it does not work here."""
    if name == "standard" and kind == "console" and not _is_watched():
        return None
    try:
        defined = class_of(kind)
    except BackendUnavailable:
        return None
    return None if lacks(defined) else defined(**PRESETS[name][kind])


def _is_watched() -> bool:
    """Tell whether somebody sits in front of this process, at a terminal or a notebook."""
    from asynctrack.backends.caller_display import in_notebook, is_terminal

    return is_terminal(sys.stdout) or in_notebook(sys.stdout)
