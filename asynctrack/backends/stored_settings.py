"""Stored settings: read a backend's settings from `run.json`, also under the names of earlier versions.

Runs anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

# Settings that had another name in earlier versions. `run.json` stays as it was written, since its seal covers that.
_FORMER_NAMES: Final = {"at_most_every_s": "downsample_interval_s"}
# Former names that only these kinds had: other backends may have a setting of that name.
_FORMER_NAMES_OF: Final = {"console": {"screen": "display"}, "live_plot": {"screen": "display"}}


def renamed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings under the names of this version, including those that a reference stands for."""
    former = {**_FORMER_NAMES, **_FORMER_NAMES_OF.get(str(settings.get("kind")), {})}
    return {
        former.get(name, name): renamed(value) if name == "references" and isinstance(value, Mapping) else value
        for name, value in settings.items()
    }


def lives_in_caller(settings: Mapping[str, Any]) -> bool:
    """Return whether the backend runs in the process that logs. Earlier versions kept this under `place`."""
    return bool(settings.get("execution", settings.get("place")) == "caller")
