"""Base: the promises of a backend, and what a backend may rely on.

A *backend* is its settings: a frozen struct, so that it can be built in code, stored in `run.json` and sent to another
process. `open()` turns it into a *sink*, which does the work. The exception that a sink raises tells its delivery how
to go on.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, NamedTuple, get_args

import msgspec

from asynctrack._system.structs import Struct
from asynctrack.backends.requirements import lacking
from asynctrack.errors import InvalidSettings
from asynctrack.records.codec import Record

Execution = Literal["worker", "process", "caller"]
Outcome = Literal["finished", "failed", "crashed", "preempted", "stopped"]
WriterSelection = Literal["all", "owner", "prefix", "split", "mean"]

# A batch is cut at this many bytes of frames: about 1,200 records, 2 ms of the worker's loop to decode and encode.
BATCH_BYTES: Final = 128 * 1024


class Update(NamedTuple):
    """Holds a change of a run's config or summary.

    First the names in `removed` are deleted, then `data` is merged key by key.

    A key that was changed somewhere inside comes with its whole value.

    Some kinds change neither config nor summary. Backends that ask for `milestones` get "start" (the run was opened
    with this config; always the first of a batch) and "checkpoint" (with its counters). Those that ask for
    `takes_labels` get "labels" (the run's new name, tags or notes). Those that ask for `takes_writers` get "join" (a
    process has begun to write to the run) and "leave" (how one has ended).

    Attributes:
        kind: of change, as above.
        time_ns: wall clock of the change, nanoseconds since the epoch.
        data: new values by key.
        removed: keys to delete.
    """

    kind: Literal["config", "summary", "start", "checkpoint", "labels", "join", "leave"]
    time_ns: int
    data: dict[str, Any]
    removed: tuple[str, ...] = ()

    def change(self, content: dict[str, Any]) -> None:
        """Apply the update to a config or summary.

        Args:
            content: the config or summary, changed in place.
        """
        for name in self.removed:
            content.pop(name, None)
        content.update(self.data)


class Batch(NamedTuple):
    """Holds the records and updates that a sink gets in one call, each in the order of the journal.

    Attributes:
        records: of the run; there may be none.
        updates: of its config, summary, milestones and labels; there may be none.
    """

    records: list[Record]
    updates: list[Update]


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """Tells a sink about the run when it opens.

    Attributes:
        run_id: of the run, unique in its project.
        name: of the run, for people.
        project: of the run.
        directory: the run's own; a sink that writes files writes them there unless told otherwise.
        created_at: when the run was opened first, UTC, ISO 8601.
        config: of the run when it started.
        labels: further labels of the run, where it has them: "entity", "group", "job_type", "notes" and "tags".
        state: the return value of the sink's last `checkpoint`, None the first time.
        writer: with `writers = "split"`, the label of the process whose records the sink gets; None for those of the
            owner, whose sink also gets all updates. Other sinks get changes of the config only.
    """

    run_id: str
    name: str
    project: str
    directory: Path
    created_at: str = ""
    config: dict[str, Any]
    labels: dict[str, Any] = {}
    state: dict[str, Any] | None = None
    writer: str | None = None


class Signal(Exception):
    """Tells a delivery how to go on: the base of the exceptions that a sink may raise.

    After any other exception the batch is tried again.
    """


class Resend(Signal):
    """Asks for a new sink and for the whole run again, from its first record.

    Args:
        reason: for people.
        state: what the new sink finds in `Context.state`.
    """

    def __init__(self, reason: str, state: dict[str, Any] | None = None) -> None:
        super().__init__(reason)
        self.state = state


class Retry(Signal):
    """Says that the backend cannot take the batch now: the same batch comes again later.

    Args:
        reason: for people.
        after_s: seconds until then; None leaves the pause to the delivery.
    """

    def __init__(self, reason: str, after_s: float | None = None) -> None:
        super().__init__(reason)
        self.after_s = after_s


class Unreachable(Retry):
    """Says that nobody is there, which one try of a connection tells: it is tried again soon, since that costs nobody anything."""


class TooLarge(Signal):
    """Says that the batch is too large: it comes again in halves. A single record that is too large is rejected."""


class Rejected(Signal):
    """Says that the backend will never take some records.

    They go to `dead_letters.jsonl` with the reason, and the others come again.

    Args:
        reason: for people.
        which: indices of the rejected records in the batch. Without them the batch comes again in halves, until each
            rejected record is alone.
    """

    def __init__(self, reason: str, which: Collection[int] | None = None) -> None:
        super().__init__(reason)
        self.which: frozenset[int] | None = None if which is None else frozenset(which)


class ActionRequired(Signal):
    """Says that only a person can solve the problem (a key, a quota, a missing library).

    Nothing is lost; the delivery tries again now and then.

    Args:
        reason: what is wrong, and how to solve it.
    """


class Sink:
    """Writes a run's records, while a backend is open.

    All calls come from one delivery, one at a time, in this order: `write` any number of times with `checkpoint` in
    between, then `close` once. A call that raises is repeated.

    Each method may be a plain function or a coroutine function. A plain one runs in a thread of its own. A coroutine
    runs in an asyncio loop, and must not hold it for longer than a few milliseconds. Blocking delays this backend only.

    Whatever `write` raises is reported, and the same batch is given again after a while. So a sink that is killed or
    fails in the middle of a batch gets that batch again, and must know which part of it the backend already has. After
    a crash the sink is opened with the state of its last `checkpoint`, and gets everything since then again.
    """

    def write(self, batch: Batch) -> Awaitable[Mapping[str, int] | None] | Mapping[str, int] | None:
        """Take a batch. Return when the backend has it.

        Args:
            batch: of records and updates.

        Returns:
            How many records the backend cannot show, by reason; None where it shows them all.

        Raises:
            Retry: the batch should come again later. Any other exception but those below counts as this one.
            TooLarge: the batch should come in halves.
            Rejected: some records will never be taken.
            ActionRequired: a person must solve a problem first.
            Resend: the whole run should come again.
        """
        raise NotImplementedError(f"{type(self).__name__} has no write(batch)")

    def checkpoint(self) -> Awaitable[dict[str, Any] | None] | dict[str, Any] | None:
        """Make what was written survive a crash.

        It covers the writes that have returned. A write that failed may have come in between.

        Returns:
            The state from which `open` can go on after a crash, as JSON can hold it.
        """
        return None

    def close(self, outcome: Outcome) -> Awaitable[None] | None:
        """Close the backend: the run has ended, or delivery pauses.

        Args:
            outcome: how the run ended; "stopped" where only its delivery pauses.
        """
        return None


class Backend(Struct, frozen=True, kw_only=True, tag_field="kind", omit_defaults=True):
    """Holds the settings of a backend. Subclass it with your own fields and an `open`.

    Attributes:
        max_records_s: records a second that it gets at most; None for no limit.
        downsample_interval_s: for displays. The run is divided into stretches of so many seconds. From each stretch the
            backend gets only the records that hold the first, the last, the least and the greatest value of each key.
            None for every record.
        stall_timeout_s: with `execution = "process"`: seconds that one call of the sink may take. After that its
            process is killed and started again.
        writers: what it gets of a run that several processes write to. "all": every record, with the label of its
            writer where the backend has a place for it. "owner": the records of rank 0, or of the process that opened
            the run. "prefix": every record, with its writer in front of each name: `rank3/loss`. "split": a run, folder
            or file for each writer. "mean": per step the mean over the writers as `loss`, with `loss/min`, `loss/max`
            and `loss/ranks`, the number of writers. A run of one writer is not changed by it.

        execution: where its sink runs: "worker" (importable, light and asynchronous), "process" (importable, in a
            process of its own per kind: for SDKs, which may hang or crash) or "caller" (a thread of the process that
            logs).
        remote: whether it needs a network: such a backend waits for `asynctrack sync` with mode="offline".
        idempotent: whether a record that is given twice shows once. Where it shows twice, `asynctrack sync` delivers a
            copied run only with `--force`.
        batch_records: records in a batch, at most.
        batch_bytes: bytes in a batch, at most and about, as they were logged.
        batch_age_s: seconds that the first record of a batch waits for others, at most.
        milestones: whether it also gets the run's starts and checkpoints, as updates.
        takes_labels: whether it also gets other names, tags and notes of the run, as updates.
        can_split: whether it can do `writers="split"`: its `open` then makes a place of its own for `Context.writer`.
        takes_writers: whether it also gets which processes join a run of several writers and how each ends, as updates.
        needs: modules of other projects without which it cannot open, each with the argument of `pip install` that
            brings it.
        references: settings that were given as references to the environment, by field, as they were written.
            `run.json` keeps them in place of the values. `Tracker.from_config` fills it.
    """

    execution: ClassVar[Execution] = "caller"
    remote: ClassVar[bool] = False
    idempotent: ClassVar[bool] = True
    batch_records: ClassVar[int] = 100_000
    batch_bytes: ClassVar[int] = BATCH_BYTES
    batch_age_s: ClassVar[float] = 0.0
    milestones: ClassVar[bool] = False
    takes_labels: ClassVar[bool] = False
    takes_writers: ClassVar[bool] = False
    can_split: ClassVar[bool] = False
    needs: ClassVar[Mapping[str, str]] = {}

    max_records_s: float | None = None
    downsample_interval_s: float | None = None
    stall_timeout_s: float = 120.0
    writers: WriterSelection = "all"
    references: dict[str, Any] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        limits = {name: getattr(self, name) for name in ("max_records_s", "downsample_interval_s", "stall_timeout_s")}
        problems = [
            f"{name} must be a number greater than 0; got {value!r:.80}"
            for name, value in limits.items()
            if value is not None
            and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf)
        ]
        choices = selections_of(self)
        if self.writers not in choices:
            known = ", ".join(f"'{choice}'" for choice in choices)
            problems.append(f"writers of {type(self).__name__} must be one of {known}; got {self.writers!r:.80}")
        if problems:
            raise InvalidSettings(problems)

    def __repr__(self) -> str:
        settings = {name: getattr(self, name) for name in self.__struct_fields__ if name != "references"}
        shown = ", ".join(f"{name}={value!r}" for name, value in {**settings, **self.references}.items())
        return f"{type(self).__name__}({shown})"

    def prepare(self) -> Backend:
        """Make the settings ready to be stored; called in the process that logs when a run opens. Must not wait.

        Returns:
            The settings to go on with.
        """
        return self

    def lacking(self) -> list[str]:
        """List what is missing here before the backend can be opened: libraries, keys.

        Called in the process that logs when a run opens, so that its user learns of it then. Must neither wait nor
        import a library; whatever cannot be known so is left out.

        Returns:
            A sentence for each, which says how to get it.
        """
        return lacking(self.needs)

    def open(self, context: Context) -> Sink:
        """Open a sink for one run. Import the backend's library here, not at the top of the module.

        Args:
            context: facts about the run, and the state of an earlier sink.

        Returns:
            The sink.

        Raises:
            Retry: it cannot be opened now.
            ActionRequired: a person must solve a problem first. For a missing library it says how to install it.
        """
        raise NotImplementedError(f"{type(self).__name__} has no open(context)")

    def external_targets(self) -> list[str]:
        """List the addresses, and the paths outside the run's directory, that these settings write to.

        A run from elsewhere must be trusted before it is delivered to any of them.

        Returns:
            Addresses and paths; none where the backend stays in the run's directory.
        """
        return []


def kind_of(backend: Backend) -> str:
    """Return the name by which `run.json` knows a backend."""
    return str(type(backend).__struct_config__.tag)


def selections_of(*backends: Backend) -> list[str]:
    """List what the setting `writers` of all these backends may be."""
    can_split = all(backend.can_split for backend in backends)
    return [choice for choice in get_args(WriterSelection) if can_split or choice != "split"]


def instead_of_means(*backends: Backend) -> str:
    """Name what the setting `writers` of all these backends may be in place of "mean", for a message."""
    *first, last = (repr(choice) for choice in selections_of(*backends) if choice != "mean")
    return f"writers={', '.join(first)} or {last}"
