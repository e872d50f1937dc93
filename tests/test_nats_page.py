"""The configurations of a NATS server that the page shows: a server that has exactly that lets hosts and collectors do what they need, and nobody do more."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from collector_server import certificate, name_of
from merged_rings import assert_merged, make_part
from nats_collecting import bring, collecting, wait_until_merged
from nats_server import NATSServer
from nats_stream_reader import with_link
from support import wait_until

import asynctrack
from asynctrack.backends.base import ActionRequired
from asynctrack.carriers.nats import wire as nats_wire
from asynctrack.carriers.nats.errors import Denied
from asynctrack.carriers.nats.link import NATSLink
from asynctrack.carriers.nats.wire import STREAM, WORDS_ROOT, WORDS_STREAM, Word
from asynctrack.errors import AsynctrackError
from asynctrack.journal import manifest as manifests

__all__ = ["certificate"]

PAGE = Path(__file__).parent.parent / "docs" / "how_to" / "nats.md"

pytestmark = [pytest.mark.system, pytest.mark.timeout(90)]

Act = Callable[[NATSLink], Awaitable[Any]]


def configurations() -> list[str]:
    """The server configurations of the page."""
    return [block for block in blocks("text") if block.startswith("jetstream {")]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


class Served:
    """A server with a configuration of the page.

    Attributes:
        url: of it.
        passwords: that its environment has, by the users' names.
    """

    def __init__(
        self, directory: Path, text: str, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self._monkeypatch = monkeypatch
        variables = re.findall(r"user: ([a-z-]+), password: \$(\w+)", text)
        self.passwords = {user: f"of-{user}-{secrets.token_hex(8)}" for user, _ in variables}
        for user, variable in variables:
            monkeypatch.setenv(variable, self.passwords[user])
        places = {"/var/lib/nats": str(directory / "store"), "/etc/nats/cert.pem": str(certificate[0])}
        for shown, here in {**places, "/etc/nats/key.pem": str(certificate[1])}.items():
            assert shown in text
            text = text.replace(shown, here)
        monkeypatch.setenv("ASYNCTRACK_NATS_CA", str(certificate[0]))
        self.server = NATSServer(directory, {"jetstream": None}, more=text)
        self.url = f"tls://127.0.0.1:{self.server.port}"

    def become(self, user: str) -> None:
        """Have what follows come from a user."""
        for name, value in self.identity(user).items():
            self._monkeypatch.setenv(name, value)

    def identity(self, user: str) -> Mapping[str, str]:
        return {"ASYNCTRACK_NATS_USER": user, "ASYNCTRACK_NATS_PASSWORD": self.passwords[user]}

    def is_denied(self, act: Act) -> bool:
        """Whether the server does not let the user do something."""
        try:
            with_link(self.url, act)
        except (Denied, ActionRequired) as error:
            return "does not let this user" in str(error)
        return False


@pytest.fixture
def serve(
    tmp_path: Path, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Served]]:
    with contextlib.ExitStack() as stack:

        def start(text: str) -> Served:
            served = Served(tmp_path / "nats", text, certificate, monkeypatch)
            stack.callback(served.server.kill)
            return served

        yield start


def test_page_shows_a_server_for_one_group_and_one_for_several() -> None:
    assert ["accounts {" in text for text in configurations()] == [False, True]


def test_hosts_and_collector_do_what_they_need_with_the_configuration_of_the_page(
    serve: Callable[[str], Served], tmp_path: Path
) -> None:
    served, run = serve(configurations()[0]), tmp_path / "merged" / "p" / "r"
    parts = [make_part(tmp_path, host, rank=rank) for rank, host in enumerate("ab")]
    with collecting(served.url, tmp_path / "merged", environment=served.identity("collector")) as collector:
        collector.has_shards(shards=64)  # the streams are made
        served.become("host")
        for part in parts:
            bring(served.url, part)
        wait_until_merged(run, parts)
        collector.wait_for("ended", run=str(run), hosts=2)
    assert "iolation" not in served.server.log()


def test_host_that_is_not_what_it_should_be_harms_nobody_else_with_that_configuration(
    serve: Callable[[str], Served], tmp_path: Path
) -> None:
    served, part = serve(configurations()[0]), make_part(tmp_path, "a", rank=0)
    with collecting(served.url, tmp_path / "merged", environment=served.identity("collector")) as collector:
        collector.has_shards(shards=64)
    served.become("host")
    bring(served.url, part)
    word = msgspec.json.encode(Word(journal="00" * 16, refused="I say so"))
    consumer = {"stream_name": STREAM, "config": {"deliver_policy": "all", "ack_policy": "none"}}
    for act in (
        lambda link: link.api(f"STREAM.PURGE.{STREAM}"),
        lambda link: link.api(f"STREAM.DELETE.{STREAM}"),
        lambda link: link.api("STREAM.CREATE.MINE", {"name": "MINE", "subjects": ["mine.>"]}),
        lambda link: link.api(f"CONSUMER.CREATE.{STREAM}", consumer),
        lambda link: link.api(f"STREAM.PURGE.{WORDS_STREAM}"),
        lambda link: link.ask(f"{WORDS_ROOT}.{nats_wire.key_of(name_of(part))}", word),
        lambda link: link.ask("$KV.ASYNCTRACK_V1_LEASES.00", b"me"),
    ):
        assert served.is_denied(act)
    served.become("collector")
    assert served.is_denied(lambda link: link.ask(nats_wire.subject_of(name_of(part)), b"made up"))


def test_nobody_without_a_password_and_nobody_without_tls_comes_in_with_that_configuration(
    serve: Callable[[str], Served], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, part = serve(configurations()[0]), make_part(tmp_path, "a", rank=0)
    with pytest.raises(ActionRequired, match="does not let this user in"):
        bring(served.url, part)
    served.become("host")
    monkeypatch.setenv("ASYNCTRACK_NATS_PASSWORD", "a guess")
    with pytest.raises(ActionRequired, match="does not let this user in"):
        bring(served.url, part)


def test_groups_with_accounts_of_their_own_do_not_see_each_other(
    serve: Callable[[str], Served], tmp_path: Path
) -> None:
    served = serve(configurations()[1])
    groups = sorted({user.rpartition("-")[0] for user in served.passwords})
    assert len(groups) == 2
    with contextlib.ExitStack() as stack:
        merged = {}
        for group in groups:  # hosts, runs and parts of one name
            part = make_part(tmp_path / group, "a", rank=0)
            merged[tmp_path / "merged" / group / "p" / "r"] = part
            how = served.identity(f"{group}-collector")
            collector = stack.enter_context(collecting(served.url, tmp_path / "merged" / group, environment=how))
            collector.has_shards(shards=64, collectors=1)
            served.become(f"{group}-host")
            bring(served.url, part)
        for run, part in merged.items():
            wait_until_merged(run, [part])
    for run, part in merged.items():
        assert_merged(run, [part])
    assert "iolation" not in served.server.log()


class Manifest:
    """The manifest for Kubernetes, whose containers run here as processes.

    Args:
        directory: for what they write.
    """

    def __init__(self, directory: Path) -> None:
        (text,) = blocks("yaml")
        self._directory = directory
        self.objects = {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(text)}
        self._secrets = {"host": f"h{secrets.token_hex(8)}", "collector": f"c{secrets.token_hex(8)}"}
        self._places = {"pip install -q 'asynctrack[nats]'": ":", "/runs": str(directory / "runs")}

    def server(self, monkeypatch: pytest.MonkeyPatch) -> NATSServer:
        """Start what the set `nats` starts."""
        for name, value in self._environment(self._container("StatefulSet", "nats"), "nats-0", 0).items():
            monkeypatch.setenv(name, value)
        text = self.objects["ConfigMap", "nats"]["data"]["server.conf"]
        assert "http_port: 8222" in text
        assert "store_dir: /data," in text
        text = text.replace("http_port: 8222", "").replace("/data,", f"{self._directory / 'data'},")
        server = NATSServer(self._directory / "nats", {"jetstream": None}, more=text)
        (port,) = self.objects["Service", "nats"]["spec"]["ports"]
        self._places[f"nats://nats:{port['port']}"] = server.url
        return server

    def pods(self, kind: str, name: str) -> list[subprocess.Popen[bytes]]:
        """Start the pods of a set or a job."""
        spec, container = self.objects[kind, name]["spec"], self._container(kind, name)
        return [
            self._start(container, f"{name}-{index}", index)
            for index in range(spec.get("replicas") or spec["completions"])
        ]

    def _container(self, kind: str, name: str) -> dict[str, Any]:
        (found,) = self.objects[kind, name]["spec"]["template"]["spec"]["containers"]
        return found

    def _start(self, container: dict[str, Any], pod: str, index: int) -> subprocess.Popen[bytes]:
        home = self._directory / pod
        (home / "memory").mkdir(parents=True, mode=0o700)
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "ASYNCTRACK_SHM": str(home / "memory"),
            **self._environment(container, pod, index),
        }
        command = [self._here(word) for word in [*container["command"], *container["args"]]]
        with (home / "said").open("wb") as said:
            return subprocess.Popen(command, env=environment, cwd=home, stdout=said, stderr=said)

    def _environment(self, container: dict[str, Any], pod: str, index: int) -> dict[str, str]:
        return {one["name"]: self._value(one, pod, index) for one in container["env"]}

    def _value(self, one: dict[str, Any], pod: str, index: int) -> str:
        if "value" in one:
            return self._here(one["value"])
        if "secretKeyRef" in one["valueFrom"]:
            return self._secrets[one["valueFrom"]["secretKeyRef"]["key"]]
        path = one["valueFrom"]["fieldRef"]["fieldPath"]
        known = {
            "metadata.name": pod,
            "metadata.annotations['batch.kubernetes.io/job-completion-index']": str(index),
        }
        return known[path]

    def _here(self, text: str) -> str:
        for there, here in self._places.items():
            text = text.replace(there, here)
        return text


def test_manifest_for_kubernetes_has_four_pods_record_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, run = Manifest(tmp_path), tmp_path / "runs" / "demo" / "training"

    def has_ended() -> bool:
        with contextlib.suppress(AsynctrackError, OSError):
            found = manifests.load(run)
            return found.status == "finished" and [one.status for one in found.hosts] == ["finished"] * 4
        return False

    started: list[subprocess.Popen[bytes]] = []
    server = manifest.server(monkeypatch)
    try:
        (collector,) = manifest.pods("StatefulSet", "asynctrack-collector")
        started.append(collector)
        ranks = manifest.pods("Job", "training")
        started += ranks
        assert [rank.wait(60) for rank in ranks] == [0] * 4
        wait_until(has_ended, "the run of four hosts has ended", 30)
        collector.send_signal(signal.SIGTERM)
        assert collector.wait(30) == 0
    finally:
        for process in started:
            process.kill()
            process.wait()
        server.kill()
    records = list(asynctrack.open_run(run).records())
    assert sorted(record.step for record in records) == sorted([*range(1000)] * 4)
    assert {record.writer for record in records} == {f"rank{rank}" for rank in range(4)}
