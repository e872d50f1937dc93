"""Disabled run: what `mode="disabled"` gives: it takes every call, records nothing, and is done at once. Runs in the caller."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from asynctrack.backends.base import Backend
from asynctrack.client.run import Run
from asynctrack.client.write_gate import DISABLED, FINISHED, PutHolder, WriteState
from asynctrack.journal.manifest import Manifest
from asynctrack.journal.writer_list import WriterStats
from asynctrack.reading.stats import RunStats
from asynctrack.settings import FinishWait, Mode, Until


class DisabledRun(Run):
    """A run whose every call does nothing; `log` in under 100 ns."""

    def __init__(self, manifest: Manifest, path: Path, backends: dict[str, Backend]) -> None:
        super().__init__(manifest, path, DisabledSession(backends))
        self.created_at = manifest.created_at

    def __repr__(self) -> str:
        return f"<Run {self.project}/{self.id}, disabled>"

    def _repr_html_(self) -> None:
        """Return nothing: its text tells all."""

    def log(self, data: Mapping[str, Any], step: int | None = None, commit: bool | None = None) -> bool:
        """Record nothing, and say that it is recorded."""
        return True

    @property
    def mode(self) -> Mode:
        """Return "disabled"."""
        return "disabled"

    @property
    def writers(self) -> Mapping[str, WriterStats]:
        """Return none."""
        return {}

    async def alog(self, data: Mapping[str, Any], step: int | None = None) -> bool:
        """Record nothing, and say that it is recorded."""
        return True


class AbsentRun(DisabledRun):
    """Stands for a run that was not there when this process attached: the next `attach` looks again."""


class DisabledWriter:
    """Takes all, and records nothing."""

    state: WriteState = DISABLED
    offered = 0

    def serve(self, holder: PutHolder) -> None:
        holder._put = self.on_put_failed

    def encode(self, data: Mapping[Any, Any], step: object) -> bytes:
        return b""

    def on_put_failed(self, payload: bytes) -> bool:
        return True

    async def put_async(self, payload: bytes) -> bool:
        return True

    def hold(self, payload: bytes) -> bool:
        return True

    def update(
        self,
        kind: int,
        what: str,
        fresh: Mapping[str, Any],
        deadline: float | None = None,
        removed: Sequence[str] = (),
    ) -> None: ...

    def preempt(self) -> None: ...


class DisabledSession:
    """Waits for nothing."""

    def __init__(self, backends: dict[str, Backend]) -> None:
        self.backends = backends
        self.publisher = DisabledWriter()
        self.unrecorded: list[Callable[[], object]] = []

    def stats(self) -> RunStats:
        return RunStats()

    def read_in_time(self, read: object, timeout_s: float) -> NoReturn:
        raise FileNotFoundError("a disabled run has no files")

    def flushing(self, until: Until, timeout_s: float) -> Iterator[float]:
        return iter(())

    def finishing(
        self,
        error: BaseException | None,
        summary: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
        wait: FinishWait = "own",
    ) -> Generator[float, None, None]:
        yield from ()

    def settle(self, *, waited: bool = True) -> RunStats:
        self.publisher.state = FINISHED
        return RunStats()
