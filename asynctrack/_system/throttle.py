"""Throttle: says the same thing once in a while, not each time it happens. Any process, any thread; imports nothing that is slow to import."""

from __future__ import annotations

import time

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    from collections.abc import Hashable
    from typing import Final

# Between two messages about the same thing.
EVERY_S: Final = 60.0
# As an interval: say it once and never again.
ONCE: Final = float("inf")
# How many things are remembered. Arbitrary: more than a process has runs open at once.
_MOST: Final = 5000


class Throttle:
    """Remembers for each thing until when nothing is to be said about it.

    It takes no lock and raises no audit event, so it may be asked between a record's acceptance and the return of `log()`. Two threads that ask at the
    same moment may both be admitted.
    """

    def __init__(self) -> None:
        self._until: dict[Hashable, float] = {}

    def __repr__(self) -> str:
        return f"<Throttle of {len(self._until)} things>"

    def admit(self, about: Hashable, every_s: float = EVERY_S) -> bool:
        """Return True if a message about a thing is to be said. If so, the next one is due after `every_s`."""
        if not self.due(about):
            return False
        self.note(about, every_s)
        return True

    def due(self, about: Hashable) -> bool:
        """Return True if `admit` would admit a message about it."""
        return time.monotonic() >= self._until.get(about, 0.0)

    def note(self, about: Hashable, every_s: float = EVERY_S) -> None:
        """Note that a message is being said, due or not: the next one is due after `every_s`."""
        if len(self._until) >= _MOST:
            self._forget()
        self._until[about] = time.monotonic() + every_s

    def _forget(self) -> None:
        """Make room: forget what may be said again by now, or else the older half."""
        now, until = time.monotonic(), self._until.copy()
        for about in [about for about, end in until.items() if end <= now] or list(until)[: _MOST // 2]:
            self._until.pop(about, None)
