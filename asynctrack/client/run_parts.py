"""Run parts: what a `Run` asks of the things behind it. `session` and `publisher` are those of a run that records, `disabled_run` has the others."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from asynctrack.backends.base import Backend
from asynctrack.client.write_gate import PutHolder, WriteState
from asynctrack.reading.stats import RunStats
from asynctrack.settings import FinishWait, Until

T = TypeVar("T")


class RunWriter(Protocol):
    """Takes what a run records. Called from any thread, signal handler or finaliser; see `Publisher` for what each call promises and raises."""

    @property
    def state(self) -> WriteState: ...

    @property
    def offered(self) -> int: ...

    def serve(self, holder: PutHolder) -> None: ...

    def encode(self, data: Mapping[Any, Any], step: object) -> bytes: ...

    def on_put_failed(self, payload: bytes) -> bool: ...

    async def put_async(self, payload: bytes) -> bool: ...

    def hold(self, payload: bytes) -> bool: ...

    def update(
        self,
        kind: int,
        what: str,
        fresh: Mapping[str, Any],
        deadline: float | None = None,
        removed: Sequence[str] = (),
    ) -> None: ...

    def preempt(self) -> None: ...


class AnySession(Protocol):
    """Waits for what a run has recorded, and ends it. Called from any thread; see `RunSession` for what each call promises and raises."""

    backends: dict[str, Backend]
    unrecorded: list[Callable[[], object]]

    @property
    def publisher(self) -> RunWriter: ...

    def stats(self) -> RunStats: ...

    def read_in_time(self, read: Callable[[], T], timeout_s: float) -> T: ...

    def flushing(self, until: Until, timeout_s: float) -> Iterator[float]: ...

    def finishing(
        self,
        error: BaseException | None,
        summary: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
        wait: FinishWait = "own",
    ) -> Generator[float, None, None]: ...

    def settle(self, *, waited: bool = True) -> RunStats: ...
