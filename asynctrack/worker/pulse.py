"""Pulse: a sign of life beside a host's part of a run, for the collector: a host that logs nothing for long is not dead. Runs in the worker."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Final

from asynctrack._system import permissions

FILE_NAME: Final = "alive"
# Between two signs. Arbitrary: a tenth of the time after which a host counts as lost.
_INTERVAL_S: Final = 30.0


class Pulse:
    """Gives signs of life for one run; none for one that is a single machine's.

    Args:
        run: its directory.
    """

    def __init__(self, run: str) -> None:
        self._path = os.path.join(run, FILE_NAME) if "@" in os.path.basename(run) else None
        self._next_at = 0.0

    def beat(self) -> None:
        """Give a sign, if it is time to."""
        now = time.monotonic()
        if self._path is None or now < self._next_at:
            return
        self._next_at = now + _INTERVAL_S
        with contextlib.suppress(OSError):  # a disk that fails shows elsewhere
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            fd = os.open(self._path, flags, permissions.FILE)
            try:
                os.utime(fd)
            finally:
                os.close(fd)
