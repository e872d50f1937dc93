"""Endpoint: where a backend's server is, and what says there who we are; both without a key in a setting, a message or a log.

Settings hold an address without user and password, and `env:NAME` for a key or a password. The variable is read where the sink opens, by
`read_secret` alone. What it has goes into `Credentials`, which know what must never be repeated; whoever says something of a server's answer
says it through their `hide`. Runs in the caller, where settings are checked, and where the sink does.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import urlsplit

from asynctrack._system.masking import MASK
from asynctrack.backends.base import ActionRequired

_PREFIX: Final = "env:"
_REFERENCE: Final = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*")
_URL: Final = re.compile(r"https?://[A-Za-z0-9.\-_\[\]:%]+(/[A-Za-z0-9.\-_~%/+=,;!$&'()*:]*)?", re.ASCII)


class Credentials:
    """What says to a server who we are.

    Args:
        headers: sent with every request.
        secrets: what must never be repeated, whatever the server says.
    """

    def __init__(self, headers: Mapping[str, str] | None = None, secrets: Iterable[str] = ()) -> None:
        self.headers: dict[str, str] = dict(headers or {})
        self._secrets = sorted({secret for secret in secrets if secret}, key=len, reverse=True)  # one may hold another

    def __repr__(self) -> str:
        return f"<Credentials in {', '.join(self.headers) or 'no header'}>"

    @classmethod
    def in_header(cls, name: str, key: str | None, scheme: str = "") -> Credentials:
        """A key as a header has it; none where there is no key."""
        return cls({name: f"{scheme} {key}".strip()}, [key]) if key else cls()

    @classmethod
    def of_user(cls, user: str, password: str) -> Credentials:
        """A user and a password, as HTTP's basic authentication has them."""
        pair = base64.b64encode(f"{user}:{password}".encode()).decode()
        return cls({"authorization": f"Basic {pair}"}, [password, pair])

    def hide(self, text: str) -> str:
        """A text without what must never be repeated."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text


def address_of(given: str | None, variable: str) -> str | None:
    """The address that a setting gives, else that of the environment's variable; None where neither has one."""
    return given or os.environ.get(variable) or None


def url_problems(field: str, url: object) -> list[str]:
    """What is wrong with a server's address. A key that was put into it is not repeated."""
    if not isinstance(url, str):
        return [f"{field} must be the address of a server, such as 'http://127.0.0.1:5000'; got {type(url).__name__}"]
    if "@" in url:
        return [f"{field} must not hold a user or a password: they belong in the environment"]
    if "?" in url or "#" in url:
        return [f"{field} must end with its path, without '?' or '#': a write token belongs in the environment"]
    if not _URL.fullmatch(url) or not _has_host(url):
        return [f"{field} must be the address of an HTTP server, such as 'http://127.0.0.1:5000'; got {url!r:.80}"]
    return []


def secret_problems(field: str, reference: object) -> list[str]:
    """What is wrong with a reference to a key. What was given may be the key itself, and is not repeated."""
    if isinstance(reference, str) and _REFERENCE.fullmatch(reference):
        return []
    return [f"{field} must be 'env:NAME', the environment's variable that holds it: keys are not kept in settings"]


def timeout_problems(field: str, seconds: object) -> list[str]:
    """What is wrong with a time-out."""
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds < float("inf"):
        return []
    return [f"{field} must be a number of seconds greater than 0; got {seconds!r:.80}"]


def variables(*references: str) -> str:
    """The environment's variables that references lead to, in words."""
    return " or ".join(reference.removeprefix(_PREFIX) for reference in references)


def read_secret(reference: str, *, for_header: bool = True) -> str | None:
    """The key that `env:NAME` leads to, None where the environment has none.

    Args:
        reference: as the settings have it.
        for_header: whether a header is to hold it; then blanks around it are not of it. A password may have any characters.

    Raises:
        ActionRequired: no header can hold it.
    """
    secret = os.environ.get(variables(reference), "")
    if for_header:
        secret = secret.strip()
        if not (secret.isascii() and secret.isprintable()):
            raise ActionRequired(
                f"what the environment has as {variables(reference)} cannot be a key: it has characters that no header can hold"
            )
    return secret or None


def set_variables(*references: str) -> str:
    """What to do where a key is needed and the environment has none."""
    return f"set {variables(*references)} in the environment of the process that opens the run, or of `asynctrack sync`"


def _has_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False
