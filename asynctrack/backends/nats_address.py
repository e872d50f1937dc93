"""NATS address: where the servers are, as settings say it. Pure functions: whoever only checks an address needs no library."""

from __future__ import annotations

import re
from typing import Final

from asynctrack.backends.endpoint import url_problems

SCHEMES: Final = ("nats://", "tls://")
EXAMPLE: Final = "nats://nats-1:4222,nats-2:4222"

_HOST: Final = re.compile(
    r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?", re.ASCII
)
_PORT: Final = 4222


def is_nats(url: object) -> bool:
    """Return whether an address is one of NATS servers."""
    return isinstance(url, str) and url.startswith(SCHEMES)


def collector_problems(field: str, url: object) -> list[str]:
    """List what is wrong with the address of a collector: of its server, or of NATS servers."""
    return address_problems(field, url) if is_nats(url) else url_problems(field, url)


def address_problems(field: str, url: object) -> list[str]:
    """List what is wrong with an address of NATS servers. The messages do not repeat a key that was put into it."""
    if not isinstance(url, str) or not url.startswith(SCHEMES):
        return [f"{field} must be the address of NATS servers, such as {EXAMPLE!r}; got {url!r:.80}"]
    if "@" in url:
        return [
            f"{field} must not hold a user, a password or a token: they belong in the environment, as ASYNCTRACK_NATS_CREDS or another variable"
        ]
    scheme = url.partition("://")[0]
    for host in _hosts(url):
        found = _HOST.fullmatch(host)
        if found is None or not 0 < int(found[1] or _PORT) < 1 << 16:
            return [
                f"{field} must be addresses of NATS servers, with {scheme}:// and commas between, such as {EXAMPLE!r}; got {url!r:.200}"
            ]
    return []


def servers_in(url: str) -> list[str]:
    """Return the address of each server, with its port.

    Args:
        url: `address_problems` has found none in it.
    """
    scheme = url.partition("://")[0]
    ports = ((host, _HOST.fullmatch(host)) for host in _hosts(url))
    return [f"{scheme}://{host}" + ("" if found and found[1] else f":{_PORT}") for host, found in ports]


def _hosts(url: str) -> list[str]:
    """Return the hosts in an address; each but the first may have the same scheme before it."""
    scheme = url.partition("://")[0] + "://"
    return [one.strip().removeprefix(scheme).removesuffix("/") for one in url.split(",")]
