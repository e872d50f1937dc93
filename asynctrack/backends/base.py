"""What a backend promises, and what it may assume.

A *backend* is its settings: a frozen struct, so that it can be built in code, stored in `run.json` and sent to another
process. `open()` turns it into a *sink*, which does the work.
"""

from __future__ import annotations

from collections.abc import Awaitable
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import msgspec

from asynctrack.record import Record

Place = Literal["worker", "caller"]
Outcome = Literal["finished", "failed", "crashed", "stopped"]


class Update(NamedTuple):
    """A change of a run's config or summary: `data` is merged into it key by key."""

    kind: Literal["config", "summary"]
    time_ns: int
    data: dict[str, Any]


class Batch(NamedTuple):
    """What a sink gets at once: records and updates, each in the order of the journal."""

    records: list[Record]
    updates: list[Update]


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What a sink is told when it opens.

    Attributes:
        run_id: of the run, unique in its project.
        name: of the run, for people.
        project: of the run.
        directory: the run's own; a sink that writes files writes them there unless told otherwise.
        config: of the run when it started.
        state: what the sink's `checkpoint` returned last, None the first time.
    """

    run_id: str
    name: str
    project: str
    directory: Path
    config: dict[str, Any]
    state: dict[str, Any] | None = None


class StartOver(Exception):
    """Raised by a sink's `write` to be opened anew and given the whole run again; `state` is for the new sink."""

    def __init__(self, reason: str, state: dict[str, Any] | None = None) -> None:
        super().__init__(reason)
        self.state = state


class Sink:
    """An open backend.

    All calls come from one delivery, one at a time, in this order: `write` any number of times with `checkpoint` in
    between, then `close` once. Each may be a plain function, which runs in a thread of its own, or a coroutine function,
    which runs in the worker's asyncio loop and must not hold it for longer than a few milliseconds. Blocking delays this
    backend only. Whatever `write` raises is reported, and the same batch is given again after a while: so a sink
    that is killed or fails in the middle of a batch gets it again, and should know what it has. After a crash it is opened
    with the state of its last `checkpoint`, and gets everything since then again.
    """

    def write(self, batch: Batch) -> Awaitable[None] | None:
        """Take a batch. Returns when the backend has it."""
        raise NotImplementedError(f"{type(self).__name__} has no write(batch)")

    def checkpoint(self) -> Awaitable[dict[str, Any] | None] | dict[str, Any] | None:
        """Make what was written survive a crash; returns what `open` needs to go on from here, as JSON can hold it."""
        return None

    def close(self, outcome: Outcome) -> Awaitable[None] | None:
        """The run has ended, or ("stopped") delivery pauses here."""
        return None


class Backend(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """Settings of a backend; subclass it with your own fields and an `open`.

    Attributes:
        place: where its sink runs: "worker" (importable, needs nothing of the caller's process) or "caller" (a thread of
            the process that logs).
        remote: whether it needs a network: such a backend waits for `asynctrack sync` with mode="offline".
    """

    place: ClassVar[Place] = "caller"
    remote: ClassVar[bool] = False

    def open(self, context: Context) -> Sink:
        """A sink for one run. Import the backend's library here, not at the top of the module."""
        raise NotImplementedError(f"{type(self).__name__} has no open(context)")


def kind_of(backend: Backend) -> str:
    """The name a backend is known by in `run.json`."""
    return str(type(backend).__struct_config__.tag)
