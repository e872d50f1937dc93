"""Server: the page's server, from its start to Ctrl-C. Runs in `asynctrack ui`."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import signal
import socket
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from asynctrack.errors import InvalidSettings
from asynctrack.merging.http.listening import Address, is_loopback, listen, make_server, url_of
from asynctrack.ui.app import PageApp, PageSettings
from asynctrack.ui.guard import Access

# Where it listens; where that is taken, at the next ones, then at any.
PORT: Final = 6180
_LAST_PORT: Final = 6199
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_TOKEN_BYTES: Final = 24


class Listening(msgspec.Struct, frozen=True, kw_only=True):
    """A server that listens.

    Attributes:
        sock: the socket.
        url: of the page, with the token that opens it.
        port: at which it listens.
        instead_of: the port that was wanted, where that was taken.
        access: who may come in.
    """

    sock: socket.socket
    url: str
    port: int
    instead_of: int | None
    access: Access


def listen_for_page(host: str, port: int | None, token: str | None, hosts: Iterable[str]) -> Listening:
    """Listen for browsers.

    Args:
        host: a name or an address of this machine.
        port: 0 for any that is free; None for the usual ones.
        token: that opens the page; None for one that nobody knows yet.
        hosts: further names by which the page is reached.

    Raises:
        InvalidSettings: the address cannot be had.
    """
    sock = _bound(host, port)
    bound_port = int(sock.getsockname()[1])
    address = Address(host, bound_port)
    is_open = not is_loopback(address)
    access = Access(
        token=token or secrets.token_urlsafe(_TOKEN_BYTES),
        port=bound_port,
        hosts=frozenset(name.lower() for name in (*hosts, *([host, *_own_names()] if is_open else []))),
        any_address=is_open,
    )
    shown = access.token if token is None else ""
    url = f"{url_of(sock, address, tls=False)}/" + (f"?token={shown}" if shown else "")
    wanted = PORT if port is None else port
    instead_of = wanted if wanted not in (0, bound_port) else None
    return Listening(sock=sock, url=url, port=bound_port, instead_of=instead_of, access=access)


def serve_page(settings: PageSettings, listening: Listening, begun: Callable[[], None] = lambda: None) -> None:
    """Serve until SIGINT or SIGTERM, which end it at once: it holds nothing that could be lost.

    Args:
        settings: what is shown.
        listening: where.
        begun: called when it answers.
    """
    asyncio.run(_serve(settings, listening, begun))


async def _serve(settings: PageSettings, listening: Listening, begun: Callable[[], None]) -> None:
    app = PageApp(settings)
    server = make_server(app.guarded(listening.access), None)
    server.at_end.append(app.close)
    loop = asyncio.get_running_loop()

    def end() -> None:
        server.should_exit = server.force_exit = True

    for one in _SIGNALS:
        loop.add_signal_handler(one, end)
    begun()
    await server.serve([listening.sock])


def _bound(host: str, port: int | None) -> socket.socket:
    ports = [port] if port is not None else [*range(PORT, _LAST_PORT + 1), 0]
    for one in ports[:-1]:
        try:
            return listen(Address(host, one))
        except InvalidSettings as error:
            if not (isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE):
                raise
    return listen(Address(host, ports[-1]))


def _own_names() -> list[str]:
    name = os.uname().nodename
    return [name, name.partition(".")[0], socket.getfqdn(name)]
