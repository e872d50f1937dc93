"""The native core does what the Python version does: the same bytes for any record, one call of C for most, and `Run.log` stays a method like any other."""

from __future__ import annotations

import ast
import collections
import contextlib
import copy
import datetime
import decimal
import enum
import gc
import inspect
import os
import pickle
import pydoc
import random
import sys
import sysconfig
import time
import tracemalloc
import typing
import unittest.mock
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memory_growth import CALLS, lost_bytes
from support import lines, run_child, the_worker, values

import asynctrack
from asynctrack import open_run
from asynctrack._system.native import PURE_VARIABLE, is_native
from asynctrack.client.run import Run
from asynctrack.journal import layout
from asynctrack.journal.layout import BatchHeader
from asynctrack.queue.producer import Producer, PythonProducer
from asynctrack.queue.ring import Ring
from asynctrack.records.arrays import plain_array
from asynctrack.records.codec import decode_record, encode_any

if not is_native:
    pytest.skip("the native core is not used here", allow_module_level=True)

from asynctrack import _native
from asynctrack.queue.producer import NativeProducer

# Without an interpreter lock, what may change under another thread while it is encoded is left to Python: lists and dicts inside the record.
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
# Fewer under sanitizers, where each takes long.
EXAMPLES = int(os.environ.get("TEST_EXAMPLES", "100"))
# What precedes a record's step: an array of three, and the time in 64 bits.
STEP_AT = 10
SCALARS = [
    np.bool_(True), np.int8(-5), np.uint8(200), np.int16(-300), np.uint16(60_000), np.int32(-70_000), np.uint32(1 << 31), np.int64(-(1 << 40)),
    np.uint64((1 << 64) - 1), np.longlong(-1), np.ulonglong(1 << 63), np.float16(0.1), np.float32(0.1), np.float64(0.1), np.float64("nan"), np.float32("-inf"),
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def numpy_was_met() -> None:
    """Each type of scalar has been logged once."""
    for scalar in SCALARS:
        plain_array(scalar)


class Fraction(float):
    """A float whose own conversion says something else."""

    def __float__(self) -> float:
        return 99.0


class Colour(enum.IntEnum):
    RED = 1


class OddText(str):
    __slots__ = ()


def same_again(payload: bytes) -> bytes:
    """Return the bytes behind the time."""
    assert payload[:2] == b"\x93\xcf"
    return payload[STEP_AT:]


numbers = (
    st.integers()
    | st.integers(-300, 300)
    | st.floats()
    | st.sampled_from([2**b + i for b in (5, 7, 8, 15, 16, 31, 32, 63, 64) for i in (-1, 0, 1)])
)
texts = (
    st.text() | st.text(st.characters(codec="ascii"), max_size=40) | st.text(st.characters(), max_size=5)
)  # the last has halves of surrogate pairs
leaves = numbers | texts | st.booleans() | st.none() | st.binary() | st.sampled_from(SCALARS)
foreign = st.sampled_from(
    [
        Fraction(0.5), Colour.RED, OddText("x"), {1, 2}, frozenset(), range(3), datetime.timedelta(seconds=5), datetime.datetime(2026, 1, 1), decimal.Decimal("1.5"),
        np.arange(3.0), np.array([1]), np.float64(2.0), np.datetime64("2026-01-01"), np.timedelta64(5, "s"), np.str_("x"), np.complex64(1), np.longdouble(0.1),
        bytearray(b"x"), MappingProxyType({"a": 1}), collections.OrderedDict(a=1), collections.deque([1]), collections.namedtuple("P", "x")(1), object, 1j, Ellipsis,
    ]
)  # fmt: skip
keys = texts | st.integers(-5, 5) | st.booleans() | st.none() | st.just(OddText("odd"))


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return (
        st.lists(inner, max_size=20)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(keys, inner, max_size=20)
    )


known = st.recursive(leaves, containers, max_leaves=12)
anything = st.recursive(leaves | foreign, containers, max_leaves=12)
steps = st.none() | st.integers(-(1 << 63), (1 << 64) - 1) | st.integers(-2, 300)
many = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


def test_core_has_each_name_that_it_is_said_to_offer() -> None:
    said = ast.parse(Path(asynctrack.__file__).with_name("_native.pyi").read_text())
    names = {node.name for node in said.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    names |= {
        node.target.id for node in said.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    only_types = {"Ring"}
    assert len(names) > 10
    assert names - only_types <= set(vars(_native))


@many
@given(st.dictionaries(texts, known, max_size=20), steps)
def test_what_is_encoded_in_c_has_the_bytes_of_the_python_version(data: dict[Any, Any], step: int | None) -> None:
    found = _native.encode_record(data, step)
    expected, lost = encode_any(data, step)
    if found is not None:
        assert same_again(found) == same_again(expected)
        assert lost == []


def test_numbers_of_16_bits_have_the_bytes_of_the_python_version() -> None:
    for half in np.arange(1 << 16, dtype=np.uint16).view(np.float16):
        found = _native.encode_record({"a": half}, 1)
        if found is None:
            assert np.isnan(half)
        else:
            assert same_again(found) == same_again(encode_any({"a": half}, 1)[0])


@pytest.mark.parametrize(
    "value",
    ["x" * 31, "x" * 32, "x" * 255, "x" * 256, "x" * 30_000, "x" * 32_730, "x" * 70_000, "é" * 14_000, "é" * 20_000, "€" * 10_000, "😀" * 8_000,
     b"x" * 255, b"x" * 256, b"x" * 70_000, [0] * 15, [0] * 16, [0] * 70_000, [()] * 32_700, [()] * 32_740, [[""]] * 10_900, {str(n): n for n in range(16)},
     {str(n): 0.5 for n in range(70_000)}],
    ids=lambda value: f"{type(value).__name__} of {len(value)}",
)  # fmt: skip
def test_what_is_long_has_the_bytes_of_the_python_version(value: Any) -> None:
    found = _native.encode_record({"a": value}, 1)
    expected, lost = encode_any({"a": value}, 1)
    assert found is not None or len(expected) > 32_700 or (FREE_THREADED and isinstance(value, list | dict))
    assert found is None or (same_again(found) == same_again(expected) and lost == [])


@many
@given(st.dictionaries(keys, anything, max_size=10), steps)
def test_of_what_is_left_to_python_nothing_is_encoded_in_another_way(data: dict[Any, Any], step: int | None) -> None:
    found = _native.encode_record(data, step)
    if found is not None:
        assert same_again(found) == same_again(encode_any(data, step)[0])


small = st.recursive(
    st.integers(-(1 << 63), (1 << 63) - 1) | st.floats() | st.text(st.characters(codec="utf-8")) | st.booleans() | st.none() | st.sampled_from(SCALARS),
    lambda inner: st.lists(inner, max_size=5).map(tuple)
    if FREE_THREADED
    else st.lists(inner, max_size=5) | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=9), inner, max_size=5),
    max_leaves=12,
)  # fmt: skip


@many
@given(
    st.dictionaries(st.text(st.characters(codec="utf-8")), small, max_size=20),
    st.none() | st.integers(-(1 << 63), (1 << 63) - 1),
)
def test_what_users_log_most_is_encoded_in_c(data: dict[str, Any], step: int | None) -> None:
    assert _native.encode_record(data, step) is not None


@pytest.mark.parametrize(
    "value",
    [
        1 << 63, -(1 << 63) - 1, "\ud800", "a\udfffé", Fraction(0.5), Colour.RED, OddText("x"), datetime.timedelta(1), {1}, np.arange(2), {1: 2}, {OddText("k"): 1},
        np.longdouble(0.5), np.complex64(1), "x" * 40_000, [0] * 40_000,
    ],
    ids=lambda value: repr(value)[:20],
)  # fmt: skip
def test_what_takes_python_is_left_to_it_without_an_error(value: Any) -> None:
    for data in ({"a": value}, {"a": [value]}, {"a": {"b": (value,)}}):
        assert _native.encode_record(data, None) is None


def test_what_holds_itself_is_left_to_python() -> None:
    itself: dict[str, Any] = {}
    itself["a"] = [itself, itself]
    assert _native.encode_record(itself, None) is None
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert _native.encode_record({"a": deep}, None) is None


def test_scalars_are_encoded_in_c_once_their_types_were_logged() -> None:
    script = """
import json
import numpy as np
from asynctrack import _native
from asynctrack.records.arrays import makers
from asynctrack.records.codec import encode_any
scalars = [np.bool_(True), np.int64(5), np.uint8(5), np.float32(0.5), np.float64(0.5)]
for scalar in scalars:
    encode_any({"a": scalar}, None)
print(json.dumps([[_native.encode_record({"a": scalar}, None) is not None, type(scalar) in makers] for scalar in scalars]))
"""
    assert run_child(script) == [[True, True]] * 5


def test_threads_that_meet_a_type_of_scalars_at_once_encode_it_alike() -> None:
    script = """
import json, threading
import numpy as np
from asynctrack import _native
from asynctrack.records.codec import encode_any
kinds = "?bBhHiIlLqQefd"
scalars = [np.ones(1, kind)[0] for kind in kinds]
expected = [encode_any({"a": scalar.item()}, None)[0][10:] for scalar in scalars]
start, wrong = threading.Barrier(8), []
def meet(first):
    start.wait()
    for at in [(first + n) % len(kinds) for n in range(len(kinds))] * 50:
        encode_any({"a": scalars[at]}, None)
        found = _native.encode_record({"a": scalars[at]}, None)
        if found is None or found[10:] != expected[at]:
            wrong.append((kinds[at], found and found.hex()))
threads = [threading.Thread(target=meet, args=(n,)) for n in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps(wrong[:5]))
"""
    assert run_child(script) == []


def test_type_of_a_scalar_is_learned_where_its_number_lies_in_it() -> None:
    class Own(np.float64):
        def __float__(self) -> float:
            return 99.0

    assert all(map(_native.learn, SCALARS))
    for other in (
        Own(0.5),
        np.longdouble(0.5),
        np.datetime64("2026-01-01"),
        np.complex64(1),
        object(),
        b"x",
        1.5j,
        memoryview(b"x"),
    ):
        assert not _native.learn(other)
    assert _native.encode_record({"a": Own(0.5)}, None) is None


# The whole way


@pytest.fixture
def run(own_host: Path, runs: Path) -> Iterator[Run]:
    run = asynctrack.init("p", id="run", dir=runs)
    yield run
    run.finish()


def in_python() -> Any:
    """Return `Run.log` as Python has it."""
    return Run.log.__wrapped__  # type: ignore[attr-defined]


def frame_of(run: Run, log: Callable[[], bool]) -> bytes:
    """Return the frame that a call puts into the ring, without its time."""
    producer = run._publisher.producer
    before = producer.head
    assert log()
    frame = producer.ring.copy(before, producer.head)
    length = int.from_bytes(frame[:4], "little")
    payload = frame[16 : 16 + length]
    return frame[:8] + payload[:2] + payload[STEP_AT:]


def test_both_versions_put_the_same_frame_for_any_record(run: Run) -> None:
    python = in_python()

    @settings(many)
    @given(st.dictionaries(texts, anything, max_size=8), st.none() | st.integers(-5, 1 << 63))
    def check(data: dict[str, Any], step: int | None) -> None:
        if len(encode_any(data, step)[0]) < 10_000:
            assert frame_of(run, lambda: run.log(data, step)) == frame_of(run, lambda: python(run, data, step))

    check()


@pytest.mark.parametrize("keys", [499, 3_000, 20_000])
def test_record_of_many_keys_is_one_call_of_c(run: Run, keys: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = {f"metric/{n:06d}": n / 7 for n in range(keys)}
    python = frame_of(run, lambda: in_python()(run, data, 1))
    monkeypatch.setattr(Run, "_encode_carefully", None)
    assert frame_of(run, lambda: run.log(data, 1)) == python


def test_record_beyond_the_queue_is_refused_and_counted(run: Run) -> None:
    """It fits what the core has for a long record, but not half a queue."""
    assert not run.log({f"metric/{n:06d}": "x" * 40 for n in range(160_000)})
    assert run.stats().dropped == {"oversize": 1}


def test_both_versions_count_the_same_numbers(shm: Path) -> None:
    producers = [
        kind(Ring.create(str(shm / kind.__name__), 65536, {"run": "/r"}, first=7), bool)
        for kind in (NativeProducer, PythonProducer)
    ]
    for producer in producers:
        puts(producer)
    first, second = (producer.ring.copy(0, producer.head) for producer in producers)
    assert first == second
    assert producers[0].ring.words[:16].tolist()[6:] == producers[1].ring.words[:16].tolist()[6:]
    for producer in producers:
        producer.close("left")
        producer.ring.close()


def puts(producer: Producer) -> None:
    for size in range(300):
        producer.put(b"x" * size, *([2 << 56, 0] if size % 7 == 0 else []))
        if size % 5 == 0:
            producer.drop("oversize", size)


@pytest.mark.parametrize("worker", ["native", "python"])
def test_caller_and_worker_may_have_different_versions(
    version: str, worker: str, own_host: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PURE_VARIABLE, "1" if worker == "python" else "0")  # the worker is started with this
    run = asynctrack.init("p", id="run", dir=runs)
    assert (type(run._publisher.producer) is NativeProducer) == (version == "native")
    rows = [{"n": n, "half": n / 2, "text": "é" * (n % 9), "nested": {"list": [n]}} for n in range(500)]
    assert all(run.log(row, step=2 * row["n"]) for row in rows)
    run.flush()
    libraries = Path(f"/proc/{the_worker(own_host)}/maps").read_text()
    assert ("/_native." in libraries) == (worker == "native")
    run.finish()
    assert [(record.step, record.data) for record in open_run(run.path).records()] == [
        (2 * row["n"], row) for row in rows
    ]
    assert [line["half"] for line in lines(run.path)] == [row["half"] for row in rows]


def test_most_records_take_no_python(run: Run) -> None:
    calls: list[str] = []

    def profile(frame: Any, event: str, _: object) -> None:
        if event == "call":
            calls.append(frame.f_code.co_name)

    producer = run._publisher.producer
    producer.put(b"\x93\x00\xc0\x80")
    sys.setprofile(profile)
    nested = (1, 2) if FREE_THREADED else {"a": [1, 2]}
    for step in range(50):
        run.log({"loss": 0.5, "n": step, "x": np.float32(0.5), "nested": nested}, step=step)
    sys.setprofile(None)
    assert calls.count("log") == 0


@pytest.mark.parametrize(
    "call",
    ["run.log({'a': 1}, stepp=1)", "run.log()", "run.log({}, 1, None, 2)", "run.log({}, data={})", "run.log(step=1)"],
)
def test_wrong_call_is_told_as_python_tells_it(run: Run, call: str) -> None:
    with pytest.raises(TypeError, match=r"Run\.log\(\)"):
        eval(call)


@pytest.mark.parametrize("step", [True, 0.5, "1", 1 << 64, -(1 << 63) - 1])
def test_wrong_step_is_refused(run: Run, step: Any) -> None:
    with pytest.raises(asynctrack.errors.InvalidStep):
        run.log({"a": 1}, step=step)
    with pytest.raises(asynctrack.errors.InvalidData):
        run.log([("a", 1)])  # type: ignore[arg-type]


def test_arguments_are_taken_by_place_and_by_name(run: Run) -> None:
    name = "".join(["st", "ep"])  # another object than the name in the source
    for log in (run.log, lambda *a, **k: Run.log(run, *a, **k)):
        assert (
            log({"a": 1}, 1)
            and log({"a": 2}, step=2)
            and log(data={"a": 3}, step=3)
            and log(step=4, data={"a": 4})
            and log({"a": 5}, None, None)
        )
        assert log({"a": 6}, **{name: 6}, commit=None)
        assert log({"b": 1}, commit=False) and log({"a": 7}, commit=True)
    run.finish()
    assert values(run.path, "a") == [1, 2, 3, 4, 5, 6, 7] * 2


# A method like any other


def test_signature_docstring_and_types_are_those_of_the_method(run: Run) -> None:
    for log in (run.log, Run.log):
        assert [*inspect.signature(log).parameters][-3:] == ["data", "step", "commit"]
        assert inspect.getdoc(log) == inspect.getdoc(in_python())
        assert log.__name__ == "log" and log.__module__ == "asynctrack.client.run" and log.__qualname__ == "Run.log"
        assert "return accepted" not in inspect.getsource(log) and "def log" in inspect.getsource(log)
        assert (
            typing.get_type_hints(log, vars(sys.modules["asynctrack.client.run"]), {"Mapping": Mapping})["return"]
            is bool
        )
        assert inspect.isroutine(log)
        assert "Record `data` as it is now" in pydoc.render_doc(log)
    assert inspect.ismethod(run.log) and run.log.__self__ is run
    assert "log(self, data" in pydoc.plain(pydoc.render_doc(Run))
    assert run.log == run.log


def test_method_is_copied_pickled_and_referred_to_as_functions_are(run: Run) -> None:
    for again in (
        copy.copy(Run.log),
        copy.deepcopy(Run.log),
        pickle.loads(pickle.dumps(Run.log)),
        weakref.ref(Run.log)(),
    ):
        assert again is Run.log
    assert copy.deepcopy([run.log])[0] == run.log
    log = weakref.WeakMethod(run.log)()
    assert log is not None and log({"a": 1})


def test_attribute_of_the_method_can_be_set_and_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Run.log, "traced", True, raising=False)
        patch.setattr(Run.log, "__doc__", "Another.")
        assert Run.log.traced and vars(Run.log)["traced"]  # type: ignore[attr-defined]
        assert Run.log.__doc__ == "Another."
    assert not hasattr(Run.log, "traced") and Run.log.__doc__ != "Another."


def test_method_that_is_replaced_in_the_class_is_the_one_that_is_called(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(50):  # so that the interpreter has learned where it is
        assert run.log({"a": 1})
    with monkeypatch.context() as patch:
        patch.setattr(Run, "log", lambda self, data, step=None: "patched")
        assert run.log({"a": 1}) == "patched"
    with unittest.mock.patch.object(Run, "log", autospec=True) as mocked:
        run.log({"a": 2}, step=3)
        mocked.assert_called_once_with(run, {"a": 2}, step=3)
    with monkeypatch.context() as patch:
        patch.setattr(run, "log", lambda data: "of the instance")
        assert run.log({"a": 1}) == "of the instance"
    assert run.log({"a": 1}) is True


def test_subclass_may_override_it(run: Run) -> None:
    class Louder(Run):
        def log(self, data: Any, step: int | None = None, commit: bool | None = None) -> bool:
            return super().log({**data, "loud": 1}, step, commit)

    louder = copy.copy(run)
    louder = Louder.__new__(Louder)
    louder.__dict__.update(run.__dict__)
    louder._put = run._put
    assert louder.log({"a": 1})
    run.finish()
    assert values(run.path, "loud") == [1]


def test_method_without_a_run_says_so() -> None:
    with pytest.raises(TypeError, match="self"):
        Run.log()  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        Run.log(object(), {"a": 1})  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        Run.__new__(Run).log({"a": 1})


def test_bound_method_that_the_gate_sets_decides_the_way(shm: Path) -> None:
    class Holder(_native.LogBase):
        log = _native.LogMethod(lambda self, data, step=None, commit=None: "python")

        def _put_encoded(self, payload: bytes) -> Any:
            return payload

    producer = NativeProducer(Ring.create(str(shm / "a.ring"), 65536, {"run": "/r"}), bool)
    holder = Holder()
    with pytest.raises(AttributeError):
        _ = holder._put
    assert holder.log({"a": 1}) == "python"
    holder._put = producer.put
    assert holder.log({"a": 1}) is True
    assert holder._put == producer.put
    holder._put = lambda payload: False
    assert holder.log({"a": 1}) == "python"
    holder._put = producer.put
    producer.close("left")
    assert decode_record(holder.log({"a": 1}), 0).data == {"a": 1}
    del holder._put
    assert holder.log({"a": 1}) == "python"
    assert producer.number == 1
    producer.ring.close()


def test_ring_is_not_written_beyond_its_mapping(shm: Path) -> None:
    producer = NativeProducer(Ring.create(str(shm / "a.ring"), 65536, {"run": "/r"}), bool)
    producer.close("left")
    producer.ring.close()
    producer.let_go()
    producer._limit = 1 << 62
    assert not producer.put(b"x" * 100)
    with pytest.raises(ValueError, match="words of a ring"):
        producer._words = memoryview(bytearray(8)).cast("Q")
    with pytest.raises(BufferError):
        producer._words = memoryview(bytes(8192)).cast("Q")
    with pytest.raises(TypeError):
        producer.put("text")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        producer.put()  # type: ignore[call-arg]


def test_words_are_loaded_and_stored(shm: Path) -> None:
    words = memoryview(bytearray(64)).cast("Q")
    _native.store(words, 3, (1 << 64) - 1)
    assert words.tolist() == [0, 0, 0, (1 << 64) - 1, 0, 0, 0, 0]
    assert _native.load(words, 3) == (1 << 64) - 1
    for index in (-1, 8, 1 << 70):
        with pytest.raises(IndexError):
            _native.load(words, index)
        with pytest.raises(IndexError):
            _native.store(words, index, 0)
    with pytest.raises(OverflowError):
        _native.store(words, 0, -1)
    with pytest.raises(BufferError):
        _native.store(memoryview(bytes(8)), 0, 0)


# Batches


@given(st.data())
def test_both_versions_make_the_same_batch(data: st.DataObject) -> None:
    """Of one part or two, of any length around that of a block and of four, which the core takes side by side."""
    length = data.draw(
        st.one_of(
            st.integers(0, 100),
            st.builds(int.__add__, st.integers(0, 9).map((64 * 1024).__mul__), st.integers(-9, 9)),
            st.integers(0, 700_000),
        ).filter(lambda n: n >= 0)
    )
    frames = random.Random(data.draw(st.integers(0, 9))).randbytes(length)
    cut = data.draw(st.integers(0, length))
    header = BatchHeader(length, *(data.draw(st.integers(0, (1 << 64) - 1)) for _ in range(5)))
    salt = data.draw(st.integers(0, (1 << 32) - 1))
    one, two = (frames,), (memoryview(frames)[:cut], frames[cut:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "is_native", False)
        expected = layout.pack_batch(header, one, salt)
        assert layout.pack_batch(header, two, salt) == expected
    assert layout.pack_batch(header, one, salt) == layout.pack_batch(header, two, salt) == expected


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((bytes(63), (b"x",), 8, 0), ValueError),
        ((bytes(64), (b"x", b"y", b"z"), 8, 0), ValueError),
        ((bytes(64), [b"x"], 8, 0), TypeError),
        ((bytes(64), (b"x", 1), 8, 0), TypeError),
        ((bytes(64), (b"x", memoryview(b"abcd")[::2]), 8, 0), BufferError),
        (("x" * 64, (b"x",), 8, 0), TypeError),
        ((bytes(64), (b"x",), 0, 0), ValueError),
        ((bytes(64), (b"x",), -8, 0), ValueError),
        ((bytes(64),), TypeError),
    ],
)
def test_arguments_that_are_no_batch_are_refused(arguments: tuple[Any, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        _native.pack_batch(*arguments)


# Memory


def suppressed(call: Callable[..., Any], *arguments: Any) -> None:
    with contextlib.suppress(TypeError):
        call(*arguments)


@pytest.mark.parametrize("times", CALLS)
def test_many_calls_of_each_function_leave_memory_flat(shm: Path, times: int) -> None:
    producer = NativeProducer(Ring.create(str(shm / "a.ring"), 1 << 20, {"run": "/r"}), bool)
    words = producer.ring.words

    class Holder(_native.LogBase):
        log = _native.LogMethod(lambda self, data, step=None, commit=None: None)

        def _put_encoded(self, payload: bytes) -> Any:
            return self._put(payload)

    holder, data = (
        Holder(),
        {"a": 0.5, "text é": "ü", "n": 1 << 40, "x": np.float32(1), "nested": {"l": [1, (2, b"x")]}},
    )
    holder._put = producer.put
    calls: dict[str, Callable[[int], object]] = {
        "put": lambda n: producer.put(b"x" * (n % 64)),
        "log": lambda n: holder.log(data, step=n),
        "log of what takes Python": lambda n: holder.log({"a": producer}, n),
        "log of a surrogate": lambda n: holder.log({"a": "\ud800"}, step=1 << 70),
        "set put": lambda n: setattr(holder, "_put", producer.put),
        "get put": lambda n: holder._put,
        "get log": lambda n: holder.log,
        "encode": lambda n: _native.encode_record(data, n),
        "learn": lambda n: _native.learn(data["x"]),
        "learn another": lambda n: _native.learn(data),
        "load": lambda n: _native.load(words, 16),
        "store": lambda n: _native.store(words, 16, producer.head),
        "set words": lambda n: setattr(producer, "_words", words),
        "numbers": lambda n: (producer._head, producer._mask, setattr(producer, "_lost", n)),
        "count drops": lambda n: producer._count_drops(11, 1),
        "wrap": lambda n: _native.LogMethod(len).__doc__,
        "pack": lambda n: _native.pack_batch(bytes(64), (b"x" * (n % 64), memoryview(b"y")), 64, n),
        "pack what is none": lambda n: suppressed(_native.pack_batch, bytes(64), (b"x", n), 64, n),
    }

    def emptied(call: Callable[[int], object]) -> Callable[[int], object]:
        def one(n: int) -> None:
            call(n)
            if n % 1000 == 0:
                words[16] = words[8]

        return one

    lost = {name: lost_bytes(emptied(call), times) for name, call in calls.items()}
    producer.close("left")
    producer.ring.close()
    assert {name: size for name, size in lost.items() if size} == {}


def test_producer_and_run_are_freed_with_what_they_hold(shm: Path) -> None:
    tracemalloc.start()
    try:
        for _ in range(3):
            producer = NativeProducer(Ring.create(str(shm / f"{time.time_ns()}.ring"), 65536, {"run": "/r"}), bool)
            holder = _native.LogBase()
            holder._put = producer.put
            producer._side.append((b"", 0, holder))  # type: ignore[arg-type]  # a circle
            path = producer.ring.path
            del producer, holder
            gc.collect()
            assert path not in Path("/proc/self/maps").read_text()
    finally:
        tracemalloc.stop()
