"""Background caller: call a function with queued items, one at a time, on a thread of its own. Runs in the caller."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

# Seconds before each new try of an item: a busy database is free by then. Arbitrary.
_RETRY_S: Final = (0.1, 0.5, 2.0)
# For so long after a loss each item is tried only once: a permanent failure should hold up neither the others nor the end. Arbitrary.
_IMPATIENT_S: Final = 30.0
# Items that wait at most, of some hundred bytes each; more means that the function does not return. Arbitrary.
_MOST_WAITING: Final = 10_000


class BackgroundCaller:
    """Calls a function with queued items, in order, on a background thread.

    Where the call raises, the item is tried again with pauses. After the last try the item is dropped and reported, and
    the next one comes.

    Args:
        give: called with each item, on the thread.
        name: of the thread.
        lose: called with a dropped item and the reason: the exception of `give`, or a text. Runs on the thread, or in
            `put`.
    """

    def __init__(self, give: Callable[[Any], object], name: str, lose: Callable[[Any, object], object]) -> None:
        self._give = give
        self._lose = lose
        self._things: deque[Any] = deque()
        self._changed = threading.Condition()
        self._ending = False
        self._patient_at = 0.0
        self._thread = threading.Thread(target=self._work, name=f"asynctrack-{name}", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<BackgroundCaller {self._thread.name}, {self.waiting} waiting>"

    @property
    def waiting(self) -> int:
        """Return the number of items that are not taken yet."""
        return len(self._things)

    def put(self, thing: Any) -> None:
        """Queue an item. Never waits; an item that finds no room is dropped."""
        with self._changed:
            full = len(self._things) >= _MOST_WAITING
            if not full:
                self._things.append(thing)
                self._changed.notify_all()
        if full:
            self._lose(thing, f"{_MOST_WAITING} wait already")

    def wait(self, timeout_s: float) -> bool:
        """Wait until every item is taken or dropped. Called on the thread itself it does not wait.

        Args:
            timeout_s: seconds that it waits at most.

        Returns:
            Whether no item is left.
        """
        if threading.current_thread() is self._thread:
            return True
        with self._changed:
            return self._changed.wait_for(lambda: not self._things, timeout_s)

    def end(self, timeout_s: float, last: Any = None) -> bool:
        """Wait for every item, then end the thread.

        Where that takes too long, the thread goes on with the items and then `last`.

        Args:
            timeout_s: seconds that it waits at most.
            last: queued behind all other items where the time is up; None for nothing.

        Returns:
            Whether no item was left in time.
        """
        done = self.wait(timeout_s)
        if not done and last is not None:
            self.put(last)
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        return done

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._things or self._ending)
                if not self._things:
                    return
                thing = self._things[0]
            self._deliver(thing)
            with self._changed:
                self._things.popleft()
                self._changed.notify_all()

    def _deliver(self, thing: Any) -> None:
        pauses = _RETRY_S if time.monotonic() >= self._patient_at else ()
        for pause in (*pauses, None):
            try:
                self._give(thing)
                return
            except Exception as error:  # code of somebody else; the items behind must still be given
                if pause is None:
                    self._patient_at = time.monotonic() + _IMPATIENT_S
                    self._lose(thing, error)
                else:
                    time.sleep(pause)
