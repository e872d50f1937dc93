"""Fast put: stores one frame in the ring, under a lock. Runs in the caller, in any thread, signal handler or finaliser.

A signal handler, finaliser or tracer may come in between on the thread that has the lock, and log. It finds that the ring has a holder, and its frame
waits aside until the call that it interrupted is through.

Where there is the native core, `FastPut` of `asynctrack/_native/ring.c` takes the place of this one: `put` and the state that it needs. In there
nothing can come in between, so it takes no lock.
"""

from __future__ import annotations

from _thread import get_ident

from asynctrack.queue.layout import FIRST, FRAME_HEADER_BYTES, HEAD, HEADER_BYTES, LOST_SHIFT
from asynctrack.queue.ring import Ring

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    import threading
    from collections import deque
    from typing import Final

_LOST_MASK: Final = ((1 << 32) - 1) << LOST_SHIFT


class FastPut:
    """Stores frames in a ring it owns, as long as there is nothing else to do. `Producer` is the rest of it."""

    __slots__ = ("_data", "_head", "_holder", "_limit", "_lock", "_lost", "_mask", "_number", "_side", "_words", "ring")

    _lock: threading.RLock
    _side: deque[tuple[bytes, int, int]]

    def __init__(self, ring: Ring) -> None:
        self.ring: Ring = ring
        self._words = ring.words
        self._data = ring.data
        self._mask = ring.capacity - 1
        self._head = ring.words[HEAD]
        # How far the fast way may go; 0 while `Producer` works on the ring, and for good once nothing more may be put. One comparison with it hides
        # every rare event: the ring is full, its end is near (a frame never wraps), it passes half full, 64 KiB have passed since the last look at
        # the worker, a fork, an end. `Producer._put_slowly` finds out which.
        self._limit = 0
        self._lost = 0  # dropped so far, shifted to where a frame's header has it
        self._number = ring.words[FIRST]
        self._holder = 0  # the thread that is inside the lock, and at work

    def put(self, payload: bytes, kind: int = 0, count: int = 1) -> bool:
        """Put one frame; False when there is no room or nothing more may be put, and then nothing is counted.

        Args:
            payload: at most `largest` bytes.
            kind: of the frame, shifted by `KIND_SHIFT`.
            count: how many numbers the frame takes: 1 for a record, else 0.
        """
        with self._lock:
            if self._holder:  # held by this very thread: a signal handler or finaliser interrupts a put
                return self._put_aside(payload, kind, count)
            try:
                self._holder = get_ident()
                placed = self._place(payload, kind, count)
            finally:
                self._holder = 0
        if not placed:
            return self._put_slowly(payload, kind, count)
        if self._side:
            self._put_side()
        return True

    def _place(self, payload: bytes, kind: int, count: int) -> bool:
        """Place one frame before the limit."""
        length = len(payload)
        head = self._head
        end = head + ((length + 23) & -8)  # frame_size(length), without the call
        if end > self._limit:
            return False
        offset = HEADER_BYTES + (head & self._mask)
        words = self._words
        word = offset >> 3
        words[word] = length + self._lost
        words[word + 1] = self._number + kind
        offset += FRAME_HEADER_BYTES
        self._data[offset : offset + length] = payload
        if end > self._limit:  # a signal handler or finaliser has come in between, and has closed the ring, or forked
            return False
        # On one line, so that what a signal handler or a tracer raises leaves a record whole or absent, its number too.
        self._number, self._head, words[HEAD] = self._number + count, end, end
        return True

    def _count_drops(self, index: int, count: int) -> None:
        """Count so many drops in a word of the header."""
        words = self._words
        words[index] = words[index] + count
        self._number, self._lost = self._number + count, (self._lost + (count << LOST_SHIFT)) & _LOST_MASK

    def _free_mutex(self) -> None:
        """Do nothing: the lock is the producer's."""

    def _put_slowly(self, payload: bytes, kind: int, count: int) -> bool:
        """Find out why the fast way did not place a frame, and do what has to be done."""
        raise NotImplementedError

    def _put_aside(self, payload: bytes, kind: int, count: int) -> bool:
        """Keep what came in between until the put that it interrupted is through."""
        raise NotImplementedError

    def _put_side(self) -> None:
        """Put what came in between."""
        raise NotImplementedError
