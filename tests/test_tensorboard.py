"""TensorBoard's event files, read back with TensorBoard itself."""

from __future__ import annotations

import bisect
import contextlib
import itertools
import json
import math
import os
import random
import resource
import shutil
import signal
import socket
import struct
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import google_crc32c
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import manifest, outcome, records, run_child, start, the_worker, wait_until, workers
from tensorboard.backend.event_processing.event_accumulator import STORE_EVERYTHING_SIZE_GUIDANCE, EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins.hparams import metadata as hparams_metadata

import asynctrack
from asynctrack import Batch, Context, Record, TensorBoard, Update
from asynctrack.backends.base import ActionRequired, Backend, Resend, Retry
from asynctrack.backends.registry import from_stored, stored
from asynctrack.backends.tfevents import crc32c
from asynctrack.backends.tfevents.events import NOTHING, STEP, Events
from asynctrack.errors import BackendUnavailable, InvalidSettings
from asynctrack.records.arrays import as_array
from asynctrack.records.codec import decode_record, encode
from asynctrack.testing import BackendContract, JournaledRun, deliver

CREATED_AT = "2026-01-02T03:04:05.678+00:00"
CREATED_S = 1767323045.678
FILE = "events.out.tfevents.1767323045.asynctrack.678"


def load(folder: Path) -> EventAccumulator:
    """What TensorBoard finds in a directory of event files."""
    return EventAccumulator(str(folder), STORE_EVERYTHING_SIZE_GUIDANCE).Reload()


def points(folder: Path, tag: str) -> list[tuple[int, float]]:
    """Steps and values of a scalar."""
    return [(event.step, event.value) for event in load(folder).Scalars(tag)]


def texts(folder: Path, key: str) -> list[tuple[int, str]]:
    """Steps and values of a text."""
    found = load(folder).Tensors(f"{key}/text_summary")
    return [(event.step, event.tensor_proto.string_val[0].decode()) for event in found]


def in_32_bits(value: float) -> float:
    """A number as TensorBoard keeps it."""
    try:
        return float(struct.unpack("f", struct.pack("f", value))[0])
    except (OverflowError, struct.error):
        return math.inf if value > 0 else -math.inf


def open_sink(run: Path, state: dict[str, Any] | None = None, config: dict[str, Any] | None = None) -> Any:
    """The sink of a run, as a delivery opens it."""
    return TensorBoard().open(context(run, state, config))


def context(run: Path, state: dict[str, Any] | None = None, config: dict[str, Any] | None = None) -> Context:
    return Context(
        run_id="run", name="run", project="p", directory=run, created_at=CREATED_AT, config=config or {}, state=state
    )


def record(number: int, data: dict[str, Any] | None = None, step: int | None = None) -> Record:
    """A record as a delivery decodes it."""
    given = {"i": number} if data is None else data
    plain = {key: as_array(value) if isinstance(value, np.ndarray) else value for key, value in given.items()}
    payload = encode((1767323046_000_000_000 + number * 1000, step, plain))
    return decode_record(payload, number)


def give(sink: Any, numbers: Iterable[int], updates: Sequence[Update] = ()) -> Any:
    return sink.write(Batch([record(number) for number in numbers], list(updates)))


@pytest.mark.system
class TestContract(BackendContract):
    exactly_once = True
    keeps = frozenset({"float", "int", "bool", "text", "nan", "inf", "big", "list"})

    def make_backend(self, run: Path) -> Backend:
        return TensorBoard(flush_s=0)

    def read(self, run: Path) -> Iterable[tuple[int, str, Any]]:
        return self.read_folder(run / "tensorboard")

    def read_writer(self, run: Path, writer: str) -> Iterable[tuple[int, str, Any]]:
        return self.read_folder(run / "tensorboard" / writer)

    def read_folder(self, folder: Path) -> Iterable[tuple[int, str, Any]]:
        # TensorBoard itself takes each folder by itself, and a loader all that is below.
        found = EventAccumulator(str(folder), STORE_EVERYTHING_SIZE_GUIDANCE).Reload()
        for tag in found.Tags()["scalars"]:
            if not tag.startswith("summary/"):
                yield from ((event.step, tag, event.value) for event in found.Scalars(tag))
        for tag in found.Tags()["tensors"]:
            key = tag.removesuffix("/text_summary")
            if key != "config" and not key.startswith("_hparams_/"):
                for event in found.Tensors(tag):
                    (text,) = event.tensor_proto.string_val
                    yield event.step, key, json.loads(text) if key == "list" else text.decode()

    def same(self, given: Any, found: Any) -> bool:
        return super().same(in_32_bits(given) if isinstance(given, int | float) else given, found)


@pytest.mark.system
class TestContractInADirectoryOfItsOwn(TestContract):
    def make_backend(self, run: Path) -> Backend:
        return TensorBoard(dir=str(run.parent.parent.parent / "board"), flush_s=0)

    def read(self, run: Path) -> Iterable[tuple[int, str, Any]]:
        board = run.parent.parent.parent / "board" / run.parent.name / run.name
        (run / "tensorboard").unlink(missing_ok=True)
        (run / "tensorboard").symlink_to(board)
        return super().read(run)


# What is written


@pytest.mark.parametrize(
    ("data", "checksum"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
    ],
)
def test_checksums_are_those_of_rfc_3720(data: bytes, checksum: int) -> None:
    assert crc32c.by_tables(data) == google_crc32c.value(data) == checksum


@given(st.binary(max_size=300))
def test_both_checksums_are_the_same(data: bytes) -> None:
    assert crc32c.by_tables(data) == google_crc32c.value(data)


def test_without_google_crc32c_the_bytes_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    given = [record(i, {"loss": i / 3, "text": "x" * i}) for i in range(20)]
    fast = Events().of_records(given)
    monkeypatch.setitem(sys.modules, "google_crc32c", None)
    assert crc32c.find() is crc32c.by_tables
    assert Events().of_records(given) == fast


NUMBERS = st.one_of(st.floats(), st.integers(-(1 << 70), 1 << 70), st.booleans())
LEAVES = st.one_of(NUMBERS, st.text(), st.none(), st.lists(NUMBERS, max_size=3))
DATA = st.dictionaries(
    st.text(max_size=8),
    st.recursive(LEAVES, lambda inner: st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_size=6,
)


@pytest.mark.system
@given(DATA, st.integers(-(1 << 63), (1 << 63) - 1), st.integers(0, 1 << 62))
def test_every_event_is_the_message_that_protobuf_reads(data: dict[str, Any], step: int, time_ns: int) -> None:
    events = Events()
    given = Record(0, step, time_ns, data)
    frame, skipped = events.of_records([given])
    again, _ = events.of_records([given])
    assert frame == again
    shown = {}
    if frame:
        assert events.is_whole(frame)
        event = Event.FromString(frame[12:-4])
        assert (event.wall_time, event.step) == (time_ns / 1e9, step)
        for value in event.summary.value:
            text = value.WhichOneof("value") == "tensor"
            shown[value.tag] = value.tensor.string_val[0].decode() if text else value.simple_value
    expected = dict(expected_values(data))
    assert shown.keys() == expected.keys()
    assert all(same(shown[tag], value) for tag, value in expected.items())
    assert skipped == ({} if expected else {NOTHING: 1})


def expected_values(data: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in data.items():
        if isinstance(value, dict):
            yield from expected_values(value, f"{prefix}{name}/")
        elif isinstance(value, str | list):
            yield f"{prefix}{name}/text_summary", value
        elif value is not None:
            yield prefix + name, in_32_bits(value)


def same(shown: Any, value: Any) -> bool:
    if isinstance(value, list):
        found = json.loads(shown)
        return len(found) == len(value)
    return bool(shown == value) or (shown != shown and value != value)


def test_steps_beyond_63_bits_are_skipped_and_all_others_come(tmp_path: Path) -> None:
    sink = open_sink(tmp_path)
    steps = [1 << 63, (1 << 64) - 1, (1 << 63) - 1, -(1 << 63), 0]
    assert sink.write(Batch([record(i, step=step) for i, step in enumerate(steps)], [])) == {STEP: 2}
    assert points(tmp_path / "tensorboard", "i") == [((1 << 63) - 1, 2), (-(1 << 63), 3), (0, 4)]
    sink.close("stopped")


def test_nested_names_need_not_be_texts(tmp_path: Path) -> None:
    sink = open_sink(tmp_path)  # of a journal that another version has written
    given = [record(0, {"layer": {0: 0.5, (1, 2): {None: 1.5}, 3: "text"}})]
    sink.write(Batch(given, []))
    assert points(tmp_path / "tensorboard", "layer/0") == [(0, 0.5)]
    assert points(tmp_path / "tensorboard", "layer/(1, 2)/None") == [(0, 1.5)]
    sink.close("stopped")


def test_what_has_nothing_to_show_is_skipped(tmp_path: Path) -> None:
    sink = open_sink(tmp_path)
    nothing: list[dict[str, Any]] = [
        {},
        {"a": None},
        {"a": {}, "b": {"c": None}},
        {"a": np.array([])},
        {"a": np.array([math.nan, math.inf])},
    ]
    given = [*(record(i, data) for i, data in enumerate(nothing)), record(9, {"a": None, "b": 1})]
    assert sink.write(Batch(given, [])) == {NOTHING: len(nothing)}
    assert points(tmp_path / "tensorboard", "b") == [(9, 1)]
    assert give(sink, range(10, 12)) is None
    sink.close("stopped")


def test_values_that_change_their_kind_stay_readable(tmp_path: Path) -> None:
    sink = open_sink(tmp_path)
    values = [1.5, "none yet", None, 2, True, {"deep": 3}, 1e300]
    sink.write(Batch([record(i, {"loss": value}) for i, value in enumerate(values)], []))
    folder = tmp_path / "tensorboard"
    assert points(folder, "loss") == [(0, 1.5), (3, 2), (4, 1), (6, math.inf)]
    assert points(folder, "loss/deep") == [(5, 3)]
    assert texts(folder, "loss") == [(1, "none yet")]
    sink.close("stopped")


def official_buckets(values: Sequence[float]) -> tuple[list[float], list[float]]:
    """TensorFlow's `Histogram::EncodeToProto`, written from its source a value at a time."""
    positive = list(
        itertools.takewhile(
            lambda limit: limit < 1e20, itertools.accumulate(itertools.repeat(1.1), lambda a, b: a * b, initial=1e-12)
        )
    )
    limits = [-sys.float_info.max, *(-limit for limit in reversed(positive)), 0.0, *positive, sys.float_info.max]
    counts = [0.0] * len(limits)
    for value in values:
        counts[min(bisect.bisect_right(limits, value), len(limits) - 1)] += 1
    ends, kept, i = [], [], 0
    while i < len(counts):
        end, count = limits[i], counts[i]
        i += 1
        while count <= 0 and i < len(counts) and counts[i] <= 0:
            end, count = limits[i], counts[i]
            i += 1
        ends.append(end)
        kept.append(count)
    return ends, kept


@pytest.mark.parametrize(
    "array",
    [
        np.random.default_rng(1).normal(size=(20, 30)),
        np.random.default_rng(2).normal(size=500).astype("f2"),
        np.arange(-5, 5, dtype="i8"),
        np.arange(5, dtype="u8") + (1 << 63),
        np.array([True, False, True]),
        np.array([0.0, 0.0]),
        np.array([-1e300, 1e300, 1e-320, 1e-12, 1.1e-12]),
        np.array([[1.0, math.nan], [math.inf, -math.inf]]),
    ],
    ids=lambda array: f"{array.dtype}-{array.size}",
)
def test_arrays_are_histograms_with_tensorflows_buckets(tmp_path: Path, array: np.ndarray[Any, Any]) -> None:
    sink = open_sink(tmp_path)
    sink.write(Batch([record(0, {"w": array, "loss": 1.0}, step=7)], []))
    sink.close("stopped")
    (event,) = load(tmp_path / "tensorboard").Histograms("w")
    found, finite = event.histogram_value, [float(value) for value in array.ravel() if math.isfinite(value)]
    ends, counts = official_buckets(finite)
    assert event.step == 7
    assert (found.num, found.min, found.max) == (len(finite), min(finite), max(finite))
    assert (found.bucket_limit, found.bucket) == (ends, counts)
    with contextlib.suppress(OverflowError):
        assert found.sum == pytest.approx(math.fsum(finite), abs=1e-9)
        assert found.sum_squares == pytest.approx(math.fsum(value * value for value in finite))


def test_config_and_summary_are_hyperparameters_and_metrics(own_host: Path, runs: Path) -> None:
    config = {
        "lr": 0.1,
        "opt": {"name": "adam", "betas": [0.9, 0.99]},
        "seed": 7,
        "flag": True,
        "bad": math.nan,
        "no": None,
    }
    with asynctrack.init("p", dir=runs, config=config, backends=[TensorBoard(flush_s=0)]) as run:
        run.log({"loss": 1.0})
        run.flush()
        run.config["late"] = "x" * 1000
        del run.config["flag"], run.config["opt"]["betas"]
        run.summary.update({"best": 0.5, "note": "**good**", "by": {"layer": 2}})
    folder = run.path / "tensorboard"
    found = load(folder)
    contents = found.PluginTagToContent("hparams")
    start = hparams_metadata.parse_session_start_info_plugin_data(contents[hparams_metadata.SESSION_START_INFO_TAG])
    values = {name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()}
    assert values == {
        "lr": 0.1, "opt/name": "adam", "opt/betas": "[0.9,0.99]", "seed": 7.0, "flag": True, "bad": "NaN", "no": "null",
    }  # fmt: skip
    end = hparams_metadata.parse_session_end_info_plugin_data(contents[hparams_metadata.SESSION_END_INFO_TAG])
    assert (end.status, end.end_time_secs) == (1, found.Scalars("loss")[-1].wall_time)
    assert points(folder, "summary/best") == [(0, 0.5)]
    assert points(folder, "summary/by/layer") == [(0, 2)]
    assert texts(folder, "summary/note") == [(0, "**good**")]
    shown = [json.loads(text) for _, text in texts(folder, "config")]
    assert shown[0] == {**config, "bad": "NaN"}
    left = {"lr": 0.1, "opt": {"name": "adam"}, "seed": 7, "bad": "NaN", "no": None}
    assert shown[-1] == {**left, "late": "x" * 1000}


@pytest.mark.parametrize(
    ("outcome", "status"), [("finished", 1), ("failed", 2), ("crashed", None), ("preempted", None)]
)
def test_how_a_run_ended_is_in_its_table_if_it_was_the_last_word(
    tmp_path: Path, outcome: Any, status: int | None
) -> None:
    sink = open_sink(tmp_path, config={"lr": 0.1})
    sink.close(outcome)
    contents = load(tmp_path / "tensorboard").PluginTagToContent("hparams")
    end = contents.get(hparams_metadata.SESSION_END_INFO_TAG)
    assert (hparams_metadata.parse_session_end_info_plugin_data(end).status if end else None) == status


# Once, in order, whatever happens


def test_run_is_read_back_as_it_was_logged(own_host: Path, runs: Path) -> None:
    with asynctrack.init("p", dir=runs, backends=[TensorBoard()]) as run:
        for i in range(500):
            run.log({"loss": i / 7, "train": {"acc": i, "phase": f"part {i // 100}"}, "big": i << 40}, step=1000 - i)
    folder = run.path / "tensorboard"
    assert [path.name[:19] for path in folder.iterdir()] == ["events.out.tfevents"]
    assert points(folder, "loss") == [(1000 - i, in_32_bits(i / 7)) for i in range(500)]
    assert points(folder, "train/acc") == [(1000 - i, i) for i in range(500)]
    assert points(folder, "big") == [(1000 - i, i << 40) for i in range(500)]
    assert texts(folder, "train/phase") == [(1000 - i, f"part {i // 100}") for i in range(500)]
    times = [event.wall_time for event in load(folder).Scalars("loss")]
    assert times == [found.time_ns / 1e9 for found in records(run.path)]
    assert load(folder).FirstEventTimestamp() <= times[0]
    assert run.stats().backends["tensorboard"].delivered == 500


LOGGING = """
import asynctrack, threading, time
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set())).start()
i = 0
with asynctrack.init("p", id="run", dir=sys.argv[1], backends=[asynctrack.TensorBoard(flush_s=0.01)]) as run:
    while not stop.is_set():
        i += run.log({"i": i, "text": "x" * (i % 50)})
        if i % 50 == 0:
            run.summary["seen"] = i
            time.sleep(float(sys.argv[2]))
print(i)
"""


@pytest.mark.system
def test_reader_that_follows_live_sees_every_point_once(own_host: Path, runs: Path) -> None:
    child = start(LOGGING, runs, 0.05)  # TensorBoard's own reader is slow
    folder = runs / "p" / "run" / "tensorboard"
    wait_until(lambda: list(folder.glob("*tfevents*")), "there is an event file")
    board, seen = EventAccumulator(str(folder), STORE_EVERYTHING_SIZE_GUIDANCE), {0}
    while len(seen) < 10:
        found = values_of(board.Reload())
        assert found == list(range(len(found)))
        seen.add(len(found))
    count = outcome(child)
    assert values_of(board.Reload()) == list(range(count))


def values_of(board: EventAccumulator) -> list[float]:
    return [event.value for event in board.Scalars("i")] if "i" in board.Tags()["scalars"] else []


def log_while_workers_are_killed(shared: Path, runs: Path, kills: int) -> int:
    """Log in a child, whose workers are killed at random moments; returns how many records it logged."""
    child = start(LOGGING, runs, 0.002)
    cursor = runs / "p" / "run" / "cursors" / "tensorboard.json"
    killed_at = 0
    try:
        for _ in range(kills):
            wait_until(partial(was_saved, cursor, killed_at), "a worker delivers")
            time.sleep(random.random() * 0.3)
            os.kill(the_worker(shared), signal.SIGKILL)
            killed_at = time.time_ns()
        return int(outcome(child))
    finally:
        child.kill()


def was_saved(cursor: Path, since_ns: int) -> bool:
    return cursor.exists() and cursor.stat().st_mtime_ns > since_ns


def assert_each_once(folder: Path, count: int) -> None:
    assert points(folder, "i") == [(i, i) for i in range(count)]
    assert texts(folder, "text") == [(i, "x" * (i % 50)) for i in range(count)]
    assert [path.name for path in folder.iterdir()] == [next(folder.glob("*tfevents*")).name]


@pytest.mark.system
def test_worker_killed_at_random_moments_loses_and_repeats_nothing(own_host: Path, runs: Path) -> None:
    count = log_while_workers_are_killed(own_host, runs, 2)
    assert_each_once(runs / "p" / "run" / "tensorboard", count)
    seen = [value for _, value in points(runs / "p" / "run" / "tensorboard", "summary/seen")]
    assert seen == sorted(set(seen))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_workers_killed_many_times_lose_and_repeat_nothing(own_host: Path, tmp_path: Path) -> None:
    for part in range(10):  # a worker that dies young again and again is started ever later
        runs = tmp_path / str(part)
        count = log_while_workers_are_killed(own_host, runs, 2)
        assert_each_once(runs / "p" / "run" / "tensorboard", count)


@pytest.mark.system
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 32))
def test_any_crash_leaves_each_event_once(seed: int) -> None:
    """A journal of records and updates, given in random cuts to sinks that are killed and lose what was not synced."""
    chance = random.Random(seed)
    journal: list[Record | Update] = [
        Update("summary", 1767323046_000_000_000 + n * 1000, {"u": n}) if chance.random() < 0.1 else record(n)
        for n in range(60)
    ]
    with tempfile.TemporaryDirectory() as path:
        file = Path(path, "tensorboard", FILE)
        at, saved, synced, crashes = 0, (0, None), 0, chance.randrange(20)
        sink = open_sink(Path(path))
        while at < len(journal):
            cut = journal[at : at + chance.randrange(1, 20)]
            sink.write(
                Batch([found for found in cut if isinstance(found, Record)], [u for u in cut if isinstance(u, Update)])
            )
            at += len(cut)
            moment = chance.random()
            if moment < 0.4:
                saved, synced = (at, json.loads(json.dumps(sink.checkpoint()))), file.stat().st_size
            elif moment < 0.7 and crashes:
                crashes -= 1
                sink.close("stopped")
                os.truncate(file, chance.randint(synced, file.stat().st_size))
                at = saved[0]
                sink = open_sink(Path(path), saved[1])
        sink.close("finished")
        shown = load(file.parent)
        assert values_of(shown) == [found.number for found in journal if isinstance(found, Record)]
        updates = [found.data["u"] for found in journal if isinstance(found, Update)]
        assert not updates or sorted(event.value for event in shown.Scalars("summary/u")) == updates


@pytest.mark.system
@pytest.mark.parametrize("left", ["cut", "zeros"])
@pytest.mark.parametrize("cut", [1, 4, 5, 20, 60, 80, 85, 86, 94, 95])
def test_torn_last_event_is_made_whole(tmp_path: Path, cut: int, left: str) -> None:
    with JournaledRun(tmp_path / "p" / "run") as run:
        for i in range(5):
            run.log({"i": i, "text": "some words"})
        run.end("crashed")
        deliver(run.path, TensorBoard(), name="tensorboard")
        (file,) = (run.path / "tensorboard").iterdir()
        whole = file.read_bytes()
        file.write_bytes(whole[:-cut] + (bytes(cut + 50) if left == "zeros" else b""))
        shutil.rmtree(run.path / "cursors")
        deliver(run.path, TensorBoard(), name="tensorboard")
        assert file.read_bytes() == whole
        assert list(file.parent.iterdir()) == [file]


def test_write_that_fails_half_way_goes_on_where_it_was(tmp_path: Path) -> None:
    sink = open_sink(tmp_path)
    give(sink, range(3))
    file = tmp_path / "tensorboard" / FILE
    _, hard = limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 100, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            give(sink, range(3, 9))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    give(sink, range(3, 9))
    sink.close("stopped")
    assert points(file.parent, "i") == [(i, i) for i in range(9)]


def test_events_of_records_that_the_journal_has_lost_stay(tmp_path: Path) -> None:
    sink = open_sink(tmp_path)
    give(sink, range(5))
    state = sink.checkpoint()
    give(sink, range(5, 10))  # a power cut takes the last three of these from the journal
    sink.close("stopped")
    sink = open_sink(tmp_path, state)
    give(sink, [5, 6])
    give(sink, [20, 21])
    give(sink, [22])
    assert sink.checkpoint()["bytes"] == (tmp_path / "tensorboard" / FILE).stat().st_size
    sink.close("stopped")
    assert [step for step, _ in points(tmp_path / "tensorboard", "i")] == [*range(10), 20, 21, 22]


def rebuild(sink: Any, reason: str, run: Path, *, file: str) -> None:
    """Give a sink that finds its file changed the next record, and then the whole run to a new one."""
    with pytest.raises(Resend, match=reason) as told:
        give(sink, [9])
    sink.close("stopped")
    assert told.value.state == {"file": file, "bytes": 0}
    sink = open_sink(run, told.value.state)
    give(sink, range(10))
    state = sink.checkpoint()
    assert state["file"] == file
    sink.close("stopped")
    sink = open_sink(run, state)
    give(sink, [10])
    sink.close("finished")
    assert points((run / "tensorboard" / file).parent, "i") == [(i, i) for i in range(11)]


@pytest.mark.parametrize("kept", [True, False], ids=["with its cursor", "without"])
@pytest.mark.parametrize("edit", ["flip", "append", "replace"])
def test_file_that_another_changed_stays_and_the_run_is_written_anew(tmp_path: Path, edit: str, kept: bool) -> None:
    sink = open_sink(tmp_path)
    give(sink, range(5))
    state = sink.checkpoint() if kept else None
    give(sink, range(5, 9))
    sink.close("stopped")
    file = tmp_path / "tensorboard" / FILE
    content = bytearray(file.read_bytes())
    if edit == "flip":
        content[-100] ^= 1
    elif edit == "append":
        content += b"something that is no event"
    else:
        content[-200:] = b"x" * 300
    file.write_bytes(content)
    sink = open_sink(tmp_path, state)
    if not kept:
        with contextlib.suppress(Resend):
            give(sink, range(9))
    rebuild(sink, "changed by another", tmp_path, file=f"rebuilt-2/{FILE}")
    assert file.read_bytes() == bytes(content)


def test_file_with_other_values_for_the_same_records_is_anothers(tmp_path: Path) -> None:
    sink = open_sink(tmp_path)
    give(sink, range(5))
    state = sink.checkpoint()
    sink.write(Batch([record(i, {"i": -i}) for i in range(5, 12)], []))
    sink.close("stopped")
    rebuild(open_sink(tmp_path, state), "changed by another", tmp_path, file=f"rebuilt-2/{FILE}")


def test_file_that_begins_otherwise_is_anothers(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / FILE).write_bytes(Events().version(1.0) + Events().of_records([record(0)])[0])
    rebuild(open_sink(tmp_path), "of another program", tmp_path, file=f"rebuilt-2/{FILE}")


def test_file_that_was_cut_is_written_anew_beside(tmp_path: Path) -> None:
    sink = open_sink(tmp_path)
    give(sink, range(9))
    state = sink.checkpoint()
    sink.close("stopped")
    os.truncate(tmp_path / "tensorboard" / FILE, 100)
    rebuild(open_sink(tmp_path, state), "shorter", tmp_path, file=f"rebuilt-2/{FILE}")


@pytest.mark.parametrize("open_meanwhile", [True, False])
def test_file_that_was_removed_is_written_anew(tmp_path: Path, open_meanwhile: bool) -> None:
    sink = open_sink(tmp_path)
    give(sink, range(9))
    state = sink.checkpoint()
    if not open_meanwhile:
        sink.close("stopped")
    shutil.rmtree(tmp_path / "tensorboard")
    sink = sink if open_meanwhile else open_sink(tmp_path, state)
    rebuild(sink, "removed" if open_meanwhile else "shorter", tmp_path, file=FILE)


def test_file_that_another_appends_to_meanwhile_is_written_anew(tmp_path: Path) -> None:
    sink = open_sink(tmp_path)
    give(sink, range(9))
    with open(tmp_path / "tensorboard" / FILE, "ab") as file:
        file.write(b"no event of ours")
    rebuild(sink, "changed by another", tmp_path, file=f"rebuilt-2/{FILE}")


WRITING = """
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_tensorboard import give, open_sink
sink = open_sink(Path(sys.argv[1]))
give(sink, range(3))
print("writing", flush=True)
sys.stdin.read()
"""


@pytest.mark.system
def test_two_processes_never_write_the_same_file(tmp_path: Path) -> None:
    child = start(WRITING, tmp_path, Path(__file__).parent)
    assert child.stdout is not None
    assert child.stdout.readline() == "writing\n"
    sink = open_sink(tmp_path)
    with pytest.raises(Retry, match="another process"):
        give(sink, range(5))
    child.kill()
    child.communicate()
    give(sink, range(5))
    sink.close("stopped")
    assert points(tmp_path / "tensorboard", "i") == [(i, i) for i in range(5)]


def test_resumed_run_goes_on_in_its_file(own_host: Path, runs: Path) -> None:
    for part in range(3):
        with asynctrack.init(
            "p", id="run", dir=runs, resume="allow", config={"part": part}, backends=[TensorBoard(flush_s=0)]
        ) as run:
            for i in range(part * 10, part * 10 + 10):
                run.log({"i": i})
    (file,) = (run.path / "tensorboard").iterdir()
    assert points(file.parent, "i") == [(i, i) for i in range(30)]


# Where it is written


def test_several_runs_in_one_directory_keep_apart(own_host: Path, runs: Path, tmp_path: Path) -> None:
    board = tmp_path / "board"
    for name in ("first", "second"):
        with asynctrack.init("p", id=name, dir=runs, backends=[TensorBoard(dir=str(board))]) as run:
            run.log({"i": len(name)})
        assert not (run.path / "tensorboard").exists()
    assert points(board / "p" / "first", "i") == [(0, 5)]
    assert points(board / "p" / "second", "i") == [(0, 6)]


def test_several_runs_in_a_flat_directory_are_read_as_one(own_host: Path, runs: Path, tmp_path: Path) -> None:
    opened = [
        asynctrack.init("p", dir=runs, id=name, backends=[TensorBoard(dir=str(tmp_path / "board"), flat=True)])
        for name in ("first", "second")
    ]
    for run in opened:
        run.log({"i": len(run.id)})
        run.finish()
    assert len(list((tmp_path / "board").iterdir())) == 2
    assert sorted(points(tmp_path / "board", "i")) == [(0, 5), (0, 6)]


def test_settings_that_lead_out_of_the_run_are_not_followed_without_trust(tmp_path: Path) -> None:
    assert TensorBoard().external_targets() == []
    assert TensorBoard().prepare() == TensorBoard()
    assert TensorBoard(dir="board").prepare().external_targets() == [os.path.abspath("board")]
    assert TensorBoard(dir="~/board").prepare().dir == os.path.expanduser("~/board")
    assert TensorBoard(serve=True, port=6006).external_targets() == ["127.0.0.1:6006"]
    for leading in (TensorBoard(dir=str(tmp_path)), TensorBoard(serve=True, port=6006)):
        settings = stored(leading, "run", "tensorboard")
        assert from_stored(settings) == leading
        with pytest.raises(BackendUnavailable, match="leads to"):
            from_stored(settings, trusted=False)


@pytest.mark.parametrize("file", ["../../out", "/tmp/out", "rebuilt-2/../../../out", "link/out"])
def test_cursor_that_leads_out_of_the_run_is_not_followed(tmp_path: Path, file: str) -> None:
    run = tmp_path / "run"
    (run / "tensorboard").mkdir(parents=True)
    (run / "tensorboard" / "link").symlink_to(tmp_path)
    with pytest.raises(ActionRequired, match="leads out of"):
        open_sink(run, {"file": file, "bytes": 0})


def test_links_of_a_run_from_elsewhere_are_not_followed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "tensorboard").symlink_to(tmp_path)
    with pytest.raises(ActionRequired, match="leads out of"):
        open_sink(run)


@pytest.mark.parametrize("name", ["..", "../../elsewhere", "/elsewhere", ""])
def test_names_of_a_run_from_elsewhere_lead_nowhere(tmp_path: Path, name: str) -> None:
    backend = TensorBoard(dir=str(tmp_path / "board"))
    for which in ("run_id", "project"):
        hostile = msgspec.structs.replace(context(tmp_path), **{which: name})
        with pytest.raises(ActionRequired, match="names a directory"):
            backend.open(hostile)


@pytest.mark.parametrize(
    "wrong",
    [
        {"dir": ""}, {"dir": 3}, {"flush_s": -1}, {"flush_s": math.nan}, {"flush_s": True}, {"flush_s": "1"},
        {"flat": True}, {"flat": 1}, {"serve": "yes"}, {"port": -1}, {"port": 65536}, {"port": 1.5}, {"port": None}, {"max_records_s": 0},
    ],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidSettings, match=f"{next(iter(wrong))} must be"):
        TensorBoard(**wrong)


def test_path_objects_are_taken_and_stored(tmp_path: Path) -> None:
    backend = TensorBoard(dir=tmp_path)  # type: ignore[arg-type]
    assert backend.dir == str(tmp_path)
    assert from_stored(json.loads(json.dumps(stored(backend, "run", "tensorboard")))) == backend


def test_records_are_seen_without_a_flush_after_a_while(own_host: Path, runs: Path) -> None:
    with asynctrack.init("p", dir=runs, backends=[TensorBoard(flush_s=0.2)]) as run:
        run.log({"i": 0})
        folder = run.path / "tensorboard"
        wait_until(lambda: folder.exists() and "i" in load(folder).Tags()["scalars"], "the record is seen")


def test_choosing_it_imports_nothing_in_the_process_that_logs() -> None:
    script = """
import asynctrack, json
asynctrack.TensorBoard(dir="x").prepare()
print(json.dumps([m for m in ("tensorboard", "numpy", "google_crc32c", "asynctrack.backends.tfevents.sink") if m in sys.modules]))
"""
    assert run_child(script) == []


def test_run_is_delivered_after_the_fact(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "run") as run:
        for i in range(5):
            run.log({"i": i})
        run.end()
    script = "from asynctrack.cli import main; main(sys.argv[1:])"
    run_child(f"{script}\nprint(0)", "sync", run.path, "--to", "tensorboard", f"dir={tmp_path}/board")
    assert points(tmp_path / "board" / "p" / "run", "i") == [(i, i) for i in range(5)]


# The server


def get(port: int, path: str) -> Any:
    """What the server answers; None where there is none."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def servers(run: Path) -> list[int]:
    """Pids of the processes that say what they do in a run's tensorboard.log."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and os.readlink(entry / "fd" / "2") == str(run / "tensorboard.log"):
                found.append(int(entry.name))
    return found


def port_of(run: Path) -> int:
    return int(manifest(run)["backends"]["tensorboard"]["port"])


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


@pytest.mark.system
@pytest.mark.parametrize("worker", ["process", "thread"])
def test_real_server_shows_the_run_while_it_goes_on(
    own_host: Path, runs: Path, capsys: pytest.CaptureFixture[str], worker: Any
) -> None:
    with asynctrack.init("p", dir=runs, worker=worker, backends=[TensorBoard(serve=True, flush_s=0)]) as run:
        for i in range(20):
            run.log({"loss": 1 / (i + 1)}, step=i % 10)
        run.flush()
        port = port_of(run.path)
        assert capsys.readouterr().err == f"asynctrack: TensorBoard is at http://127.0.0.1:{port}/\n"
        wait_until(lambda: get(port, "/data/runs") == ["tensorboard"], "the server shows the run")
        shown = wait_until(lambda: series(port, "loss", 20), "it shows every point, also of steps that came again")
        assert [(step, value) for _, step, value in shown] == [(i % 10, in_32_bits(1 / (i + 1))) for i in range(20)]
        (pid,) = servers(run.path)
        held = files_of(pid)
        assert not [name for name in held if "asynctrack-" in name or "/journal/" in name or name.endswith("lock")]
        run.log({"loss": 0.0}, step=99)
        run.flush()
        wait_until(lambda: series(port, "loss", 21), "it follows")
    wait_until(lambda: gone(pid), "the server has ended with the run")
    assert get(port, "/data/runs") is None


def files_of(pid: int) -> list[str]:
    """What a process has open; it opens and closes files meanwhile."""
    held = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            held.append(os.readlink(fd))
    return held


def series(port: int, tag: str, count: int) -> list[list[float]] | None:
    found = get(port, f"/data/plugin/scalars/scalars?run=tensorboard&tag={tag}")
    return found if isinstance(found, list) and len(found) == count else None


@pytest.mark.system
def test_server_ends_with_its_worker_and_the_next_one_has_another(own_host: Path, runs: Path) -> None:
    with asynctrack.init("p", dir=runs, backends=[TensorBoard(serve=True, flush_s=0)]) as run:
        run.log({"i": 0})
        run.flush()
        first = wait_until(lambda: servers(run.path), "there is a server")
        os.kill(the_worker(own_host), signal.SIGKILL)
        wait_until(lambda: gone(first[0]), "it has ended with its worker")
        run.log({"i": 1})
        run.flush()
        wait_until(lambda: servers(run.path), "there is another")
        wait_until(lambda: get(port_of(run.path), "/data/runs") == ["tensorboard"], "at the same address")
    wait_until(lambda: not servers(run.path), "it has ended")
    assert points(run.path / "tensorboard", "i") == [(0, 0), (1, 1)]


SERVING = """
import asynctrack, os, time
run = asynctrack.init("p", id="run", dir=sys.argv[1], worker=sys.argv[2], backends=[asynctrack.TensorBoard(serve=True, flush_s=0)])
run.log({"i": 0})
run.flush()
if forked := os.fork():  # it has all that its parent had open
    print(forked, flush=True)
time.sleep(100)
"""


@pytest.mark.system
@pytest.mark.parametrize("worker", ["process", "thread"])
def test_server_ends_when_the_process_that_logs_is_killed(shm: Path, runs: Path, worker: str) -> None:
    child = start(SERVING, runs, worker)
    run = runs / "p" / "run"
    assert child.stdout is not None
    forked = int(child.stdout.readline())
    try:
        (pid,) = wait_until(lambda: servers(run), "there is a server")
        child.kill()
        if worker == "thread":
            wait_until(lambda: gone(pid), "the server has ended, though a forked child lives")
    finally:
        child.kill()
        os.kill(forked, signal.SIGKILL)
        child.communicate()
    wait_until(lambda: gone(pid) and not workers(shm), "the server has ended, and the worker")


def test_server_that_is_not_installed_is_said_and_the_files_are_written(
    own_host: Path, runs: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "tensorboard", None)
        run = asynctrack.init("p", dir=runs, backends=[TensorBoard(serve=True)])
    with run:
        run.log({"i": 0})
    assert "pip install 'asynctrack[tensorboard]'" in caplog.text
    assert points(run.path / "tensorboard", "i") == [(0, 0)]
    assert not (run.path / "tensorboard.log").exists()


@pytest.mark.system
def test_port_that_is_taken_harms_nothing(own_host: Path, runs: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with asynctrack.init("p", dir=runs, backends=[TensorBoard(serve=True, port=port)]) as run:
            run.log({"i": 0})
            run.flush()
            log = run.path / "tensorboard.log"
            wait_until(lambda: f"port {port}" in log.read_text(), "the server says so")
            wait_until(lambda: not servers(run.path), "it has ended")
    assert points(run.path / "tensorboard", "i") == [(0, 0)]


MANY = """
import asynctrack, json
from pathlib import Path
def rss(pid):
    return int(next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")).split()[1])
with asynctrack.init("p", id="run", dir=sys.argv[1], when_full="block", max_block_s=30, backends=[asynctrack.TensorBoard()]) as run:
    sizes = []
    for part in range(5):
        for i in range(200_000):
            run.log({"loss": i / 7})
        run.flush()
        sizes.append(rss(run._publisher.producer.ring.words[20]))
print(json.dumps(sizes))
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_million_scalars_take_no_memory(own_host: Path, runs: Path) -> None:
    sizes = run_child(MANY, runs)
    assert sizes[-1] - sizes[0] < 8 * 1024, sizes  # KiB: what the allocator keeps
    found = load(runs / "p" / "run" / "tensorboard").Scalars("loss")
    assert [event.step for event in found] == list(range(1_000_000))
