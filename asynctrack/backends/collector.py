"""Collector: the settings of a host's way to `asynctrack serve`, or by NATS to `asynctrack collect`, which merges its part of a run with those of others. Not for users: `init(collect=...)` sets it.

It is a backend to whoever looks at the run: it has a cursor, is behind, paused, or has everything. But it gets batches of the journal as they are, and no records:
`delivery.carrier_transfer` brings them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from asynctrack.backends.base import Backend, Execution
from asynctrack.backends.nats_address import collector_problems, is_nats
from asynctrack.backends.requirements import lacking
from asynctrack.errors import InvalidSettings

# Of a file that is sent. Arbitrary: half a minute at 2 MB/s.
FILE_BYTES: Final = 64 << 20


class Collector(Backend, frozen=True, kw_only=True, tag="collector"):
    """Sends a host's journal to a collector.

    Attributes:
        url: address of its server, or of NATS servers.
        file_bytes: of a file that was logged by its path, or of an artifact's files together; larger ones are not sent.
    """

    execution: ClassVar[Execution] = "process"
    remote: ClassVar[bool] = True
    needs: ClassVar[Mapping[str, str]] = {"httpx2": "asynctrack[http]"}

    url: str
    file_bytes: int = FILE_BYTES

    def __post_init__(self) -> None:
        problems = collector_problems("url", self.url)
        if not isinstance(self.file_bytes, int) or self.file_bytes < 0:
            problems.append(f"file_bytes must be a number of bytes; got {self.file_bytes!r:.80}")
        if problems:
            raise InvalidSettings(problems)
        super().__post_init__()

    def lacking(self) -> list[str]:
        """List the library that is missing for this kind of server."""
        return lacking({"nats": "asynctrack[nats]"} if is_nats(self.url) else self.needs)

    def external_targets(self) -> list[str]:
        """List the server's address."""
        return [self.url]
