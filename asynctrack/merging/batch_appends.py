"""Batch appends: batches of hosts that the merger has judged, and writes to the merged journal together: a write for each takes longer than all the rest of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from asynctrack.journal.layout import BatchHeader
from asynctrack.journal.writer import Writer


class BatchAppends:
    """Batches that wait to be written.

    Args:
        writer: of the merged journal.
        ends: for each ring, up to where it is written; kept up to date.
        check: is asked before each write, and raises where there may be none.
    """

    def __init__(self, writer: Writer, ends: dict[int, int], check: Callable[[], None]) -> None:
        self._writer = writer
        self._ends = ends
        self._check = check
        self._waiting: list[tuple[BatchHeader, bytes | memoryview, Sequence[int]]] = []
        self._ends_then: dict[int, int] = {}

    def end_of(self, ring: int) -> int:
        """Return up to where a ring is, what waits included."""
        return self._ends_then.get(ring) or self._ends.get(ring, 0)

    def add(self, header: BatchHeader, frames: bytes | memoryview, damaged: Sequence[int]) -> None:
        """Have a batch written with the others; see `Writer.append_as_they_were`."""
        self._waiting.append((header, frames, damaged))
        self._ends_then[header.ring] = header.end

    def write(self) -> None:
        """Write what waits.

        Raises:
            MergedElsewhere: another may write by now; nothing of it is written.
            OSError: nothing of it is written, and it waits no more: hosts have it still, and bring it again.
        """
        waiting, ends = self._waiting, self._ends_then
        self._waiting, self._ends_then = [], {}
        self._check()
        if waiting:
            self._writer.append_as_they_were(waiting)
            self._ends.update(ends)
