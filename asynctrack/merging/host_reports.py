"""Host reports: how each host stands while it is merged, in `collecting.json` beside the merged journal, for people. Written by the merger, read anywhere.

It says what no journal can: what is still to come. Nothing is decided by it.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Final

import msgspec

from asynctrack.errors import UnsafeFile
from asynctrack.journal import safe_read
from asynctrack.journal.manifest import replace_file

FILE_NAME: Final = "collecting.json"
# Between two times that it is written. Arbitrary: as long as a person waits for a table to change.
INTERVAL_S: Final = 1.0
# How many hosts are told of: strangers may give any name. Arbitrary: twice what a collector by HTTP takes by default.
_MOST_HOSTS: Final = 2048
# It may come from anywhere.
_UNREADABLE: Final = (OSError, ValueError, RecursionError, UnsafeFile)


class HostReport(msgspec.Struct, frozen=True, kw_only=True):
    """Tells how one host stands.

    Attributes:
        heard_ns: when it gave its last sign of life, by the collector's clock, nanoseconds since the epoch; 0 where it gave none.
        behind_bytes: of its journal, that are not merged; None where that is not known.
        behind_s: seconds between the last of what it has written and the last that is merged; None where that is not known.
        waiting: what is missing of it, and may still come.
        refused: why it is not merged.
    """

    heard_ns: int = 0
    behind_bytes: int | None = None
    behind_s: float | None = None
    waiting: str | None = None
    refused: str | None = None


class HostsReport(msgspec.Struct, frozen=True, kw_only=True):
    """Tells how all hosts stand.

    Attributes:
        told_ns: when it was written, nanoseconds since the epoch.
        pid: of the process that merges the run.
        on: the name of its machine.
        hosts: by their names.
    """

    told_ns: int = 0
    pid: int = 0
    on: str = ""
    hosts: dict[str, HostReport] = {}


class HostReports:
    """Keeps the file of a run.

    Args:
        run: the merged run's directory.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        found = load_reports(run)
        self._hosts = {} if found is None else dict(found.hosts)
        self._next_at = 0.0

    def hear(self, host: str, heard_ns: int) -> None:
        """Note when a host gave its last sign of life."""
        self._put(host, msgspec.structs.replace(self._hosts.get(host, HostReport()), heard_ns=max(0, heard_ns)))

    def report(self, host: str, said: HostReport) -> None:
        """Note how a host stands; when it was heard stays."""
        self._put(host, msgspec.structs.replace(said, heard_ns=self._hosts.get(host, said).heard_ns))

    def save(self, *, at_once: bool = False) -> None:
        """Write the file, if it is time to; a disk that does not take it shows elsewhere."""
        now = time.monotonic()
        if not self._hosts or (now < self._next_at and not at_once):
            return
        self._next_at = now + INTERVAL_S
        told = HostsReport(told_ns=time.time_ns(), pid=os.getpid(), on=os.uname().nodename, hosts=self._hosts)
        with contextlib.suppress(OSError):
            replace_file(self._run / FILE_NAME, msgspec.json.encode(told), durable=False)

    def _put(self, host: str, said: HostReport) -> None:
        if host in self._hosts or len(self._hosts) < _MOST_HOSTS:
            self._hosts[host] = said


def load_reports(run: Path) -> HostsReport | None:
    """Read how the hosts of a run stand; None where nobody has said."""
    with contextlib.suppress(*_UNREADABLE):
        return msgspec.json.decode(safe_read.read(run / FILE_NAME), type=HostsReport)
    return None
