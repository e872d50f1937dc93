"""The place where one figure of a peer is measured: a directory, a server, and a group of processes that all end with it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench import mounts, wandb_server
from bench.peers.calls import Calls, calls
from bench.peers.measure import CALLS, RESULT
from bench.peers.peer import Peer, server_environment
from bench.wandb_server import KEY, Server

ROOT: Final = Path(__file__).parent.parent.parent
# The longest that one process may take, its `finish()` after a disturbance, and a server until it answers.
LIMIT_S: Final = 120.0
FINISH_S: Final = 30.0
_SERVER_S: Final = 30.0
# Of a peer's own file system: none writes a third of it in four seconds.
_DISK_BYTES: Final = 64 << 20
_GROUPS: Final = Path("/sys/fs/cgroup/cpuacct")
_MARK: Final = "BENCH_SCENE"
# Nobody reports to anybody, and every library computes with one thread.
_QUIET: Final = {
    "DO_NOT_TRACK": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "WANDB_ERROR_REPORTING": "false", "DVC_NO_ANALYTICS": "true",
    "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "WANDB_API_KEY": KEY, "TRACKIO_WRITE_TOKEN": KEY,
    "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT),
}  # fmt: skip
_ASK: Final = b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"


class Failed(Exception):
    """A figure that could not be measured, and why."""


class Scene(NamedTuple):
    """A peer's place.

    Attributes:
        peer: the peer that is measured.
        scratch: its processes' working directory.
        data: the directory in which it is opened; a small file system of its own where a disk is to be full.
        server: that it logs to, or None.
        environment: of its processes.
        group: their control group, or None.
    """

    peer: Peer
    scratch: Path
    data: Path
    server: Server | None
    environment: dict[str, str]
    group: Path | None

    @contextmanager
    def start(self, what: str) -> Iterator[subprocess.Popen[bytes]]:
        """Start a process of `bench.peers.measure`, killed at the end if it goes on."""
        command = [sys.executable, "-m", "bench.peers.measure", what, self.peer.name, str(self.data)]
        with (
            (self.scratch / "said").open("ab") as said,
            subprocess.Popen(
                command, env=self.environment, cwd=self.scratch, stdout=said, stderr=said, stdin=subprocess.DEVNULL,
                start_new_session=True,
            ) as child,
        ):  # fmt: skip
            try:
                yield child
            finally:
                child.kill()

    def run(self, what: str) -> Any:
        """Run such a process, and return what it finds."""
        with self.start(what) as child:
            try:
                child.wait(LIMIT_S)
            except subprocess.TimeoutExpired:
                raise Failed(f"not done after {LIMIT_S:g} s") from None
        return self.result()

    def result(self) -> Any:
        """Return what the last process has found."""
        path = self.scratch / RESULT
        try:
            found = json.loads(path.read_bytes())
        except OSError:
            raise Failed(self._last_words()) from None
        path.unlink()
        return found

    @contextmanager
    def logging(self, rate: int) -> Iterator[tuple[subprocess.Popen[bytes], Calls]]:
        """Start a process that logs at a rate; yield it when it has begun, and its calls."""
        with calls(self.scratch / CALLS) as made, self.start(str(rate)) as child:
            deadline = time.monotonic() + LIMIT_S
            while not made.ready:
                if child.poll() is not None or time.monotonic() > deadline:
                    raise Failed(f"it did not begin: {self._last_words()}")
                time.sleep(0.005)
            yield child, made

    def rest(self) -> None:
        """Let the peer's processes end, or go on for as long as they may."""
        deadline = time.monotonic() + self.peer.goes_on_s
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.02)

    def processes(self) -> list[int]:
        """Return the pids of all processes that were started for the peer, by whatever process."""
        if self.group is not None:
            return [int(pid) for pid in (self.group / "cgroup.procs").read_text().split()]
        mark, found = f"{_MARK}={self.environment[_MARK]}".encode(), []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if mark in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
        return found

    def clear(self) -> None:
        """Kill the processes that are left."""
        for _ in range(100):
            if not (left := self.processes()):
                return
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)

    def _last_words(self) -> str:
        said = (self.scratch / "said").read_text(errors="replace").strip().splitlines()
        return said[-1][:200] if said else "it said nothing"


@contextmanager
def scene(peer: Peer, own_disk: bool = False) -> Iterator[Scene]:
    """Make a place for one figure; with `own_disk` its data lie on a small file system in memory."""
    with tempfile.TemporaryDirectory(prefix="asynctrack-peers-", ignore_cleanup_errors=True) as directory:
        scratch = Path(directory)
        data, home = scratch / "data", scratch / "server"
        data.mkdir()
        home.mkdir()
        with (
            mounts.memory(_DISK_BYTES) if own_disk else nullcontext(data) as place,
            _server(peer.server, home) as server,
            _group() as group,
        ):
            environment = {**os.environ, **_QUIET, _MARK: directory}
            if server is not None:
                environment |= server_environment(server.url, home)
            if group is not None:
                environment["BENCH_CGROUP"] = str(group)
            found = Scene(peer, scratch, place, server, environment, group)
            try:
                yield found
            finally:
                found.clear()


@contextmanager
def _group() -> Iterator[Path | None]:
    """Make a control group where that is possible: it counts the processor time of all that is started in it."""
    group = _GROUPS / f"asynctrack-bench-{os.getpid()}-{time.monotonic_ns()}"
    try:
        group.mkdir()
    except OSError:
        yield None
        return
    try:
        yield group
    finally:
        for _ in range(100):
            try:
                group.rmdir()
                break
            except OSError:
                time.sleep(0.05)


@contextmanager
def _server(kind: str, home: Path) -> Iterator[Server | None]:
    if not kind:
        yield None
    elif kind == "wandb":
        with wandb_server.server() as server:
            yield server
    else:
        with socket.create_server(("127.0.0.1", 0)) as held:
            port = held.getsockname()[1]
        command, settings = {"mlflow": _mlflow, "trackio": _trackio}[kind](port, home)
        with _started([sys.executable, "-m", *command], settings, port, home) as server:
            yield server


def _mlflow(port: int, home: Path) -> tuple[list[str], dict[str, str]]:
    store = ["--backend-store-uri", f"sqlite:///{home}/mlflow.db", "--artifacts-destination", f"{home}/artifacts"]
    return ["mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", *store], {}


def _trackio(port: int, home: Path) -> tuple[list[str], dict[str, str]]:
    settings = {"GRADIO_SERVER_PORT": str(port), "BROWSER": "true", "TRACKIO_DIR": str(home)}
    return ["trackio.cli", "show", "--host", "127.0.0.1"], settings


@contextmanager
def _started(command: list[str], settings: dict[str, str], port: int, home: Path) -> Iterator[Server]:
    with subprocess.Popen(
        command, env={**os.environ, **_QUIET, **settings}, cwd=home, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    ) as process:  # fmt: skip
        server = Server(f"http://127.0.0.1:{port}", process.pid)
        try:
            deadline = time.monotonic() + _SERVER_S
            while not _answers(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise Failed(f"its server did not answer in {_SERVER_S:g} s")
                time.sleep(0.1)
            yield server
        finally:
            with suppress(ProcessLookupError):
                server.signal(signal.SIGKILL)


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(_ASK)
        return connection.recv(100).startswith(b"HTTP/1.1 ")
    return False
