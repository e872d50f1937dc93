"""By HTTP: hosts that send their parts of a run to a collector, and what they do while it is away, refuses, or says something else."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import hypothesis
import msgspec
import pytest
from collector_server import CollectorProcess, serving
from http_collector import Answer, HTTPCollector, Request, refusal
from hypothesis import strategies
from merged_rings import assert_merged, make_part
from support import outcome, own_shared_memory, said, start, wait_until, workers

import asynctrack
from asynctrack import ActionRequired, Retry, TooLarge
from asynctrack.backends.base import Unreachable
from asynctrack.backends.collector import Collector
from asynctrack.backends.registry import from_stored, stored
from asynctrack.carriers import wire
from asynctrack.carriers.http import HTTPCarrier
from asynctrack.carriers.message import Garbage, Place
from asynctrack.carriers.publisher import JournalPublisher
from asynctrack.delivery import carrier_transfer, retry_policy
from asynctrack.delivery.polling import Poller
from asynctrack.errors import InvalidSettings, PartIncomplete, PartRefused
from asynctrack.journal.cursor import Cursor, load_cursor
from asynctrack.settings import project_directory
from asynctrack.testing import CarrierContract, Carrying, JournaledRun, deliver, deliver_in_process
from asynctrack.worker.delivery_supervisor import SupervisedProcess

HERE = Path(__file__).parent
PART = wire.PartName("p", "r", "a")
JOURNAL = bytes(16)
RANK = """
import json, os, sys, time
import asynctrack
run = asynctrack.init("p", id="job", dir=sys.argv[1], config={"rank": os.environ["RANK"]}, quiet=True)
for step in range(int(sys.argv[2])):
    assert run.log({"loss": step / 2}, step)
    time.sleep(float(sys.argv[3]))
stats = run.finish()
print(json.dumps({"path": str(run.path), "behind": stats.behind}))
"""


@pytest.fixture
def collector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HTTPCollector]:
    for name in (
        "ASYNCTRACK_COLLECT_TOKEN",
        "ASYNCTRACK_COLLECT_TOKEN_FILE",
        "ASYNCTRACK_COLLECT_CA",
        "HTTP_PROXY",
        "http_proxy",
    ):
        monkeypatch.delenv(name, raising=False)
    with HTTPCollector(tmp_path / "out") as server:
        yield server


def posts(collector: HTTPCollector) -> list[Request]:
    return [request for request in collector.requests if request.method == "POST"]


def sync(run: Path, **environment: str) -> tuple[int, str]:
    words = [sys.executable, "-m", "asynctrack", "sync", str(run), "--patience-s", "10"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=55, env={**os.environ, **environment})
    return done.returncode, done.stdout + done.stderr


# What travels


NAMES = strategies.from_regex(r"\A[A-Za-z0-9_][A-Za-z0-9_\-. ]{0,20}\Z")
HOSTS = strategies.from_regex(r"\A[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}\Z")


@hypothesis.given(strategies.one_of(NAMES, strategies.text(min_size=1, max_size=40)), NAMES, HOSTS)
def test_path_names_the_part_that_it_was_made_of(project: str, run: str, host: str) -> None:
    hypothesis.assume(run != "latest")
    name = wire.PartName(project_directory(project), run, host)
    path = wire.path_of(name)
    assert path.isascii()
    assert path.isprintable()
    assert wire.name_in(path) == name


@pytest.mark.parametrize(
    "path",
    [
        "/v1/p/r", "/v1/p/r/h/x", "/v2/p/r/h", "v1/p/r/h", "/v1//r/h", "/v1/../r/h", "/v1/%2e%2e/r/h", "/v1/p/..%2Fr/h", "/v1/p/r/..", "/v1/p/r%40x/h",
        "/v1/p/latest/h", "/v1/p/r/%00", "/v1/p/%FF/h", "/v1/.hidden/r/h", "/v1/p%0A/r/h", "/v1/a%2Fb/r/h", f"/v1/{'p' * 129}/r/h", f"/v1/p/r/{'h' * 2000}",
    ],
)  # fmt: skip
def test_path_that_names_no_part_is_none(path: str) -> None:
    assert wire.name_in(path) is None


@hypothesis.given(*[strategies.integers(0, (1 << 63) - 1)] * 3)
def test_place_is_read_as_it_was_written(segment: int, offset: int, made_ns: int) -> None:
    place = Place(segment, offset, made_ns)
    assert wire.place_in(wire.place_text(place)) == place


@pytest.mark.parametrize("text", ["", "1:2", "1:2:3:4", "-1:2:3", "1:2:x", "1:2:3 ", "١:2:3", f"{10**19}:1:1"])
def test_text_that_is_no_place_is_none(text: str) -> None:
    assert wire.place_in(text) is None


def test_bomb_is_not_inflated_beyond_the_limit() -> None:
    bomb = zlib.compress(bytes(50 << 20), 9)
    with pytest.raises(wire.InflatesTooFar):
        wire.inflated(bomb, 1 << 20)
    assert wire.inflated(zlib.compress(bytes(1000)), 1000) == bytes(1000)


@pytest.mark.parametrize(
    "body", [b"", b"garbage", zlib.compress(bytes(1000))[:-3], zlib.compress(bytes(1000)) + b"more"]
)
def test_body_that_is_not_deflated_whole_is_garbage(body: bytes) -> None:
    with pytest.raises(Garbage):
        wire.inflated(body, 10_000)


def test_noise_is_not_deflated() -> None:
    assert wire.deflated(random.Random(1).randbytes(10_000)) is None
    assert len(wire.deflated(bytes(10_000)) or b"") < 1000


# What answers mean


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (refusal("incomplete", "bytes 5 to 9 are missing", ring=7, seen=5), PartIncomplete, "bytes 5 to 9 are missing"),
        (refusal("refused", "it is a copy"), PartRefused, "it is a copy"),
        (refusal("garbage", "no message"), ActionRequired, "answered 400: no message"),
        (refusal("no_token", "a token is needed"), ActionRequired, "set ASYNCTRACK_COLLECT_TOKEN"),
        (refusal("not_your_project", "not for p"), ActionRequired, "not for p; the token in"),
        (refusal("no_such_path", "nothing there"), ActionRequired, "is that the address of `asynctrack serve`"),
        (refusal("too_large", "a message is too large", limit="message"), TooLarge, "a message is too large"),
        (refusal("too_large", "the run is full", limit="run"), ActionRequired, "the run is full"),
        (refusal("not_now", "another writes to it"), Retry, "another writes to it"),
        (refusal("disk_full", "its disk is full"), Retry, "its disk is full"),
        (Answer(413, b"<html>too large</html>"), TooLarge, "too large"),
        (Answer(502, b"<html>bad gateway</html>"), Unreachable, "bad gateway"),
        (Answer(500, b"<html>oh no</html>"), Retry, "oh no"),
        (Answer(301, b"", {"location": "https://elsewhere/?key=1"}), ActionRequired, "a redirect to 'https://elsewhere/'"),
        (Answer(418, b"a teapot"), ActionRequired, "answered 418: a teapot"),
    ],
)  # fmt: skip
def test_answer_says_whether_to_wait_for_it_or_for_a_person(
    collector: HTTPCollector, answer: Answer, error: type[Exception], words: str
) -> None:
    collector.instead = lambda _: answer
    with contextlib.closing(HTTPCarrier(collector.url, PART)) as carrier, pytest.raises(error) as found:
        carrier.locate(JOURNAL)
    assert type(found.value) is error
    assert words in str(found.value)


def test_pause_is_the_one_that_the_server_asks_for(collector: HTTPCollector) -> None:
    collector.instead = lambda _: msgspec.structs.replace(refusal("not_now", "soon"), headers={"retry-after": "7"})
    with pytest.raises(Retry) as found:
        HTTPCarrier(collector.url, PART).locate(JOURNAL)
    assert found.value.after_s == 7


def test_something_else_than_a_collector_is_tried_again(collector: HTTPCollector) -> None:
    collector.instead = lambda _: Answer(200, b"<html>log in to this network</html>")
    carrier = HTTPCarrier(collector.url, PART)
    with contextlib.closing(carrier), pytest.raises(Retry, match="something else than a place"):
        carrier.locate(JOURNAL)


def test_nobody_there_is_tried_again(collector: HTTPCollector) -> None:
    collector.stop()
    with pytest.raises(Retry, match="cannot be reached"):
        HTTPCarrier(collector.url, PART).locate(JOURNAL)


def test_token_of_the_environment_or_a_file_is_sent_and_never_said(
    collector: HTTPCollector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector.instead = lambda request: refusal("wrong_token", f"not {request.headers['authorization']}")
    (tmp_path / "token").write_text("of the file\n")
    monkeypatch.setenv("ASYNCTRACK_COLLECT_TOKEN_FILE", str(tmp_path / "token"))
    carrier = HTTPCarrier(collector.url, PART)
    with pytest.raises(ActionRequired) as found:
        carrier.locate(JOURNAL)
    assert "of the file" not in str(found.value)
    monkeypatch.setenv("ASYNCTRACK_COLLECT_TOKEN", "sesame")
    with pytest.raises(ActionRequired) as found:
        carrier.locate(JOURNAL)
    assert "sesame" not in str(found.value)
    assert [request.headers["authorization"] for request in collector.requests] == [
        "Bearer of the file",
        "Bearer sesame",
    ]


def test_token_file_that_cannot_be_read_is_for_a_person(
    collector: HTTPCollector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASYNCTRACK_COLLECT_TOKEN_FILE", str(tmp_path / "missing"))
    with pytest.raises(ActionRequired, match="ASYNCTRACK_COLLECT_TOKEN_FILE cannot be read"):
        HTTPCarrier(collector.url, PART).locate(JOURNAL)
    assert collector.requests == []


def test_certificates_that_are_not_there_are_for_a_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCTRACK_COLLECT_CA", str(tmp_path / "missing.pem"))
    with pytest.raises(ActionRequired, match="ASYNCTRACK_COLLECT_CA names, has no certificates"):
        HTTPCarrier("https://127.0.0.1:1", PART).locate(JOURNAL)


def test_request_tells_the_hosts_clock(collector: HTTPCollector) -> None:
    before = time.time_ns()
    with contextlib.closing(HTTPCarrier(collector.url, PART)) as carrier:
        carrier.locate(JOURNAL)
    assert before <= int(collector.requests[0].headers["x-asynctrack-time"]) <= time.time_ns()


def test_message_tells_how_much_of_the_journal_is_still_to_come(collector: HTTPCollector, tmp_path: Path) -> None:
    part = make_part(tmp_path, "a", rank=0)
    size = sum(path.stat().st_size for path in (part / "journal").iterdir())
    with contextlib.closing(HTTPCarrier(collector.url, wire.PartName("p", "r", "a"), part / "journal")) as carrier:
        publisher = JournalPublisher(part / "journal", carrier, message_bytes=1)
        while publisher.advance():
            pass
        publisher.close()
    told = [int(request.headers["x-asynctrack-behind"]) for request in posts(collector)]
    assert len(told) > 5
    assert told == sorted(told, reverse=True)
    assert size > told[0] > told[-1] == 0


# A part is delivered


def test_part_is_delivered_as_to_any_backend(collector: HTTPCollector, tmp_path: Path) -> None:
    parts = [make_part(tmp_path, "a", rank=0), make_part(tmp_path, "b", rank=2)]
    for part in parts:
        cursor = deliver(part, Collector(url=collector.url))
        assert (cursor.closed, cursor.delivered, cursor.last_error) == (True, 30, None)
    assert_merged(collector.out / "p" / "r", parts)
    assert asynctrack.open_run(collector.out / "p" / "r").status == "finished"


def test_delivering_again_sends_nothing(collector: HTTPCollector, tmp_path: Path) -> None:
    part = make_part(tmp_path, "a", rank=0)
    deliver(part, Collector(url=collector.url))
    sent = len(posts(collector))
    (part / "cursors" / "backend.json").unlink()
    cursor = deliver(part, Collector(url=collector.url))
    assert (cursor.closed, cursor.delivered) == (True, 30)
    assert len(posts(collector)) == sent


def test_collector_that_has_lost_its_disk_gets_all_again(collector: HTTPCollector, tmp_path: Path) -> None:
    part = tmp_path / "p" / "r@a"
    said = {"host": "a", "pid": 1, "writer": "rank0", "rank": 0, "joins": True}
    with JournaledRun(part, run_id="r", environment=said) as run:
        for step in range(20):
            run.log({"loss": step}, step)
            run.journal()
        assert deliver(part, Collector(url=collector.url)).delivered == 20
        collector.close_runs()
        collector.out = tmp_path / "another"
        for step in range(20, 30):
            run.log({"loss": step}, step)
            run.journal()
        assert deliver(part, Collector(url=collector.url)).delivered == 30
    assert_merged(collector.out / "p" / "r", [part])


def test_messages_that_are_too_large_are_cut_smaller(collector: HTTPCollector, tmp_path: Path) -> None:
    part = make_part(tmp_path, "a", rank=0, batches=40)
    limit = 2000

    def refuse(request: Request) -> Answer | None:
        return refusal("too_large", "too large", limit="message") if request.length > limit else None

    collector.instead = refuse
    cursor = deliver(part, Collector(url=collector.url))
    assert (cursor.closed, cursor.delivered) == (True, 240)
    assert len(posts(collector)) > 5
    assert_merged(collector.out / "p" / "r", [part])


def test_batch_that_is_too_large_waits_for_a_person(collector: HTTPCollector, tmp_path: Path) -> None:
    part = make_part(tmp_path, "a", rank=0)
    collector.instead = lambda request: (
        refusal("too_large", "it is too large", limit="message") if request.length else None
    )
    cursor = _deliver_until_paused(part, collector)
    assert "a batch cannot be made smaller" in str(cursor.last_error)


def test_part_under_another_name_waits_for_a_person(collector: HTTPCollector, tmp_path: Path) -> None:
    part = make_part(tmp_path, "a", rank=0)
    moved = part.rename(part.with_name("r"))
    cursor = _deliver_until_paused(moved, collector)
    assert "which is RUN@HOST; rename it back" in str(cursor.last_error)


def test_part_that_is_refused_waits_for_a_person(collector: HTTPCollector, tmp_path: Path) -> None:
    deliver(make_part(tmp_path / "one", "a", rank=0), Collector(url=collector.url))
    another = make_part(tmp_path / "two", "a", rank=0)
    cursor = _deliver_until_paused(another, collector)
    assert "refuses this part of the run: its part of the run belongs to journal" in str(cursor.last_error)


def _deliver_until_paused(part: Path, collector: HTTPCollector) -> Any:
    with pytest.raises(TimeoutError):
        deliver(part, Collector(url=collector.url), timeout_s=1.0)
    cursor = load_cursor(part, "backend")
    assert cursor.paused
    return cursor


def test_connection_that_the_server_has_closed_is_no_failure(collector: HTTPCollector, tmp_path: Path) -> None:
    """As it may after some idle seconds, just as the next request comes."""
    part = make_part(tmp_path, "a", rank=0, batches=20)
    collector.hang_up_after = 3
    with contextlib.closing(HTTPCarrier(collector.url, PART)) as carrier:
        publisher = JournalPublisher(part / "journal", carrier, message_bytes=1)
        while publisher.advance():
            pass
        publisher.close()
    assert len(posts(collector)) > 20
    assert_merged(collector.out / "p" / "r", [part])


def test_settings_hold_an_address_and_no_token(collector: HTTPCollector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCTRACK_COLLECT_TOKEN", "sesame")
    entry = stored(Collector(url=collector.url), "r", "collector")
    assert "sesame" not in str(entry)
    assert from_stored(entry) == Collector(url=collector.url)


# A run is opened


def test_run_is_collected_by_http(
    own_host: Path, collector: HTTPCollector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASYNCTRACK_COLLECT", collector.url)
    monkeypatch.setenv("ASYNCTRACK_HOST", "node-1")
    with asynctrack.init("p", id="job", dir=tmp_path / "runs", quiet=True) as run:
        for step in range(100):
            run.log({"loss": step}, step)
    assert run.path == tmp_path / "runs" / "p" / "job@node-1"
    stats = run.finish()
    assert stats.backends.keys() == {"collector"}
    assert (stats.behind, stats.backends["collector"].delivered) == (0, 100)
    wait_until(lambda: load_cursor(run.path, "collector").closed, "the end is delivered")
    merged = asynctrack.open_run(collector.out / "p" / "job")
    assert (merged.status, [record.data["loss"] for record in merged.records()]) == ("finished", list(range(100)))
    assert_merged(collector.out / "p" / "job", [run.path])


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://node-1/", "must be the address of an HTTP server"),
        ("http://", "must be the address of an HTTP server"),
        ("http://user:sesame@node-1:1", "must not hold a user or a password"),
        ("http://node-1:1?token=sesame", "a write token belongs in the environment"),
        ("", None),
        (7, "must be the path of a folder that all hosts share, or the address of a server"),
        (" ", "must be the path of a folder that all hosts share, or the address of a server"),
        ("node-1:4380", "did you mean 'http://node-1:4380'? A folder of that name is './node-1:4380'"),
        ("[::1]:4380/", "did you mean 'http://[::1]:4380/'?"),
        ("http:/node-1:4380", "did you mean 'http://node-1:4380'?"),
        ("HTTPS:node-1", "did you mean 'https://node-1'?"),
    ],
)
def test_address_that_is_none_is_said_at_once(tmp_path: Path, url: Any, words: str | None) -> None:
    if words is None:
        asynctrack.init("p", dir=tmp_path, collect=url, mode="disabled").finish()
        return
    with pytest.raises(InvalidSettings, match=re.escape(words)) as found:
        asynctrack.init("p", id="job", dir=tmp_path, collect=url)
    assert "sesame" not in str(found.value)
    assert list(tmp_path.iterdir()) == []


def test_backends_that_were_chosen_and_are_the_collectors_affair_are_said_once(
    own_host: Path, collector: HTTPCollector, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    memory = asynctrack.Memory()
    given = ["jsonl", memory, "csv"]
    with asynctrack.init("p", id="job", dir=tmp_path, collect=collector.url, backends=given, quiet=True) as run:
        run.log({"loss": 1})
    assert (
        caplog.text.count(
            "2 backends get nothing while the run goes on, unless `asynctrack serve --backends` has them: jsonl, csv"
        )
        == 1
    )
    assert run.finish().backends.keys() == {"memory", "collector"}
    assert [record["loss"] for record in memory.records] == [1]


def test_default_backend_that_is_the_collectors_affair_is_not_said(
    own_host: Path, collector: HTTPCollector, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with asynctrack.init("p", id="job", dir=tmp_path, collect=collector.url, quiet=True) as run:
        run.log({"loss": 1})
    assert said(caplog, tmp_path) == []


def test_disabled_run_asks_nobody(collector: HTTPCollector, tmp_path: Path) -> None:
    with asynctrack.init("p", id="job", dir=tmp_path, collect=collector.url, mode="disabled") as run:
        run.log({"loss": 1})
    assert (collector.requests, list(tmp_path.iterdir())) == ([], [])


@pytest.mark.system
def test_offline_part_is_sent_by_sync(own_host: Path, collector: HTTPCollector, tmp_path: Path) -> None:
    directory = tmp_path / "runs"
    with asynctrack.init("p", id="job", dir=directory, collect=collector.url, mode="offline", quiet=True) as run:
        for step in range(50):
            run.log({"loss": step}, step)
    assert collector.requests == []
    code, told = sync(run.path)
    assert (code, "collector 50" in told) == (0, True), told
    assert_merged(collector.out / "p" / "job", [run.path])


@pytest.mark.system
def test_trackers_part_is_collected(
    own_host: Path, collector: HTTPCollector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASYNCTRACK_COLLECT", collector.url)
    monkeypatch.setenv("ASYNCTRACK_RUN_ID", "job")
    with asynctrack.Tracker("p", dir=tmp_path, quiet=True) as tracker:
        run = tracker.init()
        tracker.log({"loss": 1})
    wait_until(lambda: load_cursor(run.path, "collector").closed, "the end is delivered")
    assert_merged(collector.out / "p" / "job", [run.path])


@pytest.mark.system
def test_wrong_token_is_said_and_mended_without_loss(
    own_host: Path, collector: HTTPCollector, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    collector.token = "sesame"
    run = asynctrack.init("p", id="job", dir=tmp_path, collect=collector.url, after_exit_max_s=1, quiet=True)
    run.log({"loss": 1})
    wait_until(lambda: load_cursor(run.path, "collector").paused, "the delivery is paused")
    begun = time.monotonic()
    stats = run.finish()
    assert time.monotonic() - begun < 10  # nobody waits for what only a person can mend
    assert stats.backends["collector"].behind == 1
    assert "1 record is not yet at collector (the collector at" in caplog.text
    assert "set ASYNCTRACK_COLLECT_TOKEN" in caplog.text
    wait_until(lambda: not workers(own_host), "the worker has gone", 30)
    assert sync(run.path)[0] == 1
    code, told = sync(run.path, ASYNCTRACK_COLLECT_TOKEN="sesame")
    assert code == 0, told
    assert "sesame" not in (run.path / "run.json").read_text() + (run.path / "cursors" / "collector.json").read_text()
    assert_merged(collector.out / "p" / "job", [run.path])


@pytest.mark.system
def test_collector_that_is_not_there_is_said_once_and_waited_for(
    own_host: Path, collector: HTTPCollector, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = collector.port
    collector.stop()
    run = asynctrack.init("p", id="job", dir=tmp_path / "runs", collect=collector.url, finish_timeout_s=40, quiet=True)
    for step in range(20_000):
        assert run.log({"loss": step}, step)
        time.sleep(0.001)
        if "collector gets nothing" in caplog.text:
            break
    assert "cannot be reached" in caplog.text
    with HTTPCollector(collector.out, port):
        assert run.finish().behind == 0
        wait_until(lambda: load_cursor(run.path, "collector").closed, "the end is delivered")
    assert caplog.text.count("collector gets nothing") == 1
    assert_merged(collector.out / "p" / "job", [run.path])


@pytest.mark.system
def test_httpx2_that_is_missing_is_said_as_the_run_opens(collector: HTTPCollector, tmp_path: Path) -> None:
    script = """
import sys
sys.modules["httpx2"] = None
import asynctrack
with asynctrack.init("p", id="job", dir=sys.argv[1], collect=sys.argv[2], worker="thread", quiet=True, exit_timeout_s=1) as run:
    run.log({"loss": 1})
"""
    child = start(script, tmp_path, collector.url, ASYNCTRACK_IDLE_EXIT_S="0.05")
    _, said = child.communicate(timeout=50)
    assert "collector gets nothing yet: " in said
    assert "asynctrack[http]" in said


@pytest.mark.system
def test_run_is_collected_by_tls_with_a_token(
    own_host: Path, tmp_path: Path, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in (("tokens", "sesame-sesame-sesame p\n"), ("token", "sesame-sesame-sesame\n")):
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_text(content)
    options = ["--tokens", tmp_path / "tokens", "--tls-cert", certificate[0], "--tls-key", certificate[1]]
    with serving(tmp_path / "out", *options) as server:
        monkeypatch.delenv("ASYNCTRACK_COLLECT_CA", raising=False)
        with pytest.raises(ActionRequired, match=r"cannot be trusted: .*, or that in ASYNCTRACK_COLLECT_CA\?"):
            HTTPCarrier(server.url, PART).locate(JOURNAL)
        monkeypatch.setenv("ASYNCTRACK_COLLECT_CA", str(certificate[0]))
        with pytest.raises(ActionRequired, match=r"answered 401: .*; set ASYNCTRACK_COLLECT_TOKEN"):
            HTTPCarrier(server.url, PART).locate(JOURNAL)
        monkeypatch.setenv("ASYNCTRACK_COLLECT_TOKEN_FILE", str(tmp_path / "token"))
        with pytest.raises(ActionRequired, match="answered 403"):
            HTTPCarrier(server.url, PART._replace(project="another")).locate(JOURNAL)
        with asynctrack.init("p", id="job", dir=tmp_path / "runs", collect=server.url, quiet=True) as run:
            run.log({"loss": 1})
        assert run.finish().behind == 0
        wait_until(lambda: load_cursor(run.path, "collector").closed, "the end is delivered")
    assert_merged(tmp_path / "out" / "p" / "job", [run.path])


# Rhythm


@pytest.mark.system
def test_few_records_are_sent_a_few_times_a_second(own_host: Path, collector: HTTPCollector, tmp_path: Path) -> None:
    run = asynctrack.init("p", id="job", dir=tmp_path, collect=collector.url, quiet=True)
    run.log({"loss": 0})
    wait_until(lambda: posts(collector), "the first message has come")
    begun, before = time.monotonic(), len(posts(collector))
    while time.monotonic() - begun < 3:
        run.log({"loss": 1})
        time.sleep(0.005)
    sent = len(posts(collector)) - before
    assert 2 <= sent <= 7
    begun = time.monotonic()
    assert run.finish().behind == 0


@pytest.mark.system
def test_idle_host_gives_signs_of_life(
    own_host: Path, collector: HTTPCollector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carrier_transfer, "_SIGN_OF_LIFE_S", 0.2)
    part = make_part(tmp_path, "a", rank=0, end=False)
    poller = Poller(part, {"collector": Collector(url=collector.url)}, keep=True)
    thread = threading.Thread(target=anyio.run, args=(poller.run,))
    thread.start()
    wait_until(lambda: len(collector.requests) >= 8, "it has asked again and again")
    poller.stop()
    thread.join()
    assert len(posts(collector)) == 1
    assert load_cursor(part, "collector").retries == 0


@pytest.mark.system
def test_collector_that_is_back_gets_what_is_waited_for_at_once(
    collector: HTTPCollector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each pause is as long as it can be: without somebody who waits the next try came ten seconds later."""
    monkeypatch.setattr(retry_policy, "FIRST_RETRY_S", 60.0)
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    part, port = make_part(tmp_path, "a", rank=0), collector.port
    collector.stop()
    poller = Poller(part, {"collector": Collector(url=collector.url)}, keep=True)
    thread = threading.Thread(target=anyio.run, args=(poller.run,))
    thread.start()
    try:
        wait_until(lambda: load_cursor(part, "collector").last_error, "nobody is there")
        with HTTPCollector(collector.out, port):
            wait_until(lambda: poller.expedite() or load_cursor(part, "collector").closed, "all is there", 4)
    finally:
        poller.stop()
        thread.join()
    assert_merged(collector.out / "p" / "r", [part])


# Everything at once


class _Carried:
    """`asynctrack serve`, and what delivers to it, a process each."""

    def __init__(self, parts: Path, out: Path) -> None:
        self._server = CollectorProcess(out)
        self._hosts = subprocess.Popen([sys.executable, HERE / "carry_to_collector.py", parts, self._server.url])

    def kill(self) -> None:
        self._end_hosts()
        self._server.kill()

    def stop(self) -> None:
        self._end_hosts()
        self._server.stop()

    def _end_hosts(self) -> None:
        self._hosts.kill()
        self._hosts.communicate()


@pytest.mark.system
class TestHTTPCarrier(CarrierContract):
    def carry(self, parts: Path, out: Path) -> Carrying:
        return _Carried(parts, out)


@pytest.mark.system
@pytest.mark.parametrize("seed", [1, 2])
def test_delivery_process_that_is_killed_loses_and_repeats_nothing(
    collector: HTTPCollector, tmp_path: Path, seed: int
) -> None:
    """Each time just before or just after the collector has taken a message, so that it has or has not what the host believes."""
    part = make_part(tmp_path, "a", rank=0, batches=300, per_batch=40)
    chance, groups, left = random.Random(seed), [0], [3]

    def kill(request: Request) -> Answer | None:
        if request.method == "POST" and left[0]:
            left[0] -= 1
            threading.Timer(chance.random() * 0.02, os.killpg, (groups[0], signal.SIGKILL)).start()
            time.sleep(chance.random() * 0.02)
        return None

    def poll(process: SupervisedProcess, cursor: Cursor) -> None:
        groups[0] = process.group or groups[0]

    collector.instead = kill
    cursor = deliver_in_process(part, Collector(url=collector.url), poll=poll, timeout_s=50)
    assert left == [0]
    assert (cursor.closed, cursor.delivered) == (True, 24_000)
    assert_merged(collector.out / "p" / "r", [part])


@pytest.mark.system
def test_ranks_and_workers_that_are_killed_lose_nothing(collector: HTTPCollector, tmp_path: Path) -> None:
    """Two hosts with a shared memory each, whose delivery processes are killed, and a collector that is away for a while."""
    with contextlib.ExitStack() as stack:
        shared = [stack.enter_context(own_shared_memory()) for _ in range(2)]
        environment = [
            {
                "ASYNCTRACK_COLLECT": collector.url,
                "ASYNCTRACK_HOST": f"node-{at}",
                "ASYNCTRACK_SHM": str(place),
                "RANK": str(at),
            }
            for at, place in enumerate(shared)
        ]
        children = [start(RANK, tmp_path / "runs", 3000, 0.001, **said) for said in environment]
        chance, away = random.Random(5), refusal("not_now", "it is away")
        for _ in range(6):
            until = time.monotonic() + 0.5
            collector.instead = (lambda _: away) if chance.random() < 0.4 else (lambda _: None)
            wait_until(lambda: time.monotonic() > until, "half a second has passed")  # noqa: B023
            for pid in workers(chance.choice(shared)):
                os.kill(pid, signal.SIGKILL)
        collector.instead = lambda _: None
        said = [outcome(child) for child in children]
        for one, place in zip(said, environment, strict=True):
            wait_until(lambda: not workers(Path(place["ASYNCTRACK_SHM"])), "its worker has gone", 40)  # noqa: B023
            code, told = sync(Path(one["path"]), **place)
            assert code == 0, told
        parts = [Path(one["path"]) for one in said]
        assert_merged(collector.out / "p" / "job", parts)
        for part in parts:
            assert [record.step for record in asynctrack.open_run(part).records()] == list(range(3000))


@pytest.mark.system
def test_backlog_is_sent_far_faster_than_it_was_logged(collector: HTTPCollector, tmp_path: Path) -> None:
    """What was logged in ten minutes at 1,000 records a second takes less than a minute, also on a busy machine."""
    part = tmp_path / "p" / "r@a"
    with JournaledRun(
        part, run_id="r", environment={"host": "a", "pid": 1, "writer": "rank0", "rank": 0, "joins": True}
    ) as run:
        for _ in range(60):
            for step in range(1000):
                run.log({"loss": step / 3, "accuracy": step / 7}, step)
            run.journal()
        run.end_ring()
        run.end("finished")
    begun = time.monotonic()
    cursor = deliver(part, Collector(url=collector.url))
    assert (cursor.closed, cursor.delivered) == (True, 60_000)
    assert time.monotonic() - begun < 6
