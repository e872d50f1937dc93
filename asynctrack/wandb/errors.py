"""Errors by W&B's names: `except wandb.Error` catches all of ours."""

from __future__ import annotations

from asynctrack.errors import AsynctrackError as Error
from asynctrack.errors import UsageError

__all__ = ["CommError", "ConfigError", "Error", "UsageError"]


class CommError(Error):
    """Something that only W&B's servers could give was asked for."""


class ConfigError(Error):
    """A config has the value already, and another is given."""

    def __init__(self, key: str, before: object, value: object) -> None:
        super().__init__(
            f"config has {key!r} already, as {before!r:.80}, and it is given as {value!r:.80}; "
            f"to change it, call config.update({{{key!r}: ...}}, allow_val_change=True)"
        )
