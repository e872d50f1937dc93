"""From hosts to the merged run by NATS: the carrier contract, with kills of the server, the collector and the publishers, and a run as users write it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from merged_rings import assert_merged, make_part
from nats_server import NATSServer, debian_binary, nats_binary, nats_serving
from nats_stream_reader import api
from support import outcome, own_shared_memory, start, wait_until

import asynctrack
from asynctrack.carriers.nats.identity import VARIABLES
from asynctrack.carriers.nats.wire import STREAM
from asynctrack.errors import AsynctrackError
from asynctrack.testing import CarrierContract, Carrying

HERE = Path(__file__).parent
# Arbitrary: far more than an end needs.
END_S = 30.0


@pytest.fixture(autouse=True)
def without_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def start_collector(url: str, out: Path, *options: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "asynctrack", "collect", url, "--dir", out, "--keep-free", "0", "--json", *options]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL)


def start_publishers(parts: Path, url: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, HERE / "carry_to_collector.py", parts, url])


def end(process: subprocess.Popen[bytes], number: int = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)
    process.wait(END_S)


@contextlib.contextmanager
def collecting(url: str, out: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    process = start_collector(url, out, *options)
    try:
        yield process
    finally:
        end(process)


@contextlib.contextmanager
def publishing(parts: Path, url: str) -> Iterator[subprocess.Popen[bytes]]:
    process = start_publishers(parts, url)
    try:
        yield process
    finally:
        end(process)


def is_merged(run: Path, parts: list[Path], status: str = "finished") -> bool:
    try:
        assert_merged(run, parts)
        return asynctrack.open_run(run).status == status
    except (AsynctrackError, AssertionError, OSError):
        return False


class _Carried:
    """A server, publishers and a collector of this directory; each call of it starts the same server again."""

    def __init__(self, server: NATSServer, parts: Path, out: Path) -> None:
        self._server = server
        server.start()
        self._processes = [start_collector(server.url, out), start_publishers(parts, server.url)]

    def kill(self) -> None:
        self._server.kill()
        for process in self._processes:
            end(process)

    def stop(self) -> None:
        for process in self._processes:
            end(process, signal.SIGTERM)
        self._server.stop()


@pytest.mark.system
class TestNATSCarrier(CarrierContract):
    limit_s = 60.0

    @pytest.fixture(autouse=True, params=[nats_binary, debian_binary], ids=["newest", "debian"])
    def server(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
        self._server = NATSServer(tmp_path / "nats", binary=request.param(), start=False)
        yield
        self._server.kill()

    def carry(self, parts: Path, out: Path) -> Carrying:
        return _Carried(self._server, parts, out)

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        super()._wait(lambda: self._server.is_there() and condition(), what)


# A stream and a disk that are lost


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NATSServer]:
    with nats_serving(tmp_path / "nats") as found:
        yield found


def parts_of(directory: Path, *, end: bool = True) -> list[Path]:
    return [make_part(directory, host, rank=rank, batches=20, end=end) for host, rank in (("a", 0), ("b", 2))]


@pytest.mark.system
def test_collector_that_has_lost_its_disk_gets_all_again(server: NATSServer, tmp_path: Path) -> None:
    """What it had merged is no longer in the stream: it asks the hosts for it, whose run goes on."""
    parts = parts_of(tmp_path / "parts", end=False)
    with publishing(tmp_path / "parts", server.url):
        with collecting(server.url, tmp_path / "one"):
            wait_until(lambda: is_merged(tmp_path / "one" / "p" / "r", parts, "running"), "it is merged", END_S)
            wait_until(lambda: messages_in(server) <= len(parts), "what is merged is purged", END_S)
        with collecting(server.url, tmp_path / "two"):
            wait_until(lambda: is_merged(tmp_path / "two" / "p" / "r", parts, "running"), "it is merged again", END_S)


def messages_in(server: NATSServer) -> int:
    found = api(server.url, f"STREAM.INFO.{STREAM}")["state"]["messages"]
    assert isinstance(found, int)
    return found


@pytest.mark.system
def test_stream_that_is_lost_while_all_go_on_costs_nothing(server: NATSServer, tmp_path: Path) -> None:
    parts = parts_of(tmp_path / "parts", end=False)
    with publishing(tmp_path / "parts", server.url):
        wait_until(lambda: messages_there(server) > 0, "something is in the stream", END_S)
        server.kill()
        server.restore(None)
        server.start()
        with collecting(server.url, tmp_path / "out"):
            wait_until(lambda: is_merged(tmp_path / "out" / "p" / "r", parts, "running"), "it is merged", END_S)


def messages_there(server: NATSServer) -> int:
    try:
        return messages_in(server)
    except Exception:  # no stream yet
        return 0


# As users write it


RANK = """
import json, os, sys, time
import asynctrack
run = asynctrack.init("p", id="job", dir=sys.argv[1], quiet=True)
for step in range(300):
    assert run.log({"loss": step / 2}, step)
    time.sleep(0.002)
run.log({"model": asynctrack.Artifact("m", path=sys.argv[2])})
stats = run.finish()
print(json.dumps({"path": str(run.path), "behind": stats.behind}))
"""


@pytest.mark.system
def test_two_machines_by_nats_are_one_run_with_their_files(server: NATSServer, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(os.urandom(3_000_000))
    with collecting(server.url, tmp_path / "out", "--backends", "jsonl"), own_shared_memory():
        ranks = [
            start(
                RANK,
                tmp_path / f"host{rank}",
                tmp_path / "model.pt",
                ASYNCTRACK_COLLECT=server.url,
                ASYNCTRACK_HOST=f"host{rank}",
                RANK=str(rank),
                WORLD_SIZE="2",
            )
            for rank in range(2)
        ]
        ended = [outcome(rank) for rank in ranks]
        assert [one["behind"] for one in ended] == [0, 0]
        parts = [Path(one["path"]) for one in ended]
        merged = tmp_path / "out" / "p" / "job"
        wait_until(lambda: is_merged(merged, parts), "it is merged", END_S)
        files = [path for path in (merged / "media").rglob("*") if path.is_file()]
        assert {path.read_bytes() for path in files} == {(tmp_path / "model.pt").read_bytes()}
        lines = merged / "metrics.jsonl"
        wait_until(lambda: lines.exists() and lines.read_text().count("\n") == 602, "it is delivered", END_S)
