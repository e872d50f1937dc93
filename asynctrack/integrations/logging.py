"""Logging: a handler of the standard library that records log messages in a run.

Runs in the caller, in the threads that log.

    logging.getLogger().addHandler(AsyncHandler("app"))

`logging.config` takes it as `{"class": "asynctrack.integrations.logging.AsyncHandler", "run": "app", "level": "INFO"}`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Final, Unpack

from asynctrack.backends.base import Backend
from asynctrack.client.opening import init
from asynctrack.client.run import Run
from asynctrack.client.run_arguments import RunArguments

# Attributes that each of the standard library's records has; others come from `extra=`.
_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_OWN: Final = "asynctrack"


class AsyncHandler(logging.Handler):
    """Records each message that is logged, without making its thread wait.

    A record has `message`, `level`, `logger`, `file`, `line` and `thread`; `exception`, with its traceback; and each
    name of `extra=`. A handler's formatter is not used: it would join these parts into one text. Messages of asynctrack
    itself are left out: they would be about this very run.

    Args:
        run: to record into, which stays open when the handler is closed; or the project of a run of its own.
        level: messages below it are left out.
        backends: of a run of its own. Default: JSON Lines.
        settings: the other keyword arguments of `asynctrack.init`, for a run of its own.

    Attributes:
        run: the run that is recorded into.

    Raises:
        AsynctrackError: a run of its own cannot be opened.
    """

    def __init__(
        self,
        run: Run | str,
        level: int | str = logging.NOTSET,
        *,
        backends: Iterable[Backend | str] | None = None,
        **settings: Unpack[RunArguments],
    ) -> None:
        super().__init__(level)
        self._owns = isinstance(run, str)
        self.run: Run = init(run, backends=backends, **settings) if isinstance(run, str) else run

    def __repr__(self) -> str:
        return f"<AsyncHandler ({logging.getLevelName(self.level)}), {self.run!r}>"

    def emit(self, record: logging.LogRecord) -> None:
        """Record a message. An exception goes to `handleError`, as with every handler.

        Args:
            record: of the standard library.
        """
        try:
            if record.name is None or record.name.partition(".")[0] != _OWN:
                self.run.log(self._fields(record))
        except Exception:  # as in every handler: the user's code goes on
            self.handleError(record)

    def flush(self) -> None:
        """Wait until all messages are in the run's journal."""
        self.run.flush("journaled")

    def close(self) -> None:
        """End the run, if it is the handler's own."""
        if self._owns:
            self.run.finish()
        super().close()

    def _fields(self, record: logging.LogRecord) -> dict[str, Any]:
        fields = {key: value for key, value in record.__dict__.items() if key not in _STANDARD}
        fields |= {
            "message": record.getMessage(),
            "level": record.levelname,
            "logger": record.name,
            "file": record.pathname,
            "line": record.lineno,
            "thread": record.threadName,
        }
        if record.exc_info and record.exc_info[0] is not None:
            fields["exception"] = _traceback.formatException(record.exc_info)
        return fields


_traceback = logging.Formatter()
