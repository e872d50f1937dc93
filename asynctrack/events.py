"""Events: what happens in a run, one typed object after the other, for who wants to react.

| Event | When |
| --- | --- |
| `RunStarted` | the run is opened, for the first time or again |
| `Metrics` | a record was logged |
| `ConfigUpdated`, `SummaryUpdated` | some of it was set |
| `Checkpoint` | the state was saved: what came before it is on disk |
| `RunEnded` | the run has finished, failed, crashed or was preempted |

They come in the order of the journal, after the call that made them; between records and changes of one batch the order is that of the
clock. See `asynctrack.Subscriber`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened in a run.

    Attributes:
        run_id: of the run, unique in its project.
        time_ns: when, wall clock, nanoseconds since the epoch.
    """

    run_id: str
    time_ns: int


class RunStarted(Event, frozen=True, kw_only=True):
    """A run was opened.

    Attributes:
        name: of the run, for people.
        project: of the run.
        directory: the run's own.
        config: what it was opened with.
        resumed: whether it had been open before. A subscriber in the process that logs is then told all of it again, from the beginning;
            one that runs elsewhere is not.
    """

    name: str
    project: str
    directory: Path
    config: dict[str, Any]
    resumed: bool


class Metrics(Event, frozen=True, kw_only=True):
    """A record was logged.

    Attributes:
        data: names to values, nested as they were logged.
        step: the caller's, or the number where none was given.
        number: of the record in the process that logged it.
    """

    data: dict[str, Any]
    step: int
    number: int


class ConfigUpdated(Event, frozen=True, kw_only=True):
    """Some of the run's config was set, or taken from it.

    Attributes:
        data: what was set; a name of which something inside was changed comes with its whole value.
        removed: the names that were taken from it before that.
    """

    data: dict[str, Any]
    removed: tuple[str, ...] = ()


class SummaryUpdated(Event, frozen=True, kw_only=True):
    """Some of the run's summary was set, or taken from it; see `ConfigUpdated`."""

    data: dict[str, Any]
    removed: tuple[str, ...] = ()


class Checkpoint(Event, frozen=True, kw_only=True):
    """`Run.checkpoint` was called, with these counters."""

    counters: dict[str, Any]


class RunEnded(Event, frozen=True, kw_only=True):
    """The run has ended; its time is that of the last event before it.

    Attributes:
        status: how.
    """

    status: Literal["finished", "failed", "crashed", "preempted"]


if not TYPE_CHECKING:  # a type checker that saw it would let every name pass

    def __getattr__(name: str) -> Any:
        from asynctrack._system.suggestions import unknown_attribute

        raise unknown_attribute(globals(), name, "asynctrack")
