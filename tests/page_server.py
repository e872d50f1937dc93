"""The page's server in a process of its own, and who asks it: by sockets, so that nothing stands between."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit

import msgspec

from asynctrack.journal import manifest as manifests
from asynctrack.journal.reader import Reader
from asynctrack.reading.reader import RunReader
from asynctrack.testing import JournaledRun

# Arbitrary: far more than anything waited for here needs.
DEADLINE_S: Final = 30.0
_LESS_PATIENT: Final = """
import sys
from asynctrack.cli import main
from asynctrack.ui.file_threads import FileThreads
FileThreads.__init__.__defaults__ = ({},)
sys.exit(main())
"""
_TYPES: Final = {"f8": "d", "f4": "f", "u4": "I"}


class PageAnswer(msgspec.Struct, frozen=True):
    """What the server has answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body, parse_constant=_no_constant)

    @property
    def error(self) -> str:
        found = self.json()["error"]
        assert isinstance(found, str)
        return found


class Block(msgspec.Struct, frozen=True):
    """A curve, as it came."""

    header: dict[str, Any]
    columns: dict[str, list[float]]


class PageProcess:
    """`asynctrack ui`.

    Args:
        words: of its command line.
        environment: of its process, beside that of this one.
        patience_s: for how long it waits for files, where not for as long as users wait.

    Attributes:
        lines: what it has printed until it listened.
        url: the first of them.
        port: at which it listens.
        token: that opens the page.
    """

    def __init__(
        self, *words: object, environment: Mapping[str, str] | None = None, patience_s: float | None = None
    ) -> None:
        how = ["-m", "asynctrack"] if patience_s is None else ["-c", _LESS_PATIENT.format(patience_s)]
        self.process = subprocess.Popen(
            [sys.executable, *how, *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        self.lines: list[str] = []
        try:
            self._read_lines()
        except BaseException:
            self.kill()
            raise
        parts = urlsplit(self.url)
        self.port = int(parts.port or 0)
        self.token = parse_qs(parts.query).get("token", [""])[0]

    @property
    def url(self) -> str:
        return next(word for line in self.lines for word in line.split() if word.startswith("http"))

    def ask(
        self, target: str, method: str = "GET", body: bytes | None = None, *, known: bool = True, **headers: str
    ) -> PageAnswer:
        """Send a request; with the token, unless it is not `known`."""
        sent = {"Authorization": f"Bearer {self.token}"} if known else {}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        with contextlib.closing(connection):
            connection.request(method, target, body, sent)
            answer = connection.getresponse()
            return PageAnswer(answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read())

    def get(self, name: str, /, **parameters: Any) -> PageAnswer:
        """Ask the API."""
        return self.ask(f"/api/{name}?{urlencode(parameters, doseq=True)}")

    def post(self, name: str, /, **parameters: Any) -> PageAnswer:
        body = urlencode(parameters, doseq=True).encode()
        return self.ask(f"/api/{name}", "POST", body, Content_Type="application/x-www-form-urlencoded")

    def blocks(self, name: str, /, **parameters: Any) -> list[Block]:
        answer = self.get(name, **parameters)
        assert answer.status == 200, answer
        return blocks_in(answer.body)

    def send_raw(self, text: bytes) -> bytes:
        """Send bytes, and return all that comes until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE_S) as sock:
            sock.sendall(text)
            sock.shutdown(socket.SHUT_WR)
            found = b""
            while part := sock.recv(1 << 16):
                found += part
            return found

    def end(self, number: int = signal.SIGINT) -> int:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        return self._wait()

    def kill(self) -> None:
        self.process.kill()
        self._wait()

    def _wait(self) -> int:
        code = self.process.wait(DEADLINE_S)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        return code

    def _read_lines(self) -> None:
        """Read what it prints, up to the line that it prints last before it answers."""
        stream = self.process.stdout
        assert stream is not None
        deadline = threading.Timer(DEADLINE_S, self.process.kill)
        deadline.start()
        try:
            while not any(line.startswith("Ctrl-C") for line in self.lines):
                line = stream.readline()
                assert line, f"it has ended: {self.lines} {self.process.stderr.read() if self.process.stderr else ''}"
                self.lines.append(line.rstrip("\n"))
        finally:
            deadline.cancel()


class EventStream:
    """A stream of events that a page has open."""

    def __init__(self, page: PageProcess, **parameters: Any) -> None:
        self._sock = socket.create_connection(("127.0.0.1", page.port), timeout=DEADLINE_S)
        target = f"/api/events?{urlencode(parameters, doseq=True)}"
        head = f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {page.token}\r\n\r\n"
        self._sock.sendall(head.encode())
        self._text = b""
        self.ended = False

    def next(self, name: str, within_s: float = DEADLINE_S, **fields: object) -> dict[str, Any]:
        """The next event of a kind, with these fields."""
        deadline = time.monotonic() + within_s
        while True:
            while (end := self._text.find(b"\n\n")) >= 0:
                event, self._text = self._text[:end], self._text[end + 2 :]
                lines = event.split(b"\n")
                kind = next((line[7:].decode() for line in lines if line.startswith(b"event: ")), "")
                said = next((json.loads(line[6:]) for line in lines if line.startswith(b"data: ")), {})
                if kind == name and fields.items() <= said.items():
                    return said
            assert time.monotonic() < deadline, f"no event {name} {fields} came"
            self._read(deadline - time.monotonic())

    def wait_for_end(self) -> None:
        while not self.ended:
            self._read(DEADLINE_S)

    def close(self) -> None:
        self._sock.close()

    def _read(self, timeout_s: float) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._sock, selectors.EVENT_READ)
            if selector.select(max(0.0, timeout_s)):
                try:
                    part = self._sock.recv(1 << 16)
                except ConnectionResetError:
                    part = b""
                self.ended = not part
                self._text += part.replace(b"\r\n", b"\n")
                assert part or not timeout_s or self.ended


def blocks_in(body: bytes) -> list[Block]:
    """Decode curves, as the reference says."""
    found, at = [], 0
    while at < len(body):
        (length,) = struct.unpack_from("<I", body, at)
        header = json.loads(body[at + 4 : at + 4 + length], parse_constant=_no_constant)
        at += 4 + length
        assert at % 8 == 0
        columns = {}
        for name, kind in header["columns"]:
            column = array(_TYPES[kind], body[at : at + header["rows"] * int(kind[1])])
            if sys.byteorder == "big":
                column.byteswap()
            columns[name] = list(column)
            at += header["rows"] * int(kind[1])
            at += -at % 8
        found.append(Block(header, columns))
    assert at == len(body)
    return found


@contextlib.contextmanager
def page_of(*words: object, **how: Any) -> Iterator[PageProcess]:
    """The page's server, which shows these places."""
    page = PageProcess("ui", *words, "--port", "0", **how)
    try:
        yield page
    finally:
        if page.process.poll() is None:
            page.end()


def rows_of(page: PageProcess) -> dict[str, dict[str, Any]]:
    """The rows of all runs by their keys, once each was looked at."""
    deadline = time.monotonic() + DEADLINE_S
    while not (answer := page.get("runs").json())["complete"]:
        assert time.monotonic() < deadline, answer
    return {row["run"]: row for row in answer["runs"]}


def listing_of(directory: Path) -> dict[str, tuple[int, int, int]]:
    """Each path below a directory, with its inode, size and time."""
    found = {}
    for path in sorted([directory, *directory.rglob("*")]):
        status = path.lstat()
        found[str(path)] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return found


def made_runs(directory: Path, values: Mapping[str, Sequence[dict[str, Any]]], **more: Any) -> None:
    """Runs that have ended, each with its records, by `project/id`."""
    for name, records in values.items():
        with JournaledRun(directory / name, config={"lr": 0.1, "model": {"layers": len(records)}}, **more) as run:
            for step, record in enumerate(records):
                run.log(record, step)
            run.journal()
            run.end_ring()
            run.end()
        say(directory / name)


def say(run: Path) -> None:
    """Write the `run.json` that the worker of a run would have left."""
    found = RunReader(run).manifest()
    with contextlib.closing(Reader(run / "journal")) as reader:
        for _ in reader:
            pass
        found.position = reader.position
    manifests.save(run, found)


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON")
