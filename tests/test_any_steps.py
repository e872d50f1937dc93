"""Curves of steps in any order: huge, negative, of several processes, of metrics with steps of their own. No number is lost, counted twice, or drawn far off."""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asynctrack._system.native import is_native
from asynctrack.curves import drawing, drawing_plan, run_curves
from asynctrack.curves.run_curves import RunCurves
from asynctrack.curves.single_numbers import read_points
from asynctrack.reading.reader import RunReader
from asynctrack.records.codec import flatten
from asynctrack.testing import JournaledRun

Records = Iterator[tuple[int, dict[str, Any]]]
# As many rows as these records fill are more than what is read again.
RECORDS = 1500


def growing(choice: random.Random) -> Records:
    for step in range(RECORDS):
        yield step, {"loss": choice.gauss(0, 1), "ok": step % 2 == 0}


def falling(choice: random.Random) -> Records:
    for step in range(RECORDS):
        yield -step * 10**12, {"loss": choice.gauss(0, 1)}


def anywhere(choice: random.Random) -> Records:
    for _ in range(RECORDS):
        yield choice.randrange(-(2**63), 2**63), {"loss": choice.gauss(0, 1)}


def with_an_outlier(choice: random.Random) -> Records:
    for step in range(RECORDS):
        yield step if step != 700 else 10**17, {"loss": choice.gauss(0, 1)}


def epochs_and_batches(choice: random.Random) -> Records:
    for step in range(RECORDS):
        yield step, {"loss": choice.gauss(0, 1)}
        if step % 25 == 24:
            yield step // 25, {"val": choice.gauss(0, 1)}


def another_shape_each_time(choice: random.Random) -> Records:
    for step in range(RECORDS):
        names = choice.sample("abcdefgh", choice.randrange(1, 5))
        values = [1, 2.5, True, None, "x", 2**70, math.nan, -math.inf, {"in": 3}, [1]]
        yield choice.randrange(200), {name: choice.choice(values) for name in names} | {"loss": float(step)}


def not_one_finite(choice: random.Random) -> Records:
    for step in range(RECORDS):
        yield step % 77, {"loss": choice.choice([math.nan, math.inf, -math.inf])}


KINDS = [growing, falling, anywhere, with_an_outlier, epochs_and_batches, another_shape_each_time, not_one_finite]


def make_run(path: Path, kinds: list[Callable[[random.Random], Records]], choice: random.Random) -> RunReader:
    """A run to which a process writes each of these, by turns."""
    with JournaledRun(path) as run:
        writers = [run, *(run.join(f"rank{rank}", rank) for rank in range(1, len(kinds)))]
        parts = [(writer, kind(choice)) for writer, kind in zip(writers, kinds, strict=True)]
        at = 0
        while parts:
            writer, records = choice.choice(parts)
            at += 1
            if (found := next(records, None)) is None:
                writer.journal()
                parts.remove((writer, records))
            else:
                writer.log(found[1], found[0], time_ns=10**18 + at * 10**6)
            if choice.random() < 0.02:
                writer.journal()
        run.end()
    return RunReader(path)


def numbers_of(run: RunReader, x: str) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = {}
    for record in run.records():
        place = float(record.step) if x == "step" else record.time_ns / 1e9
        for key, value in record.data.items():
            if isinstance(value, int | float):
                found.setdefault(key, []).append((place, float(value)))
    return found


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from(KINDS), min_size=1, max_size=3),
    st.sampled_from(["step", "time"]),
    st.integers(1, 12),
    st.integers(0, 2**32),
    st.sampled_from(sorted({is_native, False})),
)
def test_each_number_is_drawn_once_where_it_was_logged(
    kinds: list[Any], x: str, buckets: int, seed: int, native: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing_plan, "_FEW_RECORDS", 0)
        run = make_run(Path(folder, "p", "r"), kinds, random.Random(seed))
        curves = RunCurves(run.path, native=native)
        curves.grow()
        for key, points in numbers_of(run, x).items():
            whole = curves.extent(key, x)
            assert whole is not None
            begin, end = min(place for place, _ in points), max(place for place, _ in points)
            assert whole[0] <= begin and end <= whole[1]
            third = (end - begin) / 3
            for x0, x1 in ((None, None), (begin + third, end - third)):
                check(curves.curves([key], x, x0, x1, buckets)[key], points, x0, x1, buckets)


def check(curve: Any, points: list[tuple[float, float]], x0: float | None, x1: float | None, buckets: int) -> None:
    """All numbers in the window are within the band; without a window each is there once."""
    assert len(curve) <= buckets or curve.exact
    bands = list(zip(curve.x_min, curve.x_max, curve.min, curve.max, curve.not_finite, strict=True))
    for place, value in points:
        if (x0 is None or x0 <= place) and (x1 is None or place <= x1):
            assert any(
                low <= place <= high and (least <= value <= greatest if math.isfinite(value) else broken)
                for low, high, least, greatest, broken in bands
            )
    if x0 is None:
        assert sum(curve.count) + sum(curve.not_finite) == len(points)
        # Rows that are wider than four places were read again.
        width = (max(place for place, _ in points) - min(place for place, _ in points)) / buckets
        assert all(high - low <= 6 * width * (1 + 1e-9) + 1e-6 for low, high, *_ in bands)


sessions = st.lists(
    st.lists(st.tuples(st.integers(0, 2), st.integers(-5, 30), st.sampled_from(["a", "b", "c/d"])), max_size=40),
    min_size=1,
    max_size=3,
)


@settings(max_examples=40, deadline=None)
@given(sessions, st.sampled_from(["all", "last"]), st.sampled_from(sorted({is_native, False})))
def test_curves_of_a_writer_are_its_records(parts: Any, history: Any, native: bool) -> None:
    """Also of a run that was resumed, where what one has logged again depends on the others."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_curves, "is_native", native)
        with JournaledRun(Path(folder, "p", "r")) as run:
            for number, part in enumerate(parts):
                if number:
                    run.start()
                writers = [run, run.join("rank1", 1), run.join("rank2", 2)]
                for writer, step, key in part:
                    writers[writer].log({key: step * 0.5, "step": step}, step)
                    if step % 7 == 0:
                        writers[writer].journal()
                for one in writers:
                    one.journal()
            run.end()
        reader = RunReader(run.path)
        for label in ("rank1", "rank2"):
            wanted: dict[str, list[float]] = {}
            for record in reader.records(history):
                for key, value in flatten(record.data) if record.writer == label else ():
                    wanted.setdefault(key, []).append(value)
            found = reader.curves(history=history, writer=label, buckets=1000)
            assert {key: sorted(curve.last) for key, curve in found.items()} == {
                key: sorted(values) for key, values in wanted.items()
            }


def test_two_thousand_keys_are_drawn_in_one_reading_each_over_its_own_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with JournaledRun(tmp_path / "p" / "r") as run:
        for step in range(400):
            run.log({f"layer{number}/norm": step * number for number in range(step, 2000, 400)}, step)
            run.log({f"layer{number}/norm": number for number in range(0, 2000, 400)}, 400 + step)
        run.end()
    readings = 0

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal readings
        readings += 1
        return read_points(*arguments, **options)

    monkeypatch.setattr(drawing, "read_points", counted)
    curves = RunReader(run.path).curves(buckets=50)
    assert len(curves) == 2000 and readings <= 2
    for number in range(2000):
        curve = curves[f"layer{number}/norm"]
        assert curve.x_min[0] == number % 400
        assert sum(curve.count) == (1 if number % 400 else 401)
