"""Writer: appends batches to a journal, makes them survive a power cut, and repairs its end after a crash. Runs in the worker.

One writer per journal, which the run's lock sees to. `append` belongs to one thread (the drain), `sync` to another.
Imports the standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections import deque, namedtuple

from asynctrack._system import permissions
from asynctrack.journal.layout import (
    HEADER_BYTES,
    SEGMENT_BYTES,
    BatchHeader,
    Position,
    pack_batch,
    pack_segment_header,
    salt_of,
    segment_name,
)
from asynctrack.journal.reader import Reader, is_blank, journal_id_of, segments

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    from typing import Final

# Batches that a failed fsync could still take are kept in memory. Beyond the first limit a sync is due at once; at the
# second, `append` waits for it: the disk is slower than what is logged.
SYNC_EARLY_BYTES: Final = 8 << 20
MAX_UNSYNCED_BYTES: Final = 64 << 20


class Unsynced(namedtuple("Unsynced", "ring end blob")):
    """A batch that is written and not yet known to survive a power cut."""

    __slots__ = ()


class Writer:
    """The one appender of a journal.

    Opening it recovers: the torn end of the last segment is cut off. The first batch opens a new segment; nothing is ever
    appended behind a repaired end.

    Attributes:
        ends: up to where each ring is journaled, as far as the last segment with batches says.
        found: behind the last batch of the journal as it was found.
        synced: up to where each ring survives a power cut.
        synced_until: up to where the journal does.

    Args:
        directory: the journal's; made where it is missing.
        segment_bytes: a segment that is longer than this is followed by the next.

    Raises:
        OSError: the directory cannot be made, listed or read.
        UnsupportedVersion: a newer asynctrack wrote it.
    """

    def __init__(self, directory: str | os.PathLike[str], *, segment_bytes: int = SEGMENT_BYTES) -> None:
        directory = os.fspath(directory)
        try:
            os.mkdir(directory, permissions.DIRECTORY)  # never the run's directory: somebody may have removed that
        except FileExistsError:
            pass
        if os.path.islink(directory):
            raise NotADirectoryError(errno.ENOTDIR, "the journal is a link, which may lead to another's", directory)
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._lock = threading.Lock()
        self._sync_lock = threading.Lock()
        self._unsynced: deque[Unsynced] = deque()
        self._unsynced_bytes = 0
        self._open: list[_Segment] = []  # the last one is appended to; the others wait for their fsync
        self._fresh: _Segment | None = None  # replaces the suspect ones, once it has all that they may have lost
        self._copy: _Segment | None = None  # has replaced some
        self._suspect = False
        self._closed = False
        self.synced: dict[int, int] = {}
        self.synced_until = Position()
        self.ends, self.found, self._number, journal_id = recover(directory)
        self._inherited = dict(self.ends)
        self._inherited_segments = segments(directory)
        self._journal_id = journal_id or os.urandom(16)
        self._salt = salt_of(self._journal_id)

    def __repr__(self) -> str:
        return f"<Writer of {self._directory}, segment {self._number}, {self._unsynced_bytes} bytes not synced>"

    @property
    def next_segment(self) -> int:
        """The number that the next segment will have; they only grow."""
        return self._number + 1

    @property
    def wants_sync(self) -> bool:
        """Whether so much is not synced that it should not wait for the interval."""
        return self._unsynced_bytes > SYNC_EARLY_BYTES

    def append(self, ring: int, start: int, end: int, record_offset: int, frames: bytes) -> None:
        """Write one batch, whole or not at all.

        Raises:
            OSError: it could not be written (the disk is full), and the segment is cut back to the last whole batch; or
                fsync keeps failing, and no more may wait for it in memory.
        """
        header = BatchHeader(len(frames), ring, start, end, record_offset, time.time_ns())
        blob = pack_batch(header, frames, self._salt)
        if self._unsynced_bytes + len(blob) > MAX_UNSYNCED_BYTES and not (self.sync() or self.sync()):
            raise OSError(errno.EIO, "fsync fails, and too much waits for it", str(self._directory))
        with self._lock:
            if self._suspect or self._is_removed():
                self._write_again()
            self._append(blob)
            self._unsynced.append(Unsynced(ring, end, blob))
            self._unsynced_bytes += len(blob)
            self.ends[ring] = end

    def sync(self) -> bool:
        """Make what is appended survive a power cut; returns whether it does.

        A failed fsync is never repeated on the same file, whose pages may be marked clean although they are not on disk:
        what was not known to be safe is written again to a new segment.
        """
        with self._sync_lock:
            return self._sync()

    def make_again(self) -> None:
        """Make its directory, which somebody has removed; the next batch brings what is not known to be safe with it.

        Raises:
            OSError: it cannot be made.
        """
        os.mkdir(self._directory, permissions.DIRECTORY)

    def close(self) -> None:
        """Sync what can be synced, and close."""
        with self._sync_lock:
            if not self._sync():
                self._sync()  # what was only written again
            with self._lock:
                for segment in (*self._open, *filter(None, [self._fresh])):
                    os.close(segment.fd)
                self._open.clear()
                self._fresh = None
                self._closed = True

    def _sync(self) -> bool:
        if self._closed:
            return not self._unsynced
        if not self._sync_inherited():
            return False
        with self._lock:
            if self._suspect:
                return self._try_again()
            open_segments, batches = list(self._open), len(self._unsynced)
            sizes = [segment.size for segment in open_segments]
        if not batches:
            return True
        try:
            for segment in open_segments:
                os.fdatasync(segment.fd)
        except OSError:
            with self._lock:
                self._suspect = True
                return self._try_again()
        with self._lock:
            if self._is_removed():
                return self._try_again()
            if any(segment not in self._open for segment in open_segments):
                return False  # they were replaced meanwhile, and the descriptors may be another's by now
            self._forget(batches)
            for segment, size in zip(open_segments, sizes, strict=True):
                segment.synced_size = size
            self._retire(open_segments)
        return True

    def _sync_inherited(self) -> bool:
        """Sync what the writer before this one left and perhaps had not; nobody has it in memory any more."""
        for number in list(self._inherited_segments):
            try:
                size = _sync_file(_path(self._directory, number))
            except OSError:
                return False
            self.synced_until = Position(number, size)
            self._inherited_segments.remove(number)
        self.synced.update(self._inherited)
        self._inherited.clear()
        return True

    def _try_again(self) -> bool:
        """Write the suspect batches again, if that works; either way they are not synced yet."""
        with contextlib.suppress(OSError):
            self._write_again()
        return False

    def _append(self, blob: bytes) -> None:
        segment = self._segment_for(len(blob))
        try:
            segment.append(blob)
        except OSError as error:
            if error.errno != errno.EFBIG or segment.size == HEADER_BYTES:
                raise
            self._open.append(self._create_segment())  # no file may be as long here as ours
            self._open[-1].append(blob)

    def _segment_for(self, size: int) -> _Segment:
        if not self._open or self._open[-1].size + size > max(self._segment_bytes, HEADER_BYTES + size):
            self._open.append(self._create_segment())
        return self._open[-1]

    def _create_segment(self) -> _Segment:
        segment = _Segment.create(self._directory, self._number + 1, self._journal_id)
        self._number += 1
        return segment

    def _is_removed(self) -> bool:
        """Whether somebody has removed an open segment: what is written there is lost when it is closed."""
        self._suspect = self._suspect or any(segment.removed() for segment in self._open)
        if self._fresh is not None and self._fresh.removed():
            os.close(self._fresh.fd)
            self._fresh = None
        return self._suspect

    def _write_again(self) -> None:
        """Write what the suspect segments may have lost to a new one, and only then leave them.

        If the new one fails too, the disk is at fault and not the place: what it holds is written over itself, so that
        its pages are dirty again, and a disk that fails for hours does not leave a segment for each try.
        """
        if self._open == [self._copy] and not self._open[0].removed() and self._none_is_synced(self._open[0]):
            self._open[0].write_over(b"".join(batch.blob for batch in self._unsynced))
            self._suspect = False
            return
        fresh = self._fresh = self._fresh or self._create_segment()
        try:
            for batch in self._unsynced:
                fresh.append(batch.blob)
        except OSError:
            fresh.truncate(HEADER_BYTES)  # half a copy would only fill the disk
            raise
        suspects, self._open, self._copy, self._fresh = self._open, [fresh], fresh, None
        for suspect in suspects:
            with contextlib.suppress(OSError):
                os.ftruncate(suspect.fd, suspect.synced_size)
            os.close(suspect.fd)
        self._suspect = False

    def _none_is_synced(self, segment: _Segment) -> bool:
        return segment.size == HEADER_BYTES + self._unsynced_bytes

    def _forget(self, batches: int) -> None:
        for _ in range(batches):
            batch = self._unsynced.popleft()
            self._unsynced_bytes -= len(batch.blob)
            self.synced[batch.ring] = batch.end

    def _retire(self, synced: list[_Segment]) -> None:
        for segment in synced:
            self.synced_until = Position(segment.number, segment.synced_size)
            if segment is not self._open[-1] and segment.synced_size == segment.size:
                os.close(segment.fd)
                self._open.remove(segment)


class _Segment:
    """An open segment file."""

    __slots__ = ("fd", "number", "path", "size", "synced_size")

    def __init__(self, fd: int, number: int, path: str) -> None:
        self.fd = fd
        self.number = number
        self.path = path
        self.size = self.synced_size = HEADER_BYTES

    @classmethod
    def create(cls, directory: str, number: int, journal_id: bytes) -> _Segment:
        path = os.path.join(directory, segment_name(number))
        if os.path.lexists(path) and os.stat(path).st_size <= HEADER_BYTES:
            os.unlink(path)  # given up in an earlier try, when it could not be removed
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(path, flags, permissions.FILE)
        try:
            _write_all(fd, pack_segment_header(number, journal_id, time.time_ns()))
            sync_directory(directory)
        except BaseException:
            os.close(fd)
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise
        return cls(fd, number, path)

    def append(self, blob: bytes) -> None:
        try:
            _write_all(self.fd, blob)
        except OSError:
            self.truncate(self.size)
            raise
        self.size += len(blob)

    def write_over(self, batches: bytes) -> None:
        """Write what it holds again, byte for byte, where it is: a reader sees no difference, nor does a crash half-way."""
        fd = os.open(self.path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)  # appending, it would not write elsewhere
        try:
            view, at = memoryview(batches), HEADER_BYTES
            while view:
                written = os.pwrite(fd, view, at)
                view, at = view[written:], at + written
        finally:
            os.close(fd)

    def truncate(self, size: int) -> None:
        os.ftruncate(self.fd, size)
        self.size = size

    def removed(self) -> bool:
        """Whether its file has no name any more."""
        return os.fstat(self.fd).st_nlink == 0


def recover(directory: str) -> tuple[dict[int, int], Position, int, bytes | None]:
    """Cut the torn end of the last segment off; needs no note of what happened.

    Only the last batch can be journaled without its ring's `TAIL` saying so, so the last segment that has one is
    all that needs reading, however long the run.

    Returns:
        Up to where the rings in that segment are journaled, the place behind its last batch, the number of the last segment
        (0: none), and the journal's id (None: none).
    """
    numbers = segments(directory)
    while numbers and is_blank(_path(directory, numbers[-1])):
        os.unlink(_path(directory, numbers.pop()))  # torn before it had a batch: its number is free again
    ends: dict[int, int] = {}
    found = torn = Position()
    for number in reversed(numbers):
        found, torn = _read_to_end(directory, number, ends)
        if ends:
            break
    if numbers and os.stat(last := _path(directory, numbers[-1])).st_size > torn.offset:
        _truncate(last, torn.offset)
    return ends, found, numbers[-1] if numbers else 0, journal_id_of(directory)


def _read_to_end(directory: str, segment: int, ends: dict[int, int]) -> tuple[Position, Position]:
    """Read from a segment to the journal's end; `ends` gets those of the rings.

    Returns:
        The place behind the last batch of which something is whole, and in the last segment that from which on all is torn.
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


def sync_directory(directory: str) -> None:
    """Make names in a directory survive a power cut, where the file system can."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            os.fsync(fd)
    finally:
        os.close(fd)


def _path(directory: str, segment: int) -> str:
    return os.path.join(directory, segment_name(segment))


def _truncate(path: str, size: int) -> None:
    """Cut a file back; never one that a link leads to."""
    fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.ftruncate(fd, size)
    finally:
        os.close(fd)


def _sync_file(path: str) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fdatasync(fd)
        return os.fstat(fd).st_size
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
