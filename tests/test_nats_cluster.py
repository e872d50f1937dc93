"""By NATS to three servers that keep each message three times: what a host does while one of them is killed, is away, or comes back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from merged_rings import make_part, rings_of
from nats_server import NATSCluster, debian_binary, nats_binary, nats_cluster
from nats_stream_reader import api, messages_of, stream_rings
from support import wait_until
from test_nats_carrier import carrying, delivering, growing, log
from test_nats_contract import collecting, is_merged, publishing

from asynctrack.backends.base import Retry
from asynctrack.carriers.nats.wire import STREAM
from asynctrack.carriers.publisher import JournalPublisher

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]
# Arbitrary: an election takes up to ten seconds.
ELECTION_S = 60.0


@pytest.fixture(params=[nats_binary, debian_binary], ids=["newest", "debian"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NATSCluster]:
    with nats_cluster(tmp_path / "nats", binary=request.param()) as found:
        yield found


def has_all(url: str, part: Path) -> bool:
    try:
        return stream_rings(url, part) == rings_of(part)
    except (Exception, AssertionError):  # no leader now
        return False


def count_of(url: str, part: Path) -> int:
    try:
        return len(messages_of(url, part))
    except Exception:  # no leader now, or no stream
        return 0


def test_stream_of_a_cluster_has_three_replicas(cluster: NATSCluster, tmp_path: Path) -> None:
    part = make_part(tmp_path, "a", rank=0)
    with delivering(part, cluster.url):
        wait_until(lambda: has_all(cluster.url, part), "the stream has all", ELECTION_S)
    assert api(cluster.url, f"STREAM.INFO.{STREAM}")["config"]["num_replicas"] == 3


def test_kills_of_leaders_lose_nothing_and_send_nothing_late(cluster: NATSCluster, tmp_path: Path) -> None:
    """Twice the server that leads the stream is killed, while the host sends, and started again."""
    with growing(tmp_path) as run:
        part = tmp_path / "p" / "r@a"
        log(run, 50)
        with delivering(part, cluster.url):
            wait_until(lambda: has_all(cluster.url, part), "the first comes", ELECTION_S)
            for turn in range(1, 3):
                leader = wait_until(lambda: cluster.leader_of(STREAM), "there is a leader", ELECTION_S)
                log(run, 100, 1000 * turn)
                leader.kill()
                log(run, 100, 1000 * turn + 100)
                wait_until(lambda: has_all(cluster.url, part), "two servers go on", ELECTION_S)
                leader.start()
                wait_until(lambda: cluster.leader_of(STREAM), "there is a leader", ELECTION_S)
    sent = [message.sent for message in messages_of(cluster.url, part)]
    assert [one.after for one in sent[1:] if one] == [one.upto for one in sent[:-1] if one]


def test_cluster_that_has_lost_two_servers_is_waited_for(cluster: NATSCluster, tmp_path: Path) -> None:
    part = make_part(tmp_path, "a", rank=0, batches=20)
    with carrying(cluster.url, part) as carrier:
        publisher = JournalPublisher(part / "journal", carrier, message_bytes=1)
        for _ in range(3):
            wait_until(lambda: _advance(publisher), "it is sent", ELECTION_S)
        lost = cluster.servers[:2]
        for server in lost:
            server.kill()
        with pytest.raises(Retry):
            _advance_until_it_fails(publisher)
        for server in lost:
            server.launch()
        for server in lost:
            server.wait_until_ready()
        while publisher.place is None or _more(publisher):
            with contextlib.suppress(Retry):
                publisher.advance()
        publisher.close()
    assert stream_rings(cluster.url, part) == rings_of(part)


def test_run_is_merged_whole_while_servers_of_the_cluster_come_and_go(cluster: NATSCluster, tmp_path: Path) -> None:
    merged = tmp_path / "out" / "p" / "r"
    with publishing(tmp_path / "parts", cluster.url), collecting(cluster.url, tmp_path / "out"):
        parts = [make_part(tmp_path / "parts", host, rank=rank, batches=200) for host, rank in (("a", 0), ("b", 2))]
        for server in cluster.servers[:2]:
            wait_until(lambda: cluster.leader_of(STREAM), "there is a leader", ELECTION_S)
            server.kill()
            server.start()
        wait_until(lambda: is_merged(merged, parts), "it is merged", ELECTION_S)


def _advance(publisher: JournalPublisher) -> bool:
    try:
        return publisher.advance() is not None
    except Retry:
        return False


def _advance_until_it_fails(publisher: JournalPublisher) -> None:
    for _ in range(5):
        publisher.advance()


def _more(publisher: JournalPublisher) -> bool:
    try:
        return publisher.advance() is not None
    except Retry:
        return True
