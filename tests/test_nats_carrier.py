"""By NATS: hosts that have a stream keep their parts of a run, and what they do while a server is away, full, set back, or does not let them in. Real servers."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from collector_server import name_of, serving
from merged_rings import make_part, rings_of
from nats_accounts import make_accounts
from nats_collecting import collecting, wait_until_merged
from nats_server import NATSServer, debian_binary, nats_binary, nats_serving
from nats_stream_reader import api, file_bridge, messages_of, purge, say, stream_rings, with_link
from support import outcome, own_shared_memory, start, wait_until

import asynctrack
from asynctrack import ActionRequired, Retry
from asynctrack.backends.collector import Collector
from asynctrack.carriers.message import Place
from asynctrack.carriers.nats import wire as nats_wire
from asynctrack.carriers.nats.carrier import NATSCarrier
from asynctrack.carriers.nats.identity import VARIABLES
from asynctrack.carriers.nats.stream import stream_settings
from asynctrack.carriers.nats.wire import STREAM, Missing, Word
from asynctrack.carriers.publisher import JournalPublisher
from asynctrack.errors import InvalidSettings, PartIncomplete, PartRefused
from asynctrack.journal.cursor import Cursor, load_cursor
from asynctrack.journal.reader import journal_id_of
from asynctrack.testing import JournaledRun, deliver

HERE = Path(__file__).parent
NOBODY = "nats://127.0.0.1:1"


@pytest.fixture(autouse=True)
def without_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(
    params=[pytest.param(binary, marks=pytest.mark.system) for binary in (nats_binary, debian_binary)],
    ids=["newest", "debian"],
)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NATSServer]:
    with nats_serving(tmp_path / "nats", binary=request.param()) as found:
        yield found


def journal_of(part: Path) -> bytes:
    found = journal_id_of(str(part / "journal"))
    assert found is not None
    return found


@contextlib.contextmanager
def carrying(url: str, part: Path) -> Iterator[NATSCarrier]:
    with contextlib.closing(NATSCarrier(url, name_of(part))) as carrier:
        yield carrier


def bring(url: str, part: Path, *, message_bytes: int = 1000, messages: int = 1 << 30) -> None:
    """Bring what the stream lacks of a part."""
    with carrying(url, part) as carrier:
        publisher = JournalPublisher(part / "journal", carrier, message_bytes=message_bytes)
        with contextlib.closing(publisher):
            while messages and publisher.advance():
                messages -= 1


def growing(directory: Path) -> JournaledRun:
    said = {"host": "a", "pid": 1, "writer": "rank0", "rank": 0, "joins": True}
    return JournaledRun(directory / "p" / "r@a", run_id="r", environment=said)


def log(run: JournaledRun, count: int, begin: int = 0) -> None:
    for step in range(begin, begin + count):
        run.log({"loss": step / 2, "noise": secrets.token_hex(40)}, step)
        run.journal()


# What the stream keeps


def test_part_is_kept_by_the_stream_as_it_is(server: NATSServer, tmp_path: Path) -> None:
    parts = [make_part(tmp_path, host, rank=rank) for host, rank in (("a", 0), ("b.x", 2))]
    for part in parts:
        cursor = deliver(part, Collector(url=server.url))
        assert (cursor.closed, cursor.delivered, cursor.last_error) == (True, 30, None)
        assert stream_rings(server.url, part) == rings_of(part)


def test_each_message_names_the_one_before(server: NATSServer, tmp_path: Path) -> None:
    part = make_part(tmp_path, "a", rank=0)
    bring(server.url, part, message_bytes=1)
    found = messages_of(server.url, part)
    named = [int(message.headers[nats_wire.EXPECTED_HEADER]) for message in found]
    assert named == [0, *(message.sequence for message in found[:-1])]
    sent = [message.sent for message in found]
    assert all(one is not None for one in sent)
    assert [one.after for one in sent[1:] if one] == [one.upto for one in sent[:-1] if one]


def test_delivering_again_sends_nothing(server: NATSServer, tmp_path: Path) -> None:
    part = make_part(tmp_path, "a", rank=0)
    deliver(part, Collector(url=server.url))
    before = len(messages_of(server.url, part))
    (part / "cursors" / "backend.json").unlink()
    cursor = deliver(part, Collector(url=server.url))
    assert (cursor.closed, cursor.delivered) == (True, 30)
    assert len(messages_of(server.url, part)) == before


@pytest.mark.parametrize("most", [1024, 8192])
def test_message_that_a_server_would_not_take_comes_in_parts(tmp_path: Path, most: int) -> None:
    with nats_serving(tmp_path / "nats", {"max_payload": most}) as server, growing(tmp_path) as run:
        run.log({"text": secrets.token_hex(60_000)}, 0)
        run.journal()
        log(run, 20, 1)
        part = tmp_path / "p" / "r@a"
        bring(server.url, part, message_bytes=1)
        assert max(len(message.data) for message in messages_of(server.url, part)) <= most
        assert len(messages_of(server.url, part)) > 10
        assert stream_rings(server.url, part) == rings_of(part)


def test_stream_that_takes_smaller_messages_than_its_server_gets_them(tmp_path: Path, server: NATSServer) -> None:
    with growing(tmp_path) as run:
        part = tmp_path / "p" / "r@a"
        bring(server.url, part)
        settings = {**api(server.url, f"STREAM.INFO.{STREAM}")["config"], "max_msg_size": 10_000}
        api(server.url, f"STREAM.UPDATE.{STREAM}", settings)
        run.log({"text": secrets.token_hex(60_000)}, 0)
        run.journal()
        with contextlib.suppress(TimeoutError):
            deliver(part, Collector(url=server.url), timeout_s=5.0)
        assert stream_rings(server.url, part) == rings_of(part)


def test_part_of_which_the_rest_never_came_is_sent_again(tmp_path: Path) -> None:
    with nats_serving(tmp_path / "nats", {"max_payload": 8192}) as server, growing(tmp_path) as run:
        run.log({"text": secrets.token_hex(60_000)}, 0)
        run.journal()
        part = tmp_path / "p" / "r@a"
        bring(server.url, part)
        cut = messages_of(server.url, part)[-1]
        assert cut.sent is not None
        assert cut.sent.parts > 2
        api(server.url, f"STREAM.MSG.DELETE.{STREAM}", {"seq": cut.sequence})
        with carrying(server.url, part) as carrier:
            assert carrier.locate(journal_of(part)) == cut.sent.after
        bring(server.url, part)
        assert stream_rings(server.url, part) == rings_of(part)


# The stream has lost something


def test_purged_stream_is_filled_again_from_the_journal(server: NATSServer, tmp_path: Path) -> None:
    part = make_part(tmp_path, "a", rank=0)
    bring(server.url, part)
    purge(server.url)
    bring(server.url, part)
    assert stream_rings(server.url, part) == rings_of(part)


def test_deleted_stream_is_made_and_filled_again(server: NATSServer, tmp_path: Path) -> None:
    part = make_part(tmp_path, "a", rank=0, batches=20)
    with carrying(server.url, part) as carrier:
        publisher = JournalPublisher(part / "journal", carrier, message_bytes=1)
        for _ in range(5):
            publisher.advance()
        api(server.url, f"STREAM.DELETE.{STREAM}")
        with pytest.raises(Retry):
            publisher.advance()
        while publisher.advance():
            pass
        publisher.close()
    assert stream_rings(server.url, part) == rings_of(part)


def test_purge_of_what_is_merged_changes_nothing(server: NATSServer, tmp_path: Path) -> None:
    part = make_part(tmp_path, "a", rank=0, batches=20)
    bring(server.url, part, message_bytes=1, messages=10)
    before = messages_of(server.url, part)
    purge(server.url, filter=nats_wire.subject_of(name_of(part)), seq=before[-1].sequence)
    assert len(messages_of(server.url, part)) == 1
    bring(server.url, part, message_bytes=1)
    sent = [message.sent for message in messages_of(server.url, part)]
    assert [one.after for one in sent[1:] if one] == [one.upto for one in sent[:-1] if one]


@pytest.mark.system
def test_stream_that_is_set_back_to_an_older_state_is_filled_again(server: NATSServer, tmp_path: Path) -> None:
    part = make_part(tmp_path, "a", rank=0, batches=20)
    bring(server.url, part, message_bytes=1, messages=10)
    server.stop()
    server.save_store(tmp_path / "older")
    server.start()
    bring(server.url, part, message_bytes=1)
    server.kill()
    server.restore(tmp_path / "older")
    server.start()
    assert len(messages_of(server.url, part)) == 10
    bring(server.url, part, message_bytes=1)
    assert stream_rings(server.url, part) == rings_of(part)


@pytest.mark.system
def test_idle_host_fills_a_stream_that_was_lost_while_its_server_was_down(server: NATSServer, tmp_path: Path) -> None:
    """Nothing new is logged: the end of the connection is what tells it to look."""
    part = make_part(tmp_path, "a", rank=0, end=False)
    with delivering(part, server.url):
        wait_until(lambda: has_all(server, part), "the stream has all")
        server.kill()
        server.restore(None)
        server.start()
        wait_until(lambda: has_all(server, part), "the stream has all again", 40.0)


def count_of(server: NATSServer, part: Path) -> int:
    try:
        return len(messages_of(server.url, part))
    except Exception:  # no stream
        return 0


def has_all(server: NATSServer, part: Path) -> bool:
    try:
        return stream_rings(server.url, part) == rings_of(part)
    except (Exception, AssertionError):  # no server, no stream, or half of it
        return False


@contextlib.contextmanager
def delivering(part: Path, url: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A delivery process of a part."""
    words = [sys.executable, HERE / "carry_to_collector.py", part.parent.parent, url]
    process = subprocess.Popen(words, env={**os.environ, **environment})
    try:
        yield process
    finally:
        process.kill()
        process.wait(30)


# Two of one part


def test_two_publishers_of_one_journal_fence_each_other(server: NATSServer, tmp_path: Path) -> None:
    part = make_part(tmp_path, "a", rank=0, batches=30)
    threads = [threading.Thread(target=_bring_in_spite_of_another, args=(server.url, part)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    sent = [message.sent for message in messages_of(server.url, part)]
    assert [one.after for one in sent[1:] if one] == [one.upto for one in sent[:-1] if one]
    assert stream_rings(server.url, part) == rings_of(part)


def _bring_in_spite_of_another(url: str, part: Path) -> None:
    with carrying(url, part) as carrier:
        publisher = JournalPublisher(part / "journal", carrier, message_bytes=1)
        _bring_the_rest(publisher)
        publisher.close()


def _bring_the_rest(publisher: JournalPublisher) -> None:
    """Bring what is left, in spite of messages that the server takes from another connection meanwhile."""
    while True:
        try:
            if publisher.advance() is None:
                return
        except Retry as error:
            assert "has a later message of this part" in str(error)  # noqa: PT017  # of another kind it would raise


def test_part_of_another_journal_is_refused(server: NATSServer, tmp_path: Path) -> None:
    bring(server.url, make_part(tmp_path / "one", "a", rank=0))
    another = make_part(tmp_path / "two", "a", rank=0)
    with pytest.raises(PartRefused, match="messages of another journal of this host"):
        bring(server.url, another)


def test_message_of_a_stranger_on_the_subject_of_a_host_is_named(server: NATSServer, tmp_path: Path) -> None:
    part = make_part(tmp_path, "a", rank=0)
    bring(server.url, part)
    with_link(server.url, lambda link: link.ask(nats_wire.subject_of(name_of(part)), b"hello"))
    with pytest.raises(PartRefused, match="is none that a host has sent"):
        bring(server.url, part)


# What a collector says


def test_collector_that_wants_something_again_gets_it_once(server: NATSServer, tmp_path: Path) -> None:
    part = make_part(tmp_path, "a", rank=0)
    bring(server.url, part, message_bytes=1)
    count = len(messages_of(server.url, part))
    say(server.url, part, Word(journal=journal_of(part).hex(), want=Place(), number=1))
    for _ in range(2):
        bring(server.url, part, message_bytes=1)
        found = messages_of(server.url, part)
        assert len(found) == 2 * count
        assert [one.sent.answers for one in found if one.sent] == [0] * count + [1] * count
    assert stream_rings(server.url, part) == rings_of(part)


def test_empty_stream_is_filled_from_where_the_collector_is(server: NATSServer, tmp_path: Path) -> None:
    part = make_part(tmp_path, "a", rank=0, batches=20)
    bring(server.url, part, message_bytes=1)
    middle = messages_of(server.url, part)[10].sent
    assert middle is not None
    purge(server.url)
    say(server.url, part, Word(journal=journal_of(part).hex(), have=middle.upto))
    bring(server.url, part, message_bytes=1)
    first = messages_of(server.url, part)[0].sent
    assert first is not None
    assert first.after == middle.upto


def test_what_is_missing_is_looked_for_once(server: NATSServer, tmp_path: Path) -> None:
    part = make_part(tmp_path, "a", rank=0)
    bring(server.url, part, message_bytes=1)
    ring = next(iter(rings_of(part)))
    word = Word(
        journal=journal_of(part).hex(), want=Place(), number=1, missing=Missing(ring, 0, "bytes 0 to 99 are missing")
    )
    say(server.url, part, word)
    with carrying(server.url, part) as carrier:
        with pytest.raises(PartIncomplete, match="bytes 0 to 99 are missing") as found:
            carrier.locate(journal_of(part))
        assert (found.value.ring, found.value.seen) == (ring, 0)
        assert carrier.locate(journal_of(part)) == Place()


def test_part_that_the_collector_refuses_waits_for_a_person(server: NATSServer, tmp_path: Path) -> None:
    part = make_part(tmp_path, "a", rank=0)
    say(server.url, part, Word(journal=journal_of(part).hex(), refused="its batches are garbage"))
    cursor = _deliver_until_paused(part, server.url)
    assert "refuses this part of the run: its batches are garbage" in str(cursor.last_error)


@pytest.mark.system
def test_host_with_nothing_to_send_hears_what_the_collector_says(server: NATSServer, tmp_path: Path) -> None:
    part = make_part(tmp_path, "a", rank=0, end=False)
    with delivering(part, server.url):
        wait_until(lambda: has_all(server, part), "the stream has all")
        count = len(messages_of(server.url, part))
        say(server.url, part, Word(journal=journal_of(part).hex(), want=Place(), number=1))
        wait_until(lambda: len(messages_of(server.url, part)) > count, "it is sent again")
    assert stream_rings(server.url, part) == rings_of(part)


def test_host_gives_signs_of_life_with_its_clock(server: NATSServer, tmp_path: Path) -> None:
    part = make_part(tmp_path, "a", rank=0)
    heard: list[Any] = []

    async def listen(link: Any) -> None:
        sub = await link.client.subscribe(f"{nats_wire.ROOT}.*.*.*.*.{nats_wire.ALIVE}")
        await link.client.flush()
        with carrying(server.url, part) as carrier:
            await anyio.to_thread.run_sync(carrier.locate, journal_of(part))
            heard.append(await sub.next_msg(timeout=20))

    before = time.time_ns()
    with_link(server.url, listen)
    sign = nats_wire.alive_in(heard[0].data)
    assert sign is not None
    assert nats_wire.part_in(heard[0].subject) == name_of(part)
    assert before <= sign.time_ns <= time.time_ns()
    assert sign.journal == journal_of(part).hex()


# Files


@pytest.mark.system
def test_file_that_was_logged_by_its_path_waits_for_a_collector_and_comes_in_pieces(tmp_path: Path) -> None:
    part, content = tmp_path / "p" / "r@a", secrets.token_bytes(100_000)
    (tmp_path / "model.pt").write_bytes(content)
    with nats_serving(tmp_path / "nats", {"max_payload": 65536}) as server, growing(tmp_path) as run:
        log(run, 5)
        run.log({"model": asynctrack.Artifact("m", path=tmp_path / "model.pt")}, 5)
        run.journal()
        log(run, 5, 6)
        run.end_ring()
        run.end("finished")
        with pytest.raises(TimeoutError):
            deliver(part, Collector(url=server.url), timeout_s=1.0)
        cursor = load_cursor(part, "backend")
        assert "has no collector that merges this run now" in str(cursor.last_error)
        with serving(tmp_path / "out") as collector, file_bridge(server.url, collector.url) as sizes:
            cursor = deliver(part, Collector(url=server.url))
        assert (cursor.closed, cursor.last_error) == (True, None)
        assert max(sizes) < 65536
        assert stream_rings(server.url, part) == rings_of(part)
    (found,) = [path for path in (tmp_path / "out" / "p" / "r" / "media").rglob("*") if path.is_file()]
    assert found.read_bytes() == content


# No room, no server, no permission


def _deliver_until_paused(part: Path, url: str) -> Cursor:
    with pytest.raises(TimeoutError):
        deliver(part, Collector(url=url), timeout_s=1.0)
    cursor = load_cursor(part, "backend")
    assert cursor.paused, cursor
    return cursor


def test_full_stream_is_waited_for_and_said(
    server: NATSServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASYNCTRACK_NATS_MAX_BYTES", "20k")
    with growing(tmp_path) as run:
        part = tmp_path / "p" / "r@a"
        log(run, 300)
        with pytest.raises(Retry, match=r"has a full stream: maximum bytes exceeded .*; this host keeps what it has"):
            bring(server.url, part)
        for _ in range(20):
            last = messages_of(server.url, part)[-1]
            purge(server.url, seq=last.sequence)
            with contextlib.suppress(Retry):
                bring(server.url, part)
                break
        sent = messages_of(server.url, part)[-1].sent
        with carrying(server.url, part) as carrier:
            assert sent is not None
            assert carrier.locate(journal_of(part)) == sent.upto


def test_long_message_for_which_a_stream_has_no_room_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its beginnings would fill the stream, and nobody could remove them: they belong to a message that is not whole."""
    monkeypatch.setenv("ASYNCTRACK_NATS_MAX_BYTES", "80k")
    with nats_serving(tmp_path / "nats", {"max_payload": 8192}) as server, growing(tmp_path) as run:
        part, other = tmp_path / "p" / "r@a", make_part(tmp_path / "other", "b", rank=2, batches=60, per_batch=10)
        bring(server.url, other, message_bytes=1)
        run.log({"text": secrets.token_hex(60_000)}, 0)
        run.journal()
        with carrying(server.url, part) as carrier:
            publisher = JournalPublisher(part / "journal", carrier, message_bytes=1)
            for _ in range(3):
                with contextlib.suppress(Retry):
                    publisher.advance()
            begun = len(messages_of(server.url, part))
            assert begun > 1
            for _ in range(3):
                with pytest.raises(Retry, match="has a full stream"):
                    publisher.advance()
            assert len(messages_of(server.url, part)) == begun
            last = messages_of(server.url, other)[-1]
            purge(server.url, filter=nats_wire.subject_of(name_of(other)), seq=last.sequence)
            while publisher.advance():
                pass
            publisher.close()
        assert stream_rings(server.url, part) == rings_of(part)


def test_what_a_stream_has_taken_and_does_not_keep_is_not_delivered(server: NATSServer, tmp_path: Path) -> None:
    part = make_part(tmp_path, "a", rank=0)
    api(server.url, f"STREAM.CREATE.{STREAM}", {**stream_settings(), "retention": "interest"})
    with pytest.raises(Retry, match="does not have it: the retention of the stream"):
        bring(server.url, part)
    api(server.url, f"STREAM.DELETE.{STREAM}")
    bring(server.url, part)
    assert stream_rings(server.url, part) == rings_of(part)


def test_stream_that_takes_no_message_of_a_useful_size_waits_for_a_person(server: NATSServer, tmp_path: Path) -> None:
    with growing(tmp_path) as run:
        part = tmp_path / "p" / "r@a"
        bring(server.url, part)
        settings = {**api(server.url, f"STREAM.INFO.{STREAM}")["config"], "max_msg_size": 1000}
        api(server.url, f"STREAM.UPDATE.{STREAM}", settings)
        run.log({"text": secrets.token_hex(10_000)}, 0)
        run.journal()
        cursor = _deliver_until_paused(part, server.url)
    assert "takes too small messages" in str(cursor.last_error)
    assert "raise max_msg_size of the stream" in str(cursor.last_error)


def test_no_server_is_tried_again(tmp_path: Path) -> None:
    with pytest.raises(Retry, match=f"NATS at {NOBODY} cannot be reached: .*Connect call failed"):
        bring(NOBODY, make_part(tmp_path, "a", rank=0))


def test_another_server_is_taken_where_one_is_away(server: NATSServer, tmp_path: Path) -> None:
    part = make_part(tmp_path, "a", rank=0)
    for _ in range(3):
        bring(f"{NOBODY},{server.url}", part)
    assert stream_rings(server.url, part) == rings_of(part)


def test_server_without_jetstream_waits_for_a_person(tmp_path: Path) -> None:
    with nats_serving(tmp_path / "nats", {"jetstream": None}) as server:
        cursor = _deliver_until_paused(make_part(tmp_path, "a", rank=0), server.url)
    assert "has no JetStream for this account; start it with `nats-server --jetstream`" in str(cursor.last_error)


@pytest.mark.parametrize("token", [None, "wrong-one"])
def test_host_that_the_server_does_not_know_waits_for_a_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str | None
) -> None:
    if token is not None:
        monkeypatch.setenv("ASYNCTRACK_NATS_TOKEN", token)
    with nats_serving(tmp_path / "nats", {"authorization": {"token": "sesame-open"}}) as server:
        cursor = _deliver_until_paused(make_part(tmp_path, "a", rank=0), server.url)
    assert "does not let this user in" in str(cursor.last_error)
    assert "ASYNCTRACK_NATS_CREDS" in str(cursor.last_error)
    assert "wrong-one" not in str(cursor.last_error)


def test_token_in_a_file_and_password_in_the_environment_let_a_host_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = make_part(tmp_path, "a", rank=0)
    (tmp_path / "token").write_text("sesame-open\n")
    monkeypatch.setenv("ASYNCTRACK_NATS_TOKEN_FILE", str(tmp_path / "token"))
    with nats_serving(tmp_path / "one", {"authorization": {"token": "sesame-open"}}) as server:
        bring(server.url, part)
    monkeypatch.setenv("ASYNCTRACK_NATS_USER", "host")
    monkeypatch.setenv("ASYNCTRACK_NATS_PASSWORD", "p ä$$")
    with nats_serving(
        tmp_path / "two", {"authorization": {"users": [{"user": "host", "password": "p ä$$"}]}}
    ) as server:
        bring(server.url, part)


def test_nkey_lets_a_host_in_and_its_seed_is_never_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nkeys

    seed = nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_USER)
    public = nkeys.from_seed(seed).public_key.decode()
    (tmp_path / "seed").write_bytes(seed)
    part = make_part(tmp_path, "a", rank=0)
    monkeypatch.setenv("ASYNCTRACK_NATS_NKEY", str(tmp_path / "seed"))
    with nats_serving(tmp_path / "nats", {"authorization": {"users": [{"nkey": public}]}}) as server:
        bring(server.url, part)
    with nats_serving(tmp_path / "other", {"authorization": {"token": "another"}}) as server:
        with pytest.raises(ActionRequired) as found:
            bring(server.url, part)
        assert seed.decode() not in str(found.value)


def test_credentials_file_lets_a_host_in_until_it_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part, creds = make_part(tmp_path, "a", rank=0), tmp_path / "host.creds"
    settings = make_accounts(creds)
    monkeypatch.setenv("ASYNCTRACK_NATS_CREDS", str(creds))
    with nats_serving(tmp_path / "nats", settings) as server:
        bring(server.url, part)
        assert stream_rings(server.url, part) == rings_of(part)
        make_accounts(creds)
        with pytest.raises(ActionRequired, match="does not let this user in") as found:
            bring(server.url, part)
    assert creds.read_text().splitlines()[-2] not in str(found.value)


@pytest.mark.parametrize("seed", ["", "no seed", "SUAgarbage"])
def test_seed_that_is_none_is_for_a_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: str) -> None:
    (tmp_path / "seed").write_text(seed)
    monkeypatch.setenv("ASYNCTRACK_NATS_NKEY", str(tmp_path / "seed"))
    with (
        nats_serving(tmp_path / "nats", {"authorization": {"token": "another"}}) as server,
        pytest.raises(ActionRequired, match="does not let this user in" if seed else "is empty"),
    ):
        bring(server.url, make_part(tmp_path, "a", rank=0))


@pytest.mark.parametrize("variable", ["ASYNCTRACK_NATS_CREDS", "ASYNCTRACK_NATS_NKEY", "ASYNCTRACK_NATS_TOKEN_FILE"])
def test_file_that_cannot_be_read_is_for_a_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, str(tmp_path / "missing"))
    with pytest.raises(ActionRequired, match=f"the file in {variable} cannot be read"):
        bring(NOBODY, make_part(tmp_path, "a", rank=0))


HOST_MAY = {
    "publish": [
        "asynctrack.v1.*.p.>",
        f"$JS.API.STREAM.MSG.GET.{STREAM}",
        f"$JS.API.STREAM.MSG.GET.{nats_wire.WORDS_STREAM}",
    ],
    "subscribe": ["_INBOX.>", f"{nats_wire.WORDS_ROOT}.*.p.*.*"],
}


def _users(**permissions: Any) -> dict[str, Any]:
    host = {"user": "host", "password": "of the host", "permissions": permissions}
    return {"authorization": {"users": [host, {"user": "all", "password": "of all"}]}}


def test_permissions_of_the_page_are_enough_for_a_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = make_part(tmp_path, "a", rank=0)
    monkeypatch.setenv("ASYNCTRACK_NATS_PASSWORD", "of all")
    monkeypatch.setenv("ASYNCTRACK_NATS_USER", "all")
    with nats_serving(tmp_path / "nats", _users(**HOST_MAY)) as server:
        bring(server.url, part, message_bytes=1, messages=2)
        say(server.url, part, Word(journal=journal_of(part).hex()))
        monkeypatch.setenv("ASYNCTRACK_NATS_PASSWORD", "of the host")
        monkeypatch.setenv("ASYNCTRACK_NATS_USER", "host")
        bring(server.url, part)
        assert "iolation" not in server.log()
        other = make_part(tmp_path, "a", rank=0, project="q")
        with pytest.raises(
            ActionRequired, match=r"does not let this user publish to asynctrack\.v1\.[0-9a-f]{2}\.q\.r\.a; give it"
        ):
            bring(server.url, other)
        assert "of the host" not in server.url


def _identity(user: str) -> dict[str, str]:
    return {"ASYNCTRACK_NATS_USER": user, "ASYNCTRACK_NATS_PASSWORD": f"of {'the host' if user == 'host' else user}"}


@pytest.mark.system
def test_host_that_may_not_make_the_stream_says_so_and_waits_for_the_collector_that_does(tmp_path: Path) -> None:
    part = make_part(tmp_path / "parts", "a", rank=0)
    with (
        nats_serving(tmp_path / "nats", _users(**HOST_MAY)) as server,
        delivering(part, server.url, **_identity("host")),
    ):
        wait_until(lambda: load_cursor(part, "collector").last_error, "it says what is wrong")
        cursor = load_cursor(part, "collector")
        said = str(cursor.last_error)
        assert f"has no stream {STREAM}, and this user may not make it" in said
        assert f"`nats stream add {STREAM} --subjects 'asynctrack.v1.*.*.*.*' --storage file" in said
        assert "or start a collector that may" in said
        assert not cursor.paused
        with collecting(server.url, tmp_path / "merged", environment=_identity("all")):
            wait_until_merged(tmp_path / "merged" / "p" / "r", [part])


# TLS


def test_server_whose_certificate_is_not_trusted_gets_nothing(
    tmp_path: Path, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    part = make_part(tmp_path, "a", rank=0)
    tls = {"cert_file": str(certificate[0]), "key_file": str(certificate[1])}
    with nats_serving(tmp_path / "nats", {"tls": tls}) as server:
        with pytest.raises(ActionRequired, match=r"cannot be trusted: .*ASYNCTRACK_NATS_CA"):
            bring(server.url, part)
        monkeypatch.setenv("ASYNCTRACK_NATS_CA", str(certificate[0]))
        bring(server.url, part)
        assert stream_rings(server.url, part) == rings_of(part)


def test_server_that_asks_for_a_certificate_gets_that_of_the_environment(
    tmp_path: Path, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    part = make_part(tmp_path, "a", rank=0)
    cert, key = map(str, certificate)
    monkeypatch.setenv("ASYNCTRACK_NATS_CA", cert)
    with nats_serving(
        tmp_path / "nats", {"tls": {"cert_file": cert, "key_file": key, "ca_file": cert, "verify": True}}
    ) as server:
        with pytest.raises((ActionRequired, Retry)):
            bring(server.url, part)
        monkeypatch.setenv("ASYNCTRACK_NATS_CERT", cert)
        monkeypatch.setenv("ASYNCTRACK_NATS_KEY", key)
        bring(server.url, part)
        assert stream_rings(server.url, part) == rings_of(part)


def test_no_secret_goes_out_without_the_tls_that_was_asked_for(
    server: NATSServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASYNCTRACK_NATS_TOKEN", "sesame-open")
    with pytest.raises(ActionRequired, match="does not ask for TLS"):
        bring(server.url.replace("nats:", "tls:"), make_part(tmp_path, "a", rank=0))


def test_no_record_goes_out_without_the_tls_that_was_asked_for(server: NATSServer, tmp_path: Path) -> None:
    part = make_part(tmp_path, "a", rank=0)
    with pytest.raises(ActionRequired, match="does not ask for TLS"):
        bring(server.url.replace("nats:", "tls:"), part)
    bring(server.url, part)
    assert stream_rings(server.url, part) == rings_of(part)


# Kills


@pytest.mark.system
def test_kills_of_server_and_publisher_lose_nothing(server: NATSServer, tmp_path: Path) -> None:
    part = tmp_path / "p" / "r@a"
    with growing(tmp_path) as run:
        log(run, 50)
        for turn in range(1, 7):
            before = count_of(server, part)
            with delivering(part, server.url) as process:
                log(run, 200, 1000 * turn)
                wait_until(lambda: count_of(server, part) > before, "something comes")  # noqa: B023  # it is called in this turn
                log(run, 200, 1000 * turn + 200)
                if turn % 2:
                    server.kill()
                    log(run, 50, 1000 * turn + 400)
                    server.start()
                process.send_signal(signal.SIGKILL)
        with delivering(part, server.url):
            wait_until(lambda: has_all(server, part), "the stream has all again", 40.0)


@pytest.mark.system
def test_server_that_hangs_is_left_and_found_again(
    server: NATSServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = make_part(tmp_path, "a", rank=0, batches=20)
    with carrying(server.url, part) as carrier:
        publisher = JournalPublisher(part / "journal", carrier, message_bytes=1)
        publisher.advance()
        server.pause()
        with monkeypatch.context() as patch:
            patch.setattr("asynctrack.carriers.nats.carrier._KEEP_S", 0.5)
            with pytest.raises(Retry, match="has not answered"):
                publisher.advance()
        server.go_on()
        _bring_the_rest(publisher)  # what it was sent before it hung comes late, by the connection that was given up
        publisher.close()
    assert stream_rings(server.url, part) == rings_of(part)


# As users write it


RANK = """
import json, sys
import asynctrack
run = asynctrack.init("p", id="job", dir=sys.argv[1], quiet=True)
for step in range(200):
    assert run.log({"loss": step / 2}, step)
stats = run.finish()
print(json.dumps({"path": str(run.path), "behind": stats.behind}))
"""


@pytest.mark.system
def test_run_goes_to_nats_where_the_environment_says_so(server: NATSServer, tmp_path: Path) -> None:
    with own_shared_memory():
        done = outcome(start(RANK, tmp_path / "runs", ASYNCTRACK_COLLECT=server.url, ASYNCTRACK_HOST="h1"))
    path = Path(done["path"])
    assert done["behind"] == 0
    assert path.name == "job@h1"
    assert stream_rings(server.url, path) == rings_of(path)


def test_address_with_a_password_is_refused_when_the_run_opens(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings) as found:
        asynctrack.init("p", dir=tmp_path, collect="nats://me:sesame@node-1")
    assert "sesame" not in str(found.value)
    assert "environment" in str(found.value)
