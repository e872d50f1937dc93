"""Service: a collector that listens, from its start to a clean end. Runs in `asynctrack serve`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from asynctrack.backends.base import Backend
from asynctrack.carriers import wire
from asynctrack.merging.http.app import CollectorApp
from asynctrack.merging.http.listening import HTTPServer, TLSFiles, make_server
from asynctrack.merging.http.tokens import TokenFile
from asynctrack.merging.server.deliveries import Deliveries
from asynctrack.merging.server.limits import ServerLimits
from asynctrack.merging.server.served_runs import RunChange, ServedRuns
from asynctrack.merging.server.upkeep import upkeep

# An app of ASGI.
App = Callable[[Any, Any, Any], Awaitable[None]]

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what a collector is started with.

    Attributes:
        directory: for the merged runs.
        limits: of what it takes.
        tokens: the file of tokens; None where anybody may write.
        tls: the files of TLS; None for plain HTTP.
        backends: to which merged runs are delivered.
    """

    directory: Path
    limits: ServerLimits = ServerLimits()
    tokens: Path | None = None
    tls: TLSFiles | None = None
    backends: dict[str, Backend] = {}


class CollectorServer:
    """Serves until a signal comes.

    Args:
        settings: what it is started with.
        host: the directory of this process's handshake, for delivery processes.
        tell: is told how a merged run is when that has changed.

    Raises:
        InvalidSettings: tokens or certificates cannot be used.
    """

    def __init__(self, settings: ServerSettings, host: str, tell: Callable[[RunChange], None]) -> None:
        self._settings = settings
        self._host = host
        self._tell = tell
        self._deliveries: Deliveries | None = None
        self._runs = ServedRuns(settings.directory, settings.limits, settings.backends, self._on_change)
        tokens = None if settings.tokens is None else TokenFile(settings.tokens)
        self._app = _Beside(CollectorApp(self._runs, settings.limits, tokens).asgi)
        self._server = make_server(self._app, settings.tls)

    def show(self, page: App, close: Callable[[], None]) -> None:
        """Have another app answer what is not for hosts.

        Args:
            page: the app; it has to see to it who asks.
            close: called when the server begins to end, so that the app ends its streams.
        """
        self._app.page = page
        self._server.at_end.append(close)

    def serve(self, sock: socket.socket) -> None:
        """Serve at a socket that listens, until SIGTERM or SIGINT; what was acknowledged is safe then."""
        asyncio.run(self._serve(sock))

    async def _serve(self, sock: socket.socket) -> None:
        if self._settings.backends:
            self._deliveries = Deliveries(self._settings.backends, self._host)
        with _ending(self._server):
            async with upkeep(self._runs, self._deliveries, self._settings.directory):
                resuming = asyncio.create_task(self._runs.resume())
                try:
                    await self._server.serve([sock])
                finally:
                    resuming.cancel()
                    await asyncio.gather(resuming, return_exceptions=True)

    def _on_change(self, change: RunChange) -> None:
        if self._deliveries is not None and change.hosts:
            self._deliveries.note(Path(change.path), has_ended=change.has_ended)
        self._tell(change)


class _Beside:
    """An app for hosts, and perhaps another one for all else."""

    def __init__(self, hosts: App) -> None:
        self.page: App | None = None
        self._hosts = hosts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        is_for_hosts = scope.get("path", "").startswith(f"/{wire.VERSION}/")
        app = self._hosts if self.page is None or is_for_hosts else self.page
        await app(scope, receive, send)


@contextlib.contextmanager
def _ending(server: HTTPServer) -> Iterator[None]:
    """Have signals end the server; a second one ends it without waiting for requests, and a third the process."""
    loop, left = asyncio.get_running_loop(), list(range(2))

    def end(number: int) -> None:
        if not left:
            os._exit(128 + number)
        server.end(at_once=left.pop() == 0)

    for one in _SIGNALS:
        loop.add_signal_handler(one, end, one)
    try:
        yield
    finally:
        for one in _SIGNALS:
            loop.remove_signal_handler(one)
