"""Stored settings: what `run.json` keeps of a backend, read under the names of earlier versions too. Runs anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

# Settings that had another name when the run was written. Its seal is over what is written, so nothing but their reading changes.
_FORMER_NAMES: Final = {"at_most_every_s": "downsample_interval_s"}
# The same of a kind alone: another's backend may have a setting of that name.
_FORMER_NAMES_OF: Final = {"console": {"screen": "display"}, "live_plot": {"screen": "display"}}


def renamed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings by the names of this version; those that a reference stands for too."""
    former = {**_FORMER_NAMES, **_FORMER_NAMES_OF.get(str(settings.get("kind")), {})}
    return {
        former.get(name, name): renamed(value) if name == "references" and isinstance(value, Mapping) else value
        for name, value in settings.items()
    }


def lives_in_caller(settings: Mapping[str, Any]) -> bool:
    """Whether the backend runs in the process that logs; earlier versions called that its place."""
    return bool(settings.get("execution", settings.get("place")) == "caller")
