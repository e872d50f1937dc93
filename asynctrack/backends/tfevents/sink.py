"""TensorBoard's sink: one run's event file, and the server that shows it. Runs on a thread of the worker."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from asynctrack.backends.base import ActionRequired, Batch, Context, Outcome, Resend, Sink, Update
from asynctrack.backends.files.appending import FileChanged
from asynctrack.backends.tfevents.events import Events, text_value
from asynctrack.backends.tfevents.file import EventFile
from asynctrack.backends.tfevents.hparams import session_end, session_start
from asynctrack.backends.tfevents.server import TensorBoardServer
from asynctrack.records.codec import to_json

_SERVER_LOG: Final = "tensorboard.log"

_log = logging.getLogger("asynctrack.delivery")


class EventSink(Sink):
    """Writes a run's event file.

    Args:
        context: of the run.
        folder: of the file.
        suffix: ends the file's name, where other runs have theirs in the same folder.
    """

    def __init__(self, context: Context, folder: Path, suffix: str = "") -> None:
        self._folder = folder
        self._run = context.directory
        self._is_owner = context.writer is None
        self._config = dict(context.config)
        self._created_s = datetime.fromisoformat(context.created_at).timestamp() if context.created_at else 0.0
        self._name = _file_name(self._created_s) + suffix
        state = context.state or {"file": self._name, "bytes": 0}
        self._events = Events()
        self._file = EventFile(inside(folder, state["file"]), state["bytes"], self._beginning(), self._events)
        self._begun = self._file.offset > 0
        self._seen_s = 0.0
        self._server: TensorBoardServer | None = None

    def __repr__(self) -> str:
        return f"<EventSink to {self._file!r}, {'served' if self._server else 'not served'}>"

    def serve(self, logdir: Path, port: int, reload_interval_s: float) -> None:
        """Start the server. Where that fails, a warning is logged, and the file is written without it.

        Args:
            logdir: folder that it shows.
            port: of 127.0.0.1.
            reload_interval_s: seconds between two looks for new events.
        """
        try:
            self._server = TensorBoardServer(logdir, port, reload_interval_s, self._run / _SERVER_LOG)
        except OSError as error:
            _log.warning("TensorBoard cannot be started: %s", error)

    def write(self, batch: Batch) -> dict[str, int] | None:
        """Write the events of a batch."""
        records, skipped = self._events.of_records(batch.records)
        self._append(records, self._changes(batch.updates))
        if batch.records:
            self._seen_s = batch.records[-1].time_ns / 1e9
        return skipped or None

    def checkpoint(self) -> dict[str, Any]:
        """Make the file survive a power cut, and return its name and offset."""
        return {"file": str(self._file.path.relative_to(self._folder)), "bytes": self._file.sync()}

    def close(self, outcome: Outcome) -> None:
        """Write the run's outcome, close the file, and end the server."""
        try:
            if outcome != "stopped":
                self._end(outcome)
        finally:
            self._file.close()
            if self._server is not None:
                self._server.close()
                self._server = None

    def _end(self, outcome: Outcome) -> None:
        ended_s = self._seen_s or time.time()
        end = session_end(outcome, ended_s) if self._is_owner else b""
        self._append(b"", self._changes([]) + (self._events.event(ended_s, 0, end) if end else b""))
        self._file.sync()

    def _append(self, records: bytes, others: bytes) -> None:
        try:
            self._file.append(records, others)
        except FileChanged as reason:
            raise Resend(str(reason), self._next_state()) from reason
        self._begun = True

    def _beginning(self) -> bytes:
        """Encode the first event of the file."""
        return self._events.version(self._created_s)

    def _changes(self, updates: Sequence[Update]) -> bytes:
        """Encode the events of these updates; the first time also those of the run's start."""
        events = []
        for update in updates:
            if update.kind == "config":
                update.change(self._config)
                if self._begun and self._is_owner:
                    events.append(self._events.event(update.time_ns / 1e9, 0, self._config_text()))
            elif summary := self._events.summary(update.data, "summary/"):
                events.append(self._events.event(update.time_ns / 1e9, 0, summary))
        return b"".join(events if self._begun else [*self._start(), *events])

    def _start(self) -> list[bytes]:
        if not self._is_owner:
            return []
        values = session_start(self._config, self._created_s), self._config_text()
        return [self._events.event(self._created_s, 0, value) for value in values]

    def _config_text(self) -> bytes:
        content = msgspec.json.format(msgspec.json.encode(to_json(self._config)), indent=2).decode()
        return text_value("config", "".join(f"    {line}\n" for line in content.splitlines()))  # Markdown's code

    def _next_state(self) -> dict[str, Any]:
        """Return the state of a sink that writes the file again.

        The name stays where somebody has removed the file; else it is the next free one: rebuilt-2, ...
        """
        file, number = self._name, 2
        while _has_content(self._folder / file):
            file, number = f"rebuilt-{number}/{self._name}", number + 1
        return {"file": file, "bytes": 0}


def inside(folder: Path, relative: str) -> Path:
    """Return a path below a folder.

    Raises:
        ActionRequired: the path leads elsewhere, by its name or by a link: somebody else made it.
    """
    path = folder / relative
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ActionRequired(f"{path} leads out of {folder}; remove it, or choose dir=")
    return path


def _has_content(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _file_name(created_s: float) -> str:
    """Return the file's name, which is the same whenever the run is opened.

    TensorBoard finds it by the `tfevents` in it.
    """
    seconds, milliseconds = divmod(round(created_s * 1000), 1000)
    return f"events.out.tfevents.{seconds:010}.asynctrack.{milliseconds:03}"
