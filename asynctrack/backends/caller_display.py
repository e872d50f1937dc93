"""Caller display: shows in the process that logs what a backend elsewhere has made: on its standard output, in its notebook, in its log.

The worker has no standard streams, and must not have the caller's: whoever waits for the end of a pipe that it holds open waits for the worker
too, and what it writes to a redirected file is overwritten by the caller. So a backend makes its text in the worker, and a thread of
the caller, which sleeps until something comes, hands it on. It is the only cost to the loop.

They talk through a socket of the caller's that has no place in any file system, to which only processes of the same user are let. A line of JSON each:

    {"show": [...]}                 in the order to be shown; each item has the form that its backend likes
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

# Where the process that logs has ended, nobody is left to show anything to.
GONE: Final = "the process that logs has ended"

_PREFIX: Final = "asynctrack-display-"
_RECEIVE_BYTES: Final = 64 << 10
# How long nobody may have asked for a display. Arbitrary: far more than a worker takes to start.
_LONGEST_WAIT_S: Final = 600


class Display:
    """What is done with the items. Called on the display's thread."""

    def show(self, items: list[Any]) -> None:
        """Show some; what it raises is told to the backend, which waits for somebody to mend it."""
        raise NotImplementedError(f"{type(self).__name__} has no show(items)")

    def close(self) -> None:
        """Nothing more comes."""


class CallerDisplay:
    """Takes what is to be shown, on a thread of its own, until the run's end.

    Args:
        show: does it.

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
            # Of all: one that was given up may be open still when its follower comes.
            found = _ready([self._listener.fileno(), *self._peers], timeout_s=None if self._known else _LONGEST_WAIT_S)
            if not found:  # the run could not be opened
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
        """Obey what has come; False where nothing more will."""
        try:
            chunk = self._peers[fd].recv(_RECEIVE_BYTES)
            *lines, self._rests[fd] = (self._rests[fd] + chunk).split(b"\n")
            for line in lines:
                order = msgspec.json.decode(line)
                answer = self._obey(order)
                self._over |= bool(order.get("end")) and not answer
                self._peers[fd].sendall(msgspec.json.encode(answer) + b"\n")
        except (OSError, msgspec.DecodeError):  # it has died, perhaps half-way through
            return False
        return bool(chunk)

    def _obey(self, order: dict[str, Any]) -> dict[str, str]:
        try:
            if order["show"]:
                self._show.show(order["show"])
            if order.get("end"):
                self._show.close()
        except Exception as error:  # a stream that is closed, a library that is missing: the backend is to know
            return {"error": str(error) or type(error).__name__}
        return {}

    def after_fork(self) -> None:
        """Close this process's descriptors; a forked child leaves the display to its parent."""
        for opened in (self._listener, *self._peers.values()):
            opened.close()


class Link:
    """The backend's end.

    Args:
        name: of the display's socket, "" where there is none.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._socket: socket.socket | None = None

    def show(self, items: Sequence[Any], *, end: bool = False) -> bool:
        """Show these; returns when that is done, or False where nobody is left to show anything to.

        Raises:
            ActionRequired: it cannot be done, and only a person can mend it.
        """
        order = {"show": items, **({"end": True} if end else {})}
        try:
            answer = self._ask(msgspec.json.encode(order) + b"\n")
        except OSError:
            self.close()
            return False
        if "error" in answer:
            raise ActionRequired(f"it cannot be shown: {answer['error']}")
        return True

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _ask(self, order: bytes) -> dict[str, str]:
        if self._socket is None:
            if not self._name.startswith(_PREFIX):  # a run from elsewhere may name anything
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
        if self._stream is None:
            raise OSError("this process has no such stream")
        text = "".join(f"{printable(line)}\n" for line in items)  # it may be what a run from elsewhere says
        encoding = self._stream.encoding or "utf-8"
        data = text.encode(encoding, "backslashreplace")
        if type(self._stream) is io.TextIOWrapper:
            _write(self._stream, data)
        else:  # a notebook's, a test runner's
            self._stream.write(data.decode(encoding))
            self._stream.flush()


def open_display(show: Display) -> str:
    """A display's name, "" where none can be opened: the main thread has ended."""
    try:
        return CallerDisplay(show).name
    except (OSError, RuntimeError):
        return ""


def in_notebook(stream: object) -> bool:
    """Whether what is written to a stream appears in a notebook."""
    return type(stream).__module__.partition(".")[0] == "ipykernel"


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person looks at a stream, on a terminal whose cursor can be moved."""
    try:
        return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:  # it is closed
        return False


def _write(stream: TextIO, data: bytes) -> None:
    """Write behind the stream's own buffer: what a broken pipe does not take must not be tried again when the process ends."""
    fd = stream.fileno()
    # A terminal may be held: better here than where a lock is, which the process needs to end.
    _ready([fd], to_write=True)
    stream.flush()
    while data:
        data = data[os.write(fd, data) :]


def _ready(fds: Sequence[int], *, to_write: bool = False, timeout_s: float | None = None) -> list[int]:
    """Wait for one that can be read, or written; none where the time is up."""
    if not hasattr(select, "poll"):  # eventlet takes it away, and its `select` lets the loop go on
        found = select.select([] if to_write else fds, fds if to_write else [], [], timeout_s)
        return [*found[0], *found[1]]
    waiting = select.poll()
    for fd in fds:
        waiting.register(fd, select.POLLOUT if to_write else select.POLLIN)
    return [fd for fd, _ in waiting.poll(None if timeout_s is None else timeout_s * 1000)]


def _beyond_streams(opened: socket.socket) -> socket.socket:
    """The same where no standard stream was: what is written to one that is closed must not come here."""
    if opened.fileno() > 2:
        return opened
    with opened:
        return socket.socket(fileno=fcntl.fcntl(opened.fileno(), fcntl.F_DUPFD_CLOEXEC, 3))


def _address(name: str) -> str:
    return f"\0{name}"


def _is_ours(peer: socket.socket) -> bool:
    """Whether the other end is a process of this user."""
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return bool(struct.unpack("3i", credentials)[1] == os.geteuid())
