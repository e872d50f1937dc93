"""A raw-socket HTTP server that misbehaves on demand, on loopback. One request a connection, unless a behaviour keeps it open.

What the server knows is its `app`, a function from a request to an answer; how it says that is the next behaviour of its script, and
`well` when the script is over. Every loop is bounded, and nothing outlives `close`.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

# Longer than any test waits for a server that says nothing.
_LONGEST_S = 30.0
_MOST_HUGE_BYTES = 64 << 20


class Request(NamedTuple):
    """What came: method, path without its query, the query, headers in lower case, body."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Answer(NamedTuple):
    """What the app says."""

    status: int
    data: Any = None

    def body(self) -> bytes:
        return self.data if isinstance(self.data, bytes) else json.dumps(self.data or {}).encode()

    def whole(self, **headers: str) -> bytes:
        """The bytes of a proper answer."""
        body = self.body()
        fields = {"content-type": "application/json", "content-length": str(len(body))}
        fields.update({name.replace("_", "-"): value for name, value in headers.items()})
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"HTTP/1.1 {self.status} Word\r\n{lines}\r\n".encode() + body


App = Callable[[Request], Answer]


class Exchange:
    """One connection: what a behaviour reads from and writes to."""

    def __init__(self, server: RawServer, connection: socket.socket) -> None:
        self.server = server
        self.socket = connection
        self._rest = b""

    def read_head(self) -> bytes:
        """Up to the end of the headers."""
        while b"\r\n\r\n" not in self._rest:
            chunk = self.socket.recv(65536)
            if not chunk:
                raise ConnectionError("the client has gone")
            self._rest += chunk
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        return head

    def read(self) -> Request:
        """The whole request."""
        head, *lines = self.read_head().decode("latin-1").split("\r\n")
        method, target, _ = head.split(" ")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(fields.get("content-length", "0"))
        while len(self._rest) < length:
            chunk = self.socket.recv(65536)
            if not chunk:
                raise ConnectionError("the client has gone")
            self._rest += chunk
        body, self._rest = self._rest[:length], self._rest[length:]
        parts = urlsplit(target)
        request = Request(method, unquote(parts.path), dict(parse_qsl(parts.query)), fields, body)
        self.server.requests.append(request)
        return request

    def answer(self) -> Answer:
        """Read the request and have the app process it."""
        request = self.read()
        with self.server.lock:
            return self.server.app(request)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def reset(self) -> None:
        """End with a RST: the client cannot know what became of its request."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def hold(self) -> None:
        """Say nothing until the client gives up or the server closes."""
        self.socket.settimeout(0.05)
        deadline = time.monotonic() + _LONGEST_S
        while not self.server.closed.is_set() and time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                if not self.socket.recv(65536):
                    return

    def drip(self, data: bytes, pause_s: float = 0.005) -> None:
        """Send a byte at a time."""
        for byte in data:
            if self.server.closed.wait(pause_s):
                return
            self.send(bytes([byte]))


Behaviour = Callable[[Exchange], None]


class RawServer:
    """Serves an app on 127.0.0.1, as badly as its script says; a context manager.

    Args:
        app: what it knows.
        script: how it says that, a behaviour for each connection; `well` after the last.
        port: to listen on; 0 for any.

    Attributes:
        url: its address.
        requests: all that were read whole.
        connections: how many there were.
        script: what is left of it; may be added to.
    """

    def __init__(self, app: App = lambda _: Answer(200), script: Iterable[Behaviour] = (), port: int = 0) -> None:
        self.app = app
        self.script = deque(script)
        self.requests: list[Request] = []
        self.connections = 0
        self.lock = threading.Lock()
        self.closed = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=64)
        self._listener.settimeout(0.05)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._threads = [threading.Thread(target=self._accept, name="raw-server", daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> RawServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop, as a server that dies: connections break."""
        self.closed.set()
        for thread in self._threads:
            thread.join(_LONGEST_S)
        self._listener.close()

    def _accept(self) -> None:
        while not self.closed.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            self.connections += 1
            behaviour = self.script.popleft() if self.script else well
            thread = threading.Thread(target=self._serve, args=(connection, behaviour), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket, behaviour: Behaviour) -> None:
        connection.settimeout(_LONGEST_S)
        with connection, contextlib.suppress(OSError):  # clients leave
            behaviour(Exchange(self, connection))


def well(exchange: Exchange) -> None:
    exchange.send(exchange.answer().whole(connection="close"))


def says(status: int, data: Any = b"", **headers: str) -> Behaviour:
    """Answer so without processing the request."""

    def behave(exchange: Exchange) -> None:
        exchange.read()
        exchange.send(Answer(status, data).whole(**headers))

    behave.__name__ = f"says_{status}"
    return behave


def says_bytes(data: bytes) -> Behaviour:
    """Send this for an answer, without processing the request, and close."""

    def behave(exchange: Exchange) -> None:
        exchange.read()
        exchange.send(data)

    return behave


def silent(exchange: Exchange) -> None:
    """Accept, and never say anything."""
    exchange.hold()


def reads_and_is_silent(exchange: Exchange) -> None:
    exchange.read()
    exchange.hold()


def processes_and_is_silent(exchange: Exchange) -> None:
    """The client's time-out says nothing of what became of its request."""
    exchange.answer()
    exchange.hold()


def resets_before_reading(exchange: Exchange) -> None:
    exchange.reset()


def resets_after_the_head(exchange: Exchange) -> None:
    exchange.read_head()
    exchange.reset()


def processes_and_resets(exchange: Exchange) -> None:
    exchange.answer()
    exchange.reset()


def closes_before_answering(exchange: Exchange) -> None:
    exchange.read()


def processes_and_closes(exchange: Exchange) -> None:
    exchange.answer()


def half_closes(exchange: Exchange) -> None:
    """Close the sending side without an answer, and go on reading."""
    exchange.read()
    exchange.socket.shutdown(socket.SHUT_WR)
    exchange.hold()


def garbage_status(exchange: Exchange) -> None:
    exchange.read()
    exchange.send(b"\x16\x03\x01 what is this\r\n\r\n" + b"\0" * 512)


def switches_protocols(exchange: Exchange) -> None:
    exchange.read()
    exchange.send(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: strange\r\nconnection: upgrade\r\n\r\n")


def cuts_the_body(exchange: Exchange) -> None:
    """Process, and end before `Content-Length` says."""
    answer = exchange.answer()
    exchange.send(answer.whole(content_length=str(len(answer.body()) + 10)))


def cuts_the_headers(exchange: Exchange) -> None:
    exchange.answer()
    exchange.send(b"HTTP/1.1 200 OK\r\ncontent-le")


def cuts_a_chunk(exchange: Exchange) -> None:
    exchange.answer()
    exchange.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n10\r\n{}")


def chunked(exchange: Exchange) -> None:
    """A proper answer in chunks of a byte."""
    body = exchange.answer().body()
    pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    exchange.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n")


def continues_first(exchange: Exchange) -> None:
    """Two interim answers before the real one."""
    answer = exchange.answer()
    exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n" * 2 + answer.whole())


def continues_for_ever(exchange: Exchange) -> None:
    exchange.read()
    deadline = time.monotonic() + _LONGEST_S
    while not exchange.server.closed.wait(0.05) and time.monotonic() < deadline:
        exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n")


def drips(exchange: Exchange) -> None:
    """A proper answer, a byte at a time, quickly enough for who waits for the next byte only."""
    exchange.drip(exchange.answer().whole())


def drips_headers_for_ever(exchange: Exchange) -> None:
    exchange.read()
    exchange.send(b"HTTP/1.1 200 OK\r\nx: ")
    exchange.drip(b"x" * 600, pause_s=0.05)


def drips_a_body_for_ever(exchange: Exchange) -> None:
    exchange.read()
    exchange.send(b"HTTP/1.1 200 OK\r\ncontent-length: 600\r\n\r\n")
    exchange.drip(b" " * 600, pause_s=0.05)


def huge(exchange: Exchange) -> None:
    """More than anybody wants, until the client has enough."""
    exchange.read()
    exchange.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{")
    for _ in range(_MOST_HUGE_BYTES >> 16):
        exchange.send(b" " * (1 << 16))


def huge_headers(exchange: Exchange) -> None:
    exchange.read()
    exchange.send(b"HTTP/1.1 200 OK\r\n")
    for number in range(10_000):
        exchange.send(b"x-%d: %s\r\n" % (number, b"x" * 100))


def answers_twice(exchange: Exchange) -> None:
    """Refuse, and leave an answer to a request that was never made: the next one must not take it for its own."""
    exchange.read()
    exchange.send(Answer(503, {}).whole() + Answer(200, {"data": None}).whole())
    exchange.hold()


def answers_too_early(exchange: Exchange) -> None:
    """Say 413 to the head, and close while the body comes."""
    exchange.read_head()
    exchange.send(Answer(413, {"message": "too much"}).whole(connection="close"))


def keeps_the_connection(exchange: Exchange) -> None:
    """Answer as if there were a next request on this connection, and reset it a moment later."""
    exchange.send(exchange.answer().whole())
    exchange.server.closed.wait(0.05)
    exchange.reset()


@contextlib.contextmanager
def no_server() -> Iterator[str]:
    """An address where nobody listens, and nobody will."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"
