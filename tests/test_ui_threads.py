"""A run whose disk hangs holds up no other run, no answer that does not need it, and no end of the server."""

from __future__ import annotations

import asyncio
import http.client
import threading
import time
from pathlib import Path

import pytest
from hanging_disk import HangingDisk
from page_server import PageProcess, blocks_in, made_runs, page_of, rows_of
from support import wait_until

from asynctrack.ui.file_threads import FileThreads, NoAnswer

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_calls_of_one_lane_follow_each_other() -> None:
    threads, seen = FileThreads(), list[str]()
    hold = threading.Event()

    def slow() -> None:
        hold.wait(20)
        seen.append("slow")

    first = asyncio.create_task(threads.call("run", slow))
    await asyncio.sleep(0)
    second = asyncio.create_task(threads.call("run", lambda: seen.append("quick")))
    assert await threads.call("other", lambda: list(seen)) == []
    hold.set()
    await asyncio.gather(first, second)
    assert seen == ["slow", "quick"]


async def test_call_that_hangs_is_given_up_and_its_lane_refuses_until_it_has_ended() -> None:
    threads, hold = FileThreads(patience_s=0.05), threading.Event()
    with pytest.raises(NoAnswer, match="does not answer"):
        await threads.call("run", lambda: hold.wait(20))
    began = time.monotonic()
    with pytest.raises(NoAnswer):
        await threads.call("run", lambda: None)
    assert time.monotonic() - began < 0.05
    assert await threads.call("other", lambda: 1) == 1
    hold.set()
    async with asyncio.timeout(20):
        while True:
            try:
                assert await threads.call("run", lambda: 2) == 2
                break
            except NoAnswer:
                await asyncio.sleep(0.005)


async def test_who_goes_away_does_not_let_two_calls_into_a_lane() -> None:
    threads, hold, busy = FileThreads(), threading.Event(), list[int]()

    def call() -> int:
        busy.append(1)
        try:
            hold.wait(20)
            return len(busy)
        finally:
            busy.pop()

    gone = asyncio.create_task(threads.call("run", call))
    while not busy:
        await asyncio.sleep(0.001)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    others = [asyncio.create_task(threads.call("run", call)) for _ in range(3)]
    await asyncio.sleep(0)
    hold.set()
    assert await asyncio.gather(*others) == [1, 1, 1]


async def test_error_of_a_call_is_its_callers() -> None:
    with pytest.raises(ZeroDivisionError):
        await FileThreads().call("run", lambda: 1 / 0)


async def test_hanging_calls_leave_room_for_others_up_to_a_limit() -> None:
    threads, hold = FileThreads(patience_s=0.3), threading.Event()
    hung = [asyncio.create_task(threads.call(f"run {at}", lambda: hold.wait(20))) for at in range(3)]
    assert await threads.call("quick", lambda: 1) == 1
    found = await asyncio.gather(*hung, return_exceptions=True)
    assert all(isinstance(one, NoAnswer) for one in found)
    hold.set()


@pytest.mark.system
async def test_run_whose_disk_hangs_holds_up_no_other(hanging_disk: HangingDisk, tmp_path: Path) -> None:
    made_runs(hanging_disk.backing, {"p/hung": [{"loss": 1.0}] * 3})
    made_runs(tmp_path / "runs", {"q/good": [{"loss": 1.0}] * 3})
    with page_of(hanging_disk.path, tmp_path / "runs", patience_s=6.0) as page:
        try:
            wait_until(lambda: rows_of(page).keys() == {"p/hung", "q/good"}, "both are listed")
            hanging_disk.hang()
            await asyncio.to_thread(_assert_others_are_answered, page)
        finally:
            hanging_disk.go_on()
        wait_until(lambda: page.get("run", run="p/hung").status == 200, "the disk is well again")


def _assert_others_are_answered(page: PageProcess) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=40)
    target = "/api/curves?run=p/hung&run=q/good&key=loss"
    connection.request("GET", target, headers={"Authorization": f"Bearer {page.token}"})
    began = time.monotonic()
    answer = connection.getresponse()
    first = answer.read1()
    assert [one.header["run"] for one in blocks_in(first)] == ["q/good"]
    for name in ("runs", "run?run=q/good", "media?run=q/good&key=x", "select?where=records > 1".replace(" ", "%20")):
        assert page.ask(f"/api/{name}").status == 200
    assert time.monotonic() - began < 10
    assert page.get("run", run="p/hung").status == 503
    again = time.monotonic()
    refused = page.get("run", run="p/hung")
    assert refused.status == 503 and "does not answer" in refused.error
    assert time.monotonic() - again < 2
    assert answer.read() == b""
    connection.close()
