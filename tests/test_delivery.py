"""Delivery: what a backend's errors lead to, limits, leases and copies; and four backends at once of which three are no good."""

from __future__ import annotations

import json
import math
import random
import shutil
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
from delivery_support import assert_balanced, cursor, gone, journal, steps
from support import ROOT, lines, outcome, start, the_worker, values, wait_until

import asynctrack
from asynctrack import ActionRequired, Backend, Batch, Context, Rejected, Retry, Sink
from asynctrack.backends.base import Unreachable
from asynctrack.client import shutdown
from asynctrack.delivery import polling, retry_policy
from asynctrack.delivery.batcher import Batcher
from asynctrack.delivery.dead_letters import FILE_NAME as REFUSED
from asynctrack.delivery.polling import Poller
from asynctrack.delivery.retry_policy import classify_error
from asynctrack.errors import BackendUnavailable, InvalidSettings
from asynctrack.journal.cursor import cursor_path, lease_path
from asynctrack.queue.layout import WORKER_PID
from asynctrack.reading.stats import RunStats, StatsCollector
from asynctrack.testing import (
    JournaledRun,
    Scripted,
    ScriptedInCaller,
    ScriptedInProcess,
    Trouble,
    calls,
    deliver,
    taken,
)

pytestmark = pytest.mark.usefixtures("own_state")

PLACES: dict[str, type[Scripted]] = {"worker": Scripted, "process": ScriptedInProcess, "caller": ScriptedInCaller}
ENDLESS = {"times": None}


def trouble(does: Any, **how: Any) -> Trouble:
    return Trouble(does=does, **how)


def name_of(backend: Backend) -> str:
    return type(backend).__name__


def dead_letters(run: Path) -> list[dict[str, Any]]:
    path = run / REFUSED
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def stats_of(run: Path, name: str = "backend") -> RunStats:
    collector = StatsCollector(run)
    stats = collector.collect([], [], [name])
    collector.close()
    assert_balanced(stats)
    return stats


# What an error means


@pytest.mark.parametrize(
    ("asked_s", "wait_s"),
    [(5, 5), (0.25, 0.25), (10**6, 3600), (math.inf, 3600), (0, None), (-3, None), (math.nan, None)],
)
def test_retry_after_is_honoured_within_bounds(
    asked_s: float, wait_s: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    for failures, longest_s in ((1, 1.0), (3, 4.0)):
        found = classify_error(Retry("busy", asked_s), failures)
        assert found == (longest_s if wait_s is None else wait_s, False)


@pytest.mark.parametrize(
    ("error", "most_s"), [(ConnectionResetError(), 60.0), (Retry("busy"), 60.0), (Unreachable("nobody is there"), 10.0)]
)
def test_other_waits_are_jittered_fully_below_a_limit_that_doubles(error: Exception, most_s: float) -> None:
    random.seed(7)
    for failures in range(1, 40):
        longest_s = min(most_s, 2.0 ** (failures - 1))
        waits = [classify_error(error, failures).wait_s for _ in range(300)]
        assert 0 < min(waits) < 0.1 * longest_s + 0.05
        assert 0.9 * longest_s < max(waits) <= longest_s
    assert retry_policy.back_off(10**6) <= 60.0


MENDED_BY_A_PERSON = {
    ActionRequired("renew the key"): retry_policy.PAUSE_S,
    ModuleNotFoundError("No module named 'wandb'", name="wandb"): retry_policy.PAUSE_S,
    BackendUnavailable("mlflow", "it is gone"): retry_policy.PAUSE_S,
    OSError(28, "No space left on device"): retry_policy.DISK_PAUSE_S,
    PermissionError(13, "Permission denied"): retry_policy.DISK_PAUSE_S,
}


@pytest.mark.parametrize("error", MENDED_BY_A_PERSON)
def test_what_only_a_person_can_mend_is_tried_as_seldom_from_the_first_time_on(error: Exception) -> None:
    assert classify_error(error, 1) == classify_error(error, 20) == (MENDED_BY_A_PERSON[error], True)


class Rude(Exception):
    def __str__(self) -> str:
        raise ValueError("no text either")


@pytest.mark.parametrize("error", [Rude(), Retry("x" * 10**6), ActionRequired("\udcff"), Retry("")])
def test_any_error_can_be_told(error: Exception, tmp_path: Path) -> None:
    assert len(retry_policy.describe(error).encode()) <= 2000


@pytest.mark.system
@pytest.mark.parametrize("place", PLACES)
def test_what_fails_is_given_again_until_it_works(place: str, own_host: Path, runs: Path) -> None:
    does = {"retry": trouble("retry", times=2, seconds=0.2), "quit": trouble("quit")}
    backends = [PLACES[place](file=file, troubles=(how,)) for file, how in does.items()]
    with asynctrack.init("p", dir=runs, backends=backends) as run:
        for i in range(100):
            run.log({"i": i})
    stats = run.finish()
    assert_balanced(stats)
    for (name, found), file in zip(stats.backends.items(), does, strict=True):
        assert (found.delivered, found.last_error) == (100, None)
        assert steps(run.path, file=file) == list(range(100))
        troubles = [call.at for call in calls(run.path, file) if call.did == "trouble"]
        assert file == "quit" or troubles[1] - troubles[0] >= 0.19
        assert cursor(run.path, name).retries == len(troubles)


def test_sink_that_fails_to_open_checkpoint_or_close_is_asked_again(tmp_path: Path) -> None:
    run = journal(tmp_path / "p" / "a", 30)
    troubles = tuple(trouble("retry", on=on, seconds=0.01, times=2) for on in ("open", "checkpoint", "close"))
    found = deliver(run.path, Scripted(troubles=troubles))
    assert (found.closed, found.delivered, found.last_error, found.retries) == (True, 30, None, 6)
    assert steps(run.path) == list(range(30))
    assert [call.outcome for call in calls(run.path) if call.did == "close"][-1] == "finished"


def test_run_is_closed_once_its_end_is_delivered_and_not_before(tmp_path: Path) -> None:
    run = journal(tmp_path / "p" / "a", 30, end=False)
    assert not deliver(run.path, Scripted()).closed
    with JournaledRun(tmp_path / "p" / "b") as other:
        other.end("failed")
    assert deliver(other.path, Scripted()).closed
    assert [call.did for call in calls(other.path)] == ["open", "checkpoint", "close"]
    assert calls(other.path)[-1].outcome == "failed"


# Splitting and refusing


@pytest.mark.parametrize("does", ["too_large", "refuse", "named"])
def test_records_that_a_backend_never_takes_are_kept_with_the_reason_and_the_others_come_in_order(
    tmp_path: Path, does: str
) -> None:
    run = journal(tmp_path / "p" / "a", 100)
    how: dict[str, Any] = {"does": "refuse", "named": True} if does == "named" else {"does": does}
    troubles = tuple(Trouble(step=step, times=None, **how) for step in (0, 41, 42, 99))
    found = deliver(run.path, Scripted(troubles=troubles))
    assert steps(run.path) == [step for step in range(100) if step not in (0, 41, 42, 99)]
    assert (found.delivered, found.rejected) == (96, 4)
    assert stats_of(run.path).behind == 0
    kept = dead_letters(run.path)
    assert [line["step"] for line in kept] == [0, 41, 42, 99]
    assert {line["reason"] for line in kept} == {"too large" if does == "too_large" else "not these"}
    assert [line["data"] for line in kept] == [{"i": line["step"]} for line in kept]
    writes = [call for call in calls(run.path) if call.did == "write"]
    assert len(writes) == 1 if does == "named" else len(writes) < 40


def test_batch_that_is_too_large_is_halved_until_it_is_taken(tmp_path: Path) -> None:
    run = journal(tmp_path / "p" / "a", 1000)
    deliver(run.path, Small())
    assert steps(run.path) == list(range(1000))
    assert max(len(call.records) for call in calls(run.path)) == 63


class Small(Scripted, frozen=True, kw_only=True):
    def open(self, context: Context) -> Sink:
        return SmallSink(super().open(context))


class SmallSink(Sink):
    def __init__(self, sink: Sink) -> None:
        self.sink = sink

    def write(self, batch: Batch) -> Any:
        if len(batch.records) > 64:
            raise asynctrack.TooLarge("at most 64")
        return self.sink.write(batch)


def test_rejected_update_takes_no_record_along(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "a") as run:
        run.log({"i": 0}, 0)
        for kind in ("good", "fine", "bad"):
            run.update("summary", {kind: 1})
        run.end()
    found = deliver(run.path, Picky())
    assert (found.delivered, found.rejected) == (1, 0)
    assert [update for call in calls(run.path) for update in call.updates] == [
        ("summary", {"good": 1}),
        ("summary", {"fine": 1}),
    ]


class Picky(Scripted, frozen=True, kw_only=True):
    def open(self, context: Context) -> Sink:
        return PickySink(super().open(context))


class PickySink(SmallSink):
    def write(self, batch: Batch) -> Any:
        if any("bad" in update.data for update in batch.updates):
            raise Rejected("a bad one")
        return self.sink.write(batch)


# Pausing


SAID = {"pause": "the key is wrong: renew it", "missing": "it needs no_such_library", "full": "No space left"}


@pytest.mark.system
@pytest.mark.parametrize("place", PLACES)
def test_finish_does_not_wait_for_what_a_person_has_to_mend(place: str, rough_host: Path, runs: Path) -> None:
    backends = [PLACES[place](file=does, troubles=(trouble(does, times=None),)) for does in SAID]
    run = asynctrack.init("p", dir=runs, backends=["jsonl", *backends], finish_timeout_s=60.0)
    for i in range(100):
        run.log({"i": i})
    begin = time.monotonic()
    stats = run.finish()
    assert time.monotonic() - begin < 30
    assert_balanced(stats)
    good, *paused = stats.backends.items()
    assert good[1].behind == 0
    for (name, found), text in zip(paused, SAID.values(), strict=True):
        assert found.behind == 100
        assert text in str(found.last_error)
        assert cursor(run.path, name).paused


@pytest.mark.parametrize("place", ["worker", "caller"])
def test_paused_backend_is_told_once_a_minute_and_goes_on_when_it_is_mended(
    place: str, own_host: Path, runs: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(retry_policy, "PAUSE_S", 0.05)
    backend = PLACES[place](troubles=(trouble("pause", times=None, until="mended"),))
    run = asynctrack.init("p", dir=runs, backends=[backend], worker="thread")
    for i in range(100):
        run.log({"i": i})
    name = name_of(backend)
    wait_until(lambda: cursor(run.path, name).retries > 5, "it is tried again and again")
    assert cursor(run.path, name).next_try_at is not None
    assert_balanced(run.stats())
    assert run.stats().backends[name].behind == 100
    told = [record.getMessage() for record in caplog.records if "the key is wrong" in record.getMessage()]
    told = [text.removeprefix("asynctrack: ") for text in told]
    assert told == [f"{name} of {run.path}: the key is wrong: renew it: waiting for you to fix that"]
    (run.path / "mended").touch()
    assert run.flush().backends[name].delivered == 100
    run.log({"i": 100})
    stats = run.finish()
    assert (stats.backends[name].delivered, stats.backends[name].last_error) == (101, None)
    assert steps(run.path) == list(range(101))


# What a sink or a disk may do besides


def test_state_that_json_cannot_hold_stops_this_backend_only(
    own_host: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = asynctrack.init(
        "p", dir=runs, backends=["jsonl", Strange()], worker="thread", finish_timeout_s=0.5, after_exit_max_s=0
    )
    run.log({"i": 0})
    run.flush("journaled")
    wait_until(lambda: cursor(run.path, "jsonl").delivered == 1, "the other one gets on")
    wait_until(lambda: cursor(run.path, "Strange").last_error, "it says why")
    stats = run.finish()
    assert_balanced(stats)
    assert stats.backends["Strange"].behind == 1


def removals(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "was removed" in record.getMessage()]


@pytest.mark.system
def test_worker_goes_on_for_as_long_as_finish_waits(
    own_host: Path, runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    away = trouble("retry", times=None, seconds=0.1, until="back")
    run = asynctrack.init("p", dir=runs, backends=[Scripted(troubles=(away,))], after_exit_max_s=0)
    run.log({"i": 0})
    run.flush("journaled")
    worker = the_worker(own_host)
    back = threading.Timer(2.0, (run.path / "back").touch)  # another worker would have been started by then
    back.start()
    assert run.finish().backends["Scripted"].delivered == 1
    assert run._publisher.producer.ring.words[WORKER_PID] == worker
    assert removals(caplog) == []


def test_finish_does_not_wait_for_threads_that_have_left_the_rest_to_sync(
    own_host: Path, runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    away = trouble("retry", times=None, seconds=0.1)
    run = asynctrack.init(
        "p", dir=runs, backends=[Scripted(troubles=(away,))], worker="thread", after_exit_max_s=0, finish_timeout_s=60
    )
    run.log({"i": 0})
    begin = time.monotonic()
    assert run.finish().behind == 1
    assert time.monotonic() - begin < 30
    assert not shutdown.is_open(run.path)  # else the end of the process would wait for it, and miss its queue
    assert removals(caplog) == []


class Strange(Backend, frozen=True, kw_only=True):
    execution = "worker"

    def open(self, context: Context) -> Sink:
        return StrangeSink()


class StrangeSink(Sink):
    def write(self, batch: Batch) -> Any:
        return len(batch.records)

    def checkpoint(self) -> Any:
        return {"state": object()}


def test_write_that_returns_nonsense_is_not_repeated(tmp_path: Path) -> None:
    run = journal(tmp_path / "p" / "a", 30)
    given = []

    class Wordy(Backend, frozen=True, kw_only=True):
        def open(self, context: Context) -> Sink:
            return WordySink()

    class WordySink(Sink):
        def write(self, batch: Batch) -> Any:
            given.extend(record.step for record in batch.records)
            return len(given)

    found = deliver(run.path, Wordy())
    assert (found.delivered, found.retries) == (30, 0)
    assert given == list(range(30))


def test_what_a_sink_cannot_show_is_skipped_by_reason(tmp_path: Path) -> None:
    run = journal(tmp_path / "p" / "a", 30)

    class Blind(Backend, frozen=True, kw_only=True):
        batch_records = 10

        def open(self, context: Context) -> Sink:
            return BlindSink()

    class BlindSink(Sink):
        def write(self, batch: Batch) -> dict[str, int]:
            return {"text": 2, "arrays": 1}

    found = deliver(run.path, Blind())
    assert (found.delivered, found.skipped) == (21, {"text": 6, "arrays": 3})


def test_sink_that_starts_over_gets_the_whole_run_again(tmp_path: Path) -> None:
    run = journal(tmp_path / "p" / "a", 30)
    found = deliver(run.path, Few(troubles=(trouble("start_over", after=2),)))
    assert steps(run.path) == [*range(20), *range(30)]
    assert (found.delivered, stats_of(run.path).behind) == (30, 0)


def test_sink_that_always_starts_over_does_so_ever_more_seldom(tmp_path: Path) -> None:
    run = journal(tmp_path / "p" / "a", 30)
    with pytest.raises(TimeoutError):
        deliver(run.path, Few(troubles=(trouble("start_over", times=None),)), timeout_s=1.0)
    assert len([call for call in calls(run.path) if call.did == "trouble"]) < 12


@pytest.mark.system
@pytest.mark.parametrize("on", ["close", "write"])
def test_sink_that_takes_much_and_then_starts_over_each_time_does_so_ever_more_seldom(on: str, tmp_path: Path) -> None:
    run = journal(tmp_path / "p" / "a", 30)
    again = trouble("start_over", times=None, on=on, step=25 if on == "write" else None)
    with pytest.raises(TimeoutError):
        deliver(run.path, Few(troubles=(again,)), timeout_s=1.0)
    assert 1 < len([call for call in calls(run.path) if call.did == "trouble"]) < 12


def test_cursor_that_cannot_be_saved_is_saved_when_it_can(tmp_path: Path) -> None:
    run = journal(tmp_path / "p" / "a", 30, end=False)
    obstacle = run.path / "cursors" / ".backend.json.new"
    obstacle.mkdir(parents=True)

    async def work() -> int:
        poller = Poller(run.path, {"backend": Few()}, keep=True)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(poller.run)
            with anyio.fail_after(20):
                while not steps(run.path):
                    await anyio.sleep(0.01)
                assert not poller.has(poller_ring(run), 1)
                obstacle.rmdir()
                poller.expedite()
                while cursor(run.path).delivered < 30:
                    await anyio.sleep(0.01)
                    poller.expedite()
            poller.stop()
        return len(steps(run.path))

    assert anyio.run(work) == 30


def poller_ring(run: JournaledRun) -> int:
    return taken(run.path)[0].ring


class Few(Scripted, frozen=True, kw_only=True):
    batch_records = 10


class Hung(Backend, frozen=True, kw_only=True):
    """Takes a batch when a file appears."""

    until: Path

    def open(self, context: Context) -> Sink:
        return HungSink(self.until)


class HungSink(Sink):
    def __init__(self, until: Path) -> None:
        self.until = until

    def write(self, batch: Batch) -> None:
        wait_until(self.until.exists, "the test goes on", 60)


def test_sinks_that_hang_leave_others_their_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "STOP_WAIT_S", 0.1)
    run = journal(tmp_path / "p" / "a", 30)
    released = tmp_path / "released"
    hung = {f"hung-{i}": Hung(until=released) for i in range(60)}

    async def work() -> None:
        poller = Poller(run.path, {**hung, "good": Scripted()}, keep=True)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(poller.run)
            with anyio.fail_after(30):
                while not cursor(run.path, "good").closed:
                    await anyio.sleep(0.01)
            assert sum(delivery.busy_since is not None for delivery in poller.deliveries) == 60
            poller.stop()
        released.touch()

    anyio.run(work)


def test_delivery_that_begins_while_the_first_segment_cannot_be_seen_goes_on_when_it_can(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "a", segment_bytes=1000) as run:
        for step in range(100):
            run.log({"loss": step}, step)
            run.journal()
        run.end_ring()
        run.end()
    first = min((run.path / "journal").iterdir())
    aside = first.rename(tmp_path / "aside")

    async def work() -> None:
        poller = Poller(run.path, {"backend": Scripted()}, keep=True)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(poller.run)
            await anyio.sleep(3 * polling._POLL_S)
            assert not poller.deliveries
            aside.rename(first)
            with anyio.fail_after(30):
                while not cursor(run.path).closed:
                    await anyio.sleep(0.01)

    anyio.run(work)
    assert steps(run.path) == list(range(100))


# Limits


@pytest.mark.parametrize("rate", [0, -1, math.nan, math.inf, True, "10"])
@pytest.mark.parametrize("limit", ["max_records_s", "downsample_interval_s", "stall_timeout_s"])
def test_limit_that_is_no_rate_is_refused(limit: str, rate: Any) -> None:
    with pytest.raises(InvalidSettings, match=limit):
        Scripted(**{limit: rate})


def test_rate_limit_holds_also_for_the_halves_of_a_batch(tmp_path: Path) -> None:
    run = journal(tmp_path / "p" / "a", 160)
    begin = time.monotonic()
    deliver(run.path, Scripted(max_records_s=100.0, troubles=(trouble("too_large", times=3),)))
    assert steps(run.path) == list(range(160))
    assert 0.9 < time.monotonic() - begin < 15
    found = [(call.at, len(call.records)) for call in calls(run.path) if call.records]
    assert [count for _, count in found[:4]] == [12, 13, 25, 50]
    for index, (at, _) in enumerate(found):  # no more than the rate, but for one batch
        assert sum(count for _, count in found[:index]) <= 100 * (at - found[0][0] + 0.05)


def test_finish_does_not_wait_for_the_rate_once_all_is_delivered(tmp_path: Path) -> None:
    run = journal(tmp_path / "p" / "a", 1)
    assert deliver(run.path, Scripted(max_records_s=0.01), timeout_s=10).closed


class Seven(Scripted, frozen=True, kw_only=True):
    batch_records = 7


class Thousand(Scripted, frozen=True, kw_only=True):
    batch_bytes = 1000


class Old(Scripted, frozen=True, kw_only=True):
    batch_age_s = 0.5


@pytest.mark.parametrize(("backend", "most"), [(Seven(), 7), (Thousand(), 33), (Scripted(), 10_000)])
def test_batches_are_cut_by_count_and_by_bytes(tmp_path: Path, backend: Scripted, most: int) -> None:
    run = journal(tmp_path / "p" / "a", 2000)
    deliver(run.path, backend)
    sizes = [len(call.records) for call in calls(run.path) if call.did == "write"]
    assert steps(run.path) == list(range(2000))
    assert max(sizes) <= most
    assert len(sizes) <= 2000 / (most * 0.7) + 1


def test_batches_are_cut_by_age_but_not_when_somebody_waits(own_host: Path, runs: Path) -> None:
    run = asynctrack.init("p", dir=runs, backends=[Old()], linger_s=0.01)
    begin = time.monotonic()
    while (aged_s := time.monotonic() - begin) < 1.2:
        run.log({"i": 0})
        time.sleep(0.01)
    wait_until(lambda: cursor(run.path, "Old").delivered, "the first batch is old enough")
    writes = [call for call in calls(run.path) if call.did == "write"]
    assert len(writes) <= aged_s / 0.5 + 2
    assert min(call.at for call in writes) - begin > 0.4
    run.log({"last": 1})
    run.flush()
    assert taken(run.path)[-1].data == {"last": 1}
    run.finish()


def test_reading_a_long_stretch_leaves_the_loop_to_others(tmp_path: Path) -> None:
    run = journal(tmp_path / "p" / "a", 30_000)
    backend = Scripted(downsample_interval_s=1e6)
    batcher = Batcher(run.path, cursor(run.path), backend)
    pieces = 0
    while batcher.gather():
        pieces += 1
    assert pieces >= 3
    cut = batcher.take(expedite=True)
    assert cut is not None
    assert [record.step for record in cut.batch.records] == [0, 29_999]
    assert cut.skipped == {"downsampled": 29_998}
    batcher.close()


# Leases


HELD = """
import json
from pathlib import Path
from asynctrack.testing import Scripted, deliver

deliver(Path(sys.argv[1]), Scripted(write_s=float(sys.argv[2])), name=sys.argv[3])
print(json.dumps("done"))
"""


def lease_is_taken(run: Path) -> bool:
    """Whether a process has the lease; asked by another one, since asking would give up our own."""
    script = f"from asynctrack._system import locks; print(locks.is_taken({str(lease_path(run, 'backend'))!r}))"
    asked = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return asked.stdout.strip() == "True"


@pytest.mark.system
def test_deliverers_of_the_same_wait_for_each_other(tmp_path: Path) -> None:
    run = journal(tmp_path / "p" / "a", 100)
    others = [start(HELD, run.path, 0.2, "backend") for _ in range(3)]
    try:
        assert deliver(run.path, Scripted(write_s=0.2)).closed
    finally:
        assert [outcome(other) for other in others] == ["done"] * 3
    assert steps(run.path) == list(range(100))
    assert len([call for call in calls(run.path) if call.did == "close"]) == 1


@pytest.mark.system
def test_live_worker_and_a_second_deliverer_never_deliver_the_same(own_host: Path, runs: Path) -> None:
    run = asynctrack.init("p", dir=runs, backends=[Scripted(write_s=0.02)])
    run.log({"i": 0})
    run.flush()
    second = start(HELD, run.path, 0.0, "Scripted")
    for i in range(1, 300):
        run.log({"i": i})
        time.sleep(0.001)
    run.finish()
    assert outcome(second) == "done"
    assert steps(run.path) == list(range(300))
    assert len({call.pid for call in calls(run.path)}) == 1


def test_lease_of_a_killed_deliverer_is_free_at_once(tmp_path: Path) -> None:
    run = journal(tmp_path / "p" / "a", 100)
    killed = start(HELD, run.path, 1000.0, "backend")
    wait_until(lambda: [call for call in calls(run.path) if call.did == "open"], "it delivers")
    assert lease_is_taken(run.path)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert deliver(run.path, Scripted(), timeout_s=10).closed
    assert steps(run.path) == list(range(100))


def test_lease_is_kept_while_a_sink_that_was_given_up_still_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "STOP_WAIT_S", 0.05)
    run = journal(tmp_path / "p" / "a", 100)
    released = tmp_path / "released"

    async def work() -> None:
        poller = Poller(run.path, {"backend": Hung(until=released)}, keep=True)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(poller.run)
            while not (
                poller.deliveries and poller.deliveries[0].busy_since and cursor_path(run.path, "x").parent.exists()
            ):
                await anyio.sleep(0.01)
            await anyio.sleep(0.1)
            poller.stop()
        assert lease_is_taken(run.path)
        released.touch()

    anyio.run(work)
    wait_until(lambda: not lease_is_taken(run.path), "it has been given back")


# Copies


class Shows(Scripted, frozen=True, kw_only=True):
    idempotent = False


@pytest.fixture
def half_delivered(tmp_path: Path) -> Iterator[JournaledRun]:
    with JournaledRun(tmp_path / "p" / "a") as run:
        for step in range(10):
            run.log({"i": step}, step)
        run.journal()
        assert deliver(run.path, Shows()).delivered == 10
        for step in range(10, 20):
            run.log({"i": step}, step)
        run.end()
        yield run


def test_copy_of_a_run_is_not_delivered_where_repeats_show(half_delivered: JournaledRun, tmp_path: Path) -> None:
    copy = tmp_path / "p" / "copy"
    shutil.copytree(half_delivered.path, copy)
    with pytest.raises(TimeoutError):
        deliver(copy, Shows(), timeout_s=0.5)
    found = cursor(copy)
    assert found.paused
    assert "--force" in str(found.last_error)
    assert (found.delivered, stats_of(copy).backends["backend"].behind) == (10, 10)
    assert deliver(copy, Shows(), force=True).closed
    assert steps(copy) == list(range(20))
    assert deliver(half_delivered.path, Shows()).closed
    assert steps(half_delivered.path) == list(range(20))


def test_copy_is_delivered_where_repeats_do_not_show(half_delivered: JournaledRun, tmp_path: Path) -> None:
    copy = tmp_path / "p" / "copy"
    shutil.copytree(half_delivered.path, copy)
    assert deliver(copy, Scripted()).closed


def test_moved_run_is_no_copy(half_delivered: JournaledRun, tmp_path: Path) -> None:
    half_delivered.close()
    moved = tmp_path / "elsewhere"
    half_delivered.path.rename(moved)
    assert deliver(moved, Shows()).closed
    assert steps(moved) == list(range(20))


# Four at once


class Dead(Scripted, frozen=True, kw_only=True):
    troubles: tuple[Trouble, ...] = (Trouble(does="fail", times=None),)
    file: str = "dead.jsonl"


class Slow(Scripted, frozen=True, kw_only=True):
    file: str = "slow.jsonl"
    max_records_s: float | None = 50.0


class Wedged(ScriptedInProcess, frozen=True, kw_only=True):
    troubles: tuple[Trouble, ...] = (Trouble(does="hold", times=None),)
    file: str = "wedged.jsonl"


def log_times(run: asynctrack.Run, count: int) -> list[int]:
    times = []
    for i in range(count):
        begin = time.perf_counter_ns()
        run.log({"i": i, "loss": 0.5, "phase": "train"})
        times.append(time.perf_counter_ns() - begin)
    return sorted(times)


@pytest.mark.system
def test_dead_slow_and_wedged_backends_hold_up_neither_a_good_one_nor_the_loop(rough_host: Path, runs: Path) -> None:
    bad = [Dead(), Slow(), Wedged()]
    alone = asynctrack.init("p", id="alone", dir=runs)
    four = asynctrack.init("p", id="four", dir=runs, backends=["jsonl", *bad], finish_timeout_s=2.0)
    wait_until(
        lambda: cursor(four.path, "Dead").retries or (four.log({"first": 1}) and cursor(four.path, "Dead").retries), ""
    )
    medians: dict[str, list[int]] = {"alone": [], "four": []}
    for _ in range(20):
        for run in (alone, four):
            medians[run.id].append(log_times(run, 500)[250])
        for run in (alone, four):
            assert run.flush("journaled").queued == 0
    assert sorted(medians["four"])[10] < 3 * sorted(medians["alone"])[10]
    wait_until(lambda: four.stats().backends["jsonl"].behind == 0, "the good one has everything")
    late = four.stats()
    assert_balanced(late)
    assert all(late.backends[name_of(backend)].behind > 0 for backend in bad)
    alone.finish()
    begin = time.monotonic()
    stats = four.finish()
    assert 1.5 < time.monotonic() - begin < 15
    assert_balanced(stats)
    assert set(stats.backends) == {"jsonl", "Dead", "Slow", "Wedged"}
    assert gone(stats.backends["jsonl"]) == stats.journaled
    assert stats.backends["Dead"].delivered == stats.backends["Wedged"].delivered == 0
    assert 0 < stats.backends["Slow"].delivered < stats.journaled
    assert "refused" in str(stats.backends["Dead"].last_error)
    assert [line["i"] for line in lines(four.path) if "i" in line] == values(four.path, "i")
