"""Memory: keep all records as Python objects in the process that logs. For tests, notebooks and small runs."""

from __future__ import annotations

from typing import Any

import msgspec

from asynctrack.backends.base import Backend, Batch, Context, Sink
from asynctrack.records.codec import string_keys


class Memory(Backend, frozen=True, kw_only=True, tag="memory"):
    """Keeps a run's records in lists; read them after `flush()` or `finish()`. A new run begins with empty ones.

    Attributes:
        records: the records in order: one dict per `log()`, as it was at that call.
        history: the values of each key, in order.
        steps: the step of each record.
        record_writers: the label of the process that has logged each record; None where the run has one writer alone.
        config: of the run.
        summary: of the run.
    """

    records: list[dict[str, Any]] = msgspec.field(default_factory=list)
    history: dict[str, list[Any]] = msgspec.field(default_factory=dict)
    steps: list[int] = msgspec.field(default_factory=list)
    record_writers: list[str | None] = msgspec.field(default_factory=list)
    config: dict[str, Any] = msgspec.field(default_factory=dict)
    summary: dict[str, Any] = msgspec.field(default_factory=dict)

    def open(self, context: Context) -> Sink:
        """Empty the lists, and open a sink that fills them."""
        for container in (self.records, self.history, self.steps, self.record_writers, self.config, self.summary):
            container.clear()
        self.config.update(context.config)
        return _Lists(self)


class _Lists(Sink):
    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def write(self, batch: Batch) -> None:
        memory = self._memory
        for record in batch.records:
            data = string_keys(record.data)
            memory.records.append(data)
            memory.steps.append(record.step)
            memory.record_writers.append(record.writer)
            for key, value in data.items():
                memory.history.setdefault(key, []).append(value)
        for update in batch.updates:
            update.change(memory.config if update.kind == "config" else memory.summary)
