"""What the calling process promises to return by a deadline does so on a disk that hangs."""

from __future__ import annotations

import errno
import runpy
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest
from hanging_disk import HangingDisk
from support import assert_whole, wait_until

import asynctrack
from asynctrack import Run
from asynctrack._system.disk_timeout import DiskTimeout
from asynctrack.delivery.lease import Lease
from asynctrack.delivery.progress import DeliveryProgress
from asynctrack.journal.cursor import lease_path, load_cursor
from asynctrack.queue.layout import LAST_ERRNO, NO_ANSWER
from asynctrack.reading.stats import StatsCollector

# Of a second that files are waited for beyond a deadline, and of a busy machine.
LATE_S = 5.0


@pytest.fixture
def disk(hanging_disk: HangingDisk) -> Iterator[HangingDisk]:
    yield hanging_disk
    hanging_disk.go_on()


def run_on(disk: HangingDisk) -> Run:
    run = asynctrack.init("p", id="run", dir=disk.path / "runs", finish_timeout_s=1.0)
    for i in range(100):
        run.log({"i": i})
    run.flush()
    return run


def takes_s(work: Callable[[], object]) -> float:
    begin = time.monotonic()
    work()
    return time.monotonic() - begin


@pytest.mark.system
@pytest.mark.parametrize("kinds", [(), ("open", "read", "stat"), ("write", "sync")])
def test_statistics_flush_and_finish_keep_their_deadlines(
    disk: HangingDisk, own_host: Path, kinds: tuple[str, ...]
) -> None:
    run = run_on(disk)
    disk.hang(*kinds)  # type: ignore[arg-type]  # kinds
    for i in range(100, 150):
        assert run.log({"i": i})
    assert takes_s(lambda: run.stats()) < LATE_S
    assert takes_s(lambda: run.flush("synced", 0.5)) < 0.5 + LATE_S
    before = threading.active_count()
    assert sum(takes_s(lambda: run.stats()) for _ in range(5)) < LATE_S
    assert threading.active_count() <= before
    assert takes_s(lambda: run.finish()) < 1 + LATE_S
    stats = run.stats()
    assert stats.accepted == 150
    assert stats.journaled + stats.queued == 150
    disk.go_on()
    path = disk.backing / "runs" / "p" / "run"  # what looks there meets no file that FUSE has just replaced
    wait_until(lambda: asynctrack.open_run(path).status == "finished", "the worker goes on")
    wait_until(lambda: load_cursor(path, "jsonl").delivered == 150, "all is delivered")
    assert_whole(path, {"i": 150})


@pytest.mark.system
def test_finish_keeps_its_deadline_where_the_disk_with_the_source_of_the_error_hangs(
    disk: HangingDisk, shared_host: Path, runs: Path
) -> None:
    source = disk.path / "of_the_error.py"
    source.write_text("def fall():\n    raise ValueError('here')\n")
    code = runpy.run_path(str(source))
    run = asynctrack.init("p", dir=runs)
    disk.hang()

    def fail() -> None:
        with pytest.raises(ValueError, match="here"), run:
            code["fall"]()

    try:
        assert takes_s(fail) < LATE_S
    finally:
        disk.go_on()
    found = asynctrack.open_run(run.path)
    assert (found.manifest().error, found.traceback) == ("ValueError: here", None)


@pytest.mark.system
def test_finish_counts_what_was_delivered_after_a_disk_has_answered_again(disk: HangingDisk, own_host: Path) -> None:
    run = asynctrack.init("p", id="run", dir=disk.path / "runs")
    run.log({"i": 0})
    words = run._publisher.producer.ring.words
    disk.hang("write")
    finishing = threading.Thread(target=run.finish)
    finishing.start()
    try:
        wait_until(lambda: words[LAST_ERRNO] == NO_ANSWER, "the worker sees that the disk hangs")
    finally:
        disk.go_on()
        finishing.join()
    assert (run.stats().journaled, run.stats().backends["jsonl"].delivered) == (1, 1)
    assert words[LAST_ERRNO] == 0


def test_statistics_that_fail_before_their_disk_hangs_are_the_last_that_could_be_read(
    shared_host: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = asynctrack.init("p", dir=runs)
    run.log({"i": 0})
    run.flush()
    failures, back = [OSError(errno.EMFILE, "too many open files")], threading.Event()

    def collect(*_: object) -> None:
        if failures:
            raise failures.pop()
        back.wait()

    with monkeypatch.context() as patch:
        patch.setattr(StatsCollector, "collect", collect)
        stats = run.stats()
    back.set()
    assert (stats.accepted, stats.journaled) == (1, 1)
    run.finish()


@pytest.mark.system
def test_patience_waits_for_who_gets_on_and_not_for_who_stands_still() -> None:
    def get_on() -> str:
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            time.sleep(0.02)
        return "done"

    assert DiskTimeout().call(get_on, 0.4) == "done"
    with pytest.raises(TimeoutError):
        DiskTimeout().call(get_on, 0.4, 0.5)
    back, begin = threading.Event(), time.monotonic()
    with pytest.raises(TimeoutError):
        DiskTimeout().call(back.wait, 0.4, 30.0)
    assert time.monotonic() - begin < 20
    back.set()


def test_patience_sends_nobody_after_one_who_has_not_come_back() -> None:
    patience, back = DiskTimeout(), threading.Event()
    assert patience.call(lambda: 3, 1.0) == 3
    with pytest.raises(ZeroDivisionError):
        patience.call(lambda: 1 / 0, 1.0)
    with pytest.raises(TimeoutError, match="has not answered"):
        patience.call(back.wait, 0.05)
    sent: list[int] = []
    with pytest.raises(TimeoutError, match="does not answer"):
        patience.call(lambda: sent.append(1), 1.0)
    back.set()
    wait_until(lambda: not patience.is_over, "it is back")
    patience.call(lambda: sent.append(2), 1.0)
    assert sent == [2]


@pytest.mark.system
def test_backend_counts_as_left_to_a_person_once_its_cursor_says_so(disk: HangingDisk) -> None:
    """Who waits for it ends then, and takes the thread along that writes the cursor."""
    path = disk.path / "run"
    (path / "cursors").mkdir(parents=True)
    progress = DeliveryProgress(path, "mine", Lease(lease_path(path, "mine")), keep=False)
    early: list[bool] = []

    async def fail() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(progress.fail, "KeyError", "2030-01-01", True)
            while not disk.waiting():
                await anyio.sleep(0.01)
            early.append(progress.cursor.paused)
            disk.go_on()

    disk.hang("write")
    anyio.run(fail)
    assert early == [False]
    assert progress.cursor.paused
    assert load_cursor(path, "mine").paused
