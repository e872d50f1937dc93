"""Downsampling: a display gets of each stretch what holds the first, the last, the least and the greatest of each key, and the statistics say what not."""

from __future__ import annotations

import itertools
import math
import time
from pathlib import Path
from typing import Any

import pytest
from delivery_support import assert_balanced, steps
from hypothesis import example, given
from hypothesis import strategies as st
from support import wait_until

import asynctrack
from asynctrack.delivery.downsample import Downsampler
from asynctrack.reading.stats import StatsCollector
from asynctrack.records.codec import Record, flatten
from asynctrack.testing import JournaledRun, Scripted, deliver

pytestmark = pytest.mark.usefixtures("own_state")

KEYS = st.sampled_from(["a", "b", "c"])
VALUES = st.one_of(
    st.integers(-3, 3),
    st.floats(-3, 3, width=16),
    st.just(math.nan),
    st.just(math.inf),
    st.just("text"),
    st.booleans(),
    st.dictionaries(KEYS, st.integers(-3, 3), max_size=2),
)
DATA = st.lists(st.dictionaries(KEYS, VALUES, max_size=3), max_size=25)


def oracle(data: list[dict[str, Any]]) -> list[int]:
    """Which records are needed: looked for key by key in all of them, extremes where they come first."""
    rows = [(index, key, value) for index, record in enumerate(data) for key, value in flatten(record)]
    needed = set()
    for wanted in {key for _, key, _ in rows}:
        mine = [(index, value) for index, key, value in rows if key == wanted]
        numbers = [(index, value) for index, value in mine if isinstance(value, int | float) and value == value]
        needed |= {mine[0][0], mine[-1][0]}
        if numbers:
            needed.add(min(numbers, key=lambda found: found[1])[0])
            needed.add(max(numbers, key=lambda found: found[1])[0])
    return sorted(needed)


@given(DATA, st.lists(st.integers(0, 25), max_size=4))
@example([{"a": math.nan}, {"a": 1}, {"a": math.nan}], [])
@example([{}, {}, {}], [1])
@example([{"a": 1}, {"a": 1}, {"a": 1}], [2])
@example([{"a": {"b": 1}}, {"a/b": 2}, {"a": {}}], [])
def test_it_keeps_what_a_naive_search_finds(data: list[dict[str, Any]], cuts: list[int]) -> None:
    records = [Record(index, index, 0, record) for index, record in enumerate(data)]
    downsampler = Downsampler()
    bounds = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    for begin, end in itertools.pairwise(bounds):
        downsampler.add(records[begin:end])
    assert [record.number for record in downsampler.kept()] == oracle(data)
    assert len(downsampler) == len(data)


def wave(step: int) -> dict[str, Any]:
    return {"wave": math.sin(step / 7), "ramp": step, "net": {"noise": (step * 7919) % 101}, "phase": "train"}


def stretches(times_ns: list[int], seconds: float) -> list[list[int]]:
    """Which records share a stretch: it ends with the first that is so much later than its first."""
    found: list[list[int]] = [[]]
    for index in range(len(times_ns)):
        if found[-1] and times_ns[found[-1][-1]] - times_ns[found[-1][0]] >= seconds * 1e9:
            found.append([])
        found[-1].append(index)
    return found


@pytest.mark.parametrize("seconds", [0.5, 2.0, 1000.0])
@pytest.mark.parametrize("batch", [1, 50, 400])
def test_each_stretch_of_the_journal_is_downsampled_alike_however_it_was_journaled(
    tmp_path: Path, seconds: float, batch: int
) -> None:
    times_ns = [10**18 + index * 10**7 + (3 * 10**9 if index > 200 else 0) for index in range(400)]
    with JournaledRun(tmp_path / "p" / "a") as run:
        for step, time_ns in enumerate(times_ns):
            run.log(wave(step), step, time_ns=time_ns)
            if step % batch == batch - 1:
                run.journal()
        run.end()
    found = deliver(run.path, Scripted(downsample_interval_s=seconds))
    wanted = [part[index] for part in stretches(times_ns, seconds) for index in oracle([wave(step) for step in part])]
    assert steps(run.path) == wanted
    assert (found.delivered, found.skipped) == (len(wanted), {"downsampled": 400 - len(wanted)})
    collector = StatsCollector(run.path)
    assert_balanced(collector.collect([], [], ["backend"]))
    collector.close()


def test_what_is_delivered_in_the_middle_of_a_stretch_is_downsampled_from_there(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "a") as run:
        for step in range(100):
            run.log({"i": step}, step)
            if step % 25 == 24:
                run.journal()
                deliver(run.path, Scripted(downsample_interval_s=1000.0))
        run.end()
    deliver(run.path, Scripted(downsample_interval_s=1000.0))
    assert steps(run.path) == [0, 24, 25, 49, 50, 74, 75, 99]


def test_live_display_gets_a_few_records_now_and_then_and_the_rest_when_somebody_waits(
    own_host: Path, runs: Path
) -> None:
    run = asynctrack.init("p", dir=runs, backends=[Scripted(downsample_interval_s=0.5)], linger_s=0.01)
    begin, step = time.monotonic(), 0
    while time.monotonic() - begin < 1.2:
        run.log({"i": step}, step)
        step += 1
        time.sleep(0.001)
    wait_until(lambda: steps(run.path), "a stretch is over")
    assert_balanced(run.stats())
    assert run.flush().backends["Scripted"].behind == 0
    assert steps(run.path)[-1] == step - 1
    run.log({"i": step}, step)
    stats = run.finish()
    assert_balanced(stats)
    shown = steps(run.path)
    assert shown[0] == 0
    assert shown[-1] == step
    assert shown == sorted(set(shown))
    assert len(shown) < 20
    assert stats.backends["Scripted"].skipped == {"downsampled": step + 1 - len(shown)}
