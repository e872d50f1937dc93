"""Recovery: repairs a journal's end after a crash, and syncs what the crash left unsynced. Runs in the worker.

It needs no note of what happened. Imports the standard library only.
"""

from __future__ import annotations

import contextlib
import os

from asynctrack.journal.layout import Position
from asynctrack.journal.reader import Reader, is_blank, journal_id_of, segments
from asynctrack.journal.segment import segment_path


def recover(directory: str) -> tuple[dict[int, int], Position, int, bytes | None]:
    """Cut the torn end of the last segment off.

    Only the last batch can be journaled without its ring's `TAIL` saying so, so the last segment that has one is
    all that needs reading, however long the run.

    Returns:
        Up to where the rings in that segment are journaled, the place behind its last batch, the number of the last segment
        (0: none), and the journal's id (None: none).
    """
    numbers = segments(directory)
    while numbers and is_blank(segment_path(directory, numbers[-1])):
        os.unlink(segment_path(directory, numbers.pop()))  # torn before it had a batch: its number is free again
    ends: dict[int, int] = {}
    found = torn = Position()
    for number in reversed(numbers):
        found, torn = _read_to_end(directory, number, ends)
        if ends:
            break
    if numbers and os.stat(last := segment_path(directory, numbers[-1])).st_size > torn.offset:
        _truncate(last, torn.offset)
    return ends, found, numbers[-1] if numbers else 0, journal_id_of(directory)


class Inherited:
    """The part of the journal that the writer before this one left and perhaps had not synced; no process has it in memory any more.

    Attributes:
        ends: for each ring, the position up to which it is journaled there.
        synced_until: the place up to which the journal survives a power cut.

    Args:
        directory: the journal's.
        ends: see above.
    """

    __slots__ = ("_directory", "_segments", "ends", "synced_until")

    def __init__(self, directory: str, ends: dict[int, int]) -> None:
        self.ends = dict(ends)
        self.synced_until = Position()
        self._directory = directory
        self._segments = segments(directory)

    def sync(self) -> bool:
        """Sync what is not synced yet; returns whether all is."""
        while self._segments:
            number = self._segments[0]
            try:
                size = _sync_file(segment_path(self._directory, number))
            except OSError:
                return False
            self.synced_until = Position(number, size)
            self._segments.pop(0)
        return True


def _read_to_end(directory: str, segment: int, ends: dict[int, int]) -> tuple[Position, Position]:
    """Read from a segment to the journal's end; `ends` gets those of the rings.

    Returns:
        The place behind the last batch that has anything whole, and the place in the last segment behind which all is torn.
    """
    found, torn = Position(), None
    reader = Reader(directory, Position(segment))
    with contextlib.closing(reader):
        for batch in reader:
            if batch.whole:
                ends[batch.header.ring], found, torn = batch.header.end, batch.after, None
            else:
                torn = torn or Position(batch.segment, batch.offset)
    return found, torn if torn is not None and torn.segment == reader.position.segment else reader.position


def _truncate(path: str, size: int) -> None:
    """Cut a file back; never one that a link leads to."""
    fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.ftruncate(fd, size)
    finally:
        os.close(fd)


def _sync_file(path: str) -> int:
    """Sync a file; returns how long it is."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fdatasync(fd)
        return os.fstat(fd).st_size
    finally:
        os.close(fd)
