"""Server: the page's server, from its start to Ctrl-C. Runs in `asynctrack ui`."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

import msgspec

from asynctrack.errors import InvalidSettings
from asynctrack.merging.http.listening import Address, is_loopback, listen, make_server, url_of
from asynctrack.ui.app import PageApp, PageSettings
from asynctrack.ui.guard import Access

# Where it listens; where that is taken, at one of the next ones, then at any.
PORT: Final = 6180
_PORTS: Final = 20
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_TOKEN_BYTES: Final = 24
# A thread that reads files gives way to another after so long; by default it is ten times that, for each piece of a file that the other reads.
_SWITCH_S: Final = 5e-4


class Listening(msgspec.Struct, frozen=True, kw_only=True):
    """A server that listens.

    Attributes:
        sock: the socket.
        url: of the page, with the token that opens it where that is a random one.
        url_once: of the page, with what opens it once.
        instead_of: the port that was wanted, where that was taken.
        access: who may come in.
    """

    sock: socket.socket
    url: str
    url_once: str
    instead_of: int | None
    access: Access


def listen_for_page(host: str, port: int | None, token: str | None, hosts: Iterable[str]) -> Listening:
    """Listen for browsers.

    Args:
        host: a name or an address of this machine.
        port: 0 for any that is free; None for the usual one. Where it is taken, another is.
        token: that opens the page; None for one that nobody knows yet.
        hosts: further names by which the page is reached.

    Raises:
        InvalidSettings: the address cannot be had.
    """
    sock = _bound(host, port)
    access = access_to(sock, host, token, hosts)
    base = f"{url_of(sock, Address(host, access.port), tls=False)}/"
    wanted = PORT if port is None else port
    return Listening(
        sock=sock,
        url=base if token is not None else f"{base}?token={access.token}",
        url_once=f"{base}?token={access.once}",
        instead_of=wanted if wanted not in (0, access.port) else None,
        access=access,
    )


def access_to(
    sock: socket.socket, host: str, token: str | None, hosts: Iterable[str], *, secure: bool = False
) -> Access:
    """Return who may come in.

    Args:
        sock: that listens.
        host: at which it does; empty for all addresses.
        token: that opens the page; None for one that nobody knows yet.
        hosts: further names by which the page is reached.
        secure: whether it is reached by TLS alone.

    Raises:
        InvalidSettings: there is no such host.
    """
    port = int(sock.getsockname()[1])
    is_open = not is_loopback(Address(host, port))
    names = [*hosts, *([host, os.uname().nodename] if is_open else [])]
    return Access(
        token=token or secrets.token_urlsafe(_TOKEN_BYTES),
        port=port,
        hosts=frozenset(name.lower().rstrip(".") for name in names if name),
        any_address=is_open,
        secure=secure,
        once=secrets.token_urlsafe(_TOKEN_BYTES),
    )


def serve_page(settings: PageSettings, listening: Listening, begun: Callable[[], None] = lambda: None) -> None:
    """Serve until SIGINT or SIGTERM, which end it at once: it holds nothing that could be lost.

    Args:
        settings: what is shown.
        listening: where.
        begun: called when it answers.
    """
    asyncio.run(_serve(settings, listening, begun))


async def _serve(settings: PageSettings, listening: Listening, begun: Callable[[], None]) -> None:
    sys.setswitchinterval(_SWITCH_S)
    app = PageApp(settings)
    server = make_server(app.guarded(listening.access), None)
    server.at_end.append(app.close)
    loop = asyncio.get_running_loop()

    for one in _SIGNALS:
        loop.add_signal_handler(one, partial(server.end, at_once=True))
    begun()
    await server.serve([listening.sock])


def _bound(host: str, port: int | None) -> socket.socket:
    first = PORT if port is None else port
    ports = range(first, min(first + _PORTS, 1 << 16)) if first else ()
    for one in ports:
        try:
            return listen(Address(host, one))
        except InvalidSettings as error:
            if not (isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE):
                raise
    return listen(Address(host, 0))
