"""The numbers of each metric of a run: counted and summed by the native core as Python does it, in memory that does not grow with the run."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from reading_versions import both, tries
from test_scan import HISTORIES, MIXED, RESUMED, RESUMED_WITH_A_NAME_TWICE, alike, made_run, sessions

from asynctrack._system.native import is_native
from asynctrack.collection.metric_stats import stats_of, stats_of_numbers
from asynctrack.collection.subject import RunSubject
from asynctrack.testing import JournaledRun

NUMBERS = [
    [
        (step, {"x": value})
        for step, value in enumerate([2**53 + 1, float(2**53), 2**70, -0.0, 0, math.nan, True, 1e308, 1e308, "x"])
    ]
]
HALVES = [[(step, {"x": value}) for step, value in enumerate([0.1] * 10 + [1e100, 1, -1e100])]]


@pytest.mark.skipif(not is_native, reason="the native core is not built")
@tries(sessions, known=((MIXED,), (RESUMED,), (RESUMED_WITH_A_NAME_TWICE,), (NUMBERS,), (HALVES,)))
def test_core_counts_and_sums_as_python_does(sessions: list[Any]) -> None:
    with made_run(sessions) as run:
        for history in HISTORIES:
            native, plain = both(lambda of=history: stats_of(run.path, of))  # type: ignore[misc]
            assert alike(plain_of(native), plain_of(plain))


def plain_of(stats: dict[str, Any]) -> dict[str, Any]:
    return {name: msgspec.structs.asdict(stats[name]) for name in sorted(stats)}


def test_metrics_of_a_run_are_its_numbers(tmp_path: Path, reading: str) -> None:
    with JournaledRun(tmp_path / "r") as run:
        for step in range(3):
            run.log({"loss": 1.0 / (step + 1), "note": "text"}, step)
        run.end()
    subject = RunSubject(tmp_path / "r", [])
    assert subject.metric("loss", "min") == subject.metric("loss", "last") == 1 / 3
    assert subject.metric("loss", "mean") == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert subject.metrics["loss"].min_step == 2
    assert subject.metrics.keys() == {"loss"}


def test_steps_that_were_logged_again_count_once(tmp_path: Path, reading: str) -> None:
    with JournaledRun(tmp_path / "r") as run:
        for step in range(4):
            run.log({"loss": 10.0 - step}, step)
        run.start()
        for step in range(2, 4):
            run.log({"loss": 1.0}, step)
        run.end()
    last, every = stats_of(tmp_path / "r")["loss"], stats_of(tmp_path / "r", "all")["loss"]
    assert (last.count, last.max, last.mean, last.last_step) == (4, 10.0, 5.25, 3)
    assert (every.count, every.first, every.last) == (6, 10.0, 1.0)


def test_numbers_that_are_not_finite_are_counted_apart() -> None:
    stats = stats_of_numbers(("x", step, value) for step, value in enumerate([math.nan, 2, 1.0, math.inf]))["x"]
    assert (stats.count, stats.not_finite, stats.min, stats.max, stats.mean) == (4, 2, 1.0, 2, 1.5)
    assert math.isnan(stats.first) and stats.last == math.inf
    assert (stats.min_step, stats.max_step) == (2, 1)


def test_mean_keeps_what_large_numbers_would_swallow() -> None:
    assert stats_of_numbers(("x", 0, value) for value in [1e100, 1.0, -1e100])["x"].mean == pytest.approx(1 / 3)


def test_mean_lies_between_least_and_greatest_where_the_sum_is_beyond_a_float() -> None:
    for values in ([1e308] * 3, [1.7e308, 1e308], [-1e308] * 4):
        assert min(values) <= stats_of_numbers(("x", 0, value) for value in values)["x"].mean <= max(values)  # type: ignore[operator]


def test_run_that_cannot_be_read_has_no_metrics(tmp_path: Path) -> None:
    (tmp_path / "r" / "journal").mkdir(parents=True)
    (tmp_path / "r" / "journal" / "000001.atj").write_bytes(b"nothing" * 100)
    assert stats_of(tmp_path / "r") == {}
    shutil.rmtree(tmp_path / "r")
    assert stats_of(tmp_path / "r") == {}


@pytest.mark.system
@pytest.mark.skipif(not is_native, reason="the native core is not built")
def test_memory_does_not_grow_with_the_run(tmp_path: Path) -> None:
    peaks = []
    for records in (50_000, 400_000):
        with JournaledRun(tmp_path / f"r{records}") as run:
            for step in range(records):
                run.log({"loss": 1.0 / (step + 1), "acc": step * 0.5}, step)
                if step % 1000 == 999:
                    run.journal()
            run.end()
        script = (
            "import re, sys; from pathlib import Path; from asynctrack.collection.metric_stats import stats_of\n"
            "assert stats_of(Path(sys.argv[1]))['loss'].count == int(sys.argv[2])\n"
            "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, tmp_path / f"r{records}", str(records)],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        peaks.append(int(done.stdout))
    assert peaks[1] < peaks[0] + 8_000  # KiB; the longer one has 17 MB more
