"""NATS errors: what a connection to a NATS server may raise, beside `Retry` and `ActionRequired`."""

from __future__ import annotations

from typing import Any

from asynctrack.backends.base import ActionRequired, Retry
from asynctrack.carriers.nats.stream import Meaning, meaning_of


class JetStreamError(Exception):
    """JetStream has not done what it was asked.

    Attributes:
        meaning: what to do about it.
        err_code: the server's number.
        description: the server's words.
    """

    def __init__(self, code: int, err_code: int, description: str) -> None:
        super().__init__(f"{description} ({err_code})")
        self.meaning: Meaning = meaning_of(code, err_code)
        self.err_code = err_code
        self.description = description


class NobodyThere(Retry):
    """Nobody listens to a subject."""


class TookTooLong(Retry):
    """No answer has come in time."""


class TooLong(Retry):
    """The server takes no message of this size any more."""


class Denied(ActionRequired):
    """The server does not let this user do something.

    Attributes:
        subject: what it may not use.
    """

    def __init__(self, reason: str, subject: str) -> None:
        super().__init__(reason)
        self.subject = subject


class MayNotMake(ActionRequired):
    """There is no stream, and this user may not make it; another may."""


def import_nats() -> Any:
    """Import nats-py.

    Raises:
        ActionRequired: it is not installed.
    """
    try:
        import nats.aio.client
        import nats.errors
    except ImportError as error:
        raise ActionRequired("NATS needs nats-py: pip install 'asynctrack[nats]'") from error
    return nats
