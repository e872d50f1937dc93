"""Endpoint: address of a backend's server, and credentials for it, which stay out of settings, messages and logs.

Settings hold an address without user and password, and `env:NAME` for a key or a password. Only `read_secret` reads
that variable, when the sink opens. Its value goes into `Credentials`, which know the secrets; every message about a
server's answer passes through their `hide`. Runs in the caller, where settings are checked, and where the sink runs.
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
    """Proof of identity for a server.

    Args:
        headers: sent with every request.
        secrets: texts that no message may repeat, whatever the server says.
    """

    def __init__(self, headers: Mapping[str, str] | None = None, secrets: Iterable[str] = ()) -> None:
        self.headers: dict[str, str] = dict(headers or {})
        self._secrets = sorted(
            {secret for secret in secrets if secret}, key=len, reverse=True
        )  # the longest first: one may contain another

    def __repr__(self) -> str:
        return f"<Credentials in {', '.join(self.headers) or 'no header'}>"

    @classmethod
    def in_header(cls, name: str, key: str | None, scheme: str = "") -> Credentials:
        """Build credentials from a key in a header; empty ones where there is no key."""
        return cls({name: f"{scheme} {key}".strip()}, [key]) if key else cls()

    @classmethod
    def of_user(cls, user: str, password: str) -> Credentials:
        """Build credentials from a user and a password, by HTTP's basic authentication."""
        pair = base64.b64encode(f"{user}:{password}".encode()).decode()
        return cls({"authorization": f"Basic {pair}"}, [password, pair])

    def hide(self, text: str) -> str:
        """Return a text with every secret masked."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text


def address_of(given: str | None, variable: str) -> str | None:
    """Return the address from a setting, else the one from the environment's variable; None where neither has one."""
    return given or os.environ.get(variable) or None


def url_problems(field: str, url: object) -> list[str]:
    """List what is wrong with a server's address. The messages do not repeat a key that was put into it."""
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
    """List what is wrong with a reference to a key. The messages do not repeat it, since it may be the key itself."""
    if isinstance(reference, str) and _REFERENCE.fullmatch(reference):
        return []
    return [f"{field} must be 'env:NAME', the environment's variable that holds it: keys are not kept in settings"]


def timeout_problems(field: str, seconds: object) -> list[str]:
    """List what is wrong with a time-out."""
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds < float("inf"):
        return []
    return [f"{field} must be a number of seconds greater than 0; got {seconds!r:.80}"]


def variables(*references: str) -> str:
    """Name the environment's variables that references lead to, in words."""
    return " or ".join(reference.removeprefix(_PREFIX) for reference in references)


def read_secret(reference: str, *, for_header: bool = True) -> str | None:
    """Read the key that `env:NAME` leads to, None where the environment has none.

    Args:
        reference: as the settings have it.
        for_header: whether the key goes into a header. Blanks around it are then removed. A password may have any
            characters.

    Raises:
        ActionRequired: no header can hold the key.
    """
    secret = os.environ.get(variables(reference), "")
    if for_header:
        secret = secret.strip()
        if not (secret.isascii() and secret.isprintable()):
            raise ActionRequired(
                f"{variables(reference)} in the environment cannot be a key: it has characters that no header can hold; set it again"
            )
    return secret or None


def set_variables(*references: str) -> str:
    """Say what to do where a key is needed and the environment has none."""
    return f"set {variables(*references)} in the environment of the process that opens the run, or of `asynctrack sync`"


def _has_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False
