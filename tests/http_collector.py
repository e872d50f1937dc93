"""A small collector's server for tests: the wire over real mergers, on the standard library. It can be told to answer anything else."""

from __future__ import annotations

import functools
import http.server
import threading
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import msgspec

from asynctrack.carriers import wire
from asynctrack.errors import PartIncomplete, PartRefused
from asynctrack.merging.merger import Merger

MOST_BYTES = 64 << 20


class Request(msgspec.Struct):
    """What came: its method, the part it is about, its headers, and how long the body was."""

    method: str
    part: wire.PartName | None
    headers: dict[str, str]
    length: int
    at: float


class Answer(msgspec.Struct):
    status: int
    body: bytes = b""
    headers: dict[str, str] = {}


def refusal(code: wire.Code, error: str, **more: object) -> Answer:
    said = wire.Refusal(error=error, code=code, **more)  # type: ignore[arg-type]
    return Answer(wire.STATUS[code], msgspec.json.encode(said), {"content-type": "application/json"})


class HTTPCollector:
    """Merges what comes into `OUT/PROJECT/RUN`.

    Attributes:
        url: where it listens.
        requests: that came.
        instead: called with each request; what it returns is the answer, None for the right one.
        token: that requests must have.
        hang_up_after: so many requests of a connection it closes it at the next, without a word; None for never.
    """

    def __init__(self, out: Path, port: int = 0) -> None:
        self.out = out
        self.requests: list[Request] = []
        self.instead: Callable[[Request], Answer | None] = lambda _: None
        self.token: str | None = None
        self.hang_up_after: int | None = None
        self._mergers: dict[Path, Merger] = {}
        self._lock = threading.Lock()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), functools.partial(_Handler, self))
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def __enter__(self) -> HTTPCollector:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop listening; what was merged is synced. Open connections are closed at their next request."""
        self._server.shutdown()
        self._server.server_close()
        self.instead = lambda _: Answer(503)
        self.close_runs()

    def close_runs(self) -> None:
        with self._lock:
            while self._mergers:
                self._mergers.popitem()[1].close()

    def answer(self, request: Request, query: dict[str, str], body: bytes) -> Answer:
        if request.part is None:
            return refusal("no_such_path", "there is nothing there")
        if self.token is not None and request.headers.get("authorization") != f"Bearer {self.token}":
            return refusal("wrong_token", "expected another token")
        with self._lock:
            try:
                return self._merge(self._merger(request.part), request, query, body)
            except PartIncomplete as error:
                return refusal("incomplete", error.why, ring=error.ring, seen=error.seen)
            except PartRefused as error:
                return refusal("refused", error.why)

    def _merge(self, merger: Merger, request: Request, query: dict[str, str], body: bytes) -> Answer:
        assert request.part is not None
        host = request.part.host
        if request.method == "GET":
            journal = wire.journal_in(query[wire.JOURNAL])
            assert journal is not None
            place = merger.place_of(host, journal)
            merger.hear(host)
            return Answer(200, msgspec.json.encode(place))
        after, upto = wire.place_in(query[wire.AFTER]), wire.place_in(query[wire.UPTO])
        assert after is not None
        assert upto is not None
        try:
            merger.take(host, after, upto, body)
        finally:
            merger.sync()
        return Answer(204)

    def _merger(self, part: wire.PartName) -> Merger:
        run = self.out / part.project / part.run
        if run not in self._mergers:
            self._mergers[run] = Merger(run)
        return self._mergers[run]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def __init__(self, collector: HTTPCollector, *arguments: object) -> None:
        self._collector = collector
        self._served = 0
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _serve(self) -> None:
        path, _, query = self.path.partition("?")
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        request = Request(self.command, wire.name_in(path), headers, len(body), time.monotonic())
        self._collector.requests.append(request)
        if self._served == self._collector.hang_up_after:
            self.close_connection = True
            return
        answer = self._collector.instead(request)
        if answer is None:
            if headers.get("content-encoding") == wire.DEFLATE:
                body = wire.inflated(body, MOST_BYTES)
            answer = self._collector.answer(request, dict(urllib.parse.parse_qsl(query)), body)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.status != 204:
            self.send_header("content-length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)
        self._served += 1
