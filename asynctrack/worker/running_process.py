"""Running process: a delivery process that has been started, and the streams to it. Runs in the worker."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from typing import Any

from asynctrack._system import descendants
from asynctrack._system.spawn import spawn


class RunningProcess:
    """A process of its own group. Orders go down a socket, signs of life come up.

    It has a pipe besides, whose end tells it that the worker has died: then it kills itself with all that it has started.

    Attributes:
        group: its process group.
        heard_at: when it gave its last sign of life, or was started; monotonic seconds.
        has_answered: whether it has given one.

    Args:
        host: the directory of the calling process's rings, which says what can be imported.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, host: str) -> None:
        ours, theirs = socket.socketpair()
        lifeline, kept = os.pipe()
        try:
            self.group = spawn(
                "_system/entry.py",
                ["asynctrack.delivery.process", host],
                log_path=None,
                stdin=theirs.fileno(),
                stdout=lifeline,
            )
        except OSError:
            ours.close()
            os.close(kept)
            raise
        finally:
            theirs.close()
            os.close(lifeline)
        ours.setblocking(False)
        self.heard_at = time.monotonic()
        self.has_answered = False
        self._socket = ours
        self._lifeline = kept
        self._unsent: list[bytes] = []
        self._rest = b""

    def send(self, order: dict[str, Any]) -> None:
        """Give it an order, as soon as it takes one."""
        self._unsent.append(json.dumps(order).encode() + b"\n")
        self.flush()

    def flush(self) -> None:
        """Send what it has not taken yet."""
        # It is busy, or has ended: the end of its stream says that.
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while self._unsent:
                sent = self._socket.send(self._unsent[0])
                self._unsent[0] = self._unsent[0][sent:]
                if not self._unsent[0]:
                    self._unsent.pop(0)

    def receive(self) -> dict[str, float] | None:
        """Read its signs of life.

        Returns:
            For how long each of its deliveries has waited for its backend, as the last of them says; None when it has ended.
        """
        last = b""
        try:
            while chunk := self._socket.recv(65536):
                self.heard_at, self.has_answered = time.monotonic(), True
                *whole, self._rest = (self._rest + chunk).split(b"\n")
                last = whole[-1] if whole else last
        except BlockingIOError:
            return _busy(last)
        except ConnectionError:
            pass
        return None

    def kill(self) -> None:
        """Kill it, with all that it has started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.group, signal.SIGKILL)
        descendants.kill_of(self.group)
        self._socket.close()
        os.close(self._lifeline)


def _busy(line: bytes) -> dict[str, float]:
    try:
        return dict(json.loads(line)["busy"])
    except (ValueError, KeyError, TypeError):
        return {}  # there is none, or half of one, because nobody has listened for long
