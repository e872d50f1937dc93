"""Subscribers that another process can import."""

from __future__ import annotations

import functools
import os
from typing import ClassVar

from asynctrack import Subscriber
from asynctrack.backends.base import Execution
from asynctrack.events import Event, Metrics, RunEnded


class Diary(Subscriber, frozen=True, kw_only=True):
    """Writes a line for each event, and who wrote it; of metrics only the values."""

    execution: ClassVar[Execution] = "worker"

    path: str

    @functools.singledispatchmethod
    def notify(self, event: Event) -> None:  # type: ignore[override]  # it is called the same
        self._write(type(event).__name__)

    @notify.register
    def _(self, event: Metrics) -> None:
        self._write(f"{event.step} {event.data}")

    @notify.register
    def _(self, event: RunEnded) -> None:
        self._write(f"{event.status} by {os.getpid()}")

    def _write(self, line: str) -> None:
        with open(self.path, "a") as file:
            file.write(line + "\n")


class ProcessDiary(Diary, frozen=True, kw_only=True):
    """The same in a process of its own."""

    execution: ClassVar[Execution] = "process"
