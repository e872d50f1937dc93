"""Backends that flap: each looks how it is at before it writes, in a file that the simulation changes. Run wherever a sink can."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

from asynctrack.backends.base import ActionRequired, Backend, Batch, Context, Retry, Sink

WEATHERS = ("fail", "retry", "pause", "hang", "late", "die")
_POLL_S = 0.02


class Flapping(Backend, frozen=True, kw_only=True):
    """Appends a line per record to a file, when it is well. Runs in the worker.

    Attributes:
        weather: a file that says what it is to do: "fail", "retry", "pause", "hang" until it says something else, "late" fails after it has written
            half of the batch, "die" kills its process. Well where it is missing.
        file: where it writes.
    """

    execution = "worker"
    weather: str
    file: str

    def open(self, context: Context) -> Sink:
        return _Sink(Path(self.weather), Path(self.file))


class FlappingInProcess(Flapping, frozen=True, kw_only=True):
    """The same in a process of its own."""

    execution = "process"


class FlappingInCaller(Flapping, frozen=True, kw_only=True):
    """The same on a thread of the process that logs, where it does not die by itself."""

    execution = "caller"


class _Sink(Sink):
    def __init__(self, weather: Path, file: Path) -> None:
        self._weather = weather
        self._file = file

    def write(self, batch: Batch) -> None:
        while (weather := self._read_weather()) == "hang":
            time.sleep(_POLL_S)
        if weather == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif weather == "pause":
            raise ActionRequired("somebody has to mend it")
        elif weather == "retry":
            raise Retry("not now", 0.05)
        elif weather == "fail":
            raise ConnectionResetError("it fails")
        lines = [json.dumps(record.data) + "\n" for record in batch.records]
        if weather == "late":
            self._append(lines[: len(lines) // 2])
            raise ConnectionResetError("it fails half-way")
        self._append(lines)

    def _append(self, lines: list[str]) -> None:
        with self._file.open("ab", buffering=0) as file:
            file.write("".join(["\n", *lines]).encode())  # the first newline ends what a kill has torn

    def _read_weather(self) -> str:
        try:
            return self._weather.read_text()
        except FileNotFoundError:
            return ""
