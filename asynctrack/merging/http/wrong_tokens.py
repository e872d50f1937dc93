"""Wrong tokens: holds an address back that sends many of them. Runs in a collector's loop.

Addresses from which a token was right lately are left alone: many hosts may come by one, through a proxy, and one of them may have a wrong token.
"""

from __future__ import annotations

import ipaddress
import logging
import time
from typing import Final

from asynctrack.merging.server.refused import Refused

# So many are looked at within a minute. Arbitrary: hosts with a wrong token send one a minute.
_MOST: Final = 10
WINDOW_S: Final = 60.0
# For how long an address counts as one from which a token was right. Arbitrary.
_TRUSTED_S: Final = 3600.0
# Addresses that are remembered. Arbitrary: some 5 MB.
_MOST_ADDRESSES: Final = 20_000

_log = logging.getLogger("asynctrack.collector")


class WrongTokens:
    """Counts wrong tokens by address."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[float, int]] = {}  # when the first of them came, and how many
        self._right_at: dict[str, float] = {}

    def check(self, address: str) -> None:
        """See that an address may show a token.

        Raises:
            Refused: too many from there were wrong.
        """
        begun_at, count = self._counts.get(_network(address), (0.0, 0))
        if count >= _MOST and time.monotonic() - begun_at < WINDOW_S:
            raise Refused("too_many_tries", f"{_MOST} tokens from this address were wrong within a minute; try again")

    def note(self, address: str, *, right: bool) -> None:
        """Take note that a token from an address was right, or wrong."""
        network, now = _network(address), time.monotonic()
        for known in (self._counts, self._right_at):
            if len(known) >= _MOST_ADDRESSES:
                known.clear()
        if right:
            self._right_at[network] = now
            self._counts.pop(network, None)
        elif now - self._right_at.get(network, -_TRUSTED_S) >= _TRUSTED_S:
            begun_at, count = self._counts.get(network, (now, 0))
            begun_at, count = (begun_at, count + 1) if now - begun_at < WINDOW_S else (now, 1)
            self._counts[network] = begun_at, count
            if count == _MOST:
                _log.warning(
                    "%s has sent %d wrong tokens within a minute: nothing more is taken from there in that",
                    network,
                    count,
                )


def _network(address: str) -> str:
    """Return an address, or of IPv6 the network, since one machine has all addresses of its own."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return str(found) if found.version == 4 else str(ipaddress.ip_network((int(found) >> 64 << 64, 64)))
