"""Open segments: the files of a journal that are appended to or wait for their fsync, and what replaces those that may have lost something.

Runs in the worker. Imports the standard library only.
"""

from __future__ import annotations

import errno
import os

from asynctrack.journal.layout import HEADER_BYTES, Position
from asynctrack.journal.segment import Segment

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asynctrack.journal.backlog import Backlog


class OpenSegments:
    """The segments of a writer. The last one is appended to; the others wait for their fsync.

    Attributes:
        number: of the last segment; they only grow.
        is_suspect: whether they may have lost what they hold: fsync failed, or somebody has removed one.

    Args:
        directory: the journal's.
        segment_bytes: a segment that is longer than this is followed by the next.
        number: of the last segment that is there; 0 where there is none.
        journal_id: of the journal.
    """

    __slots__ = ("_copy", "_directory", "_fresh", "_journal_id", "_open", "_segment_bytes", "is_suspect", "number")

    def __init__(self, directory: str, segment_bytes: int, number: int, journal_id: bytes) -> None:
        self.number = number
        self.is_suspect = False
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._journal_id = journal_id
        self._open: list[Segment] = []
        self._fresh: Segment | None = None  # will replace the suspect ones, once it has all that they may have lost
        self._copy: Segment | None = None  # has replaced some

    def __iter__(self) -> Iterator[Segment]:
        return iter(self._open)

    def append(self, blob: bytes) -> None:
        """Append a batch to the last segment, or to another where it does not fit.

        Raises:
            OSError: it could not be written.
        """
        segment = self._segment_for(len(blob))
        try:
            segment.append(blob)
        except OSError as error:
            if error.errno != errno.EFBIG or segment.size == HEADER_BYTES:
                raise
            self._open.append(self._create())  # no file may be as long here as ours
            self._open[-1].append(blob)

    def check(self) -> bool:
        """Look whether somebody has removed a segment: what is written there is lost when it is closed; returns whether they are suspect."""
        self.is_suspect = self.is_suspect or any(segment.is_removed() for segment in self._open)
        if self._fresh is not None and self._fresh.is_removed():
            os.close(self._fresh.fd)
            self._fresh = None
        return self.is_suspect

    def write_again(self, backlog: Backlog) -> None:
        """Write what the suspect segments may have lost to a new one, and only then leave them.

        If the new one fails too, the disk is at fault and not the place: what it holds is written over itself, so that
        its pages are dirty again, and a disk that fails for hours does not leave a segment for each try.

        Args:
            backlog: what they may have lost.

        Raises:
            OSError: it could not be written; they stay suspect.
        """
        if self._open == [self._copy] and not self._open[0].is_removed() and _is_all(backlog, self._open[0]):
            self._open[0].write_over(b"".join(backlog))
            self.is_suspect = False
            return
        fresh = self._fresh = self._fresh or self._create()
        try:
            for blob in backlog:
                fresh.append(blob)
        except OSError:
            fresh.truncate(HEADER_BYTES)  # half a copy would only fill the disk
            raise
        suspects, self._open, self._copy, self._fresh = self._open, [fresh], fresh, None
        for suspect in suspects:
            suspect.leave()
        self.is_suspect = False

    def has_all(self, some: Sequence[Segment]) -> bool:
        """Return whether segments are open still."""
        return all(segment in self._open for segment in some)

    def retire(self, synced: Sequence[tuple[Segment, int]]) -> Position:
        """Note that segments are synced, and close those that nothing more is appended to.

        Args:
            synced: segments, and up to where; at least one.

        Returns:
            Up to where the journal survives a power cut.
        """
        for segment, size in synced:
            segment.synced_size = size
            if segment is not self._open[-1] and size == segment.size:
                os.close(segment.fd)
                self._open.remove(segment)
        segment, size = synced[-1]
        return Position(segment.number, size)

    def close(self) -> None:
        """Close them."""
        for segment in (*self._open, *filter(None, [self._fresh])):
            os.close(segment.fd)
        self._open.clear()
        self._fresh = None

    def _segment_for(self, size: int) -> Segment:
        if not self._open or self._open[-1].size + size > max(self._segment_bytes, HEADER_BYTES + size):
            self._open.append(self._create())
        return self._open[-1]

    def _create(self) -> Segment:
        segment = Segment.create(self._directory, self.number + 1, self._journal_id)
        self.number += 1
        return segment


def _is_all(backlog: Backlog, segment: Segment) -> bool:
    """Return whether a segment has nothing but the backlog."""
    return segment.size == HEADER_BYTES + backlog.bytes
