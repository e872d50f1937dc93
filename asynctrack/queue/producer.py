"""Producer: puts frames into the ring that this process has made. Runs in the caller, in any thread, signal handler or finaliser.

`fast_put`, or the native core in its place, is the way of nearly every frame: no system call. Here is what happens now and then: room is made, the worker is looked
at, a frame that came in between waits until the one that it interrupted is through, the ring is made again in a new file, and the end.
"""

from __future__ import annotations

import errno
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from asynctrack._system import fork
from asynctrack._system.native import is_native
from asynctrack.queue.fast_put import FastPut
from asynctrack.queue.layout import (
    DROP_REASONS,
    DROPPED,
    END,
    ENDS,
    EXITING,
    FRAME_HEADER_BYTES,
    HEAD,
    HEADER_BYTES,
    KIND_SHIFT,
    MARK_COUNT,
    MARKS,
    PAD,
    PREEMPTED,
    SLEEPING,
    TAIL,
    WANTED,
    frame_size,
)
from asynctrack.queue.ring import Ring

# How many bytes may pass before the slow way looks at the worker again: about 2,600 records, so that not one call in a thousand takes it.
_POLL_EVERY_BYTES: Final = 256 << 10
# How long a full ring is taken to be full while the worker frees nothing: the worker is looked at again a hundred times a second.
_FULL_FOR_S: Final = 0.01
# How many calls may come in between before they are turned away: arbitrary, far beyond any real depth of nesting.
_MOST_ASIDE: Final = 10_000


if TYPE_CHECKING:
    FastWay = FastPut
else:
    FastWay = object  # a subclass has one of C or of Python; see the end


class Producer(FastWay):
    """Puts frames into a ring it has made. `create` makes one.

    The way of nearly every frame is the `FastPut` of a subclass; here is what happens now and then.

    Attributes:
        is_open: whether the ring takes frames. It never does again once it does not.
        is_inherited: whether this process is a forked child, and the ring its parent's.

    Args:
        ring: made by this process.
        poll: called from the slow way, outside the lock: about every 64 KiB, and with True when the worker sleeps and
            should not; it wakes or restarts the worker.
    """

    if not TYPE_CHECKING:  # a subclass has what is set here
        __slots__ = ()

    def __init__(self, ring: Ring, poll: Callable[[bool], object]) -> None:
        super().__init__(ring)
        self._side = deque()  # records that signal handlers and finalisers put while this thread held the lock
        self._lock = threading.RLock()
        self.is_open: bool = True
        self.is_inherited: bool = False
        self._poll = poll
        self._draining = False
        self._holder = 0  # the thread that is inside the lock, and at work
        self._full = (-1, 0, 0.0)  # the tail at which a frame of so many bytes found no room, and until when that holds
        self._limit = self._next_limit()
        ring.populate(self._head, self._limit)
        fork.watch(self)

    def __repr__(self) -> str:
        return f"<Producer of {self.ring!r}, {self._number} offered, {sum(self.ring.dropped().values())} dropped>"

    @property
    def capacity(self) -> int:
        """Return how many bytes of frames the ring holds."""
        return self.ring.capacity

    @property
    def largest(self) -> int:
        """Return the length of the longest payload that fits: a frame never wraps, so half the ring is always to be had."""
        return self.ring.capacity // 2 - 2 * FRAME_HEADER_BYTES

    @property
    def head(self) -> int:
        """Return the position after the last frame."""
        return self._head

    @property
    def number(self) -> int:
        """Return the number of the next record."""
        return self._number

    def drop(self, reason: str, count: int = 1) -> None:
        """Count a record that was turned away: it takes a number, so that the gap shows."""
        index = DROPPED + DROP_REASONS.index(reason)
        with self._lock:
            self._count_drops(index, count)

    def want(self) -> int:
        """Ask the worker to make all that is here safe soon, and return the position it will have to reach."""
        head = self._words[WANTED] = self._head
        return head

    def preempt(self) -> None:
        """Tell the worker that the end that follows is a preemption."""
        self._words[PREEMPTED] = 1

    def exit(self) -> None:
        """Tell the worker that the end that follows is that of the process, so that its exit code counts too."""
        self._words[EXITING] = 1

    def make_again(self) -> None:
        """Go on in a new file of the ring, whose own was removed; see `Ring.make_again`.

        Raises:
            OSError: it cannot be made, or this call came in between a put; nothing has changed.
        """
        with self._lock:
            if self._holder:  # a signal handler or finaliser that came in between a put
                raise BlockingIOError(errno.EAGAIN, "the queue is in use", self.ring.path)
            try:
                self._holder = threading.get_ident()
                self._swap()
            finally:
                self._holder = 0
            self._put_side()

    def close(self, end: str) -> None:
        """Take no more frames, and tell the worker how the producer ended: one of `ENDS`.

        A call from inside a `put` of this thread cannot wait for it: what has come in between is dropped, and counted.
        """
        with self._lock:
            if not self.is_open:
                return
            if not self._holder:
                self._put_side()
            self.is_open = False
            self._limit = 0
            self.drop("closed", sum(count for _, _, count in list(self._side)))
            self._words[END] = ENDS.index(end)

    def let_go(self) -> None:
        """Let go of the ring's memory, once closed and when nobody waits any more; see `Ring.let_go`."""
        self.ring.let_go()
        self._words, self._data = self.ring.words, self.ring.data

    def after_fork(self) -> None:
        """Forget the parent's ring, in a forked child. No lock, no system call: this runs inside `fork`."""
        self._free_mutex()
        self.is_open = False
        self.is_inherited = True
        self.ring.keep()
        self._lock = threading.RLock()
        self._holder = 0
        self._draining = False
        self._side = deque()
        self._limit = 0

    def _put_slowly(self, payload: bytes, kind: int, count: int) -> bool:
        if not self.is_open or len(payload) > self.largest or self.is_known_to_be_full(len(payload)):
            return False
        size = frame_size(len(payload))
        with self._lock:
            if not self.is_open:
                return False  # type: ignore[unreachable]  # another thread has closed it while this one waited for the lock
            if self._holder:  # a signal handler, finaliser or tracer inside the lines below
                return self._put_aside(payload, kind, count)
            tail = self._words[TAIL]
            try:
                self._holder = threading.get_ident()
                fits, wake = self._make_room(size)
            finally:
                self._holder = 0
            placed = fits and self.put(payload, kind, count)
            if not fits:
                self._full = (tail, size, time.monotonic() + _FULL_FOR_S)
            if not placed:
                self._put_side()
        self._poll(wake)
        return placed

    def is_known_to_be_full(self, length: int) -> bool:
        """Say whether a payload as long as this found no room just now and none has been freed since: to look again would only cost time."""
        tail, refused, until = self._full
        size = frame_size(length)
        return tail == self._words[TAIL] and size >= refused and not self._holder and time.monotonic() < until

    def _make_room(self, size: int) -> tuple[bool, bool]:
        """Skip the end of the ring if a frame of `size` does not fit before it, and set the limit anew.

        Returns:
            Whether the frame fits now, and whether the worker should be woken: it sleeps, and the ring is half full.
        """
        self._limit = limit = 0  # so that a thread in the native core, which takes no lock, waits for this one's
        try:
            boundary = (self._head | self._mask) + 1
            free_until = self._words[TAIL] + self.capacity
            if self._head + size + FRAME_HEADER_BYTES > boundary and boundary + size <= free_until:
                self._skip_to(boundary)
            # The worker journals a full ring in pieces, and frees the room of each at once: here it may cut, without reading a frame.
            self._words[MARKS + self._head * MARK_COUNT // self.capacity % MARK_COUNT] = self._head
            limit = self._next_limit(size)
            self.ring.populate(self._head, limit)
            fits = self._head + size <= limit
            half_full = self._head + size - self._words[TAIL] > self.capacity // 2
        finally:
            self._limit = limit if self.is_open else 0
        return fits, bool(half_full and self._words[SLEEPING])

    def _swap(self) -> None:
        self._limit = 0  # as in `_make_room`
        try:
            self.ring.make_again()
            self._words, self._data = self.ring.words, self.ring.data
        finally:
            self._limit = self._next_limit() if self.is_open else 0

    def _next_limit(self, size: int = 0) -> int:
        """Return how far the fast way may go before something has to be looked at; see `FastPut` for what that may be."""
        head, tail = self._head, self._words[TAIL]
        boundary = (head | self._mask) + 1
        limit = min(boundary - FRAME_HEADER_BYTES, tail + self.capacity, max(head + size, head + _POLL_EVERY_BYTES))
        half = tail + self.capacity // 2
        return half if head + size <= half < limit else limit

    def _skip_to(self, boundary: int) -> None:
        offset = HEADER_BYTES + (self._head & self._mask)
        self._words[offset >> 3] = boundary - self._head - FRAME_HEADER_BYTES + self._lost
        self._words[(offset >> 3) + 1] = self._number + (PAD << KIND_SHIFT)
        self._head = self._words[HEAD] = boundary

    def interrupted(self) -> bool:
        """Tell whether this call came in between a put on this very thread: if it waited for room, it would wait for itself."""
        return self._holder == threading.get_ident()

    def settle(self) -> bool:
        """Put what came in between and found no room, and return whether nothing of it is left."""
        if self._side and self.is_open:
            self._put_side()
        return not (self._side and self.is_open)

    def _put_aside(self, payload: bytes, kind: int, count: int) -> bool:
        """Keep what came in between until the put that it interrupted is through.

        Others may overtake it, and SIGKILL in that moment takes it. Ctrl-C does not, but for what was overwritten in the ring meanwhile.
        """
        if len(payload) > self.largest or len(self._side) >= _MOST_ASIDE:
            return False
        self._side.append((payload, kind, count))
        return True

    def _put_side(self) -> None:
        """Put what came in between, in the order it came."""
        going = True
        # What comes in between while this thread makes room waits until it has.
        while going and self._side and self.is_open and not self._holder:
            taken = True
            try:  # 3.13 does not guard the jumps of a loop in here: an interrupt there would leave the flag set
                taken, self._draining = self._draining, True  # on one line, so that no tracer comes in between
                going = not taken and self._put_next()  # each put in there comes here again
            finally:
                if not taken:
                    self._draining = False

    def _put_next(self) -> bool:
        """Put the first of them; False when there is no room: it was accepted, so it stays until there is."""
        if not self._side:  # another call has emptied it before this one began
            return False
        payload, kind, count = self._side[0]
        before = self._head
        try:
            placed = self.put(payload, kind, count)
        except BaseException:  # Ctrl-C, perhaps when it was placed already: it must be neither lost nor repeated
            if self._holds(payload, before):
                self._side.popleft()
            raise
        if placed or not self.is_open:
            self._side.popleft()
        return placed

    def _holds(self, payload: bytes, since: int) -> bool:
        """Tell whether a frame behind the position `since` has this payload; taken for granted where others have overwritten it."""
        head = self._head
        return head - since > self.capacity or payload in self.ring.copy(since, head)


_SLOTS: Final = ("__weakref__", "_draining", "_full", "_poll", "is_inherited", "is_open")


class PythonProducer(Producer, FastPut):
    """Puts frames by Python alone."""

    __slots__ = _SLOTS


create: Callable[[Ring, Callable[[bool], object]], Producer] = PythonProducer

if is_native:
    from asynctrack import _native

    class NativeProducer(Producer, _native.FastPut):  # type: ignore[misc]  # it has all of the other `FastPut`
        """Puts nearly every frame by one call of C."""

        __slots__ = (*_SLOTS, "_holder")

    create = NativeProducer
