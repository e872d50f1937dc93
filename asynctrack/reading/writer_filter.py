"""Writer filter: a choice of one of the processes that write to a run. Runs anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from asynctrack.journal.frames import FrameBatch
from asynctrack.journal.layout import NOTES_RING
from asynctrack.journal.reader import Reader
from asynctrack.journal.writers import Writers
from asynctrack.reading.writer_counts import read_labels

# How many are named where one is not there. Arbitrary.
_NAMED: Final = 20


class WriterFilter:
    """A choice of one writer: the batches that are its own, or those of its forked children.

    Attributes:
        known: the labels of the run's rings.

    Args:
        run: the run's directory.
        label: of the writer; None for all.
    """

    def __init__(self, run: Path, label: str | None) -> None:
        self._label = label
        self.known = Writers() if label is None else read_labels(run)

    def problem(self) -> str | None:
        """Say that the run has no such writer, and which it has; None where it has."""
        labels = dict.fromkeys(self.known.labels.values())
        if self._label is None or self._label in labels:
            return None
        named = ", ".join(list(labels)[:_NAMED])
        return f"the run has no writer {self._label!r}; there are {named}{', ...' if len(labels) > _NAMED else ''}"

    def takes(self, batch: FrameBatch) -> bool:
        """Return whether a batch is the chosen writer's; the first of a ring comes before its others."""
        if self._label is None:
            return True
        self.known = self.known.learn(batch)
        return self.known.labels.get(batch.header.ring, self.known.owner) == self._label

    def takes_or_notes(self, batch: FrameBatch) -> bool:
        """Return whether a batch is the chosen writer's, or has the worker's notes."""
        return batch.header.ring == NOTES_RING or self.takes(batch)

    def of(self, batches: Iterable[tuple[Reader, FrameBatch]]) -> Iterator[tuple[Reader, FrameBatch]]:
        """Yield the batches that are the chosen writer's, and the worker's notes."""
        return (pair for pair in batches if self.takes_or_notes(pair[1]))
