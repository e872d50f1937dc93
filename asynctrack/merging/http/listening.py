"""Listening: the socket of a collector, and the HTTP server behind it, which is uvicorn's, with bounds for who connects and says nothing."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any, Final, NamedTuple

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from asynctrack.errors import InvalidSettings

# For how long the head of a request may come, or what follows a request that was refused already. Arbitrary.
_HEAD_S: Final = 10.0
# For how long a connection is kept without a request: a host gives a sign of life each half minute.
_KEEP_ALIVE_S: Final = 75
# For how long requests that are here are answered yet when it ends. Arbitrary.
_GRACE_S: Final = 20
# Connections at once: more than the hosts of any cluster that one process can serve. Arbitrary.
_MOST_CONNECTIONS: Final = 4096


class Address(NamedTuple):
    """The address at which a collector listens.

    Attributes:
        host: a name or an address of this machine; empty for all.
        port: 0 for any that is free.
    """

    host: str
    port: int


class TLSFiles(NamedTuple):
    """The files of TLS.

    Attributes:
        certificate: the chain, in PEM.
        key: its private key, in PEM.
    """

    certificate: Path
    key: Path


class BoundedProtocol(H11Protocol):
    """A connection that is closed where the head of a request does not come."""

    _head_limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin; a peer that is gone without a word is found by the system."""
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                # Else what an answer holds waits for some 40 ms behind its head: asyncio sets this for other sockets only.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        """Take what comes. The date of an answer is set here: for that alone uvicorn wakes ten times a second."""
        date = (b"date", formatdate(usegmt=True).encode())
        self.server_state.default_headers = [date, *self.config.encoded_headers]
        super().data_received(data)
        if self._awaits_head:
            self._watch_head()
        else:
            self._forget_head()

    def on_response_complete(self) -> None:
        """Wait for the next request; what is left of one that was refused already may not take long."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._forget_head()
        super().connection_lost(exc)

    @property
    def _awaits_head(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _watch_head(self) -> None:
        if self._head_limit is None:
            self._head_limit = self.loop.call_later(_HEAD_S, self._end_silent)

    def _forget_head(self) -> None:
        if self._head_limit is not None:
            self._head_limit.cancel()
            self._head_limit = None

    def _end_silent(self) -> None:
        self._head_limit = None
        if not self.transport.is_closing():
            self.transport.abort()


class HTTPServer(uvicorn.Server):
    """A server whose signals are its caller's.

    Attributes:
        at_end: called when it begins to end, so that streams end.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.at_end: list[Callable[[], None]] = []
        self._ends = asyncio.Event()

    def end(self, *, at_once: bool = False) -> None:
        """Have it end, on its loop; `at_once` waits for no answer."""
        self.force_exit = at_once
        self.should_exit = True
        self._ends.set()

    async def main_loop(self) -> None:
        """Serve until `end`."""
        await self._ends.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End."""
        for call in self.at_end:
            call()
        await super().shutdown(sockets)


def make_server(app: Any, tls: TLSFiles | None) -> HTTPServer:
    """Make the server of an app.

    Raises:
        InvalidSettings: the files of TLS cannot be used.
    """
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # what strangers send is no news
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_GRACE_S,
        limit_concurrency=_MOST_CONNECTIONS,
        ssl_certfile=None if tls is None else os.fspath(tls.certificate),
        ssl_keyfile=None if tls is None else os.fspath(tls.key),
    )
    try:
        config.load()
    except OSError as error:  # of `ssl`, too
        absent = [] if tls is None else [os.fspath(path) for path in dict.fromkeys(tls) if not path.exists()]
        why = f"there is no {' and no '.join(absent)}" if absent else error
        raise InvalidSettings([f"--tls-cert and --tls-key cannot be used: {why}"]) from error
    return HTTPServer(config)


def parse_address(text: str) -> Address:
    """Parse HOST:PORT; an address of IPv6 stands in brackets.

    Raises:
        ValueError: it is none.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"expected HOST:PORT, such as 127.0.0.1:4380, got {text!r}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"expected the address in brackets, as [::1]:4380, got {text!r}")
    return Address("" if host == "*" else host, int(port))


def listen(address: Address) -> socket.socket:
    """Bind, and listen.

    Raises:
        InvalidSettings: the address cannot be had.
    """
    try:
        family = _resolved(address)[0][0]
        return socket.create_server((address.host, address.port), family=family, backlog=1024, dualstack_ipv6=False)
    except OSError as error:
        raise InvalidSettings(
            [f"listening at {address.host or '*'}:{address.port}: {error.strerror or error}"]
        ) from error


def is_loopback(address: Address) -> bool:
    """Return whether only this machine can connect to an address.

    Raises:
        InvalidSettings: there is no such name.
    """
    try:
        found = _resolved(address)
    except OSError as error:
        raise InvalidSettings([f"listening at {address.host}:{address.port}: {error.strerror or error}"]) from error
    return all(ipaddress.ip_address(str(where[0]).partition("%")[0]).is_loopback for *_, where in found)


def url_of(sock: socket.socket, address: Address, *, tls: bool) -> str:
    """Return the URL to give to hosts: by the name of this machine, where it listens at all its addresses."""
    bound, port = sock.getsockname()[:2]
    is_any = ipaddress.ip_address(bound.partition("%")[0]).is_unspecified
    host = os.uname().nodename if is_any else address.host
    return f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def _resolved(address: Address) -> list[Any]:
    return socket.getaddrinfo(address.host or "0.0.0.0", address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
