"""Backlog: the batches of a journal that are written and not known to survive a power cut. Runs in the worker. Standard library only."""

from __future__ import annotations

from collections import deque

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    from collections.abc import Iterator


class Backlog:
    """Batches in memory, which a failed fsync could still take.

    Attributes:
        bytes: of all of them.
    """

    __slots__ = ("_batches", "bytes")

    def __init__(self) -> None:
        self.bytes = 0
        self._batches: deque[tuple[int, int, bytes]] = deque()

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[bytes]:
        """Iterate over the batches, as they are in a segment."""
        return (blob for _, _, blob in self._batches)

    def append(self, ring: int, end: int, blob: bytes) -> None:
        """Keep a batch.

        Args:
            ring: it is of.
            end: up to where it journals that.
            blob: as it is in a segment.
        """
        self._batches.append((ring, end, blob))
        self.bytes += len(blob)

    def forget(self, batches: int, synced: dict[int, int]) -> None:
        """Let go of the oldest batches, which are safe by now.

        Args:
            batches: how many.
            synced: gets up to where each ring is safe.
        """
        for _ in range(batches):
            ring, end, blob = self._batches.popleft()
            self.bytes -= len(blob)
            synced[ring] = end
