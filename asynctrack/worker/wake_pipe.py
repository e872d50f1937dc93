"""Wake pipe: the pipe in a host directory by which producers wake the drain. Runs in the worker. Standard library only."""

from __future__ import annotations

import contextlib
import os
import select
import threading

from asynctrack.queue.shm_paths import WAKE_NAME


class WakePipe:
    """The drain's end of the pipe.

    Args:
        host: the directory that has it.
    """

    def __init__(self, host: str) -> None:
        self._fd = _open(host)
        self._turn = threading.Lock()  # to wake or to close
        self._poll = select.poll()  # `select` takes no descriptor over 1023, and a caller may have more open files
        self._poll.register(self._fd, select.POLLIN)

    def wake(self) -> None:
        """Wake who waits, or will. From any thread, and in a signal handler: whoever else has the turn wakes too, or closes."""
        if self._turn.acquire(blocking=False):
            try:
                with contextlib.suppress(OSError):  # it is full, or closed
                    os.write(self._fd, b"!")
            finally:
                self._turn.release()

    def wait(self, seconds: float) -> bool:
        """Wait until somebody wakes it; returns whether somebody did."""
        if not self._poll.poll(seconds * 1000):
            return False
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 4096)
        return True

    def move_to(self, host: str) -> None:
        """Take the pipe of a directory that was made again. The descriptor stays, so no thread has to be told.

        Raises:
            OSError: it is not there.
        """
        pipe = _open(host)
        os.dup2(pipe, self._fd, inheritable=False)
        os.close(pipe)

    def close(self) -> None:
        """Close it. From then on nobody is woken: the descriptor's number may be that of another file of the caller's."""
        with self._turn:
            fd, self._fd = self._fd, -1
        os.close(fd)


def _open(host: str) -> int:
    return os.open(os.path.join(host, WAKE_NAME), os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
