"""NATS failures: what a delivery is told of what JetStream, or a collector by NATS, has said."""

from __future__ import annotations

from typing import Final, NoReturn

from asynctrack.backends.base import ActionRequired, Retry, TooLarge
from asynctrack.carriers import wire
from asynctrack.carriers.base import FileTooLarge, SlowCollector
from asynctrack.carriers.nats.errors import JetStreamError
from asynctrack.carriers.nats.link import NATSLink
from asynctrack.errors import PartIncomplete, PartRefused

# To try again at once, as `Retry` has it: what has moved on is known as soon as it is asked.
AT_ONCE_S: Final = 0.05
# Between two tries to a full stream: the collector makes room each second or so. Arbitrary.
_FULL_S: Final = 2.0


def fail_of_stream(link: NATSLink, error: JetStreamError) -> NoReturn:
    """Say what JetStream has said, as a delivery understands it."""
    if error.meaning == "moved":
        raise Retry(link.describe(f"has a later message of this part: {error}"), AT_ONCE_S) from error
    if error.meaning == "no_stream":
        raise Retry(link.describe(f"has lost its stream: {error}"), AT_ONCE_S) from error
    if error.meaning == "full":
        wait = "this host keeps what it has, and sends it when the collector has made room"
        # A shorter message may fit into what room there is.
        raise SlowCollector(link.describe(f"has a full stream: {error}; {wait}"), _FULL_S) from error
    if error.meaning == "not_now":
        raise Retry(link.describe(f"cannot keep anything now: {error}")) from error
    if error.meaning == "too_large":
        raise ActionRequired(
            link.describe(f"takes too small messages: {error}; raise max_msg_size of the stream")
        ) from error
    raise ActionRequired(link.describe(f"says no: {error}")) from error


def fail_of_files(link: NATSLink, name: wire.PartName, status: str, refusal: wire.Refusal | None) -> NoReturn:
    """Say what the collector has said about a file."""
    words = link.hide(
        f"the collector answered {status or 'something else than a collector'}{f': {refusal.error}' if refusal else ''}"
    )
    if refusal is not None and refusal.code == "incomplete":
        raise PartIncomplete(f"{name.project}/{name.run}", name.host, refusal.error, refusal.ring, refusal.seen)
    if refusal is not None and refusal.code == "refused":
        raise PartRefused(f"{name.project}/{name.run}", name.host, refusal.error)
    if refusal is not None and refusal.limit == "file":
        raise FileTooLarge(words)
    if status == "413" and (refusal is None or refusal.limit not in ("run", "hosts")):
        raise TooLarge(words)
    if not status.startswith("4"):
        raise Retry(words)
    raise ActionRequired(words)
