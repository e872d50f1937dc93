"""`asynctrack ui`: shows runs in the browser, while they go on and after their end."""

from __future__ import annotations

import argparse
import ipaddress
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from asynctrack import __version__
from asynctrack._system.disk_timeout import InterruptibleCall
from asynctrack._system.paths import expanded
from asynctrack.backends.requirements import lacking
from asynctrack.cli import options, output
from asynctrack.cli.page_access import ENVIRONMENT, add_allow_host, add_token, token_of
from asynctrack.cli.page_export import export_page
from asynctrack.errors import InvalidSettings
from asynctrack.reading import catalog
from asynctrack.settings import DEFAULT_DIR

if TYPE_CHECKING:
    from asynctrack.ui.server import Listening

_NEEDS: Final = {"starlette": "asynctrack[ui]", "uvicorn": "asynctrack[ui]"}
_LOOPBACK: Final = "127.0.0.1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `main` to `parser`."""
    parser.add_argument(
        "places",
        metavar="DIR|RUN",
        nargs="*",
        help=f"directories that hold runs, or runs: {options.RUN_HELP} (default: {DEFAULT_DIR})",
    )
    options.add_dir(parser, "directory in which ids and names of runs are looked up")
    parser.add_argument(
        "--host",
        default=_LOOPBACK,
        help="where to listen; beyond this machine it needs --token (default: %(default)s)",
    )
    parser.add_argument(
        "--port",
        type=options.whole(0, 65535),
        help="at which to listen, 0 for any that is free; where it is taken, at the next one that is free (default: 6180)",
    )
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    add_token(parser, "--token")
    add_allow_host(parser, "--allow-host")
    parser.add_argument(
        "--no-cache", action="store_true", help="keep nothing of what was read in your cache, and use nothing from it"
    )
    parser.add_argument(
        "--export",
        type=expanded,
        metavar="FILE.html",
        help="start no server: write the page with these runs in it to one file, which opens without a server; nobody needs asynctrack to read it",
    )
    parser.add_argument("--force", action="store_true", help="with --export: replace FILE.html if it exists")
    options.add_json(parser, "print one JSON document: where the page is, or what was written")


def main(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C, or write a file. Return 0; 1 if there are no runs to write, 2 if the file cannot be written there or a directory is missing."""
    if args.export is not None:
        places = _places(args)
        return (
            2
            if places is None
            else export_page(args.export, places, cache=not args.no_cache, force=args.force, as_json=args.json)
        )
    if missing := lacking(_NEEDS):
        raise InvalidSettings([f"asynctrack ui: {missing[0]}"])
    if (places := _places(args)) is None:
        return 2
    from asynctrack.merging.http.listening import Address, is_loopback
    from asynctrack.ui.app import PageSettings
    from asynctrack.ui.server import listen_for_page, serve_page

    token = token_of(args.token, "--token")
    if token is None and not is_loopback(Address(args.host, args.port or 0)):
        raise InvalidSettings(
            [
                f"--host {args.host} lets other machines read your runs: set a token by which you let in whom you want, "
                "with --token env:NAME; or leave --host out, and forward the port by ssh"
            ]
        )
    settings = PageSettings(places=tuple(places), version=__version__, cache=not args.no_cache)
    listening = listen_for_page(args.host, args.port, token, args.allow_host)
    with listening.sock:
        _tell(listening, args.token, as_json=args.json)
        serve_page(settings, listening, lambda: _open(listening.url_once) if args.open else None)
    return 0


def _places(args: argparse.Namespace) -> list[Path] | None:
    """Return the directories to show; None, and a word of it, where one is missing."""
    if not args.places:
        return [Path(os.path.abspath(args.dir))]
    found = []
    for text in args.places:
        path = expanded(text)
        if not InterruptibleCall(path.is_dir, path).wait():
            path = catalog.find(text, args.dir)
        found.append(Path(os.path.abspath(path)))
    return list(dict.fromkeys(found))


def _tell(listening: Listening, token: str | None, *, as_json: bool) -> None:
    """Print where the page is; the first line is the address."""
    if as_json:
        output.print_json({"url": listening.url, "port": listening.access.port, "forward": _forwarding(listening)})
        sys.stdout.flush()
        return
    lines = [listening.url]
    if token is not None:
        lines.append(f"open it with ?token= and what {token.removeprefix(ENVIRONMENT)} says behind it")
    if listening.instead_of is not None:
        lines.append(f"port {listening.instead_of} is taken: this is another")
    if (line := _forwarding(listening)) is not None:
        lines.append(f"on your own machine: {line}")
    lines.append("Ctrl-C ends it")
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def _forwarding(listening: Listening) -> str | None:
    """Return the command by which the page is reached from the other end of an ssh session; None where this is none."""
    said = os.environ.get("SSH_CONNECTION", "").split()
    try:
        _, _, server, server_port = said
        server = str(ipaddress.ip_address(server))
    except ValueError:
        return None
    at = listening.sock.getsockname()[0]
    at = f"[{at}]" if ":" in at else at
    port = "" if server_port == "22" or not server_port.isdecimal() else f" -p {server_port}"
    return f"ssh -N{port} -L {listening.access.port}:{at}:{listening.access.port} {server}"


def _open(url: str) -> None:
    import threading
    import webbrowser

    threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
