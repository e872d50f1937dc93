"""What a user gets from one run: every call of it, with a real worker behind."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import logging
import math
import os
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import anyio
import numpy as np
import pytest
from support import ended, lines, manifest, records, stopped, the_worker, values, wait_until

import asynctrack
from asynctrack import Backend, Batch, Context, Memory, Run, RunStats, Sink, Tracker
from asynctrack.errors import NoCurrentRun, QueueFull, RunFinished

pytestmark = pytest.mark.usefixtures("shared_host", "version")

HOSTS = pytest.mark.parametrize("worker", ["process", "thread"])


class Opener:
    """`asynctrack.init` with the test's directory; what a test leaves open is finished behind it."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self.opened: list[Run] = []

    def __call__(self, project: str = "p", **settings: Any) -> Run:
        run = asynctrack.init(project, **{"dir": self.runs, **settings})
        self.opened.append(run)
        return run


@pytest.fixture
def init(runs: Path) -> Iterator[Opener]:
    opener = Opener(runs)
    yield opener
    for run in opener.opened:
        run.finish()


def assert_balanced(stats: RunStats) -> None:
    assert stats.accepted == stats.journaled + stats.queued
    for backend in stats.backends.values():
        gone = backend.delivered + sum(backend.skipped.values()) + backend.rejected
        assert stats.journaled == gone + backend.behind, stats


def fill(run: Run) -> list[int]:
    """Log until a record is turned away; the numbers that were accepted."""
    accepted = []
    while run.log({"i": len(accepted)}):
        accepted.append(len(accepted))
    return accepted


def modes(directory: Path) -> dict[str, int]:
    """Kind and rights of everything in a directory, and its own."""
    return {path.name: path.stat().st_mode for path in [directory, *directory.rglob("*")]}


# Opening


def test_run_knows_its_names_and_its_directory(init: Opener, runs: Path) -> None:
    run = init("berlin52", name="the first", id="run-1", config={"cooling": 0.9995})
    assert (run.id, run.name, run.project) == ("run-1", "the first", "berlin52")
    assert run.path == runs / "berlin52" / "run-1"
    assert run.config == {"cooling": 0.9995}
    assert run.summary == {}
    assert repr(run) == "<Run berlin52/run-1, open, 0 offered>"


def test_ids_are_fresh_and_sort_by_time(init: Opener) -> None:
    first, second = init(), init()
    assert first.id != second.id
    assert first.id[:15] <= second.id[:15]
    assert first.name == first.id


def test_run_json_tells_what_the_run_is(init: Opener) -> None:
    run = init("berlin52", name="n", id="i", config={"cooling": 0.5, "places": {"count": 52}})
    run.finish({"length": 7544.4})
    told = manifest(run.path)
    assert (told["id"], told["name"], told["project"], told["status"]) == ("i", "n", "berlin52", "finished")
    assert told["config"] == {"cooling": 0.5, "places": {"count": 52}}
    assert told["summary"] == {"length": 7544.4}
    assert told["backends"] == {"jsonl": {"kind": "jsonl"}}
    assert told["environment"]["pid"] == os.getpid()
    assert told["error"] is None
    begin, end = (datetime.datetime.fromisoformat(told[key]) for key in ("created_at", "ended_at"))
    assert begin.tzinfo is not None
    assert begin <= end


@HOSTS
def test_rings_are_for_their_owner_only_and_nobody_else_writes_a_runs_files(
    init: Opener, shared_host: Path, worker: str
) -> None:
    generous = os.umask(0)
    try:
        run = init(worker=worker)
        run.log({"x": 1})
        run.flush()
        rings = modes(shared_host / f"asynctrack-{os.getuid()}")
        run.finish()
    finally:
        os.umask(generous)
    kept = modes(run.path)
    assert set(kept) >= {"run.json", "metrics.jsonl", "000001.atj", "lock", "jsonl.json"}
    assert any(name.endswith(".ring") for name in rings)
    private = {"lock", "caller.lock", "handover", "jsonl.json", "jsonl.lock", "worker.log"}
    assert {kept[name] for name in private & set(kept)} == {stat.S_IFREG | 0o600}
    assert kept["cursors"] == stat.S_IFDIR | 0o700
    others = {mode for name, mode in kept.items() if name not in (*private, "cursors")}
    assert others == {stat.S_IFDIR | 0o755, stat.S_IFREG | 0o644}
    assert all(mode in (stat.S_IFDIR | 0o700, stat.S_IFREG | 0o600, stat.S_IFIFO | 0o600) for mode in rings.values())


def test_records_can_be_read_while_the_run_is_live(init: Opener) -> None:
    run = init(config={"a": 1})
    run.log({"x": 1})
    run.flush("journaled")
    reader = asynctrack.open_run(run.path)
    assert [record.data for record in reader.records()] == [{"x": 1}]
    assert reader.status == "running"
    assert reader.config == {"a": 1}
    run.log({"x": 2})
    run.flush("journaled")
    assert reader.columns()["x"].values == [1, 2]


# The life of a run


@HOSTS
def test_with_finishes_the_run(init: Opener, worker: str) -> None:
    with init(worker=worker) as run:
        for step in range(100):
            assert run.log({"length": 7544.4, "temperature": 0.1}, step=step) is True
    assert manifest(run.path)["status"] == "finished"
    assert [record.step for record in records(run.path)] == list(range(100))
    assert [line["length"] for line in lines(run.path)] == [7544.4] * 100


async def test_async_with_finishes_the_run(init: Opener) -> None:
    async with init() as run:
        assert await run.alog({"x": 1})
        assert (await run.aflush()).backends["jsonl"].delivered == 1
    assert manifest(run.path)["status"] == "finished"
    assert values(run.path, "x") == [1]


async def test_async_waits_leave_the_event_loop_to_others(init: Opener, shared_host: Path) -> None:
    run = init()
    run.log({"x": 1})
    run.flush()
    turns = 0
    finished = anyio.Event()

    async def turn() -> None:
        nonlocal turns
        while not finished.is_set():
            turns += 1
            await anyio.sleep(0.005)

    with stopped(the_worker(shared_host)):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(turn)
            run.log({"x": 2})
            assert (await run.aflush(timeout_s=0.15)).queued == 1
            assert turns > 5
            finished.set()
    assert (await run.afinish()).journaled == 2


@HOSTS
def test_exception_in_with_marks_the_run_failed_and_goes_on(init: Opener, worker: str) -> None:
    def fail() -> None:
        with run:
            run.log({"x": 1})
            _ = 1 / 0

    run = init(worker=worker)
    with pytest.raises(ZeroDivisionError):
        fail()
    told = manifest(run.path)
    assert told["status"] == "failed"
    assert told["error"] == "ZeroDivisionError: division by zero"
    assert values(run.path, "x") == [1]


async def test_exception_in_async_with_marks_the_run_failed_and_goes_on(init: Opener) -> None:
    with pytest.raises(KeyError):
        async with init() as run:
            raise KeyError("loss")
    assert manifest(run.path)["status"] == "failed"
    assert manifest(run.path)["error"] == "KeyError: 'loss'"


async def test_cancelled_run_is_marked_failed_and_keeps_its_records(init: Opener) -> None:
    with anyio.move_on_after(0.05):
        async with init() as run:
            run.log({"x": 1})
            await anyio.sleep_forever()
    wait_until(lambda: ended(run.path), "the run has ended")
    assert manifest(run.path)["status"] == "failed"
    assert values(run.path, "x") == [1]


def test_ctrl_c_in_with_marks_the_run_failed(init: Opener) -> None:
    with pytest.raises(KeyboardInterrupt), init() as run:
        raise KeyboardInterrupt
    assert manifest(run.path)["status"] == "failed"


@HOSTS
def test_finish_again_returns_the_same(init: Opener, worker: str) -> None:
    run = init(worker=worker)
    run.log({"x": 1})
    first = run.finish({"best": 1})
    assert run.finish({"best": 2}) == first == run.stats()
    assert manifest(run.path)["summary"] == {"best": 1}
    assert repr(run).endswith("finished, 1 offered>")


@HOSTS
def test_threads_that_finish_at_once_all_get_the_same(init: Opener, worker: str) -> None:
    run = init(worker=worker)
    for i in range(1000):
        run.log({"x": i})
    results: list[RunStats] = []
    threads = [threading.Thread(target=lambda: results.append(run.finish())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert all(result == results[0] for result in results)
    assert results[0].backends["jsonl"].delivered == results[0].accepted == 1000


async def test_tasks_that_finish_at_once_all_return(init: Opener) -> None:
    run = init()
    run.log({"x": 1})
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(run.afinish)
    assert run.stats().backends["jsonl"].delivered == 1


def test_finish_returns_by_its_deadline_and_the_worker_goes_on(init: Opener, shared_host: Path) -> None:
    run = init(finish_timeout_s=0.2)
    run.log({"x": 1})
    run.flush()
    with stopped(the_worker(shared_host)):
        run.log({"x": 2})
        begin = time.monotonic()
        stats = run.finish()
        assert 0.2 <= time.monotonic() - begin < 2
        assert (stats.accepted, stats.journaled, stats.queued, stats.behind) == (2, 1, 1, 1)
    wait_until(lambda: manifest(run.path)["status"] == "finished", "the worker has gone on")
    assert values(run.path, "x") == [1, 2]


def test_log_after_finish_raises_and_records_nothing(init: Opener) -> None:
    run = init()
    run.log({"x": 1})
    run.finish()
    with pytest.raises(RunFinished, match=rf"log\(\) came after run '{run.id}' had finished.*open a new run"):
        run.log({"x": 2})
    with pytest.raises(RunFinished):
        run.config["late"] = 1
    assert values(run.path, "x") == [1]


# Config and summary


@HOSTS
def test_config_and_summary_are_recorded_however_they_are_set(init: Opener, worker: str) -> None:
    with init(config={"a": 1, "b": {"c": 2}}, worker=worker) as run:
        run.config["d"] = 3
        run.config.update({"a": 4}, e=5)
        run.config |= {"f": 6}
        assert run.config.setdefault("g", 7) == 7
        assert run.config.setdefault("a", 8) == 4
        run.summary["best"] = 0.5
        run.summary.update(worst=math.inf)
    reader = asynctrack.open_run(run.path)
    assert reader.config == {"a": 4, "b": {"c": 2}, "d": 3, "e": 5, "f": 6, "g": 7} == run.config
    assert reader.summary == {"best": 0.5, "worst": math.inf} == run.summary


def test_config_that_cannot_be_encoded_is_recorded_as_its_repr(init: Opener) -> None:
    class Model:
        def __repr__(self) -> str:
            return "<the model>"

    with init(config={"model": Model(), "lr": np.float32(0.5), "big": 1 << 80}) as run:
        run.config["second"] = Model()
    config = asynctrack.open_run(run.path).config
    assert config == {"model": "<the model>", "lr": 0.5, "big": 1 << 80, "second": "<the model>"}


def test_summary_of_the_moment_is_recorded(init: Opener) -> None:
    with init() as run:
        scores = [1]
        run.summary["scores"] = scores
        scores.append(2)
    assert asynctrack.open_run(run.path).summary == {"scores": [1]}


# The statistics


@HOSTS
def test_statistics_balance_at_every_moment(init: Opener, worker: str) -> None:
    run = init(worker=worker, backends=["jsonl", Memory()])
    assert_balanced(run.stats())
    for i in range(200):
        assert run.log({"i": i})
        stats = run.stats()
        assert stats.accepted == stats.offered == i + 1
        assert_balanced(stats)
    stats = run.finish()
    assert_balanced(stats)
    assert stats.behind == 0
    assert stats.backends["jsonl"].delivered == stats.backends["memory"].delivered == 200


@HOSTS
def test_statistics_balance_while_other_threads_log_and_flush(init: Opener, worker: str) -> None:
    run = init(worker=worker, queue_bytes=4096, when_full="block")
    counts = [0, 0]
    over = threading.Event()

    def log() -> None:
        while not over.is_set():
            counts[0] += 1
            run.log({"x": 0.5})
            counts[1] += 1

    def flush() -> None:
        while not over.is_set():
            run.flush()

    threads = [threading.Thread(target=work) for work in (log, flush)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(100):
            before = counts[1]
            stats = run.stats()
            assert before <= stats.accepted <= counts[0]
            assert_balanced(stats)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert run.finish().accepted == counts[1]


@HOSTS
@pytest.mark.parametrize("until", ["journaled", "synced", "delivered"])
def test_flush_returns_when_its_level_is_reached(init: Opener, worker: str, until: str) -> None:
    memory = Memory()
    run = init(worker=worker, backends=["jsonl", memory])
    for i in range(10):
        run.log({"i": i})
    stats = run.flush(until)
    assert (stats.accepted, stats.journaled, stats.queued) == (10, 10, 0)
    assert values(run.path, "i") == list(range(10))
    if until == "delivered":
        assert stats.behind == 0
        assert {name: backend.delivered for name, backend in stats.backends.items()} == {"jsonl": 10, "memory": 10}
        assert [line["i"] for line in lines(run.path)] == list(range(10))
        assert memory.history == {"i": list(range(10))}


def test_flush_returns_by_its_deadline_and_says_what_is_behind(init: Opener, shared_host: Path) -> None:
    run = init()
    run.log({"x": 1})
    run.flush()
    with stopped(the_worker(shared_host)):
        run.log({"x": 2})
        begin = time.monotonic()
        stats = run.flush("journaled", timeout_s=0.1)
        assert 0.1 <= time.monotonic() - begin < 2
        assert (stats.journaled, stats.queued) == (1, 1)


def test_flush_of_a_finished_run_returns_its_statistics(init: Opener) -> None:
    run = init()
    run.log({"x": 1})
    assert run.finish() == run.flush()


# Steps and values


@HOSTS
def test_step_is_the_number_of_the_record_where_none_is_given(init: Opener, worker: str) -> None:
    with init(worker=worker) as run:
        for step in (None, 7, 7, -3, np.int64(9), None, 1 << 62):
            run.log({"x": 1}, step)
    assert [record.step for record in records(run.path)] == [0, 7, 7, -3, 9, 5, 1 << 62]
    assert [record.number for record in records(run.path)] == list(range(7))


def test_records_bear_the_wall_clock(init: Opener) -> None:
    before = time.time_ns()
    with init() as run:
        run.log({"x": 1})
    after = time.time_ns()
    assert before <= records(run.path)[0].time_ns <= after
    assert before / 1e9 <= lines(run.path)[0]["_timestamp"] <= after / 1e9


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


@dataclasses.dataclass
class Point:
    x: float
    name: str


class Unreadable:
    def __repr__(self) -> str:
        return "<unreadable>"


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError("no repr either")


VALUES: list[tuple[Any, Any]] = [
    (0.1, 0.1), (math.inf, math.inf), (-math.inf, -math.inf), (-0.0, -0.0), (5e-324, 5e-324),
    (True, True), (None, None), ("text", "text"), ("", ""), ("ä\0\ud800", "ä\0\\ud800"),
    (0, 0), (-(1 << 63), -(1 << 63)), ((1 << 64) - 1, (1 << 64) - 1), (1 << 64, 1 << 64), (-(10**100), -(10**100)),
    (np.float32(0.5), 0.5), (np.float64(0.1), 0.1), (np.float16(0.5), 0.5), (np.int64(-7), -7),
    (np.uint64((1 << 64) - 1), (1 << 64) - 1), (np.bool_(True), True), (np.array(2.5), 2.5), (np.str_("s"), "s"),
    (np.array(7), 7), (np.longdouble(2), 2.0), (np.timedelta64(5, "ns"), 5e-09), (np.timedelta64(5, "s"), 5.0),
    (np.complex64(1 + 2j), "(1+2j)"), (np.clongdouble(1 + 2j), "(1+2j)"), (np.array([1j, 2], np.clongdouble), ["1j", "(2+0j)"]),
    ([1, "a", None, [2.5]], [1, "a", None, [2.5]]), ((1, 2), [1, 2]), ([1 << 70, math.inf], [1 << 70, math.inf]),
    ({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 1}}}), ({}, {}), ({1: {2: 3}}, {"1": {"2": 3}}),
    (Point(1.5, "p"), {"x": 1.5, "name": "p"}), (Colour.RED, "red"), (Level.HIGH, 3), (Path("a/b"), "a/b"),
    (datetime.date(2024, 2, 29), "2024-02-29"), (Unreadable(), "<unreadable>"), (Broken(), "<Broken>"),
    ({"deep": [Unreadable(), 1]}, {"deep": ["<unreadable>", 1]}),
]  # fmt: skip


@HOSTS
def test_values_are_read_back_as_they_were_logged(init: Opener, worker: str) -> None:
    with init(worker=worker) as run:
        for value, _ in VALUES:
            assert run.log({"value": value})
        assert run.log({f"value {i}": value for i, (value, _) in enumerate(VALUES)})
    *single, together = records(run.path)
    for (value, expected), record in zip(VALUES, single, strict=True):
        assert record.data == {"value": expected}, value
        assert type(record.data["value"]) is type(expected), value
    assert together.data == {f"value {i}": expected for i, (_, expected) in enumerate(VALUES)}
    assert len(lines(run.path)) == len(VALUES) + 1


def test_not_a_number_stays_one(init: Opener) -> None:
    with init() as run:
        run.log({"loss": math.nan, "losses": [1.0, math.nan], "array": np.array([np.nan, np.inf])})
    found = records(run.path)[0].data
    assert math.isnan(found["loss"])
    assert math.isnan(found["losses"][1])
    assert np.isnan(np.asarray(found["array"])[0])
    line = lines(run.path)[0]
    assert (line["loss"], line["losses"], line["array"]) == ("NaN", [1.0, "NaN"], ["NaN", "Infinity"])


@pytest.mark.system
@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?", ">f4", ">i8"])
def test_arrays_keep_their_dtype_and_shape(init: Opener, dtype: str) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    with init() as run:
        run.log({"whole": array, "turned": array.T, "part": array[::2, 1:], "none": array[:0]})
    found = records(run.path)[0].data
    for name, logged in {"whole": array, "turned": array.T, "part": array[::2, 1:], "none": array[:0]}.items():
        read = np.asarray(found[name])
        assert (read.dtype, read.shape) == (np.dtype(dtype).newbyteorder("="), logged.shape)
        assert (read == logged).all()
        assert found[name].tolist() == logged.tolist()
    assert lines(run.path)[0]["whole"] == array.tolist()


def test_keys_that_are_not_strings_become_strings(init: Opener) -> None:
    with init() as run:
        assert run.log({1: "a", 2.5: "b", None: "c", ("x", 0): "d"})  # type: ignore[dict-item]  # users do
    assert records(run.path)[0].data == {"1": "a", "2.5": "b", "None": "c", "('x', 0)": "d"}


def test_value_that_cannot_be_encoded_warns_once_per_key(init: Opener, caplog: pytest.LogCaptureFixture) -> None:
    run = init()
    for _ in range(100):
        assert run.log({"model": Unreadable(), "x": 1})
    assert run.log({"other": Unreadable()})
    assert run.finish().accepted == 101
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(told) == 2
    assert "'model' cannot be encoded and is recorded as its repr: <unreadable>" in told[0]
    assert "'other'" in told[1]
    assert values(run.path, "model") == ["<unreadable>"] * 100


def test_value_whose_code_raises_does_not_stop_the_run(init: Opener) -> None:
    class Raises:
        shape = (2,)

        def __array__(self, *_: object) -> Any:
            raise MemoryError("on the device")

    with init() as run:
        assert run.log({"tensor": Raises(), "x": 1})
    assert values(run.path, "x") == [1]


def test_cycles_and_deep_nests_do_not_stop_the_run(init: Opener) -> None:
    cycle: dict[str, Any] = {"x": 1}
    cycle["self"] = cycle
    nest: list[Any] = []
    for _ in range(2000):
        nest = [nest]
    with init() as run:
        assert run.log({"cycle": cycle, "nest": nest, "x": 2})
        assert run.log({"x": 3})
    assert values(run.path, "x") == [2, 3]
    assert [line["x"] for line in lines(run.path)] == [2, 3]


@HOSTS
def test_record_is_the_value_at_the_call(init: Opener, worker: str) -> None:
    with init(worker=worker) as run:
        data: dict[str, Any] = {"n": 0, "list": [0], "array": np.zeros(3), "nested": {"n": 0}}
        for n in range(50):
            data["n"] = data["list"][0] = data["array"][:] = data["nested"]["n"] = n
            run.log(data)
        data.clear()
    for n, record in enumerate(records(run.path)):
        assert (record.data["n"], record.data["list"], record.data["nested"]) == (n, [n], {"n": n})
        assert record.data["array"].tolist() == [n] * 3


def test_mapping_that_is_not_a_dict_is_taken(init: Opener) -> None:
    from types import MappingProxyType

    with init() as run:
        assert run.log(MappingProxyType({"x": 1}))
    assert values(run.path, "x") == [1]


def test_record_larger_than_the_queue_is_refused_at_once_and_said(
    init: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    run = init(queue_bytes=4096)
    assert run.log({"x": 1})
    assert run.log({"x": "long" * 1000}) is False
    assert run.log({"x": 3})
    stats = run.finish()
    assert (stats.accepted, stats.dropped, stats.offered) == (2, {"oversize": 1}, 3)
    assert [record.number for record in records(run.path)] == [0, 2]
    assert "was dropped: the queue carries at most 2016" in caplog.text
    assert manifest(run.path)["dropped"] == {"oversize": 1}


# JSON Lines


def test_json_lines_are_flat_and_complete(init: Opener) -> None:
    with init() as run:
        run.log({"loss": 0.5, "phase": "train"}, step=12)
        run.log({"train": {"loss": 0.25, "by class": {"cat": 1}}, "empty": {}, "list": [1, {"a": math.inf}]})
        run.log({"_step": "mine", "_timestamp": "mine", "x": -math.inf})
        run.log({})
        run.log({"text": "null", "none": None})
    first, second, third, fourth, fifth = lines(run.path)
    assert first == {"_step": 12, "_timestamp": first["_timestamp"], "loss": 0.5, "phase": "train"}
    assert list(first) == ["_step", "_timestamp", "loss", "phase"]
    assert second["train/loss"] == 0.25
    assert second["train/by class/cat"] == 1
    assert (second["empty"], second["list"]) == ({}, [1, {"a": "Infinity"}])
    assert (third["_step"], third["x"]) == (2, "-Infinity")
    assert set(fourth) == {"_step", "_timestamp"}
    assert (fifth["text"], fifth["none"]) == ("null", None)


def test_json_lines_of_a_run_without_records_are_empty(init: Opener) -> None:
    with init() as run:
        pass
    assert (run.path / "metrics.jsonl").read_bytes() == b""


def test_json_lines_go_to_the_file_that_was_asked_for(init: Opener) -> None:
    with init(backends=[asynctrack.JSONLines(file="a.jsonl"), asynctrack.JSONLines(file="b.jsonl")]) as run:
        run.log({"x": 1})
    assert [line["x"] for file in ("a.jsonl", "b.jsonl") for line in lines(run.path, file)] == [1, 1]
    assert set(run.stats().backends) == {"jsonl", "jsonl-2"}


# Backends in the caller


@HOSTS
def test_memory_holds_what_was_logged(init: Opener, worker: str) -> None:
    memory = Memory()
    with init(worker=worker, backends=[memory], config={"a": 1}) as run:
        run.config["b"] = 2
        run.log({"x": 1, "nested": {"y": 2}})
        run.log({"x": math.inf}, step=7)
        run.summary["best"] = 3
    assert memory.records == [{"x": 1, "nested": {"y": 2}}, {"x": math.inf}]
    assert memory.history == {"x": [1, math.inf], "nested": [{"y": 2}]}
    assert memory.steps == [0, 7]
    assert memory.config == {"a": 1, "b": 2}
    assert memory.summary == {"best": 3}
    with init(worker=worker, backends=[memory]):
        pass
    assert (memory.records, memory.history, memory.config, memory.summary) == ([], {}, {}, {})


class Total(Backend, frozen=True, kw_only=True, tag="total"):
    """A user's own backend: adds up one key."""

    sums: ClassVar[dict[str, float]] = {}
    key: str = "x"

    def open(self, context: Context) -> Sink:
        key, run_id, sums = self.key, context.run_id, self.sums

        class Adds(Sink):
            def write(self, batch: Batch) -> None:
                sums[run_id] = sums.get(run_id, 0) + sum(record.data[key] for record in batch.records)

        return Adds()


@HOSTS
def test_users_own_backend_gets_every_record(init: Opener, worker: str) -> None:
    with init(worker=worker, backends=[Total(key="y"), "jsonl"]) as run:
        for i in range(1000):
            run.log({"y": i})
    assert Total.sums[run.id] == sum(range(1000))
    assert run.stats().backends["total"].delivered == run.stats().backends["jsonl"].delivered == 1000


class Flaky(Backend, frozen=True, kw_only=True, tag="flaky"):
    """Fails a few times before it works."""

    written: ClassVar[list[Any]] = []
    failures: ClassVar[list[int]] = []

    def open(self, context: Context) -> Sink:
        class Fails(Sink):
            async def write(self, batch: Batch) -> None:
                if batch.records and len(Flaky.failures) < 2:
                    Flaky.failures.append(len(batch.records))
                    raise ConnectionError("the server is down")
                Flaky.written.extend(record.data["i"] for record in batch.records)

        return Fails()


@pytest.mark.system
@HOSTS
def test_backend_that_fails_falls_behind_alone_and_catches_up(init: Opener, worker: str) -> None:
    Flaky.written.clear()
    Flaky.failures.clear()
    with init(worker=worker, backends=[Flaky(), "jsonl"]) as run:
        for i in range(10):
            run.log({"i": i})
        wait_until(lambda: run.stats().backends["flaky"].last_error, "the failure is told")
        stats = run.stats()
        assert_balanced(stats)
        assert stats.backends["flaky"].last_error == "ConnectionError: the server is down"
        wait_until(lambda: run.stats().backends["jsonl"].delivered == 10, "the other backend has all")
    assert Flaky.written == list(range(10))
    assert run.stats().backends["flaky"].last_error is None
    assert run.stats().behind == 0


class Wedged(Backend, frozen=True, kw_only=True, tag="wedged"):
    """Never answers."""

    released: ClassVar[threading.Event] = threading.Event()

    def open(self, context: Context) -> Sink:
        class Waits(Sink):
            def write(self, batch: Batch) -> None:
                Wedged.released.wait(30)

        return Waits()


@pytest.mark.system
@HOSTS
def test_wedged_backend_holds_neither_the_loop_nor_the_journal_nor_finish(init: Opener, worker: str) -> None:
    Wedged.released.clear()
    try:
        run = init(worker=worker, backends=[Wedged(), "jsonl"], finish_timeout_s=0.5)
        for i in range(1000):
            assert run.log({"i": i})
        begin = time.monotonic()
        stats = run.finish()
        assert time.monotonic() - begin < 3
        assert stats.journaled == 1000
        assert stats.backends["wedged"].behind == 1000
        wait_until((run.path / "metrics.jsonl").exists, "the other backend has begun")
        wait_until(lambda: len(lines(run.path)) == 1000, "the other backend has all")
    finally:
        Wedged.released.set()


# Children, trackers, the module's own calls


def test_bind_adds_fields_and_scope_a_prefix(init: Opener) -> None:
    with init() as run:
        run.bind({"worker": 3}).log({"loss": 1}, step=5)
        run.scope("train").log({"loss": 2})
        run.scope("train").scope("inner").bind({"fold": 1}).bind({"worker": 2}).log({"loss": 3})
        assert run.bind({"x": "bound"}).log({"x": "own"})
    assert [record.data for record in records(run.path)] == [
        {"worker": 3, "loss": 1},
        {"train/loss": 2},
        {"fold": 1, "worker": 2, "train/inner/loss": 3},
        {"x": "own"},
    ]
    assert [record.step for record in records(run.path)] == [5, 1, 2, 3]


def test_scope_records_every_so_many_steps_and_returns_true_for_the_others(init: Opener) -> None:
    with init() as run:
        gated, counted = run.scope("train", every=100), run.scope("test", every=2)
        assert all(gated.log({"step": step}, step=step) for step in range(250))
        assert all(counted.log({"call": call}) for call in range(5))
    assert values(run.path, "train/step") == [0, 100, 200]
    assert values(run.path, "test/call") == [0, 2, 4]
    assert run.stats().accepted == 6


def test_tracker_opens_run_after_run(runs: Path) -> None:
    tracker = Tracker("tropt", dir=runs, config={"lr": 1, "seed": 0})
    first = tracker.init({"lr": 2})
    assert tracker.log({"loss": 1})
    stats = tracker.finish({"best": 1})
    second = tracker.init()
    assert tracker.log({"loss": 2}, step=9)
    tracker.finish()
    assert stats is not None
    assert stats.accepted == 1
    assert first.id != second.id
    assert manifest(first.path)["config"] == {"lr": 2, "seed": 0}
    assert manifest(first.path)["summary"] == {"best": 1}
    assert manifest(second.path)["config"] == {"lr": 1, "seed": 0}
    assert [record.step for record in records(second.path)] == [9]


def test_tracker_that_is_initialised_while_open_finishes_first_and_warns(
    runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = Tracker("tropt", dir=runs)
    first = tracker.init()
    second = tracker.init()
    assert manifest(first.path)["status"] == "finished"
    assert [record.getMessage() for record in caplog.records] == [
        f"asynctrack: init() while run {first.id} is open: it is finished first"
    ]
    with tracker:
        tracker.log({"x": 1})
    assert manifest(second.path)["status"] == "finished"
    assert tracker.run is None


def test_tracker_without_a_run_refuses_log_and_ignores_finish(runs: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracker = Tracker("tropt", dir=runs)
    with pytest.raises(
        NoCurrentRun, match=r"Tracker\.log\(\) needs an open run, and there is none; call Tracker\.init\(\) first"
    ):
        tracker.log({"x": 1})
    assert tracker.finish() is None
    assert [record.getMessage() for record in caplog.records] == ["asynctrack: finish() without an open run is ignored"]


def test_tracker_whose_run_cannot_be_opened_is_free_for_the_next(runs: Path) -> None:
    tracker = Tracker("tropt", dir=runs)
    with pytest.raises(asynctrack.AsynctrackError):
        tracker.init(config=[1])  # type: ignore[arg-type]  # the mistake
    tracker.init({"a": 1})
    assert tracker.log({"x": 1})
    tracker.finish()


def test_exception_in_a_trackers_with_marks_the_run_failed(runs: Path) -> None:
    def fail() -> None:
        with tracker:
            raise ValueError("diverged")

    tracker = Tracker("tropt", dir=runs)
    run = tracker.init()
    with pytest.raises(ValueError, match="diverged"):
        fail()
    assert manifest(run.path)["error"] == "ValueError: diverged"


def test_module_level_calls_go_to_the_current_run(init: Opener) -> None:
    first = init()
    assert asynctrack.current() is first
    second = init()
    assert asynctrack.current() is second
    assert asynctrack.log({"x": 1}, step=4)
    assert asynctrack.finish({"best": 1}).accepted == 1
    assert manifest(second.path)["summary"] == {"best": 1}
    assert records(second.path)[0].step == 4


def test_module_level_calls_without_a_run_say_so(caplog: pytest.LogCaptureFixture) -> None:
    assert asynctrack.current() is None
    with pytest.raises(
        NoCurrentRun, match=r"log\(\) needs an open run, and there is none; call asynctrack\.init\(project\)"
    ):
        asynctrack.log({"x": 1})
    assert asynctrack.finish() is None
    assert [record.getMessage() for record in caplog.records] == ["asynctrack: finish() without an open run is ignored"]


async def test_each_task_has_its_own_current_run(init: Opener) -> None:
    async def optimise(name: str) -> None:
        async with init(id=name):
            for i in range(20):
                assert asynctrack.log({name: i})
                await anyio.sleep(0)

    async with anyio.create_task_group() as tasks:
        for name in ("a", "b", "c"):
            tasks.start_soon(optimise, name)
    for run in init.opened:
        assert values(run.path, run.id) == list(range(20))
        assert len(records(run.path)) == 20


def test_other_threads_log_to_the_latest_run(init: Opener) -> None:
    run = init()
    thread = threading.Thread(target=lambda: asynctrack.log({"x": 1}))
    thread.start()
    thread.join()
    run.finish()
    assert values(run.path, "x") == [1]


# Disabled


@pytest.mark.parametrize("how", ["argument", "environment"])
async def test_disabled_run_does_nothing_anywhere(
    init: Opener, runs: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how == "environment":
        monkeypatch.setenv("ASYNCTRACK_MODE", "disabled")
    async with init(**{"mode": "disabled"} if how == "argument" else {}) as run:
        assert run.log({"x": 1}) is True
        assert await run.alog({"x": 1}) is True
        assert run.bind({"a": 1}).scope("train").log({"x": 1}) is True
        assert asynctrack.log({"x": 1}) is True
        run.config["a"] = 1
        run.summary["b"] = 2
        assert (run.config, run.summary) == ({"a": 1}, {"b": 2})
        run.mark_preempted()
        assert run.checkpoint(epoch=1) == await run.acheckpoint(epoch=2) == RunStats()
        assert run.last_checkpoint() == {"epoch": 2}
        assert run.flush("synced") == await run.aflush() == run.stats() == RunStats()
    assert run.finish() == await run.afinish() == RunStats()
    assert run.log({"x": 1}) is True
    assert asynctrack.current() is None
    assert not runs.exists()
    assert repr(run).endswith("disabled>")


def test_explicit_mode_goes_over_the_environments(init: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCTRACK_MODE", "disabled")
    run = init(mode="online")
    run.log({"x": 1})
    assert run.finish().journaled == 1


# When the queue is full


@pytest.fixture
def worker_pid(init: Opener, shared_host: Path) -> int:
    """Of a worker that has started, is at rest, and stays for the test: it has a run that is open."""
    init("warm").flush()
    return the_worker(shared_host)


def small_run(init: Opener, **settings: Any) -> Run:
    """A run with the smallest queue, which the worker has taken and emptied."""
    run = init(queue_bytes=4096, **settings)
    run.log({"i": -1})
    run.flush()
    return run


def test_full_queue_drops_the_newest_and_counts_them(
    init: Opener, worker_pid: int, caplog: pytest.LogCaptureFixture
) -> None:
    run = small_run(init)
    with stopped(worker_pid):
        accepted = fill(run)
        assert len(accepted) > 50
        for _ in range(9):
            assert run.log({"i": "dropped"}) is False
        stats = run.stats()
        assert stats.dropped == {"full": 10}
        assert stats.accepted == 1 + len(accepted)
        assert_balanced(stats)
    run.flush()
    assert run.log({"i": "after"})
    stats = run.finish()
    assert (stats.accepted, stats.offered, stats.dropped) == (len(accepted) + 2, len(accepted) + 12, {"full": 10})
    found = records(run.path)
    assert [record.data["i"] for record in found] == [-1, *accepted, "after"]
    assert [record.number for record in found] == [*range(len(accepted) + 1), len(accepted) + 11]
    assert manifest(run.path)["dropped"] == {"full": 10}
    told = [record.getMessage() for record in caplog.records if "dropped" in record.getMessage()]
    first, last = told
    assert "1 record dropped so far, the queue is full: the worker does not keep up" in first
    assert ": 10 records were dropped in all: 10 found the queue full; see docs/" in last


def test_full_queue_raises_where_that_was_asked_for(init: Opener, worker_pid: int) -> None:
    run = small_run(init, when_full="raise")
    with stopped(worker_pid):
        with pytest.raises(QueueFull, match=r"queue of 4096 bytes is full.*dropped and counted.*Raise queue_bytes"):
            fill(run)
        accepted = run.stats().accepted
        assert accepted > 50
    stats = run.finish()
    assert (stats.accepted, stats.dropped) == (accepted, {"full": 1})
    assert values(run.path, "i") == list(range(-1, accepted - 1))


def test_blocked_log_ends_when_the_run_is_finished(init: Opener, worker_pid: int) -> None:
    run = init(when_full="block", max_block_s=50, queue_bytes=1 << 14, finish_timeout_s=0)
    run.flush("journaled")
    raised: list[type[BaseException]] = []

    def fill() -> None:
        try:
            while run.log({"x": "y" * 100}):
                pass
        except BaseException as error:
            raised.append(type(error))

    with stopped(worker_pid):
        thread = threading.Thread(target=fill)
        thread.start()
        ring = run._publisher.producer.ring
        wait_until(lambda: ring.used() > ring.capacity - 1024, "the queue is full")
        run.finish()
        thread.join(20)
    assert raised == [RunFinished]
    assert run.stats().offered == run.stats().accepted + sum(run.stats().dropped.values())


def test_nothing_is_kept_back_for_a_run_that_has_finished(init: Opener) -> None:
    run = init()
    run.finish()
    with pytest.raises(RunFinished):
        run.log({"x": 1}, commit=False)


def test_full_queue_blocks_until_there_is_room(init: Opener, worker_pid: int) -> None:
    run = small_run(init, when_full="block", max_block_s=10)
    count = 1000
    done = threading.Event()

    def log() -> None:
        for i in range(count):
            assert run.log({"i": i})
        done.set()

    thread = threading.Thread(target=log)
    with stopped(worker_pid):
        thread.start()
        assert not done.wait(0.2)
        before = run.stats().accepted
        assert 0 < before < count
        assert not done.wait(0.1)
        assert run.stats().accepted == before
    assert done.wait(10)
    thread.join()
    assert run.finish().dropped == {}
    assert values(run.path, "i") == [-1, *range(count)]


def test_blocked_log_gives_up_after_its_limit(init: Opener, worker_pid: int) -> None:
    run = small_run(init, when_full="block", max_block_s=0.1)
    with stopped(worker_pid):
        begin = time.monotonic()
        accepted = fill(run)
        assert 0.1 <= time.monotonic() - begin < 2
    assert run.finish().dropped == {"full": 1}
    assert values(run.path, "i") == [-1, *accepted]


async def test_blocked_alog_leaves_the_event_loop_to_others(init: Opener, worker_pid: int) -> None:
    run = small_run(init, when_full="block", max_block_s=10)
    count, logged, turns = 200, 0, 0

    async def log() -> None:
        nonlocal logged
        for i in range(count):
            assert await run.alog({"i": i})
            logged += 1

    async with anyio.create_task_group() as tasks:
        with stopped(worker_pid):
            tasks.start_soon(log)
            for turns in range(20):  # noqa: B007  # it is read below
                await anyio.sleep(0.005)
            assert 0 < logged < count
    assert turns == 19
    assert logged == count
    await run.afinish()
    assert values(run.path, "i") == [-1, *range(count)]


async def test_blocked_alog_gives_up_after_its_limit(init: Opener, worker_pid: int) -> None:
    run = small_run(init, when_full="block", max_block_s=0.1)
    with stopped(worker_pid):
        while await run.alog({"i": 1}):
            pass
    assert (await run.afinish()).dropped == {"full": 1}


async def test_cancelled_alog_records_nothing(init: Opener, worker_pid: int) -> None:
    run = small_run(init, when_full="block", max_block_s=60)
    with stopped(worker_pid):
        accepted = 0
        while True:
            with anyio.move_on_after(0.1) as scope:
                assert await run.alog({"i": accepted})
                accepted += 1
            if scope.cancelled_caught:
                break
    assert await run.alog({"i": accepted})
    stats = await run.afinish()
    assert (stats.accepted, stats.dropped) == (accepted + 2, {})
    assert values(run.path, "i") == list(range(-1, accepted + 1))


def test_full_queue_does_not_keep_finish_from_ending(
    init: Opener, worker_pid: int, caplog: pytest.LogCaptureFixture
) -> None:
    run = small_run(init, finish_timeout_s=0.3)
    with stopped(worker_pid):
        accepted = fill(run)
        begin = time.monotonic()
        run.finish({"best": "x" * 100})
        assert time.monotonic() - begin < 2
    assert "its end is recorded without summary or error: the queue of 4096 bytes is full" in caplog.text
    wait_until(lambda: manifest(run.path)["status"] == "finished", "the worker has gone on")
    assert values(run.path, "i") == [-1, *accepted]


# Data frames


def test_data_frames_have_a_row_per_record_and_a_column_per_key(init: Opener) -> None:
    with init() as run:
        for step in range(5):
            run.log({"loss": 1 / (step + 1), "nested": {"n": step}} if step else {"loss": math.nan}, step=10 * step)
    reader = asynctrack.open_run(run.path)
    frames = [reader.to_pandas(), reader.to_polars(), reader.to_arrow()]
    for frame, names in zip(frames, (list(frames[0]), frames[1].columns, frames[2].column_names), strict=True):
        assert list(names) == ["_step", "_timestamp", "loss", "nested/n"]
        assert len(frame) == 5
    assert frames[0]["_step"].tolist() == [0, 10, 20, 30, 40]
    assert frames[1]["nested/n"].to_list() == [None, 1, 2, 3, 4]
    assert frames[2]["loss"].to_pylist()[1:] == [1 / 2, 1 / 3, 1 / 4, 1 / 5]
    assert math.isnan(frames[1]["loss"][0])


def test_run_json_is_plain_json(init: Opener) -> None:
    with init(config={"nan": math.nan, "array": np.arange(2)}) as run:
        run.summary["inf"] = -math.inf

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    told = json.loads((run.path / "run.json").read_text(), parse_constant=refuse)
    assert told["config"] == {"nan": "NaN", "array": [0, 1]}
    assert told["summary"] == {"inf": "-Infinity"}
    assert math.isnan(asynctrack.open_run(run.path).config["nan"])


def test_disabled_run_has_logged_nothing_and_is_closed_once_it_has_finished(runs: Path) -> None:
    run = asynctrack.init("p", id="off", dir=runs, mode="disabled")
    run.log({"x": 1})
    assert run.is_open
    assert run.last_values() == {}
    assert run.finish().accepted == 0
    assert not run.is_open
