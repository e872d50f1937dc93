""" "May I write?": the states of a run in a process, what leads from one to another, and what `log()` answers in each."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import anyio
import pytest
from support import DEADLINE_S, ended, records, run_child, start, stopped, wait_until

import asynctrack
from asynctrack.client import write_gate
from asynctrack.client.publisher import Publisher
from asynctrack.client.run import Run
from asynctrack.client.write_gate import (
    CLOSED,
    DISABLED,
    ENDED,
    ENDING,
    FINISHED,
    FORKED,
    HOLDING,
    OPEN,
    REOPENING,
    TRANSITIONS,
    WriteGate,
    WriteState,
)
from asynctrack.errors import RunFinished
from asynctrack.queue.layout import WORKER_PID
from asynctrack.reading.stats import StatsCollector
from asynctrack.testing.scripted import Scripted, Trouble

pytestmark = pytest.mark.usefixtures("version")


class Holder:
    """Who keeps the bound method of a gate."""

    _put: Callable[[bytes], bool]


def take(payload: bytes) -> bool:
    return True


def gate_in(state: WriteState) -> tuple[WriteGate, Holder]:
    gate, holder = WriteGate(state), Holder()
    gate.lead_to(take)
    gate.serve(holder)
    return gate, holder


def state_of(run: Run) -> WriteState:
    return run._publisher.state


def data(run: Path) -> list[dict[str, Any]]:
    return [record.data for record in records(run)]


@pytest.fixture
def run(own_host: Path, runs: Path) -> Iterator[Run]:
    run = asynctrack.init("p", id="run", dir=runs)
    yield run
    run.finish()


@pytest.mark.parametrize("event", TRANSITIONS)
@pytest.mark.parametrize("state", WriteState)
def test_an_event_leads_where_the_table_says_and_nowhere_else(state: WriteState, event: write_gate.Event) -> None:
    gate, _ = gate_in(state)
    expected = TRANSITIONS[event].get(state)
    assert gate.change(event) == (expected is not None)
    assert gate.state is (expected or state)


@pytest.mark.parametrize("state", WriteState)
def test_the_bound_method_goes_to_the_queue_in_the_states_that_put_at_once(state: WriteState) -> None:
    gate, holder = gate_in(state)
    assert holder._put(b"") == gate.puts_at_once == (state in (OPEN, ENDING))
    for event in TRANSITIONS:
        gate.change(event)
        assert holder._put(b"") == gate.puts_at_once


def test_every_state_is_explained() -> None:
    rows = {line.split()[0] for line in (write_gate.__doc__ or "").splitlines() if line.strip()}
    assert {state.name for state in WriteState} <= rows


def test_nothing_leads_out_of_a_run_that_has_finished_or_records_nothing() -> None:
    assert [event for event, table in TRANSITIONS.items() if {FINISHED, DISABLED} & set(table)] == []


@pytest.mark.parametrize("line", range(8))
def test_a_state_that_a_signal_handler_has_set_meanwhile_stays(line: int) -> None:
    gate, holder = gate_in(HOLDING)
    lines = itertools.count()
    with at_each_line_of(WriteGate.change.__code__, lambda: next(lines) == line and gate.change("close")):
        gate.change("release")
    assert next(lines) > line
    assert gate.state is CLOSED
    assert not holder._put(b"")


def at_each_line_of(code: Any, action: Callable[[], object]) -> Any:
    """A tracer that acts at every line of a function, as a signal handler may; within itself it does not."""

    class Traced:
        busy = False

        def __enter__(self) -> None:
            self.before = sys.gettrace()
            sys.settrace(self.trace)

        def __exit__(self, *_: object) -> None:
            sys.settrace(self.before)

        def trace(self, frame: FrameType, event: str, arg: object) -> Any:
            if frame.f_code is code and event == "line" and not self.busy:
                self.busy = True
                try:
                    action()
                finally:
                    self.busy = False
            return self.trace

    return Traced()


def test_a_run_that_is_open_records(run: Run) -> None:
    assert state_of(run) is OPEN
    assert run.log({"a": 1})
    run.finish()
    assert data(run.path) == [{"a": 1}]


def test_what_is_kept_back_makes_one_record_with_the_next(run: Run) -> None:
    assert run.log({"a": 1}, commit=False)
    assert run.log({"b": 2}, commit=False)
    assert state_of(run) is HOLDING
    assert run.log({"c": 3})
    assert state_of(run) is OPEN
    assert run.log({"d": 4})
    run.finish()
    assert data(run.path) == [{"a": 1, "b": 2, "c": 3}, {"d": 4}]


def test_what_is_kept_back_is_recorded_at_the_end(run: Run) -> None:
    assert run.log({"a": 1}, commit=False)
    run.finish()
    assert state_of(run) is FINISHED
    assert data(run.path) == [{"a": 1}]


@pytest.mark.system
@pytest.mark.parametrize(
    "function",
    [
        WriteGate.change,
        Publisher.put_held,
        Publisher._put_with_held,
        Publisher._release,
        Publisher._keep_back,
        Publisher.hold,
        Publisher.on_put_failed,
    ],
)
def test_a_signal_handler_that_logs_while_the_state_changes_loses_nothing(
    run: Run, function: Callable[..., object]
) -> None:
    """It may come in between the state and the bound method."""
    logged: list[bool] = []
    with at_each_line_of(function.__code__, lambda: logged.append(run.log({"handler": len(logged)}))):  # type: ignore[attr-defined]
        for i in range(20):
            assert run.log({"kept": i}, commit=False)
            assert run.log({"main": i})
        assert run.log({"last": 0}, commit=False)
        assert run._publisher.put_held()
    stats = run.finish()
    assert logged and all(logged)
    assert stats.dropped == {}
    found = data(run.path)
    for name, count in (("kept", 20), ("main", 20), ("last", 1), ("handler", len(logged))):
        assert {record[name] for record in found if name in record} >= {0, count - 1}, name
    assert [record["main"] for record in found if "main" in record] == list(range(20))


def test_threads_that_keep_records_back_have_none_dropped(run: Run) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def work(who: int) -> None:
        for i in range(300):
            assert run.log({f"kept {who}": i}, commit=False)
            assert run.log({f"whole {who}": i})

    threads = [threading.Thread(target=work, args=(who,)) for who in range(4)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    stats = run.finish()
    assert stats.dropped == {}
    found = data(run.path)
    for who in range(4):
        seen = [(i, key) for record in found for key, i in sorted(record.items()) if key.endswith(f" {who}")]
        assert seen == [(i, f"{what} {who}") for i in range(300) for what in ("kept", "whole")]


@pytest.mark.system
def test_a_run_whose_end_waits_for_delivery_takes_no_more(own_host: Path, runs: Path) -> None:
    never = Scripted(troubles=(Trouble(does="retry", times=None),))
    run = asynctrack.init("p", dir=runs, backends=[never], finish_timeout_s=1.0)
    ends = threading.Thread(target=run.finish)
    ends.start()
    wait_until(lambda: state_of(run) is not OPEN, "the run is closed")
    assert state_of(run) is CLOSED
    assert run.is_open
    with pytest.raises(RunFinished):
        run.log({"late": 1})
    with pytest.raises(RunFinished):
        run.log({"late": 1}, commit=False)
    ends.join()
    assert state_of(run) is FINISHED
    assert not run.is_open


def test_a_run_that_has_finished_says_so_whatever_it_is_asked(run: Run) -> None:
    run.finish()
    for call in (
        lambda: run.log({"a": 1}),
        lambda: run.log({"a": 1}, commit=False),
        lambda: run.config.update(a=1),
        lambda: run.checkpoint(a=1),
    ):
        with pytest.raises(RunFinished):
            call()


def test_a_disabled_run_is_in_a_state_of_its_own(runs: Path) -> None:
    run = asynctrack.init("p", dir=runs, mode="disabled")
    assert state_of(run) is DISABLED
    assert run.is_open and run.log({"a": 1}) and run.log({"a": 1}, commit=False)
    run.config["a"] = run.summary["b"] = 1
    run.finish()
    assert not run.is_open
    assert run.log({"a": 1})
    assert not runs.exists()


CHILD = """
import json, os, sys
import asynctrack
run = asynctrack.init("p", id="run", dir=sys.argv[1])

def fork(function):
    pid = os.fork()
    if not pid:
        try:
            function()
        except BaseException as error:
            print(json.dumps(type(error).__name__), flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
"""


@pytest.mark.system
def test_a_forked_child_gets_its_queue_with_the_first_record_that_it_keeps_back(own_host: Path, runs: Path) -> None:
    script = """
def child():
    states = [run._publisher.state.name]
    run.log({"child": 1}, commit=False)
    states.append(run._publisher.state.name)
    run.finish()
    print(json.dumps(states), flush=True)

run.log({"parent": 1}, commit=False)
fork(child)
run.finish()
"""
    assert run_child(CHILD + script, runs) == [FORKED.name, HOLDING.name]
    assert sorted(map(str, data(runs / "p" / "run"))) == ["{'child': 1}", "{'parent': 1}"]


def test_a_child_of_a_run_that_has_finished_is_told_so(own_host: Path, runs: Path) -> None:
    assert run_child(CHILD + "run.finish()\nfork(lambda: run.log({'late': 1}))", runs) == "RunFinished"


@pytest.mark.system
def test_a_signal_handler_that_logs_while_a_childs_queue_is_made_has_its_record_put(own_host: Path, runs: Path) -> None:
    script = """
def child():
    states = []
    def log_within():
        states.append(run._publisher.state.name)
        assert run.log({"within": 1})
        assert run.log({"within": 2}, commit=False)
    join = run._publisher.queue.join
    run._publisher.queue.join = lambda: (log_within(), join())
    assert run.log({"first": 1})
    run.finish()
    print(json.dumps(states), flush=True)

fork(child)
run.finish()
"""
    assert run_child(CHILD + script, runs) == [REOPENING.name]
    assert data(runs / "p" / "run") == [{"first": 1}, {"within": 1}, {"within": 2}]


EARLY = """
import errno, json, os, signal, sys
import asynctrack
faulthandler.cancel_dump_traceback_later()  # a forked child would wait for its thread as it ends
run = asynctrack.init("p", id="run", dir=sys.argv[1])
if os.fork():
    os.wait()
    raise SystemExit
join, fails = run._publisher.queue.join, FAILS

def log_within(*_):
    accepted.append(run.log({"within": len(accepted)}))

def joins():
    os.kill(os.getpid(), signal.SIGUSR1)  # comes in between, once more at each try
    if fails():
        raise OSError(errno.ENOSPC, "no room")
    join()

accepted = []
signal.signal(signal.SIGUSR1, log_within)
run._publisher.queue.join = joins
print(json.dumps(run.log({"first": 1})), flush=True)
END
"""
ONCE = "iter([True, False]).__next__"
ALWAYS = "lambda: True"


@pytest.mark.system
@pytest.mark.parametrize("end", ["", "run.finish()", "sys.exit(3)"])
def test_what_a_signal_handler_logs_while_no_queue_can_be_made_is_put_at_the_end(
    end: str, own_host: Path, runs: Path
) -> None:
    run = runs / "p" / "run"
    assert run_child(EARLY.replace("FAILS", ONCE).replace("END", end), runs) is False
    wait_until(lambda: ended(run), "the run has ended")
    assert data(run) == [{"within": 0}, {"within": 1}]
    assert StatsCollector(run).collect([], [], []).dropped == {"full": 1}


@pytest.mark.system
@pytest.mark.parametrize("end", ["", "run.finish()"])
def test_what_a_signal_handler_logs_while_no_queue_can_be_made_is_told_as_dropped_where_it_cannot_be_put(
    end: str, own_host: Path, runs: Path
) -> None:
    child = start(EARLY.replace("FAILS", ALWAYS).replace("END", end), runs)
    out, err = child.communicate(timeout=DEADLINE_S)
    assert (child.returncode, out) == (0, "false\n")
    first, last = err.splitlines()
    assert "1 record of this process dropped so far: [Errno 28] no room" in first
    assert "3 records were dropped in all by this process, which has no queue: [Errno 28] no room" in last
    wait_until(lambda: ended(runs / "p" / "run"), "the run has ended")
    assert data(runs / "p" / "run") == []


@pytest.mark.system
@pytest.mark.parametrize(
    "first", ["run.config.update(x=1)", "run.log({'kept': 1}, commit=False)", "run.summary.update(x=1)"]
)
def test_what_a_signal_handler_logs_is_put_whatever_a_childs_queue_is_made_for(
    first: str, own_host: Path, runs: Path
) -> None:
    script = f"""
def child():
    answers = []
    join = run._publisher.queue.join
    run._publisher.queue.join = lambda: (answers.append(run.log({{"within": 1}})), join())
    {first}
    run.finish()
    print(json.dumps(answers), flush=True)

fork(child)
run.finish()
"""
    assert run_child(CHILD + script, runs) == [True]
    assert {"within": 1} in data(runs / "p" / "run")


@pytest.mark.system
@pytest.mark.parametrize("call", ["run.config.update(x=1)", "run.checkpoint(x=1)", "setattr(run, 'name', 'x')"])
def test_a_child_of_a_run_that_has_finished_can_set_nothing(call: str, own_host: Path, runs: Path) -> None:
    assert run_child(CHILD + f"run.finish()\nfork(lambda: {call})", runs) == "RunFinished"


def test_a_daemon_thread_that_logs_as_the_process_ends_is_not_told_off(own_host: Path, runs: Path) -> None:
    script = """
import atexit, json, sys

def last():
    print(json.dumps([run._publisher.state.name, run.log({"late": 1}), run.log({"late": 2}, commit=False)]), flush=True)

atexit.register(last)  # before ours, so it comes after it
import asynctrack

run = asynctrack.init("p", id="run", dir=sys.argv[1])
run.log({"a": 1})
"""
    assert run_child(script, runs) == [ENDED.name, False, False]
    assert data(runs / "p" / "run") == [{"a": 1}]


def fill(run: Run) -> None:
    """Leave no room for a record in a queue whose worker does nothing."""
    while run._publisher.producer.put(b"\x93\x00\xc0\x80"):
        pass


@pytest.fixture
def full(own_host: Path, runs: Path) -> Iterator[Run]:
    run = asynctrack.init("p", id="run", dir=runs, queue_bytes=4096, when_full="block", max_block_s=0.5)
    run.flush("journaled")
    with stopped(run._publisher.producer.ring.words[WORKER_PID]):
        fill(run)
        yield run
    run.finish()


@pytest.mark.system
async def test_alog_that_waits_for_room_leaves_the_event_loop_to_others_also_with_what_is_kept_back(full: Run) -> None:
    pauses: list[float] = []

    async def look() -> None:
        while True:
            began = time.monotonic()
            await anyio.sleep(0.01)
            pauses.append(time.monotonic() - began)

    full.log({"kept": 1}, commit=False)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(look)
        assert await full.alog({"late": 1}) is False
        tasks.cancel_scope.cancel()
    assert max(pauses) < 0.4
    assert full._publisher.producer.ring.dropped() == {"full": 1}


async def test_what_is_kept_back_outlives_an_alog_that_is_cancelled(full: Run) -> None:
    full.log({"kept": 1}, commit=False)
    with anyio.move_on_after(0.1) as scope:
        await full.alog({"late": 1})
    assert scope.cancelled_caught
    assert state_of(full) is HOLDING


def test_a_record_that_waits_for_room_takes_nothing_along_that_is_kept_back_later(own_host: Path, runs: Path) -> None:
    run = asynctrack.init("p", id="run", dir=runs, queue_bytes=4096, when_full="block", max_block_s=50)
    run.flush("journaled")
    with stopped(run._publisher.producer.ring.words[WORKER_PID]):
        fill(run)
        assert run.log({"a": 1}, commit=False)
        waits = threading.Thread(target=run.log, args=({"b": 1},))
        waits.start()
        wait_until(lambda: state_of(run) is OPEN, "the first record waits for room")
        assert run.log({"a": 2}, commit=False)
    waits.join()
    assert run.log({"b": 2})
    run.finish()
    assert [record for record in data(run.path) if record] == [{"a": 1, "b": 1}, {"a": 2, "b": 2}]


async def test_an_afinish_that_is_cancelled_before_it_waits_for_delivery_has_ended_the_run(full: Run) -> None:
    full._publisher.producer._side.append(
        (b"\x93\x00\xc0\x80", 0, 1)
    )  # of a signal handler, and there is no room for it
    with anyio.move_on_after(0.1) as scope:
        await full.afinish()
    assert scope.cancelled_caught
    assert state_of(full) is FINISHED
    assert not full._publisher.producer.is_open
