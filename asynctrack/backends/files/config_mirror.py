"""Config mirror: a sink's own copy of the run's config and summary. Runs where the sink does.

A backend that keeps one asks for `milestones`: a resumed run starts with the config that it has then, whatever was
changed before.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from asynctrack.backends.base import Context, Update
from asynctrack.records.codec import to_json


class ConfigMirror:
    """A sink's copy of its run's config and summary.

    Args:
        context: of the sink; its state holds the return value of `state`.

    Attributes:
        config: of the run, as JSON has it.
        summary: of the run, as JSON has it.
    """

    def __init__(self, context: Context) -> None:
        state = context.state or {}
        self.config: dict[str, Any] = state.get("config", to_json(context.config))
        self.summary: dict[str, Any] = state.get("summary", {})

    def take(self, updates: Iterable[Update]) -> bool:
        """Apply updates.

        Returns:
            Whether they changed anything.
        """
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
        """Return config and summary for the sink's checkpoint."""
        return {"config": self.config, "summary": self.summary}
