"""Base: what a carrier promises. It brings what a host's journal has to the merger of the run, by whatever way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from asynctrack.backends.base import Retry, TooLarge
from asynctrack.carriers.message import Place


class Carrier(Protocol):
    """The way from one host's journal to the merger. `publisher.JournalPublisher` calls it from one thread, a call at a time.

    What raises is done again: the publisher asks `locate` where to go on. So a carrier need not remember what it has sent, nor whether that came through;
    and what is sent again is recognised by the merger.
    """

    def locate(self, journal: bytes) -> Place:
        """Return the place in the host's journal up to which the merger, or what stands between, has everything for good.

        Called at the beginning, and after anything has raised. The answer comes from where the data are, never from this side's memory.

        Args:
            journal: the id of the host's journal.

        Raises:
            PartRefused: the host's part belongs to another journal.
            OSError: it cannot be asked now; a `backends.base.Signal` says more of when, and by whose doing, it can.
        """
        ...

    def send(self, after: Place, upto: Place, message: bytes) -> None:
        """Bring whole batches; return when they are taken, so that they are not sent again unless `locate` asks for them.

        Args:
            after: the place before the first batch.
            upto: the place behind the last. What names a message names this too: a cut that is made again may be longer.
            message: see `carriers.message`.

        Raises:
            PartIncomplete: something is missing before a batch, or a batch is damaged.
            PartRefused: it is another's, or garbage.
            OSError: it did not come through, or may not have. Or a `Signal`, of which `TooLarge` asks for a smaller message.
        """
        ...


class CollectorCarrier(Carrier, Protocol):
    """The way to a collector that listens. It brings files as well, and can be closed: the next call opens it again."""

    @property
    def merges(self) -> bool:
        """Return whether a message that is taken is merged. Else it is only kept on the way, and nobody has looked yet whether something is missing before it."""
        ...

    @property
    def asks_again(self) -> bool:
        """Return whether `locate` would say something else than it did. What a carrier learns so is no more than a hint."""
        ...

    def ask_of_files(self, method: str, below: str, query: Mapping[str, str], body: bytes) -> bytes:
        """Send a request about files, see `carriers.file_wire`; returns what the answer holds.

        Args:
            method: of the request.
            below: what the path has behind that of the host's part.
            query: what stands behind the `?`, without the journal.
            body: of the request.

        Raises:
            FileTooLarge: the collector does not take it. Or what `send` raises.
        """
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class FileTooLarge(TooLarge):
    """The collector takes no file of this size, or no more files of this run."""


class SlowCollector(Retry):
    """The server, or the way to it, has taken too long for a message, or has no room for it just now: it may be shorter the next time."""
