"""DisabledRun: what `mode="disabled"` gives. Runs in the caller."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from asynctrack.books import Stats
from asynctrack.current import leave
from asynctrack.fields import Fields
from asynctrack.manifest import Manifest
from asynctrack.run import Run
from asynctrack.settings import Until


class DisabledRun(Run):
    """A run whose every call does nothing, in under 100 ns."""

    def __init__(self, manifest: Manifest, path: Path) -> None:
        self.id = manifest.id
        self.name = manifest.name
        self.project = manifest.project
        self.path = path
        self.config = Fields(manifest.config, lambda fresh: None)
        self.summary = Fields(manifest.summary, lambda fresh: None)
        self._result = Stats()

    def __repr__(self) -> str:
        return f"<Run {self.project}/{self.id}, disabled>"

    def log(self, data: Mapping[str, Any], step: int | None = None) -> bool:
        return True

    async def alog(self, data: Mapping[str, Any], step: int | None = None) -> bool:
        return True

    def _flushing(self, until: Until, timeout_s: float) -> Iterator[float]:
        return iter(())

    def _finishing(
        self,
        status: str,
        summary: Mapping[str, Any] | None = None,
        error: str | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[float]:
        return iter(())

    def _settled(self) -> Stats:
        leave(self)
        return Stats()
