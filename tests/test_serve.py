"""Serving: hosts bring their journals by HTTP. Whatever comes, in whatever order, from whomever: each ring is merged once, and what is refused harms nobody."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import http.client
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import hypothesis
import pytest
from cli_support import said_here
from collector_server import (
    Answer,
    CollectorProcess,
    PlainCarrier,
    ask,
    bring,
    collector,
    file_of_tokens,
    name_of,
    post_target,
    project,
    serving,
)
from hanging_disk import HangingDisk
from hypothesis import strategies
from merged_rings import assert_merged, assert_notes_merged, make_part, rings_of
from support import run_confined, wait_until

from asynctrack.backends.base import Retry
from asynctrack.carriers import wire
from asynctrack.carriers.cutter import Cut, Cutter
from asynctrack.carriers.http import HTTPCarrier
from asynctrack.carriers.message import Place
from asynctrack.carriers.publisher import JournalPublisher
from asynctrack.carriers.wire import PartName
from asynctrack.errors import AsynctrackError, PartIncomplete, PartRefused
from asynctrack.journal import manifest as manifests
from asynctrack.journal.cursor import load_cursor
from asynctrack.journal.layout import NOTES_RING
from asynctrack.merging.host_reports import load_reports
from asynctrack.merging.http import wrong_tokens
from asynctrack.merging.http.app import CollectorApp
from asynctrack.merging.http.wrong_tokens import WrongTokens
from asynctrack.merging.merger import Merger
from asynctrack.merging.server.guarded_merger import CLOSE_AFTER_S, BatchPost, GuardedMerger, Sign
from asynctrack.merging.server.limits import ServerLimits
from asynctrack.merging.server.refused import Refused
from asynctrack.merging.server.served_run import ServedRun
from asynctrack.merging.server.served_runs import ServedRuns

__all__ = ["collector", "project"]  # fixtures

TOKEN, OTHER = "a-token-of-one-user", "a-token-of-another"
# Up to where something is merged: a question that leaves nothing behind.
PLACE = f"/v1/mine/nothing/a?journal={'0' * 32}"


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CollectorProcess]:
    """One with tokens and small limits."""
    directory = tmp_path_factory.mktemp("strict")
    tokens = file_of_tokens(
        directory, "# who may write what", f"{TOKEN} mine*", "", f"{OTHER} theirs", f"{OTHER} shared"
    )
    limits = ["--max-message", "20K", "--max-inflated", "100K", "--max-run-bytes", "30K", "--max-hosts", "2"]
    with serving(directory / "runs", "--tokens", tokens, *limits) as found:
        assert ask(found.url, "GET", PLACE, token=TOKEN).status == 200  # an address with a right token is not held back
        yield found


def parts_of(directory: Path, project: str, hosts: int = 2) -> list[Path]:
    return [make_part(directory, host, rank=2 * at, project=project) for at, host in enumerate("abcdef"[:hosts])]


def cut_of(part: Path, max_bytes: int = 1 << 20) -> Cut:
    cutter = Cutter(part / "journal", Place())
    with contextlib.closing(cutter):
        cut = cutter.cut(max_bytes)
        assert cut is not None
        return cut


def post(
    url: str, part: Path, cut: Cut, *, name: PartName | None = None, body: bytes | None = None, **more: str
) -> Answer:
    return ask(
        url,
        "POST",
        post_target(name or name_of(part), cut.after, cut.upto),
        cut.message if body is None else body,
        **more,
    )


# What is merged


def test_parts_of_hosts_are_merged_byte_for_byte(tmp_path: Path, collector: CollectorProcess, project: str) -> None:
    parts = parts_of(tmp_path, project, 3)
    for part in parts:
        bring(collector.url, part)
    run = collector.directory / project / "r"
    assert_merged(run, parts)
    assert_notes_merged(run, parts)
    found = manifests.load(run)
    assert (found.status, {one.host: one.status for one in found.hosts}) == (
        "finished",
        dict.fromkeys("abc", "finished"),
    )
    collector.wait_for("ended", run=str(run), hosts=3)


def test_what_is_acknowledged_is_where_the_host_goes_on(
    tmp_path: Path, collector: CollectorProcess, project: str
) -> None:
    (part,) = parts_of(tmp_path, project, 1)
    journal = Cutter(part / "journal", Place()).journal_id
    carrier = PlainCarrier(collector.url, name_of(part))
    assert carrier.locate(journal) == Place()
    cut = cut_of(part, 1)
    assert post(collector.url, part, cut).status == 204
    assert carrier.locate(journal) == cut.upto


def test_question_about_a_run_that_is_not_there_makes_none(
    tmp_path: Path, collector: CollectorProcess, project: str
) -> None:
    carrier = PlainCarrier(collector.url, PartName(project, "r", "a"))
    assert carrier.locate(bytes(16)) == Place()
    assert not (collector.directory / project).exists()


def test_message_that_comes_again_is_merged_once(tmp_path: Path, collector: CollectorProcess, project: str) -> None:
    (part,) = parts_of(tmp_path, project, 1)
    cut = cut_of(part)
    assert [post(collector.url, part, cut).status for _ in range(3)] == [204] * 3
    assert_merged(collector.directory / project / "r", [part])


def test_deflated_message_is_inflated(tmp_path: Path, collector: CollectorProcess, project: str) -> None:
    (part,) = parts_of(tmp_path, project, 1)
    cut = cut_of(part)
    deflated = wire.deflated(cut.message)
    assert deflated is not None
    assert post(collector.url, part, cut, body=deflated, Content_Encoding=wire.DEFLATE).status == 204
    assert_merged(collector.directory / project / "r", [part])


def test_hosts_that_come_at_once_are_all_merged(tmp_path: Path, collector: CollectorProcess, project: str) -> None:
    parts = parts_of(tmp_path, project, 6)
    threads = [
        threading.Thread(target=bring, args=(collector.url, part), kwargs={"message_bytes": 1}) for part in parts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert_merged(collector.directory / project / "r", parts)


def test_run_that_is_removed_while_it_goes_on_is_brought_again(
    tmp_path: Path, collector: CollectorProcess, project: str
) -> None:
    (part,) = parts_of(tmp_path, project, 1)
    bring(collector.url, part, messages=2, message_bytes=1)
    shutil.rmtree(collector.directory / project)
    bring(collector.url, part)
    assert_merged(collector.directory / project / "r", [part])


def test_run_that_nobody_needs_is_closed_and_opened_again_by_what_comes_late(tmp_path: Path) -> None:
    parts = parts_of(tmp_path / "parts", "p", 2)
    merger = GuardedMerger(tmp_path / "p" / "r", ServerLimits(keep_free_bytes=0), {})

    async def serve() -> None:
        with ThreadPoolExecutor(1) as threads:
            run = ServedRun(merger, threads, lambda *_: None)
            for part in parts:
                cut, sign = cut_of(part), Sign(name_of(part).host, time.time_ns(), time.time_ns())
                await run.take(BatchPost(sign, cut.after, cut.upto, cut.message, False))
                await run.look()
                assert not run.is_at_rest
                merger.used_at -= 2 * CLOSE_AFTER_S
                await run.look()
                assert run.is_at_rest
            await run.close()
            with pytest.raises(Refused, match="the collector ends"):
                await run.look()

    asyncio.run(serve())
    assert_merged(tmp_path / "p" / "r", parts)


def test_host_that_is_waited_for_is_shown_with_how_far_behind_it_is(tmp_path: Path) -> None:
    (part,) = parts_of(tmp_path / "parts", "p", 1)
    cutter = Cutter(part / "journal", Place())
    first, second, third = (cutter.cut(1) for _ in range(3))
    assert first and second and third
    merger = GuardedMerger(tmp_path / "p" / "r", ServerLimits(keep_free_bytes=0), {})
    merger.open()
    for cut in (first, third):
        sign = Sign("a", time.time_ns(), time.time_ns(), behind_bytes=1000)
        with contextlib.nullcontext() if cut is first else pytest.raises(PartIncomplete):
            merger.take(BatchPost(sign, cut.after, cut.upto, cut.message, False))
    merger.close()
    found = load_reports(tmp_path / "p" / "r")
    assert found is not None
    said = found.hosts["a"]
    assert said.waiting and said.behind_bytes == 1000 + len(third.message)
    assert said.behind_s is not None and said.behind_s > 0


# What is refused


@pytest.mark.parametrize(
    "target",
    [
        "/v1/p/../r",
        "/v1/../p/r",
        "/v1/p/r/..",
        "/v1/p/%2e%2e/h",
        "/v1/%2e%2e/r/h",
        "/v1/p/r%2f..%2f..%2fx/h",
        "/v1/p/r/h%2f..",
        "/v1/p/r/h%00",
        "/v1/p/r/%ff",
        "/v1/p%5c..%5cx/r/h",
        "/v1/.hidden/r/h",
        "/v1/p/.r/h",
        "/v1/p/r/.h",
        "/v1/p/latest/h",
        "/v1/p/r@x/h%40y",
        f"/v1/p/{'r' * 129}/h",
        f"/v1/p/r/{'h' * 65}",
        f"/v1/{'p' * 129}/r/h",
        f"/v1/p/{'%41' * 3000}/h",
        "/v1/p/r",
        "/v1/p/r/h/",
        "/v1//r/h",
        "/v2/p/r/h",
        "//v1/p/r/h",
        "/",
    ],
)
def test_name_that_leads_elsewhere_is_no_path(tmp_path: Path, collector: CollectorProcess, target: str) -> None:
    (part,) = parts_of(tmp_path, "p", 1)
    cut = cut_of(part)
    before = sorted(collector.directory.parent.rglob("*"))
    answer = ask(collector.url, "POST", f"{target}?after=0:0:0&upto=1:2:3", cut.message)
    assert (answer.status, answer.code) == (404, "no_such_path")
    assert sorted(collector.directory.parent.rglob("*")) == before


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_method_is_no_path(collector: CollectorProcess, method: str) -> None:
    assert ask(collector.url, method, "/v1/p/r/h").code == "no_such_path"


@pytest.mark.parametrize(
    "query",
    [
        "",
        "after=0:0:0",
        "after=0:0:0&upto=",
        "after=0:0:0&upto=1:2",
        "after=-1:0:0&upto=1:2:3",
        "after=0:0:0&upto=1:2:99999999999999999999",
        "after=0:0:0&after=0:0:0&upto=1:2:3",
        "&".join("a=b" for _ in range(50)),
        "after=%ff&upto=1:2:3",
    ],
)
def test_place_that_is_none_is_garbage(tmp_path: Path, collector: CollectorProcess, project: str, query: str) -> None:
    answer = ask(collector.url, "POST", f"/v1/{project}/r/a?{query}", b"body")
    assert (answer.status, answer.code) == (400, "garbage")
    assert not (collector.directory / project).exists()


@pytest.mark.parametrize("journal", ["", "00", "g" * 32, "0" * 33])
def test_journal_that_is_none_is_garbage(collector: CollectorProcess, project: str, journal: str) -> None:
    assert ask(collector.url, "GET", f"/v1/{project}/r/a?journal={journal}").code == "garbage"


def test_request_without_the_hosts_time_is_garbage(collector: CollectorProcess, project: str) -> None:
    """A page in a browser cannot set such a header for a server of this machine."""
    answer = ask(collector.url, "GET", f"/v1/{project}/r/a?journal={'0' * 32}", **{wire.TIME_HEADER: ""})
    assert (answer.status, answer.code) == (400, "garbage")


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate, deflate"])
def test_other_encoding_is_garbage(tmp_path: Path, collector: CollectorProcess, project: str, encoding: str) -> None:
    (part,) = parts_of(tmp_path, project, 1)
    assert post(collector.url, part, cut_of(part), Content_Encoding=encoding).code == "garbage"


@hypothesis.given(
    noise=strategies.binary(max_size=300), as_message=strategies.booleans(), deflated=strategies.booleans()
)
@hypothesis.settings(
    max_examples=40, deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
def test_noise_is_garbage_and_leaves_nothing(
    collector: CollectorProcess, project: str, noise: bytes, as_message: bool, deflated: bool
) -> None:
    body = b"ATM1" + noise if as_message else noise
    headers = {"Content_Encoding": wire.DEFLATE} if deflated else {}
    answer = ask(collector.url, "POST", f"/v1/{project}/r/a?after=0:0:0&upto=1:2:3", body, **headers)
    assert (answer.status, answer.code) == (400, "garbage")
    assert not (collector.directory / project).exists()


@pytest.mark.parametrize("flipped", [0, 4, 10, 24, 30, 90, -1])
def test_flipped_byte_is_refused_and_what_comes_behind_it_waits(
    tmp_path: Path, collector: CollectorProcess, project: str, flipped: int
) -> None:
    (part,) = parts_of(tmp_path, f"{project}{flipped % 100}", 1)
    bring(collector.url, part, messages=1)
    cutter = Cutter(part / "journal", cut_of(part, 1000).upto)
    cut = cutter.cut(1)
    cutter.close()
    assert cut is not None
    message = bytearray(cut.message)
    message[flipped] ^= 255
    answer = post(collector.url, part, cut, body=bytes(message))
    assert answer.status in (409, 412)
    bring(collector.url, part)
    assert_merged(collector.directory / part.parent.name / "r", [part])


def test_part_of_another_run_or_project_is_refused(tmp_path: Path, collector: CollectorProcess, project: str) -> None:
    (part,) = parts_of(tmp_path, project, 1)
    for name in (PartName(project, "other", "a"), PartName(f"{project}x", "r", "a")):
        answer = post(collector.url, part, cut_of(part), name=name)
        assert (answer.status, answer.code) == (409, "refused")
        assert f"it is of run 'r' of project '{project}'" in answer.error
        assert str(collector.directory) not in answer.error
        assert not (collector.directory / name.project / name.run).exists()


def test_another_journal_is_not_taken_for_a_hosts_part(
    tmp_path: Path, collector: CollectorProcess, project: str
) -> None:
    (part,), (other,) = parts_of(tmp_path / "1", project, 1), parts_of(tmp_path / "2", project, 1)
    bring(collector.url, part)
    with pytest.raises(PartRefused, match="its part of the run belongs to journal"):
        bring(collector.url, other)
    assert_merged(collector.directory / project / "r", [part])


def test_copy_of_a_part_is_refused(tmp_path: Path, collector: CollectorProcess, project: str) -> None:
    (part,) = parts_of(tmp_path, project, 1)
    copy = part.with_name("r@z")
    shutil.copytree(part, copy)
    bring(collector.url, part)
    with pytest.raises(PartRefused, match="its journal is that of host a"):
        bring(collector.url, copy)


def test_gap_is_told_and_never_merged_over(tmp_path: Path, collector: CollectorProcess, project: str) -> None:
    (part,) = parts_of(tmp_path, project, 1)
    cutter = Cutter(part / "journal", Place())
    first, second, third = (cutter.cut(1) for _ in range(3))
    cutter.close()
    assert first is not None and second is not None and third is not None
    assert post(collector.url, part, first).status == 204
    answer = post(collector.url, part, third)
    assert (answer.status, answer.code) == (412, "incomplete")
    bring(collector.url, part)
    assert_merged(collector.directory / project / "r", [part])


def test_run_that_was_not_merged_is_left_alone(tmp_path: Path, collector: CollectorProcess, project: str) -> None:
    (part,) = parts_of(tmp_path, project, 1)
    run = collector.directory / project / "r"
    shutil.copytree(part, run)
    before = rings_of(run)
    answer = post(collector.url, part, cut_of(part))
    assert (answer.status, answer.code) == (409, "refused")
    assert rings_of(run) == before


# Tokens


@pytest.mark.parametrize(
    ("token", "project", "status", "code"),
    [
        (None, "mine", 401, "no_token"),
        ("", "mine", 401, "no_token"),
        ("a-token-of-nobody-x", "mine", 401, "wrong_token"),
        (TOKEN[:-1], "mine", 401, "wrong_token"),
        (f"{TOKEN}x", "mine", 401, "wrong_token"),
        ("mine*", "mine", 401, "wrong_token"),
        (TOKEN, "theirs", 403, "not_your_project"),
        (OTHER, "mine", 403, "not_your_project"),
        (OTHER, "Theirs", 403, "not_your_project"),
    ],
)
def test_token_writes_its_projects_only(
    tmp_path: Path, strict: CollectorProcess, token: str | None, project: str, status: int, code: str
) -> None:
    (part,) = parts_of(tmp_path, project, 1)
    for answer in (
        post(strict.url, part, cut_of(part), token=token),
        ask(strict.url, "GET", f"{wire.path_of(name_of(part))}?journal={'0' * 32}", token=token),
    ):
        assert (answer.status, answer.code) == (status, code)
    assert not (strict.directory / project / "r").exists()


@pytest.mark.parametrize(("token", "project"), [(TOKEN, "mine-1"), (OTHER, "theirs"), (OTHER, "shared")])
def test_token_writes_its_projects(tmp_path: Path, strict: CollectorProcess, token: str, project: str) -> None:
    (part,) = parts_of(tmp_path, project, 1)
    bring(strict.url, part, token=token)
    assert_merged(strict.directory / project / "r", [part])


@pytest.mark.system
def test_tokens_are_read_again_when_they_change(tmp_path: Path) -> None:
    tokens = file_of_tokens(tmp_path, f"{TOKEN} *")
    (part,) = parts_of(tmp_path / "parts", "p", 1)
    with serving(tmp_path / "runs", "--tokens", tokens) as collector:
        assert post(collector.url, part, cut_of(part, 1), token=OTHER).code == "wrong_token"
        tokens.write_text(f"{OTHER} *\n")
        assert post(collector.url, part, cut_of(part, 1), token=OTHER).status == 204
        assert post(collector.url, part, cut_of(part, 1), token=TOKEN).code == "wrong_token"
        tokens.chmod(0o644)
        assert post(collector.url, part, cut_of(part, 1), token=OTHER).code == "not_now"
        tokens.unlink()
        assert post(collector.url, part, cut_of(part, 1), token=OTHER).code == "not_now"
        file_of_tokens(tmp_path, f"{OTHER} *")
        bring(collector.url, part, token=OTHER)
        assert_merged(tmp_path / "runs" / "p" / "r", [part])


def test_address_that_sends_many_wrong_tokens_is_held_back(tmp_path: Path) -> None:
    tokens = file_of_tokens(tmp_path, f"{TOKEN} *")
    with serving(tmp_path / "runs", "--tokens", tokens) as collector:
        wrong = [ask(collector.url, "GET", PLACE, token=f"{OTHER}{number}") for number in range(11)]
        assert [answer.status for answer in wrong] == [*[401] * 10, 429]
        found = ask(collector.url, "GET", PLACE, token=TOKEN)
        assert (found.status, found.code, found.headers["retry-after"]) == (429, "too_many_tries", "60")
        assert collector.stop() == 0
        assert "127.0.0.1 has sent 10 wrong tokens within a minute" in "".join(collector.problems)


def test_address_with_a_right_token_is_not_held_back_by_wrong_ones(strict: CollectorProcess) -> None:
    for number in range(15):
        assert ask(strict.url, "GET", PLACE, token=f"{OTHER}{number}").status == 401
    assert ask(strict.url, "GET", PLACE, token=TOKEN).status == 200


def test_other_addresses_and_the_next_minute_are_not_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = WrongTokens()
    for number in range(10):
        wrong.note("10.0.0.1", right=False)
        wrong.note(f"2001:db8::{number}", right=False)
    for address in ("10.0.0.2", "2001:db8:0:1::1"):
        wrong.check(address)
    for address in ("10.0.0.1", "2001:db8::ffff"):
        with pytest.raises(Refused, match="10 tokens from this address were wrong"):
            wrong.check(address)
    monkeypatch.setattr(wrong_tokens, "WINDOW_S", 0.0)
    wrong.check("10.0.0.1")


# Limits


def test_long_body_is_refused_before_it_is_read(strict: CollectorProcess) -> None:
    answer = ask(strict.url, "POST", "/v1/mine/long/a?after=0:0:0&upto=1:2:3", b"x" * 30_000, token=TOKEN)
    assert (answer.status, answer.code) == (413, "too_large")
    assert "--max-message" in answer.error


def test_long_body_of_unknown_length_is_refused(strict: CollectorProcess) -> None:
    found = urlsplit(strict.url)
    with socket.create_connection((found.hostname, found.port), timeout=20) as connection:
        head = f"POST /v1/mine/long/a?after=0:0:0&upto=1:2:3 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n{wire.TIME_HEADER}: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head.encode() + b"".join(b"1000\r\n" + b"x" * 0x1000 + b"\r\n" for _ in range(6)))
        assert b" 413 " in connection.recv(1000).splitlines()[0]


def test_message_that_inflates_to_too_much_is_refused(tmp_path: Path, strict: CollectorProcess) -> None:
    (part,) = parts_of(tmp_path, "mine-bomb", 1)
    bomb = zlib.compress(bytes(10_000_000), 9)
    answer = post(strict.url, part, cut_of(part), body=bomb, token=TOKEN, Content_Encoding=wire.DEFLATE)
    assert (answer.status, answer.code) == (413, "too_large")
    assert not (strict.directory / "mine-bomb").exists()


def test_more_hosts_than_a_run_may_have_are_refused(tmp_path: Path, strict: CollectorProcess) -> None:
    parts = parts_of(tmp_path, "mine-hosts", 3)
    for part in parts[:2]:
        bring(strict.url, part, token=TOKEN)
    with pytest.raises(PartRefused, match="too_large: the run has 2 hosts"):
        bring(strict.url, parts[2], token=TOKEN)
    assert_merged(strict.directory / "mine-hosts" / "r", parts[:2])


def test_more_processes_than_a_run_may_have_are_refused(tmp_path: Path) -> None:
    (part,) = parts_of(tmp_path / "parts", "p", 1)
    with serving(tmp_path / "runs", "--max-rings", "1") as collector, pytest.raises(PartRefused, match="--max-rings"):
        bring(collector.url, part)


def test_run_that_is_too_large_is_refused_more_and_repeats_do_not_count(
    tmp_path: Path, strict: CollectorProcess
) -> None:
    part = make_part(tmp_path, "a", rank=0, project="mine-large", batches=80)
    with pytest.raises(PartRefused, match="too_large: the run may have 30720 bytes"):
        bring(strict.url, part, token=TOKEN)
    (small,) = parts_of(tmp_path, "mine-small", 1)
    for _ in range(20):
        assert post(strict.url, small, cut_of(small), token=TOKEN).status == 204


@pytest.mark.system
def test_disk_that_is_nearly_full_is_waited_for(tmp_path: Path) -> None:
    parts = parts_of(tmp_path / "parts", "p", 2)
    with serving(tmp_path / "runs") as collector:
        bring(collector.url, parts[0], messages=1)
    with serving(tmp_path / "runs", "--keep-free", "9999T") as collector:
        answer = post(collector.url, parts[0], cut_of(parts[0]))
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (507, "disk_full", "1")
        assert "--keep-free" in collector.wait_for("trouble", run=str(tmp_path / "runs" / "p" / "r"))["trouble"]
        for _ in range(5):
            assert post(collector.url, parts[0], cut_of(parts[0])).code == "disk_full"
            PlainCarrier(collector.url, name_of(parts[0])).locate(Cutter(parts[0] / "journal", Place()).journal_id)
        assert collector.stop() == 0
        assert len([said for said in collector.events if said["event"] == "trouble"]) == 1
    with serving(tmp_path / "runs") as collector:
        for part in parts:
            bring(collector.url, part)
    assert_merged(tmp_path / "runs" / "p" / "r", parts)


class Request:
    """A request to an app in this process, whose body comes when it is told to."""

    def __init__(self, app: CollectorApp, length: int) -> None:
        self._app = app
        self._scope: Any = {
            "type": "http",
            "method": "POST",
            "path": "/v1/p/r/a",
            "raw_path": b"/v1/p/r/a",
            "query_string": b"after=0:0:0&upto=1:2:3",
            "headers": [(wire.TIME_HEADER.lower().encode(), b"1"), (b"content-length", str(length).encode())],
        }
        self.parts: asyncio.Queue[bytes] = asyncio.Queue()
        self._sent: list[Any] = []

    async def answer(self) -> Answer:
        await self._app.asgi(self._scope, self._receive, self._send)
        return Answer(self._sent[0]["status"], self._sent[1]["body"], {})

    async def _receive(self) -> Any:
        return {"type": "http.request", "body": await self.parts.get(), "more_body": True}

    async def _send(self, message: Any) -> None:
        self._sent.append(message)


def test_slow_body_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asynctrack.merging.http.app._BODY_S", 0.2)

    async def serve() -> Answer:
        limits = ServerLimits()
        request = Request(CollectorApp(ServedRuns(tmp_path, limits, {}, lambda _: None), limits, None), 1000)
        request.parts.put_nowait(b"x")
        return await asyncio.wait_for(request.answer(), 20)

    answer = asyncio.run(serve())
    assert (answer.status, answer.code) == (503, "not_now")
    assert "too slowly" in answer.error


def test_more_bodies_at_once_than_are_held_come_again(tmp_path: Path) -> None:
    async def serve() -> list[Answer]:
        limits = ServerLimits(message_bytes=1000, in_flight_bytes=1500)
        app = CollectorApp(ServedRuns(tmp_path, limits, {}, lambda _: None), limits, None)
        slow, other, third = (Request(app, 900) for _ in range(3))
        waiting = asyncio.create_task(slow.answer())
        slow.parts.put_nowait(b"x" * 900)
        while not slow.parts.empty():
            await asyncio.sleep(0)
        other.parts.put_nowait(b"x" * 900)
        refused = await asyncio.wait_for(other.answer(), 20)
        slow.parts.put_nowait(b"x" * 900)
        too_long = await asyncio.wait_for(waiting, 20)
        third.parts.put_nowait(b"x" * 1200)
        return [refused, too_long, await asyncio.wait_for(third.answer(), 20)]

    assert [answer.code for answer in asyncio.run(serve())] == ["not_now", "too_large", "too_large"]


# Who listens


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--listen", "0.0.0.0:0"], "needs --tokens FILE and --tls-cert FILE --tls-key FILE; --insecure does without"),
        (["--listen", "[::]:0"], "--insecure"),
        (["--listen", "*:0", "--tls-cert", "c", "--tls-key", "k"], "needs --tokens FILE; --insecure"),
        (["--listen", "127.0.0.1"], "expected HOST:PORT"),
        (["--listen", "::1:80"], "expected the address in brackets"),
        (["--listen", "127.0.0.1:0", "--tls-cert", "c"], "go together"),
        (["--listen", "127.0.0.1:0", "--backends", "console"], "it shows records where they are logged"),
        (["--listen", "127.0.0.1:0", "--backends", "jsnol"], "jsnol"),
        (["--max-message", "much"], "expected a number of bytes"),
        (["--listen", "127.0.0.1:0", "--dir", "/dev/null/runs"], "--dir /dev/null/runs: it cannot be made"),
    ],
)
def test_unsafe_or_wrong_options_are_refused(tmp_path: Path, options: list[str], said: str) -> None:
    told = said_here("serve", "--dir", tmp_path / "runs", *options)
    assert (told.returncode, said in told.stderr) == (2, True), told.stderr


@pytest.mark.system
def test_directory_on_a_read_only_disk_is_refused(tmp_path: Path) -> None:
    script = """
import json, sys
from pathlib import Path
from asynctrack.cli.collectors import check_directory
from asynctrack.errors import InvalidSettings
try:
    check_directory(Path(sys.argv[1]))
except InvalidSettings as error:
    print(json.dumps(str(error)))
"""
    assert "it cannot be written: it is read-only" in run_confined(
        f"mount -t tmpfs -o ro t {tmp_path}", script, tmp_path
    )


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (f"{TOKEN} *\n", 0o640, "chmod 600"),
        ("short *\n", 0o600, "at least 16 characters"),
        (f"{TOKEN}\n", 0o600, "line 1 of"),
        (f"# x\n{TOKEN} p\nétrangers p\n", 0o600, "line 3 of"),
    ],
)
def test_file_of_tokens_that_cannot_be_used_is_refused_without_a_word_of_it(
    tmp_path: Path, content: str, mode: int, said: str
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(content)
    tokens.chmod(mode)
    told = said_here("serve", "--dir", tmp_path / "runs", "--listen", "127.0.0.1:0", "--tokens", tokens)
    assert (told.returncode, said in told.stderr) == (2, True), told.stderr
    assert TOKEN not in told.stderr


def _run_serve(tmp_path: Path, *options: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "asynctrack", "serve", "--dir", tmp_path / "runs", *options]
    return subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.system
def test_address_that_is_taken_is_said(tmp_path: Path, collector: CollectorProcess) -> None:
    told = _run_serve(tmp_path, "--listen", f"127.0.0.1:{collector.port}")
    assert (told.returncode, "Address already in use" in told.stderr) == (2, True), told.stderr


WITHOUT = """
import sys
sys.modules["uvicorn"] = None
from asynctrack.cli import main
sys.exit(main(["serve", "--listen", "127.0.0.1:0"]))
"""


def test_missing_library_is_named_with_what_to_install(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
    )
    assert told.returncode == 2
    assert "it needs uvicorn, which is not installed: pip install 'asynctrack[serve]'" in told.stderr


@pytest.mark.system
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_collector_that_is_ended_has_all_that_it_acknowledged(tmp_path: Path, number: signal.Signals) -> None:
    (part,) = parts_of(tmp_path / "parts", "p", 1)
    with serving(tmp_path / "runs") as collector:
        silent = socket.create_connection(("127.0.0.1", collector.port))  # does not hold it up
        bring(collector.url, part, messages=3, message_bytes=1)
        collector.process.send_signal(number)
        assert collector.process.wait(timeout=30) == 0
        silent.close()
    run = tmp_path / "runs" / "p" / "r"
    assert len(rings_of(run)) == 2
    with serving(tmp_path / "runs") as collector:
        bring(collector.url, part)
    assert_merged(run, [part])


@pytest.mark.system
def test_run_that_another_process_writes_is_waited_for(tmp_path: Path) -> None:
    (part,) = parts_of(tmp_path / "parts", "p", 1)
    with Merger(tmp_path / "runs" / "p" / "r"), serving(tmp_path / "runs") as collector:
        answer = post(collector.url, part, cut_of(part))
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "not_now", "1")
        assert "another process writes to the merged run" in answer.error
        trouble = collector.wait_for("trouble", run=str(tmp_path / "runs" / "p" / "r"))["trouble"]
        assert f"process {os.getpid()} writes to" in trouble


@pytest.mark.system
def test_directory_that_cannot_be_written_harms_no_other_run(tmp_path: Path) -> None:
    first, second = (parts_of(tmp_path / "parts", project, 1)[0] for project in ("p", "q"))
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "p").write_text("a file stands there")
    with serving(tmp_path / "runs") as collector:
        assert post(collector.url, first, cut_of(first)).code == "not_now"
        bring(collector.url, second)
        assert_merged(tmp_path / "runs" / "q" / "r", [second])
        (tmp_path / "runs" / "p").unlink()
        bring(collector.url, first)
        assert_merged(tmp_path / "runs" / "p" / "r", [first])


@pytest.mark.system
def test_full_disk_is_said_and_waited_for_and_loses_nothing(tmp_path: Path, hanging_disk: HangingDisk) -> None:
    parts = parts_of(tmp_path / "parts", "p", 2)
    with serving(hanging_disk.path / "runs") as collector:
        bring(collector.url, parts[0], messages=1)
        hanging_disk.fail(errno.ENOSPC, "write")
        answer = post(collector.url, parts[0], cut_of(parts[0]))
        assert (answer.status, answer.code) == (507, "disk_full")
        hanging_disk.go_on()
        for part in parts:
            bring(collector.url, part)
        assert_merged(hanging_disk.path / "runs" / "p" / "r", parts)


# Time


@pytest.mark.system
def test_silent_host_is_named_as_lost_and_a_late_batch_reopens_the_run(tmp_path: Path) -> None:
    parts = parts_of(tmp_path / "parts", "p", 2)
    run = str(tmp_path / "runs" / "p" / "r")
    with serving(tmp_path / "runs", "--lost-after-s", "1") as collector:
        bring(collector.url, parts[0])
        bring(collector.url, parts[1], messages=4, message_bytes=1)
        collector.wait_for("host", run=run, host="b", status="lost")
        wait_until(lambda: manifests.load(Path(run)).status == "finished", "the run has ended without host b")
        bring(collector.url, parts[1])
        collector.wait_for("host", run=run, host="b", status="finished")
    assert {one.host: one.status for one in manifests.load(Path(run)).hosts} == {"a": "finished", "b": "finished"}
    assert_merged(Path(run), parts)


@pytest.mark.system
def test_host_that_was_lost_while_no_collector_ran_is_named(tmp_path: Path) -> None:
    (part,) = parts_of(tmp_path / "parts", "p", 1)
    with serving(tmp_path / "runs") as collector:
        bring(collector.url, part, messages=3, message_bytes=1)
    with serving(tmp_path / "runs", "--lost-after-s", "1") as collector:
        collector.wait_for("host", host="a", status="lost")
    assert manifests.load(tmp_path / "runs" / "p" / "r").status == "crashed"


@pytest.mark.system
def test_sign_of_life_keeps_a_host_from_being_lost(tmp_path: Path) -> None:
    parts = parts_of(tmp_path / "parts", "p", 2)
    with serving(tmp_path / "runs", "--lost-after-s", "1.5") as collector:
        for part in parts:
            bring(collector.url, part, messages=4, message_bytes=1)
        journal = Cutter(parts[0] / "journal", Place()).journal_id
        stop = threading.Event()

        def give_signs() -> None:
            while not stop.wait(0.2):
                PlainCarrier(collector.url, name_of(parts[0])).locate(journal)

        thread = threading.Thread(target=give_signs)
        thread.start()
        try:
            collector.wait_for("host", host="b", status="lost")
            assert not [said for said in collector.events if said.get("host") == "a" and said.get("status") == "lost"]
        finally:
            stop.set()
            thread.join()


@pytest.mark.system
def test_connections_that_say_nothing_or_half_are_closed_and_hold_nobody_up(tmp_path: Path) -> None:
    (part,) = parts_of(tmp_path / "parts", "p", 1)
    with serving(tmp_path / "runs") as collector:
        where = ("127.0.0.1", collector.port)
        silent = [socket.create_connection(where, timeout=40) for _ in range(50)]
        half = socket.create_connection(where, timeout=40)
        half.sendall(b"POST /v1/p/r/a HTTP/1.1\r\nHost: x")
        refused = socket.create_connection(where, timeout=40)
        refused.sendall(b"POST /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        assert b" 404 " in refused.recv(4096).splitlines()[0]
        noise = socket.create_connection(where, timeout=40)
        noise.sendall(bytes(range(256)) * 40)
        bring(collector.url, part)
        assert_merged(tmp_path / "runs" / "p" / "r", [part])
        for connection in (*silent, half, refused, noise):
            with connection, contextlib.suppress(ConnectionError):
                while connection.recv(65536):
                    pass


# TLS


@pytest.mark.system
def test_collector_speaks_tls_and_nothing_else_then(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    options = ["--tls-cert", certificate[0], "--tls-key", certificate[1]]
    with serving(tmp_path / "runs", *options) as collector:
        assert collector.url == f"https://127.0.0.1:{collector.port}"
        context = ssl.create_default_context(cafile=certificate[0])
        connection = http.client.HTTPSConnection("127.0.0.1", collector.port, context=context, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", f"/v1/p/r/a?journal={'0' * 32}", headers={wire.TIME_HEADER: "1"})
            assert connection.getresponse().status == 200
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            ask(f"http://127.0.0.1:{collector.port}", "GET", f"/v1/p/r/a?journal={'0' * 32}")
        carrier = HTTPCarrier(f"http://127.0.0.1:{collector.port}", PartName("p", "r", "a"))
        with pytest.raises(Retry, match=r"cannot be reached: .* Is it one for https\?"):
            carrier.locate(bytes(16))


def test_certificate_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for key, why in (("none", f"there is no {tmp_path / 'none'}"), ("empty", "")):
        told = _run_serve(
            tmp_path, "--listen", "127.0.0.1:0", "--tls-cert", tmp_path / "empty", "--tls-key", tmp_path / key
        )
        said = f"--tls-cert and --tls-key cannot be used: {why}"
        assert (told.returncode, said in told.stderr) == (2, True), told.stderr


# Deliveries


@pytest.mark.system
def test_merged_run_is_delivered_while_it_goes_on(tmp_path: Path) -> None:
    parts = parts_of(tmp_path / "parts", "p", 2)
    run = tmp_path / "runs" / "p" / "r"
    with serving(tmp_path / "runs", "--backends", "jsonl,csv") as collector:
        bring(collector.url, parts[0])
        wait_until(lambda: _lines(run) == 30, "the records of the first host are delivered")
        bring(collector.url, parts[1])
        wait_until(lambda: _lines(run) == 60, "the records of the second host are delivered")
        wait_until(
            lambda: load_cursor(run, "jsonl").closed and load_cursor(run, "csv").closed, "the run's end is delivered"
        )
    ends = {ring: end for ring, end in load_cursor(run, "jsonl").ends.items() if ring != NOTES_RING}
    assert ends == {ring: len(data) for ring, data in rings_of(run).items()}


@pytest.mark.system
def test_killed_collector_and_its_delivery_process_deliver_each_record_once(tmp_path: Path) -> None:
    parts = [make_part(tmp_path / "parts", host, rank=2 * at, batches=100) for at, host in enumerate("ab")]
    run = tmp_path / "runs" / "p" / "r"
    for _ in range(4):
        with serving(tmp_path / "runs", "--backends", "jsonl") as collector:
            before = _lines(run)
            for part in parts:
                bring(collector.url, part, messages=8)
            wait_until(lambda before=before: _lines(run) > before, "some records are delivered")
            collector.kill()
    with serving(tmp_path / "runs", "--backends", "jsonl") as collector:
        for part in parts:
            bring(collector.url, part)
        wait_until(lambda: load_cursor(run, "jsonl").closed, "the run's end is delivered")
    assert_merged(run, parts)
    assert _lines(run) == 1200
    assert len(set((run / "metrics.jsonl").read_text().splitlines())) == 1200


@pytest.mark.system
def test_deliveries_of_a_run_that_had_ended_go_on_when_the_collector_is_started_again(tmp_path: Path) -> None:
    (part,) = parts_of(tmp_path / "parts", "p", 1)
    run = tmp_path / "runs" / "p" / "r"
    with serving(tmp_path / "runs", "--backends", "csv") as collector:
        bring(collector.url, part)
        collector.wait_for("ended", run=str(run))
        collector.kill()  # its delivery process has hardly begun
    with serving(tmp_path / "runs", "--backends", "csv"):
        wait_until(lambda: load_cursor(run, "csv").closed, "the run is delivered")


def _lines(run: Path) -> int:
    try:
        return len((run / "metrics.jsonl").read_text().splitlines())
    except FileNotFoundError:
        return 0


# Kills


class _Hosts:
    """Publishers on threads that go on whatever becomes of the collector."""

    def __init__(self, port: int, parts: Path) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._parts = parts
        self._stopping = threading.Event()
        self._threads: dict[Path, threading.Thread] = {}
        self._watch = threading.Thread(target=self._find)
        self._watch.start()

    def _find(self) -> None:
        while not self._stopping.wait(0.02):
            for part in self._parts.glob("*/*@*"):
                if part not in self._threads:
                    self._threads[part] = threading.Thread(target=self._publish, args=(part,))
                    self._threads[part].start()

    def _publish(self, part: Path) -> None:
        publisher = JournalPublisher(part / "journal", PlainCarrier(self._url, name_of(part)), message_bytes=1)
        while not self._stopping.is_set():
            try:
                if not publisher.advance():
                    self._stopping.wait(0.02)
            except (AsynctrackError, OSError, http.client.HTTPException):
                self._stopping.wait(0.05)
        publisher.close()

    def stop(self) -> None:
        self._stopping.set()
        self._watch.join()
        for thread in self._threads.values():
            thread.join()


@pytest.mark.system
@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_is_lost_or_twice_when_the_collector_is_killed_at_any_moment(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    parts = [
        make_part(tmp_path / "parts", host, rank=2 * at, batches=200, per_batch=2) for at, host in enumerate("abcd")
    ]
    run, port = tmp_path / "runs" / "p" / "r", _free_port()
    hosts = _Hosts(port, tmp_path / "parts")
    try:
        for _ in range(6):
            with serving(tmp_path / "runs", port=port) as collector:
                before = _size(run)
                wait_until(lambda before=before: _size(run) > before or _is_finished(run), "the merged journal grows")
                time.sleep(chance.random() * 0.2)
                collector.kill()
        with serving(tmp_path / "runs", port=port):
            wait_until(lambda: _is_finished(run), "all is merged", 40)
    finally:
        hosts.stop()
    assert_merged(run, parts)
    assert_notes_merged(run, parts)


def _is_finished(run: Path) -> bool:
    with contextlib.suppress(AsynctrackError):
        return manifests.load(run).status == "finished"
    return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def _size(run: Path) -> int:
    return sum(path.stat().st_size for path in (run / "journal").glob("*"))


CRASHING = """
import os
from asynctrack.backends.base import Backend

class Crashing(Backend, frozen=True, kw_only=True, tag="crashing"):
    execution = "process"

    def open(self, context):
        os.abort()
"""


@pytest.mark.system
def test_backend_that_crashes_its_process_harms_neither_the_collector_nor_the_others(tmp_path: Path) -> None:
    (part,) = parts_of(tmp_path / "parts", "p", 1)
    (tmp_path / "crashing_sdk.py").write_text(CRASHING)
    run = tmp_path / "runs" / "p" / "r"
    options = ["--backends", "crashing_sdk.Crashing,jsonl"]
    with serving(tmp_path / "runs", *options, environment={"PYTHONPATH": str(tmp_path)}) as collector:
        bring(collector.url, part, messages=3, message_bytes=1)
        wait_until(lambda: "its process has ended" in str(load_cursor(run, "crashing").last_error), "it has crashed")
        bring(collector.url, part)
        wait_until(lambda: load_cursor(run, "jsonl").closed, "the other backend has the run's end")
        assert collector.stop() == 0
    assert_merged(run, [part])
