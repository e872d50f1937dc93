"""Curves and what is drawn of them: by Matplotlib, by Plotly in a real browser, by livelossplot in a real notebook."""

from __future__ import annotations

import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import wait_until

import asynctrack
from asynctrack import Batch, Context, LivePlot, Matplotlib, Plotly, Record
from asynctrack.backends.base import ActionRequired, Backend
from asynctrack.backends.metric_selection import MetricSelection
from asynctrack.backends.plots.curves import MOST_CURVES, NO_NUMBERS, TOO_MANY, PlotCurve, PlotCurves, broken_steps
from asynctrack.backends.plots.drawing import COLOURS, Plot
from asynctrack.backends.registry import execution_of, from_stored, stored
from asynctrack.errors import InvalidSettings
from asynctrack.records.codec import Array
from asynctrack.testing import BackendContract, JournaledRun, deliver, deliver_in_process

CHROMIUM = shutil.which("chromium")
CHROMIUM_OPTIONS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


def record(step: int, data: dict[str, Any]) -> Record:
    return Record(step, step, 1_700_000_000_000_000_000, data)


def curve_of(points: Iterable[tuple[int, float]], most: int) -> PlotCurve:
    curve = PlotCurve(most)
    for step, value in points:
        curve.add(step, value)
    return curve


# Curves

points = st.lists(
    st.tuples(st.integers(-(2**63), 2**64 - 1) | st.integers(-50, 50), st.floats(allow_subnormal=False)), max_size=60
)


@pytest.mark.system
@given(points, st.integers(2, 20), st.randoms())
@settings(max_examples=200)
def test_no_extreme_is_lost_and_no_order_matters(
    values: list[tuple[int, float]], most: int, rng: random.Random
) -> None:
    course = curve_of(values, most).course("k", most)
    assert len(course.x) <= most
    finite = [value for _, value in values if math.isfinite(value)]
    shown = [value for value in [*course.min, *course.max] if math.isfinite(value)]
    assert (min(shown, default=None), max(shown, default=None)) == (
        min(finite, default=None),
        max(finite, default=None),
    )
    assert [*course.x] == sorted(course.x)
    shuffled = [*values, *values]  # what is given twice shows once
    rng.shuffle(shuffled)
    again = curve_of(shuffled, most).course("k", most)
    columns = [[list(of.x), list(of.min), list(of.max), broken_steps(of)] for of in (course, again)]
    assert repr(columns[0]) == repr(columns[1])


@given(points)
def test_few_points_are_exact(values: list[tuple[int, float]]) -> None:
    alone = dict(values)
    course = curve_of(alone.items(), 100).course("k", 100)
    shown = dict(zip(course.x, course.mean, strict=True))
    assert course.exact
    assert len(shown) == len({float(step) for step in alone})
    for step, value in alone.items():
        if math.isfinite(value) and abs(step) < 2**53:
            assert shown[step] == value
    assert broken_steps(course) == sorted(float(step) for step, value in alone.items() if not math.isfinite(value))


def test_memory_of_a_curve_is_bounded() -> None:
    curve = PlotCurve(100)
    for step in range(100_000):
        curve.add(step, math.sin(step / 1000) + (50 if step == 77_777 else 0))
    assert 50 <= curve.cells <= 100 and curve.count == 100_000
    course = curve.course("k", 10)
    assert len(course.x) <= 10 and max(course.max) > 49


def test_mean_of_values_whose_sum_is_too_large() -> None:
    assert curve_of([(0, 1.7e308), (0, 1.6e308)], 2).course("k", 2).mean[0] == pytest.approx(1.65e308)


def test_numbers_of_every_kind_are_drawn_and_all_else_is_skipped() -> None:
    curves = PlotCurves(MetricSelection(None))
    data = {"a": {"b": {"loss": 1}}, "ok": True, "big": 2**2000, "text": "x", "none": None}
    skipped = curves.take([record(0, data), record(1, {"text": "y"}), record(2, {"w": Array("f4", (1,), bytes(4))})])
    assert {key: [*curve.course("k", 9).mean] for key, curve in curves.by_key.items()} == {
        "a/b/loss": [1.0], "ok": [1.0], "big": [pytest.approx(math.nan, nan_ok=True)],
    }  # fmt: skip
    assert skipped == {NO_NUMBERS: 2}


def test_a_run_that_makes_up_names_does_not_fill_the_memory() -> None:
    curves = PlotCurves(MetricSelection(None))
    skipped = curves.take(record(step, {f"metric-{step}": 1.0}) for step in range(MOST_CURVES + 50))
    assert len(curves.by_key) == MOST_CURVES and skipped == {TOO_MANY: 50}


def test_scopes_of_a_metric_share_a_panel_and_keep_their_colour() -> None:
    curves = PlotCurves(MetricSelection(["*loss", "*/lr"]))
    curves.take(
        [
            record(
                0,
                {
                    "train": {"loss": 1.0, "lr": 0.1, "n": 3},
                    "val": {"loss": 2.0},
                    "grads": {"lr": 1.0},
                    "best": {"bestloss": 1.0},
                },
            )
        ]
    )
    panels = [(panel.title, [(line.scope, line.rank) for line in panel.lines]) for panel in curves.panels()]
    assert panels == [
        ("loss", [("train", 0), ("val", 1)]),
        ("lr", [("train", 0), ("grads", 2)]),
        ("best/bestloss", [("best", None)]),
    ]


# Settings


@pytest.mark.parametrize(
    ("kind", "given", "field"),
    [
        (Matplotlib, {"keys": "loss"}, "keys"),
        (Matplotlib, {"every_s": 0}, "every_s"),
        (Plotly, {"every_s": math.nan}, "every_s"),
        (LivePlot, {"every_s": "often"}, "every_s"),
        (Plotly, {"log_scale": [3]}, "log_scale"),
        (Matplotlib, {"format": "gif"}, "format"),
        (Plotly, {"plotlyjs": "cdn"}, "plotlyjs"),
    ],
)
def test_bad_settings_are_named(kind: type[Plot], given: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidSettings, match=f"  - {field} m"):
        kind(**given)


@pytest.mark.parametrize("backend", [Matplotlib(keys=["*/loss"], log_scale=True), Plotly(every_s=1.5), LivePlot()])
def test_pictures_are_drawn_out_of_everybodys_way_in_the_runs_own_directory(backend: Plot) -> None:
    assert execution_of(backend) == "process"
    assert backend.external_targets() == []
    assert from_stored(stored(backend, "id", "name"), trusted=False) == backend


@pytest.mark.system
@pytest.mark.parametrize(
    ("backend", "library"), [(Matplotlib(), "matplotlib"), (Plotly(), "plotly"), (LivePlot(), "livelossplot")]
)
def test_missing_library_is_named_with_its_extra(
    backend: Plot, library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [library, *[name for name in sys.modules if name.startswith(f"{library}.")]]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ActionRequired, match=re.escape(f"pip install 'asynctrack[{library}]'")):
        backend.open(context(tmp_path))


def context(run: Path, state: dict[str, Any] | None = None) -> Context:
    return Context(run_id="id", name="run", project="p", directory=run, config={}, state=state)


# Matplotlib


def train(run: JournaledRun, steps: int = 300, every: int = 1) -> None:
    """Log a training: two scopes, noise, a spike and a value that is not finite."""
    rng = random.Random(0)
    for step in range(0, steps, every):
        loss = math.exp(-step / 100) + rng.gauss(0, 0.05)
        run.log({"train": {"loss": math.nan if step == 200 else loss, "lr": 1e-3 * (1 - step / steps)}}, step)
        if step % 50 == 0:
            run.log({"val": {"loss": math.exp(-step / 100) + 0.1}}, step)
        if step % 70 == 0:
            run.journal()


def pixels(picture: Path) -> tuple[tuple[int, int], set[str]]:
    """Size and colours of a PNG."""
    image = pytest.importorskip("PIL.Image", reason="Pillow comes with Matplotlib").open(picture)
    colours = image.convert("RGB").getcolors(1 << 24)
    return image.size, {f"#{red:02x}{green:02x}{blue:02x}" for _, (red, green, blue) in colours}


needs_matplotlib = pytest.mark.skipif(
    not __import__("importlib.util").util.find_spec("matplotlib"), reason="needs matplotlib"
)


@pytest.mark.system
@needs_matplotlib
def test_picture_has_a_line_for_each_scope(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "run") as run:
        train(run)
        run.end()
        cursor = deliver(run.path, Matplotlib())
    picture = run.path / "plots" / "metrics.png"
    (width, height), colours = pixels(picture)
    assert 700 < width < 1400 and 250 < height < 500
    assert picture.stat().st_size < 150_000
    assert {COLOURS[0], COLOURS[1]} <= colours and COLOURS[2] not in colours
    assert cursor.delivered == 306 and cursor.skipped == {}
    assert os.listdir(picture.parent) == ["metrics.png"]


@pytest.mark.system
@needs_matplotlib
def test_picture_of_many_metrics_has_pages_and_the_names_are_taken_as_they_are(tmp_path: Path) -> None:
    named = msgspec.structs.replace(context(tmp_path), name="run $x_1$ 的")
    sink: Any = Matplotlib(format="svg").open(named)
    values = {f"$m_{at}$ <{at}>": float(at) for at in range(12)}
    scopes = {f"scope-{at}": {"loss": -1.0} for at in range(9)}
    sink.write(Batch([record(0, values), record(1, scopes)], []))  # drawn once: a page takes a second of a core
    sink.close("stopped")
    names = sorted(os.listdir(tmp_path / "plots"))
    assert names == ["metrics-2.svg", "metrics.svg"]
    for name in names:
        ElementTree.parse(tmp_path / "plots" / name)


@needs_matplotlib
def test_run_without_numbers_has_no_picture(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "run") as run:
        run.log({"text": "x"})
        run.end()
        cursor = deliver(run.path, Matplotlib())
    assert cursor.skipped == {NO_NUMBERS: 1}
    assert not (run.path / "plots").exists()


@pytest.mark.system
@needs_matplotlib
def test_folder_that_leads_elsewhere_is_not_followed(tmp_path: Path) -> None:
    sink: Any = Matplotlib().open(context(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "plots").symlink_to("elsewhere")
    batch = Batch([record(0, {"loss": 1.0})], [])
    for _ in range(2):
        with pytest.raises(ActionRequired, match="is a link"):
            sink.write(batch)
    (tmp_path / "plots").unlink()
    assert sink.write(batch) == {}
    assert sink.curves.by_key["loss"].count == 1
    assert os.listdir(tmp_path / "elsewhere") == [] and os.listdir(tmp_path / "plots") == ["metrics.png"]


@pytest.mark.system
@needs_matplotlib
def test_picture_is_drawn_while_the_run_goes_on_and_the_last_has_all(own_host: Path, runs: Path) -> None:
    with asynctrack.init("p", dir=runs, backends=[Matplotlib(every_s=0.1)]) as run:
        picture = run.path / "plots" / "metrics.png"
        run.log({"loss": 1.0}, step=0)
        wait_until(picture.exists, "there is a picture")
        first = picture.read_bytes()
        run.log({"val/loss": 2.0}, step=1000)
        wait_until(lambda: picture.read_bytes() != first, "there is another")
        run.log({"extra": 3.0}, step=2000)
    with JournaledRun(runs / "q" / run.id) as same:
        for step, data in ((0, {"loss": 1.0}), (1000, {"val/loss": 2.0}), (2000, {"extra": 3.0})):
            same.log(data, step)
        same.end()
        deliver(same.path, Matplotlib())
    assert picture.read_bytes() == (same.path / "plots" / "metrics.png").read_bytes()


@pytest.mark.slow
@needs_matplotlib
def test_process_that_is_killed_draws_the_same_in_the_end(tmp_path: Path) -> None:
    pictures = []
    for name, kills in (("kept", 0), ("killed", 2)):
        with JournaledRun(tmp_path / name / "run") as run:
            train(run)
            run.end()
            left = kills

            def poll(process: Any, cursor: Any) -> None:
                nonlocal left
                if left and cursor.delivered and process.group is not None:
                    left -= 1
                    os.killpg(process.group, signal.SIGKILL)

            slow = msgspec.structs.replace(Matplotlib(every_s=0.2), max_records_s=300.0)
            deliver_in_process(run.path, slow, poll=poll, timeout_s=50)
        assert left == 0
        pictures.append((run.path / "plots" / "metrics.png").read_bytes())
    assert pictures[0] == pictures[1]


# Plotly

needs_plotly = pytest.mark.skipif(not __import__("importlib.util").util.find_spec("plotly"), reason="needs plotly")


def figure(run: Path) -> dict[str, Any]:
    """The figure of a page."""
    page = (run / "plots" / "metrics.html").read_text()
    found: dict[str, Any] = json.loads(re.findall(r"^const figure = (.*);$", page, re.M)[-1])
    return found


@pytest.mark.system
@needs_plotly
class TestPlotlysContract(BackendContract):
    exactly_once = True
    keeps = frozenset({"float", "int", "bool"})
    any_step = False  # a curve goes from the left to the right

    def make_backend(self, run: Path) -> Backend:
        return Plotly(every_s=0.1, plotlyjs="directory")

    def read(self, run: Path) -> Iterator[tuple[int, str, Any]]:
        if not (run / "plots").exists():
            return
        found = figure(run)
        titles = [title["text"] for title in found["layout"]["annotations"]]
        for trace in found["data"]:
            if "fill" not in trace:
                key = titles[int(trace["yaxis"][1:] or 1) - 1]
                yield from ((step, key, value) for step, value in zip(trace["x"], trace["y"], strict=True))


@pytest.mark.system
@needs_plotly
def test_page_needs_nothing_else_and_its_texts_are_no_markup(tmp_path: Path) -> None:
    name = "a <b> </script> $x$"
    with JournaledRun(tmp_path / "p" / "run") as run:
        run.manifest.name = name
        run.start()
        train(run)
        run.log({"</script><script>alert(1)</script>": 1.0, "$x$": 2.0})
        run.end()
        deliver(run.path, Plotly(log_scale=["*loss"]))
    page = (run.path / "plots" / "metrics.html").read_text()
    assert page.count("</script>") == 2 and "alert(1)</script>" not in page
    assert "src=" not in page[page.rindex("</style>") : page.rindex("</style>") + 100]
    assert "location.reload" not in page.split("Plotly.newPlot(plot")[-1]  # it has ended
    layout = figure(run.path)["layout"]
    assert [layout[axis]["type"] for axis in ("yaxis", "yaxis2")] == ["log", "linear"]
    assert layout["annotations"][-1]["text"] == "&#36;x&#36;"


@needs_plotly
def test_page_of_a_run_that_goes_on_loads_itself_anew(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "run") as run:
        train(run)
        run.journal()
        deliver(run.path, Plotly(every_s=3.0, plotlyjs="directory"))
    page = (run.path / "plots" / "metrics.html").read_text()
    assert "location.reload(); }, 3000)" in page and len(page) < 100_000
    assert (run.path / "plots" / "plotly.min.js").stat().st_size > 1e6


@pytest.mark.slow
@needs_plotly
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize("plotlyjs", ["inline", "directory"])
def test_browser_shows_the_page_without_network(tmp_path: Path, plotlyjs: Any) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is in the group test-plots")
    with JournaledRun(tmp_path / "p" / "run") as run:
        train(run)
        run.end()
        deliver(run.path, Plotly(plotlyjs=plotlyjs))
    said: list[str] = []
    asked: list[str] = []
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
        page = browser.new_page(viewport={"width": 1200, "height": 500})
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("console", lambda message: said.append(message.text))
        page.on("request", lambda request: asked.append(request.url))
        page.goto((run.path / "plots" / "metrics.html").as_uri())
        page.wait_for_selector(".main-svg .scatterlayer .trace", state="attached")
        legend = page.locator(".legendtext").all_text_contents()
        titles = page.locator(".annotation-text").all_text_contents()
        browser.close()
    assert said == []
    assert len(asked) == (1 if plotlyjs == "inline" else 2) and all(url.startswith("file:") for url in asked)
    assert legend == ["train", "val"] and titles == ["loss", "train/lr"]


# LivePlot


@pytest.mark.slow
def test_live_plot_is_a_picture_wherever_there_is_no_notebook(tmp_path: Path) -> None:
    pytest.importorskip("livelossplot", reason="livelossplot is in the group test-plots")
    with JournaledRun(tmp_path / "p" / "run") as run:
        train(run)
        run.end()
        deliver_in_process(run.path, LivePlot(), timeout_s=50)
    (width, height), _ = pixels(run.path / "plots" / "live.png")
    assert (width, height) == (800, 240)


CELL = """
import time, asynctrack
with asynctrack.init("p", dir={runs!r}, backends=[asynctrack.LivePlot(every_s=0.2)]) as run:
    for step in range(20):
        run.log({{"loss": 1 / (step + 1)}}, step=step)
        run.flush("delivered")
"""


@pytest.mark.slow
def test_notebook_shows_the_picture_below_the_cell_that_opened_the_run(
    own_host: Path, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("livelossplot", reason="livelossplot is in the group test-plots")
    manager = pytest.importorskip("jupyter_client.manager")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    kernel, client = manager.start_new_kernel(startup_timeout=40)
    try:
        request = client.execute(CELL.format(runs=str(runs)))
        shown: list[dict[str, Any]] = []
        while True:
            message: dict[str, Any] = client.get_iopub_msg(timeout=40)
            if message["parent_header"].get("msg_id") == request:
                assert message["msg_type"] != "error", message["content"]
                if message["msg_type"].endswith("display_data"):
                    shown.append(message)
                if message["content"].get("execution_state") == "idle":
                    break
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)
    first, *pictures = shown
    assert first["msg_type"] == "display_data" and pictures
    assert {message["msg_type"] for message in pictures} == {"update_display_data"}
    assert len({message["content"]["transient"]["display_id"] for message in shown}) == 1
    assert all("image/png" in message["content"]["data"] for message in pictures)


# The gallery


@pytest.mark.slow
@needs_matplotlib
@needs_plotly
def test_gallery_of_the_documents_can_be_made(own_host: Path, tmp_path: Path) -> None:
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, root / "examples" / "gallery.py", tmp_path], capture_output=True, text=True, timeout=55
    )
    assert done.returncode == 0 and not done.stderr
    pages = (root / "docs" / "reference" / "backends").glob("*.md")
    shown = "\n".join(page.read_text() for page in pages)
    for name in ("console.svg", "matplotlib.png", "show.svg"):
        assert 1000 < (tmp_path / name).stat().st_size < 150_000
        assert f"(../../../examples/gallery/{name})" in shown
    made, kept = (folder / "console.svg" for folder in (tmp_path, root / "examples" / "gallery"))
    assert made.read_bytes() == kept.read_bytes()  # nothing in it is of a machine or an hour
