"""NATS stream: how JetStream is told to keep messages, and what its errors mean. Pure functions, for both sides."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from asynctrack.carriers.nats.wire import STREAM, SUBJECTS, Sent, sent_in

Meaning = Literal["nothing_there", "no_stream", "moved", "full", "too_large", "no_jetstream", "denied", "not_now"]
# An `err_code`: a stream of that name is there, with other settings, which is as good for who wanted to make it.
IS_THERE: Final = 10058
# By the server's `err_code`; others by the HTTP-like `code`.
_MEANINGS: Final[dict[int, Meaning]] = {
    10037: "nothing_there",
    10059: "no_stream",
    10071: "moved",
    10164: "moved",
    10077: "full",
    10002: "full",
    10023: "full",
    10047: "full",
    10054: "too_large",
    10039: "no_jetstream",
    10076: "no_jetstream",
    10035: "no_jetstream",
    10003: "denied",
    10005: "not_now",
    10008: "not_now",
    10009: "not_now",
}


def meaning_of(code: int, err_code: int) -> Meaning:
    """Return what an error of JetStream means.

    Args:
        code: like one of HTTP.
        err_code: of the server's own list.
    """
    if found := _MEANINGS.get(err_code):
        return found
    return "not_now" if code >= 500 or code == 408 else "denied"


def stream_settings(*, replicas: int = 1, max_bytes: int = -1) -> dict[str, Any]:
    """Return the settings of the stream of messages, as `STREAM.CREATE` takes them. A full stream takes nothing more, and hosts wait."""
    return {
        "name": STREAM,
        "subjects": [SUBJECTS],
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "num_replicas": replicas,
        "max_bytes": max_bytes,
        "max_msgs": -1,
        "max_age": 0,
        "max_msg_size": -1,
        "max_consumers": -1,
    }


def stream_command(*, replicas: int = 1, max_bytes: int = -1) -> str:
    """Return the command of NATS's own tool that makes the stream."""
    return (
        f"nats stream add {STREAM} --subjects '{SUBJECTS}' --storage file --retention limits --discard new "
        f"--replicas {replicas} --max-bytes {max_bytes} --max-age 0 --defaults"
    )


# Each but these loses messages, or leaves hosts without an answer. A server leaves out what is as it is by default.
_NEEDED: Final = {"retention": "limits", "discard": "new", "max_age": 0, "no_ack": False}
_DEFAULTS: Final = {"retention": "limits", "discard": "old", "max_age": 0, "no_ack": False}


def stream_problems(config: Mapping[str, Any]) -> list[str]:
    """List what is wrong with the settings that a stream has; its sizes and replicas are a person's.

    Args:
        config: as `STREAM.INFO` shows it; empty where there is no stream yet.
    """
    if not config:
        return []
    found = {name: config.get(name, default) for name, default in _DEFAULTS.items()}
    wrong = [
        f"{name} is {found[name]!r}, expected {needed!r}" for name, needed in _NEEDED.items() if found[name] != needed
    ]
    if config.get("max_msgs_per_subject", -1) > 0:
        wrong.append(f"max_msgs_per_subject is {config['max_msgs_per_subject']}, expected -1")
    subjects = config.get("subjects") or []
    if SUBJECTS not in subjects:  # one with more, as asynctrack.v1.>, would answer what is asked of collectors
        wrong.append(f"subjects are {subjects!r}, expected {[SUBJECTS]!r}")
    return wrong


class StoredMessage(NamedTuple):
    """Holds a message that a stream keeps.

    Attributes:
        sequence: its number in the stream.
        headers: that it came with.
        data: what it holds.
    """

    sequence: int
    headers: dict[str, str]
    data: bytes

    @property
    def sent(self) -> Sent | None:
        """Return what its headers say; None where they are not those of a host."""
        return sent_in(self.headers)


def stored_in(answer: dict[str, Any]) -> StoredMessage:
    """Return the message in an answer to `STREAM.MSG.GET`.

    Raises:
        ValueError: the answer has none.
    """
    found = answer.get("message")
    if not isinstance(found, dict) or not isinstance(found.get("seq"), int):
        raise ValueError("expected a message with a sequence")  # noqa: TRY004  # of an answer, not of an argument
    try:
        headers, data = (base64.b64decode(found.get(name) or "", validate=True) for name in ("hdrs", "data"))
    except (binascii.Error, TypeError) as error:
        raise ValueError(f"expected a message in base64: {error}") from error
    return StoredMessage(found["seq"], headers_in(headers), data)


def headers_in(raw: bytes) -> dict[str, str]:
    """Return the headers of a message, as they travel: the first of each name."""
    found: dict[str, str] = {}
    for line in raw.decode("utf-8", "replace").split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            found.setdefault(name, value.strip())
    return found
