"""Ring: a memory-mapped file that a producer fills and the worker empties. Runs in both.

A producer holds a POSIX lock on its ring for as long as it lives. The worker asks for that lock to learn whether
it does: pids are used again, `flock` is shared with forked children, and a zombie still has a pid. POSIX locks
have one trap: closing any descriptor of the file drops the process's lock, so a process never opens its own ring
a second time.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os

from asynctrack._system import locks
from asynctrack.queue.layout import (
    CAPACITY,
    DROP_REASONS,
    DROPPED,
    END,
    ENDS,
    FIRST,
    FRAME_HEADER_BYTES,
    HEAD,
    HEADER_BYTES,
    KIND_SHIFT,
    LAST_ERRNO,
    LENGTH_MASK,
    MAGIC,
    MARK_COUNT,
    MARKS,
    META_BYTES,
    META_MAX,
    META_OFFSET,
    NO_ANSWER,
    NUMBER_MASK,
    PID,
    RECORD,
    RING,
    RING_MAGIC,
    RING_VERSION,
    SLEEPING,
    TAIL,
    VERSION,
    WORKER_PID,
    frame_size,
)

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    from collections.abc import Mapping


# How often the positions of a ring are read until they can be. Arbitrary.
_TRIES = 5

_PAGE_BYTES = mmap.PAGESIZE
_POPULATE_WRITE = 23  # `MADV_POPULATE_WRITE` of Linux 5.14, which `mmap` has no name for

_kept: list[Ring] = []
_kept_data: list[mmap.mmap | memoryview] = []


class Ring:
    """A mapped ring file. Positions only grow; see `layout` for what the words mean."""

    __slots__ = ("__weakref__", "_fd", "_inode", "_populated", "capacity", "data", "id", "meta", "path", "words")

    def __init__(self, fd: int, path: str) -> None:
        size = os.fstat(fd).st_size
        if size <= HEADER_BYTES or size % 8:
            raise ValueError(f"{path} does not have the size of a ring: {size} bytes")
        self._fd = fd
        self._inode = _inode(fd)
        self._populated = 0
        self.path: str = path
        self.data: mmap.mmap = mmap.mmap(fd, size)
        self.words: memoryview[int] = memoryview(self.data).cast("Q")
        try:
            self._check(size)
        except ValueError:
            self._unmap()
            raise
        self.capacity: int = self.words[CAPACITY]
        self.id: int = self.words[RING]
        meta = self.data[META_OFFSET : META_OFFSET + self.words[META_BYTES]]
        self.meta: dict[str, str] = _unpack_meta(meta)

    def __repr__(self) -> str:
        return f"<Ring {self.id:016x} of {self.capacity} bytes, {self.used()} used, {ENDS[self.words[END]]}>"

    @classmethod
    def create(cls, path: str, capacity: int, meta: Mapping[str, object], *, first: int = 0) -> Ring:
        """Make a ring of `capacity` bytes (a power of two) at `path`, locked by this process.

        The file gets its name when it is whole, so nobody maps half a ring. Its blocks are reserved: on a full
        tmpfs a sparse file would be a SIGBUS in the user's process, not an error.

        Raises:
            OSError: no room, or no right to write there.
        """
        encoded = _pack_meta(meta)
        if len(encoded) > META_MAX:
            raise OSError(errno.ENAMETOOLONG, "the run's directory has too long a path", path)
        unfinished = f"{path}.new"
        fd = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            _reserve(fd, HEADER_BYTES + capacity)
            _write_header(fd, capacity, encoded, first)
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(unfinished, path)
            return cls(fd, path)
        except BaseException:
            os.close(fd)
            for leftover in (unfinished, path):
                _unlink(leftover)
            raise

    def is_there(self, path: str | None = None) -> bool:
        """Tell whether its file is where it was: not removed, nor replaced by another; or whether it is at another path."""
        try:
            found = os.stat(path or self.path, follow_symlinks=False)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._inode

    def has_name(self) -> bool:
        """Tell whether its file is anywhere at all: not removed."""
        try:
            return os.fstat(self._fd).st_nlink > 0
        except OSError:
            return False

    def found_at(self) -> str | None:
        """Find the path of its file, wherever that was moved; None where the system does not tell."""
        try:
            path = os.readlink(f"/proc/self/fd/{self._fd}")
        except OSError:
            return None
        return path if self.is_there(path) else None

    def make_again(self) -> None:
        """Go on in a new file at the same path, with all that this one has; for who removed that did not ask. No worker is taken to have it.

        Nothing may be put in meanwhile, and no worker may drain it.

        Raises:
            OSError: no room, or no right to write there; nothing has changed.
        """
        unfinished = f"{self.path}.new"
        fd = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            size = HEADER_BYTES + self.capacity
            _reserve(fd, size)
            data = mmap.mmap(fd, size)
            memoryview(data)[:] = memoryview(self.data)
            words = memoryview(data).cast("Q")
            words[WORKER_PID] = words[SLEEPING] = words[LAST_ERRNO] = 0
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(unfinished, self.path)
        except BaseException:
            os.close(fd)
            _unlink(unfinished)
            raise
        former = self._fd, self._inode, self.data
        self.words, self.data, self._fd, self._inode = words, data, fd, _inode(fd)
        _let_go_of(*former)

    @classmethod
    def attach(cls, path: str) -> Ring:
        """Map the ring at `path`, made by another process.

        Raises:
            OSError: it is gone, or is not this user's own regular file.
            ValueError: it is not a ring, or one of another version.
        """
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if os.fstat(fd).st_uid != os.geteuid():
                raise PermissionError(errno.EPERM, "the ring belongs to another user", path)
            return cls(fd, path)
        except BaseException:
            os.close(fd)
            raise

    def producer_lives(self) -> bool:
        """Tell whether the process that made this ring is still there, and has not let go of it. Never call it in that process."""
        if self._fd < 0:  # closed beside this thread, by its producer in the same process
            return False
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        fcntl.lockf(self._fd, fcntl.LOCK_UN)
        return self._is_mapped()

    def caller(self) -> int:
        """Find the process that made this ring, as it is called here; `locks.ELSEWHERE` where it cannot be seen. Never call it in that process."""
        holder = self.held_by()
        return self.words[PID] if holder is None else holder

    def held_by(self) -> int | None:
        """Find the process that has the ring's lock, as it is called here; `locks.ELSEWHERE` where it cannot be seen, None where it has ended or is this one."""
        return None if self._fd < 0 else locks.holder_of(self._fd)

    def can_be(self) -> bool:
        """Tell whether the header is one; else somebody has written over it."""
        try:
            self._check(HEADER_BYTES + self.capacity)
        except ValueError:
            return False
        return True

    def used(self) -> int:
        """Return how many bytes of frames are not yet in the journal."""
        return self.words[HEAD] - self.words[TAIL]

    def is_blank(self) -> bool:
        """Tell whether it was made to open a run, and nothing is said in it: its producer is about to, or was killed before it could."""
        return not self.words[HEAD] and self.meta.get("root") == "True"

    def populate(self, start: int, end: int) -> None:
        """Have the pages from one position to another mapped at once, in the first lap: a fault at each takes twice as long, and falls into a `put`.

        A system that cannot leaves it at the faults.
        """
        start, end = max(start, self._populated), min(end, self.capacity)
        if start >= end:
            return
        self._populated = end
        first = (HEADER_BYTES + start) // _PAGE_BYTES * _PAGE_BYTES
        try:
            self.data.madvise(_POPULATE_WRITE, first, HEADER_BYTES + end - first)
        except (AttributeError, OSError, ValueError):
            self._populated = self.capacity

    def copy(self, start: int, end: int) -> bytes:
        """Copy the bytes between two positions; right only while `end - capacity <= start` holds."""
        return b"".join(self.parts(start, end))

    def parts(self, start: int, end: int) -> tuple[memoryview, ...]:
        """Return the bytes between two positions as they lie in memory: in two parts where they go beyond the end."""
        view = memoryview(self.data)
        first = HEADER_BYTES + start % self.capacity
        last = HEADER_BYTES + end % self.capacity
        if first < last or start == end:
            return (view[first:last],)
        return view[first : HEADER_BYTES + self.capacity], view[HEADER_BYTES:last]

    def batch_end(self, start: int, head: int, max_bytes: int) -> int:
        """Find where to cut what lies between a frame's start and the head: about `max_bytes` on, more where no mark is nearer."""
        if head - start <= max_bytes:
            return head
        marks = [mark for mark in self.words[MARKS : MARKS + MARK_COUNT].tolist() if start < mark < head]
        near = [mark for mark in marks if mark - start <= max_bytes]
        return max(near) if near else min(marks, default=head)

    def queued(self, after: int) -> int | None:
        """Count the records between the position `after` and the head; None where some are in the journal only by now."""
        words = self.words
        head = words[HEAD]
        if head - after > self.capacity:
            return None
        frames = self.copy(after, head)
        # What was copied can be written over only once the worker has moved it, and then by one frame beyond the head.
        if words[TAIL] > after and words[HEAD] - after > self.capacity // 2:
            return None
        return count_records(frames)

    def next_number(self) -> int:
        """Return the number after that of the last record that is not journaled; 0 where all is."""
        frames = self.copy(self.words[TAIL], self.words[HEAD])
        words = memoryview(frames).cast("Q")
        at = following = 0
        while at < len(words):
            following = (words[at + 1] & NUMBER_MASK) + (words[at + 1] >> KIND_SHIFT == RECORD)
            at += frame_size(words[at] & LENGTH_MASK) >> 3
        return following

    def dropped(self) -> dict[str, int]:
        """Count the records that were turned away, by reason; reasons without one are left out."""
        counts = {reason: self.words[DROPPED + i] for i, reason in enumerate(DROP_REASONS)}
        return {reason: count for reason, count in counts.items() if count}

    def trouble(self) -> str | None:
        """Say what keeps the worker from journaling; None where nothing does."""
        code = self.words[LAST_ERRNO]
        if code == NO_ANSWER:
            return "the disk hangs"
        return os.strerror(code) if code else None

    def close(self) -> None:
        """Close the descriptor, which drops the producer's lock. The mapping goes when nobody looks at it any more."""
        fd, self._fd = self._fd, -1
        if fd >= 0 and _inode(fd) == self._inode:
            os.close(fd)
        elif fd >= 0:
            self.keep()

    def let_go(self) -> None:
        """Let go of the mapping, which keeps a descriptor of its own, once nothing more is put in; what the header said last can still be read.

        Call it behind `close`, which knows whether the descriptors are still ours.
        """
        if len(self.data) and self not in _kept:  # once only
            last = bytearray(self.data[:HEADER_BYTES])
            self.words, self.data = memoryview(last).cast("Q"), memoryview(b"")  # type: ignore[assignment]  # nobody reads it any more

    def give_back(self) -> None:
        """Give its memory back while somebody may still have it mapped; of a ring whose frames all are where they belong."""
        try:
            self.data.madvise(mmap.MADV_REMOVE, HEADER_BYTES, self.capacity)
        except (AttributeError, OSError, ValueError):
            pass  # this system cannot give the pages back at once; closing the mapping does

    def keep(self) -> None:
        """Keep the mapping for good: when it goes it closes its own descriptor, which by now may be another's file.

        So it is where a program has closed all files that it knew nothing of, as one that becomes a daemon does.
        """
        _kept.append(self)

    def unlink(self) -> None:
        """Remove the ring's file; what is mapped stays usable."""
        _unlink(self.path)

    def _is_mapped(self) -> bool:
        """Tell whether the producer lives all the same: its program may have closed the ring's file, and with it the lock."""
        pid = self.words[PID]
        if pid == os.getpid():  # its number, given again: we map the ring ourselves
            return False
        try:
            with open(f"/proc/{pid}/maps", "rb") as maps:
                return os.fsencode(os.path.basename(self.path)) in maps.read()
        except OSError:
            return False

    def _unmap(self) -> None:
        self.words.release()
        self.data.close()

    def _check(self, size: int) -> None:
        words = self.words
        if words[MAGIC] != RING_MAGIC or words[VERSION] != RING_VERSION:
            raise ValueError(f"{self.path} is not a ring of version {RING_VERSION}")
        capacity = words[CAPACITY]
        if capacity + HEADER_BYTES != size or capacity & (capacity - 1) or words[META_BYTES] > META_MAX:
            raise ValueError(f"{self.path} has an impossible header: capacity {capacity}, file of {size} bytes")
        # Both move on, and between two reads of an observer's for as long as that does not run.
        for tail, head in ((words[TAIL], words[HEAD]) for _ in range(_TRIES)):
            if not (head | tail) % 8 and 0 <= head - tail <= capacity and words[END] < len(ENDS):
                return
        raise ValueError(f"{self.path} has impossible positions: {tail} to {head}")


def count_records(frames: bytes | memoryview) -> int:
    """Count the records among whole frames."""
    words = memoryview(frames).cast("Q")
    at = records = 0
    while at < len(words):
        records += words[at + 1] >> KIND_SHIFT == RECORD
        at += frame_size(words[at] & LENGTH_MASK) >> 3
    return records


def record_offset(frames: bytes, first: int) -> int:
    """Count the records that the producer had put before the first of these frames; `first` is its first number."""
    number = int.from_bytes(frames[8 : FRAME_HEADER_BYTES - 1], "little")
    lost = int.from_bytes(frames[4:8], "little")
    return number - first - lost


def _pack_meta(meta: Mapping[str, object]) -> bytes:
    """Write lines of `name=value`; the run's path comes last, since it may hold any character."""
    lines = [f"{name}={value}\n" for name, value in meta.items() if name != "run"]
    return os.fsencode("".join(lines) + f"run={meta['run']}")


def _unpack_meta(text: bytes) -> dict[str, str]:
    lines, _, run = os.fsdecode(text).partition("run=")
    pairs = (line.partition("=") for line in lines.splitlines())
    return {**{name: value for name, _, value in pairs}, "run": run}


def _let_go_of(fd: int, inode: tuple[int, int] | None, data: mmap.mmap | memoryview) -> None:
    """Close a ring's former file; as `Ring.close` and `Ring.keep`."""
    if fd >= 0 and _inode(fd) == inode:
        os.close(fd)
    elif fd >= 0:
        _kept_data.append(data)


def _inode(fd: int) -> tuple[int, int] | None:
    try:
        found = os.fstat(fd)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _reserve(fd: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, size)
    else:
        os.write(fd, bytes(size))


def _write_header(fd: int, capacity: int, meta: bytes, first: int) -> None:
    header = memoryview(bytearray(META_OFFSET)).cast("Q")
    header[MAGIC] = RING_MAGIC
    header[VERSION] = RING_VERSION
    header[CAPACITY] = capacity
    header[RING] = int.from_bytes(os.urandom(8), "little") | 1
    header[FIRST] = first
    header[PID] = os.getpid()
    header[META_BYTES] = len(meta)
    os.pwrite(fd, header.tobytes() + meta, 0)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
