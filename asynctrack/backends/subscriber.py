"""Subscriber: pass a run's events to a user's function. Runs in a thread of the caller, or where its class says.

A subscriber is a backend with its own cursor in the journal. An exception from it is reported like any backend's
failure, and the same event comes again after a while. Neither the user's loop nor another subscriber notices.
"""

from __future__ import annotations

import heapq
import inspect
import operator
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Final

from asynctrack.backends.base import Backend, Batch, Context, Outcome, Rejected, Retry, Signal, Sink, Update
from asynctrack.errors import InvalidSettings
from asynctrack.events import (
    Checkpoint,
    ConfigUpdated,
    Event,
    Metrics,
    RunEnded,
    RunStarted,
    SummaryUpdated,
    WriterEnded,
    WriterJoined,
)
from asynctrack.records.codec import Record, string_keys

# The events whose attributes are the data of an update.
_BY_KIND: Final[dict[str, type[Event]]] = {"join": WriterJoined, "leave": WriterEnded}
# Pause after a failure, where other events of the batch were taken before it. Arbitrary.
_SOON_S: Final = 0.1


def _tag(name: str) -> str:
    """Return the kind of a subclass: its own name."""
    return "subscriber" if name == "Subscriber" else name


class Subscriber(Backend, frozen=True, tag=_tag):
    """Gets a run's events, one at a time: `backends=["jsonl", Subscriber(on_event)]`.

    Each event comes at least once. It comes twice only if the subscriber's process was killed before the delivery had
    saved its progress. An exception is reported, and the same event comes again after a while. To skip the event
    instead, raise `asynctrack.Rejected(reason)`.

    A subclass overrides `notify`, for example with `functools.singledispatchmethod`, and may run elsewhere. With
    `execution = "worker"` or "process" it goes on when the process that logs has died, and gets an event about that.

    Attributes:
        handler: called with each event, in the process that logs: a function (with `functools.singledispatch` one per
            type), or an object with a `notify(event)`. It must be a plain function, and may block.
    """

    milestones: ClassVar[bool] = True
    takes_writers: ClassVar[bool] = True

    handler: Any = None

    def __post_init__(self) -> None:
        if problem := self._problem():
            raise InvalidSettings([problem])
        super().__post_init__()

    def notify(self, event: Event) -> None:
        """Take an event. Called from one thread at a time for each run.

        Args:
            event: one of the classes of `asynctrack.events`.

        Raises:
            Rejected: the event is not wanted, and is skipped. After any other exception it comes again.
        """
        getattr(self.handler, "notify", self.handler)(event)

    def open(self, context: Context) -> Sink:
        """Open a sink that calls `notify` with each event of the run."""
        return _Events(self, context)

    def _problem(self) -> str | None:
        overridden = type(self).notify is not Subscriber.notify
        if overridden and self.handler is not None:
            return f"a subscriber that has a notify of its own takes no handler; got {self.handler!r:.80}"
        target = self.notify if overridden else getattr(self.handler, "notify", self.handler)
        if not callable(target):
            return f"handler must be a function that takes an event, or have a notify(event); got {self.handler!r:.80}"
        if inspect.iscoroutinefunction(target):
            return f"handler must be a plain function: your event loop is on another thread; got {target!r:.80}"
        return None


class _Events(Sink):
    """Calls a subscriber, and remembers the events that it has taken from a batch that comes again."""

    def __init__(self, subscriber: Subscriber, context: Context) -> None:
        self._subscriber = subscriber
        self._context = context
        self._notified: set[int] = set()  # ids of objects: the driver keeps the batch alive until all of it is taken
        state = context.state or {}
        self._starts: int = state.get("starts", 0)
        self._last_ns: int = state.get("last_ns", 0)

    def write(self, batch: Batch) -> None:
        before = len(self._notified)
        try:
            self._notify_all(batch)
        except Signal:
            raise
        except Exception as error:  # from the user's function
            if len(self._notified) > before:  # there was progress, so the pauses need not grow
                raise Retry(f"{type(error).__name__}: {error}", _SOON_S) from error
            raise
        self._notified.difference_update(map(id, (*batch.records, *batch.updates)))

    def checkpoint(self) -> dict[str, Any]:
        return {"starts": self._starts, "last_ns": self._last_ns}

    def close(self, outcome: Outcome) -> None:
        if outcome != "stopped":
            self._subscriber.notify(RunEnded(run_id=self._context.run_id, time_ns=self._last_ns, status=outcome))

    def _notify_all(self, batch: Batch) -> None:
        for item in _in_order(batch):
            if id(item) not in self._notified:
                self._notify(item, batch.records)
                self._notified.add(id(item))

    def _notify(self, item: Record | Update, records: list[Record]) -> None:
        try:
            self._subscriber.notify(self._event(item))
        except Rejected as no:
            if isinstance(item, Record):  # an update is skipped silently: only records have dead letters
                raise Rejected(str(no), [next(at for at, record in enumerate(records) if record is item)]) from no
        self._last_ns = item.time_ns
        self._starts += isinstance(item, Update) and item.kind == "start"

    def _event(self, item: Record | Update) -> Event:
        context = self._context
        what: dict[str, Any] = {"run_id": context.run_id, "time_ns": item.time_ns}
        if isinstance(item, Record):
            return Metrics(**what, data=string_keys(item.data), step=item.step, number=item.number, writer=item.writer)
        if item.kind == "start":
            what |= {"name": context.name, "project": context.project, "directory": context.directory}
            return RunStarted(**what, config=item.data, resumed=self._starts > 0)
        if item.kind in _BY_KIND:
            return _BY_KIND[item.kind](**what, **item.data)
        if item.kind == "checkpoint":
            return Checkpoint(**what, counters=item.data)
        return (ConfigUpdated if item.kind == "config" else SummaryUpdated)(
            **what, data=item.data, removed=item.removed
        )


def _in_order(batch: Batch) -> Iterator[Record | Update]:
    starts = [update for update in batch.updates if update.kind == "start"]
    changes: Iterable[Record | Update] = (update for update in batch.updates if update.kind != "start")
    yield from starts
    yield from heapq.merge(changes, batch.records, key=operator.attrgetter("time_ns"))
