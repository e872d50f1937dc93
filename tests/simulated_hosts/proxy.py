"""Proxy: one host's way through the network, over TCP on loopback, which can be cut, stalled and slow. Threads of the simulation."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from typing import Final

_CHUNK_BYTES: Final = 64 * 1024
# Between two looks whether what is held may go on.
_POLL_S: Final = 0.01
# A close that takes what was on the way with it, as where a cable is pulled.
_ABORTIVE: Final = struct.pack("ii", 1, 0)


class Proxy:
    """Passes on what comes to its port.

    Attributes:
        address: of it.

    Args:
        port: on loopback, where everything goes.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._is_cut = self._is_stalled = False
        self._bytes_s: float | None = None
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break all connections, and let nobody through."""
        self._is_cut = True
        self._break()

    def stall(self) -> None:
        """Hold all that comes, and break nothing: both ends take their connections for open."""
        self._is_stalled = True

    def slow_down(self, bytes_s: float) -> None:
        """Pass on so many bytes a second at most, by each connection and way."""
        self._bytes_s = bytes_s

    def heal(self, *, drop: bool = False) -> None:
        """Let everything through again. What was held comes late, or never."""
        if drop:
            self._break()
        self._is_cut = self._is_stalled = False
        self._bytes_s = None

    def close(self) -> None:
        """End it."""
        self._listener.close()
        self.cut()

    def _break(self) -> None:
        with self._lock:
            broken, self._connections = self._connections, set()
        for connection in broken:
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORTIVE)
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=(near,), daemon=True).start()

    def _connect(self, near: socket.socket) -> None:
        """Connect to the other side, and pass on both ways; a way that is cut is refused."""
        try:
            if self._is_cut:
                raise ConnectionRefusedError
            far = socket.create_connection(("127.0.0.1", self._port))
        except OSError:
            near.close()
            return
        with near, far:
            with self._lock:
                self._connections |= {near, far}
            back = threading.Thread(target=self._pass_on, args=(far, near), daemon=True)
            back.start()
            self._pass_on(near, far)
            back.join()
            with self._lock:
                self._connections -= {near, far}

    def _pass_on(self, come_from: socket.socket, go_to: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := come_from.recv(_CHUNK_BYTES):
                while self._is_stalled:
                    time.sleep(_POLL_S)
                go_to.sendall(data)
                if (bytes_s := self._bytes_s) is not None:
                    time.sleep(len(data) / bytes_s)
        for connection in (come_from, go_to):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
