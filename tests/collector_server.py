"""A collector that listens, in a process of its own, and what a host does with it: so plain that a reader of `carriers.wire` could have written it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from asynctrack.carriers import wire
from asynctrack.carriers.message import Place
from asynctrack.carriers.publisher import JournalPublisher
from asynctrack.carriers.wire import PartName
from asynctrack.errors import PartIncomplete, PartRefused

# Arbitrary: far more than anything waited for here needs.
DEADLINE_S = 30.0


class CollectorCommand:
    """A command that collects until it is ended, with what it says.

    Attributes:
        directory: for the merged runs.
        events: what it has said.
        problems: the lines that it has written to stderr.
    """

    def __init__(self, directory: Path, *words: object, environment: Mapping[str, str] | None = None) -> None:
        first, *others = words  # which may say something else of the disk
        words = (first, "--dir", directory, "--keep-free", "0", "--json", *others)
        self.directory = directory
        self.events: list[dict[str, Any]] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "asynctrack", *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self.problems: list[str] = []
        self._threads = [
            threading.Thread(target=self._read, args=(self.process.stdout, self._lines.put)),
            threading.Thread(target=self._read, args=(self.process.stderr, self.problems.append)),
        ]
        for thread in self._threads:
            thread.start()

    def wait_for(self, event: str, **fields: object) -> dict[str, Any]:
        """The first event of a kind, with these fields, that it says from now on, or has said already."""
        at, deadline = 0, time.monotonic() + DEADLINE_S
        while True:
            for said in self.events[at:]:
                if said["event"] == event and fields.items() <= said.items():
                    return said
            at = len(self.events)
            while True:
                assert time.monotonic() < deadline, (
                    f"the collector did not say {event} {fields}: {self.events} {self.problems}"
                )
                assert self.process.poll() is None or not self._lines.empty(), (
                    f"the collector has ended: {self.problems}"
                )
                with contextlib.suppress(queue.Empty):
                    self.events.append(json.loads(self._lines.get(timeout=0.1)))
                    break

    def kill(self) -> None:
        self.process.kill()
        self._wait()

    def stop(self) -> int:
        """End it as Slurm does; its exit code."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        return self._wait()

    def _wait(self) -> int:
        code = self.process.wait(timeout=DEADLINE_S)
        for thread in self._threads:
            thread.join(DEADLINE_S)
        return code

    @staticmethod
    def _read(stream: Any, take: Any) -> None:
        with stream:
            for line in stream:
                take(line)


class CollectorProcess(CollectorCommand):
    """`asynctrack serve`.

    Attributes:
        url: where it listens.
    """

    def __init__(
        self, directory: Path, *options: object, port: int = 0, environment: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(directory, "serve", "--listen", f"127.0.0.1:{port}", *options, environment=environment)
        try:
            self.url: str = self.wait_for("listening")["url"]
        except AssertionError:
            self.kill()
            raise

    @property
    def port(self) -> int:
        return int(urlsplit(self.url).port or 0)


@contextlib.contextmanager
def serving(directory: Path, *options: object, **how: Any) -> Iterator[CollectorProcess]:
    collector = CollectorProcess(directory, *options, **how)
    try:
        yield collector
    finally:
        if collector.process.poll() is None:
            collector.stop()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for this machine that nobody has signed, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes a certificate, is not installed")
    directory = tmp_path_factory.mktemp("certificate")
    found = directory / "cert.pem", directory / "key.pem"
    words = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*words, *names, "-out", found[0], "-keyout", found[1]], check=True, capture_output=True, timeout=60)
    return found


class Answer(msgspec.Struct, frozen=True):
    """What a collector has answered."""

    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def code(self) -> str:
        found = wire.refusal_in(self.body)
        assert found is not None, self.body
        return found.code

    @property
    def error(self) -> str:
        found = wire.refusal_in(self.body)
        assert found is not None, self.body
        return found.error


def ask(url: str, method: str, target: str, body: bytes = b"", token: str | None = None, **headers: str) -> Answer:
    """Send a request, and return what comes."""
    found = urlsplit(url)
    sent = {wire.TIME_HEADER: str(time.time_ns()), **{name.replace("_", "-"): value for name, value in headers.items()}}
    if token is not None:
        sent["Authorization"] = f"{wire.TOKEN_SCHEME} {token}"
    connection = http.client.HTTPConnection(str(found.hostname), found.port, timeout=DEADLINE_S)
    with contextlib.closing(connection):
        connection.request(method, target, body or None, sent)
        answer = connection.getresponse()
        return Answer(answer.status, answer.read(), dict(answer.headers.items()))


def post_target(name: PartName, after: Place, upto: Place) -> str:
    return f"{wire.path_of(name)}?{wire.AFTER}={wire.place_text(after)}&{wire.UPTO}={wire.place_text(upto)}"


class PlainCarrier:
    """The way from a journal to a collector."""

    def __init__(self, url: str, name: PartName, token: str | None = None) -> None:
        self._url = url
        self._name = name
        self._token = token

    def locate(self, journal: bytes) -> Place:
        answer = ask(self._url, "GET", f"{wire.path_of(self._name)}?{wire.JOURNAL}={journal.hex()}", token=self._token)
        self._check(answer)
        return msgspec.json.decode(answer.body, type=Place)

    def send(self, after: Place, upto: Place, message: bytes) -> None:
        self._check(ask(self._url, "POST", post_target(self._name, after, upto), message, self._token))

    def _check(self, answer: Answer) -> None:
        if answer.status in (200, 204):
            return
        refusal = wire.refusal_in(answer.body)
        assert refusal is not None, answer
        if refusal.code == "incomplete":
            raise PartIncomplete(self._name.run, self._name.host, refusal.error, refusal.ring, refusal.seen)
        if refusal.code in ("not_now", "disk_full"):
            raise OSError(refusal.error)
        raise PartRefused(self._name.run, self._name.host, f"{refusal.code}: {refusal.error}")


def name_of(part: Path) -> PartName:
    run, _, host = part.name.rpartition("@")
    return PartName(part.parent.name, run, host)


def bring(
    url: str, part: Path, *, token: str | None = None, messages: int = 1 << 30, message_bytes: int = 1000
) -> None:
    """Bring what a collector lacks of a part."""
    carrier = PlainCarrier(url, name_of(part), token)
    publisher = JournalPublisher(part / "journal", carrier, message_bytes=message_bytes)
    with contextlib.closing(publisher):
        while messages and publisher.advance():
            messages -= 1


def file_of_tokens(directory: Path, *lines: str) -> Path:
    """A file of tokens, which nobody else may read."""
    path = directory / "tokens"
    path.touch(0o600)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CollectorProcess]:
    """One that takes all, for tests that use a project each."""
    with serving(tmp_path_factory.mktemp("collector") / "runs") as found:
        yield found


@pytest.fixture
def project(request: pytest.FixtureRequest) -> str:
    """The project of a test."""
    return f"mine{zlib.crc32(request.node.name.encode()):08x}"
