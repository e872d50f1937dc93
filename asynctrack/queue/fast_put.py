"""Fast put: stores one frame in the ring, with a claim in place of a lock. Runs in the caller, in any thread, signal handler or finaliser.

The claim is `_limit` set to 0: whoever finds 0 has the slow way to go. From the load of `_limit` to its release the bytecode of `_put` has
neither a call nor a backward jump, and these are the only places where CPython switches threads or runs signal handlers. So under the
interpreter lock `_put` is whole without a lock of its own. That matters: `with RLock():` around an empty body takes 0.157 us, more than it
takes to encode a record. What can still come in between on the same thread is a finaliser run by the garbage collector, or a tracer. It finds
a limit of 0, and `_claimed_below` then tells it that to wait would be to wait for itself.

This is a fact about compilers and interpreters, not about the language. So it holds for the versions in `VERIFIED`, each of which
`tests/test_producer_bytecode.py` has looked at, instruction by instruction. On any other version, on another implementation, and where there
is no interpreter lock, `put` takes a real lock.

A native core takes the place of this module: an object with one bound method `put`.
"""

from __future__ import annotations

import sys
import threading
from collections import deque

from asynctrack._system import private
from asynctrack.queue.layout import FIRST, FRAME_HEADER_BYTES, HEAD, HEADER_BYTES
from asynctrack.queue.ring import Ring

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    from typing import Final

# The versions of CPython for which the argument above was checked. Before you add one, run `tests/test_producer_bytecode.py` and
# `tests/test_queue.py` on it, and look up where its interpreter looks at the eval breaker.
VERIFIED: Final = frozenset({(3, 11), (3, 12), (3, 13)})


def needs_lock(implementation: str, version: tuple[int, int], has_interpreter_lock: bool) -> bool:
    """Say whether `put` needs a real lock on an interpreter.

    Args:
        implementation: as `sys.implementation.name` has it.
        version: its major and minor number.
        has_interpreter_lock: whether one thread at a time runs Python code.
    """
    return implementation != "cpython" or version not in VERIFIED or not has_interpreter_lock


class FastPut:
    """Stores frames in a ring it owns, as long as there is nothing else to do. `Producer` is the rest of it."""

    __slots__ = ("_data", "_head", "_limit", "_lock", "_lost", "_mask", "_number", "_side", "_words", "ring")

    def __init__(self, ring: Ring) -> None:
        self.ring: Ring = ring
        self._words = ring.words
        self._data = ring.data
        self._mask = ring.capacity - 1
        self._head = ring.words[HEAD]
        # How far the fast way may go; 0 while the ring is claimed, and for good once nothing more may be put. One comparison with it hides every
        # rare event: the ring is full, its end is near (a frame never wraps), it passes half full, 64 KiB have passed since the last look at the
        # worker, a claim, a fork, an end. `Producer._put_slowly` finds out which.
        self._limit = 0
        self._lost = 0  # dropped so far, shifted to where a frame's header has it
        self._number = ring.words[FIRST]
        self._side: deque[tuple[bytes, int, int]] = deque()  # what came in between a claim and its release
        self._lock = threading.RLock()

    def _put(self, payload: bytes, kind: int = 0, count: int = 1) -> bool:
        """Put one frame; False when there is no room or nothing more may be put, and then nothing is counted.

        Args:
            payload: at most `largest` bytes.
            kind: of the frame, shifted by `KIND_SHIFT`.
            count: how many numbers the frame takes: 1 for a record, else 0.
        """
        length = len(payload)
        size = (length + 23) & -8  # frame_size(length), without the call
        limit, self._limit = self._limit, 0  # the claim: on one line, so that no tracer comes in between
        try:
            head = self._head
            end = head + size
            if end <= limit:
                offset = HEADER_BYTES + (head & self._mask)
                words = self._words
                word = offset >> 3
                words[word] = length + self._lost
                words[word + 1] = self._number + kind
                offset += FRAME_HEADER_BYTES
                self._data[offset : offset + length] = payload
                # On one line, so that what a tracer raises leaves a record whole or absent, its number too.
                self._number, self._head, words[HEAD] = self._number + count, end, end
                placed = True
            else:
                placed = False
        finally:
            self._limit = limit or self._limit  # whoever found 0 must not undo the release of another
            released = True  # noqa: F841  # `_claimed_below` looks for it
        if placed:
            if self._side:
                self._put_side()
            return True
        return self._put_slowly(payload, kind, count)

    def _put_locked(self, payload: bytes, kind: int = 0, count: int = 1) -> bool:
        """Put one frame as `_put` does, one thread at a time.

        The lock is reentrant: a signal handler within the claim finds a limit of 0, as it does where there is no lock.
        """
        with self._lock:
            return self._put(payload, kind, count)

    # The one place where the way is chosen. Whoever puts keeps the bound method.
    put = (
        _put_locked
        if needs_lock(sys.implementation.name, sys.version_info[:2], private.has_interpreter_lock())
        else _put
    )

    def _put_slowly(self, payload: bytes, kind: int, count: int) -> bool:
        """Find out why the fast way did not place a frame, and do what has to be done."""
        raise NotImplementedError

    def _put_side(self) -> None:
        """Put what came in between."""
        raise NotImplementedError

    def _claimed_below(self) -> bool:
        """Find out whether this call came in between a claim and its release on this very thread."""
        frame = private.frame(1)
        while (frame := frame.f_back) is not None:  # type: ignore[assignment]  # it ends with None
            if (
                frame.f_code is _CLAIMING_CODE
                and frame.f_locals.get("self") is self
                and "released" not in frame.f_locals
            ):
                return True
        return False


_CLAIMING_CODE = FastPut._put.__code__
