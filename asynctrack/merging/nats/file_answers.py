"""File answers: answers what hosts ask by NATS about files that were logged by their paths. Runs in a collector's loop."""

from __future__ import annotations

import contextlib
import time
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec

from asynctrack.carriers import file_wire, wire
from asynctrack.carriers.nats import wire as nats_wire
from asynctrack.carriers.nats.link import NATSLink
from asynctrack.carriers.wire import PartName
from asynctrack.merging.server import file_requests
from asynctrack.merging.server.guarded_merger import Sign
from asynctrack.merging.server.refused import Refused, refusal_of
from asynctrack.merging.server.served_runs import ServedRuns

_MOST_FIELDS: Final = 8


async def answer_about_files(link: NATSLink, runs: ServedRuns, message: Any) -> None:
    """Answer one request.

    Args:
        link: the connection.
        runs: that are merged.
        message: the request.
    """
    name = nats_wire.part_in(message.subject)
    if name is None or not message.reply:
        return
    try:
        status, body = 200, await _answer(runs, name, message)
    except Exception as error:  # of one request: the others go on
        refusal = refusal_of(error, name)
        status, body = wire.STATUS[refusal.code], msgspec.json.encode(refusal)
    with contextlib.suppress(Exception):  # the host asks again
        await link.client.publish(message.reply, body, headers={nats_wire.STATUS_HEADER: str(status)})


async def _answer(runs: ServedRuns, name: PartName, message: Any) -> bytes:
    headers = message.headers or {}
    target = file_wire.target_in(wire.path_of(name) + headers.get(nats_wire.BELOW_HEADER, ""))
    if target is None or headers.get(nats_wire.METHOD_HEADER) != file_requests.METHODS[target.kind]:
        raise Refused("garbage", "expected a request about files, as `carriers.file_wire` describes it")
    try:
        query = parse_qs(headers.get(nats_wire.QUERY_HEADER, ""), max_num_fields=_MOST_FIELDS)
    except ValueError as error:
        raise Refused("garbage", f"expected a query: {error}") from error

    def said(field: str) -> str:
        found = query.get(field, [])
        return found[0] if len(found) == 1 else ""

    sign = Sign(name.host, nats_wire.time_in(headers), time.time_ns())
    return await file_requests.answer(runs, target, said, bytes(message.data), sign)
