"""What `asynctrack demo` shows and claims, run as users run it; the annealer beneath it; and the example that draws its tour."""

from __future__ import annotations

import functools
import importlib.util
import io
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import ROOT

import asynctrack
from asynctrack.cli.demo_app import kill
from asynctrack.cli.demo_app.annealing import COLDEST, MOVES_PER_STEP, Annealer
from asynctrack.cli.demo_app.berlin52 import OPTIMUM, PLACES, distances, tour_length
from asynctrack.cli.demo_app.live import Live
from asynctrack.cli.demo_app.race import ANNEALERS, Race, Slice, speed_with_tracking

# TSPLIB's berlin52.opt.tour, which counts from 1.
OPTIMAL_TOUR = [
    *(1, 49, 32, 45, 19, 41, 8, 9, 10, 43, 33, 51, 11, 52, 14, 13, 47, 26, 27, 28, 12, 25, 4, 6, 15, 5),
    *(24, 48, 38, 37, 40, 39, 36, 35, 34, 44, 46, 16, 29, 50, 20, 23, 30, 2, 7, 42, 21, 17, 3, 18, 31, 22),
]
SVG = "{http://www.w3.org/2000/svg}"


@functools.cache
def example(name: str) -> ModuleType:
    """A script of `examples/`, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def demo(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "asynctrack", "demo", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("demo")
    done = demo("--seconds", 1, "--json", "--dir", folder / "runs")
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def test_demo_finds_every_accepted_record_again(raced: dict[str, Any]) -> None:
    assert raced["accepted"] == raced["found"] > 0
    assert raced["dropped"] == 0
    assert raced["accepted"] == sum(1 for _ in asynctrack.open_run(raced["path"]).records())


def test_demo_compares_speeds_and_times_log(raced: dict[str, Any]) -> None:
    assert raced["accepted"] < raced["steps"]  # the rest was made in slices without tracking
    assert raced["speed_with_tracking_percent"] > 0
    assert 0 < raced["log_p50_us"] <= raced["log_p99_us"]


def test_demo_finds_a_short_tour(raced: dict[str, Any]) -> None:
    assert sorted(raced["tour"]) == list(range(52))
    assert raced["best"] == tour_length(raced["tour"], distances())
    assert OPTIMUM <= raced["best"] < 1.1 * OPTIMUM


def test_records_bear_what_the_annealers_did(raced: dict[str, Any]) -> None:
    last: dict[int, int] = {}
    for record in asynctrack.open_run(raced["path"]).records():
        assert set(record.data) == {"length", "best", "temperature", "accepted", "trial"}
        assert OPTIMUM <= record.data["best"] <= record.data["length"]
        assert last.get(record.data["trial"] % ANNEALERS, -1) < record.step
        last[record.data["trial"] % ANNEALERS] = record.step
    assert set(last) == set(range(ANNEALERS))


def draw_tour(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "examples" / "draw_tour.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_picture_of_a_run_holds_the_tour_and_the_curves_of_every_annealer(
    raced: dict[str, Any], tmp_path: Path
) -> None:
    done = draw_tour(raced["path"], tmp_path / "tour.svg")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    root = ET.parse(tmp_path / "tour.svg").getroot()
    tour = root.find(f"{SVG}polygon[@id='tour']")
    assert tour is not None and len(tour.attrib["points"].split()) == 52
    assert len(root.findall(f"{SVG}polyline")) >= 2 * ANNEALERS  # temperature and best, of each trial
    assert f"{raced['best']:,} long" in "".join(root.itertext())


@pytest.mark.system
def test_printed_commands_work(tmp_path: Path) -> None:
    done = demo("--seconds", 0.2, "--dir", tmp_path / "it's here")
    assert done.returncode == 0, done.stderr
    assert "accepted; 0 dropped" in done.stdout
    tail, python = re.findall(r"(?:tail|python) -.*", done.stdout)
    last = subprocess.run(tail, shell=True, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(last) == 3 and all("temperature" in json.loads(line) for line in last)
    python = python.replace("python", sys.executable, 1)
    assert subprocess.run(python, shell=True, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.system
def test_killed_demo_counts_every_record(tmp_path: Path) -> None:
    done = demo("--kill", "--seconds", 2, "--json", "--dir", tmp_path)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["accepted"] > 0
    assert facts["found"] in (facts["accepted"], facts["accepted"] + 1)
    assert facts["missing"] == facts["repeated"] == facts["dropped"] == facts["gaps"] == 0
    assert facts["status"] == "crashed"


def test_lost_and_repeated_records_would_be_told(tmp_path: Path) -> None:
    with asynctrack.init("berlin52", dir=tmp_path) as run:
        for trial, step in ((0, 0), (0, 1), (0, 3), (1, 0), (1, 0)):
            run.log({"trial": trial}, step=step)
        run.finish()
    kill_report = kill.count(run.path, [4, 1, 0, 0, 0], 1.0, "crashed")
    assert (kill_report.found, kill_report.missing, kill_report.repeated, kill_report.gaps) == (4, 1, 1, 1)
    assert not kill_report.whole


@pytest.mark.system
@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "ten"])
def test_odd_seconds_are_refused(seconds: str) -> None:
    done = demo(f"--seconds={seconds}")
    assert done.returncode == 2
    assert "expected a number from 0.2 to 3600" in done.stderr


def test_run_without_a_tour_is_not_drawn(tmp_path: Path) -> None:
    with asynctrack.init("berlin52", dir=tmp_path) as run:
        run.log({"length": 9000, "trial": 0})
        run.finish()
    done = draw_tour(run.path, tmp_path / "tour.svg")
    assert done.returncode == 1
    assert "has no tour: expected a run of `asynctrack demo` that has finished" in done.stderr
    assert not (tmp_path / "tour.svg").exists()


def test_known_shortest_tour_has_the_known_length() -> None:
    assert tour_length([place - 1 for place in OPTIMAL_TOUR], distances()) == OPTIMUM == 7542
    assert len(set(PLACES)) == 52


def test_same_seed_does_the_same() -> None:
    first, second, other = (Annealer(distances(), seed, cooling=0.9, runs=2) for seed in (1, 1, 2))
    steps = [first.step() for _ in range(100)]
    assert steps == [second.step() for _ in range(100)]
    assert steps != [other.step() for _ in range(100)]
    assert {step.trial for step in steps} == {0, 1}


@settings(deadline=None)
@given(seed=st.integers(0, 2**32), cooling=st.floats(0.5, 1.0), places=st.integers(5, 52))
def test_length_kept_step_by_step_is_the_tours_length(seed: int, cooling: float, places: int) -> None:
    table = distances(PLACES[:places])
    annealer = Annealer(table, seed, cooling=cooling, runs=3)
    for _ in range(5):
        step = annealer.step()
        assert sorted(annealer.tour) == list(range(places))
        assert step.best <= step.length and 0 <= step.accepted <= MOVES_PER_STEP
        assert tour_length(annealer.best_tour, table) == annealer.best_length


def test_no_tour_is_shorter_than_the_optimum_and_enough_steps_come_near_it() -> None:
    annealer = Annealer(distances(), 52, cooling=1.0, runs=3)
    annealer.pace(600)
    steps = [annealer.step() for _ in range(600)]
    assert min(step.length for step in steps) >= OPTIMUM
    assert OPTIMUM <= annealer.best_length <= 1.03 * OPTIMUM
    assert {step.trial for step in steps} == {0, 1, 2}


def test_pace_makes_all_runs_cold_in_time() -> None:
    annealer = Annealer(distances(), 1, cooling=0.5, runs=4)
    for _ in range(5):
        annealer.step()
    annealer.pace(40)
    for _ in range(44):  # each run ends at the step that reaches the coldest: at most one more than its share
        annealer.step()
    assert annealer.temperature == COLDEST and annealer.progress == 1.0
    annealer.step()
    assert annealer.temperature == COLDEST


@settings(deadline=None)
@given(
    points=st.lists(st.tuples(st.integers(0, 1000), st.floats(-1e9, 1e9)), min_size=1),
    buckets=st.integers(1, 50),
)
def test_curve_that_is_drawn_keeps_the_extremes(points: list[tuple[int, float]], buckets: int) -> None:
    curve = example("draw_tour").TrialCurve(0, 1000, buckets)
    for x, y in points:
        curve.add(x, y)
    spans = curve.spans()
    assert len(spans) <= buckets
    assert min(low for _, low, _ in spans) == min(y for _, y in points)
    assert max(high for _, _, high in spans) == max(y for _, y in points)
    for x, y in points:
        assert any(k in (x * buckets // 1000, buckets - 1) and low <= y <= high for k, low, high in spans)


def test_speeds_are_compared_with_the_neighbours_so_that_drift_is_no_cost() -> None:
    # A machine that gets slower all the time, and a log that takes one part in ten of the time.
    slices = [Slice(k % 2 == 0, 0.0, steps=1000 - 10 * k, busy_ns=10**8) for k in range(21)]
    assert speed_with_tracking(slices) == pytest.approx(1.0)
    for part in slices[::2]:
        part.steps = part.steps * 9 // 10
    assert speed_with_tracking(slices) == pytest.approx(0.9, rel=0.01)
    assert speed_with_tracking(slices[:2]) is None


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_terminal_shows_the_race_in_place() -> None:
    out = Terminal()
    live = Live(out)
    race = Race(lambda data, step=None: True, seconds=1, seed=1)
    live.show(race)
    shown = out.getvalue().count("\n")
    live.clear()
    assert out.getvalue().endswith(f"\x1b[{shown}F\x1b[J")
