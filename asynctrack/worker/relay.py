"""Relay: rounds from run to run that another thread goes on with while a disk holds one thread up. Runs in the worker. Standard library only.

A disk may hang for hours, and a thread that asks it for something hangs with it: no signal ends that. So the thread that makes the rounds
says where it is. If it is there for too long, that run is its alone until the disk answers, and a fresh thread visits the others.
"""

from __future__ import annotations

import threading
import time

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

# A visit that takes longer is left to its thread. A write to a disk that is well takes 0.1 to 10 ms, and on a busy one 100.
HELD_AFTER_S: Final = 0.2
# Between two looks how long the visits take.
_POLL_INTERVAL_S: Final = 0.1
# Other runs on a disk that hangs are tried one by one, after twice as long each time. Arbitrary.
_FIRST_RISK_S: Final = 1.0
_LONGEST_RISK_S: Final = 60.0


class Superseded(BaseException):
    """Another thread makes the rounds by now. No `Exception`: nothing on the way up may go on."""


class Relay:
    """Makes rounds on a thread of its own, or of its successors.

    Attributes:
        held: the runs at which a thread waits for a disk.

    Args:
        name: of the threads.
        rounds: what they do, until it returns; it calls `visit` for whatever may hang.
    """

    def __init__(self, name: str, rounds: Callable[[], object]) -> None:
        self.held: set[str] = set()
        self._name = name
        self._rounds = rounds
        self._lock = threading.Lock()
        self._visit: tuple[str, int | None, float] | None = None
        self._risks: dict[int, tuple[float, float]] = {}
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start a thread that makes the rounds."""
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        thread.start()
        # Only once it runs: a thread that is yet to start counts as dead, while the one before it is held up but alive.
        self._thread = thread

    def is_alive(self) -> bool:
        """Return whether a thread makes the rounds."""
        return self._thread is not None and self._thread.is_alive()

    def join(self, timeout_s: float) -> None:
        """Wait for the rounds to end, but not for longer than told."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def may_visit(self, run: str, disk: int | None) -> bool:
        """Return whether nobody is held up at a run, nor was at another on the same disk, as far as that is known.

        Other runs on a disk that hangs are tried one by one, so fifty of them do not cost fifty threads, nor the others 0.2 s each.
        """
        if run in self.held:
            return False
        risk = self._risks.get(disk) if disk is not None else None
        return risk is None or time.monotonic() >= risk[0]

    def visit(self, run: str, disk: int | None, work: Callable[..., Any], *arguments: Any) -> Any:
        """Work at a run: all of it, since who was held up comes no further.

        Raises:
            Superseded: it took so long that another thread makes the rounds; this one has to end.
        """
        self._visit = visit = (run, disk, time.monotonic())
        try:
            return work(*arguments)
        finally:
            self._leave(visit)

    def relieve(self) -> None:
        """Let another thread go on where this one is held up. Called by the watchdog."""
        now = time.monotonic()
        with self._lock:
            visit = self._visit
            if visit is None or now - visit[2] < HELD_AFTER_S:
                return
            run, disk, _ = visit
            self._visit = None
            self.held.add(run)
            try:
                self.start()
            except RuntimeError:  # no thread can be started: the rounds go on when the disk answers
                self._visit = visit
                self.held.discard(run)
                return
            if disk is not None:
                wait_s = min(2 * self._risks[disk][1], _LONGEST_RISK_S) if disk in self._risks else _FIRST_RISK_S
                self._risks[disk] = now + wait_s, wait_s

    def _run(self) -> None:
        try:
            self._rounds()
        except Superseded:
            pass

    def _leave(self, visit: tuple[str, int | None, float]) -> None:
        run, disk, _ = visit
        with self._lock:
            if self._risks and disk is not None:
                self._risks.pop(disk, None)  # the disk has answered
            if self._visit is visit:
                self._visit = None
                return
            self.held.discard(run)
        raise Superseded


class Watchdog(threading.Thread):
    """Looks whether those who make rounds are held up. It touches no disk itself."""

    def __init__(self) -> None:
        super().__init__(name="asynctrack-watchdog", daemon=True)
        self.relays: list[Relay] = []
        self._stopped = threading.Event()

    def run(self) -> None:
        """Look until stopped. It polls: who hangs cannot tell, and a timer for each visit would cost more than ten looks a second."""
        while not self._stopped.wait(_POLL_INTERVAL_S):
            for relay in self.relays:
                relay.relieve()

    def stop(self) -> None:
        """End soon."""
        self._stopped.set()
