"""Splitting: gives each writer's records to a sink of its own, with `writers="split"`. Runs with the driver.

To whoever drives it, it is one connection: a batch is taken when each sink has its part of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from asynctrack.backends.base import Backend, Batch, Context, Outcome, Rejected, Resend, Retry, Sink, Update
from asynctrack.delivery.connection import Connection
from asynctrack.delivery.lease import Lease
from asynctrack.delivery.writer_views import without_labels
from asynctrack.journal.join import LABEL
from asynctrack.records.codec import Record

# Stands for the owner's sink among the labels.
_OWN: Final = ""


def connect(backend: Backend, lease: Lease) -> Connection:
    """Make the connection to a backend: one sink, or one for each writer."""
    return SplitConnection(backend, lease) if backend.writers == "split" else Connection(backend, lease)


class SplitConnection(Connection):
    """A backend with a sink for each writer, opened at its first record.

    The sink of the owner is there from the beginning, and gets what belongs to the run as a whole.

    Args:
        backend: its settings.
        lease: that a call keeps while it goes on.
    """

    def __init__(self, backend: Backend, lease: Lease) -> None:
        super().__init__(backend, lease)
        self._context: Context | None = None
        self._config: dict[str, Any] = {}
        self._sinks: dict[str, Sink] = {}
        # What each sink has said of itself, and what those were told that have asked for the whole run again.
        self._states: dict[str, Any] = {}
        self._anew: dict[str, Any] = {}
        # What sinks have of a batch that comes again, as it is not whole.
        self._taken: set[tuple[str, int]] = set()
        self._skipped: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<SplitConnection, {len(self._sinks)} sinks open>"

    @property
    def is_open(self) -> bool:
        """Return True if there is a sink of the owner's."""
        return _OWN in self._sinks

    async def open(self, context: Context) -> None:
        """Open the owner's sink."""
        state = context.state or {}
        several = "split" in state
        self._states = dict(state["split"]) if several else {_OWN: context.state}
        self._anew = dict(state.get("anew", {})) if several else {}
        self._context, self._config = context, dict(context.config)
        self._taken, self._skipped = set(), {}
        await self._sink_of(_OWN)

    async def write(self, batch: Batch) -> object:
        """Give each sink its part of a batch; returns how many records they cannot show."""
        for update in batch.updates:
            if update.kind == "config":
                update.change(self._config)
        for label, part in self._parts(batch).items():
            answer = await self._write(label, part, batch)
            self._taken.update((label, id(item)) for item in (*part.records, *part.updates))
            for reason, count in answer.items() if isinstance(answer, Mapping) else ():
                self._skipped[reason] = self._skipped.get(reason, 0) + count
        ids = {id(item) for item in (*batch.records, *batch.updates)}
        self._taken = {taken for taken in self._taken if taken[1] not in ids}
        skipped, self._skipped = self._skipped, {}
        return skipped

    async def checkpoint(self) -> dict[str, Any] | None:
        """Have each sink make safe what it was given.

        Raises:
            Retry: some of them have a part of a batch that is not whole.
        """
        if self._taken:
            raise Retry("a batch is half-way")
        for label, sink in self._sinks.items():
            self._states[label] = await self.call(sink.checkpoint)
        return self._state()

    async def close(self, outcome: Outcome) -> None:
        """Close each sink; at the run's end also of writers that had records before this was opened."""
        if outcome != "stopped":
            for label in self._known():
                await self._sink_of(label)
        # The owner's last: as long as it is open, this is.
        for label in [*(label for label in self._sinks if label != _OWN), _OWN]:
            if label in self._sinks:
                await self.call(self._sinks[label].close, outcome)
                del self._sinks[label]
                self._states.pop(label, None)

    async def abandon(self) -> None:
        """Close the sinks; those that raise are given up."""
        failed: Exception | None = None
        while self._sinks:
            _, sink = self._sinks.popitem()
            try:
                await self.call(sink.close, "stopped")
            except Exception as error:  # one of them is said
                failed = error
        if failed is not None:
            raise failed

    def _parts(self, batch: Batch) -> dict[str, Batch]:
        """Divide a batch by writers; what a sink has already is left out."""
        parts: dict[str, tuple[list[Record], list[Update]]] = {}
        for record in batch.records:
            label = record.writer or _OWN
            if (label, id(record)) not in self._taken:
                parts.setdefault(label, ([], []))[0].append(record)
        for update in batch.updates:
            for label in self._sinks if update.kind == "config" else (_OWN,):
                if (label, id(update)) not in self._taken:
                    parts.setdefault(label, ([], []))[1].append(update)
        return {label: Batch(*part) for label, part in parts.items()}

    async def _write(self, label: str, part: Batch, whole: Batch) -> object:
        try:
            own = Batch(without_labels(part.records), part.updates)
            return await self.call((await self._sink_of(label)).write, own)
        except Rejected as no:
            if no.which is None:
                raise
            places = {id(record): at for at, record in enumerate(whole.records)}
            raise Rejected(str(no), [places[id(part.records[at])] for at in no.which]) from no
        except Resend as reason:
            raise self._resend(label, reason) from reason

    async def _sink_of(self, label: str) -> Sink:
        """Return a writer's sink, which is opened where it is not."""
        if label not in self._sinks:
            assert self._context is not None
            context = msgspec.structs.replace(self._context, state=self._states.get(label))
            if label != _OWN:
                context = msgspec.structs.replace(context, config=dict(self._config), writer=label)
            try:
                self._sinks[label] = await self.call(self._backend.open, context)
            except Resend as reason:
                raise self._resend(label, reason) from reason
        return self._sinks[label]

    def _resend(self, label: str, reason: Resend) -> Resend:
        """Ask for the whole run for one of the sinks: the others get it, too."""
        self._anew[label] = reason.state
        if self._anew.keys() == {_OWN}:
            return Resend(str(reason), reason.state)
        return Resend(str(reason), {"split": self._anew, "anew": self._anew})

    def _state(self) -> dict[str, Any] | None:
        """Return what is kept; that of a sink alone as it is."""
        if self._states.keys() <= {_OWN} and self._anew.keys() <= {_OWN}:
            state: dict[str, Any] | None = self._states.get(_OWN)
            return state
        return {"split": self._states, "anew": self._anew}

    def _known(self) -> Iterator[str]:
        """Yield the writers that have a sink, open or not. A cursor may come from anyone."""
        yield from [label for label in self._states if LABEL.fullmatch(label)]
