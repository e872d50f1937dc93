"""A pyramid has what the journal says, by the native core and by Python: of any records, in any order, of several processes and sessions."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_scan import made_run, records, steps

from asynctrack._system.native import is_native
from asynctrack.curves.layout import ENTRY, ROW, BucketEntry, BucketRow
from asynctrack.curves.pyramid import Pyramid
from asynctrack.reading.reader import RunReader
from asynctrack.records.codec import flatten, string_keys
from asynctrack.testing import JournaledRun

NS = 1_700_000_000_000_000_000


def grown(run: Path, history: Any = "all", *, native: bool = is_native) -> Pyramid:
    pyramid = Pyramid(run, history, native=native)
    pyramid.grow()
    return pyramid


def content(pyramid: Pyramid) -> Any:
    """All that a pyramid has; NaN is a text, which equals itself."""
    lanes = []
    for lane in pyramid.lanes:
        levels = {}
        for name in pyramid.names():
            lane.lift(name)
            levels[name] = [
                [str(BucketEntry._make(e)) for e in ENTRY.iter_unpack(of)] for of in lane.entries.get(name, [])
            ]
        rows = [[*map(BucketRow._make, ROW.iter_unpack(of))] for of in lane.rows]
        lanes.append((lane.ring, lane.session, rows, levels, lane.steps_in_order, lane.times_in_order, lane.end))
    opened = [
        (found.lane.ring, found.row, {name: str(ENTRY.unpack(entry)) for name, entry in found.entries.items()})
        for found in pyramid.open_rows()
    ]
    return lanes, opened, [(name, str(pyramid.totals(name))) for name in pyramid.names()]


def logged(run: RunReader, history: Any) -> list[tuple[str, list[tuple[int, float]]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for record in run.records(history):
        for key, value in flatten(string_keys(record.data)):
            if isinstance(value, int | float):
                found.setdefault(key, []).append((record.step, value))
    return list(found.items())


many = st.lists(
    st.lists(st.tuples(steps | st.integers(0, 400), records), max_size=60).flatmap(
        lambda some: st.integers(1, 8).map(lambda times: some * times)
    ),
    min_size=1,
    max_size=3,
)


@pytest.mark.skipif(not is_native, reason="the native core is not built")
@settings(max_examples=60, deadline=None)
@given(many, st.sampled_from(["all", "last"]))
def test_core_and_python_make_the_same_pyramid(logged: Any, history: str) -> None:
    with made_run(logged) as run:
        assert content(grown(run.path, history)) == content(grown(run.path, history, native=False))


@settings(max_examples=60, deadline=None)
@given(many, st.sampled_from(["all", "last"]))
def test_first_last_least_and_greatest_are_those_of_the_journal(sessions: Any, history: str) -> None:
    with made_run(sessions) as run:
        pyramid, expected = grown(run.path, history), dict(logged(run, history))
        assert sorted(pyramid.names()) == sorted(expected)
        for key, values in expected.items():
            totals = pyramid.totals(key)
            assert totals is not None and totals.count == len(values)
            shown = [(totals.first.step, totals.first.value), (totals.last.step, totals.last.value)]
            assert repr(shown) == repr([as_kept(values[0]), as_kept(values[-1])])
            finite = [value for value in map(as_kept, values) if math.isfinite(value[1])]
            assert totals.not_finite == len(values) - len(finite)
            if finite:
                assert totals.min is not None and totals.max is not None
                assert (totals.min.step, totals.min.value) == min(finite, key=lambda pair: pair[1])
                assert (totals.max.step, totals.max.value) == max(finite, key=lambda pair: pair[1])
            else:
                assert totals.min is None and totals.max is None


def as_kept(logged: tuple[int, float]) -> tuple[int, float]:
    """A number as a pyramid keeps it: 64 bits hold a step and an integer; others become floats."""
    step, value = logged
    step = min(max(step, -(2**63)), 2**63 - 1)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return step, float(value)
    return step, int(value) if isinstance(value, int) else value


@settings(max_examples=40, deadline=None)
@given(many)
def test_pyramid_that_grows_is_the_same_as_one_made_at_once(sessions: Any) -> None:
    with TemporaryDirectory() as folder:
        with JournaledRun(Path(folder, "p", "r")) as run:
            growing = {history: Pyramid(run.path, history) for history in ("all", "last")}
            for index, part in enumerate(sessions):
                if index:
                    run.start()
                for at, (step, data) in enumerate(part):
                    run.log(data, step, time_ns=NS + at)
                    if at % 30 == 29:
                        run.journal()
                        for pyramid in growing.values():
                            pyramid.grow()
            run.end()
        for history, pyramid in growing.items():
            pyramid.grow()
            assert content(pyramid)[1:] == content(grown(run.path, history))[1:]


def test_every_level_has_all_values_of_its_rows(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "r") as run:
        for step in range(6000):
            run.log({"loss": float(step % 977), **({"rare": step} if step % 100 == 0 else {})}, step)
        run.end()
    pyramid = grown(run.path)
    lane = next(lane for lane in pyramid.lanes if lane.count())
    for key, every in (("loss", 1), ("rare", 100)):
        lane.lift(key)
        assert len(lane.rows) >= 3
        for level, entries in enumerate(lane.entries[key]):
            for values in ENTRY.iter_unpack(entries):
                entry = BucketEntry._make(values)
                row = BucketRow._make(struct.unpack_from("=4q4I", lane.rows[level], entry.row * ROW.size))
                wanted = [step for step in range(row.step_low, row.step_high + 1) if step % every == 0]
                shown = [float(step % 977) if key == "loss" else float(step) for step in wanted]
                assert entry[:6] == (min(shown), max(shown), sum(shown), shown[-1], len(shown), 0)


def test_run_that_makes_up_a_name_per_record_does_not_fill_the_memory(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "r") as run:
        for step in range(10_050):
            run.log({f"name{step}": step}, step)
        run.end()
    pyramid = grown(run.path)
    assert len(pyramid.names()) == 10_000
    assert pyramid.totals("name0") is not None
    assert pyramid.totals("name10001") is None


def test_what_a_resumed_run_logged_again_counts_once(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "r") as run:
        for step in range(100):
            run.log({"loss": step}, step)
        run.start()
        for step in range(50, 200):
            run.log({"loss": -step}, step)
        run.end()
    totals = grown(run.path, "last").totals("loss")
    assert totals is not None
    assert (totals.count, totals.max and totals.max.value) == (200, 49)
    everything = grown(run.path, "all").totals("loss")
    assert everything is not None and everything.count == 250
