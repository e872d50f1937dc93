"""Row labels: the label of the writer of each row that a scan reads, since the core knows no writers. Runs anywhere."""

from __future__ import annotations

from asynctrack.journal.frames import FrameBatch
from asynctrack.journal.writers import Writers


class RowLabels:
    """The labels of rows, as lengths of rows of one writer."""

    def __init__(self) -> None:
        self._writers = Writers()
        self._lengths: list[tuple[str | None, int]] = []

    def __repr__(self) -> str:
        return f"<RowLabels of {sum(count for _, count in self._lengths)} rows>"

    def add(self, batch: FrameBatch, count: int) -> None:
        """Take so many rows of a batch."""
        self._writers = self._writers.learn(batch)
        if count:
            self._lengths.append((self._writers.label_of(batch.header.ring), count))

    def clear(self) -> None:
        """Begin anew."""
        self._writers, self._lengths = Writers(), []

    def column(self) -> list[str | None] | None:
        """Return the label of each row; None where the run has one writer alone."""
        if not self._writers.several:
            return None
        return [label for label, count in self._lengths for _ in range(count)]
