"""Environment: read the arguments of `init` that W&B's variables give."""

from __future__ import annotations

import os
from typing import Any, Final

_TEXTS: Final = {
    "project": "WANDB_PROJECT",
    "entity": "WANDB_ENTITY",
    "name": "WANDB_NAME",
    "id": "WANDB_RUN_ID",
    "resume": "WANDB_RESUME",
    "group": "WANDB_RUN_GROUP",
    "job_type": "WANDB_JOB_TYPE",
    "notes": "WANDB_NOTES",
    "dir": "WANDB_DIR",
    "x_label": "WANDB__LABEL",
}
_TRUE: Final = frozenset({"1", "true", "t", "yes", "y", "on"})


def given() -> dict[str, Any]:
    """Return the arguments of `init` that the environment has."""
    found: dict[str, Any] = {name: text for name, variable in _TEXTS.items() if (text := os.environ.get(variable))}
    if tags := [tag.strip() for tag in os.environ.get("WANDB_TAGS", "").split(",") if tag.strip()]:
        found["tags"] = tags
    if primary := os.environ.get("WANDB__PRIMARY"):
        found["x_primary"] = primary.lower() in _TRUE
    if os.environ.get("ASYNCTRACK_MODE"):  # our own variable comes first; `asynctrack.init` reads it
        if os.environ.get("WANDB_MODE") == "shared":  # who writes to the run, and not how
            found["mode"] = "shared"
    elif _is_set("WANDB_DISABLED"):
        found["mode"] = "disabled"
    elif mode := os.environ.get("WANDB_MODE"):
        found["mode"] = mode
    return found


def is_silent() -> bool:
    """Return whether `WANDB_SILENT` is set."""
    return _is_set("WANDB_SILENT")


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in _TRUE
