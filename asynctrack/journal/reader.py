"""Reader: reads a journal from a position, while it is being written, after a crash, and around damage. Runs anywhere.

What is damaged is reported and stepped over: a block that fails its checksum costs the frames in it, not its batch.
Imports the standard library only.
"""

from __future__ import annotations

import os
import stat
from collections import namedtuple

from asynctrack.errors import NoJournalDirectory, UnsupportedVersion
from asynctrack.journal.frames import FrameBatch, unharmed
from asynctrack.journal.layout import (
    BATCH_MAGIC,
    BLOCK_BYTES,
    HEADER_BYTES,
    LONGEST_SEGMENT,
    NOTES_RING,
    VERSION,
    BatchHeader,
    Position,
    bad_blocks,
    salt_of,
    segment_name,
    segment_number,
    unpack_batch_header,
    unpack_segment_header,
)

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    from collections.abc import Iterator


# What is read at once in search of the next batch. Arbitrary.
_PIECE_BYTES = 1 << 20

HARMED_HEADER = "the segment's header is damaged"


class Damage(namedtuple("Damage", "path offset length found")):
    """A stretch of a segment that cannot be read."""

    __slots__ = ()

    def __str__(self) -> str:
        return f"{self.path}: {self.length} bytes from byte {self.offset} on cannot be read: {self.found}"


class Reader:
    """Walks a journal's batches in order; at the end it can be asked again later.

    Args:
        directory: the journal's.
        position: where to start: the start of a batch (its `inner` is for the caller).
        ends: for each ring the end of the last batch read, to tell repeats; updated in place.
        bodies: False reads the headers of batches only, and their `data` is empty.
    """

    __slots__ = (
        "_entered",
        "_fd",
        "_journal_id",
        "_reported",
        "_salt",
        "_whole",
        "bodies",
        "damage",
        "directory",
        "ends",
        "position",
    )

    def __init__(
        self,
        directory: str | os.PathLike[str],
        position: Position = Position(),  # noqa: B008  # immutable
        ends: dict[int, int] | None = None,
        *,
        bodies: bool = True,
    ) -> None:
        self.directory = os.fspath(directory)
        self.position = position
        self.ends = ends if ends is not None else {}
        self.bodies = bodies
        self.damage: list[Damage] = []
        self._fd = -1
        self._entered = False  # whether the segment's header has been looked at
        self._journal_id: bytes | None = None
        self._salt = 0
        self._reported = 0
        self._whole = not position.segment and not self.ends  # a ring not met before begins at 0

    def close(self) -> None:
        """Close the segment."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __iter__(self) -> Iterator[FrameBatch]:
        """Iterate over the batches there are now."""
        while (batch := self.next()) is not None:
            yield batch

    def next(self) -> FrameBatch | None:
        """Return the next batch, or None when there is none yet. What is passed over on the way goes to `damage`."""
        while True:
            if self._fd < 0 and not self._open():
                return None
            batch = self._read(last=True)
            if batch is None:
                following = self._following()
                if following is None:
                    return None
                # With a successor it is complete: what came since the look at its end is all there will be.
                batch = self._read(last=False)
                if batch is None:
                    self._move_to(following)
                    continue
            if batch.header.end > self.ends.get(batch.header.ring, -1):
                self._report_gap(batch.header, batch.offset)
                self.ends[batch.header.ring] = batch.header.end
                return batch

    def _open(self) -> bool:
        if os.path.islink(self.directory):
            self.report(Damage(self.directory, 0, 0, "the journal is a link, which may lead to another's"))
            return False
        if not self._has_begun(self.position.segment):
            wanted = [number for number in begun(self.directory) if number >= self.position.segment]
            if not wanted:
                return False
            if wanted[0] != self.position.segment:
                self._step_over(max(self.position.segment, 1), wanted[0])
        self.position = self.position._replace(offset=max(self.position.offset, HEADER_BYTES))
        self._fd = os.open(self._path(), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        return True

    def _following(self) -> int | None:
        """Find the number of the next segment that has begun; the directory is listed only where the very next has not."""
        following = int(self.position.segment) + 1
        if self._has_begun(following):
            return following
        return next((number for number in begun(self.directory) if number >= following), None)

    def _has_begun(self, segment: int) -> bool:
        return segment > 0 and _size(os.path.join(self.directory, segment_name(segment))) >= HEADER_BYTES

    def _move_to(self, segment: int) -> None:
        self.close()
        self._step_over(self.position.segment + 1, segment)

    def _step_over(self, missing: int, segment: int) -> None:
        """Move to the start of a segment; those from `missing` up to it are not there."""
        if missing < segment:
            self.report(missing_segments(self.directory, missing, segment))
        self.position = Position(segment, HEADER_BYTES)
        self._entered = False

    def _read(self, *, last: bool) -> FrameBatch | None:
        """Read the batch at the position, or the next that can be read in this segment; the position moves behind it."""
        size = os.fstat(self._fd).st_size
        if not self._entered and not self._enter(size):
            return None
        while self.position.offset < size:
            segment, offset, _ = self.position
            found = unpack_batch_header(os.pread(self._fd, HEADER_BYTES, offset), self._salt)
            if found is None or (offset + found[0].size > size and not last):
                if not self._skip_damage(size, last):
                    return None
                continue
            header, table_crc = found
            if offset + header.size > size:
                return None  # being written, or torn: recovery will tell
            if not self.bodies:
                self.position = Position(segment, offset + header.size)
                return FrameBatch(segment, offset, header, memoryview(b""), [])
            body = memoryview(os.pread(self._fd, header.size - HEADER_BYTES, offset + HEADER_BYTES))
            if len(body) < header.size - HEADER_BYTES:
                return None
            self.position = Position(segment, offset + header.size)
            return self._check(segment, offset, header, table_crc, body)
        return None

    def _enter(self, size: int) -> bool:
        """Look at the segment's header; False when nothing behind it can be told to be of this journal."""
        if self._journal_id is None:
            self._journal_id = journal_id_of(self.directory)
            self._salt = salt_of(self._journal_id or b"")
        found = unpack_segment_header(os.pread(self._fd, HEADER_BYTES, 0))
        if found is not None and self._journal_id is None:
            return False  # the directory is being removed or moved: this segment can still be read
        if found is not None and found[0] > VERSION:
            raise UnsupportedVersion(self._path(), found[0], VERSION)
        if found is None and self._journal_id is not None:
            self._report(0, min(size, HEADER_BYTES), HARMED_HEADER)
        elif found is None or found[2] != self._journal_id:
            self._report(0, size, "the segment has no header" if found is None else "the segment is another journal's")
            self.position = self.position._replace(offset=size)
            return False
        self._entered = True
        return True

    def _skip_damage(self, size: int, last: bool) -> bool:
        """Move to the next batch header behind damage; False when the segment has none."""
        start = self.position.offset
        found = self._find_header(start + 1, min(size, LONGEST_SEGMENT))
        if found is not None:
            self._report(start, found - start, "no batch begins there")
            self.position = self.position._replace(offset=found)
            return True
        if not last:
            self._report(start, size - start, "the segment ends in a torn batch")
            self.position = self.position._replace(offset=size)
        return False

    def _find_header(self, begin: int, end: int) -> int | None:
        """Find where the next batch begins, read in pieces: the file may be longer than any segment."""
        while begin < end:
            piece = os.pread(self._fd, _PIECE_BYTES + HEADER_BYTES, begin)
            at = piece.find(BATCH_MAGIC)
            while at >= 0:
                if unpack_batch_header(piece[at : at + HEADER_BYTES], self._salt) is not None:
                    return begin + at
                at = piece.find(BATCH_MAGIC, at + 1)
            begin += _PIECE_BYTES
        return None

    def _check(self, segment: int, offset: int, header: BatchHeader, table_crc: int, body: memoryview) -> FrameBatch:
        table, frames = body[: header.table_bytes], body[header.table_bytes :]
        bad = bad_blocks(bytes(table), table_crc, frames, self._salt)
        whole = [(0, header.length)]
        if bad:
            whole = unharmed(frames, bad)
            at = offset + HEADER_BYTES + header.table_bytes
            for block in bad:
                length = min(BLOCK_BYTES, header.length - block * BLOCK_BYTES)
                self._report(at + block * BLOCK_BYTES, length, "a block fails its checksum")
        return FrameBatch(segment, offset, header, frames, whole)

    def _report_gap(self, header: BatchHeader, offset: int) -> None:
        """Report a batch that is gone without a trace: it shows in the next of its ring, which begins where it ended."""
        missing = header.start - self.ends.get(header.ring, 0 if self._whole else header.start)
        if missing > 0 and header.ring != NOTES_RING and len(self.damage) == self._reported:
            self._report(offset, 0, f"{missing} bytes of its ring are missing before the batch")
        self._reported = len(self.damage)

    def _path(self) -> str:
        return os.path.join(self.directory, segment_name(self.position.segment))

    def _report(self, offset: int, length: int, found: str) -> None:
        self.report(Damage(self._path(), offset, length, found))

    def report(self, damage: Damage) -> None:
        """Note damage, once."""
        if damage not in self.damage:
            self.damage.append(damage)


def segments(directory: str) -> list[int]:
    """Return the numbers of the segments in a journal's directory, in order; none where it does not exist, or is a link. Only files count.

    Raises:
        NoJournalDirectory: it is something else.
    """
    if os.path.islink(directory):
        return []
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    except NotADirectoryError:
        raise NoJournalDirectory(directory) from None
    return sorted(number for name in names if (number := segment_number(name)) is not None)


def begun(directory: str) -> list[int]:
    """Return the numbers of the segments that can be read: the last may have been torn, or given up, before its header was whole."""
    numbers = segments(directory)
    if numbers and _size(os.path.join(directory, segment_name(numbers[-1]))) < HEADER_BYTES:
        numbers.pop()
    return numbers


def missing_segments(directory: str, first: int, following: int) -> Damage:
    """Say that segments are not there, from `first` up to one that is."""
    more = following - first - 1
    found = f"the segment and {more} after it are missing" if more else "the segment is missing"
    return Damage(os.path.join(directory, segment_name(first)), 0, 0, found)


def is_blank(path: str) -> bool:
    """Return whether a segment never held anything: it was torn before its header was whole, or a power cut left zeros alone."""
    with open(path, "rb") as file:
        start = file.read(HEADER_BYTES)
        if len(start) == HEADER_BYTES and any(start):
            return False
        return not any(any(block) for block in iter(lambda: file.read(BLOCK_BYTES), b""))


def journal_id_of(directory: str) -> bytes | None:
    """Find the id of a journal: the one in the first segment with an unharmed header, None if there is none."""
    for number in segments(directory):
        try:
            with open(os.path.join(directory, segment_name(number)), "rb") as file:
                found = unpack_segment_header(file.read(HEADER_BYTES))
        except FileNotFoundError:
            continue
        if found:
            return found[2]
    return None


def _size(path: str) -> int:
    """Return the size of a file; 0 where there is none, or something else."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return 0
    except NotADirectoryError:
        raise NoJournalDirectory(os.path.dirname(path)) from None
    return found.st_size if stat.S_ISREG(found.st_mode) else 0
