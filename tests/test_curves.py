"""Curves show what was logged: no number outside the band, exact numbers when zoomed, by the native core and by Python."""

from __future__ import annotations

import math
import re
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_pyramid import many
from test_scan import made_run

import asynctrack
from asynctrack._system.native import is_native
from asynctrack.cli.curves import read_curves
from asynctrack.collection.metric_stats import stats_of
from asynctrack.curves import run_curves
from asynctrack.curves.curve import CurveBuckets
from asynctrack.curves.group import group_curve
from asynctrack.curves.run_curves import RunCurves
from asynctrack.errors import BackendUnavailable, InvalidSettings, NoSuchMetric
from asynctrack.reading.reader import RunReader
from asynctrack.records.codec import flatten, string_keys
from asynctrack.records.column_types import as_float
from asynctrack.testing import JournaledRun, deliver

NS = 1_700_000_000_000_000_000
S = 1_000_000_000


def points_of(run: RunReader, history: Any, x: str) -> dict[str, list[tuple[float, float]]]:
    """All numbers with their x."""
    found: dict[str, list[tuple[float, float]]] = {}
    records = list(run.records(history))
    for record in records:
        pairs = list(flatten(string_keys(record.data)))
        place = float(min(max(record.step, -(2**63)), 2**63 - 1)) if x == "step" else record.time_ns / 1e9
        if x not in ("step", "time"):
            axis = [as_float(value) for name, value in pairs if name == x and isinstance(value, int | float)]
            axis = [value for value in axis if math.isfinite(value)]
            if not axis:
                continue
            place = axis[-1]
        for key, value in pairs:
            if isinstance(value, int | float):
                found.setdefault(key, []).append((place, as_float(value)))
    return found


def is_drawn(curve: CurveBuckets, x: float, y: float) -> bool:
    """Whether a number lies within a bucket."""
    return any(
        low <= x <= high and (least <= y <= greatest if math.isfinite(y) else broken)
        for low, high, least, greatest, broken in zip(
            curve.x_min, curve.x_max, curve.min, curve.max, curve.not_finite, strict=True
        )
    )


@settings(max_examples=80, deadline=None)
@given(many, st.sampled_from(["all", "last"]), st.sampled_from(["step", "time", "loss", "a/b"]), st.integers(1, 12))
def test_no_number_lies_outside_the_band(sessions: Any, history: Any, x: str, buckets: int) -> None:
    with made_run(sessions) as run:
        points = points_of(run, history, x)
        for native in {is_native, False}:
            curves = RunCurves(run.path, history, native=native)
            curves.grow()
            for key, numbers in points.items():
                curve = curves.curves([key], x, None, None, buckets)[key]
                assert len(curve) <= buckets
                assert all(is_drawn(curve, *point) for point in numbers)
                if x in ("step", "time"):
                    assert sum(curve.count) + sum(curve.not_finite) == len(numbers)
                for low, mean, last, high in zip(curve.min, curve.mean, curve.last, curve.max, strict=True):
                    assert (low <= mean <= high and low <= last <= high) or math.isnan(low)


@settings(max_examples=80, deadline=None)
@given(many, st.sampled_from(["all", "last"]), st.integers(-3, 420), st.integers(0, 12))
def test_window_with_few_records_has_each_number_as_it_was_logged(
    sessions: Any, history: Any, begin: int, width: int
) -> None:
    with made_run(sessions) as run:
        for key, numbers in points_of(run, history, "step").items():
            wanted = [(x, y) for x, y in numbers if begin <= x <= begin + width]
            curve = run.curve(key, x0=begin, x1=begin + width, buckets=10_000, history=history)
            assert curve.exact
            shown = [(x, y if math.isfinite(y) else None) for x, y in wanted]
            found = [(x, y if y == y else None) for x, y in zip(curve.x, curve.mean, strict=True)]
            assert Counter(found) == Counter(shown)


def long_run(path: Path, count: int = 40_000) -> RunReader:
    """A run with a spike, of two processes."""
    with JournaledRun(path) as run:
        for step in range(count):
            data = {"loss": 50.0 if step == 12_345 else 1 / (step + 1), "epoch": step // 100}
            if step % 1000 == 0:
                data["rare"] = step
            run.log(data, step, time_ns=NS + step * S // 100)
            if step % 5000 == 4999:
                run.journal()
        run.end()
    return RunReader(path)


def test_spike_is_seen_at_every_zoom(tmp_path: Path) -> None:
    run = long_run(tmp_path / "p" / "r")
    for x0, x1 in ((None, None), (0, 39_999), (10_000, 30_000), (12_000, 13_000), (12_340, 12_350), (12_345, 12_345)):
        for buckets in (1, 7, 50, 300):
            curve = run.curve("loss", x0=x0, x1=x1, buckets=buckets)
            assert max(curve.max) == 50.0
            assert any(
                low <= 12_345 <= high and greatest == 50
                for low, high, greatest in zip(curve.x_min, curve.x_max, curve.max, strict=True)
            )
    assert run.curve("loss", x0=12_346, x1=12_400).exact
    assert max(run.curve("loss", x0=12_346, x1=12_400).max) < 1


def test_axis_may_be_time_or_another_metric(tmp_path: Path) -> None:
    run = long_run(tmp_path / "p" / "r")
    relative = run.curve("loss", "relative", buckets=50)
    assert relative.x_min[0] == 0
    assert relative.x_max[len(relative) - 1] == pytest.approx(399.99)
    assert run.curve("loss", "time", buckets=50).x_min[0] == NS / 1e9
    by_epoch = run.curve("loss", "epoch", buckets=50)
    assert (by_epoch.x_min[0], by_epoch.x_max[len(by_epoch) - 1]) == (0, 399)
    zoomed = run.curve("loss", "epoch", x0=123, x1=123, buckets=500)
    assert zoomed.exact and len(zoomed) == 100 and max(zoomed.max) == 50
    assert list(run.curve("rare").x) == [pytest.approx(1000 * at, abs=64) for at in range(40)]
    with pytest.raises(NoSuchMetric, match="no number was logged by the name 'lost'; did you mean `loss`"):
        run.curve("lost")
    with pytest.raises(KeyError, match="no number was logged by the name '9'; there are `"):
        run.curve("loss", "9")
    with pytest.raises(InvalidSettings, match=r"keys must be names, such as \['loss'\]"):
        run.curves("loss")
    with pytest.raises(InvalidSettings):
        run.curve("loss", buckets=0)
    with pytest.raises(InvalidSettings):
        run.curve("loss", x0=2, x1=1)


def test_curve_grows_with_a_live_run(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "r") as run:
        run.log({"loss": 1.0}, 0)
        run.journal()
        reader = RunReader(run.path)
        assert list(reader.curve("loss").mean) == [1.0]
        for step in range(1, 1000):
            run.log({"loss": float(step)}, step)
        run.journal()
        assert list(reader.curve("loss", buckets=2000).mean) == [1.0, *range(1, 1000)]
        run.end()


def test_values_that_dwindle_at_random_places_are_drawn_where_they_are(tmp_path: Path) -> None:
    count = 20_000
    with JournaledRun(tmp_path / "p" / "r") as run:
        for at in range(count):
            step = at * 7919 % count
            run.log({"loss": float(step)}, step)
        run.end()
    curve = RunReader(run.path).curve("loss", buckets=100)
    assert len(curve) == 100
    assert all(high - low < 2 * count / 100 for low, high in zip(curve.x_min, curve.x_max, strict=True))


def test_metric_with_steps_of_its_own_is_drawn_where_it_was_logged(tmp_path: Path) -> None:
    """Here epochs among the steps of batches, in one process."""
    with JournaledRun(tmp_path / "p" / "r") as run:
        for step in range(40_000):
            run.log({"loss": float(step)}, step)
            if step % 100 == 99:
                run.log({"val": float(step // 100)}, step // 100)
        run.end()
    curves = RunReader(run.path).curves(["val", "loss"], buckets=400)
    assert [*curves["val"].x] == [*curves["val"].mean] == list(range(400))
    assert max(curves["val"].x_max) == 399
    loss = curves["loss"]
    assert sum(loss.count) == 40_000 and (min(loss.min), max(loss.max)) == (0, 39_999)
    assert max(high - low for low, high in zip(loss.x_min, loss.x_max, strict=True)) < 1000
    assert all(low <= mean <= high for low, mean, high in zip(loss.x_min, loss.mean, loss.x_max, strict=True))


@pytest.mark.parametrize("x", ["step", "time", "relative", "seen"])
def test_run_without_a_journal_has_the_curves_of_what_its_backends_have_left(tmp_path: Path, x: str) -> None:
    with JournaledRun(tmp_path / "p" / "r", backends={"jsonl": asynctrack.JSONLines()}) as run:
        for step in range(3000):
            data = {"loss": math.inf if step == 7 else 1 / (step + 1), "seen": 32 * step, "ok": step % 2 == 0}
            run.log(data if step % 3 else {"loss": 0.5}, step, time_ns=NS + step * S)
        run.end()
        deliver(run.path, asynctrack.JSONLines())
    expected = RunReader(run.path).curves(["loss", "ok"], x, x0=None, x1=None, buckets=5000)
    near = RunReader(run.path).curve("loss", x, x0=100, x1=2000, buckets=5000)
    totals = {key: RunReader(run.path)._run_curves().totals(key) for key in ("loss", "seen", "ok")}
    shutil.rmtree(run.path / "journal")
    left = RunReader(run.path)
    for key, curve in left.curves(["loss", "ok"], x, buckets=5000).items():
        assert [*curve.x] == pytest.approx([*expected[key].x]) and repr([*curve.mean]) == repr([*expected[key].mean])
    assert repr([*left.curve("loss", x, x0=100, x1=2000, buckets=5000).last]) == repr([*near.last])
    assert len(left.curve("loss", x, buckets=20)) <= 20
    found = left._run_curves()
    for key, wanted in totals.items():
        of = found.totals(key)
        assert of is not None and wanted is not None
        assert (of.count, of.not_finite, of.mean, of.min and of.min.value) == (
            wanted.count,
            wanted.not_finite,
            wanted.mean,
            wanted.min and wanted.min.value,
        )
    with pytest.raises(KeyError):
        left.curve("lost", x)


def test_run_of_which_nothing_can_be_read_here_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    with JournaledRun(tmp_path / "p" / "r", backends={"parquet": asynctrack.Parquet()}) as run:
        run.log({"loss": 1.0}, 0)
        run.end()
        deliver(run.path, asynctrack.Parquet())
    shutil.rmtree(run.path / "journal")
    assert [*RunReader(run.path).curve("loss").mean] == [1.0]
    for name in [name for name in sys.modules if name.endswith("parquet_table") or name.partition(".")[0] == "pyarrow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("asynctrack.backends.files.parquet_table", raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(BackendUnavailable, match="pip install"):
        RunReader(run.path).curve("loss")


@pytest.mark.parametrize("native", sorted({is_native, False}))
def test_curve_of_one_writer_has_its_numbers_alone(
    tmp_path: Path, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_curves, "is_native", native)
    with JournaledRun(tmp_path / "p" / "r") as run:
        other = run.join("rank1", 1)
        for step in range(2000):
            run.log({"loss": 1.0, "own": step}, step)
            other.log({"loss": 2.0}, step)
            if step % 300 == 0:
                run.journal()
                other.journal()
        other.journal()
        run.start()
        for step in range(1500, 2500):
            run.log({"loss": 3.0}, step)
        run.end()
    reader = RunReader(run.path)
    both = reader.curve("loss", buckets=10)
    one = reader.curve("loss", buckets=10, writer="rank1")
    assert ({*both.min}, {*both.max}) == ({1.0, 3.0}, {2.0, 3.0})
    assert {*one.mean} == {2.0} and sum(one.count) == 1500  # the rest was logged again, by another
    assert sum(reader.curve("loss", writer="rank1", history="all").count) == 2000
    assert [*reader.curves(writer="rank1")] == ["loss"]
    found = read_curves(reader, "rank1")
    assert (found.curves.by_key["loss"].count, tuple(found.left_out)) == (1500, (500, 0))
    with pytest.raises(InvalidSettings, match="rank1"):
        reader.curve("loss", writer="rank2")


def test_truths_count_as_one_and_zero_everywhere(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "r") as run:
        for step, value in enumerate([True, False, True, True]):
            run.log({"ok": value, "mixed": value if step else 0.5}, step)
        run.end()
    assert [*RunReader(run.path).curve("ok").mean] == [1, 0, 1, 1]
    stats = stats_of(run.path)
    assert (stats["ok"].count, stats["ok"].mean, stats["ok"].last) == (4, 0.75, 1)
    assert (stats["mixed"].count, stats["mixed"].first, stats["mixed"].min) == (4, 0.5, 0)
    shown = read_curves(RunReader(run.path)).curves
    assert (shown.by_key["ok"].count, shown.courses(["ok"], 9)["ok"]) == (4, [1, 0, 1, 1])
    numpy = pytest.importorskip("numpy")
    assert numpy.array_equal(asynctrack.compare([run.path]).curve("mixed").values["r"], [0.5, 0, 1, 1])


def test_smoothing_goes_by_x(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "r") as run:
        for step in [0, *range(100, 110), 1000]:
            run.log({"loss": float(step >= 1000)}, step)
        run.end()
    curve = RunReader(run.path).curve("loss")
    near, far = curve.smoothed(10), curve.smoothed(1e6)
    assert near[11] > 0.99
    assert far[11] < 0.9
    assert list(curve.smoothed(0)) == list(curve.mean)
    assert list(curve.smoothed(20, "window")) == list(curve.mean)
    assert curve.smoothed(4000, "window")[0] == pytest.approx(1 / 12)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"buckets": 1.5}, "buckets must be a whole number"), ({"buckets": "300"}, "got '300'"), ({"buckets": None}, "got None"), ({"buckets": 0}, "got 0"),
        ({"x0": "a"}, "x0 must be a number"), ({"x1": math.nan}, "x1 must be a number"), ({"x1": 10**400}, "x1 must be a number"), ({"x0": 5, "x1": 1}, "x0 must not be greater"),
    ],
)  # fmt: skip
def test_window_that_there_is_not_is_refused(tmp_path: Path, how: dict[str, Any], said: str) -> None:
    run = RunReader(written(tmp_path))
    with pytest.raises(InvalidSettings, match=re.escape(said)):
        run.curve("loss", **how)
    with pytest.raises(InvalidSettings, match=re.escape("how must be one of 'last'")):
        run.summarise("loss", "best")
    for reduced in ("last", "first", "min"):
        with pytest.raises(NoSuchMetric, match="was logged by the name 'los'; did you mean `loss`"):
            run.summarise("los", reduced)


def test_window_without_an_end_is_that_of_the_metric(tmp_path: Path) -> None:
    run = RunReader(written(tmp_path))
    curves = run._run_curves()
    whole, group = run.curve("loss", buckets=50), group_curve([curves], "loss", "step", None, None, 50)
    for x0, x1 in ((-math.inf, math.inf), (None, math.inf), (-math.inf, None)):
        assert [*run.curve("loss", x0=x0, x1=x1, buckets=50).x] == [*whole.x]
        assert [*group_curve([curves], "loss", "step", x0, x1, 50).x] == [*group.x]
    assert len(run.curve("loss", x0=math.inf)) == 0


def written(directory: Path) -> Path:
    with JournaledRun(directory / "p" / "r") as run:
        for step in range(1000):
            run.log({"loss": float(step)}, step)
        run.end()
    return run.path


def test_group_has_mean_and_deviation_of_all_runs(tmp_path: Path) -> None:
    runs = []
    for number in range(3):
        with JournaledRun(tmp_path / "p" / f"r{number}") as run:
            for step in range(0, 1000, number + 1):
                run.log({"loss": float(number * 2), "other" if number else "own": 1}, step)
            run.end()
        runs.append(RunCurves(run.path))
        runs[-1].grow()
    group = group_curve(runs, "loss", "step", None, None, 100)
    assert len(group) == 100
    assert {*group.runs} == {3}
    assert [*group.mean] == [2.0] * 100
    assert [*group.deviation] == [2.0] * 100
    assert (min(group.min), max(group.max)) == (0, 4)
    assert {*group_curve(runs, "own", "step", None, None, 10).runs} == {1}
    assert len(group_curve(runs, "lost", "step", None, None, 10)) == 0


def test_columns_are_numpy_arrays_where_that_is_asked_for(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    run = asynctrack.open_run(long_run(tmp_path / "p" / "r", 500).path)
    arrays = run.curve("loss", buckets=1000).arrays()
    assert isinstance(arrays["mean"], numpy.ndarray)
    assert arrays["mean"].tolist() == run.arrays()["loss"].values.tolist()
    assert {*run.curves()} == {"loss", "epoch", "rare"}
