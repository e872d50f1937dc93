"""Base: what a backend promises, and what it may assume.

A *backend* is its settings: a frozen struct, so that it can be built in code, stored in `run.json` and sent to another
process. `open()` turns it into a *sink*, which does the work. What a sink raises tells the delivery what to do.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, NamedTuple

import msgspec

from asynctrack._system.structs import Struct
from asynctrack.backends.requirements import lacking
from asynctrack.errors import InvalidSettings
from asynctrack.records.codec import Record

Execution = Literal["worker", "process", "caller"]
Outcome = Literal["finished", "failed", "crashed", "preempted", "stopped"]

# A batch is cut at this many bytes of frames: about 1,200 records, 2 ms of the worker's loop to decode and encode.
BATCH_BYTES: Final = 128 * 1024


class Update(NamedTuple):
    """A change of a run's config or summary: the names `removed` are taken from it, then `data` is merged into it key by key.

    A key that was changed somewhere inside comes with its whole value.

    Backends that ask for `milestones` also get what changes neither: "start", the run was opened with this config, as the first of a
    batch; and "checkpoint", with its counters. Those that ask for `takes_labels` get "labels": the run's new name, tags or notes.
    """

    kind: Literal["config", "summary", "start", "checkpoint", "labels"]
    time_ns: int
    data: dict[str, Any]
    removed: tuple[str, ...] = ()

    def change(self, content: dict[str, Any]) -> None:
        """Make the change to a config or summary."""
        for name in self.removed:
            content.pop(name, None)
        content.update(self.data)


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
        created_at: when the run was opened first, UTC, ISO 8601.
        config: of the run when it started.
        labels: what names the run beside its name: "entity", "group", "job_type", "notes" and "tags", where it has them.
        state: what the sink's `checkpoint` returned last, None the first time.
    """

    run_id: str
    name: str
    project: str
    directory: Path
    created_at: str = ""
    config: dict[str, Any]
    labels: dict[str, Any] = {}
    state: dict[str, Any] | None = None


class Signal(Exception):
    """The base of what a sink raises to say what its delivery should do. Anything else that it raises is tried again."""


class Resend(Signal):
    """The sink is to be opened anew and given the whole run again; `state` is for the new sink."""

    def __init__(self, reason: str, state: dict[str, Any] | None = None) -> None:
        super().__init__(reason)
        self.state = state


class Retry(Signal):
    """The backend cannot take the batch now: the same batch comes again, after `after_s` seconds where it has said so."""

    def __init__(self, reason: str, after_s: float | None = None) -> None:
        super().__init__(reason)
        self.after_s = after_s


class TooLarge(Signal):
    """The batch comes again in halves; a single record that is too large is rejected."""


class Rejected(Signal):
    """The backend will never take some records: they go to `dead_letters.jsonl` with the reason, and the others come again.

    Args:
        reason: for people.
        which: indices of the rejected among the batch's records. Without it the batch comes again in halves, until each of the
            rejected is alone.
    """

    def __init__(self, reason: str, which: Collection[int] | None = None) -> None:
        super().__init__(reason)
        self.which: frozenset[int] | None = None if which is None else frozenset(which)


class ActionRequired(Signal):
    """Only a person can mend it (a key, a quota, a missing library): nothing is lost, and it is tried again now and then.

    Args:
        reason: what is wrong, and what to do about it.
    """


class Sink:
    """An open backend.

    All calls come from one delivery, one at a time, in this order: `write` any number of times with `checkpoint` in
    between, then `close` once; what raises is called again. Each may be a plain function, which runs in a thread of its own, or a coroutine function,
    which runs in an asyncio loop and must not hold it for longer than a few milliseconds. Blocking delays this
    backend only. Whatever `write` raises is reported, and the same batch is given again after a while: so a sink
    that is killed or fails in the middle of a batch gets it again, and should know what it has. After a crash it is opened
    with the state of its last `checkpoint`, and gets everything since then again.
    """

    def write(self, batch: Batch) -> Awaitable[Mapping[str, int] | None] | Mapping[str, int] | None:
        """Take a batch. Returns when the backend has it.

        Returns:
            How many of the records it cannot show, by reason; None where it shows them all.

        Raises:
            Retry, TooLarge, Rejected, ActionRequired, Resend: what to do with the batch. Anything else is as `Retry`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no write(batch)")

    def checkpoint(self) -> Awaitable[dict[str, Any] | None] | dict[str, Any] | None:
        """Make what was written survive a crash; returns what `open` needs to go on from here, as JSON can hold it.

        It is about the writes that have returned; one that has failed may have come in between.
        """
        return None

    def close(self, outcome: Outcome) -> Awaitable[None] | None:
        """The run has ended, or ("stopped") delivery pauses here."""
        return None


class Backend(Struct, frozen=True, kw_only=True, tag_field="kind", omit_defaults=True):
    """Settings of a backend; subclass it with your own fields and an `open`.

    Attributes:
        max_records_s: records a second it is given at most, None for as many as it takes.
        downsample_interval_s: for displays: of each stretch of so many seconds it gets the records that hold the first, the last, the least and the
            greatest value of each key; the others are skipped. None for every record.
        stall_timeout_s: with `execution = "process"`: seconds that one call of the sink may take before its process is killed and started again.

        execution: where its sink runs: "worker" (importable, light and asynchronous), "process" (importable, in a process of its own per
            kind: for SDKs, which may hang or crash) or "caller" (a thread of the process that logs).
        remote: whether it needs a network: such a backend waits for `asynctrack sync` with mode="offline".
        idempotent: whether a record that it is given twice shows once. Where it shows twice, a copied run needs `sync --force`.
        batch_records: a batch is cut at so many records,
        batch_bytes: at about so many bytes as they were logged,
        batch_age_s: and when its first record has waited so many seconds.
        milestones: whether it also gets the run's starts and checkpoints, as updates.
        takes_labels: whether it also gets other names, tags and notes of the run, as updates.
        needs: modules of other projects without which it cannot open, each with what `pip install` takes for it.
        references: settings that were given as references to the environment, by field, as they were written: `run.json` gets them in
            the values' place. `Tracker.from_config` fills it.
    """

    execution: ClassVar[Execution] = "caller"
    remote: ClassVar[bool] = False
    idempotent: ClassVar[bool] = True
    batch_records: ClassVar[int] = 100_000
    batch_bytes: ClassVar[int] = BATCH_BYTES
    batch_age_s: ClassVar[float] = 0.0
    milestones: ClassVar[bool] = False
    takes_labels: ClassVar[bool] = False
    needs: ClassVar[Mapping[str, str]] = {}

    max_records_s: float | None = None
    downsample_interval_s: float | None = None
    stall_timeout_s: float = 120.0
    references: dict[str, Any] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        limits = {name: getattr(self, name) for name in ("max_records_s", "downsample_interval_s", "stall_timeout_s")}
        problems = [
            f"{name} must be a number greater than 0; got {value!r:.80}"
            for name, value in limits.items()
            if value is not None
            and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf)
        ]
        if problems:
            raise InvalidSettings(problems)

    def __repr__(self) -> str:
        settings = {name: getattr(self, name) for name in self.__struct_fields__ if name != "references"}
        shown = ", ".join(f"{name}={value!r}" for name, value in {**settings, **self.references}.items())
        return f"{type(self).__name__}({shown})"

    def prepare(self) -> Backend:
        """Called in the process that logs when a run opens; returns the settings to go on with. Must not wait."""
        return self

    def lacking(self) -> list[str]:
        """What it lacks here before it can be opened: libraries, keys; each as a sentence that says what to do.

        Called in the process that logs when a run opens, so that its user is told then. Must not wait, nor import a library; what cannot be known
        so is left out.
        """
        return lacking(self.needs)

    def open(self, context: Context) -> Sink:
        """A sink for one run. Import the backend's library here, not at the top of the module.

        Raises:
            Retry, ActionRequired: it cannot be opened now; as from `write`. A missing library is an `ActionRequired` that says how to install it.
        """
        raise NotImplementedError(f"{type(self).__name__} has no open(context)")

    def external_targets(self) -> list[str]:
        """Addresses, and paths outside the run's directory, that these settings lead to: a run from elsewhere must be trusted for them."""
        return []


def kind_of(backend: Backend) -> str:
    """The name a backend is known by in `run.json`."""
    return str(type(backend).__struct_config__.tag)
