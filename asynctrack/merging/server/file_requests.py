"""File requests: answers what hosts ask about files that were logged by their paths, as `carriers.file_wire` describes it. Runs in a collector's loop."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from asynctrack.carriers import file_wire, wire
from asynctrack.carriers.file_wire import FileTarget, PlacedMedium, Placing
from asynctrack.merging.server.guarded_merger import FileAccess, Sign
from asynctrack.merging.server.received_files import ReceivedFiles
from asynctrack.merging.server.refused import Refused
from asynctrack.merging.server.served_runs import ServedRuns

METHODS = {"media": "POST", "files": "PUT"}


async def answer(runs: ServedRuns, target: FileTarget, query: Callable[[str], str], body: bytes, sign: Sign) -> bytes:
    """Do what a request asks; returns the body of the answer, empty where it has none.

    Args:
        runs: that are merged.
        target: what its path names.
        query: returns what stands in its query under a name.
        body: of the request.
        sign: of the host's life that it is.

    Raises:
        Refused: it is not done.
        OSError: it cannot be done now.
    """
    journal = wire.journal_in(query(wire.JOURNAL))
    if journal is None:
        raise Refused("garbage", f"expected ?{wire.JOURNAL}= with 32 hexadecimal digits")
    host = target.part.host
    if target.kind == "media":
        medium = _medium_in(body)

        def place(files: ReceivedFiles) -> Placing:
            return files.place(host, medium)

        return msgspec.json.encode(await runs.with_files(target.part, FileAccess(sign, journal, 0), place))
    offset, size = (file_wire.number_in(query(name)) for name in (file_wire.OFFSET, file_wire.SIZE))
    if offset is None or size is None:
        raise Refused("garbage", f"expected ?{file_wire.OFFSET}= and {file_wire.SIZE}= with a number each")

    def write(files: ReceivedFiles) -> None:
        files.write(host, target.sha256, offset, size, body)

    await runs.with_files(target.part, FileAccess(sign, journal, len(body)), write)
    return b""


def _medium_in(body: bytes) -> PlacedMedium:
    try:
        return msgspec.json.decode(body, type=PlacedMedium)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused("garbage", f"expected a `PlacedMedium` as JSON: {error}") from error
