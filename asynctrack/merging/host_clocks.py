"""Host clocks: how far the clock of each host is from the one that all are compared with: the least of received less sent. Imported by the merger.

What is sent needs some time to arrive, and never less than none: so the least of many comes nearest. Only the last minutes count, since clocks drift and are set.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from asynctrack.journal.host_list import HostStats

# The least of the last one to two of these counts. Arbitrary: a clock of a computer drifts by some milliseconds in that time.
_WINDOW_S: Final = 300.0
# What is said is said anew when it is off by so much, and after so long. Arbitrary: less than people see, more than a network varies by.
_NEWS_NS: Final = 5_000_000
_NEWS_S: Final = 10.0


class HostClocks:
    """The clocks of a run's hosts.

    Args:
        hosts: with what was said of their clocks before; it counts as measured when this begins.
    """

    def __init__(self, hosts: Sequence[HostStats]) -> None:
        self._said: dict[str, int] = {}
        self._said_at: dict[str, float] = {}
        self._least: dict[str, list[int]] = {}  # in this window, and in the one before
        self._since: dict[str, float] = {}
        for one in hosts:
            if one.clock_offset_ns is not None:
                self._said[one.host] = one.clock_offset_ns
                self.hear(one.host, one.clock_offset_ns)

    def hear(self, host: str, offset_ns: int) -> None:
        """Take a measurement into account: nanoseconds between sending and receiving, each by its own clock."""
        now = time.monotonic()
        least = self._least.get(host)
        if least is None or now - self._since[host] > 2 * _WINDOW_S:
            self._least[host], self._since[host] = [offset_ns], now
        elif now - self._since[host] > _WINDOW_S:
            self._least[host], self._since[host] = [offset_ns, least[0]], now
        else:
            least[0] = min(least[0], offset_ns)

    def least_of(self, host: str) -> int | None:
        """Return the least that was measured of a host's clock; None where nothing was."""
        return min(self._least[host]) if host in self._least else None

    def news_of(self, host: str) -> int | None:
        """Return what is to be added to the times of a host's clock, where that is another than was said last; nanoseconds."""
        found, said, now = self.least_of(host), self._said.get(host), time.monotonic()
        if found is None:
            return None
        if said is not None and (abs(found - said) < _NEWS_NS or now - self._said_at.get(host, -_NEWS_S) < _NEWS_S):
            return None
        self._said[host], self._said_at[host] = found, now
        return found
