"""`asynctrack serve`: takes by HTTP what several hosts record of their runs, and merges it."""

from __future__ import annotations

import argparse
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

from asynctrack import __version__
from asynctrack._system.open_files import raise_limit
from asynctrack._system.paths import expanded
from asynctrack.backends.requirements import lacking
from asynctrack.cli import options
from asynctrack.cli.collectors import (
    CollectorOutput,
    add_backends,
    add_limits,
    add_lost_after,
    backends_of,
    check_directory,
    host_directory,
    limits_of,
)
from asynctrack.cli.page_access import add_allow_host, add_token, token_of
from asynctrack.errors import InvalidSettings

if TYPE_CHECKING:
    from asynctrack.merging.http.service import CollectorServer

_LISTEN: Final = "127.0.0.1:4380"
_NEEDS: Final = {"starlette": "asynctrack[serve]", "uvicorn": "asynctrack[serve]"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `main` to `parser`."""
    parser.add_argument(
        "--listen",
        metavar="HOST:PORT",
        default=_LISTEN,
        help="where to listen; port 0 for any that is free (default: %(default)s)",
    )
    options.add_dir(parser, "where to make the merged runs, as DIR/project/id")
    add_backends(parser)
    parser.add_argument(
        "--tokens",
        metavar="FILE",
        type=expanded,
        help="who may write what: a line `TOKEN PROJECT-GLOB` each; nobody else may read the file",
    )
    parser.add_argument("--tls-cert", metavar="FILE", type=expanded, help="the certificate and its chain, in PEM")
    parser.add_argument("--tls-key", metavar="FILE", type=expanded, help="its private key, in PEM")
    parser.add_argument(
        "--insecure", action="store_true", help="listen to other machines without a token or without TLS"
    )
    parser.add_argument(
        "--ui",
        action="store_true",
        help="show the runs in the browser at the same port, to who knows a token of its own",
    )
    add_token(parser, "--ui-token", "with --ui: ")
    add_allow_host(parser, "--ui-allow-host", "with --ui: ")
    add_lost_after(parser)
    add_limits(parser)
    options.add_json(parser, "print a line of JSON for each event")


def main(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C. Return 0."""
    if missing := lacking(_NEEDS):
        raise InvalidSettings([f"asynctrack serve: {missing[0]}"])
    from asynctrack.merging.http.listening import TLSFiles, is_loopback, listen, parse_address, url_of
    from asynctrack.merging.http.service import CollectorServer, ServerSettings

    try:
        address = parse_address(args.listen)
    except ValueError as error:
        raise InvalidSettings([f"--listen: {error}"]) from None
    _check_security(args, loopback=is_loopback(address))
    page_token = _page_token(args, loopback=is_loopback(address))
    tls = None if args.tls_cert is None else TLSFiles(args.tls_cert, args.tls_key)
    backends = backends_of(args.backends)
    check_directory(args.dir)
    raise_limit()
    settings = ServerSettings(
        directory=args.dir, limits=limits_of(args), tokens=args.tokens, tls=tls, backends=backends
    )
    told = CollectorOutput(as_json=args.json)
    with host_directory() as host:
        server = CollectorServer(settings, host, told.change)
        with listen(address) as sock:
            told.listening(url := url_of(sock, address, tls=tls is not None), args.dir)
            if args.ui:
                told.page(_show(args, server, sock, address.host, page_token, url))
            server.serve(sock)
    told.ended()
    return 0


def _page_token(args: argparse.Namespace, *, loopback: bool) -> str | None:
    """Return the token of the page; None for a random one.

    Raises:
        InvalidSettings: other machines could read runs without one, or there is no page.
    """
    if not args.ui:
        given = [
            option
            for option, value in (("--ui-token", args.ui_token), ("--ui-allow-host", args.ui_allow_host))
            if value
        ]
        if given:
            raise InvalidSettings([f"{given[0]} is of the page: give --ui, too"])
        return None
    token = token_of(args.ui_token, "--ui-token")
    if token is None and not loopback:
        raise InvalidSettings(
            [f"--ui with --listen {args.listen} lets other machines read runs, which needs --ui-token env:NAME"]
        )
    return token


def _show(
    args: argparse.Namespace, server: CollectorServer, sock: socket.socket, host: str, token: str | None, url: str
) -> str:
    """Have a collector show its runs; return the address of the page."""
    from asynctrack.ui.app import PageApp, PageSettings
    from asynctrack.ui.server import access_to

    page = PageApp(PageSettings(places=(Path(os.path.abspath(args.dir)),), version=__version__))
    access = access_to(sock, host, token, args.ui_allow_host, secure=args.tls_cert is not None)
    server.show(page.guarded(access), page.close)
    return f"{url}/" if token is not None else f"{url}/?token={access.token}"


def _check_security(args: argparse.Namespace, *, loopback: bool) -> None:
    """See that nobody else can write who should not.

    Raises:
        InvalidSettings: other machines could connect without a token, or read what is sent.
    """
    if (args.tls_cert is None) != (args.tls_key is None):
        raise InvalidSettings(["--tls-cert and --tls-key go together: give both"])
    if loopback or args.insecure:
        return
    missing = [
        option
        for option, given in (("--tokens FILE", args.tokens), ("--tls-cert FILE --tls-key FILE", args.tls_cert))
        if given is None
    ]
    if missing:
        problem = (
            f"--listen {args.listen} lets other machines connect, which needs {' and '.join(missing)}; "
            "--insecure does without, where you trust everybody on that network"
        )
        raise InvalidSettings([problem])
