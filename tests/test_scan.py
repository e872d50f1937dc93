"""A scan by the native core finds what the records say: the same columns, arrays and frames, of any records and any bytes."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy
import pytest
from hypothesis import strategies as st
from reading_versions import both, tries
from test_fuzz import packed

from asynctrack._system.native import is_native
from asynctrack.journal.writer import Writer
from asynctrack.queue.layout import RECORD
from asynctrack.reading.columns import Curve
from asynctrack.reading.loading import load_metrics
from asynctrack.reading.reader import RunReader
from asynctrack.testing import JournaledRun

pytestmark = pytest.mark.skipif(not is_native, reason="the native core is not built")

names = st.sampled_from(["loss", "acc", "a", "a/b", "b", "_step", "_timestamp", "__step", "", "é", "x" * 70])
integers = st.integers(-3, 3) | st.sampled_from([2**53, 2**53 + 1, -(2**63), 2**63 - 1, 2**63, 2**64 - 1, 2**70])
leaves = (
    st.none()
    | st.booleans()
    | integers
    | st.floats()
    | st.sampled_from(["train", "", "NaN", "é", "\0"])
    | st.just(b"bytes")
    | st.lists(st.integers(0, 3) | st.floats(), max_size=3)
)
records = st.dictionaries(
    names, st.recursive(leaves, lambda inner: st.dictionaries(names, inner, max_size=3), max_leaves=6), max_size=5
)
steps = st.none() | st.integers(-2, 30) | st.just(2**63 - 1)
sessions = st.lists(st.lists(st.tuples(steps, records), max_size=12), min_size=1, max_size=3)


@contextlib.contextmanager
def made_run(sessions: list[list[tuple[int | None, dict[str, Any]]]]) -> Iterator[RunReader]:
    """A run that was resumed for each session but the first."""
    with TemporaryDirectory() as folder:
        with JournaledRun(Path(folder, "project", "run")) as run:
            for index, logged in enumerate(sessions):
                if index:
                    run.start()
                for at, (step, data) in enumerate(logged):
                    run.log(data, step, time_ns=1_700_000_000_000_000_000 + 1_000_003 * at)
                    if at % 5 == 4:
                        run.journal()
            run.end()
        yield RunReader(run.path)


def alike(one: Any, other: Any) -> bool:
    """Whether two values are the same, of the same type; NaN is as NaN, and zeros have signs."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Curve):
        return alike(one.steps, other.steps) and alike(one.values, other.values)
    if isinstance(one, numpy.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and alike(one.tolist(), other.tolist())
    if isinstance(one, dict):
        return list(one) == list(other) and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(other)) or (
            one == other and math.copysign(1, one) == math.copysign(1, other)
        )
    return bool(one == other)


def cells(series: Any) -> list[Any]:
    """The values of a pandas column; one that is missing of `Int64` as None."""
    import pandas

    return [None if value is pandas.NA else value for value in series.tolist()]


def as_columns(run: RunReader, history: Any) -> dict[str, Any]:
    return {key: (column.steps, column.values) for key, column in run.columns(history).items()}


HISTORIES = ("all", "last")
MIXED = [
    [(None, {"loss": 0.5}), (1, {"loss": 1, "acc": True}), (1, {"acc": 2, "a": {"b": 1}, "a/b": 2}), (0, {"loss": "x"})]
]
TWICE = {"a": {"b": 1}, "a/b": 2}
RESUMED_WITH_A_NAME_TWICE = [[(1, TWICE), (2, {"loss": 1}), (3, {**TWICE, "loss": 1})], [(2, {"loss": 5.0})]]
NUMBER_AND_TEXT = [[(1, {"a/b": 2.0, "a": {"b": "x"}})]]
RESUMED = [[(1, {"a": 1, "b": 2}), (2, {"b": 3, "a": None})], [(2, {"a": 5.0})], [(3, {"b": 1.5, "loss": 1})]]


@tries(sessions, known=((MIXED,), (RESUMED,), (RESUMED_WITH_A_NAME_TWICE,)))
def test_columns_are_those_of_the_records(sessions: list[Any]) -> None:
    with made_run(sessions) as run:
        for history in HISTORIES:
            native, plain = both(partial(as_columns, run, history))
            assert alike(native, plain)


@tries(sessions, known=((MIXED,), (RESUMED,)))
def test_arrays_are_those_of_the_records(sessions: list[Any]) -> None:
    with made_run(sessions) as run:
        for history in HISTORIES:
            native, plain = both(partial(run.arrays, history))
            assert alike(native, plain)


@tries(sessions, known=((MIXED,), (RESUMED,)))
def test_tables_of_arrow_are_those_of_the_records(sessions: list[Any]) -> None:
    pytest.importorskip("pyarrow")
    with made_run(sessions) as run:
        for history in HISTORIES:
            native, plain = both(partial(run.to_arrow, history))
            assert native.schema == plain.schema
            assert alike(native.to_pydict(), plain.to_pydict())
            assert [column.null_count for column in native.columns] == [column.null_count for column in plain.columns]
            native.validate(full=True)


@tries(sessions, known=((MIXED,), (RESUMED,)))
def test_frames_of_pandas_are_those_of_the_records(sessions: list[Any]) -> None:
    pytest.importorskip("pandas")
    with made_run(sessions) as run:
        for history in HISTORIES:
            native, plain = both(partial(run.to_pandas, history))
            assert list(native.dtypes.items()) == list(plain.dtypes.items()) and native.index.equals(plain.index)
            for name in native.columns:  # pandas takes NaN in a list for another NaN
                assert alike(cells(native[name]), cells(plain[name]))


@tries(sessions, known=((MIXED,), (RESUMED,)))
def test_frames_of_polars_are_those_of_the_records(sessions: list[Any]) -> None:
    pytest.importorskip("polars")
    with made_run(sessions) as run:
        for history in HISTORIES:
            native, plain = both(partial(run.to_polars, history))
            assert native.schema == plain.schema
            assert alike(native.to_dict(as_series=False), plain.to_dict(as_series=False))


@tries(sessions, known=((MIXED,), (RESUMED,), (NUMBER_AND_TEXT,)))
def test_loaded_metrics_are_those_of_the_records(sessions: list[Any]) -> None:
    with made_run(sessions) as run:
        for arguments in ((-1, ""), (3, ""), (-1, "a"), (1, "b")):
            native, plain = both(lambda of=arguments: load_metrics(run.path, of[0], within=of[1]))  # type: ignore[misc]
            assert alike(native, plain)


@tries(
    st.lists(
        st.dictionaries(
            st.sampled_from(["loss", "t/loss", "t/acc", "v/loss"]), st.integers(0, 9) | st.floats(), max_size=4
        ),
        min_size=1,
        max_size=9,
    ),
    st.integers(-1, 9),
)
def test_metrics_of_growing_steps_are_loaded_from_the_scan(logged: list[dict[str, float]], max_step: int) -> None:
    with made_run([list(enumerate(logged))]) as run:  # type: ignore[list-item]
        native, plain = both(lambda: load_metrics(run.path, max_step))
        assert alike(native, plain)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RunReader, "records", None)
            assert alike(load_metrics(run.path, max_step), plain)


def wire(value: Any) -> bytes:
    return msgspec.msgpack.encode(value)


odd_payloads = st.sampled_from(
    [
        b"\x93\x01\xc0\x82\xa1a\x01\xa1a\x02",  # a key twice: the later counts
        b"\x93\x01\xc0\x82\xa1a\x81\xa1b\x01\xa1a\x81\xa1c\x02",  # a nested key twice
        b"\x93\x01\xc0\x81\x01\x02",  # a key that is no text
        b"\x93\x01\xc0\x81\xa1\xff\x01",  # a key that is not UTF-8
        b"\x93\x01\xc0\x81\xa1a\xa1\xff",  # a text that is not
        b"\x93\x01\xc0\x81\xa1a\xa3\xed\xa0\x80",  # a surrogate
        b"\x93\x01\xc0\x81\xa1a\xd9\x02ab",  # a longer form than need be
        b"\x93\xcf" + b"\xff" * 8 + b"\xc0\x81\xa1a\x01",  # a time beyond 63 bits
        b"\x93\x01\xcb" + b"\0" * 8 + b"\x81\xa1a\x01",  # a step that is a float
        b"\xdc\x00\x03\x01\xc0\x81\xa1a\x01",  # three items in the longer form
        b"\x93\x01\xc0\x81\xa1a\xca\x7f\xc0\x00\x00",  # a float of 32 bits
        b"\x93\x01\xc0\x81\xa1a\xd6\xff\0\0\0\1",  # a time stamp
        b"\x93\x01\xc0\x81\xa1a\xc7\x01\x01\x39",  # a big integer
        b"\x93\x01\xc0\x81\xa1a\xc1",
        b"\x93\x01\xc0\x81\xa1a\x01\x00",  # a byte too many
        b"\x93\x01\xc0\xdf\xff\xff\xff\xff",  # four billion pairs
        b"\x93\x01\xc0\x81\xa1a" + b"\x81\xa1a" * 80 + b"\x01",
        b"\x93\x01\xc0\x81\xa1a" + b"\x91" * 80 + b"\x01",
        wire((1, 5, {"a": {"b": {}}})),
        wire((1, 5, {"a": 1, "a/": {"": 2}})),
        wire((1, 2**63, {"a": 1})),
    ]
)
payloads = st.lists(
    odd_payloads
    | st.binary(max_size=20)
    | st.builds(lambda rest: b"\x93\x01\xc0" + rest, st.binary(max_size=20))
    | st.builds(
        lambda data: wire((1, None, data)),
        records.filter(lambda data: "e+" not in str(data)).map(
            lambda data: {k: v for k, v in data.items() if encodes(v)}
        ),
    ),
    max_size=8,
)


def encodes(value: Any) -> bool:
    try:
        wire(value)
    except (OverflowError, ValueError):
        return False
    return True


@contextlib.contextmanager
def run_of(payloads: list[bytes]) -> Iterator[RunReader]:
    """A run whose frames hold anything."""
    with TemporaryDirectory() as folder:
        with JournaledRun(Path(folder, "project", "run")) as run:
            run.end()
        writer = Writer(run.path / "journal")
        frames = b"".join(packed(number, payload, RECORD) for number, payload in enumerate(payloads))
        if frames:
            writer.append(7, 0, len(frames), 0, frames)
        writer.close()
        yield RunReader(run.path)


def with_damage(run: RunReader, read: Callable[[], Any]) -> Any:
    found = read()
    return found, [str(damage) for damage in run.damage]


@tries(payloads)
def test_any_bytes_are_read_alike(payloads: list[bytes]) -> None:
    with run_of(payloads) as run:
        native, plain = both(lambda: with_damage(run, lambda: as_columns(run, "all")))
        assert alike(native, plain)


def test_a_scan_is_used_for_runs_of_numbers_and_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with JournaledRun(tmp_path / "project" / "run") as run:
        run.log({"loss": 0.5, "phase": "train", "nested": {"n": 1}}, 3)
        run.end()
    monkeypatch.setattr(RunReader, "records", None)  # whatever reads the records fails
    curves = RunReader(run.path).arrays()
    assert curves["loss"].values.tolist() == [0.5] and curves["nested"]["n"].steps.tolist() == [3]
    assert curves["phase"].values.tolist() == ["train"]


def test_arrays_may_be_written_to_and_outlive_the_reader(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "project" / "run") as run:
        for step in range(1000):
            run.log({"loss": step * 0.5}, step)
        run.end()
    curve = RunReader(run.path).arrays()["loss"]
    curve.values[0] = 7.0
    curve.steps[0] = -1
    assert curve.values[:2].tolist() == [7.0, 0.5] and curve.steps[:2].tolist() == [-1, 1]


def test_a_column_with_gaps_keeps_its_rows(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "project" / "run") as run:
        for step in range(50):
            run.log({"loss": step * 0.5} if step % 3 else {"acc": step}, step)
        run.end()
    native, plain = both(lambda: RunReader(run.path).to_pandas())
    assert native.equals(plain)
    assert native["loss"].isna().sum() == 17


def test_a_scan_takes_only_the_keys_that_are_wanted(tmp_path: Path) -> None:
    from asynctrack._native import Scan
    from asynctrack.journal.reader import Reader

    with JournaledRun(tmp_path / "project" / "run") as run:
        run.log({"loss": 0.5, "acc": 1}, 3)
        run.end()
    found = Scan(1, False, {"acc"})
    for batch in Reader(run.path / "journal"):
        at = 0
        while at < len(batch.data):
            stopped = found.feed(batch.data, at, len(batch.data), len(batch.data))
            at = stopped if isinstance(stopped, int) else stopped[1]
    assert found.names() == ["acc"] and found.objects_of(0) == [1] and found.rows == 1
