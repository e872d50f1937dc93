"""Events: what happens in a run, as typed objects in order, for `asynctrack.Subscriber`.

| Event | When |
| --- | --- |
| `RunStarted` | the run is opened, for the first time or again |
| `Metrics` | a record was logged |
| `ConfigUpdated`, `SummaryUpdated` | some of it was set |
| `Checkpoint` | the state was saved: all events before it are on disk |
| `WriterJoined` | another process has begun to write to the run |
| `WriterEnded` | a process that writes to the run has ended, or was killed; only where it has several |
| `RunEnded` | the run has finished, failed, crashed or was preempted |

They come in the order of the journal, after the call that made them. Records and changes of one batch come in the order of the clock.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Tells of something that happened in a run.

    Attributes:
        run_id: id of the run, unique in its project.
        time_ns: wall clock, nanoseconds since the epoch.
    """

    run_id: str
    time_ns: int


class RunStarted(Event, frozen=True, kw_only=True):
    """Tells that a run was opened.

    Attributes:
        name: of the run, for people.
        project: of the run.
        directory: the run's own directory.
        config: what it was opened with.
        resumed: True if it had been open before. A subscriber in the process that logs then gets all events again, from the beginning; one that runs
            elsewhere does not.
    """

    name: str
    project: str
    directory: Path
    config: dict[str, Any]
    resumed: bool


class Metrics(Event, frozen=True, kw_only=True):
    """Tells that a record was logged.

    Attributes:
        data: names to values, nested as they were logged.
        step: the step that was given, or the number where none was.
        number: of the record in the process that logged it, from 0.
        writer: the label of that process, in a run that several write to.
    """

    data: dict[str, Any]
    step: int
    number: int
    writer: str | None = None


class ConfigUpdated(Event, frozen=True, kw_only=True):
    """Tells that some of the run's config was set or removed.

    Attributes:
        data: what was set. A name whose nested part was changed comes with its whole value.
        removed: the names that were removed before that.
    """

    data: dict[str, Any]
    removed: tuple[str, ...] = ()


class SummaryUpdated(Event, frozen=True, kw_only=True):
    """Tells that some of the run's summary was set or removed.

    Attributes:
        data: as in `ConfigUpdated`.
        removed: as in `ConfigUpdated`.
    """

    data: dict[str, Any]
    removed: tuple[str, ...] = ()


class Checkpoint(Event, frozen=True, kw_only=True):
    """Tells that `Run.checkpoint` was called.

    Attributes:
        counters: the values that it was given.
    """

    counters: dict[str, Any]


class WriterJoined(Event, frozen=True, kw_only=True):
    """Tells that a process has joined the run, beside the one that has opened it.

    Attributes:
        writer: its label. A rank that is started again has the same.
        rank: of the process; None where it has none.
        host: the name of its machine.
        pid: of the process.
    """

    writer: str
    rank: int | None = None
    host: str = ""
    pid: int = 0


class WriterEnded(Event, frozen=True, kw_only=True):
    """Tells how a process has ended that wrote to a run with several writers. It comes within a second of the death of the process.

    Where its exit code says otherwise than it did, the event comes again.

    Attributes:
        writer: its label.
        status: "finished", "failed", "crashed" (it died without a word) or "terminated" (by SIGTERM, as its parent ends it).
        last_step: the step of its last record; None where it has logged none.
        error: what ended it, where something went wrong: "killed by SIGKILL".
    """

    writer: str
    status: Literal["finished", "failed", "crashed", "terminated"]
    last_step: int | None = None
    error: str | None = None


class RunEnded(Event, frozen=True, kw_only=True):
    """Tells that the run has ended. Its time is that of the last event before it.

    Attributes:
        status: "finished", "failed", "crashed" or "preempted".
    """

    status: Literal["finished", "failed", "crashed", "preempted"]


if not TYPE_CHECKING:  # a type checker that saw it would let every name pass

    def __getattr__(name: str) -> Any:
        from asynctrack._system.suggestions import unknown_attribute

        raise unknown_attribute(globals(), name, "asynctrack")
