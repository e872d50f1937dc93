"""Disabled run: what `mode="disabled"` gives. Runs in the caller."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from asynctrack.backends.base import Backend
from asynctrack.client.run import Run
from asynctrack.journal.manifest import Manifest
from asynctrack.reading.stats import RunStats
from asynctrack.settings import Mode


class DisabledRun(Run):
    """A run whose every call does nothing; `log` in under 100 ns."""

    def __init__(self, manifest: Manifest, path: Path, backends: dict[str, Backend]) -> None:
        super().__init__(manifest, path, _NullSession(backends))  # type: ignore[arg-type]  # it does as a RunSession does

    def __repr__(self) -> str:
        return f"<Run {self.project}/{self.id}, disabled>"

    def log(self, data: Mapping[str, Any], step: int | None = None, commit: bool | None = None) -> bool:
        return True

    @property
    def mode(self) -> Mode:
        return "disabled"

    async def alog(self, data: Mapping[str, Any], step: int | None = None) -> bool:
        return True


class _NullSession:
    """Stands for the session of a run that records nothing, and for its publisher and its queue: takes all, and is done at once."""

    result: RunStats | None = None

    def __init__(self, backends: dict[str, Backend]) -> None:
        self.backends = backends
        self.publisher = self.producer = self
        self.joined: list[object] = []
        self.unrecorded: list[object] = []

    def put(self, *_: object) -> bool:
        return True

    def update(self, *_: object) -> None: ...

    def preempt(self) -> None: ...

    def stats(self) -> RunStats:
        return RunStats()

    def flushing(self, *_: object) -> Iterator[float]:
        return iter(())

    finishing = flushing

    def read_in_time(self, *_: object) -> NoReturn:
        raise FileNotFoundError("nothing is recorded")

    def settle(self, *, waited: bool) -> RunStats:
        self.result = RunStats()
        return self.result
