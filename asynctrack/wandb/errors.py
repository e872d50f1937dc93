"""Errors: W&B's names for them. `except wandb.Error` catches all of ours."""

from __future__ import annotations

from asynctrack.errors import AsynctrackError as Error
from asynctrack.errors import UsageError

__all__ = ["CommError", "ConfigError", "Error", "UsageError"]


class CommError(Error):
    """Raised when the script asks for something that only W&B's servers have."""


class ConfigError(Error):
    """Raised when a config already has another value for a name.

    Args:
        key: the name.
        before: its value.
        value: the other value.
    """

    def __init__(self, key: str, before: object, value: object) -> None:
        super().__init__(
            f"config has {key!r} already, as {before!r:.80}, and it is given as {value!r:.80}; "
            f"to change it, call config.update({{{key!r}: ...}}, allow_val_change=True)"
        )
