"""The page of one run: charts, zoom, axes, marks and files, and all that is known of the run."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import pytest
from support import start, wait_until

from page.conftest import Server, Visitor, serving
from page.made_runs import HOSTILE, SPIKE, SPIKE_STEP

expect = pytest.importorskip("playwright.sync_api", reason="playwright is in the group test-page").expect
pytestmark = pytest.mark.system

# What is drawn is on the screen: before, Chromium takes no mouse and no key.
TWO_FRAMES = "() => new Promise((seen) => requestAnimationFrame(() => requestAnimationFrame(() => seen())))"
# How many pixels of the first chart are not grey, and so of a curve.
COLOURED = """(canvas) => {
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let count = 0;
  for (let at = 0; at < pixels.length; at += 4) {
    const [r, g, b, a] = pixels.subarray(at, at + 4);
    count += a > 100 && Math.max(r, g, b) - Math.min(r, g, b) > 25;
  }
  return count;
}"""


def chart(page: Any, name: str) -> Any:
    return page.locator(f'.panel[data-name="{name}"]')


def wait_for_curve(panel: Any) -> None:
    panel.locator("canvas").first.wait_for()
    wait_until(lambda: panel.locator("canvas").first.evaluate(COLOURED) > 50, "a curve is drawn", 20)
    panel.evaluate(TWO_FRAMES)


def table_of(page: Any, panel: Any) -> list[list[str]]:
    """What the chart says to those who do not see it."""
    panel.locator("summary").click()
    panel.get_by_role("button", name="Table of what is drawn").click()
    dialog = page.locator("dialog[open]")
    dialog.locator("tbody tr").first.wait_for()
    found = [line.split("\t") for line in dialog.locator("tbody").inner_text().split("\n")]
    page.keyboard.press("Escape")
    return [[cell.strip() for cell in row] for row in found]


def number(text: str) -> float:
    return float(text.replace(",", "").replace("−", "-"))


def test_metrics_of_one_name_share_a_chart(visitor: Visitor, server: Server) -> None:
    page = visitor.open(server, "#/run/sweep/run-00")
    wait_for_curve(chart(page, "loss"))
    expect(chart(page, "loss")).to_contain_text("train/loss")
    expect(chart(page, "loss")).to_contain_text("val/loss")
    assert {row[0] for row in table_of(page, chart(page, "loss"))} == {"train/loss", "val/loss"}


def test_spike_is_in_the_chart_and_marked_beyond_its_scale(visitor: Visitor, server: Server) -> None:
    page = visitor.open(server, "#/run/long/spike")
    wait_for_curve(chart(page, "loss"))
    expect(chart(page, "loss")).to_contain_text("1 beyond")
    assert max(number(row[4]) for row in table_of(page, chart(page, "loss"))) == SPIKE
    page.keyboard.press("o")
    expect(chart(page, "loss")).not_to_contain_text("beyond")
    page.wait_for_url(re.compile("o=1"))


def test_zoom_shows_each_value_and_a_link_brings_it_back(visitor: Visitor, server: Server) -> None:
    window = f"{SPIKE_STEP - 20},{SPIKE_STEP + 20}"
    page = visitor.open(server, f"#/run/long/spike?zoom={window}&o=1")
    wait_for_curve(chart(page, "loss"))
    expect(chart(page, "loss")).to_contain_text("exact")
    rows = table_of(page, chart(page, "loss"))
    steps = [number(row[1]) for row in rows]
    assert [number(row[2]) for row in rows if number(row[1]) == SPIKE_STEP] == [SPIKE]
    assert len(steps) >= 40 and steps == sorted(steps)
    page.get_by_role("button", name="zoom out").click()
    expect(chart(page, "loss")).not_to_contain_text("exact")
    page.wait_for_url(lambda url: "zoom=" not in url)


def test_dragging_over_a_chart_zooms_all_of_them(visitor: Visitor, server: Server) -> None:
    page = visitor.open(server, "#/run/long/spike")
    wait_for_curve(chart(page, "loss"))
    box = chart(page, "loss").locator("canvas").first.bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.4, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, middle, steps=5)
    page.mouse.up()
    page.wait_for_url(re.compile("zoom="))
    begin, end = map(float, re.search(r"zoom=([\d.e+-]+),([\d.e+-]+)", page.url.replace("%2C", ",")).groups())  # type: ignore[union-attr]
    assert 20_000 < begin < end < 80_000
    wait_for_curve(chart(page, "grad"))
    wait_until(
        lambda: all(begin - 600 <= number(row[1]) <= end + 600 for row in table_of(page, chart(page, "grad"))),
        "the other chart is zoomed, too",
        20,
    )


def test_axes_and_smoothing_change_by_keys_and_stay_in_the_address(visitor: Visitor, server: Server) -> None:
    page = visitor.open(server, "#/run/sweep/run-00")
    wait_for_curve(chart(page, "loss"))
    for key in "lts":
        page.keyboard.press(key)
    page.wait_for_url(lambda url: all(part in url for part in ("log", "x=time", "s=")))
    page.reload()
    wait_for_curve(chart(page, "loss"))
    expect(page.get_by_label("x axis", exact=True)).to_have_value("time")


def test_another_metric_can_be_the_x_axis(visitor: Visitor, server: Server) -> None:
    page = visitor.open(server, "#/run/sweep/run-00?x=train/acc")
    wait_for_curve(chart(page, "loss"))
    assert all(0 <= number(row[1]) <= 1 for row in table_of(page, chart(page, "loss")))


def test_broken_numbers_are_counted_and_marked(visitor: Visitor, server: Server) -> None:
    page = visitor.open(server, "#/run/odd/broken-numbers")
    wait_for_curve(chart(page, "loss"))
    page.get_by_role("link", name=re.compile("^Summary")).or_(page.get_by_role("tab", name=re.compile("^Summary"))).or_(
        page.get_by_role("button", name=re.compile("^Summary"))
    ).first.click()
    row = page.locator("tr", has_text="never")
    expect(row).to_contain_text("100")


def test_failed_run_shows_its_traceback(visitor: Visitor, server: Server) -> None:
    page = visitor.open(server, "#/run/odd/failed")
    expect(page.locator("main")).to_contain_text("failed")
    expect(page.locator("main")).to_contain_text("ValueError: the loss is </script> not a number")


def test_hostile_names_are_text(visitor: Visitor, server: Server) -> None:
    page = visitor.open(server, "#/run/odd/hostile")
    page.on("dialog", lambda dialog: visitor.problems.append(f"dialog: {dialog.message}"))
    wait_for_curve(page.locator(".panel").first)
    expect(page.locator("main")).to_contain_text(HOSTILE)
    expect(page.locator("main")).to_contain_text("<img src=x onerror=alert(3)>")
    assert page.evaluate("document.scripts.length") <= 2
    assert page.locator("main img[src='x']").count() == 0


def test_media_are_shown_by_step_and_html_cannot_run(visitor: Visitor, server: Server) -> None:
    page = visitor.open(server, "#/run/odd/media")
    page.get_by_text(re.compile("^Media")).first.click()
    expect(page.locator("main img").first).to_be_visible()
    wait_until(
        lambda: page.locator("main img").first.evaluate("(image) => image.naturalWidth") == 24, "the image is there", 20
    )
    expect(page.locator("main")).to_contain_text("<b>bold</b>")
    expect(page.locator("main")).to_contain_text("hello " + HOSTILE)
    expect(page.locator("main iframe").first).to_be_visible()
    assert "allow-same-origin" not in (page.locator("main iframe").first.get_attribute("sandbox") or "")
    assert page.title() != "ran"
    # The frame's own script is what the policy is there to stop, and the browser says so.
    visitor.problems[:] = [
        said for said in visitor.problems if "Blocked script execution" not in said and "sandbox" not in said
    ]


def test_two_thousand_metrics_mount_few_charts(visitor: Visitor, server: Server) -> None:
    page = visitor.open(server, "#/run/odd/wide")
    wait_for_curve(page.locator(".panel").first)
    assert page.locator(".panel").count() > 100
    assert page.locator(".panel canvas").count() <= 60  # uPlot has one for each chart
    page.keyboard.press("/")
    page.keyboard.type("layer199/w9")
    expect(page.locator(".panel")).to_have_count(1)


def test_chart_is_saved_as_svg_png_and_csv(visitor: Visitor, server: Server) -> None:
    page = visitor.open(server, "#/run/long/spike")
    panel = chart(page, "loss")
    wait_for_curve(panel)

    def saved(role: str, name: str) -> bytes:
        panel.locator("summary").click()
        with page.expect_download() as download:
            panel.get_by_role(role, name=name).click()
        return Path(download.value.path()).read_bytes()

    svg = saved("button", "Save as SVG")
    assert svg.lstrip().startswith(b"<svg") and b"<path" in svg and b"loss" in svg and b"<image" not in svg
    assert saved("button", "Save as PNG").startswith(b"\x89PNG")
    lines = list(csv.DictReader(io.StringIO(saved("link", "Save all values as CSV").decode())))
    assert len(lines) == 100_000
    assert max(float(line["loss"]) for line in lines) == SPIKE


LIVE = """
import asynctrack, sys
run = asynctrack.init("live", id="run", dir=sys.argv[1], linger_s=0.01)
for step in range(100):
    run.log({"loss": 1.0}, step=step)
run.flush("journaled")
print("ready", flush=True)
for line in sys.stdin:
    step += 1
    run.log({"loss": float(line)}, step=step)
run.finish()
"""


def test_chart_grows_with_its_run(visitor: Visitor, tmp_path: Path) -> None:
    with start(LIVE, tmp_path) as logger:
        assert logger.stdin is not None and logger.stdout is not None and logger.stdout.readline()
        with serving(tmp_path) as server:
            page = visitor.open(server, "#/run/live/run")
            wait_for_curve(chart(page, "loss"))
            expect(page.locator("main")).to_contain_text("running")
            for value in range(42, 48):  # whenever a value comes, it is seen
                logger.stdin.write(f"{value}\n")
                logger.stdin.flush()
                expect(chart(page, "loss").locator("[class*=legend]").first).to_contain_text(str(value))
            logger.stdin.close()
            expect(page.locator("main")).to_contain_text("finished")
            assert logger.wait(20) == 0
            page.goto("about:blank")  # so that it asks nothing of a server that has ended


def test_page_says_when_its_server_is_gone(visitor: Visitor, runs_directory: Path) -> None:
    with serving(runs_directory) as server:
        page = visitor.open(server, "#/run/long/spike")
        wait_for_curve(chart(page, "loss"))
    expect(page.locator(".banner")).to_contain_text("does not answer")
    visitor.problems[:] = [said for said in visitor.problems if "ERR_" not in said]
