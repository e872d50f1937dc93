"""Config mirror: a run's config and summary as a sink has been told of them. Runs where the sink does.

A backend that keeps one asks for `milestones`: a run that is resumed begins with the config it has then, whatever was changed before.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from asynctrack.backends.base import Context, Update
from asynctrack.records.codec import to_json


class ConfigMirror:
    """What a sink knows of its run.

    Args:
        context: of the sink; its state has what `state` gave.

    Attributes:
        config: of the run, as JSON has it.
        summary: the same.
    """

    def __init__(self, context: Context) -> None:
        state = context.state or {}
        self.config: dict[str, Any] = state.get("config", to_json(context.config))
        self.summary: dict[str, Any] = state.get("summary", {})

    def take(self, updates: Iterable[Update]) -> bool:
        """Take changes into account; whether there were any."""
        before = (dict(self.config), dict(self.summary))
        for update in updates:
            if update.kind == "start":
                self.config = to_json(update.data)
            elif update.kind in ("config", "summary"):
                update._replace(data=to_json(update.data)).change(
                    self.config if update.kind == "config" else self.summary
                )
        return before != (self.config, self.summary)

    def state(self) -> dict[str, Any]:
        return {"config": self.config, "summary": self.summary}
