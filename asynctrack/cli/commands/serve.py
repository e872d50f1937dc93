"""`asynctrack serve`: takes by HTTP what several hosts record of their runs, and merges it."""

from __future__ import annotations

import argparse
from typing import Final

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
from asynctrack.errors import InvalidSettings

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
            told.listening(url_of(sock, address, tls=tls is not None), args.dir)
            server.serve(sock)
    told.ended()
    return 0


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
