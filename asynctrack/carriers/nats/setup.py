"""NATS setup: makes the stream that keeps the hosts' messages where it is not there, or says with which command a person makes it. For both sides."""

from __future__ import annotations

import os
from typing import Final

from asynctrack._system.sizes import bytes_in
from asynctrack.backends.base import ActionRequired
from asynctrack.carriers.nats.errors import Denied, JetStreamError, MayNotMake
from asynctrack.carriers.nats.link import NATSLink
from asynctrack.carriers.nats.stream import IS_THERE, stream_command, stream_settings
from asynctrack.carriers.nats.wire import STREAM

# Read, and never written.
REPLICAS_VARIABLE: Final = "ASYNCTRACK_NATS_REPLICAS"
BYTES_VARIABLE: Final = "ASYNCTRACK_NATS_MAX_BYTES"

# In a cluster: one server may be lost.
_REPLICAS: Final = 3
# Of JetStream: too few servers for so many replicas.
_TOO_FEW: Final = (10005, 10074)


async def make_stream(link: NATSLink) -> None:
    """Make the stream, unless it is there: one replica on a single server, three in a cluster that has as many, or what the environment says.

    Raises:
        MayNotMake: this user may not.
        ActionRequired: JetStream does not; a person has to. Or what `NATSLink.api` raises.
    """
    replicas, max_bytes = _wanted()
    for count in dict.fromkeys([replicas or _usual(link), replicas or 1]):
        try:
            await link.api(f"STREAM.CREATE.{STREAM}", stream_settings(replicas=count, max_bytes=max_bytes))
            return
        except Denied as error:
            raise MayNotMake(_to_be_made(link, "this user may not make it", count, max_bytes)) from error
        except JetStreamError as error:
            if error.err_code == IS_THERE:
                return
            if error.err_code in _TOO_FEW and count > 1 and not replicas:
                continue
            raise ActionRequired(_to_be_made(link, f"it cannot be made: {error}", count, max_bytes)) from error


def _usual(link: NATSLink) -> int:
    return _REPLICAS if link.is_clustered else 1


def _to_be_made(link: NATSLink, why: str, replicas: int, max_bytes: int) -> str:
    command = stream_command(replicas=replicas, max_bytes=max_bytes)
    return link.describe(f"has no stream {STREAM}, and {why}. Let somebody who may do `{command}`")


def _wanted() -> tuple[int, int]:
    """Return how many replicas and bytes the environment asks for: 0 and -1 where it says nothing.

    Raises:
        ActionRequired: it says something else.
    """
    replicas, size = os.environ.get(REPLICAS_VARIABLE, ""), os.environ.get(BYTES_VARIABLE, "")
    if replicas not in ("", "1", "2", "3", "4", "5"):
        raise ActionRequired(
            f"{REPLICAS_VARIABLE} in the environment must be a number from 1 to 5; got {replicas!r:.80}"
        )
    found = bytes_in(size) if size else -1
    if found is None:
        raise ActionRequired(
            f"{BYTES_VARIABLE} in the environment must be a number of bytes, such as 20G; got {size!r:.80}"
        )
    return int(replicas or 0), found
