"""Page access: who may open the page, as the commands that show it take it: `ui`, and `serve --ui`."""

from __future__ import annotations

import argparse
import os
import re
from typing import Final

from asynctrack.errors import InvalidSettings

ENVIRONMENT: Final = "env:"
# A shorter token could be guessed.
_SHORTEST_TOKEN: Final = 16
# A name or an address as `Host` says it, with or without a port.
_HOST: Final = re.compile(r"\[?([a-z0-9_.-]+|[0-9a-f]*:[0-9a-f.]*:[0-9a-f:.]*)\]?(?::[0-9]{1,5})?", re.IGNORECASE)


def add_token(parser: argparse.ArgumentParser, option: str, begin: str = "") -> None:
    """Add the option that says which token opens the page; `begin` is what its help begins with."""
    parser.add_argument(
        option,
        metavar="env:NAME",
        help=f"{begin}open the page to who knows the token in this environment variable (default: a random one, in the address that is printed)",
    )


def add_allow_host(parser: argparse.ArgumentParser, option: str, begin: str = "") -> None:
    """Add the option that says by which names the page may be reached; `begin` is what its help begins with."""
    parser.add_argument(
        option,
        metavar="NAME",
        type=_host,
        action="append",
        default=[],
        help=f"{begin}let browsers ask by this name, too, such as that of a proxy; may be given several times",
    )


def _host(text: str) -> str:
    """Return the name of a host without its port, which does not count."""
    found = _HOST.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"expected a name such as runs.example.org, got {text!r}")
    return found[1]


def token_of(said: str | None, option: str) -> str | None:
    """Return the token that an option names; None where none was given.

    Raises:
        InvalidSettings: there is none, or one that could be guessed.
    """
    if said is None:
        return None
    name = said.removeprefix(ENVIRONMENT)
    if name == said or not name:
        raise InvalidSettings(
            [
                f"{option} must be env:NAME, the name of an environment variable; a token in a command can be seen by everybody"
            ]
        )
    token = os.environ.get(name, "")
    if len(token) < _SHORTEST_TOKEN:
        raise InvalidSettings(
            [f"{option} {said}: expected at least {_SHORTEST_TOKEN} characters in {name}, got {len(token)}"]
        )
    return token
