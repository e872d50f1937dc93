"""NATS identity: proves to a NATS server who asks. Runs where the connection does.

It comes from the environment, read anew at each connection, so that what a person mends there counts. It is in no settings, message, `repr` or log:

| Variable | What it has |
| --- | --- |
| `ASYNCTRACK_NATS_CREDS` | path of a `.creds` file, with a JWT and its seed |
| `ASYNCTRACK_NATS_NKEY` | path of a file with the seed of an nkey |
| `ASYNCTRACK_NATS_TOKEN`, `ASYNCTRACK_NATS_TOKEN_FILE` | a token, or the path of a file that has it |
| `ASYNCTRACK_NATS_USER`, with `ASYNCTRACK_NATS_PASSWORD` or `ASYNCTRACK_NATS_PASSWORD_FILE` | a user and a password |
| `ASYNCTRACK_NATS_CA` | path of the certificates to trust; without it, those of the machine |
| `ASYNCTRACK_NATS_CERT`, `ASYNCTRACK_NATS_KEY` | paths of a certificate that shows who asks, and its key |
"""

from __future__ import annotations

import importlib.util
import os
import ssl
from typing import Any, Final, NamedTuple

from asynctrack.backends.base import ActionRequired
from asynctrack.backends.endpoint import Credentials

CREDS_VARIABLE: Final = "ASYNCTRACK_NATS_CREDS"
NKEY_VARIABLE: Final = "ASYNCTRACK_NATS_NKEY"
TOKEN_VARIABLE: Final = "ASYNCTRACK_NATS_TOKEN"
TOKEN_FILE_VARIABLE: Final = "ASYNCTRACK_NATS_TOKEN_FILE"
USER_VARIABLE: Final = "ASYNCTRACK_NATS_USER"
PASSWORD_VARIABLE: Final = "ASYNCTRACK_NATS_PASSWORD"
PASSWORD_FILE_VARIABLE: Final = "ASYNCTRACK_NATS_PASSWORD_FILE"
CA_VARIABLE: Final = "ASYNCTRACK_NATS_CA"
CERT_VARIABLE: Final = "ASYNCTRACK_NATS_CERT"
KEY_VARIABLE: Final = "ASYNCTRACK_NATS_KEY"
VARIABLES: Final = (
    CREDS_VARIABLE, NKEY_VARIABLE, TOKEN_VARIABLE, TOKEN_FILE_VARIABLE, USER_VARIABLE, PASSWORD_VARIABLE, PASSWORD_FILE_VARIABLE,
    CA_VARIABLE, CERT_VARIABLE, KEY_VARIABLE,
)  # fmt: skip

_MOST_SECRET: Final = 64 * 1024


class Identity(NamedTuple):
    """Says who asks.

    Attributes:
        options: for nats-py. What is secret as it is, is a function that returns it.
        credentials: what no message may repeat.
    """

    options: dict[str, Any]
    credentials: Credentials


def read_identity() -> Identity:
    """Read who asks, from the environment.

    Raises:
        ActionRequired: a file cannot be read, or is empty.
    """
    creds, nkey = os.environ.get(CREDS_VARIABLE, ""), os.environ.get(NKEY_VARIABLE, "")
    token, user = _secret(TOKEN_VARIABLE, TOKEN_FILE_VARIABLE), os.environ.get(USER_VARIABLE, "")
    password = _secret(PASSWORD_VARIABLE, PASSWORD_FILE_VARIABLE)
    credentials = Credentials(secrets=[token, password])
    if creds:
        _read(CREDS_VARIABLE, creds)
        return Identity(_signing({"user_credentials": creds}), credentials)
    if nkey:
        seed = _read(NKEY_VARIABLE, nkey).strip()
        if not seed:
            raise ActionRequired(f"the file in {NKEY_VARIABLE} is empty; expected the seed of an nkey")
        return Identity(_signing({"nkeys_seed_str": seed}), Credentials(secrets=[seed]))
    if user:
        return Identity({"user": lambda: user, "password": lambda: password}, credentials)
    return Identity({"token": lambda: token} if token else {}, credentials)


def trusted(*, needed: bool) -> ssl.SSLContext | None:
    """Return whom to trust, and the certificate that shows who asks; None where the environment says nothing of it.

    Args:
        needed: whether there is to be TLS.

    Raises:
        ActionRequired: a file cannot be read.
    """
    path = os.environ.get(CA_VARIABLE, "")
    cert, key = os.environ.get(CERT_VARIABLE, ""), os.environ.get(KEY_VARIABLE, "")
    if not (needed or path or cert):
        return None
    try:
        context = ssl.create_default_context(cafile=path or None)
    except (OSError, ssl.SSLError) as error:
        raise ActionRequired(f"{path}, which {CA_VARIABLE} names, has no certificates: {error}") from error
    if cert:
        try:
            context.load_cert_chain(cert, key or None)
        except (OSError, ssl.SSLError) as error:
            raise ActionRequired(
                f"{cert}, which {CERT_VARIABLE} names, cannot be used with its key: {error}"
            ) from error
    return context


def _signing(how: dict[str, Any]) -> dict[str, Any]:
    if importlib.util.find_spec("nkeys") is None:  # nats-py imports it too late to say so
        raise ActionRequired(f"{CREDS_VARIABLE} and {NKEY_VARIABLE} need nkeys: pip install 'asynctrack[nats]'")
    return how


def _secret(variable: str, of_file: str) -> str:
    """Read a secret from the environment, or the file that it names; empty where there is none."""
    found = os.environ.get(variable, "")
    if not found and (path := os.environ.get(of_file, "")):
        found = _read(of_file, path)
    return found.strip("\r\n")


def _read(variable: str, path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(_MOST_SECRET)
    except (OSError, UnicodeDecodeError) as error:
        raise ActionRequired(f"the file in {variable} cannot be read: {error}") from error
