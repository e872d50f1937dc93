"""Subscribers are told all that happens in a run, and whatever they do reaches neither the loop nor each other."""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from subscribers import Diary, ProcessDiary
from support import lines, run_child, start, values, wait_until

import asynctrack
from asynctrack import Backend, Rejected, Subscriber
from asynctrack.backends.registry import execution_of, from_stored, kind_of, stored
from asynctrack.errors import InvalidSettings
from asynctrack.events import Checkpoint, ConfigUpdated, Event, Metrics, RunEnded, RunStarted, SummaryUpdated
from asynctrack.records.codec import flatten
from asynctrack.testing import BackendContract, JournaledRun, deliver

pytestmark = pytest.mark.usefixtures("shared_host")

TESTS = Path(__file__).parent


class Alerts:
    """Notes each kind of event in its own way."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    @functools.singledispatchmethod
    def notify(self, event: Event) -> None:
        self.told.append(type(event).__name__)

    @notify.register
    def _(self, event: Metrics) -> None:
        self.told.append((event.step, event.data))

    @notify.register
    def _(self, event: RunEnded) -> None:
        self.told.append(event.status)


@pytest.mark.system
class TestSubscriber(BackendContract):
    keeps = frozenset({"float", "int", "bool", "text", "nan", "inf", "big", "list"})

    def make_backend(self, run: Path) -> Backend:
        told[run] = []
        return Subscriber(told[run].append)

    def read(self, run: Path) -> Iterator[tuple[int, str, Any]]:
        begin = max((at for at, event in enumerate(told[run]) if _is_first(event)), default=0)
        for event in told[run][begin:]:
            if isinstance(event, Metrics):
                yield from ((event.step, key, value) for key, value in flatten(event.data))


told: dict[Path, list[Event]] = {}


def _is_first(event: Event) -> bool:
    return isinstance(event, RunStarted) and not event.resumed


@pytest.mark.parametrize("worker", ["process", "thread"])
@pytest.mark.parametrize("how", ["object", "method"])
def test_class_is_told_each_type_of_event_in_its_own_method(runs: Path, how: str, worker: Any) -> None:
    alerts = Alerts()
    subscriber = Subscriber(alerts if how == "object" else alerts.notify)
    with asynctrack.init("p", dir=runs, config={"lr": 0.1}, backends=[subscriber], worker=worker) as run:
        run.log({"loss": {"train": 0.5}}, step=7)
        run.config["seed"] = 1
        run.checkpoint(epoch=3)
        run.log({"loss": 0.25})
        run.summary["best"] = 0.25
    assert alerts.told == [
        "RunStarted", (7, {"loss": {"train": 0.5}}), "ConfigUpdated", "Checkpoint", (1, {"loss": 0.25}), "SummaryUpdated",
        "finished",
    ]  # fmt: skip


def test_functions_are_told_everything_there_is_to_know(runs: Path) -> None:
    plain: list[Event] = []
    typed: list[Metrics] = []

    @functools.singledispatch
    def of_type(event: Event) -> None: ...

    of_type.register(Metrics, typed.append)
    before_ns = time.time_ns()
    with asynctrack.init(
        "p", name="n", dir=runs, config={"lr": 0.1}, backends=[Subscriber(plain.append), Subscriber(of_type)]
    ) as run:
        run.log({"x": 1})
        run.config.update({"seed": 1})
        run.checkpoint(epoch=3, sampler={"at": 7})
        run.summary.update({"best": 1})
        del run.summary["best"]
    start, metrics, config, checkpoint, summary, removal, end = plain
    assert isinstance(start, RunStarted)
    assert (start.name, start.project, start.directory, start.config, start.resumed) == (
        "n", "p", run.path, {"lr": 0.1}, False
    )  # fmt: skip
    assert isinstance(metrics, Metrics)
    assert (metrics.data, metrics.step, metrics.number) == ({"x": 1}, 0, 0)
    assert isinstance(config, ConfigUpdated)
    assert config.data == {"seed": 1}
    assert isinstance(checkpoint, Checkpoint)
    assert checkpoint.counters == {"epoch": 3, "sampler": {"at": 7}}
    assert isinstance(removal, SummaryUpdated)
    assert (removal.data, removal.removed, config.removed) == ({}, ("best",), ())
    assert isinstance(summary, SummaryUpdated)
    assert summary.data == {"best": 1}
    assert isinstance(end, RunEnded)
    assert end.status == "finished"
    assert {event.run_id for event in plain} == {run.id}
    times = [event.time_ns for event in plain]
    assert times == sorted(times)
    assert before_ns - 10**6 <= times[0] <= times[-1] <= time.time_ns()
    assert typed == [metrics]


def test_how_a_run_ended_is_told(runs: Path) -> None:
    told: list[Event] = []

    def fail() -> None:
        with asynctrack.init("p", dir=runs, backends=[Subscriber(told.append)]):
            raise ValueError("diverged")

    with pytest.raises(ValueError, match="diverged"):
        fail()
    assert [event.status for event in told if isinstance(event, RunEnded)] == ["failed"]


def test_what_a_subscriber_raises_is_reported_and_the_event_comes_again(runs: Path) -> None:
    good, told = list[Event](), list[Event]()
    failures = iter([Metrics, Checkpoint, RunEnded])
    next_failure = next(failures)

    def fails(event: Event) -> None:
        nonlocal next_failure
        if isinstance(event, next_failure):
            next_failure = next(failures, type(None))
            raise OSError(f"no {type(event).__name__} today")
        told.append(event)

    backends = [Subscriber(good.append), Subscriber(fails), "jsonl"]
    with asynctrack.init("p", dir=runs, backends=backends) as run:
        for i in range(100):
            assert run.log({"i": i})
            if i == 50:
                run.flush()
                run.checkpoint(epoch=1)
                run.flush()
    stats = run.stats()
    assert told == good
    assert [event.data["i"] for event in told if isinstance(event, Metrics)] == list(range(100))
    assert [type(event) for event in told if not isinstance(event, Metrics)] == [RunStarted, Checkpoint, RunEnded]
    assert stats.backends["subscriber-2"].retries == 3
    assert stats.backends["subscriber"].retries == stats.backends["jsonl"].retries == 0
    assert stats.behind == 0
    assert len(lines(run.path)) == 100


def test_subscriber_that_fails_now_and_then_gets_on(runs: Path) -> None:
    told: list[Any] = []
    failed: list[Any] = []

    def fails(event: Event) -> None:
        if isinstance(event, Metrics):
            if event.data["i"] % 10 == 9 and event.data["i"] not in failed:
                failed.append(event.data["i"])
                raise ConnectionError("reset")
            told.append(event.data["i"])

    with asynctrack.init("p", dir=runs, backends=[Subscriber(fails)]) as run:
        for i in range(150):
            run.log({"i": i})
    assert told == list(range(150))
    assert run.stats().backends["subscriber"].retries == len(failed) == 15


def test_failing_subscriber_is_told_of_in_the_statistics_and_the_log(
    runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(event: Event) -> None:
        raise OSError("no mail server")

    run = asynctrack.init("p", dir=runs, backends=[Subscriber(fails), "jsonl"], finish_timeout_s=0.5)
    run.log({"x": 1})
    wait_until(lambda: run.stats().backends["subscriber"].last_error, "the failure is in the statistics")
    assert run.stats().backends["subscriber"].last_error == "OSError: no mail server"
    wait_until(lambda: run.stats().backends["jsonl"].delivered == 1, "the other has everything")
    stats = run.finish()
    assert (stats.backends["subscriber"].behind, stats.backends["jsonl"].behind) == (1, 0)
    assert any("subscriber of" in text and "no mail server: trying again" in text for text in caplog.messages)


def test_event_that_is_rejected_is_kept_aside_and_the_others_come(runs: Path) -> None:
    told: list[Event] = []

    def picky(event: Event) -> None:
        if isinstance(event, SummaryUpdated) or (isinstance(event, Metrics) and event.data["i"] in (3, 7)):
            raise Rejected("not that one")
        told.append(event)

    with asynctrack.init("p", dir=runs, backends=[Subscriber(picky)]) as run:
        for i in range(10):
            run.log({"i": i})
        run.summary["best"] = 1
    assert [event.data["i"] for event in told if isinstance(event, Metrics)] == [0, 1, 2, 4, 5, 6, 8, 9]
    assert [type(event) for event in (told[0], told[-1])] == [RunStarted, RunEnded]
    assert [line["data"]["i"] for line in lines(run.path, "dead_letters.jsonl")] == [3, 7]
    stats = run.stats().backends["subscriber"]
    assert (stats.rejected, stats.delivered, stats.behind) == (2, 8, 0)


def test_subscriber_that_hangs_holds_up_nobody(runs: Path) -> None:
    told: list[Event] = []
    released = threading.Event()

    def hangs(event: Event) -> None:
        released.wait(20)

    backends = [Subscriber(hangs), Subscriber(told.append)]
    run = asynctrack.init("p", dir=runs, backends=backends, finish_timeout_s=0.2)
    for i in range(500):
        assert run.log({"i": i})
    wait_until(lambda: len(told) == 501, "the other is told everything")
    assert run.stats().backends["subscriber"].behind == 500
    run.finish()
    released.set()


def test_subscriber_with_little_patience_is_told_of_some_metrics_and_every_milestone(runs: Path) -> None:
    told: list[Event] = []
    subscriber = Subscriber(told.append, downsample_interval_s=30.0)
    with asynctrack.init("p", dir=runs, backends=[subscriber]) as run:
        for i in range(1000):
            run.log({"i": i})
        run.checkpoint(epoch=1)
    assert [event.data["i"] for event in told if isinstance(event, Metrics)] == [0, 999]
    assert sum(isinstance(event, Checkpoint) for event in told) == 1


def test_subscriber_elsewhere_tells_of_the_death_of_its_caller(runs: Path, tmp_path: Path) -> None:
    script = """
import asynctrack, os, subscribers, sys
diary = subscribers.Diary(path=sys.argv[2])
run = asynctrack.init("p", id="killed", dir=sys.argv[1], backends=[diary])
run.log({"x": 1}, step=5)
run.checkpoint(epoch=1)
print(run.id, flush=True)
os.kill(os.getpid(), 9)
"""
    diary = tmp_path / "diary"
    child = start(script, runs, diary, PYTHONPATH=f"{TESTS}{os.pathsep}{TESTS.parent}")
    child.communicate(timeout=50)
    assert child.returncode == -signal.SIGKILL
    wait_until(lambda: diary.exists() and "crashed" in diary.read_text(), "its end is told")
    *told, end = diary.read_text().splitlines()
    assert told == ["RunStarted", "5 {'x': 1}", "Checkpoint"]
    assert end.startswith("crashed by ")
    assert not end.endswith(f" {child.pid}")


@pytest.mark.parametrize("kind", [Diary, ProcessDiary])
def test_subscriber_elsewhere_is_told_once_of_what_a_resumed_run_had(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Diary]
) -> None:
    diary = tmp_path / "diary"
    for session in range(2):
        with asynctrack.init("p", id="r", resume="allow", dir=runs, backends=[kind(path=str(diary))]) as run:
            run.log({"session": session})
    told = diary.read_text().splitlines()
    assert [line.split(" by ")[0] for line in told] == [
        "RunStarted", "0 {'session': 0}", "finished", "RunStarted", "1 {'session': 1}", "finished",
    ]  # fmt: skip
    assert all(f" by {os.getpid()}" not in line for line in told)
    assert values(run.path, "session") == [0, 1]


def test_subscriber_here_is_told_all_of_a_resumed_run_and_where_this_session_began(runs: Path) -> None:
    told: list[Event] = []
    for session in range(2):
        with asynctrack.init(
            "p", id="r", resume="allow", dir=runs, config={"n": session}, backends=[Subscriber(told.append)]
        ) as run:
            run.log({"session": session})
    assert [type(event) for event in told[:3]] == [RunStarted, Metrics, RunEnded]
    again = told[3:]
    assert [type(event) for event in again] == [RunStarted, Metrics, RunStarted, Metrics, RunEnded]
    starts = [event for event in again if isinstance(event, RunStarted)]
    assert [(start.resumed, start.config["n"]) for start in starts] == [(False, 0), (True, 1)]
    assert run.last_checkpoint() is None


def test_memory_of_a_resumed_run_has_all_of_it(runs: Path) -> None:
    for session in range(6):
        memory = asynctrack.Memory()
        with asynctrack.init(
            "p", id="r", resume="allow", dir=runs, config={str(session): 0}, backends=[memory], linger_s=0.03
        ) as run:
            run.log({"session": session})
        assert memory.history["session"] == list(range(session + 1))
        assert memory.config == {str(at): 0 for at in range(session + 1)}


def test_start_comes_before_what_follows_it_however_much_is_cut_at_once(tmp_path: Path) -> None:
    """Also by a clock that goes backwards between the sessions, as that of another machine may."""
    told: list[Event] = []
    with JournaledRun(tmp_path / "p" / "r") as run:
        run.log({"session": 0}, time_ns=time.time_ns() + 3600 * 10**9)
        run.end()
    with JournaledRun(run.path) as again:
        again.log({"session": 1})
        again.end()
    deliver(run.path, Subscriber(told.append))
    assert [type(event) for event in told] == [RunStarted, Metrics, RunStarted, Metrics, RunEnded]
    assert [event.data["session"] for event in told if isinstance(event, Metrics)] == [0, 1]


def test_many_runs_may_share_a_subscriber(runs: Path) -> None:
    told: list[Event] = []
    subscriber = Subscriber(told.append)
    tracker = asynctrack.Tracker("p", dir=runs, backends=[subscriber])
    ids = []
    for trial in range(3):
        ids.append(tracker.init({"trial": trial}).id)
        tracker.log({"trial": trial})
        tracker.finish()
    assert [event.run_id for event in told if isinstance(event, Metrics)] == ids


async def unheard(event: Event) -> None: ...


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Subscriber(), r"handler must be a function that takes an event, or have a notify\(event\); got None"),
        (lambda: Subscriber("print"), r"handler must be a function .*; got 'print'"),
        (lambda: Subscriber(unheard), r"must be a plain function: your event loop is on another thread"),
        (lambda: Diary(print, path="x"), r"that has a notify of its own takes no handler; got <built-in"),
        (lambda: Subscriber(print, max_records_s=0), r"max_records_s must be a number greater than 0"),
    ],
)
def test_subscriber_that_cannot_be_told_is_refused_at_once(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidSettings, match=message):
        make()


def test_subscriber_is_stored_by_what_another_process_can_make_of_it() -> None:
    assert stored(Subscriber(print), "r", "subscriber") == {"kind": "subscriber", "execution": "caller"}
    diary = Diary(path="x")
    assert (kind_of(diary), execution_of(diary)) == ("Diary", "worker")
    assert from_stored(stored(diary, "r", "Diary")) == diary


def test_other_backends_are_told_of_no_milestones(runs: Path) -> None:
    memory = asynctrack.Memory()
    with asynctrack.init("p", dir=runs, backends=[memory], config={"lr": 1}) as run:
        run.checkpoint(epoch=1)
        run.summary["best"] = 2
    assert (memory.config, memory.summary) == ({"lr": 1}, {"best": 2})


@pytest.mark.system
def test_events_of_a_child_process_come_too(runs: Path) -> None:
    script = """
import asynctrack, json, os, sys
told = []
run = asynctrack.init("p", dir=sys.argv[1], backends=[asynctrack.Subscriber(told.append)])
run.log({"who": "parent"})
if (pid := os.fork()) == 0:
    run.log({"who": "child"})
    run.finish()
    os._exit(0)
os.waitpid(pid, 0)
run.finish()
print(json.dumps([getattr(event, "data", {}).get("who", type(event).__name__) for event in told]))
"""
    assert sorted(run_child(script, runs)) == ["RunEnded", "RunStarted", "child", "parent"]
