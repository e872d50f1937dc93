"""Writer: appends batches to a journal, and makes them survive a power cut. Runs in the worker.

One writer per journal, which the run's lock sees to. `append` belongs to one thread (the drain), `sync` to another.
Imports the standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time

from asynctrack._system import permissions
from asynctrack.journal.backlog import Backlog
from asynctrack.journal.layout import SEGMENT_BYTES, BatchHeader, Position, mark_damage, pack_batch, salt_of
from asynctrack.journal.open_segments import OpenSegments
from asynctrack.journal.recovery import Inherited, recover
from asynctrack.journal.sync_rules import after_fsync, next_sync

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Final

# Batches that a failed fsync could still take are kept in memory. Beyond the first limit a sync is due at once; at the
# second, `append` waits for it: the disk is slower than what is logged. Without the first, at full speed 64 MiB were
# synced at a time, which held the drain up for 100 ms.
SYNC_EARLY_BYTES: Final = 8 << 20
MAX_UNSYNCED_BYTES: Final = 64 << 20


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
        self.ends, self.found, number, found_id = recover(directory)
        self.synced: dict[int, int] = {}
        self.synced_until = Position()
        self._directory = directory
        self._inherited: Inherited | None = Inherited(directory, self.ends)
        journal_id = found_id or os.urandom(16)
        self._segments = OpenSegments(directory, segment_bytes, number, journal_id)
        self._salt = salt_of(journal_id)
        self._backlog = Backlog()
        self._lock = threading.Lock()
        self._sync_lock = threading.Lock()
        self._closed = False

    def __repr__(self) -> str:
        return f"<Writer of {self._directory}, segment {self._segments.number}, {self._backlog.bytes} bytes not synced>"

    @property
    def next_segment(self) -> int:
        """Return the number of the next segment; numbers only grow."""
        return self._segments.number + 1

    @property
    def wants_sync(self) -> bool:
        """Return True if so much is not synced that it should not wait for the interval."""
        return self._backlog.bytes > SYNC_EARLY_BYTES

    def append(self, ring: int, start: int, end: int, record_offset: int, *frames: bytes | memoryview) -> None:
        """Write one batch, whole or not at all. Its frames may come in two parts.

        Raises:
            OSError: it could not be written (the disk is full), and the segment is cut back to the last whole batch; or
                fsync keeps failing, and no more may wait for it in memory.
        """
        header = BatchHeader(end - start, ring, start, end, record_offset, time.time_ns())
        self._append([(ring, end, pack_batch(header, frames, self._salt))])

    def append_as_they_were(self, batches: Iterable[tuple[BatchHeader, bytes | memoryview, Sequence[int]]]) -> None:
        """Write batches of another journal at once, all or none, with the times that they have there.

        Args:
            batches: at least one: its header, its frames, and the indices of blocks that fail their checksum there; they fail it here too.

        Raises:
            OSError: as for `append`.
        """
        self._append([(batch[0].ring, batch[0].end, self._packed(*batch)) for batch in batches])

    def _packed(self, header: BatchHeader, frames: bytes | memoryview, damaged: Sequence[int]) -> bytes:
        blob = pack_batch(header, (frames,), self._salt)
        return mark_damage(blob, header, damaged, self._salt) if damaged else blob

    def _append(self, batches: Sequence[tuple[int, int, bytes]]) -> None:
        blob = batches[0][2] if len(batches) == 1 else b"".join([blob for _, _, blob in batches])
        if self._backlog.bytes + len(blob) > MAX_UNSYNCED_BYTES and not (self.sync() or self.sync()):
            raise OSError(errno.EIO, "fsync fails, and too much waits for it", self._directory)
        with self._lock:
            if self._segments.is_suspect or self._segments.check():
                self._segments.write_again(self._backlog)
            self._segments.append(blob)
            for ring, end, batch in batches:
                self._backlog.append(ring, end, batch)
                self.ends[ring] = end

    def sync(self, sync_file: Callable[[int], None] | None = None) -> bool:
        """Make what is appended survive a power cut; returns whether it does.

        What may be lost is written again, and is synced the next time.

        Args:
            sync_file: makes what was written to a file survive it, in place of `os.fdatasync`.
        """
        with self._sync_lock:
            return self._sync(sync_file or os.fdatasync)

    def make_again(self) -> None:
        """Make its directory, which somebody has removed; the next batch brings what is not known to be safe with it.

        Raises:
            OSError: it cannot be made.
        """
        os.mkdir(self._directory, permissions.DIRECTORY)

    def close(self) -> None:
        """Sync what can be synced, and close."""
        with self._sync_lock:
            if not self._sync(os.fdatasync):
                self._sync(os.fdatasync)  # what was only written again
            with self._lock:
                self._segments.close()
                self._closed = True

    def _sync(self, sync_file: Callable[[int], None]) -> bool:
        if self._closed:
            return not self._backlog
        if not self._sync_inherited():
            return False
        with self._lock:
            segments, batches = list(self._segments), len(self._backlog)
            sizes = [segment.size for segment in segments]
            step = next_sync(is_suspect=self._segments.is_suspect, batches=batches)
            if step == "write again":
                return self._write_again()
        if step == "nothing":
            return True
        try:
            for segment in segments:
                sync_file(segment.fd)
        except OSError:
            with self._lock:
                self._segments.is_suspect = True
                return self._write_again()
        with self._lock:
            outcome = after_fsync(is_suspect=self._segments.check(), is_replaced=not self._segments.has_all(segments))
            if outcome == "write again":
                return self._write_again()
            if outcome == "safe":
                self._backlog.forget(batches, self.synced)
                self.synced_until = self._segments.retire(list(zip(segments, sizes, strict=True)))
        return outcome == "safe"

    def _sync_inherited(self) -> bool:
        """Sync what the writer before this one left; returns whether it is safe."""
        if self._inherited is None:
            return True
        if not self._inherited.sync():
            return False
        self.synced.update(self._inherited.ends)
        self.synced_until = self._inherited.synced_until
        self._inherited = None
        return True

    def _write_again(self) -> bool:
        """Write the suspect batches again, if that works; either way they are not synced yet."""
        with contextlib.suppress(OSError):
            self._segments.write_again(self._backlog)
        return False
