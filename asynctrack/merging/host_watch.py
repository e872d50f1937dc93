"""Host watch: what a merger sees of the hosts beside what they bring: signs of life, clocks, and how each stands. Imported by the merger; for its thread."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from asynctrack.journal.host_list import HostStats
from asynctrack.merging.host_clocks import HostClocks
from asynctrack.merging.host_reports import HostReport, HostReports

Note = dict[str, Any]

# 73 years: no clock is off by more, and what bears such a time bears none. It may come from a stranger.
_NO_CLOCK_NS: Final = 1 << 61


class HostWatch:
    """Watches the hosts of one run.

    Args:
        run: the merged run's directory.
        hosts: that have a part of it already.
    """

    def __init__(self, run: Path, hosts: Sequence[HostStats]) -> None:
        self._heard_at = {one.host: time.monotonic() for one in hosts}
        self._clocks = HostClocks(hosts)
        self._reports = HostReports(run)

    def hear(self, host: str, silent_s: float = 0.0, *, offset_ns: int | None = None) -> None:
        """Take note that a host gives a sign of life, or gave its last so many seconds ago.

        Args:
            host: its name.
            silent_s: for how long nothing has come.
            offset_ns: when something of the host's came, by the clock that all hosts are compared with, less when it was sent, by its own.
        """
        self._heard_at[host] = time.monotonic() - silent_s
        self._reports.hear(host, time.time_ns() - round(silent_s * 1e9))
        if offset_ns is not None and abs(offset_ns) < _NO_CLOCK_NS:
            self._clocks.hear(host, offset_ns)

    def offset_of(self, host: str) -> int:
        """Return what is added to times of a host's clock, as far as it was measured; nanoseconds."""
        return self._clocks.least_of(host) or 0

    def silent_s(self) -> float:
        """Return for how long no host has given a sign of life."""
        return time.monotonic() - max(self._heard_at.values(), default=0.0)

    def welcome(self, host: str) -> None:
        """Begin to wait for signs of a host's life."""
        self._heard_at.setdefault(host, time.monotonic())

    def report(
        self,
        host: str,
        *,
        behind_bytes: int | None = None,
        behind_s: float | None = None,
        waiting: str | None = None,
        refused: str | None = None,
    ) -> None:
        """Say how a host stands, in place of what was said of it before. It need not have a part of the run yet.

        Args:
            host: its name.
            behind_bytes: of its journal, that are not merged; None where that is not known.
            behind_s: seconds between the last of what it has written and the last that is merged.
            waiting: what is missing of it, and may still come.
            refused: why it is not merged.
        """
        said = HostReport(behind_bytes=behind_bytes, behind_s=behind_s, waiting=waiting, refused=refused)
        self._reports.report(host, said)

    def save(self, *, at_once: bool = False) -> None:
        """Write how the hosts stand, for others to read; at most once a second, unless it is to be done at once."""
        self._reports.save(at_once=at_once)

    def lost_notes(self, hosts: Sequence[HostStats], lost_after_s: float) -> list[Note]:
        """Return a note for each host that has been silent for so long that it counts as lost."""
        now, now_ns = time.monotonic(), time.time_ns()
        silent = {one.host: now - self._heard_at[one.host] for one in hosts if one.status == "running"}
        return [
            {
                "note": "host_lost",
                "host": host,
                "error": f"host {host} was lost: nothing has come from it for {silent_s:.0f} s",
                "heard_ns": max(0, now_ns - round(silent_s * 1e9)),
                "time_ns": now_ns,
            }
            for host, silent_s in silent.items()
            if silent_s > lost_after_s
        ]

    def clock_notes(self, hosts: Sequence[HostStats]) -> list[Note]:
        """Return a note for each host of whose clock there is news."""
        news = {one.host: self._clocks.news_of(one.host) for one in hosts}
        return [
            {"note": "host_clock", "host": host, "offset_ns": offset_ns}
            for host, offset_ns in news.items()
            if offset_ns is not None
        ]
