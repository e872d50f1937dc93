"""Collecting by NATS: what hosts send to a stream is merged, each ring once, whoever is killed, stopped, set back or lost. Real servers and processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from collector_server import name_of
from merged_rings import assert_notes_merged, make_part, rings_of
from nats_collecting import bring, collecting, hosts, is_merged, wait_until_merged
from nats_server import NATSServer, debian_binary, free_ports, nats_binary, nats_cluster, nats_serving
from nats_stream_reader import api, messages_of, with_link
from support import ROOT, outcome, own_shared_memory, start, wait_until

from asynctrack import ActionRequired
from asynctrack.carriers.cutter import Cutter
from asynctrack.carriers.message import Place
from asynctrack.carriers.nats import wire as nats_wire
from asynctrack.carriers.nats.errors import JetStreamError
from asynctrack.carriers.nats.identity import PASSWORD_VARIABLE, USER_VARIABLE, VARIABLES
from asynctrack.carriers.nats.link import NATSLink
from asynctrack.carriers.nats.stream import stream_settings
from asynctrack.carriers.nats.wire import STREAM, WORDS_ROOT, WORDS_STREAM, Alive, Sent, Word, word_in
from asynctrack.errors import PartRefused
from asynctrack.journal import manifest as manifests
from asynctrack.journal.reader import journal_id_of
from asynctrack.merging.host_reports import load_reports
from asynctrack.merging.nats.buckets import last_of
from asynctrack.merging.nats.feed import Feed
from asynctrack.testing import JournaledRun


@pytest.fixture(autouse=True)
def without_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NATSServer]:
    with nats_serving(tmp_path / "nats") as found:
        yield found


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Where the merged run is that all of these tests have."""
    return tmp_path / "runs" / "p" / "r"


def parts_of(directory: Path, count: int = 2, **how: Any) -> list[Path]:
    return [make_part(directory / "parts", host, rank=2 * at, **how) for at, host in enumerate("abcdef"[:count])]


def growing(directory: Path, host: str = "a", rank: int = 0) -> JournaledRun:
    said = {"host": host, "pid": 1 + rank, "writer": f"rank{rank}", "rank": rank, "joins": True}
    return JournaledRun(directory / "parts" / "p" / f"r@{host}", run_id="r", environment=said)


def log(run: JournaledRun, count: int, begin: int = 0) -> None:
    for step in range(begin, begin + count):
        run.log({"loss": step / 2, "noise": secrets.token_hex(40)}, step)
        run.journal()


def word_of(url: str, part: Path) -> Word | None:
    """What the collector has said to a host last."""
    subject = f"{WORDS_ROOT}.{nats_wire.key_of(name_of(part))}"
    try:
        found = with_link(url, lambda link: last_of(link, WORDS_STREAM, subject))
    except JetStreamError:  # the collector has only begun
        return None
    return None if found is None else word_in(found[1])


def publish(url: str, subject: str, body: bytes, headers: dict[str, str] | None = None) -> None:
    """Have the stream keep something that no host has sent."""

    async def act(link: Any) -> None:
        link.answer_in((await link.ask(subject, body, headers)).data)

    with_link(url, act)


# What is merged


@pytest.mark.parametrize(
    "binary", [nats_binary, pytest.param(debian_binary, marks=pytest.mark.system)], ids=["2.15", "2.9"]
)
def test_parts_of_hosts_are_merged_byte_for_byte(tmp_path: Path, run: Path, binary: Any) -> None:
    parts = parts_of(tmp_path, 3)
    with nats_serving(tmp_path / "nats", binary=binary()) as server, collecting(server.url, run.parent.parent) as found:
        for part in parts:
            bring(server.url, part)
        wait_until_merged(run, parts)
        found.wait_for("ended", run=str(run), hosts=3)
        assert_notes_merged(run, parts)
        for part in parts:
            wait_until(lambda part=part: len(messages_of(server.url, part)) == 1, "only the cursor is kept")  # type: ignore[misc]
            wait_until(lambda part=part: word_of(server.url, part), "the host is told how far it is")  # type: ignore[misc]
    assert {one.host: one.status for one in manifests.load(run).hosts} == dict.fromkeys("abc", "finished")


def test_what_the_stream_has_kept_is_merged_by_a_collector_that_comes_later(
    server: NATSServer, tmp_path: Path, run: Path
) -> None:
    parts = parts_of(tmp_path)
    for part in parts:
        bring(server.url, part, message_bytes=1)
    with collecting(server.url, run.parent.parent):
        wait_until_merged(run, parts)


@pytest.mark.system
def test_collector_that_is_started_again_merges_nothing_twice(server: NATSServer, tmp_path: Path, run: Path) -> None:
    parts = parts_of(tmp_path)
    for messages in (1, 3):
        with collecting(server.url, run.parent.parent):
            for part in parts:
                bring(server.url, part, message_bytes=1, messages=messages)
            wait_until(lambda: (run / "hosts.json").exists(), "something is merged")
    with collecting(server.url, run.parent.parent) as collector:
        for part in parts:
            bring(server.url, part, message_bytes=1)
        wait_until_merged(run, parts)
        collector.wait_for("ended", run=str(run), hosts=2)  # its last note comes after the last ring
    assert_notes_merged(run, parts)


@pytest.mark.system
def test_message_in_parts_is_merged(tmp_path: Path, run: Path) -> None:
    with nats_serving(tmp_path / "nats", {"max_payload": 8192}) as server, growing(tmp_path) as host:
        host.log({"picture": secrets.token_hex(40_000)}, 0)
        host.journal()
        log(host, 5, 1)
        with collecting(server.url, run.parent.parent) as collector:
            bring(server.url, host.path)
            wait_until_merged(run, [host.path])
            collector.kill()
            log(host, 5, 6)
            bring(server.url, host.path)
        with collecting(server.url, run.parent.parent):
            wait_until_merged(run, [host.path])


def test_what_no_host_has_sent_harms_nobody(server: NATSServer, tmp_path: Path, run: Path) -> None:
    parts = parts_of(tmp_path)
    with collecting(server.url, run.parent.parent) as collector:
        bring(server.url, parts[0], message_bytes=1, messages=2)
        subject = nats_wire.subject_of(name_of(parts[0]))
        for _ in range(3):
            publish(server.url, subject, b"garbage")
        publish(server.url, subject.rpartition(".")[0] + ".=ff", b"garbage")
        bring(server.url, parts[1])
        wait_until_merged(run, parts[1:], lost=parts[:1])
        collector.wait_for("part", host="a")
        assert [event["host"] for event in collector.events if event["event"] == "part"] == ["a"]
        with pytest.raises(PartRefused, match="none that a host has sent"):
            bring(server.url, parts[0])
        api(server.url, f"STREAM.PURGE.{STREAM}", {"filter": subject})  # as the host's message asks for
        bring(server.url, parts[0])
        wait_until_merged(run, parts)


@pytest.mark.system
def test_message_that_is_too_large_pauses_its_host_with_a_word(server: NATSServer, tmp_path: Path, run: Path) -> None:
    parts = parts_of(tmp_path, 2)
    with growing(tmp_path / "large", "c", 4) as host:
        host.log({"picture": secrets.token_hex(40_000)}, 0)
        host.journal()
        with collecting(server.url, run.parent.parent, "--max-inflated", "20K", "--max-message", "20K") as collector:
            for part in (host.path, *parts):
                bring(server.url, part)
            wait_until_merged(run, parts)
            assert "20480" in collector.wait_for("part", host="c")["refused"]
            for _ in range(3):
                with pytest.raises(PartRefused, match="20480"):
                    bring(server.url, host.path)
            assert sum(event["event"] == "part" for event in collector.events) == 1
        with collecting(server.url, run.parent.parent) as collector:  # a person has mended it
            wait_until_merged(run, [*parts, host.path])
            wait_until(lambda: (word := word_of(server.url, host.path)) and word.refused is None, "the host goes on")
            bring(server.url, host.path)


def test_run_that_cannot_be_written_holds_up_no_other(server: NATSServer, tmp_path: Path, run: Path) -> None:
    part, other = make_part(tmp_path, "a", rank=0), make_part(tmp_path, "a", rank=0, run=_of_same_shard("r"))
    run.parent.mkdir(parents=True)
    run.write_text("in the way")
    with collecting(server.url, run.parent.parent) as collector:
        bring(server.url, part)
        bring(server.url, other)
        wait_until_merged(run.parent / other.name.partition("@")[0], [other])
        assert not run.is_dir()
        collector.wait_for("trouble", run=str(run))
        run.unlink()
        wait_until_merged(run, [part])


def _of_same_shard(run: str) -> str:
    return next(
        name for name in (f"{run}{at}" for at in range(10_000)) if nats_wire.shard_of(name) == nats_wire.shard_of(run)
    )


@pytest.mark.system
def test_run_that_is_removed_while_it_goes_on_is_brought_again(server: NATSServer, tmp_path: Path, run: Path) -> None:
    with growing(tmp_path) as host, collecting(server.url, run.parent.parent), hosts(tmp_path / "parts", server.url):
        log(host, 20)
        wait_until_merged(run, [host.path])
        wait_until(lambda: word_of(server.url, host.path), "the stream forgets what is merged")
        shutil.rmtree(run)
        log(host, 5, 20)
        wait_until_merged(run, [host.path])


def test_backends_are_behind_the_merged_run(server: NATSServer, tmp_path: Path, run: Path) -> None:
    parts = parts_of(tmp_path)
    with collecting(server.url, run.parent.parent, "--backends", "jsonl"):
        for part in parts:
            bring(server.url, part)
        lines = run / "files" / "metrics.jsonl"
        found = wait_until(
            lambda: [path for path in run.rglob("*.jsonl") if path.stat().st_size], "lines are delivered"
        )
        wait_until(
            lambda: sum(len(path.read_text().splitlines()) for path in found) >= 60, f"all records are in {lines}"
        )


@pytest.mark.system
def test_signs_of_life_keep_a_host_from_being_lost_and_tell_its_clock(
    server: NATSServer, tmp_path: Path, run: Path
) -> None:
    hour_ns = 3600 * 10**9
    with growing(tmp_path) as host, collecting(server.url, run.parent.parent, "--lost-after-s", 2) as collector:
        log(host, 3)
        bring(server.url, host.path)
        wait_until_merged(run, [host.path])
        journal = journal_id_of(str(host.path / "journal"))
        assert journal is not None

        async def live(link: Any) -> None:
            for _ in range(40):
                alive = Alive(time_ns=time.time_ns() - hour_ns, journal=journal.hex())
                subject = nats_wire.subject_of(name_of(host.path), nats_wire.ALIVE)
                await link.client.publish(subject, msgspec.json.encode(alive))
                await asyncio.sleep(0.15)

        with_link(server.url, live)  # three times as long as a host may be silent
        assert [one.status for one in manifests.load(run).hosts] == ["running"]
        collector.wait_for("host", host="a", status="lost")
        (found,) = manifests.load(run).hosts
        assert found.clock_offset_ns is not None
        assert abs(found.clock_offset_ns - hour_ns) < 10**9


@pytest.mark.system
def test_run_that_has_ended_and_was_removed_stays_removed(server: NATSServer, tmp_path: Path, run: Path) -> None:
    (part,) = parts_of(tmp_path, 1)
    with collecting(server.url, run.parent.parent):
        bring(server.url, part)
        wait_until_merged(run, [part])
        wait_until(lambda: word_of(server.url, part), "the collector has said that it has the part")
    shutil.rmtree(run)
    with collecting(server.url, run.parent.parent) as collector:
        other = make_part(tmp_path / "parts", "a", rank=0, run=_of_same_shard("r"))
        bring(server.url, other)
        wait_until_merged(run.parent / other.name.partition("@")[0], [other])
        assert collector.stop() == 0
    assert not run.exists()
    shutil.rmtree(run.parent.parent)  # a disk that was lost, instead
    with collecting(server.url, run.parent.parent):
        wait_until(
            lambda: (word := word_of(server.url, part)) and word.want == Place(), "the host is asked for all of it"
        )
        bring(server.url, part)
        wait_until_merged(run, [part])


@pytest.mark.system
@pytest.mark.parametrize("harm", ["left out", "damaged"])
def test_message_that_is_missing_or_damaged_is_asked_for_and_comes_again(
    server: NATSServer, tmp_path: Path, run: Path, harm: str
) -> None:
    parts = parts_of(tmp_path)
    with collecting(server.url, run.parent.parent) as collector:
        collector.has_shards(shards=64)
        with contextlib.closing(Cutter(parts[0] / "journal", Place())) as cutter:
            cuts = []
            while (cut := cutter.cut(1)) is not None:
                cuts.append(cut)
            for at, cut in enumerate(cuts):
                message = bytearray(cut.message)
                if at == 3 and harm == "left out":
                    continue
                if at == 3:
                    message[-1] ^= 1
                sent = Sent(cutter.journal_id, cut.after, cut.upto, time_ns=time.time_ns())
                publish(server.url, nats_wire.subject_of(name_of(parts[0])), message, nats_wire.headers_of(sent))
        bring(server.url, parts[1])
        wait_until_merged(run, parts[1:], lost=parts[:1])
        word = wait_until(
            lambda: (found := word_of(server.url, parts[0])) and found.want and found, "the host is asked"
        )
        assert (word.want, word.number) == (cuts[2].upto, 1)
        assert (word.missing is not None) == (harm == "damaged")
        with hosts(tmp_path / "parts", server.url):
            wait_until_merged(run, parts)
            collector.wait_for("ended", run=str(run), hosts=2)
        assert_notes_merged(run, parts)


@pytest.mark.system
def test_server_configuration_of_the_page_lets_hosts_and_collectors_do_what_they_must(
    tmp_path: Path, run: Path
) -> None:
    page = (ROOT / "docs" / "how_to" / "nats.md").read_text()
    begin = page.index("jetstream { store_dir")
    config = page[begin : page.index("```", begin)].replace("/var/lib/nats", str(tmp_path / "store"))
    config = "\n".join(line for line in config.splitlines() if not line.startswith("tls "))
    (port,) = free_ports(1)
    (tmp_path / "server.conf").write_text(f'listen: "127.0.0.1:{port}"\n{config}\n')
    passwords = {"HOST_PASSWORD": "of-the-host", "COLLECTOR_PASSWORD": "of-the-collector"}
    server = subprocess.Popen(
        [nats_binary(), "-c", tmp_path / "server.conf"], env={**os.environ, **passwords}, stderr=subprocess.DEVNULL
    )

    def as_user(user: str) -> dict[str, str]:
        return {USER_VARIABLE: user, PASSWORD_VARIABLE: f"of-the-{user}"}

    try:
        url, (part,) = f"nats://127.0.0.1:{port}", parts_of(tmp_path, 1)
        with collecting(url, run.parent.parent, environment=as_user("collector")) as collector:
            collector.has_shards(shards=64)
            with pytest.MonkeyPatch.context() as patch:
                for name, value in as_user("host").items():
                    patch.setenv(name, value)
                bring(url, part)
                wait_until_merged(run, [part])
                with pytest.raises(ActionRequired, match="does not let this user"):
                    api(url, f"STREAM.PURGE.{STREAM}")
            assert collector.stop() == 0
            assert collector.problems == []
    finally:
        server.kill()
        server.wait()


@pytest.mark.system
def test_file_that_was_logged_by_its_path_is_in_the_merged_run(server: NATSServer, tmp_path: Path, run: Path) -> None:
    content = os.urandom(3 << 20)  # more than a message takes
    (tmp_path / "model.pt").write_bytes(content)
    script = f"""
        import asynctrack
        run = asynctrack.init("p", id="r", dir={str(tmp_path / "host")!r}, collect={server.url!r}, backends=[])
        run.log_artifact({str(tmp_path / "model.pt")!r})
        run.log({{"loss": 1.0}})
        run.finish()
    """
    with collecting(server.url, run.parent.parent) as collector, own_shared_memory():
        outcome(start(textwrap.dedent(script)))
        collector.wait_for("ended", run=str(run))
    found = [path for path in (run / "media" / "artifacts").rglob("*") if path.is_file()]
    assert [path.read_bytes() for path in found] == [content]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("retention", "interest"),
        ("discard", "old"),
        ("max_age", 3_600_000_000_000),
        ("no_ack", True),
        ("max_msgs_per_subject", 1),
        ("subjects", ["asynctrack.v1.>"]),
    ],
)
def test_stream_with_settings_that_lose_messages_is_refused_with_a_word(
    server: NATSServer, tmp_path: Path, setting: str, value: Any
) -> None:
    api(server.url, f"STREAM.CREATE.{STREAM}", {**stream_settings(), setting: value})
    found = subprocess.run(
        [sys.executable, "-m", "asynctrack", "collect", server.url, "--dir", tmp_path / "runs"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert found.returncode == 2
    assert re.search(rf"{setting} (is|are) .*, expected ", found.stderr)


def test_refusals_of_the_command_say_what_to_do(tmp_path: Path) -> None:
    def said(*words: str) -> str:
        found = subprocess.run(
            [sys.executable, "-m", "asynctrack", "collect", *words],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=tmp_path,
        )
        assert found.returncode != 0
        return found.stderr

    assert "ASYNCTRACK_NATS_CREDS" in said("nats://user:secret@127.0.0.1")
    assert "secret" not in said("nats://user:secret@127.0.0.1")
    assert "NATS servers as nats://HOST" in said("NATS://127.0.0.1")
    assert "nats://" in said(str(tmp_path), "--backends", "csv")
    with nats_serving(tmp_path / "nats", {"jetstream": None}) as server:
        assert "--jetstream" in said(server.url)


# Whoever is killed, stopped, set back or lost


class Growing:
    """Hosts that log on and on, whose parts a process brings."""

    def __init__(self, directory: Path, url: str, count: int = 2) -> None:
        self.parts = [growing(directory, host, 2 * at) for at, host in enumerate("abcdef"[:count])]
        self.logged = 0
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(hosts(directory / "parts", url))

    def __enter__(self) -> Growing:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        for part in self.parts:
            part.close()

    def log(self, count: int = 20) -> None:
        for part in self.parts:
            log(part, count, self.logged)
        self.logged += count

    @property
    def paths(self) -> list[Path]:
        return [part.path for part in self.parts]


@pytest.mark.system
def test_collector_that_is_killed_again_and_again_loses_and_doubles_nothing(
    server: NATSServer, tmp_path: Path, run: Path
) -> None:
    with Growing(tmp_path, server.url) as found:
        for turn in range(6):
            found.log()
            with collecting(server.url, run.parent.parent) as collector:
                wait_until(lambda: (run / "hosts.json").exists(), "something is merged")
                found.log()
                time.sleep(0.1 * turn)  # a moment of the work: another in each turn
                collector.kill()
        with collecting(server.url, run.parent.parent):
            wait_until_merged(run, found.paths)


@pytest.mark.system
@pytest.mark.parametrize("binary", [nats_binary, debian_binary], ids=["2.15", "2.9"])
def test_server_that_is_killed_again_and_again_loses_and_doubles_nothing(
    tmp_path: Path, run: Path, binary: Any
) -> None:
    with (
        nats_serving(tmp_path / "nats", binary=binary()) as server,
        Growing(tmp_path, server.url) as found,
        collecting(server.url, run.parent.parent),
    ):
        for _ in range(4):
            found.log()
            server.kill()
            found.log()
            server.start()
            wait_until_merged(run, found.paths, 40.0)


@pytest.mark.system
def test_messages_that_are_purged_while_they_are_read_are_not_waited_for(server: NATSServer, tmp_path: Path) -> None:
    part = make_part(tmp_path, "a", rank=0)
    bring(server.url, part)
    subject = nats_wire.subject_of(name_of(part))

    async def read(link: NATSLink) -> int:
        feed = Feed(link, subject, 1)
        await feed.open()
        assert feed.pending > 0
        await link.api(f"STREAM.PURGE.{nats_wire.STREAM}")
        return len(await asyncio.wait_for(feed.all(), 20))

    assert with_link(server.url, read) == 0


@pytest.mark.system
def test_server_that_comes_back_with_an_empty_store_is_filled_again(
    server: NATSServer, tmp_path: Path, run: Path
) -> None:
    with Growing(tmp_path, server.url) as found, collecting(server.url, run.parent.parent):
        found.log()
        wait_until_merged(run, found.paths)
        server.kill()
        found.log()
        server.restore(None)
        server.start()
        wait_until_merged(run, found.paths, 40.0)


@pytest.mark.system
def test_server_that_comes_back_with_an_older_store_loses_and_doubles_nothing(
    server: NATSServer, tmp_path: Path, run: Path
) -> None:
    older = tmp_path / "older"
    with Growing(tmp_path, server.url) as found, collecting(server.url, run.parent.parent):
        found.log()
        wait_until_merged(run, found.paths)
        server.stop()
        server.save_store(older)
        server.start()
        for _ in range(3):
            found.log()
            wait_until_merged(run, found.paths, 40.0)
        server.kill()
        found.log()
        server.restore(older)
        server.start()
        wait_until_merged(run, found.paths, 40.0)


@pytest.mark.system
def test_consumers_that_somebody_deletes_are_made_again(server: NATSServer, tmp_path: Path, run: Path) -> None:
    with Growing(tmp_path, server.url) as found, collecting(server.url, run.parent.parent):
        for _ in range(3):
            found.log()
            wait_until_merged(run, found.paths, 40.0)
            for name in api(server.url, f"CONSUMER.NAMES.{STREAM}")["consumers"]:
                with contextlib.suppress(JetStreamError):  # one is gone by itself
                    api(server.url, f"CONSUMER.DELETE.{STREAM}.{name}")
        found.log()
        wait_until_merged(run, found.paths, 40.0)


@pytest.mark.system
def test_stream_that_somebody_deletes_is_made_again(server: NATSServer, tmp_path: Path, run: Path) -> None:
    with Growing(tmp_path, server.url) as found, collecting(server.url, run.parent.parent):
        found.log()
        wait_until_merged(run, found.paths)
        api(server.url, f"STREAM.DELETE.{STREAM}")
        found.log()
        wait_until_merged(run, found.paths, 40.0)


@pytest.mark.system
def test_collector_that_has_lost_its_disk_gets_everything_again(server: NATSServer, tmp_path: Path, run: Path) -> None:
    with Growing(tmp_path, server.url) as found:
        with collecting(server.url, run.parent.parent):
            found.log()
            wait_until_merged(run, found.paths)
            wait_until(lambda: all(word_of(server.url, path) for path in found.paths), "the stream forgets")
        shutil.rmtree(run.parent.parent)
        found.log()
        with collecting(server.url, run.parent.parent):
            wait_until_merged(run, found.paths, 40.0)
            found.log()
            wait_until_merged(run, found.paths, 40.0)


@pytest.mark.system
def test_stream_that_is_full_makes_hosts_wait_until_there_is_room(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASYNCTRACK_NATS_MAX_BYTES", "1M")
    with nats_serving(tmp_path / "nats") as server:
        with collecting(server.url, run.parent.parent) as collector:
            collector.has_shards(shards=64)
        with Growing(tmp_path, server.url, 1) as found:
            found.log(12_000)
            wait_until(
                lambda: api(server.url, f"STREAM.INFO.{STREAM}")["state"]["bytes"] > 500_000,
                "the stream is nearly full",
            )
            assert sum(map(len, rings_of(found.paths[0]).values())) > 1 << 20
            with collecting(server.url, run.parent.parent):
                wait_until_merged(run, found.paths, 60.0)


# Several collectors


@pytest.mark.system
def test_another_collector_takes_over_within_four_seconds(server: NATSServer, tmp_path: Path, run: Path) -> None:
    with Growing(tmp_path, server.url) as found, collecting(server.url, run.parent.parent) as first:
        first.has_shards(shards=64)
        found.log()
        wait_until_merged(run, found.paths)
        with collecting(server.url, run.parent.parent) as second:
            second.has_shards(collectors=2)
            first.kill()
            killed_at = time.monotonic()
            found.log()
            wait_until(
                lambda: (reports := load_reports(run)) is not None and reports.pid == second.process.pid,
                "the other merges the run",
            )
            assert time.monotonic() - killed_at < 4.0
            wait_until_merged(run, found.paths)


@pytest.mark.system
def test_backends_have_each_record_once_when_another_collector_of_the_directory_takes_over(
    server: NATSServer, tmp_path: Path, run: Path
) -> None:
    def lines() -> list[str]:
        return [line for path in run.rglob("*.jsonl") for line in path.read_text().splitlines() if '"loss"' in line]

    backends = ["--backends", "jsonl"]
    with Growing(tmp_path, server.url) as found, collecting(server.url, run.parent.parent, *backends) as first:
        first.has_shards(shards=64)
        found.log()
        wait_until(lambda: len(lines()) == 40, "the first delivers")
        with collecting(server.url, run.parent.parent, *backends) as second:
            second.has_shards(collectors=2)
            found.log()
            first.kill()
            found.log()
            wait_until_merged(run, found.paths)
            wait_until(lambda: len(lines()) >= 120, "the other delivers the rest")
    assert len(set(lines())) == len(lines()) == 120


@pytest.mark.system
def test_collector_that_was_stopped_past_its_lease_writes_nothing_after_it_goes_on(
    server: NATSServer, tmp_path: Path, run: Path
) -> None:
    theirs = tmp_path / "theirs" / "p" / "r"
    with Growing(tmp_path, server.url) as found, collecting(server.url, run.parent.parent) as first:
        first.has_shards(shards=64)
        found.log()
        wait_until_merged(run, found.paths)
        with collecting(server.url, theirs.parent.parent) as second:
            second.has_shards(collectors=2)
            first.pause()
            before = contents(run)
            found.log()
            wait_until_merged(theirs, found.paths, 40.0)  # the hosts send all of it again: it has another directory
            first.go_on()
            found.log()
            wait_until_merged(theirs, found.paths)
            first.wait_for("shards", shards=0)
            found.log()
            wait_until_merged(theirs, found.paths)
            assert contents(run) == before
            second.stop()
            found.log()
            wait_until_merged(run, found.paths, 40.0)  # it has its part still, and goes on from there


def contents(run: Path) -> dict[str, bytes]:
    """What a run's journal has, and what was said beside it."""
    return {
        path.name: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "collecting.json"
    }


@pytest.mark.system
def test_two_collectors_of_one_directory_share_the_runs(server: NATSServer, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with collecting(server.url, runs) as first:
        first.has_shards(shards=64)
        with collecting(server.url, runs) as second:
            second.has_shards(shards=32, collectors=2)
            first.has_shards(shards=32, collectors=2)
            parts = [make_part(tmp_path / "parts", "a", rank=0, run=f"r{at}") for at in range(24)]
            for part in parts:
                bring(server.url, part)
            for part in parts:
                wait_until_merged(runs / "p" / part.name.partition("@")[0], [part])
            pids = {
                reports.pid
                for part in parts
                if (reports := load_reports(runs / "p" / part.name.partition("@")[0])) is not None
            }
            assert pids == {first.process.pid, second.process.pid}
            assert first.stop() == 0
            second.has_shards(shards=64)


@pytest.mark.system
def test_run_that_has_ended_stays_where_it_was_merged_when_its_shard_goes_to_another_directory(
    server: NATSServer, tmp_path: Path, run: Path
) -> None:
    theirs = tmp_path / "theirs"
    parts = [make_part(tmp_path / "parts", "a", rank=0, run=f"r{at}") for at in range(12)]
    merged = [run.parent / part.name.partition("@")[0] for part in parts]
    with collecting(server.url, run.parent.parent):
        for part in parts:
            bring(server.url, part, message_bytes=1 << 20)  # all of it is in the last message
        for path, part in zip(merged, parts, strict=True):
            wait_until_merged(path, [part])
        wait_until(lambda: all(word_of(server.url, part) for part in parts), "the collector has said that it has them")
    with collecting(server.url, run.parent.parent) as first:  # which has no run open
        first.has_shards(shards=64)
        with collecting(server.url, theirs) as second:
            second.has_shards(shards=32)
            late = make_part(tmp_path / "parts", "a", rank=0, run="late")
            bring(server.url, late)
            places = [theirs / "p" / "late", run.parent / "late"]
            wait_until(lambda: any(is_merged(place, [late]) for place in places), "it is merged in one of them")
            assert second.stop() == 0
            assert set(theirs.glob("p/*")) <= {places[0]}


@pytest.mark.system
def test_stopped_collector_of_the_same_directory_is_waited_for_until_its_lock_is_free(
    server: NATSServer, tmp_path: Path, run: Path
) -> None:
    with Growing(tmp_path, server.url) as found, collecting(server.url, run.parent.parent) as first:
        first.has_shards(shards=64)
        found.log()
        wait_until_merged(run, found.paths)
        with collecting(server.url, run.parent.parent) as second:
            second.has_shards(collectors=2)
            first.pause()
            second.has_shards(shards=64)
            found.log()
            second.wait_for("trouble", run=str(run))
            first.go_on()
            wait_until_merged(run, found.paths)


@pytest.mark.system
def test_cluster_of_three_loses_and_doubles_nothing_when_each_of_its_servers_is_killed(
    tmp_path: Path, run: Path
) -> None:
    with (
        nats_cluster(tmp_path / "nats") as cluster,
        Growing(tmp_path, cluster.url) as found,
        collecting(cluster.url, run.parent.parent),
    ):
        found.log()
        wait_until_merged(run, found.paths, 60.0)
        assert api(cluster.url, f"STREAM.INFO.{STREAM}")["config"]["num_replicas"] == 3
        for server in cluster.servers:
            server.kill()
            found.log()
            wait_until_merged(run, found.paths, 60.0)
            server.start()
        found.log()
        wait_until_merged(run, found.paths, 60.0)


@pytest.mark.system
def test_a_thousand_runs_share_one_stream(server: NATSServer, tmp_path: Path) -> None:
    """More than the collector has shards."""
    runs, many = tmp_path / "runs", 1000
    parts = [make_part(tmp_path / "parts", "a", rank=0, batches=2, run=f"r{at}") for at in range(many)]
    began_at = time.monotonic()
    with collecting(server.url, runs):
        bring_at_once(server.url, parts)
        for part in parts:
            wait_until_merged(runs / "p" / part.name.partition("@")[0], [part], 60.0)
    took_s = time.monotonic() - began_at
    assert took_s < 120


def bring_at_once(url: str, parts: list[Path]) -> None:
    """Bring many parts, eight at a time."""
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda part: bring(url, part, message_bytes=1000), parts))
