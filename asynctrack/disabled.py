"""DisabledRun: what `mode="disabled"` gives. Runs in the caller."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from asynctrack.books import Stats
from asynctrack.manifest import Manifest
from asynctrack.queue.producer import OPEN
from asynctrack.run import Run


class DisabledRun(Run):
    """A run whose every call does nothing; `log` in under 100 ns."""

    def __init__(self, manifest: Manifest, path: Path) -> None:
        super().__init__(manifest, path, _Nowhere())  # type: ignore[arg-type]  # it does as a Sitting does

    def __repr__(self) -> str:
        return f"<Run {self.project}/{self.id}, disabled>"

    def log(self, data: Mapping[str, Any], step: int | None = None) -> bool:
        return True

    async def alog(self, data: Mapping[str, Any], step: int | None = None) -> bool:
        return True


class _Nowhere:
    """Stands for the sitting of a run that records nothing, and for its inlet and its queue: takes all, and is done at once."""

    result = None
    state = OPEN
    number = 0

    def __init__(self) -> None:
        self.inlet = self.producer = self
        self.joined: list[object] = []

    def put(self, *_: object) -> bool:
        return True

    def update(self, *_: object) -> None: ...

    def preempt(self) -> None: ...

    def stats(self) -> Stats:
        return Stats()

    def flushing(self, *_: object) -> Iterator[float]:
        return iter(())

    finishing = flushing

    def settle(self, *, waited: bool) -> Stats:
        return Stats()
