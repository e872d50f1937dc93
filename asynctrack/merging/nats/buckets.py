"""Buckets: the two streams beside that of messages, which collectors keep: their words to hosts, and their leases. Made where they are not there."""

from __future__ import annotations

from typing import Any, Final

from asynctrack._system.wording import see
from asynctrack.backends.base import ActionRequired
from asynctrack.carriers.nats.errors import Denied, JetStreamError
from asynctrack.carriers.nats.link import NATSLink
from asynctrack.carriers.nats.setup import make_stream
from asynctrack.carriers.nats.stream import IS_THERE, stored_in, stream_problems
from asynctrack.carriers.nats.wire import STREAM, WORDS

LEASES: Final = "ASYNCTRACK_V1_LEASES"
LEASES_ROOT: Final = f"$KV.{LEASES}"
# For how long a lease lasts that nobody renews.
LEASE_S: Final = 3.0


async def make_streams(link: NATSLink) -> None:
    """Make what is not there: the stream of messages, and the buckets, with as many replicas as that.

    Raises:
        ActionRequired: a person has to make it, or what is there loses messages. Or what `NATSLink.api` raises.
    """
    found = await _found(link, STREAM)
    if found is None:
        await make_stream(link)
        found = await _found(link, STREAM)
    config = {} if found is None else found["config"]
    if problems := stream_problems(config):
        raise ActionRequired(
            link.describe(
                f"keeps {STREAM} with other settings than it needs: {'; '.join(problems)}{see('how_to/nats.md')}"
            )
        )
    replicas = int(config.get("num_replicas", 1))
    await _make_bucket(link, WORDS, replicas, 0.0)
    await _make_bucket(link, LEASES, replicas, LEASE_S)


async def last_of(link: NATSLink, stream: str, subject: str) -> tuple[int, bytes] | None:
    """Return number and content of the last message of a subject, as the stream's leader has it; None where there is none."""
    try:
        found = stored_in(await link.api(f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject}))
    except JetStreamError as error:
        if error.meaning == "nothing_there":
            return None
        raise
    return found.sequence, found.data


async def _found(link: NATSLink, stream: str) -> dict[str, Any] | None:
    try:
        return await link.api(f"STREAM.INFO.{stream}")
    except JetStreamError as error:
        if error.meaning == "no_stream":
            return None
        raise


async def _make_bucket(link: NATSLink, bucket: str, replicas: int, ttl_s: float) -> None:
    if await _found(link, f"KV_{bucket}") is not None:
        return
    settings = {
        "name": f"KV_{bucket}",
        "subjects": [f"$KV.{bucket}.>"],
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "num_replicas": replicas,
        "max_msgs_per_subject": 1,
        "max_age": round(ttl_s * 1e9),
        "duplicate_window": round(min(ttl_s or 120.0, 120.0) * 1e9),
        "deny_delete": True,
        "allow_rollup_hdrs": True,
    }
    ttl = f" --ttl {ttl_s:g}s" if ttl_s else ""
    command = f"nats kv add {bucket} --storage file --history 1 --replicas {replicas}{ttl}"
    try:
        await link.api(f"STREAM.CREATE.KV_{bucket}", settings)
    except (Denied, JetStreamError) as error:
        if isinstance(error, JetStreamError) and error.err_code == IS_THERE:
            return
        if isinstance(error, JetStreamError) and error.meaning == "not_now":
            raise
        why = f"has no bucket {bucket}, and it cannot be made ({error}). Let somebody who may do `{command}`"
        raise ActionRequired(link.describe(why)) from error
