"""Logged values: what was logged to an open run, read back from its journal. Runs in the caller."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from asynctrack.client.run_parts import AnySession
from asynctrack.client.waits import wait
from asynctrack.errors import AsynctrackError
from asynctrack.journal.manifest import METRICS
from asynctrack.reading.last_values import LastValues, copied

# How long a read waits for the worker, and then for the disk. Arbitrary.
_READ_S: Final = 5.0


class LoggedValues:
    """Reads what a run has logged, as far as the worker has written it.

    Args:
        session: The session of the run, which waits for the worker.
        config: The config of the run, which has the definitions of its metrics.
        path: The directory of the run.
    """

    def __init__(self, session: AnySession, config: Mapping[str, Any], path: Path) -> None:
        self._session = session
        self._config = config
        self._path = path
        self._values = LastValues(path)

    def last(self) -> dict[str, Any]:
        """Return the last value of each name; the values of the last call if the journal cannot be read in time."""
        wait(self._session.flushing("journaled", _READ_S))
        try:
            return self._session.read_in_time(self._values.update, _READ_S)
        except (AsynctrackError, OSError):
            return copied(self._values.found)

    def summary_of(self, name: str) -> Any:
        """Return the summary of a metric: its last value, or what `define_metric` says.

        Raises:
            KeyError: Nothing was logged by that name.
        """
        wait(self._session.flushing("journaled", _READ_S))
        try:
            from asynctrack.client import metrics  # both are rarely needed
            from asynctrack.reading.reader import RunReader

            kinds = metrics.summary_of(self._config.get(METRICS, {}), name)
            reader = RunReader(self._path, warns=True)
            find = functools.partial(reader.summarise, name)
            return self._session.read_in_time(lambda: metrics.summarise(kinds, find, name), _READ_S)
        except (AsynctrackError, OSError, ImportError):  # ImportError: after chroot the modules are not found
            raise KeyError(name) from None
