"""Caller display: show a backend's output in the process that logs: on its standard output, in a notebook, in its log.

The worker has no standard streams and must not have the caller's. A pipe that the worker holds open would keep its
reader waiting, and the caller would overwrite the worker's output in a redirected file. So a backend makes its text in
the worker, and a thread of the caller, which sleeps until something comes, passes it on. That thread is the only cost
to the user's loop.

They talk through a socket of the caller that has no place in any file system. Only processes of the same user may
connect. Messages are lines of JSON:

    {"show": [...]}                 in the order to be shown; the backend chooses the form of an item
    {"show": [...], "end": true}    the last
    {} or {"error": "..."}          the answer to each, when it is shown
"""

from __future__ import annotations

import fcntl
import io
import os
import select
import socket
import struct
import threading
from collections.abc import Sequence
from typing import Any, Final, TextIO

import msgspec

from asynctrack._system import fork
from asynctrack._system.printable import printable
from asynctrack.backends.base import ActionRequired

# The reason for records that are not shown: after the caller's end there is nobody to show them to.
GONE: Final = "the process that logs has ended"

_PREFIX: Final = "asynctrack-display-"
_RECEIVE_BYTES: Final = 64 << 10
# Without any connection for so long the display closes. Arbitrary: far more than a worker takes to start.
_LONGEST_WAIT_S: Final = 600


class Display:
    """Shows items. Called on the display's thread."""

    def show(self, items: list[Any]) -> None:
        """Show some items.

        An exception from here reaches the backend, which waits until a person has solved the problem.

        Args:
            items: in order, in the form that the backend chose.
        """
        raise NotImplementedError(f"{type(self).__name__} has no show(items)")

    def close(self) -> None:
        """Finish: no more items come."""


class CallerDisplay:
    """Receives items on a thread of its own and shows them, until the run's end.

    Args:
        show: shows them.

    Attributes:
        name: of its socket.
    """

    def __init__(self, show: Display) -> None:
        self.name: str = f"{_PREFIX}{os.urandom(8).hex()}"
        self._show = show
        self._listener = _beyond_streams(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        self._peers: dict[int, socket.socket] = {}
        self._rests: dict[int, bytes] = {}
        self._known = self._over = False
        try:
            self._listener.bind(_address(self.name))
            self._listener.listen()
            threading.Thread(target=self._serve, name="asynctrack-display", daemon=True).start()
        except BaseException:
            self._listener.close()
            raise
        fork.watch(self)

    def __repr__(self) -> str:
        return f"<CallerDisplay {self.name} of {self._show!r}, {len(self._peers)} connected>"

    def _serve(self) -> None:
        while not self._over:
            # Wait on all connections: an abandoned one may still be open when the next one comes.
            found = _ready([self._listener.fileno(), *self._peers], timeout_s=None if self._known else _LONGEST_WAIT_S)
            if not found:  # nobody has connected: the run could not be opened
                break
            for fd in found:
                if fd not in self._peers:
                    self._accept()
                elif not self._receive(fd):
                    self._peers.pop(fd).close()
        self.after_fork()

    def _accept(self) -> None:
        peer, _ = self._listener.accept()
        if _is_ours(peer):
            self._peers[peer.fileno()], self._rests[peer.fileno()], self._known = peer, b"", True
        else:
            peer.close()

    def _receive(self, fd: int) -> bool:
        """Obey the orders that have come; False where no more will come."""
        try:
            chunk = self._peers[fd].recv(_RECEIVE_BYTES)
            *lines, self._rests[fd] = (self._rests[fd] + chunk).split(b"\n")
            for line in lines:
                order = msgspec.json.decode(line)
                answer = self._obey(order)
                self._over |= bool(order.get("end")) and not answer
                self._peers[fd].sendall(msgspec.json.encode(answer) + b"\n")
        except (OSError, msgspec.DecodeError):  # the peer has died, perhaps in the middle of a line
            return False
        return bool(chunk)

    def _obey(self, order: dict[str, Any]) -> dict[str, str]:
        try:
            if order["show"]:
                self._show.show(order["show"])
            if order.get("end"):
                self._show.close()
        except Exception as error:  # such as a closed stream or a missing library: the backend reports it
            return {"error": str(error) or type(error).__name__}
        return {}

    def after_fork(self) -> None:
        """Close this process's descriptors; a forked child leaves the display to its parent."""
        for opened in (self._listener, *self._peers.values()):
            opened.close()


class Link:
    """The backend's end of the connection.

    Args:
        name: of the display's socket, "" where there is none.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._socket: socket.socket | None = None

    def show(self, items: Sequence[Any], *, end: bool = False) -> bool:
        """Show items, and wait until that is done.

        Args:
            items: in order, as the display takes them.
            end: whether they are the last.

        Returns:
            False where the process that shows them has ended.

        Raises:
            ActionRequired: they cannot be shown, and only a person can solve the problem.
        """
        order = {"show": items, **({"end": True} if end else {})}
        try:
            answer = self._ask(msgspec.json.encode(order) + b"\n")
        except OSError:
            self.close()
            return False
        if "error" in answer:
            raise ActionRequired(f"the process that logs cannot show it: {answer['error']}")
        return True

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _ask(self, order: bytes) -> dict[str, str]:
        if self._socket is None:
            if not self._name.startswith(_PREFIX):  # the name may come from a stored run of somebody else
                raise ConnectionRefusedError("there is no display")
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._socket.connect(_address(self._name))
            if not _is_ours(self._socket):
                raise ConnectionRefusedError("the display is another user's")
        self._socket.sendall(order)
        answer = b""
        while not answer.endswith(b"\n"):
            chunk = self._socket.recv(_RECEIVE_BYTES)
            if not chunk:
                raise ConnectionResetError("the display is closed")
            answer += chunk
        found: dict[str, str] = msgspec.json.decode(answer)
        return found


class Stream(Display):
    """Writes lines to a text stream.

    Args:
        stream: None where the process has none.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def __repr__(self) -> str:
        return f"<Stream to {self._stream!r:.80}>"

    def show(self, items: list[Any]) -> None:
        """Write lines, with control characters made visible.

        Raises:
            OSError: there is no stream, or it takes nothing.
        """
        if self._stream is None:
            raise OSError("this process has no such stream")
        text = "".join(f"{printable(line)}\n" for line in items)  # the text may come from somebody else's run
        encoding = self._stream.encoding or "utf-8"
        data = text.encode(encoding, "backslashreplace")
        if type(self._stream) is io.TextIOWrapper:
            _write(self._stream, data)
        else:  # such as a notebook's or a test runner's
            self._stream.write(data.decode(encoding))
            self._stream.flush()


def open_display(show: Display) -> str:
    """Open a display and return its name, "" where none can be opened: the main thread has ended."""
    try:
        return CallerDisplay(show).name
    except (OSError, RuntimeError):
        return ""


def in_notebook(stream: object) -> bool:
    """Return whether text written to a stream appears in a notebook."""
    return type(stream).__module__.partition(".")[0] == "ipykernel"


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a stream is a terminal whose cursor can be moved."""
    try:
        return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:  # it is closed
        return False


def _write(stream: TextIO, data: bytes) -> None:
    """Write past the stream's own buffer.

    Data that a broken pipe refuses must not be tried again when the process ends: its exit status would be 120.
    """
    fd = stream.fileno()
    # A terminal may be stopped (Ctrl-S): wait here rather than inside `flush`, which holds a lock that the process needs to end.
    _ready([fd], to_write=True)
    stream.flush()
    while data:
        data = data[os.write(fd, data) :]


def _ready(fds: Sequence[int], *, to_write: bool = False, timeout_s: float | None = None) -> list[int]:
    """Wait until some descriptors can be read, or written; return these, none where the time is up."""
    if not hasattr(select, "poll"):  # eventlet removes `poll`; its `select` lets the user's loop go on
        found = select.select([] if to_write else fds, fds if to_write else [], [], timeout_s)
        return [*found[0], *found[1]]
    waiting = select.poll()
    for fd in fds:
        waiting.register(fd, select.POLLOUT if to_write else select.POLLIN)
    return [fd for fd, _ in waiting.poll(None if timeout_s is None else timeout_s * 1000)]


def _beyond_streams(opened: socket.socket) -> socket.socket:
    """Move a socket away from the standard streams' numbers.

    Text written to a stream that is closed must not come here.
    """
    if opened.fileno() > 2:
        return opened
    with opened:
        return socket.socket(fileno=fcntl.fcntl(opened.fileno(), fcntl.F_DUPFD_CLOEXEC, 3))


def _address(name: str) -> str:
    return f"\0{name}"


def _is_ours(peer: socket.socket) -> bool:
    """Return whether the other end is a process of this user."""
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return bool(struct.unpack("3i", credentials)[1] == os.geteuid())
